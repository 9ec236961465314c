"""Who is compared: the outputs of trained bundles, and every untrained filter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rtdenoise import bundle as bundles
from rtdenoise.bundle import Bundle
from rtdenoise.engine import filters
from rtdenoise.engine.dial import Latency, lookaheads_of, window_of
from rtdenoise.errors import ConfigError
from rtdenoise.frame import WindowSpec
from rtdenoise.simulate import PRESETS

RAW = "identity"
"""The filter that changes nothing: its scores are the raw movie's."""


@dataclass(slots=True, frozen=True)
class Contestant:
    """One output of one model. model: bundle name or folder, or a filter.

    window: as its engine will say, at the hop that it is run at.
    """

    model: str
    label: str
    latency: Latency
    trained: bool
    window: WindowSpec
    min_side: int = 1

    @property
    def before(self) -> int:
        """Earlier frames that a full window holds beside the frame that it gives."""
        return self.window.emits[0]

    @property
    def lookahead(self) -> int:
        """Later frames that it waits for at most."""
        return self.window.latency_frames


def untrained() -> list[Contestant]:
    """Every filter, the raw movie first."""
    windows = {name: filters.create(name, (16, 16)).window for name in filters.FILTERS}
    names = sorted(windows, key=lambda name: name != RAW)
    return [Contestant(name, "raw" if name == RAW else name, "full", False, windows[name]) for name in names]


def rivals(of: list[Contestant]) -> list[Contestant]:
    """The raw movie, and the filters that wait no longer than the slowest of these."""
    patience = max(contestant.lookahead for contestant in of)
    return [contestant for contestant in untrained() if contestant.lookahead <= patience]


def outputs_of(bundle: Bundle, model: str = "") -> list[Contestant]:
    """The full output and, of a merged network, the causal one, which costs no more.

    The full output of a block network comes at its published hop; of its shorter waits, a whole block per frame, tells `dial_of`.
    """
    name, merged = model or str(bundle.path), bundle.manifest.merge == "halving"
    facts, side = bundle.manifest.window, bundle.manifest.min_side
    hop = 1 if merged or bundle.manifest.step else facts.hop or len(facts.emits)
    full = Contestant(name, bundle.name, "full", True, window_of(bundle, "full", hop), side)
    if not merged:
        return [full]
    return [full, Contestant(name, f"{bundle.name} (causal)", "causal", True, window_of(bundle, "causal"), side)]


def dial_of(bundle: Bundle) -> list[Contestant]:
    """The same weights at every look-ahead that they can run at, at their smallest hop, ascending; the last is the full output."""
    frames = lookaheads_of(bundle)
    latencies: list[Latency] = [*frames[:-1], "full"]
    return [
        Contestant(
            str(bundle.path),
            f"{bundle.name} ({latency})",
            latency,
            True,
            window_of(bundle, latency),
            bundle.manifest.min_side,
        )
        for latency in latencies
    ]


def hop_of(model: str) -> int:
    """New frames per run of a bundle's full output, or of a filter. Raises BundleError when there is no such bundle."""
    return 1 if model in filters.FILTERS else outputs_of(bundles.read(model))[0].window.hop


def shipped() -> list[Bundle]:
    """Every bundle in the package, by name."""
    return [bundles.read(path.parent) for path in sorted(bundles.BUILTIN.glob(f"*/{bundles.MANIFEST}"))]


def meant_for(bundle: Bundle) -> str | None:
    """The preset that stands for what a bundle learned from; None when it did not learn from simulated movies.

    All kinds of calcium movies are `calcium`; camera and two-photon voltage movies are told apart.
    """
    groups = _simulated(bundle)
    name = str(groups[0].get("preset")) if groups else ""
    if name not in PRESETS:
        return None
    kind = str(PRESETS[name].get("kind", "calcium"))
    return name if kind == "voltage" else kind


def check_seeds(bundle: Bundle, seeds: range) -> None:
    """Raises ConfigError when a bundle learned from one of these seeds: what it has seen is no test."""
    seen = sorted({seed for group in _simulated(bundle) for seed in group.get("seeds", ())} & set(seeds))
    if seen:
        raise ConfigError(f"{bundle.name} was trained on seeds {seen}; choose others with --first-seed")


def _simulated(bundle: Bundle) -> list[dict[str, Any]]:
    recipe: Any = bundle.manifest.provenance.get("recipe") or {}
    groups: list[dict[str, Any]] = recipe.get("data", {}).get("simulated", [])
    return groups
