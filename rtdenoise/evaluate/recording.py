"""A recording without truth: what a model takes away, what two independent halves agree on, and how noisy traces remain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdenoise.engine.load import factory_for
from rtdenoise.errors import ConfigError
from rtdenoise.evaluate.streaming import Streamed, streamed
from rtdenoise.files import MovieInfo, open_movie
from rtdenoise.metrics import (
    NoiseSpectrum,
    PhotonTransfer,
    ResidualChecks,
    RingCorrelation,
    delta_f_over_f,
    noise_spectrum,
    photon_transfer,
    residual_checks,
    ring_correlation,
    temporal_correlation,
    trace_noise,
)
from rtdenoise.settings import EngineSettings

Counts = NDArray[np.integer | np.floating]
FEWEST_SCORED = 8
TILE_PX = 8
"""Side of the squares that stand for cells where no masks are known: about a soma at 1 to 1.5 um per pixel. Engineering choice."""
N_SMOOTHED = 5
"""Frames that are averaged to see which tile changes. Engineering choice."""
BRIGHT_TILES = 0.25
"""Share of the tiles, the brightest of the raw movie, that traces are taken from. Engineering choice."""


@dataclass(slots=True, frozen=True)
class Recorded:
    """One channel of one plane. counts: (T, Y, X).  frame_rate_hz: None when neither the file nor the user says."""

    name: str
    counts: Counts
    frame_rate_hz: float | None
    um_per_px: float | None


@dataclass(slots=True, frozen=True)
class Halves:
    """Odd against even frames, which share no noise. single: frame by frame.  mean: their means over time."""

    single: RingCorrelation
    mean: RingCorrelation


@dataclass(slots=True, frozen=True)
class Reading:
    """What is known of one output, the raw movie included.

    residual: of raw - output, None for raw.  halves: None where the other half was not denoised.  t1: correlation of single pixels
    with the next frame.  nu: noise of dF/F traces, % per sqrt(Hz), nan without a frame rate or light.  mean, frame: pictures.
    trace: mean of the tile that changes most, counts.
    """

    label: str
    residual: ResidualChecks | None
    halves: Halves | None
    spectrum: NoiseSpectrum
    t1: float
    nu: float
    mean: NDArray[np.float32]
    frame: NDArray[np.float32]
    trace: NDArray[np.float64]
    lookahead: int | None = None
    ms_per_frame: float | None = None
    engine: str | None = None


@dataclass(slots=True, frozen=True)
class Examination:
    """A recording and every output of it. first_frame, n_frames: the frames that were looked at, the same for all."""

    recorded: Recorded
    noise: PhotonTransfer
    readings: tuple[Reading, ...]
    first_frame: int
    n_frames: int


def load(
    path: Path,
    *,
    n_frames: int | None = None,
    fps: float | None = None,
    channel: int = 0,
    channels: int | None = None,
    dataset: str | None = None,
) -> Recorded:
    """The first frames of one channel of a file's first plane, in memory. Raises FileFormatError or ConfigError."""
    with open_movie(path, channels=channels, dataset=dataset) as movie:
        info = movie.info
        if not 0 <= channel < info.channels:
            raise ConfigError(
                f"{path} has {info.channels} channels; --channel {channel} is none of 0 to {info.channels - 1}"
            )
        step = info.channels * info.planes
        stop = len(range(channel, info.n_images, step))
        n = min(stop, n_frames or stop)
        counts: Counts = np.empty((n, *info.shape), info.dtype)
        for k in range(n):
            movie.read_into(channel + k * step, counts[k : k + 1])
    return Recorded(path.name, counts, fps or _rate(info), info.um_per_px)


def _rate(info: MovieInfo) -> float | None:
    return 1 / info.frame_interval_s if info.frame_interval_s else None


