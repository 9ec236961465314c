"""How training judges a network against the truth: by the frames that its windows keep, and by no others."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from rtdenoise.frame import WindowSpec
from rtdenoise.methods import base
from rtdenoise.methods.base import Method, Network
from rtdenoise.train import check
from rtdenoise.train.movies import Movie, of_counts

T, HOP, EDGE = 8, 4, 2


class GoodInTheMiddle(Network):
    """Halves what it sees in the middle of its block, and is far off at its ends."""

    def __init__(self) -> None:
        super().__init__()
        self.window = WindowSpec(T, range(T), hop=HOP)
        self.facts = {}
        self.weight = torch.nn.Parameter(torch.tensor(0.5))

    def forward(self, frames: Tensor) -> Tensor:
        position = torch.arange(T)[None, :, None, None]
        inside = (position >= EDGE) & (position < EDGE + HOP)
        return torch.where(inside, frames * self.weight, frames + 100)


@pytest.fixture
def movie() -> Movie:
    rng = np.random.default_rng(0)
    counts = rng.poisson(50, (22, 16, 16)).astype(np.uint16)
    return of_counts("noise", counts, np.full(counts.shape, counts.mean(), np.float32))


@pytest.fixture
def method() -> Method:
    return base.load("deepcadrt")


def test_a_block_network_is_judged_by_the_middle_of_its_blocks(method: Method, movie: Movie) -> None:
    gain = check.gains(method, GoodInTheMiddle(), [movie])["noise"]
    assert gain == pytest.approx(20 * np.log10(2), abs=0.05)


@pytest.mark.parametrize("batch", [1, 3])
def test_blocks_follow_each_other_and_what_none_gives_stays_raw(method: Method, movie: Movie, batch: int) -> None:
    output = check.denoised(method, GoodInTheMiddle(), movie, batch)
    offset = movie.normalization.offset
    halved = offset + (movie.counts - offset) / 2
    covered = slice(EDGE, EDGE + 4 * HOP)  # four blocks of 8 begin at 0, 4, 8 and 12; a fifth does not fit
    np.testing.assert_allclose(output[covered], halved[covered], rtol=1e-5)
    np.testing.assert_allclose(output[:EDGE], movie.counts[:EDGE], rtol=1e-5)
    np.testing.assert_allclose(output[covered.stop :], movie.counts[covered.stop :], rtol=1e-5)
