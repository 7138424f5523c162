"""Tiles that need no list: a folder a class, or the rows of an HDF5 file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .dataset import SPLITS, Dataset, files_below, folders_below
from .errors import DataError
from .manifest import Manifest, read_labels
from .slides import Slides
from .table import Table


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
        shape, dtype = file[key].shape, file[key].dtype
        if len(shape) != 4 or shape[3] not in (3, 4) or dtype != np.uint8:
            raise DataError(
                f"{path}: {key} is {dtype} of shape {shape}. Save it as uint8 (n, height, width, 3), from 0 to 255."
            )
        n = shape[0]
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


BUILT_IN: dict[str, type[Dataset]] = {cls.kind: cls for cls in (Manifest, ImageFolder, Array, Slides)}
