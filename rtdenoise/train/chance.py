"""Where all chance of a training comes from: the seed, what is drawn, and the place in the training.

Nothing is carried from step to step, so a run that goes on from a checkpoint draws what it would have drawn.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import torch


class Draws(IntEnum):
    """What is drawn; each has a stream of numbers of its own."""

    CROPS = 0
    TASK = 1
    HELD_OUT = 2


def generator(seed: int, draws: Draws, *place: int) -> torch.Generator:
    """A fresh CPU generator for one place: a step, a step of one process, a validation batch."""
    (state,) = np.random.SeedSequence((seed, draws, *place)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))  # a seed with the top bit set counts as negative
