"""Augmentations: each tile as torchvision's functional makes it, and how often and how strongly over many tiles."""

from __future__ import annotations

import math

import pytest
import torch
import torchvision.transforms.v2.functional as functional
from torchvision.transforms.v2 import InterpolationMode

from eosin import augment
from eosin.errors import UsageError


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(1)


@pytest.fixture
def tiles(generator):
    """Seven tiles of noise, one white, one grey: hue and contrast meet their edges."""
    x = torch.rand(9, 3, 40, 37, generator=generator)
    x[7], x[8] = 1.0, 0.5
    return x


def each(function, tiles, values) -> torch.Tensor:
    return torch.stack([function(tile, value.tolist()) for tile, value in zip(tiles, values, strict=True)])


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue"])
def test_colours_change_as_torchvision_changes_them(tiles, generator, name):
    low, high = (-0.5, 0.5) if name == "hue" else (0, 2)
    values = augment.uniform(generator, len(tiles), low=low, high=high)
    expected = each(getattr(functional, f"adjust_{name}"), tiles, values)
    torch.testing.assert_close(getattr(augment, f"change_{name}")(tiles, values), expected, atol=2e-6, rtol=0)


def test_blur_is_torchvisions(tiles, generator):
    sigmas = augment.uniform(generator, len(tiles), low=0.1, high=2)
    expected = each(lambda tile, sigma: functional.gaussian_blur(tile, [9, 9], [sigma, sigma]), tiles, sigmas)
    torch.testing.assert_close(augment.gaussian(tiles, 9, sigmas), expected, atol=2e-6, rtol=0)


def test_the_kernel_of_a_blur_is_a_gaussian():
    dot = torch.zeros(1, 3, 21, 21)
    dot[..., 10, 10] = 1
    blurred = augment.gaussian(dot, 9, torch.tensor([1.5]))[0, 0]
    assert math.isclose(float(blurred.sum()), 1, rel_tol=1e-5)
    assert int((blurred > 0).sum()) == 81, "nine by nine"
    assert math.isclose(float(blurred[10, 12] / blurred[10, 10]), math.exp(-0.5 * (2 / 1.5) ** 2), rel_tol=1e-5)


def test_grey_and_solarise_are_torchvisions(tiles, generator):
    grey = functional.rgb_to_grayscale(tiles, 3)
    torch.testing.assert_close(augment.grey(tiles, generator, 1.0), grey, atol=1e-6, rtol=0)
    assert torch.equal(augment.solarise(tiles, generator, 1.0), functional.solarize(tiles, 128 / 255))
    assert augment.grey(tiles, generator, 0.0) is tiles


@pytest.mark.parametrize("size", [24, 64])
def test_resized_crops_are_torchvisions(tiles, generator, size):
    boxes = augment.crop_boxes(len(tiles), 40, 37, (0.1, 1), (3 / 4, 4 / 3), generator)
    expected = torch.stack(
        [
            functional.resized_crop(tile, *box.tolist(), [size, size], InterpolationMode.BICUBIC, antialias=True)
            for tile, box in zip(tiles, boxes, strict=True)
        ]
    )
    made = augment.resize(tiles, boxes, size)
    torch.testing.assert_close(made, expected.clamp(0, 1), atol=2e-6, rtol=0)
    again = augment.resized_crop(tiles, size, (0.1, 1), (3 / 4, 4 / 3), generator.manual_seed(1))
    assert again.shape == made.shape and again.min() >= 0 and again.max() <= 1


def test_crop_boxes_have_the_areas_and_ratios_asked_for(generator):
    top, left, height, width = augment.crop_boxes(4000, 224, 256, (0.32, 1), (3 / 4, 4 / 3), generator).unbind(1)
    assert (top >= 0).all() and (left >= 0).all() and (top + height <= 224).all() and (left + width <= 256).all()
    share, ratio = height * width / (224 * 256), width / height
    assert share.min() > 0.31 and share.max() <= 1 and ratio.min() > 0.74 and ratio.max() < 1.35
    square = augment.crop_boxes(4000, 224, 224, (0.05, 0.32), (3 / 4, 4 / 3), generator)
    share, ratio = square[:, 2] * square[:, 3] / 224**2, square[:, 3] / square[:, 2]
    assert abs(share.mean() - 0.185) < 0.005, "all small squares fit: the area is uniform"
    assert abs(ratio.log().mean()) < 0.01, "as often wide as tall"
    assert abs(square[:, 0].float().mean() - (224 - square[:, 2]).float().mean() / 2) < 2, "all places alike"


def test_where_no_rectangle_fits_the_middle_is_taken(generator):
    boxes = augment.crop_boxes(3, 100, 10, (0.9, 1), (1, 1), generator)
    assert boxes.tolist() == [[45, 0, 10, 10]] * 3
    boxes = augment.crop_boxes(2, 10, 100, (0.9, 1), (1, 2), generator)
    assert boxes.tolist() == [[0, 40, 10, 20]] * 2


