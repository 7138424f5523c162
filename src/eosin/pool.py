"""From tiles to items, below the store: every tile's row is stored once, and a benchmark on regions or slides gets means."""

from __future__ import annotations

import numpy as np

from .index import Index


def pool(X: np.ndarray, keep: np.ndarray, index: Index) -> tuple[np.ndarray, np.ndarray]:
    """One row an item: the mean of its tiles' rows, summed in float64; the rows themselves where an item is a tile.

    Args:
        X: (n, d) one row a tile. keep: (n,) bool, the tiles that could be read.

    Returns:
        (items, d) in the type of X, and (items,) bool: False where an item has no tile (there X is nan).
    """
    if not index.levels:
        return X, keep
    order = np.argsort(index.items["id"], kind="stable")
    owner = order[np.searchsorted(index.items["id"], index.table["item"], sorter=order)]
    rows = np.flatnonzero(keep)[np.argsort(owner[keep], kind="stable")]
    owners, first = np.unique(owner[rows], return_index=True)
    pooled = np.full((len(index.items), *X.shape[1:]), np.nan, X.dtype)
    for item, own in zip(owners, np.split(rows, first[1:]), strict=True):
        pooled[item] = X[own].mean(axis=0, dtype=np.float64)
    has = np.zeros(len(pooled), bool)
    has[owners] = True
    return pooled, has
