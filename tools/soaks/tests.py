"""The twelve, by number."""

from __future__ import annotations

from soaks import frozen, long, slow, stall
from soaks.asked import SoakTest

_ALL: tuple[SoakTest, ...] = (stall, slow, frozen, long)
TESTS: dict[int, SoakTest] = {test.number: test for test in sorted(_ALL, key=lambda test: test.number)}
