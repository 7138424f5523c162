"""Tiles listed in a csv: the kind of dataset that most people bring."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .cards import anchored
from .dataset import SPLITS, Dataset
from .errors import DataError
from .table import WHOLE, Table, numbers, read_csv

READ = ("label", "split", "group", "slide", "centre", "fold", "mpp", "mask")
NEAR = {
    "labels": "label", "y": "label", "diagnosis": "label",
    "patient": "group", "patient_id": "group", "patientid": "group", "case": "group", "case_id": "group",
    "center": "centre", "site": "centre", "hospital": "centre", "set": "split", "partition": "split", "wsi": "slide",
    "slide_id": "slide",
}  # fmt: skip


class Manifest(Dataset):
    """Tiles listed in a csv: `path,label[,split,group,slide,centre,fold,mpp,id,x,y,w,h]` and any columns of your own.

    `<root>/tiles.csv` unless the card names another `table`. `path` is relative to the root. A label is a name, or an
    index into the card's `classes`. x, y, w, h (pixels) cut a box out of a larger image. Columns called `target_…`
    are numbers to regress; the card's `targets` may name a second csv (`path` or `id`, then a column a target) instead.
    """

    kind = "manifest"

    def items(self, root: Path) -> Table:
        path = self._table(root)
        raw = read_csv(path, required=("path",))
        for i, p in enumerate(raw["path"]):
            if not p or Path(p).is_absolute() or ".." in Path(p).parts:
                raise DataError(f"{path}, line {i + 2}: path {p!r} must be relative and stay inside {root}.")
        columns: dict[str, Any] = {"source": raw.pop("path")}
        labels = raw.pop("label", None)
        names = [n for n in raw if n.startswith("target_")]
        target = np.stack([numbers(path, n, raw.pop(n)) for n in names], axis=1) if names else None
        for name, values in raw.items():
            if name in WHOLE:
                columns[name] = numbers(path, name, values, whole=True)
            elif name == "mpp":
                columns[name] = numbers(path, name, values)
            elif name == "split":
                columns[name] = [SPLITS.get(v.lower(), v) for v in values]
            else:
                columns["source_given" if name == "source" else name] = values
        if "mpp" not in columns and self.card.mpp:
            columns["mpp"] = np.full(len(columns["source"]), self.card.mpp)
        columns.setdefault("id", _ids(columns))
        classes = self.card.classes
        if labels is not None:
            columns["label"], classes = read_labels(path, labels, classes, raw.get("class"))
        watched = [str(path)]
        target_names = tuple(n.removeprefix("target_") for n in names)
        if self.card.targets:
            target, target_names = self._targets(root, columns)
            watched.append(str(root / self.card.targets))
        return Table(columns, classes, target, target_names, _meant(columns), watched=tuple(watched))

    def _table(self, root: Path) -> Path:
        name = self.card.table or "tiles.csv"
        for path in (root / name, Path(anchored(name, Path(self.card.base)))):
            if path.is_file():
                return path
        raise (
            self.missing(str(root / name))
            if not self.card.table
            else DataError(
                f"{self.name}: the table {root / name} is not there. Correct `table:` in the dataset's card."
            )
        )

    def _targets(self, root: Path, columns: dict[str, Any]) -> tuple[np.ndarray, tuple[str, ...]]:
        path = root / self.card.targets
        raw = read_csv(path)
        key = next((k for k in ("id", "path") if k in raw), None)
        if key is None:
            raise DataError(
                f"{path}: a column `id` or `path` is missing, so its rows cannot be joined to the tiles. Add it."
            )
        at = {v: i for i, v in enumerate(raw.pop(key))}
        wanted = columns["id"] if key == "id" else columns["source"]
        absent = [w for w in wanted if w not in at]
        if absent:
            raise DataError(f"{path}: {len(absent)} tiles have no row, such as {absent[0]}. Add them.")
        order = [at[w] for w in wanted]
        return np.stack([numbers(path, n, v)[order] for n, v in raw.items()], axis=1), tuple(raw)


def _meant(columns: dict[str, Any]) -> list[str]:
    """A sentence on each column that looks like one that is read, and is called otherwise."""
    found = [(name, NEAR.get(name.lower(), name.lower())) for name in columns if name not in READ]
    return [
        f"the column {name} is kept and read by nothing: if it is the {word}, call it {word}"
        for name, word in found
        if word in READ and word not in columns
    ]


def _ids(columns: dict[str, Any]) -> list[str]:
    """The path, with the box or the row where several tiles share a file."""
    ids = list(columns["source"])
    if all(c in columns for c in "xywh"):
        boxes = zip(*(columns[c].tolist() for c in "xywh"), strict=True)
        ids = [f"{i}#{x},{y},{w},{h}" if w > 0 else i for i, (x, y, w, h) in zip(ids, boxes, strict=True)]
    return ids


def read_labels(
    path: Path, values: list[str], classes: tuple[str, ...] = (), names: list[str] | None = None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels as indices, and the class names.

    Names are looked up in `classes`, else numbered in sorted order; whole numbers index `classes` when given. An empty
    label is -1: unknown. `names` (the column `class`) names numbered classes where it agrees with them one to one.

    Raises:
        DataError: for a label that is not among the classes.
    """
    known = sorted({v for v in values if v}, key=lambda v: (not v.isdigit(), int(v) if v.isdigit() else 0, v))
    if classes and all(v in classes for v in known):
        index = {c: i for i, c in enumerate(classes)}
    elif classes:
        index = {str(i): i for i in range(len(classes))}
        named = any(v in classes for v in known)
        wrong = [v for v in known if v not in (classes if named else index)]
        if wrong:
            line = values.index(wrong[0]) + 2
            raise DataError(
                f"{path}, line {line}: label {wrong[0]!r} is not one of the classes {', '.join(classes)}. Correct it, or `classes:` in the card."
            )
    else:
        index = {v: i for i, v in enumerate(known)}
        classes = tuple(_class_names(known, values, names))
    return np.array([index[v] if v else -1 for v in values], dtype=np.int64), classes


def _class_names(known: list[str], values: list[str], names: list[str] | None) -> list[str]:
    if names is None:
        return known
    pairs = {(v, n) for v, n in zip(values, names, strict=True) if v}
    if len(pairs) == len(known) == len({n for _, n in pairs}):
        return [dict(pairs)[v] for v in known]
    return known
