"""TeD: temporal-gradient empowered denoising with Swin transformers, PhotoniX 2025.

Built from the published description; the weights of the authors' code load by name.
"""

from rtdenoise.methods.base import Method
from rtdenoise.methods.ted.network import TedNetwork
from rtdenoise.methods.ted.task import TedTask
from rtdenoise.methods.ted.upstream import from_upstream

METHOD = Method(
    name="ted",
    title="TeD: pixel pairs and temporal gradients on 41 frames",
    reference="10.1186/s43074-025-00173-8",
    network=TedNetwork,
    task=TedTask,
    narrow={"embed": 16, "stem": 8, "heads": 2, "groups": 2, "depth": 2, "drop": 0.0},
    from_upstream=from_upstream,
    terms="The authors published code and weights without a licence: ask them before you use or pass on their weights.",
)

__all__ = ["METHOD", "TedNetwork", "TedTask", "from_upstream"]