def examine(recorded: Recorded, models: Sequence[EngineSettings]) -> Examination:
    """The raw movie and every model's output of it; each model runs three times: on all, on the odd and on the even frames.

    Raises ConfigError for a movie too short for the longest window, and what a bundle or an engine can raise.
    """
    counts = recorded.counts
    shape = (counts.shape[1], counts.shape[2])
    factories = [factory_for(model, shape) for model in models]
    windows = [_window(each) for each in factories]
    before, after = (max((w[i] for w in windows), default=0) for i in (0, 1))
    if len(counts) < 2 * (before + after + FEWEST_SCORED):
        needed = 2 * (before + after + FEWEST_SCORED)
        raise ConfigError(
            f"{recorded.name}: {len(counts)} frames are too few for the longest window: {needed} are needed"
        )
    part, half = slice(before, len(counts) - after), slice(before, len(counts) // 2 - after)
    noise = photon_transfer(counts)
    readings = [read("raw", recorded, counts, noise, part, (counts[0::2][half], counts[1::2][half]))]
    for model, made_by, (_, lookahead) in zip(models, factories, windows, strict=True):
        outputs = [streamed(frames, model, made_by) for frames in (counts, counts[0::2], counts[1::2])]
        halves = (outputs[1].frames[half], outputs[2].frames[half])
        readings.append(read(_label(model), recorded, outputs[0].frames, noise, part, halves, outputs[0], lookahead))
    return Examination(recorded, noise, tuple(readings), before, part.stop - part.start)


def compare(recorded: Recorded, label: str, denoised: Counts, first_frame: int) -> Examination:
    """The raw movie and what another program made of its frames `first_frame ..`; `denoised` is (T, Y, X)."""
    part = slice(first_frame, first_frame + len(denoised))
    noise = photon_transfer(recorded.counts)
    raw = read("raw", recorded, recorded.counts, noise, part)
    whole = Recorded(recorded.name, recorded.counts[part], recorded.frame_rate_hz, recorded.um_per_px)
    return Examination(
        recorded, noise, (raw, read(label, whole, denoised, noise, slice(None))), first_frame, len(denoised)
    )


def read(
    label: str,
    recorded: Recorded,
    output: Counts,
    noise: PhotonTransfer,
    part: slice,
    halves: tuple[Counts, Counts] | None = None,
    stream: Streamed | None = None,
    lookahead: int | None = None,
) -> Reading:
    """Frames `part` of one output of a recording. halves: of the same output, without shared noise."""
    raw, seen = recorded.counts[part], output[part]
    return Reading(
        label=label,
        residual=None if output is recorded.counts else residual_checks(raw, seen, noise),
        halves=_agreement(*halves) if halves else None,
        spectrum=noise_spectrum(seen),
        t1=temporal_correlation(seen),
        nu=_tile_noise(raw, seen, noise.zero, recorded.frame_rate_hz),
        mean=seen.mean(axis=0, dtype=np.float64).astype(np.float32),
        frame=seen[len(seen) // 2].astype(np.float32),
        trace=_tiles(seen)[:, _liveliest(raw)],
        lookahead=lookahead,
        ms_per_frame=stream.ms_per_frame if stream else None,
        engine=stream.engine.backend if stream else None,
    )


def _agreement(odd: Counts, even: Counts) -> Halves:
    n = min(len(odd), len(even))
    means = [half[:n].mean(axis=0, dtype=np.float64) for half in (odd, even)]
    return Halves(ring_correlation(odd[:n], even[:n]), ring_correlation(means[0], means[1]))


def _tile_noise(raw: Counts, seen: Counts, zero: float, frame_rate_hz: float | None) -> float:
    """CASCADE's nu, median over the brightest tiles of the raw movie; nan without a frame rate, or where those hold no light."""
    order = np.argsort(_tiles(raw.mean(axis=0, dtype=np.float64)[None]).ravel())
    bright = order[-max(1, int(BRIGHT_TILES * len(order))) :]
    traces = _tiles(seen)[:, bright].T - zero
    if frame_rate_hz is None or not np.isfinite(zero) or np.median(traces) <= 0:
        return float("nan")
    return float(np.median(trace_noise(delta_f_over_f(traces), frame_rate_hz)))


def _liveliest(raw: Counts) -> int:
    """The tile of the raw movie that changes most over some frames, where its noise has averaged out."""
    tiles = _tiles(raw)
    n = max(1, len(tiles) // N_SMOOTHED)
    smooth = tiles[: n * N_SMOOTHED].reshape(n, -1, tiles.shape[1]).mean(axis=1)
    return int(np.argmax(smooth.std(axis=0)))


def _tiles(movie: Counts) -> NDArray[np.float64]:
    """(T, N) mean of every whole tile; smaller frames are one tile."""
    tile = min(TILE_PX, *movie.shape[1:])
    n_y, n_x = movie.shape[1] // tile, movie.shape[2] // tile
    cut = movie[:, : n_y * tile, : n_x * tile].reshape(len(movie), n_y, tile, n_x, tile)
    return np.asarray(cut.mean(axis=(2, 4), dtype=np.float64).reshape(len(movie), n_y * n_x))


def _window(made_by: Any) -> tuple[int, int]:
    """(earlier, later) frames of an engine's window. (Any: a factory.)"""
    with made_by.make() as engine:
        return engine.window.emits[0], engine.window.latency_frames


def _label(model: EngineSettings) -> str:
    name = Path(model.model).name
    return f"{name} (causal)" if model.latency == "causal" else name
