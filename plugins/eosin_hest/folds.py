"""Who is tested when: the folds that came with the data, else groups left out one at a time or packed."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from eosin.errors import DataError

Fold = tuple[int, np.ndarray, np.ndarray]
SHIPPED = re.compile(r"split_(\d+)")


def folds_of(emb: Any, k: int) -> tuple[list[Fold], str]:
    """(fold, training rows, test rows) of each fold, and a sentence on where they come from.

    Columns `split_<k>` of the table (train, test or empty) come first: they are what split files say that leave a
    sample out, or test it twice. Then `fold`, `split` (unless k is given), `group`, `slide`.

    Raises:
        DataError: there is nothing to make folds of, or too little.
    """
    shipped = sorted((int(m[1]), name) for name in emb.table if (m := SHIPPED.fullmatch(name)))
    if shipped:
        return [
            (i, *_parts(i, np.asarray(emb.table[name]))) for i, name in shipped
        ], "Folds: the split files', as shipped."
    if emb.fold is not None and (np.asarray(emb.fold) >= 0).any():
        return each(np.asarray(emb.fold)), "Folds: as given; a row without one trains in every fold."
    if not k and emb.split is not None and {"train", "test"} <= set(emb.split.tolist()):
        return [(0, *_parts(0, emb.split))], "Folds: one, the given train and test splits."
    for word in ("group", "slide"):
        owner = getattr(emb, word)
        if owner is not None:
            names, code, sizes = np.unique(owner, return_inverse=True, return_counts=True)
            if len(names) < max(2, k) or k == 1:
                raise DataError(f"{len(names)} {word}s do not make {k or 2} folds. Give `fold`, or more {word}s.")
            if not k:
                return each(code), f"Folds: made here, one {word} left out at a time."
            return each(pack(sizes, k)[code]), f"Folds: made here, {len(names)} {word}s packed into {k} of like size."
    raise DataError(
        "Neighbouring spots are alike, so rows are not split at random. "
        "Give `fold` (the test fold of each row), `split`, `group` (the patient) or `slide`."
    )


def each(fold: np.ndarray) -> list[Fold]:
    """Every fold tested once, by the others and the rows of none (below 0)."""
    found = []
    for k in np.unique(fold[fold >= 0]).tolist():
        train, test = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        if len(train) < 2:
            raise DataError(f"Fold {k} leaves {len(train)} rows to train on. Give at least two folds.")
        found.append((int(k), train, test))
    return found


def pack(sizes: np.ndarray, k: int) -> np.ndarray:
    """The fold of each group: the largest first, each into the fold with fewest rows so far."""
    fold, filled = np.zeros(len(sizes), int), np.zeros(k, int)
    for group in np.argsort(-sizes, kind="stable"):
        fold[group] = filled.argmin()
        filled[fold[group]] += sizes[group]
    return fold


def blocks_of(folds: list[Fold], n: int) -> np.ndarray:
    """(n,) whole numbers: rows that are together in every fold's training or out of it."""
    trained = np.zeros((n, len(folds)), np.int8)
    for i, (_, train, _) in enumerate(folds):
        trained[train, i] = 1
    return np.unique(trained, axis=0, return_inverse=True)[1].ravel()


def inner(owner: np.ndarray | None, rows: np.ndarray, k: int) -> tuple[list[Fold], str]:
    """Up to k folds within training rows, whole patients or slides; blocks of neighbouring rows where there is but one.

    Args:
        owner: (n,) the patient or slide of every row, or None. rows: which of them are trained on.
    """
    names, code, sizes = np.unique(
        np.zeros(len(rows)) if owner is None else owner[rows], return_inverse=True, return_counts=True
    )
    if len(names) > 1:
        fold, how = (
            pack(sizes, min(k, len(names)))[code],
            f"{len(names)} patients or slides in {min(k, len(names))} folds",
        )
    else:
        fold, how = np.arange(len(rows)) * k // len(rows), f"one patient or slide, so {k} blocks of rows in their order"
    return [(i, rows[train], rows[test]) for i, train, test in each(fold)], how


def _parts(k: int, split: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    train, test = (np.flatnonzero(split == name) for name in ("train", "test"))
    if len(train) < 2 or not len(test):
        raise DataError(f"Fold {k} has {len(train)} rows to train on and {len(test)} to test. Correct its split.")
    return train, test
