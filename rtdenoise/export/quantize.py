"""How int8 is made of float: the ways that are tried, and what both quantisers share."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rtdenoise.export.edges import Layer

Array = NDArray[np.float32]
Sample = tuple[Array, ...]
"""One array per graph input, in the graph's order."""


@dataclass(slots=True, frozen=True)
class Quantizing:
    """How int8 is made of float.

    n_first, n_last: layers in a row from the inputs and to the output that stay in float: the first, whose input has the
    movie's whole range, and the last, or the last two (engines sheet 5: they halve what int8 takes from bright transients,
    for 12 % of the time).
    between: what lies between the layers with weights (sums, products, means). In int8 it is fastest; where a network
    normalises inside (TeD, SRDTrans, DeepSeMi) or carries sums from step to step, most of the error is made there.
    spare: share of the error that single layers make, one at a time, whose layers stay in float: a few make nearly all of it.
    ranges: of activations, the widest of all samples, or the mean of every sample's own, which cuts what is rarely reached for
    finer steps below.
    headroom: contrast, in that of the clips, of the brightest samples: cells brighter than those of the clips must not be
    cut. Without it int8 took 10 % (UMVD) to 45 % (SUPPORT) from the brightest pixels of movies brighter than the clips; more
    of it makes every step coarser.
    """

    n_first: int = 1
    n_last: int = 1
    between: Literal["int8", "float"] = "int8"
    spare: float = 0.0
    ranges: Literal["widest", "mean"] = "widest"
    headroom: float = 1.5

    def __str__(self) -> str:
        ranges = f"{self.ranges} ranges, headroom {self.headroom:g}"
        kept = f"first {self.n_first} and last {self.n_last} layers in float"
        between = ", and what lies between layers" if self.between == "float" else ""
        spared = f", and those that make {self.spare:.0%} of the error" if self.spare else ""
        return f"{ranges}, {kept}{between}{spared}"


TRIED: dict[str, tuple[Quantizing, ...]] = {
    "int8": (
        Quantizing(),
        Quantizing(n_last=2),
        Quantizing(n_last=2, ranges="mean"),
        Quantizing(n_last=2, between="float"),
        Quantizing(n_last=2, between="float", headroom=2.5),
        Quantizing(n_last=2, between="float", spare=0.9),
    ),
    "qdq": (Quantizing(n_last=2), Quantizing(2, 3), Quantizing(3, 4, headroom=2.2)),
}
"""In turn, the faster first, until a bundle is within its target's tolerances. UMVD needs the widest ranges (with means it
lost 70 % of the brightest pixels of one clip), DeepVID v2 the means (0.05 dB lost instead of 0.4).
"""


def connect(layers: dict[str, Layer], one: str, next_one: str) -> None:
    """Say that `next_one` takes what `one` gives."""
    layers[one].after.append(next_one)
    layers[next_one].before.append(one)


def carries_frames(name: str) -> bool:
    """Whether a graph's input is frames, or what was computed of older ones; not what a network carries from step to step."""
    return not name.startswith("state_")


def first_line(error: Exception) -> str:
    """Of what a library had to say."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Both quantisers print progress and advice."""
    levels = {name: logging.getLogger(name).level for name in ("nncf", "")}
    sink = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
        warnings.simplefilter("ignore")
        for name in levels:
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
