"""The twelve, by number."""

from __future__ import annotations

from soaks import accounting, cycles, frozen, fuzzed, killed_recorder, long, slow, stall, suites, window_soak
from soaks.asked import SoakTest

_ALL: tuple[SoakTest, ...] = (
    accounting,
    window_soak,
    suites.LIVE_IS_BATCH,
    stall,
    slow,
    frozen,
    cycles,
    suites.HOSTILE_SOURCE,
    killed_recorder,
    long,
    suites.ENGINE_FAULTS,
    fuzzed,
)
TESTS: dict[int, SoakTest] = {test.number: test for test in _ALL}
