"""Networks as ONNX graphs in a bundle, compared with PyTorch before they are written.

Needs the `train` extra and onnxruntime; nothing of the live path imports this package.
"""

from rtdenoise.errors import MissingExtraError

try:
    import onnx  # noqa: F401 - only to say in one line what is missing
    import torch  # noqa: F401
except ImportError as error:
    raise MissingExtraError(error.name or "torch", "train") from None

from rtdenoise.export.pack import BundleFacts, export_bundle, run_export
from rtdenoise.export.target import Target
from rtdenoise.export.weights import load_network

__all__ = ["BundleFacts", "Target", "export_bundle", "load_network", "run_export"]
