"""The files that a table's rows lie in, and the signs by which a change of them shows."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from .errors import DataError
from .table import Table


def all_of(table: Table, items: Table) -> np.ndarray:
    """Every file that a tile, an item without tiles or a mask lies in, sorted."""
    found = [np.unique(table["source"])]
    if table is not items:
        bare = items["source"][~np.isin(items["id"], np.unique(table["item"]))]
        found.append(bare[bare != ""])
    found += [t["mask"][t["mask"] != ""] for t in (table, items) if "mask" in t]  # labels too, pixel by pixel
    return np.unique(np.concatenate(found))


def stats(root: Path, sources: np.ndarray, name: str) -> np.ndarray:
    """(n, 2): size and time of change of each source; DataError names those that are absent."""
    absent, out = [], np.empty((len(sources), 2), np.int64)
    base = str(root)
    for i, source in enumerate(sources.tolist()):
        try:
            stat = os.stat(f"{base}/{source}" if source else base)
            out[i] = stat.st_size, stat.st_mtime_ns
        except (OSError, ValueError):  # a name with a zero byte is a ValueError
            absent.append(source)
    if absent:
        raise DataError(
            f"{name}: {len(absent)} of {len(sources)} files that the table names are not below {root}, such as {absent[0]}. Copy them there, or take their rows out."
        )
    return out


def folders(root: Path, sources: np.ndarray) -> set[str]:
    """Every folder between the root and a source: a file that comes or goes changes one of them."""
    found = {str(root)} if root.is_dir() else set()
    for parent in {s.rpartition("/")[0] for s in sources.tolist()}:
        while parent:
            found.add(str(root / parent))
            parent = parent.rpartition("/")[0]
    return found


def marks(paths: Iterable[str]) -> dict[str, int]:
    """When each file or folder was changed, in nanoseconds; -1 when it is gone."""

    def mark(path: str) -> int:
        with contextlib.suppress(OSError):
            return os.stat(path).st_mtime_ns
        return -1

    return {p: mark(p) for p in paths}
