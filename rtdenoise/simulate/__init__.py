"""Simulated two-photon, voltage and flow movies with ground truth.

`simulate(preset("calcium", seed=1, snr_db=0.0, shape=(256, 256), n_frames=1000))` gives the noisy movie, its expectation and the spikes.
Needs scipy.
"""

from rtdenoise.errors import MissingExtraError

try:
    import scipy  # noqa: F401 - only to say in one line what is missing
except ImportError:
    raise MissingExtraError("scipy", "live") from None

from rtdenoise.simulate.movie import KnownFromParams, Simulated, simulate
from rtdenoise.simulate.params import INDICATORS, PRESETS, Indicator, SimParams, preset

__all__ = ["INDICATORS", "PRESETS", "Indicator", "KnownFromParams", "SimParams", "Simulated", "preset", "simulate"]
