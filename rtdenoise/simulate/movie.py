"""The whole simulation: scene, motion and scan, detector."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtdenoise.simulate.activity import SpikeTimes, Traces
from rtdenoise.simulate.calcium import calcium_scene
from rtdenoise.simulate.detectors import Detector, make_detector, photon_scale, power
from rtdenoise.simulate.flow import flow_scene
from rtdenoise.simulate.motion import scan, shifts_px
from rtdenoise.simulate.params import INDICATORS, Indicator, SimParams
from rtdenoise.simulate.scene import Mask, Scene
from rtdenoise.simulate.voltage import voltage_scene

_SCENES = {"calcium": calcium_scene, "voltage": voltage_scene, "flow": flow_scene}


class KnownFromParams:
    """What the parameters alone say of a movie."""

    __slots__ = ()
    params: SimParams

    @property
    def frame_rate_hz(self) -> float:
        """Frames per second."""
        return self.params.frame_rate_hz

    @property
    def indicator(self) -> Indicator | None:
        """The calcium indicator, None for voltage and flow movies."""
        return INDICATORS[self.params.indicator] if self.params.kind == "calcium" else None

    @property
    def polarity(self) -> int:
        """Sign of a voltage spike."""
        return self.params.polarity


@dataclass(slots=True, frozen=True)
class Simulated(KnownFromParams):
    """A movie and the truth behind it.

    noisy: (T, Y, X) camera counts, int16 (PMT) or uint16 (sCMOS).  clean: (T, Y, X) float32 expected counts, the offset included;
    it has the motion, scan skew and line phase of `noisy`, which is the same up to noise, rounding and clipping.
    offset: counts without light.  snr_in_db: input SNR reached.  photons_per_px: detected photons, mean over the movie.
    Per cell: traces (N, T) F/F0, spikes (s), masks (rows, columns), depths_um from focus.  shifts_px: (T, 2) displacement (y, x).
    """

    noisy: NDArray[np.int16] | NDArray[np.uint16]
    clean: NDArray[np.float32]
    offset: float
    snr_in_db: float
    photons_per_px: float
    traces: Traces
    spikes: list[SpikeTimes]
    masks: list[Mask]
    depths_um: list[float]
    shifts_px: NDArray[np.float64]
    params: SimParams


def simulate(params: SimParams) -> Simulated:
    """Make a movie with ground truth; deterministic in `params`.

    Memory: the two movies (6 bytes per pixel and frame) plus some tens of frames.
    """
    scene_rng, motion_rng, detector_rng = (np.random.default_rng([params.seed, stage]) for stage in range(3))
    scene = _SCENES[params.kind](scene_rng, params)
    shifts = shifts_px(motion_rng, params)
    clean = _record_brightness(scene, shifts, params)
    mean_brightness = float(clean.mean(dtype=np.float64))
    scale = params.photons_per_px / mean_brightness
    if params.snr_db is not None:
        scale = photon_scale(clean[:: max(1, params.n_frames // 5)][:6], params, params.snr_db)
    detector = make_detector(params, detector_rng)
    noisy, snr_in_db = _detect(clean, scale, detector, detector_rng, params)
    return Simulated(
        noisy=noisy,
        clean=clean,
        offset=params.offset,
        snr_in_db=snr_in_db,
        photons_per_px=scale * mean_brightness,
        traces=scene.traces,
        spikes=scene.spikes,
        masks=scene.masks,
        depths_um=scene.depths_um,
        shifts_px=shifts,
        params=params,
    )


def _record_brightness(scene: Scene, shifts: NDArray[np.float64], params: SimParams) -> NDArray[np.float32]:
    movie = np.empty((params.n_frames, *params.shape), np.float32)
    power_now = _laser_power(params)
    ends = np.concatenate([shifts[1:], shifts[-1:]])
    for k, image in enumerate(scene.frames()):
        movie[k] = scan(image, params.shape, shifts[k], ends[k], params.bidi_px)
        movie[k] *= power_now[k]
    return movie


def _laser_power(params: SimParams) -> NDArray[np.float32]:
    """(T,) power step and bleaching; a voltage scene bleaches by itself, faster."""
    index = np.arange(params.n_frames)
    level = np.where(index >= params.n_frames // 2, params.power_step, 1.0)
    if params.bleach_s is not None and params.kind != "voltage":
        level = level * np.exp(-index / params.frame_rate_hz / params.bleach_s)
    return level.astype(np.float32)


def _detect(
    clean: NDArray[np.float32], scale: float, detector: Detector, rng: np.random.Generator, params: SimParams
) -> tuple[NDArray[np.int16] | NDArray[np.uint16], float]:
    """Noisy counts and input SNR; brightness in `clean` is replaced by expected counts."""
    noisy = np.empty(clean.shape, detector.dtype)
    lowest = np.iinfo(detector.dtype).min
    signal = noise = 0.0
    for k, brightness in enumerate(clean):
        photons = brightness * np.float32(scale)
        clean[k] = detector.mean(photons)
        counts = detector.counts(rng, photons)
        signal += power(clean[k] - np.float32(params.offset))
        noise += power(counts - clean[k])
        noisy[k] = np.clip(np.rint(counts, out=counts), lowest, params.adc_max, out=counts)
    return noisy, float(10 * np.log10(signal / noise))
