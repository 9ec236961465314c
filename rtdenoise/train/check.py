"""How far a network is from the truth of simulated movies, offline and in torch (live figures come from the stream)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from rtdenoise.methods.base import Method, Network
from rtdenoise.train.movies import Movie

Stack = NDArray[np.float32]


def denoised(method: Method, network: Network, movie: Movie, batch: int = 1) -> Stack:
    """(T, Y, X) counts: every window of the movie once, overlapping outputs merged as the method says; edges
    trimmed. batch: windows that the network takes at a time.
    """
    normal = np.empty(movie.counts.shape, np.float32)
    movie.normalization.apply(movie.counts, normal)
    network.eval()
    merged, n_windows = normal.copy(), len(normal) - network.window.size + 1
    for first in range(0, n_windows, batch):
        starts = range(first, min(first + batch, n_windows))
        for start, output in zip(starts, _outputs(network, normal, starts), strict=True):
            _merge(method, network, merged, start, output)
    for out in merged:
        movie.normalization.invert(out, out)
    return merged


def gains(method: Method, network: Network, movies: Sequence[Movie], batch: int = 1) -> dict[str, float]:
    """`gain_db` of every movie, by its name, over the frames that a whole window predicts."""
    window, found = network.window, {}
    for movie in movies:
        predicted = slice(window.emits[0], max(window.size, len(movie.counts)) - window.lookahead)
        found[movie.name] = gain_db(movie, denoised(method, network, movie, batch), predicted)
    return found


def gain_db(movie: Movie, output: Stack, frames: slice = slice(None)) -> float:
    """How much lower the mean squared error is than the raw movie's; what PSNR gains, whatever its data range."""
    if movie.clean is None:
        raise ValueError(f"{movie.name} has no truth to compare with")
    clean, raw = movie.clean[frames], movie.counts[frames]
    before = np.mean(np.square(np.subtract(raw, clean, dtype=np.float32)), dtype=np.float64)
    after = np.mean(np.square(output[frames] - clean), dtype=np.float64)
    return float(10 * np.log10(before / after))


def _outputs(network: Network, normal: Stack, starts: range) -> Stack:
    """(windows, K, Y, X) of the windows that begin at `starts`."""
    device = next(network.parameters()).device
    windows = torch.from_numpy(np.stack([normal[start : start + network.window.size] for start in starts]))
    with torch.no_grad():
        output: Stack = network(windows.to(device).contiguous(memory_format=torch.channels_last)).cpu().numpy()
    return output


def _merge(method: Method, network: Network, merged: Stack, start: int, output: Stack) -> None:
    emits = network.window.emits
    seen = merged[start : start + network.window.size][list(emits)]
    halve = method.merge == "halving" and start > 0
    mixed = np.concatenate([(seen[:-1] + output[:-1]) / 2, output[-1:]]) if halve else output
    merged[start + emits[0] : start + emits[-1] + 1] = mixed
