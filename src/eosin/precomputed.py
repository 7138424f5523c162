"""Embeddings that another tool made: read-only models, `precomputed:DIR`.

DIR holds, for a dataset called idc, `idc.npz`, `idc.h5` or `idc.csv` (columns `id` and the vector), or one HDF5 file a
slide as TRIDENT writes them: `<slide>.h5` with `features` (n, d) and `coords` (n, 2).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .arrays import npz_arrays, own_bytes
from .cards import fingerprint
from .errors import DataError, EosinError, MissingError, StoreError, UsageError
from .extractor import FeatureExtractor
from .files import publish
from .index import Index
from .table import numbers, read_csv


class Precomputed(FeatureExtractor):
    """Looks embeddings up by tile id (or slide and position); never embeds."""

    @property
    def folder(self) -> Path:
        """What the card names; MissingError when nothing is there."""
        folder = Path(self.card.weights or self.card.arch).expanduser()
        if not folder.exists():
            raise MissingError(
                f"There is nothing at {folder}. Give the folder that holds <dataset>.npz, .h5 or .csv, or one .h5 a slide: "
                "--model precomputed:DIR."
            )
        return folder

    def weight_file(self) -> None:
        """None: the whole folder counts, see `fingerprint`."""
        return None

    def fingerprint(self, memory: Any = None) -> str:
        """Over the size and time of each file: a changed file is another address."""
        folder = self.folder
        files = sorted(p for p in folder.rglob("*") if p.is_file()) if folder.is_dir() else [folder]
        return fingerprint([[str(p.relative_to(folder)), p.stat().st_size, p.stat().st_mtime_ns] for p in files])

    def rows(self, index: Index) -> np.ndarray:
        """(n, d) float32 in the order of the dataset's table.

        Raises:
            MissingError: no file for this dataset. DataError: tiles without a vector, broken or odd files.
        """
        name = index.dataset.name
        table = self._table(name)
        if table is not None:
            ids, X = table
            return _in_order(ids, X, index.table["id"], name)
        if index.table.known("slide") is not None and "x" in index.table:
            return self._by_slide(index)
        raise MissingError(
            f"{self.folder} holds nothing for dataset {name}: expected {name}.npz, {name}.h5 or {name}.csv with columns id and X."
        )

    def _table(self, name: str) -> tuple[np.ndarray, np.ndarray] | None:
        candidates = (
            [self.folder / f"{name}{s}" for s in (".npz", ".h5", ".csv")] if self.folder.is_dir() else [self.folder]
        )
        for path in candidates:
            if path.is_file():
                arrays = read_arrays(path)
                if "id" not in arrays or "X" not in arrays:
                    raise DataError(f"{path} holds {', '.join(arrays)}; it needs `id` (n) and `X` (n, d).")
                return arrays["id"].astype(str), arrays["X"]
        return None

    def _by_slide(self, index: Index) -> np.ndarray:
        table = index.table
        out: np.ndarray | None = None
        for slide in np.unique(table["slide"]):
            path = self.folder / f"{slide}.h5"
            if not path.is_file():
                raise MissingError(
                    f"{self.folder} holds no {slide}.h5 with `features` and `coords`. Make it with the tool that made the others."
                )
            arrays = read_arrays(path)
            if "features" not in arrays or "coords" not in arrays:
                raise DataError(f"{path} holds {', '.join(arrays)}; it needs `features` (n, d) and `coords` (n, 2).")
            features = arrays["features"].reshape(-1, arrays["features"].shape[-1])
            at = {tuple(c): i for i, c in enumerate(arrays["coords"].astype(int).reshape(-1, 2).tolist())}
            rows = np.flatnonzero(table["slide"] == slide)
            wanted = list(zip(table["x"][rows].tolist(), table["y"][rows].tolist(), strict=True))
            absent = [w for w in wanted if w not in at]
            if absent:
                raise DataError(
                    f"{path} has no features at {len(absent)} positions, such as x, y = {absent[0]}. Were the tiles cut with another grid?"
                )
            if out is None:
                out = np.empty((len(table), features.shape[1]), np.float32)
            out[rows] = features[[at[w] for w in wanted]]
        assert out is not None
        return out


def _in_order(ids: np.ndarray, X: np.ndarray, wanted: np.ndarray, name: str) -> np.ndarray:
    if X.ndim != 2 or len(ids) != len(X):
        raise DataError(f"Embeddings for {name}: X has shape {X.shape} for {len(ids)} ids, not (n, d).")
    order = np.argsort(ids, kind="stable")
    twice = ids[order][1:][ids[order][1:] == ids[order][:-1]]
    if len(twice):
        raise DataError(
            f"Embeddings for {name} hold {len(twice)} ids more than once, such as {twice[0]}. Keep one row each."
        )
    at = np.clip(np.searchsorted(ids, wanted, sorter=order), 0, len(ids) - 1)
    found = ids[order[at]] == wanted
    if not found.all():
        lost = wanted[~found]
        raise DataError(
            f"Embeddings for {name} lack {len(lost)} of {len(wanted)} tiles, such as {lost[0]}; they have ids such as {ids[0]}. `bench data index {name} PATH` writes the ids that are expected."
        )
    return X[order[at]].astype(np.float32)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an npz, h5 or csv file; text never unpickled. In a csv `id` is text and numbered columns are X."""
    try:
        if path.suffix == ".npz":
            return npz_arrays(path)
        if path.suffix in (".h5", ".hdf5"):
            import h5py

            with h5py.File(path, "r") as file:
                return {k: _text(own_bytes(v, path)[()]) for k, v in file.items() if isinstance(v, h5py.Dataset)}
        if path.suffix == ".csv":
            return _csv_arrays(path)
    except EosinError:
        raise
    except Exception as error:  # zip, zlib, numpy and HDF5 each have errors of their own
        raise DataError(
            f"{path} cannot be read ({error}). It should be an npz or HDF5 file of plain arrays, without pickled objects."
        ) from error
    raise DataError(f"{path}: embeddings come as .npz, .h5 or .csv.")


