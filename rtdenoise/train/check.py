"""How far a network is from the truth of simulated movies, offline and in torch (live figures come from the stream)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from rtdenoise.methods.base import Method, Network
from rtdenoise.train.movies import Movie

Stack = NDArray[np.float32]


def denoised(method: Method, network: Network, movie: Movie) -> Stack:
    """(T, Y, X) counts: every window of the movie once, overlapping outputs merged as the method says; edges
    trimmed.
    """
    normal = np.empty(movie.counts.shape, np.float32)
    for frame, out in zip(movie.counts, normal, strict=True):
        movie.normalization.apply(frame, out)
    network.eval()
    spec, merged = network.window, normal.copy()
    with torch.no_grad():
        for start in range(len(normal) - spec.size + 1):
            window = torch.from_numpy(normal[None, start : start + spec.size])
            output = network(window.contiguous(memory_format=torch.channels_last))[0].numpy()
            seen = merged[start : start + spec.size][list(spec.emits)]
            halve = method.merge == "halving" and start > 0
            mixed = np.concatenate([(seen[:-1] + output[:-1]) / 2, output[-1:]]) if halve else output
            merged[start + spec.emits[0] : start + spec.emits[-1] + 1] = mixed
    for out in merged:
        movie.normalization.invert(out, out)
    return merged


def gain_db(movie: Movie, output: Stack) -> float:
    """How much lower the mean squared error is than the raw movie's; what PSNR gains, whatever its data range."""
    if movie.clean is None:
        raise ValueError(f"{movie.name} has no truth to compare with")
    before = np.mean(np.square(np.subtract(movie.counts, movie.clean, dtype=np.float32)), dtype=np.float64)
    after = np.mean(np.square(output - movie.clean), dtype=np.float64)
    return float(10 * np.log10(before / after))
