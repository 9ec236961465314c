"""DeepSeMi against numbers made with the authors' network, and with the checkpoints that they published."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rtdenoise.methods import base
from rtdenoise.methods.base import Network
from tests import golden_rule

DEEPSEMI = base.load("deepsemi")
CASES = golden_rule.names("deepsemi_")
FP32 = 2e-4  # of the output's sd; the authors' own float32 differs from float64 by up to 1e-5
FP16_WORST, FP16_RMS = 6e-2, 1.2e-2


def imported(case: golden_rule.Case, **facts: int | float | str) -> Network:
    """All positions of the block come out, in the order of fusion that the stored numbers were made with."""
    assert DEEPSEMI.from_upstream is not None
    depth = case.meta["output_shape"][2]
    facts = {"net_type": case.meta["config"]["net_type"], "depth": depth, "keep": depth, "fusion": "identity", **facts}
    return DEEPSEMI.from_upstream(case.state_dict(), **facts)


def movie(case: golden_rule.Case) -> torch.Tensor:
    _, context, depth, *size = case.meta["input_shape"][0]
    return torch.from_numpy(golden_rule.frames((1, depth + context - 1, *size), case.meta["phase"]))


def error(mine: torch.Tensor, wanted: np.ndarray) -> float:
    return float(np.abs(mine.detach().numpy() - wanted).max() / wanted.std())


@pytest.mark.parametrize("name", CASES)
def test_imported_weights_give_the_authors_output(name: str) -> None:
    case = golden_rule.case(name)
    network, x = imported(case), movie(case)
    np.testing.assert_allclose(x.flatten()[:8], case.arrays["in_first"][0], rtol=1e-6)
    with torch.no_grad():
        print(name, error(network(x), case.arrays["out"][0]))
        assert error(network(x), case.arrays["out"][0]) < FP32


@pytest.mark.parametrize("name", CASES)
def test_every_output_depends_on_the_voxels_it_should(name: str) -> None:
    case = golden_rule.case(name)
    x = movie(case).requires_grad_()
    depth, height, width = case.meta["output_shape"][2:]
    row, column, wanted = height // 2, width // 2, case.arrays["jac0"][0]
    (gradient,) = torch.autograd.grad(imported(case)(x)[0, depth // 2, row, column], x)
    near = gradient[0, :, row - 4 : row + 5, column - 4 : column + 5].numpy()
    print(name, np.abs(near - wanted).max() / np.abs(wanted).max())
    assert np.abs(near - wanted).max() <= 1e-4 * np.abs(wanted).max()
    assert np.array_equal(near == 0, wanted == 0)
    np.testing.assert_allclose(gradient[0].abs().sum((1, 2)), case.arrays["frame_grad0"][0], rtol=2e-3)
