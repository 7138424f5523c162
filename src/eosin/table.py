"""A table: named columns of equal length, one row an item or a tile, read from and written to csv."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from .errors import DataError, StoreError
from .files import publishing

TEXT = ("id", "item", "source", "split", "group", "slide", "centre")
WHOLE = ("label", "fold", "x", "y", "w", "h", "px", "row", "level")
LINES = 2**16  # rows that are text at a time
FIRST = ("id", "source", "label", "split", "group", "slide", "centre", "mpp")


@dataclass
class Table:
    """Columns by name. `label` and other whole-number columns hold -1 where nothing is known, text columns "".

    Attributes:
        columns: {name: array of length n}.
        classes: the names that `label` indexes.
        target: (n, g) numbers to regress, or None; `target_names` names them.
        warnings: sentences about what is odd and was accepted.
        counts: how many items the loader found of what, for `bench data check`.
        watched: files and folders besides the sources whose change means that the table must be built again.
    """

    columns: dict[str, np.ndarray]
    classes: tuple[str, ...] = ()
    target: np.ndarray | None = None
    target_names: tuple[str, ...] = ()
    warnings: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    watched: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.columns = {name: _typed(name, values) for name, values in self.columns.items()}
        lengths = {name: len(v) for name, v in self.columns.items()}
        if len(set(lengths.values())) > 1:
            raise DataError(f"A table's columns differ in length: {lengths}. Give each row a value in each column.")
        n = len(self)
        for name in FIRST:
            if name not in self.columns:
                self.columns[name] = _typed(
                    name, np.full(n, -1) if name in WHOLE else np.full(n, np.nan) if name == "mpp" else np.full(n, "")
                )

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]], **kw: Any) -> Table:
        """A table from a mapping per row; a key that a row lacks is unknown there."""
        rows = list(rows)
        names = list(dict.fromkeys(name for row in rows for name in row))
        return cls({n: np.array([_known(n, row.get(n)) for row in rows]) for n in names}, **kw)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def __getitem__(self, name: str) -> np.ndarray:
        return self.columns[name]

    def __contains__(self, name: str) -> bool:
        return name in self.columns

    def rows(self, which: Any) -> Table:
        """Some of the rows: numbers or a mask."""
        target = None if self.target is None else self.target[which]
        return replace(self, columns={n: v[which] for n, v in self.columns.items()}, target=target)

    def known(self, name: str) -> np.ndarray | None:
        """The column, or None when it is absent or empty throughout."""
        values = self.columns.get(name)
        if values is None or not len(values):
            return None
        if values.dtype.kind == "U":
            return values if (values != "").any() else None
        if values.dtype.kind == "f":
            return values if np.isfinite(values).any() else None
        return values if (values >= 0).any() else None

    def check_ids(self, name: str) -> None:
        """DataError naming the ids that stand twice or cannot be used."""
        if not len(self):
            raise DataError(
                f"{name}: the table has no rows. Check that the folder holds what `bench data where {name}` describes."
            )
        ids, counts = np.unique(self["id"], return_counts=True)
        if (counts > 1).any():
            twice = ids[counts > 1]
            raise DataError(
                f"{name}: {len(twice)} tile ids stand more than once, such as {', '.join(twice[:3])}. Give each row an id of its own (the `id` column; by default the path)."
            )
        if ids[0] == "" or np.isin(ids.view(np.uint32), (10, 13)).any():  # numpy holds text as code points
            raise DataError(f"{name}: a tile id is empty or holds a line break. Correct the `id` or `path` column.")

    def write_csv(self, path: Path) -> None:
        """Written beside its place and renamed; unknown values are empty."""
        names = list(FIRST) + [n for n in self.columns if n not in FIRST]
        try:
            with publishing(path) as file, io.TextIOWrapper(file, "utf-8", newline="") as text:
                writer = csv.writer(text)
                writer.writerow(names)
                for at in range(0, len(self), LINES):
                    writer.writerows(zip(*(_texts(self[n][at : at + LINES]) for n in names), strict=True))
        except OSError as error:
            raise StoreError(
                f"Cannot write the index {path}: {error.strerror}. Set EOSIN_HOME to a folder with space that you may write."
            ) from error


def read_csv(path: Path, required: Sequence[str] = ()) -> dict[str, list[str]]:
    """The columns of a csv file as lists of text; DataError names a missing column, a ragged row, a bad byte."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as handle:
            rows = _rows(csv.reader(handle, strict=True), path)
            header = [h.strip() for h in next(rows, [])]
            missing = [c for c in required if c not in header]
            if missing:
                apart = {";": "semicolons", "\t": "tabs", "|": "bars"}
                found = next((word for sign, word in apart.items() if len(header) == 1 and sign in header[0]), None)
                if found:
                    raise DataError(
                        f"{path}: its columns are separated by {found}. Save it as CSV with commas, and numbers with points."
                    )
                raise DataError(
                    f"{path}: the column {', '.join(missing)} is missing; there are {', '.join(header) or 'no columns'}. Add it to the first line and to every row."
                )
            if len(set(header)) < len(header):
                raise DataError(f"{path}: a column name stands twice in {', '.join(header)}. Rename one.")
            lists: list[list[str]] = [[] for _ in header]
            for number, row in enumerate(rows, start=2):
                if not row:
                    continue
                if len(row) != len(header):
                    raise DataError(
                        f"{path}, line {number}: {len(row)} values for {len(header)} columns. Quote values that hold a comma."
                    )
                for values, value in zip(lists, row, strict=True):
                    values.append(value.strip())
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error.reason}). Save it as CSV UTF-8.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    return dict(zip(header, lists, strict=True))


def _rows(reader: Any, path: Path) -> Iterator[list[str]]:
    try:
        yield from reader
    except csv.Error as error:
        raise DataError(
            f"{path}, line {reader.line_num}: {error}. Close every quote, with nothing between it and the comma, or save it as plain CSV again."
        ) from error


def numbers(path: Path, name: str, values: Sequence[str], whole: bool = False) -> np.ndarray:
    """A text column as numbers, empty ones as nan (or -1); DataError names the line."""
    out = np.full(len(values), -1 if whole else np.nan, dtype=np.int64 if whole else np.float64)
    for i, value in enumerate(values):
        if value == "":
            continue
        try:
            out[i] = int(value) if whole else float(value)
        except (ValueError, OverflowError):
            raise DataError(
                f"{path}, line {i + 2}: {name} is {value!r}, not a {'whole ' if whole else ''}number."
            ) from None
    return out


def _known(name: str, value: Any) -> Any:
    if value is not None:
        return value
    return -1 if name in WHOLE else np.nan if name == "mpp" else ""


def _typed(name: str, values: Any) -> np.ndarray:
    values = np.asarray(values)
    if name in WHOLE:
        return values.astype(np.int64, copy=False)
    if name == "mpp":
        return values.astype(np.float64, copy=False)
    return values.astype(str, copy=False) if name in TEXT or values.dtype.kind in "OSU" else values


def _texts(values: np.ndarray) -> list[str]:
    if values.dtype.kind == "U":
        return values.tolist()
    if values.dtype.kind == "f":
        return ["" if v != v else repr(v) for v in values.tolist()]
    return ["" if v < 0 else str(v) for v in values.tolist()]
