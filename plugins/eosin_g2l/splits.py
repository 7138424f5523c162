"""Which rows train and which are tested: what came with the data, or the protocol's own, by row, patient or site."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from eosin import folds
from eosin.errors import DataError, UsageError

UNUSED = -(2**31)  # the fold of a row that neither trains nor is tested
SOURCES = {"grouped": ("group", "patient"), "site": ("centre", "site")}


def labels_of(emb: Any) -> np.ndarray:
    """(n,) class numbers, or DataError: none, unknown ones, or one class only."""
    if emb.y is None:
        given = "numbers to regress" if emb.target is not None else "no labels"
        raise DataError(
            f"G2L's protocols classify, and these embeddings have {given}. Give each row a label: column `label` of a table, "
            "array `y` of a file of embeddings."
        )
    y = np.asarray(emb.y)
    if (y < 0).any():
        raise DataError(f"{(y < 0).sum()} rows have no label. Label them, or leave them out.")
    if len(np.unique(y)) < 2:
        raise DataError(f"All {len(y)} rows have one class, {name(emb, y[0])}. Give rows of at least two classes.")
    return y


def at_least_one(o: dict[str, Any], *names: str) -> None:
    """UsageError for an option that counts something and is below 1."""
    for which in names:
        if o[which] < 1:
            raise UsageError(f"{which}={o[which]}: nothing would be scored. Give at least 1.")


def name(emb: Any, c: int) -> str:
    """What class c is called."""
    return str(emb.classes[c]) if c < len(emb.classes) else str(c)


def knn_folds(emb: Any, y: np.ndarray, o: dict[str, Any]) -> tuple[list[tuple[int, np.ndarray]], list[str]]:
    """(repeat, test fold of each row) for each repeat, and notes. Fold -1 only trains, UNUSED does neither.

    `split=given` takes `fold` where there is one, else train and val predict test.
    """
    if o["split"] == "given" and emb.fold is not None:
        return [(0, folds.given(emb.fold))], ["The data's own folds were used."]
    if o["split"] == "given":
        split = _given_split(emb)
        if not (split == "test").any():
            raise DataError("split=given, and no row has split `test`. Correct `split`, or use split=protocol.")
        fold = np.where(split == "test", 0, np.where(np.isin(split, folds.PARTS), -1, UNUSED))
        return [(0, fold)], ["The data's own split was used: train and val predict test."]
    repeats = range(o["repeats"])
    if o["folds"] == "paper":
        return [(r, folds.kfold(y, o["n_folds"], o["seed"] + r)) for r in repeats], _mixed(emb)
    group, unit = groups_of(emb, o["folds"])
    possible = folds.most(y, group)
    n, notes = min(o["n_folds"], possible), []
    if possible < 2:
        rare = next(c for c in np.unique(y) if len(np.unique(group[y == c])) < 2)
        raise DataError(
            f"folds={o['folds']}: all rows of class {name(emb, rare)} are of one {unit}, so they cannot be on both "
            "sides. Leave the class out, or use folds=paper."
        )
    if n < o["n_folds"]:
        notes = [f"{n} folds, not {o['n_folds']}: a class has rows of {possible} {unit}s only."]
    return [(r, folds.grouped(y, group, n, o["seed"] + r)) for r in repeats], notes


def _mixed(emb: Any) -> list[str]:
    """What folds of rows mean where rows share a patient."""
    if emb.group is None:
        return []
    sizes = np.unique(emb.group[emb.group != ""], return_counts=True)[1]
    if not (sizes > 1).any():
        return []
    return [
        f"Rows are drawn one by one, as in the paper: {(sizes > 1).sum()} groups (patients) have several, on both sides of a fold. "
        "folds=grouped keeps them together."
    ]


def linear_parts(emb: Any, y: np.ndarray, o: dict[str, Any]) -> tuple[list[tuple[int, int, np.ndarray]], list[str]]:
    """(fold, seed, part of each row) for each run, and notes.

    `split=given` takes `split` where there is one, else each `fold` is tested once; where nothing says which rows
    validate, a quarter of the training rows do.
    """
    if o["split"] != "given":
        group = None if o["folds"] == "paper" else groups_of(emb, o["folds"])[0]
        seeds = range(o["seed"], o["seed"] + o["seeds"])
        notes = _mixed(emb) if group is None else []
        return [(0, s, folds.holdout(y, (0.6, 0.2, 0.2), s, group)) for s in seeds], notes
    group = None if o["folds"] == "paper" else groups_of(emb, o["folds"])[0]
    if emb.split is None and emb.fold is not None:
        fold = folds.given(emb.fold)
        runs = [(int(k), o["seed"], np.where(fold == k, "test", "train")) for k in np.unique(fold[fold >= 0])]
        note = "The data's own folds were used"
    else:
        runs, note = [(0, o["seed"], _given_split(emb))], "The data's own split was used"
    for _, _, part in runs:
        for needed in ("train", "test"):
            if not (part == needed).any():
                raise DataError(
                    f"split=given, and no row has split {needed!r}. Correct `split`, or use split=protocol."
                )
    if all((part == "val").any() for _, _, part in runs):
        return runs, [f"{note}."]
    return [(k, s, _validated(y, part, s, group)) for k, s, part in runs], [
        f"{note}; a random quarter of the training rows validated."
    ]


def _validated(y: np.ndarray, part: np.ndarray, seed: int, group: np.ndarray | None) -> np.ndarray:
    """The parts with a quarter of the training rows made "val"."""
    train = part == "train"
    part = part.copy()
    part[train] = folds.holdout(y[train], (0.75, 0.25), seed, None if group is None else group[train])
    return part


def groups_of(emb: Any, how: str) -> tuple[np.ndarray, str]:
    """The column that may not be on both sides, all of it known, and what it means."""
    column, unit = SOURCES[how]
    group = getattr(emb, column)
    if group is None:
        raise DataError(
            f"folds={how} needs the {unit} of each row, and there is no `{column}`. Add it, or use folds=paper."
        )
    unknown = int((np.asarray(group).astype(str) == "").sum())
    if unknown:
        raise DataError(
            f"folds={how} needs the {unit} of each row, and {unknown} rows have no `{column}`. Fill it, leave these "
            "rows out, or use folds=paper."
        )
    return np.asarray(group), unit


def _given_split(emb: Any) -> np.ndarray:
    if emb.split is None:
        raise DataError("split=given, and the data have neither `split` nor `fold`. Add one, or use split=protocol.")
    return np.asarray(emb.split).astype(str)


def sides(fold: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """(fold, training rows, test rows), each a mask."""
    for k in np.unique(fold[fold >= 0]):
        yield int(k), (fold != k) & (fold != UNUSED), fold == k
