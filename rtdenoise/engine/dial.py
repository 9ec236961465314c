"""How late a model's frames may come out: which look-aheads the same weights can run at, and with which window."""

from __future__ import annotations

from typing import Literal

from rtdenoise.bundle import Bundle, WindowFacts
from rtdenoise.engine.merged import Merging, merged_window
from rtdenoise.engine.stepped import stepped_window
from rtdenoise.errors import ConfigError
from rtdenoise.frame import WindowSpec

Latency = Literal["full", "causal"] | int
"""As late as is best, at once, or a look-ahead of so many frames."""


def runs_stepped(bundle: Bundle, latency: Latency) -> bool:
    """Whether this output comes from the network run as a stream."""
    step = bundle.manifest.step
    return step is not None and (latency == "full" or _frames(latency) >= stepped_window(step).lookahead)


def window_of(bundle: Bundle, latency: Latency = "full", hop: int = 1) -> WindowSpec:
    """The window that a stream of this output has. Raises ConfigError for a look-ahead or a hop that there is not."""
    facts, step = bundle.manifest.window, bundle.manifest.step
    if bundle.manifest.merge == "halving":
        return merged_window(facts.size, hop, merging(bundle, latency))
    if step is not None and runs_stepped(bundle, latency):
        if hop not in (1, len(step.emits)):
            raise ConfigError(f"{bundle.name} runs in steps of {len(step.emits)} frames; leave the hop out")
        return stepped_window(step)
    most = len(facts.emits) if latency == "full" else _last(bundle.name, facts, latency, 1) - facts.emits[0] + 1
    if hop > most:
        raise ConfigError(f"{bundle.name} gives {most} frames at once at most, not {hop}; lower the hop")
    last = _last(bundle.name, facts, latency, hop)
    first = last - hop + 1
    return WindowSpec(facts.size, range(first, last + 1), hop)


def hops_of(bundle: Bundle, latency: Latency, first: int) -> list[int]:
    """New frames per run that a stream may have, smallest first, from the hop asked for."""
    if runs_stepped(bundle, latency):
        return [window_of(bundle, latency, first).hop]
    facts = bundle.manifest.window
    most = facts.hop or len(facts.emits)
    if latency != "full" and bundle.manifest.merge == "none":
        most = min(most, _last(bundle.name, facts, latency, 1) - facts.emits[0] + 1)
    return [first, *(hop for hop in (2**k for k in range(8)) if first < hop <= most)]


def lookaheads_of(bundle: Bundle) -> list[int]:
    """0, 1, 2, 4, ... as far as the window goes, then the full output's, in frames at the smallest hop."""
    full, facts = window_of(bundle).lookahead, bundle.manifest.window
    if bundle.manifest.merge == "halving":
        return sorted({0, full})
    least = facts.size - 1 - facts.emits[-1]
    powers = [0, *(2**k for k in range(8))]
    return sorted({least, full, *(k for k in powers if least <= k < full and k <= facts.size // 2)})


def merging(bundle: Bundle, latency: Latency) -> Merging:
    """Which of its two outputs a merged network gives. Raises ConfigError for a look-ahead between them."""
    most = bundle.manifest.window.size - 1
    if latency in ("causal", 0):
        return "causal"
    if latency == "full" or _frames(latency) >= most:
        return "full"
    raise ConfigError(f"{bundle.name} has no output with a look-ahead of {latency}; use 0 or full ({most})")


def _frames(latency: Latency) -> int:
    return 0 if latency == "causal" else int(latency)


def _middle(facts: WindowFacts, hop: int) -> int:
    """Last of the `hop` positions in the middle."""
    return facts.emits[(len(facts.emits) - hop) // 2] + hop - 1


def _last(name: str, facts: WindowFacts, latency: Latency, hop: int) -> int:
    """Position of the newest frame that comes out of a run."""
    middle = _middle(facts, hop)
    if latency == "full":
        return middle
    wanted = facts.size - 1 - _frames(latency)
    if wanted > facts.emits[-1]:
        waits = facts.size - 1 - facts.emits[-1]
        raise ConfigError(
            f"{name} has no output with a look-ahead of {_frames(latency)}: it waits for {waits} frames; "
            f"use --latency full, or {waits} and more"
        )
    return max(wanted, middle)
