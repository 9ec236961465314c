"""Which layers of a graph stand first and last: those that stay in float when it is quantised."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(slots=True)
class Layer:
    """One operation. heavy: multiplies its input with weights.  before, after: names of its neighbours."""

    heavy: bool
    before: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)


def first_and_last(
    layers: Mapping[str, Layer], inputs: Iterable[str], output: str, n_first: int, n_last: int
) -> list[str]:
    """Names of the first and last heavy layers in a row on the paths from `inputs` to `output`, sorted."""
    first = _outermost(inputs, {name: layer.after for name, layer in layers.items()}, layers, n_first)
    last = _outermost([output], {name: layer.before for name, layer in layers.items()}, layers, n_last)
    return sorted(first | last)


def _outermost(
    starts: Iterable[str], onward: Mapping[str, Sequence[str]], layers: Mapping[str, Layer], depth: int
) -> set[str]:
    """Heavy layers with fewer than `depth` others on the shortest way from `starts`."""
    found: set[str] = set()
    for _ in range(depth):
        starts = _next_heavy(starts, onward, layers)
        found |= starts
    return found


def _next_heavy(starts: Iterable[str], onward: Mapping[str, Sequence[str]], layers: Mapping[str, Layer]) -> set[str]:
    """The heavy layers that are reached from `starts` through light ones."""
    waiting, seen, heavy = list(starts), set[str](), set[str]()
    while waiting:
        for name in onward[waiting.pop()]:
            if name in seen:
                continue
            seen.add(name)
            if layers[name].heavy:
                heavy.add(name)
            else:
                waiting.append(name)
    return heavy
