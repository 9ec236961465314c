"""A movie in memory, denoised as a live run would: frame by frame, calibrated on the first frames."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtdenoise.calibration import frames_needed, starting_normalization
from rtdenoise.engine.base import EngineInfo
from rtdenoise.engine.load import EngineFactory, factory_for
from rtdenoise.frame import Frame, FrameStamp, Pixels
from rtdenoise.settings import EngineSettings
from rtdenoise.stream import StreamingDenoiser


@dataclass(slots=True, frozen=True)
class Streamed:
    """frames: (T, Y, X) float32 counts.  engine: what was bound.

    ms_per_frame: processor time in the denoiser per frame that came in, mean; with one thread the time it takes on an idle core.
    """

    frames: NDArray[np.float32]
    ms_per_frame: float
    engine: EngineInfo


def factory(asked: EngineSettings, counts: Pixels) -> EngineFactory:
    """Opens `asked` for movies of this frame size; compiles once for all of them."""
    return factory_for(asked, (counts.shape[1], counts.shape[2]))


def streamed(counts: Pixels, asked: EngineSettings, made_by: EngineFactory | None = None) -> Streamed:
    """Every frame of `counts` (T, Y, X) once, denoised at hop 1 or the hop asked for.

    Raises BundleError, EngineError, MissingExtraError or ConfigError.
    """
    out = np.empty(counts.shape, np.float32)
    spent_s = 0.0
    normalization = starting_normalization(asked, list(counts[: frames_needed(asked)]))
    with (made_by or factory(asked, counts)).make() as engine:
        denoiser = StreamingDenoiser(engine, normalization, (counts.shape[1], counts.shape[2]))
        for k, pixels in enumerate(counts):
            spent_s += _collect(denoiser.push(Frame(pixels, FrameStamp("evaluate", k, k, t_in=0))), out)
        spent_s += _collect(denoiser.flush(), out)
        return Streamed(out, 1e3 * spent_s / len(counts), engine.describe())


def _collect(frames: Iterator[Frame], out: NDArray[np.float32]) -> float:
    """Copy what comes out to its place; returns the processor seconds spent denoising, not copying."""
    spent_s, start = 0.0, time.process_time()
    for frame in frames:
        spent_s += time.process_time() - start
        out[frame.stamp.frame] = frame.pixels
        start = time.process_time()
    return spent_s + time.process_time() - start
