"""The twelve tests that a rig may rely on; `tools/soak.py` runs them by number."""
