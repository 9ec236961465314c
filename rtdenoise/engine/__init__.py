"""A bundle loaded on a device, ready to run."""
