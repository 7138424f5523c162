"""The door for data: a dataset finds its folder and lists its tiles; three kinds that need no code come with the house."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .cards import DatasetCard, anchored
from .errors import DataError, MissingError
from .table import WHOLE, Table, numbers, read_csv

IMAGES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


class Dataset:
    """A table of tiles made from a folder. Subclasses define `items`; a registry row names the subclass by its `kind`."""

    kind = ""
    card: DatasetCard

    def __init__(self, card: DatasetCard | str, **fields: Any) -> None:
        self.card = (
            card if isinstance(card, DatasetCard) else DatasetCard(card, **{"kind": self.kind or "class", **fields})
        )

    @property
    def name(self) -> str:
        return self.card.name

    def locate(self, data: Path) -> Path:
        """The folder that holds this dataset: the card's `root`, else <data>/<name>.

        Raises:
            MissingError: when it is not there; the text shows what was expected and how to get it.
        """
        card, places = self.card, []
        if card.root:
            places = [Path(anchored(card.root, Path(card.base))).expanduser(), data / card.root]
        else:
            places = [data / card.name]
        for place in places:
            if place.exists():
                return place
        raise self.missing(" or ".join(map(str, dict.fromkeys(places))))

    def present(self, data: Path) -> bool:
        """Whether it is there; never makes or fetches anything."""
        try:
            self.locate(data)
        except MissingError:
            return False
        return True

    def missing(self, where: str) -> MissingError:
        """The error for absent data: what should be there, and how to get it."""
        card = self.card
        tree = f"\nExpected there:\n{indent(card.tree)}" if card.tree else ""
        how = card.how.strip() or "put the folder there, or say where it is with --data (or `root:` in its card)."
        extra = f"\nRegistration: {card.registration}" if card.registration else ""
        return MissingError(f"Dataset {card.name} is missing: nothing at {where}.{tree}\nHow to get it: {how}{extra}")

    def items(self, root: Path) -> Table:
        """The table of tiles of the folder `root`, which is only read.

        Raises:
            DataError: naming the file, when the folder is not what it should be.
        """
        raise NotImplementedError(f"{type(self).__name__} must define items(root); see docs/write-a-benchmark.md.")


def indent(text: str) -> str:
    return "\n".join("    " + line for line in text.rstrip().splitlines())


def files_below(folder: Path, suffixes: tuple[str, ...] = IMAGES) -> Iterator[Path]:
    """The files of one folder, sorted, without what operating systems leave behind."""
    with os.scandir(folder) as entries:
        names = sorted(e.name for e in entries if e.is_file() and not e.name.startswith("."))
    return (folder / n for n in names if n.lower().endswith(suffixes))


def folders_below(folder: Path) -> list[Path]:
    """The sub-folders of one folder, sorted, without hidden ones and __MACOSX."""
    with os.scandir(folder) as entries:
        names = sorted(e.name for e in entries if e.is_dir() and not e.name.startswith(".") and e.name != "__MACOSX")
    return [folder / n for n in names]


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
        return Table(columns, classes, target, target_names, watched=tuple(watched))

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
        wrong = [v for v in known if v not in index]
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


class ImageFolder(Dataset):
    """`<root>/<class>/image.png`, or `<root>/{train,val,test}/<class>/image.png`. Classes in sorted order, or the card's."""

    kind = "imagefolder"

    def items(self, root: Path) -> Table:
        if not root.is_dir():
            raise DataError(
                f"{self.name}: {root} is a file; an image folder holds one sub-folder a class. Use kind: manifest for a table."
            )
        tops = folders_below(root)
        split = [f for f in tops if f.name.lower() in SPLITS]
        if split and len(split) < len(tops):
            other = ", ".join(f.name for f in tops if f not in split)
            raise DataError(
                f"{self.name}: {root} holds split folders and others ({other}). Keep either splits or classes at the top."
            )
        pairs = [(SPLITS[s.name.lower()], c) for s in split for c in folders_below(s)] or [("", c) for c in tops]
        found = sorted({c.name for _, c in pairs})
        classes = self.card.classes or tuple(found)
        unknown = [c for c in found if c not in classes]
        if unknown or not found:
            raise DataError(
                f"{self.name}: {root} has {'class folders ' + ', '.join(unknown) + ' that the card does not list' if unknown else 'no class folders'}. Expected <root>/<class>/<image>."
            )
        rows = [
            {"source": f.relative_to(root).as_posix(), "label": classes.index(c.name), "split": s}
            for s, c in pairs
            for f in files_below(c)
        ]
        for row in rows:
            row["id"] = row["source"]
        empty = [c for c in classes if classes.index(c) not in {r["label"] for r in rows}]
        table = Table.of(
            rows,
            classes=classes,
            warnings=[f"class {c} has no images" for c in empty],
            watched=(str(root), *(str(s) for s in split), *(str(c) for _, c in pairs)),
        )
        if self.card.mpp:
            table.columns["mpp"] = np.full(len(table), self.card.mpp)
        return table


