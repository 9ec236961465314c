"""Optical flow on scenes that move by known amounts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from rtdenoise.nn.flow import optical_flow, warped

EDGE = 8  # pixels where what was outside the first image comes in


def scene(right: float = 0.0, down: float = 0.0, noise: float = 0.0, seed: int = 0) -> Tensor:
    """(1, 1, 90, 97) of sixty cells, sd 1, moved; `noise` is the sd of what is added."""
    place, chance = np.random.default_rng(3), np.random.default_rng(seed)
    y, x = np.mgrid[:90, :97].astype(float)
    image = np.zeros_like(y)
    for _ in range(60):
        cy, cx, brightness, radius = (place.uniform(*span) for span in ((-5, 95), (-5, 100), (0.5, 2), (3, 6)))
        image += brightness * np.exp(-((y - cy - down) ** 2 + (x - cx - right) ** 2) / 2 / radius**2)
    image = (image - image.mean()) / image.std() + noise * chance.standard_normal(image.shape)
    return torch.from_numpy(image).float()[None, None]


def inner(flow: Tensor) -> Tensor:
    return flow[..., EDGE:-EDGE, EDGE:-EDGE]


def error(flow: Tensor, right: float, down: float) -> float:
    return float((inner(flow) - torch.tensor([right, down])[:, None, None]).square().sum(1).mean().sqrt())


SHIFTS = [(0.0, 0.0), (0.5, 0.3), (2.5, -1.5), (-6.0, 4.0)]


@pytest.mark.parametrize(("right", "down"), SHIFTS)
def test_a_known_shift_is_found(right: float, down: float) -> None:
    assert error(optical_flow(scene(), scene(right, down)), right, down) < 0.03 + 0.1 * np.hypot(right, down)


@pytest.mark.parametrize(("right", "down"), SHIFTS)
def test_a_known_shift_is_found_under_noise_as_strong_as_the_scene(right: float, down: float) -> None:
    flow = optical_flow(scene(noise=1.0, seed=1), scene(right, down, noise=1.0, seed=2))
    assert error(flow, right, down) < 0.6 + 0.1 * np.hypot(right, down)
    assert torch.allclose(inner(flow).mean((0, 2, 3)), torch.tensor([right, down]), atol=0.5)


def test_warping_by_the_flow_brings_the_second_image_onto_the_first() -> None:
    first, second = scene(), scene(2.5, -1.5)
    brought = warped(second, optical_flow(first, second))
    before, after = ((inner(image - first)).square().mean() for image in (second, brought))
    assert after < 0.02 * before


def test_a_whole_pixel_warp_moves_pixels_exactly_and_repeats_the_edge() -> None:
    image = torch.arange(20.0).reshape(1, 1, 4, 5)
    right = torch.zeros(1, 2, 4, 5)
    right[:, 0] = 1
    wanted = torch.cat([image[..., 1:], image[..., -1:]], -1)
    torch.testing.assert_close(warped(image, right), wanted, rtol=0, atol=1e-5)


def test_the_brightness_unit_does_not_matter() -> None:
    first, second = scene(noise=0.2, seed=1), scene(1.0, 2.0, noise=0.2, seed=2)
    torch.testing.assert_close(optical_flow(300 * first, 300 * second), optical_flow(first, second), rtol=0, atol=1e-3)


def test_a_flat_image_does_not_move() -> None:
    flat = torch.full((1, 1, 32, 32), 7.0)
    assert not optical_flow(flat, flat).any()
