"""Recording a run: pixels as OME-Zarr, their stamps, what was lost, and what happened, in one folder that can be read at any time."""