def test_random_crops_are_squares_of_the_tile_from_everywhere(generator):
    x = torch.arange(8 * 9).reshape(1, 1, 8, 9).expand(2000, 3, 8, 9).float()
    crops = augment.random_crop(x, 6, generator)
    corner = crops[:, 0, 0, 0].long()
    top, left = corner // 9, corner % 9
    assert torch.equal(crops[5], x[5, :, top[5] : top[5] + 6, left[5] : left[5] + 6])
    counts = torch.bincount(top * 4 + left)
    assert len(counts) == 12 and (counts - 2000 / 12).abs().max() < 5 * (2000 / 12) ** 0.5
    with pytest.raises(UsageError, match="crop of 10 px does not fit in tiles of 9x8 px"):
        augment.random_crop(x, 10, generator)


@pytest.mark.parametrize(("axis", "p"), [(-1, 0.5), (-2, 0.5), (-1, 0.1)])
def test_flips_happen_as_often_as_asked(generator, axis, p):
    x = torch.arange(4.0).reshape(1, 1, 2, 2).expand(4000, 3, 2, 2)
    made = augment.flip(x, generator, p, axis)
    flipped = (made == x.flip(axis)).all(dim=(1, 2, 3))
    assert torch.equal(made[~flipped], x[~flipped])
    assert abs(flipped.float().mean() - p) < 4 * (p * (1 - p) / 4000) ** 0.5


def test_jitter_has_the_ranges_and_the_rate_asked_for(generator):
    x = torch.full((4000, 3, 2, 2), 0.5)
    x = augment.jitter(x, generator, 0.5, 0.15, 0.0, 0.0, 0.0)
    factor = x[:, 0, 0, 0] * 2
    changed = (factor - 1).abs() > 1e-6
    assert abs(changed.float().mean() - 0.5) < 0.04
    assert 0.85 <= factor.min() < 0.852 and 1.148 < factor.max() <= 1.1501
    assert abs(factor[changed].mean() - 1) < 0.01

    red = torch.tensor([0.75, 0.25, 0.25])[None, :, None, None].expand(4000, 3, 2, 2)
    made = augment.jitter(red, generator, 1.0, 0, 0, 0, 0.05)[:, :, 0, 0]
    turn = (made[:, 1] - made[:, 2]) / 0.5 / 6  # near red, green - blue is chroma times sixths of the circle
    assert -0.05 <= turn.min() < -0.049 and 0.049 < turn.max() <= 0.0501 and abs(turn.mean()) < 0.002


def test_the_order_of_the_four_changes_is_the_tiles_own(generator):
    """Brightness that clips before contrast loses what contrast before brightness keeps: both orders must be seen."""
    x = torch.tensor([0.2, 0.9]).reshape(1, 1, 1, 2).expand(300, 3, 1, 2)
    made = augment.jitter(x, generator, 1.0, 0.9, 0.9, 0, 0)
    draws = torch.Generator().manual_seed(1)
    augment.uniform(draws, 300)
    order = augment.uniform(draws, 300, 4).argsort(1)
    factors = [augment.uniform(draws, 300, low=low, high=1.9) for low in (1 - 0.9, 1 - 0.9)]
    first = order.argsort(1)[:, 0] < order.argsort(1)[:, 1]
    bright, contrast = augment.change_brightness, augment.change_contrast
    one = contrast(bright(x, factors[0]), factors[1])
    other = bright(contrast(x, factors[1]), factors[0])
    torch.testing.assert_close(made, torch.where(first[:, None, None, None], one, other))
    assert 100 < first.sum() < 200 and (one - other).abs().max() > 0.1


def test_blur_draws_its_sigma_and_its_tiles(generator):
    dot = torch.zeros(3000, 3, 9, 9)
    dot[..., 4, 4] = 1
    made = augment.blur(dot, generator, 0.1, 9, (0.5, 1.5))
    blurred = made[:, 0, 4, 4] < 1
    assert abs(blurred.float().mean() - 0.1) < 0.025
    sigma = (-0.5 / (made[blurred, 0, 4, 5] / made[blurred, 0, 4, 4]).log()).sqrt()
    assert 0.5 <= sigma.min() < 0.53 and 1.47 < sigma.max() <= 1.501


def test_the_same_seed_gives_the_same_views(tiles):
    def make(seed):
        draws = torch.Generator().manual_seed(seed)
        return augment.blur(augment.jitter(tiles, draws, 0.8, 0.4, 0.4, 0.2, 0.1), draws, 0.5, 9, (0.1, 2))

    assert torch.equal(make(4), make(4)) and not torch.equal(make(4), make(5))
    assert make(4).min() >= 0 and make(4).max() <= 1 + 1e-6


def test_views_stay_on_the_device_of_the_tiles(generator):
    """The meta device computes nothing, and refuses to mix with another as a GPU does."""
    x = torch.empty(6, 3, 20, 20, device="meta")
    x = augment.resized_crop(augment.random_crop(x, 16, generator), 12, (0.3, 1), (3 / 4, 4 / 3), generator)
    x = augment.jitter(augment.flip(x, generator, 1.0), generator, 1.0, 0.4, 0.4, 0.2, 0.1)
    x = augment.grey(augment.blur(x, generator, 1.0, 9, (0.1, 2)), generator, 1.0)
    x = augment.solarise(x, generator, 1.0)
    assert x.device.type == "meta" and x.shape == (6, 3, 12, 12)
