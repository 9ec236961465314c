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
    """(T, Y, X) counts: windows one after the other, of a block network as many as it takes, and what each keeps; where
    outputs overlap they are merged as the method says. What no window gives stays raw. batch: windows at a time.
    """
    normal = np.empty(movie.counts.shape, np.float32)
    movie.normalization.apply(movie.counts, normal)
    network.eval()
    merged, starts, kept = normal.copy(), _starts(network, len(normal)), _kept(network)
    for first in range(0, len(starts), batch):
        together = starts[first : first + batch]
        for start, output in zip(together, _outputs(network, normal, together), strict=True):
            _merge(method, merged[start + kept.start : start + kept.stop], start, output[_rows(network)])
    for out in merged:
        movie.normalization.invert(out, out)
    return merged


def gains(method: Method, network: Network, movies: Sequence[Movie], batch: int = 1) -> dict[str, float]:
    """`gain_db` of every movie, by its name, over the frames that a whole window predicts."""
    kept, found = _kept(network), {}
    for movie in movies:
        starts = _starts(network, len(movie.counts))
        predicted = slice(kept.start, (starts[-1] if starts else 0) + kept.stop)
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


def _rows(network: Network) -> slice:
    """Which of its outputs a window keeps: all, or of a block network the `hop` in the middle."""
    n, hop = len(network.window.emits), network.window.hop
    first = (n - hop) // 2
    return slice(first, first + hop) if 1 < hop < n else slice(0, n)


def _kept(network: Network) -> range:
    """Their positions in the window."""
    rows = _rows(network)
    return range(network.window.emits[rows.start], network.window.emits[rows.stop - 1] + 1)


def _starts(network: Network, n_frames: int) -> range:
    """First frames of the windows that a movie holds."""
    return range(0, n_frames - network.window.size + 1, network.window.hop)


def _outputs(network: Network, normal: Stack, starts: range) -> Stack:
    """(windows, K, Y, X) of the windows that begin at `starts`."""
    device = next(network.parameters()).device
    windows = torch.from_numpy(np.stack([normal[start : start + network.window.size] for start in starts]))
    with torch.no_grad():
        output: Stack = network(windows.to(device).contiguous(memory_format=torch.channels_last)).cpu().numpy()
    return output


def _merge(method: Method, merged: Stack, start: int, output: Stack) -> None:
    """`output` into its place."""
    halve = method.merge == "halving" and start > 0
    merged[:] = np.concatenate([(merged[:-1] + output[:-1]) / 2, output[-1:]]) if halve else output
