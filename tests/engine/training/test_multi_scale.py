from __future__ import annotations

import torch

from engine.training.multi_scale import rescaled, scaled_side


def test_scaled_sides_are_multiples_from_half_to_one_and_a_half_and_depend_on_nothing_else() -> None:
    sides = [scaled_side(640, 32, 0, 3, batch) for batch in range(300)]
    assert set(sides) == set(range(320, 961, 32))
    assert sides == [scaled_side(640, 32, 0, 3, batch) for batch in range(300)]
    assert sides != [scaled_side(640, 32, 0, 4, batch) for batch in range(300)]
    assert {scaled_side(32, 32, 0, 0, batch) for batch in range(9)} == {32}


def test_rescaling_keeps_means_and_the_same_size_is_the_same_tensor() -> None:
    images = torch.rand(2, 3, 64, 64)
    assert rescaled(images, 64) is images
    for side in (32, 96):
        other = rescaled(images, side)
        assert other.shape == (2, 3, side, side)
        torch.testing.assert_close(other.mean((2, 3)), images.mean((2, 3)), atol=0.01, rtol=0)
