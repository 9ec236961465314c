"""Small movies whose pixels say which frame they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from rtdenoise.frame import Frame, FrameStamp


def counting_frames(
    n: int, shape: tuple[int, int] = (6, 5), *, series: str = "s", lost_before: Iterable[int] = ()
) -> Iterator[Frame]:
    """Frame k holds the value k everywhere; before every frame in `lost_before` one camera frame is missing."""
    lost = set(lost_before)
    n_lost = 0
    for k in range(n):
        n_lost += k in lost
        stamp = FrameStamp(series, frame=k, src_frame=k + n_lost, t_in=k * 1_000_000, dropped=int(k in lost))
        yield Frame(np.full(shape, k, np.int16), stamp)


def noisy_frames(n: int, shape: tuple[int, int], seed: int = 0) -> list[np.ndarray]:
    """`n` int16 frames of Poisson noise around a ramp, some values negative."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(5, 60, shape[0] * shape[1]).reshape(shape)
    return [(rng.poisson(ramp) - 30).astype(np.int16) for _ in range(n)]
