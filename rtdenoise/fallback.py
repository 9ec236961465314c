"""What comes next when the denoise process has died: a stated chain, so that nobody has to guess at the rig."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from rtdenoise.engine import filters
from rtdenoise.engine.backends import AUTO
from rtdenoise.settings import EngineSettings

MAX_RESTARTS = 3
"""Deaths after which raw frames only are left, where no other engine may take over. Engineering choice."""
RESTARTS_OF_ONE = 1
"""Times that `auto` gives the same engine another chance: drivers do recover, and broken ones do not. Engineering choice."""


@dataclass(slots=True, frozen=True)
class Step:
    """What is done next. says: in words for a person.  raw_only: denoising is given up.  wait_s: before it is done."""

    says: str
    raw_only: bool = False
    wait_s: float = 0.0


LONGEST_WAIT_S = 10.0
"""Between two processes for raw frames alone, where each of them dies. Engineering choice."""
RAW_ONLY = Step("raw frames only from here", raw_only=True)


@dataclass(slots=True)
class Fallback:
    """Counts the deaths of a run by the engine that was open, or being opened.

    replaceable: whether another engine may take over: only where nobody named one. Then each engine is restarted once, and after
    its second death left out (`without`) for the rest of the run. Otherwise, and where a process died before it came to an
    engine, the same is tried three times; then raw frames only are left, until the run ends (`given_up`). A process that dies of
    raw frames, too, is started again for ever, because a full disk or a stuck port may pass, but less and less often.
    """

    replaceable: bool
    without: tuple[str, ...] = ()
    given_up: bool = False
    _raw_deaths: int = 0
    _deaths: dict[str, int] = field(default_factory=dict)

    def after(self, engine: str) -> Step:
        """The next step after a death with this engine, empty when none was open yet."""
        if self.given_up:
            self._raw_deaths += 1
            return replace(RAW_ONLY, wait_s=min(LONGEST_WAIT_S, 0.25 * 2**self._raw_deaths))
        n = self._deaths[engine] = self._deaths.get(engine, 0) + 1
        if self.replaceable and engine:
            if n <= RESTARTS_OF_ONE:
                return Step(f"restart with {engine}")
            self.without += (engine,)
            return Step(f"going on without {engine}")
        if n <= MAX_RESTARTS:
            return Step(f"restart {n}")
        self.given_up = True
        return RAW_ONLY


def fallback_for(engine: EngineSettings) -> Fallback:
    """The chain behind what was asked for: an engine that somebody named is never replaced by another."""
    return Fallback(replaceable=engine.backend == AUTO and engine.model not in filters.FILTERS)
