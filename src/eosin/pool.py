"""From tiles to items, below the store: every tile's row is stored once, and a benchmark on regions or slides gets means."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .benchmark import Embeddings
from .index import Index
from .table import Table


def pool(X: np.ndarray, keep: np.ndarray, index: Index) -> tuple[np.ndarray, np.ndarray]:
    """One row an item: the mean of its tiles' rows, summed in float64; the rows themselves where an item is a tile.

    Args:
        X: (n, d) one row a tile. keep: (n,) bool, the tiles that could be read.

    Returns:
        (items, d) in the type of X, and (items,) bool: False where an item has no tile (there X is nan).
    """
    if not index.levels:
        return X, keep
    owner = owners(index)
    rows = np.flatnonzero(keep)[np.argsort(owner[keep], kind="stable")]
    found, first = np.unique(owner[rows], return_index=True)
    pooled = np.full((len(index.items), *X.shape[1:]), np.nan, X.dtype)
    for item, own in zip(found, np.split(rows, first[1:]), strict=True):
        pooled[item] = X[own].mean(axis=0, dtype=np.float64)
    has = np.zeros(len(pooled), bool)
    has[found] = True
    return pooled, has


def spread(index: Index) -> Table:
    """One row a tile: its own columns, and its item's where it has none known; `slide`, its bag, is its item."""
    if not index.levels:
        return index.table
    items, tiles, owner = index.items, index.table, owners(index)
    columns = {n: v[owner] for n, v in items.columns.items()}
    columns |= {n: tiles[n] for n in tiles.columns if tiles.known(n) is not None or n not in columns}
    columns["slide"] = items["id"][owner]
    target = None if items.target is None else items.target[owner]
    return replace(items, columns=columns, target=target)


def owners(index: Index) -> np.ndarray:
    """(tiles,) the row of each tile's item."""
    order = np.argsort(index.items["id"], kind="stable")
    return order[np.searchsorted(index.items["id"], index.table["item"], sorter=order)]


def of_items(emb: Embeddings) -> Embeddings:
    """One row a bag of rows that are tiles: the first of each `slide`, which is then its id."""
    if emb.slide is None:
        return emb
    rows = np.sort(np.unique(emb.slide, return_index=True)[1])
    return replace(emb[rows], id=emb.slide[rows])
