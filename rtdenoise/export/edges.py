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
    """Names of the first and last heavy layers, sorted: those with fewer than `n_first` others before them on every path from
    `inputs`, and those with fewer than `n_last` behind them on every path to `output`.

    Every path: SUPPORT adds the frame before each of its large layers, which are most of its work and lose nothing in int8.
    """
    onward = {name: layer.after for name, layer in layers.items()}
    back = {name: layer.before for name, layer in layers.items()}
    return sorted(_shallow(inputs, onward, layers, n_first) | _shallow([output], back, layers, n_last))


def _shallow(
    starts: Iterable[str], onward: Mapping[str, Sequence[str]], layers: Mapping[str, Layer], depth: int
) -> set[str]:
    """Heavy layers with fewer than `depth` others on the longest way from `starts`."""
    order = _downstream(starts, onward)
    passed = dict.fromkeys(order, 0)
    for name in order:
        for later in onward[name]:
            passed[later] = max(passed[later], passed[name] + layers[name].heavy)
    return {name for name in order if layers[name].heavy and passed[name] < depth}


def _downstream(starts: Iterable[str], onward: Mapping[str, Sequence[str]]) -> list[str]:
    """All that `starts` lead to, each after what leads to it."""
    order: list[str] = []
    seen: set[str] = set()
    waiting = [(name, False) for name in starts]
    while waiting:
        name, is_done = waiting.pop()
        if is_done:
            order.append(name)
        elif name not in seen:
            seen.add(name)
            waiting.append((name, True))
            waiting += [(later, False) for later in onward[name] if later not in seen]
    return order[::-1]
