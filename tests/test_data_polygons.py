"""Polygons to pixels: recorded from scikit-image 0.26 (`draw.polygon`), and compared with it where it is installed."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from eosin_data.polygons import covered

SQUARE = [(1, 1), (1, 4), (4, 4), (4, 1)]
RECORDED = {
    "borders and corners count": (SQUARE, [".....", ".####", ".####", ".####", ".####"]),
    "closed twice is closed once": ([*SQUARE, (1, 1)], [".....", ".####", ".####", ".####", ".####"]),
    "centres between whole numbers": (
        [(0.5, 0.5), (0.5, 3.5), (3.5, 3.5), (3.5, 0.5)], [".....", ".###.", ".###.", ".###.", "....."],
    ),
    "a bow tie is even-odd": ([(0, 0), (4, 4), (0, 4), (4, 0)], ["#...#", "##.##", "#####", "##.##", "#...#"]),
    "a hole by one line": (
        [(0, 0), (0, 4), (4, 4), (4, 0), (0, 0), (1.5, 1.5), (2.5, 1.5), (2.5, 2.5), (1.5, 2.5), (1.5, 1.5)],
        ["#####", "#####", "##.##", "#####", "#####"],
    ),
    "a point is its pixel": ([(2, 3)], [".....", ".....", "...#.", ".....", "....."]),
    "a line is its two ends": ([(0, 0), (4, 2)], ["#....", ".....", ".....", ".....", "..#.."]),
    "what lies outside is cut off": ([(-3, -3), (-3, 2), (2, 2), (2, -3)], ["###..", "###..", "###..", ".....", "....."]),
    "beside the image": ([(9, 9), (9, 12), (12, 12)], ["....."] * 5),
}  # fmt: skip
DIGEST = "2967a9748ee5edb8"


def polygons(n: int = 400):
    """Corners and image shapes of every sort: whole, halves, on a hair beside a centre, stars, self-crossing."""
    rng = np.random.default_rng(5)
    for k in range(n):
        corners = rng.uniform(-8, 48, (int(rng.integers(1, 25)), 2))
        if k % 4 == 1:
            corners = np.rint(corners * (1 + k % 3)) / (1 + k % 3)
        if k % 4 == 2:
            corners = np.rint(corners) + rng.choice([0, 1e-13, -1e-13, 1e-11], corners.shape)
        if k % 4 == 3:
            turn = np.sort(rng.uniform(0, 6.28, len(corners)))
            corners = (20 + 15 * np.stack([np.sin(turn), np.cos(turn)], axis=1)).round(2)
        yield corners, (int(rng.integers(1, 45)), int(rng.integers(1, 45)))


def drawn(corners, shape, fill=covered) -> np.ndarray:
    grid = np.zeros(shape, bool)
    grid[fill(np.array(corners, float), shape)] = True
    return grid


@pytest.mark.parametrize("name", RECORDED)
def test_recorded(name):
    corners, expected = RECORDED[name]
    assert ["".join(".#"[v] for v in row) for row in drawn(corners, (5, 5)).astype(int)] == expected


def test_four_hundred_of_every_sort():
    grids = b"".join(np.packbits(drawn(c, s)).tobytes() for c, s in polygons())
    assert hashlib.sha256(grids).hexdigest()[:16] == DIGEST


def test_as_scikit_image_draws():
    draw = pytest.importorskip("skimage.draw")
    for corners, shape in polygons():
        theirs = drawn(corners, shape, lambda c, s: draw.polygon(c[:, 0], c[:, 1], s))
        np.testing.assert_array_equal(drawn(corners, shape), theirs)


def test_many_corners_on_a_large_image_take_little_room(monkeypatch):
    """In blocks of rows as in one piece."""
    import eosin_data.polygons as module

    corners = next(c for c, _ in polygons() if len(c) > 20)
    whole = drawn(corners, (40, 40))
    monkeypatch.setattr(module, "BLOCK", 1)
    np.testing.assert_array_equal(drawn(corners, (40, 40)), whole)


def test_nothing_to_draw():
    assert [len(v) for v in covered(np.zeros((0, 2)), (5, 5))] == [0, 0]
