"""A network's weights in a bundle."""

from __future__ import annotations

import io

import numpy as np
import torch

from rtdenoise.bundle import Bundle
from rtdenoise.errors import BundleError
from rtdenoise.methods import base
from rtdenoise.methods.base import Method, Network

WEIGHTS = "weights.npz"


def load_network(bundle: Bundle) -> tuple[Method, Network]:
    """The method and its network with the bundle's weights, in eval mode. Raises BundleError when they do not fit."""
    method = base.load(bundle.manifest.method)
    path = bundle.path / WEIGHTS
    if WEIGHTS not in bundle.manifest.checksums:
        raise BundleError(
            f"{bundle.path}: it ships no {WEIGHTS}, only graphs; export from the bundle that training wrote"
        )
    network = method.network(**bundle.manifest.method_config)
    try:
        with np.load(path, allow_pickle=False) as stored:
            network.load_state_dict({name: torch.from_numpy(stored[name]) for name in stored.files})
    except (RuntimeError, ValueError, OSError) as error:
        raise BundleError(f"{path}: does not hold the weights of {method.name}: {error}") from None
    return method, network.eval()


def weights_of(network: Network) -> bytes:
    """The content of `weights.npz`."""
    stored = io.BytesIO()
    np.savez_compressed(stored, **{name: tensor.cpu().numpy() for name, tensor in network.state_dict().items()})
    return stored.getvalue()
