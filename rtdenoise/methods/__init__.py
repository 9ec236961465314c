"""Published networks and how they learn: one file or package per method."""