def _csv_arrays(path: Path) -> dict[str, np.ndarray]:
    """Numbered columns (0, 1, … or f0, f1, …) are X, `target_…` the targets, y, label and fold whole numbers where they can
    be; others are text."""
    raw = read_csv(path, required=("id",))
    out = {"id": np.array(raw.pop("id"))}
    wide = {"X": _vector(path, list(raw)), "target": [n for n in raw if n.startswith("target_")]}
    for key, names in wide.items():
        if names:
            columns = [numbers(path, n, raw.pop(n)) for n in names]
            out[key] = np.stack(columns, axis=1).astype(np.float32 if key == "X" else np.float64)
    return out | {n: _whole(path, n, v) for n, v in raw.items()}


def _vector(path: Path, names: list[str]) -> list[str]:
    """The columns that are a vector: those that are numbers, else those of one word and its numbers, from 0 or 1 on."""
    found: dict[str, list[str]] = {}
    for name in names:
        stem = name.rstrip("0123456789")
        if stem != name and not name.startswith("target_"):
            found.setdefault(stem, []).append(name)
    whole = {s: own for s, own in found.items() if sorted(int(n[len(s) :]) for n in own) in _counts(len(own))}
    chosen = whole.get("") or (next(iter(whole.values())) if len(whole) == 1 else [])
    if not chosen:
        raise DataError(
            f"{path}: {'no columns are' if not whole else 'both ' + ' and '.join(whole) + ' may be'} the vector. "
            "Call its columns 0, 1, 2, … (or f0, f1, f2, …, and no others so), without a gap."
        )
    return chosen


def _counts(n: int) -> tuple[list[int], list[int]]:
    return list(range(n)), list(range(1, n + 1))


def _whole(path: Path, name: str, values: list[str]) -> np.ndarray:
    if name in ("y", "label", "fold") and all(v.removeprefix("-").isdecimal() for v in values if v):
        return numbers(path, name, values, whole=True)
    return np.array(values)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """What `read_arrays` reads: an npz, h5 or csv file by its ending, whole or not at all.

    Args:
        arrays: `id` (n,), `X` (n, d) float32 (a csv holds no grids), `target` (n, g), and columns (n,).

    Raises:
        UsageError: another ending, or a grid in a csv. StoreError: the file cannot be written.
    """
    buffer = io.BytesIO()
    if path.suffix == ".npz":
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    elif path.suffix in (".h5", ".hdf5"):
        import h5py

        with h5py.File(buffer, "w") as file:
            for name, values in arrays.items():
                file[name] = np.char.encode(values, "utf-8") if values.dtype.kind == "U" else values
    elif path.suffix == ".csv" and arrays["X"].ndim == 2:
        buffer.write(_csv_text(arrays).encode())
    else:
        raise UsageError(
            f"{path}: embeddings are written as .npz, .h5 or .csv, grids as .npz or .h5. Name such a file."
        )
    try:
        publish(path, buffer.getbuffer())
    except OSError as error:
        raise StoreError(f"Cannot write {path}: {error.strerror}. Name another --out with space.") from error


def _csv_text(arrays: Mapping[str, np.ndarray]) -> str:
    """Each number in the fewest digits that read back as the same number."""
    columns = {n: v.astype(str)[:, None] for n, v in arrays.items() if n not in ("X", "target", "classes")}
    header = list(columns)
    if "target" in arrays:
        columns["target"] = arrays["target"].astype(str)
        header += [f"target_{i}" for i in range(arrays["target"].shape[1])]
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([*header, *range(arrays["X"].shape[1])])
    for i, row in enumerate(arrays["X"]):
        writer.writerow([*(c for v in columns.values() for c in v[i].tolist()), *row.astype(str).tolist()])
    return text.getvalue()


def _text(values: Any) -> np.ndarray:
    arr = np.asarray(values)
    if arr.dtype.kind == "O":
        return np.array([v.decode() if isinstance(v, bytes) else str(v) for v in arr.ravel()]).reshape(arr.shape)
    return np.char.decode(arr, "utf-8") if arr.dtype.kind == "S" else arr
