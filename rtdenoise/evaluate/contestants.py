"""Who is compared: the outputs of trained bundles, and every untrained filter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rtdenoise import bundle as bundles
from rtdenoise.bundle import Bundle
from rtdenoise.engine import filters
from rtdenoise.engine.merged import Latency, merged_window
from rtdenoise.errors import ConfigError
from rtdenoise.frame import WindowSpec
from rtdenoise.simulate import PRESETS

RAW = "identity"
"""The filter that changes nothing: its scores are the raw movie's."""


@dataclass(slots=True, frozen=True)
class Contestant:
    """One output of one model. model: bundle name or folder, or a filter.

    window: as its engine will say, at hop 1; at the hop of a whole block where a network emits blocks that are not merged.
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
    """The full output and, where that waits for later frames and another does not, the causal one."""
    facts, name = bundle.manifest.window, model or str(bundle.path)
    side = bundle.manifest.min_side
    full = Contestant(name, bundle.name, "full", True, _window(bundle, "full"), side)
    if full.lookahead == 0 or facts.emits[-1] != facts.size - 1:
        return [full]
    return [full, Contestant(name, f"{bundle.name} (causal)", "causal", True, _window(bundle, "causal"), side)]


def hop_of(model: str) -> int:
    """New frames per run of a bundle's full output, or of a filter. Raises BundleError when there is no such bundle."""
    return 1 if model in filters.FILTERS else outputs_of(bundles.read(model))[0].window.hop


def _window(bundle: Bundle, latency: Latency) -> WindowSpec:
    facts = bundle.manifest.window
    if bundle.manifest.merge == "halving":
        return merged_window(facts.size, 1, latency)
    if latency == "causal":
        return WindowSpec(facts.size, (facts.emits[-1],))
    return WindowSpec(facts.size, facts.emits, len(facts.emits))


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