class Array(Dataset):
    """Rows of an HDF5 file: uint8 (n, height, width, 3), with labels in a second array of length n.

    The card's `table` names the file (default: the only .h5 of the folder); options `images`, `labels`, `group`, `split`
    name its arrays (default: `images` or `x`, `labels` or `y`).
    """

    kind = "array"

    def items(self, root: Path) -> Table:
        import h5py

        path = self._file(root)
        try:
            with h5py.File(path, "r") as file:
                return self._rows(root, path, file)
        except OSError as error:
            raise DataError(f"{path} is not an HDF5 file that can be read ({error}). Copy it again.") from error

    def _file(self, root: Path) -> Path:
        if root.is_file():
            return root
        if self.card.table:
            found = [root / self.card.table]
        else:
            found = list(files_below(root, (".h5", ".hdf5")))
        if len(found) != 1 or not found[0].is_file():
            raise DataError(
                f"{self.name}: {root} should hold one .h5 file, and holds {len(found)}. Name it with `table:` in the card."
            )
        return found[0]

    def _rows(self, root: Path, path: Path, file: Any) -> Table:
        options = self.card.options
        key = options.get("images") or next((k for k in ("images", "x") if k in file), None)
        if key is None or key not in file:
            raise DataError(
                f"{path}: no array {key or 'images'}; there are {', '.join(file)}. Name it with options: {{images: …}}."
            )
        n = file[key].shape[0]
        columns: dict[str, Any] = {
            "id": [f"{key}#{i}" for i in range(n)],
            "source": [path.relative_to(root).as_posix() if path != root else ""] * n,
            "key": [key] * n,
            "row": np.arange(n),
        }
        classes = self.card.classes
        for column, fallback in (
            ("label", "y"),
            ("group", "group"),
            ("split", "split"),
            ("slide", "slide"),
            ("centre", "centre"),
        ):
            name = (
                options.get(f"{column}s")
                or options.get(column)
                or next((k for k in (f"{column}s", fallback) if k in file), None)
            )
            if name is None:
                continue
            values = _column(path, name, file[name][:], n) if name in file else None
            if values is None:
                raise DataError(f"{path}: no array {name}; there are {', '.join(file)}. Correct the card's options.")
            if column == "label":
                columns[column], classes = read_labels(path, values, classes)
            else:
                columns[column] = values
        if self.card.mpp:
            columns["mpp"] = np.full(n, self.card.mpp)
        return Table(columns, classes, watched=(str(path),))


def _column(path: Path, name: str, values: np.ndarray, n: int) -> list[str]:
    """An HDF5 array of one value a row as text; PCam writes its labels as (n, 1, 1, 1)."""
    if values.size != n:
        raise DataError(
            f"{path}: array {name} has shape {values.shape}, not one value for each of {n} images. Correct the card's options."
        )
    return [v.decode() if isinstance(v, bytes) else str(v) for v in values.reshape(n).tolist()]


BUILT_IN: dict[str, type[Dataset]] = {cls.kind: cls for cls in (Manifest, ImageFolder, Array)}
