"""DeepCAD-RT: DeepCAD with a sixteenth of its parameters and turned clips, Nat. Biotechnology 2023.

Built from the published description; the weights of the authors' code load by name. Differences from the publication
are DeepCAD's (see `rtdenoise.methods.deepcad`), and one more: the authors subtract the movie's mean, as here, but divide
by nothing.
"""

from __future__ import annotations

from functools import partial

from rtdenoise.methods.base import Method
from rtdenoise.methods.deepcad import UNet3dNetwork, from_upstream
from rtdenoise.methods.view_pairs import ViewPairsTask

WIDTH = 16
"""Maps of the first level (sheet B 4.2)."""

METHOD = Method(
    name="deepcadrt",
    title="DeepCAD-RT: narrow 3-D U-Net between interlaced frames",
    reference="10.1038/s41587-022-01450-8",
    network=partial(UNet3dNetwork, width=WIDTH),
    task=ViewPairsTask,
    narrow={"width": 8, "frames": 16},
    from_upstream=from_upstream,
    upstream_units="fixed",
    terms="The authors' weights come under GPL-3.0: whoever passes them on passes them on under it.",
)
