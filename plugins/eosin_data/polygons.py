"""Which pixels a polygon covers, to the pixel as scikit-image's `draw.polygon` has it."""

from __future__ import annotations

import numpy as np

EPS = 1e-12  # a pixel's centre so near to a corner is that corner
BLOCK = 2**22  # comparisons at a time


def covered(corners: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Row and column numbers of the pixels whose centre lies in a polygon, on its border or on a corner.

    Centres are whole numbers; where the border crosses itself the even-odd rule holds. A centre is inside when a ray to
    either side crosses the border an odd number of times; on an edge the two rays disagree (O'Rourke, Computational
    Geometry in C, section 7.4).

    Args:
        corners: (n, 2) finite: row and column of each.
        shape: rows and columns of the image; what lies outside is cut off.
    """
    corners = np.asarray(corners, np.float64)
    empty = np.zeros(0, np.int64)
    if not len(corners):
        return empty, empty
    low = np.maximum(np.clip(corners.min(0), 0, None).astype(np.int64), 0)
    high = np.minimum(np.ceil(np.clip(corners.max(0), -1, max(shape))).astype(np.int64), np.array(shape) - 1)
    if (high < low).any():
        return empty, empty
    rows, columns = (np.arange(a, b + 1) for a, b in zip(low, high, strict=True))
    step = max(1, BLOCK // (len(corners) + len(columns)))
    inside = np.concatenate([_inside(corners, rows[i : i + step], columns) for i in range(0, len(rows), step)])
    y, x = np.nonzero(inside)
    return rows[y], columns[x]


def _inside(corners: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """(rows, columns) bool."""
    end = corners[None, :, 0] - rows[:, None]  # of each edge, in rows from here
    start = np.roll(end, 1, axis=1)
    right = _odd(corners, end, start, (end > 0) != (start > 0), columns)
    left = _odd(-corners, end, start, (end < 0) != (start < 0), -columns[::-1])[:, ::-1]
    inside = right | (right != left)
    near = np.abs(corners - np.rint(corners)).max(1) < EPS
    for y, x in np.rint(corners[near]).astype(np.int64):
        if rows[0] <= y <= rows[-1] and columns[0] <= x <= columns[-1]:
            inside[y - rows[0], x - columns[0]] = True
    return inside


def _odd(
    corners: np.ndarray, end: np.ndarray, start: np.ndarray, crosses: np.ndarray, columns: np.ndarray
) -> np.ndarray:
    """Whether the ray from each centre towards higher columns meets an odd number of the edges that cross its row."""
    row, edge = np.nonzero(crosses)
    a, b = end[row, edge][:, None], start[row, edge][:, None]
    x1, x0 = corners[edge, 1][:, None], np.roll(corners[:, 1], 1)[edge][:, None]
    meets = np.clip((x1 * b - x0 * a) / (b - a), columns[0] - 2, columns[-1] + 2)
    three = np.rint(meets) + np.arange(-1, 2)  # all columns before them are left of the edge, none behind
    ahead = ((x1 - three) * b - (x0 - three) * a) / (b - a) > 0  # exact where corners are short decimals
    width = len(columns)
    before = np.clip(three[:, 0] - columns[0] + ahead.sum(1), 0, width).astype(np.int64)
    ends = np.bincount(row * (width + 1) + before, minlength=len(end) * (width + 1)).reshape(len(end), width + 1)
    return ends[:, :0:-1].cumsum(1)[:, ::-1] % 2 == 1
