"""What to simulate: one frozen settings model and named presets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from rtdenoise import config
from rtdenoise.config import Settings
from rtdenoise.errors import ConfigError

Side = Annotated[int, Field(ge=16)]


@dataclass(slots=True, frozen=True)
class Indicator:
    """Shape of one spike's fluorescence: `dff * (1 - exp(-t/rise_s)) * exp(-t/decay_s)`, soft-limited at `saturation` dF/F."""

    rise_s: float
    decay_s: float
    dff: float
    saturation: float


# Engineering choices: half-rise of ~100 ms before GCaMP8 and ~2 ms after it (Zhang 2023) and CaImAn's and Suite2p's default decays
# bound them; no table of in-vivo values per indicator exists.
INDICATORS: Mapping[str, Indicator] = {
    "gcamp6f": Indicator(rise_s=0.030, decay_s=0.25, dff=0.30, saturation=6.0),
    "gcamp6s": Indicator(rise_s=0.090, decay_s=0.90, dff=0.45, saturation=6.0),
    "gcamp8f": Indicator(rise_s=0.006, decay_s=0.10, dff=0.40, saturation=5.0),
    "gcamp8m": Indicator(rise_s=0.006, decay_s=0.18, dff=0.55, saturation=5.0),
}


class SimParams(Settings):
    """Everything a simulated movie depends on; the same parameters give the same movie, pixel for pixel.

    Lengths in um, times in s, rates in Hz, detector numbers in camera counts (ADU). Anatomy follows NAOMi's volume defaults
    (1e5 neurons/mm3, soma radius 6.6 um, 2e3 apical dendrites/mm2), the PMT NAOMi's detector (100 counts per photon, variance 2300,
    bleed probability 0.3 and mean 0.4); the bleed reproduces the correlation of 0.05-0.13 along the fast axis of raw two-photon movies.
    The rest are engineering choices, compared by eye with real recordings.

    snr_db: input SNR, 10 log10(sum clean^2 / sum noise^2) without the offset; None takes `photons_per_px` instead.
    power_step: laser power factor from the middle of the movie on. bleach_s: decay time of bleaching, None for none.
    bidi_px: offset of every second row. bg_modes: spatially smooth modes that modulate the neuropil.
    polarity: +1 or -1, the sign of a voltage spike. flow_label: `cells` are bright in dark plasma, `plasma` the other way round.
    """

    kind: Literal["calcium", "voltage", "flow"] = "calcium"
    shape: tuple[Side, Side] = (512, 512)
    n_frames: int = Field(default=500, ge=2)
    frame_rate_hz: float = Field(default=30.0, gt=0)
    um_per_px: float = Field(default=1.0, gt=0)
    seed: int = Field(default=0, ge=0)

    density_per_mm3: float = Field(default=1.0e5, ge=0)
    slab_um: float = 24.0
    soma_radius_um: float = 6.6
    nucleus_fraction: float = 0.72
    nucleus_level: float = 0.10
    min_distance_um: float = 13.0
    psf_xy_um: float = 0.45
    psf_z_um: float = 3.0
    apical_per_mm2: float = 2.0e3
    dendrites_per_cell: float = 4.0
    neuropil_mean: float = 0.55
    neuropil_sd: float = 0.18
    bg_modes: int = Field(default=16, ge=1)
    vessels: bool = True

    indicator: Literal["gcamp6f", "gcamp6s", "gcamp8f", "gcamp8m"] = "gcamp6f"
    burst_rate_hz: float = Field(default=0.5, ge=0)
    burst_spikes: float = Field(default=3.0, ge=1)
    active_fraction: float = Field(default=0.85, ge=0, le=1)
    shared_events_hz: float = Field(default=0.15, ge=0)

    drift_um: float = 0.6
    jitter_um: float = 0.08
    bouts_hz: float = Field(default=0.08, ge=0)
    bout_um: float = Field(default=2.0, ge=0)
    bidi_px: float = 0.3
    bleach_s: float | None = 400.0
    power_step: float = Field(default=1.0, gt=0)

    detector: Literal["pmt", "scmos"] = "pmt"
    snr_db: float | None = 3.0
    photons_per_px: float = Field(default=2.0, gt=0)
    gain: float = Field(default=100.0, gt=0)
    gain_variance: float = Field(default=2300.0, ge=0)
    read_sd: float = Field(default=8.0, ge=0)
    dark_photons: float = Field(default=0.05, ge=0)
    bleed_probability: float = Field(default=0.3, ge=0, le=1)
    bleed_mean: float = Field(default=0.4, ge=0, le=0.5)
    line_sd: float = Field(default=1.0, ge=0)
    pickup_amplitude: float = Field(default=0.0, ge=0)
    dropped_line_fraction: float = Field(default=0.0, ge=0, le=1)
    offset: float = 100.0
    adc_max: int = Field(default=32767, le=65535)

    voltage_cells: int = Field(default=14, ge=0)
    spike_rate_hz: float = 6.0
    spike_dff: float = 0.12
    subthreshold_dff: float = 0.03
    polarity: Literal[-1, 1] = 1
    voltage_background: float = 0.8

    flow_vessels: int = Field(default=3, ge=0)
    flow_um_per_s: float = 150.0
    flow_cells_per_100um: float = 6.0
    flow_label: Literal["cells", "plasma"] = "cells"


