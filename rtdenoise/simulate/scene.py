"""What every scene gives: brightness frame by frame, and the truth about its cells."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rtdenoise.simulate.activity import SpikeTimes, Traces
from rtdenoise.simulate.anatomy import Image
from rtdenoise.simulate.motion import MARGIN_PX
from rtdenoise.simulate.params import SimParams

Mask = tuple[NDArray[np.int32], NDArray[np.int32]]
"""Rows and columns of one cell's pixels."""


@dataclass(slots=True, frozen=True)
class Scene:
    """frames: brightness images (Y + 2 margins, X + 2 margins). Per cell: trace F/F0, spike times (s), mask, depth (um from focus)."""

    frames: Callable[[], Iterator[Image]]
    traces: Traces
    spikes: list[SpikeTimes] = field(default_factory=list)
    masks: list[Mask] = field(default_factory=list)
    depths_um: list[float] = field(default_factory=list)


def canvas(params: SimParams) -> tuple[int, int]:
    """Shape (Y, X) of a brightness image: the frame plus a margin on every side."""
    return params.shape[0] + 2 * MARGIN_PX, params.shape[1] + 2 * MARGIN_PX


def mask_in_frame(pixels: NDArray[np.integer], params: SimParams) -> Mask:
    """Rows and columns within the frame of flat canvas indices."""
    rows, cols = np.divmod(pixels, canvas(params)[1])
    rows, cols = rows - MARGIN_PX, cols - MARGIN_PX
    inside = (rows >= 0) & (rows < params.shape[0]) & (cols >= 0) & (cols < params.shape[1])
    return rows[inside].astype(np.int32), cols[inside].astype(np.int32)
