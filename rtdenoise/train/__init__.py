"""Train a method by a recipe: noisy clips in, a bundle out.

Needs the `train` extra; nothing of the live path imports this package.
"""

from rtdenoise.errors import MissingExtraError

try:
    import torch  # noqa: F401 - only to say in one line what is missing
except ImportError:
    raise MissingExtraError("torch", "train") from None
try:
    import lightning_fabric  # noqa: F401
except ImportError:
    raise MissingExtraError("lightning-fabric", "train") from None

from rtdenoise.train.recipe import Recipe
from rtdenoise.train.run import train

__all__ = ["Recipe", "train"]