_STILL = {"drift_um": 0.2, "jitter_um": 0.02, "bouts_hz": 0.02}
_SILENT = {"active_fraction": 0.0, "shared_events_hz": 0.0, "neuropil_sd": 0.0, "bleach_s": None}
_FROZEN = {"drift_um": 0.0, "jitter_um": 0.0, "bouts_hz": 0.0}
_CAMERA = {"detector": "scmos", "gain": 2.2, "read_sd": 3.5, "dark_photons": 0.3, "line_sd": 0.3, "adc_max": 65535}

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "calcium": {},
    "calcium_hz15_meso": {
        "frame_rate_hz": 15.0,
        "um_per_px": 2.0,
        "psf_xy_um": 0.7,
        "density_per_mm3": 8e4,
        "indicator": "gcamp6s",
    },
    "calcium_fast8f": {"indicator": "gcamp8f", "burst_spikes": 2.0},
    "calcium_motion": {"drift_um": 2.0, "jitter_um": 0.3, "bouts_hz": 0.3, "bout_um": 5.0},
    "calcium_artifact": {"bidi_px": 1.0, "pickup_amplitude": 25.0, "line_sd": 15.0, "dropped_line_fraction": 0.002},
    "power_step": {"power_step": 1.6},
    "voltage": {
        "kind": "voltage",
        "shape": (96, 256),
        "n_frames": 2000,
        "frame_rate_hz": 500.0,
        "um_per_px": 0.8,
        "psf_xy_um": 0.5,
        "snr_db": None,
        "photons_per_px": 120.0,
        "bidi_px": 0.0,
        **_CAMERA,
        **_STILL,
    },
    "voltage2p": {
        "kind": "voltage",
        "shape": (64, 400),
        "n_frames": 2000,
        "frame_rate_hz": 1000.0,
        "snr_db": 8.0,
        "bidi_px": 0.0,
        "spike_dff": 0.25,
        **_STILL,
    },
    "flow": {"kind": "flow", "shape": (256, 256), "n_frames": 300, "um_per_px": 0.8, "drift_um": 0.3, "bouts_hz": 0.02},
    "flow_plasma": {
        "kind": "flow",
        "shape": (256, 256),
        "n_frames": 300,
        "frame_rate_hz": 60.0,
        "um_per_px": 0.6,
        "drift_um": 0.3,
        "flow_label": "plasma",
        "flow_um_per_s": 400.0,
    },
    "silent": {**_SILENT, **_FROZEN},
}
"""What each preset changes. `silent`: nothing happens, so any dynamics in a denoised movie are invented."""


def preset(name: str, **overrides: Any) -> SimParams:
    """Parameters of a named preset with some changed. Raises ConfigError for an unknown preset, key or value."""
    if name not in PRESETS:
        raise ConfigError(f"unknown simulation preset {name!r}; known: {', '.join(PRESETS)}")
    return config.build(SimParams, {**PRESETS[name], **overrides}, f"simulation {name}")
