"""The index of a dataset: its table, the content of its sources and the fingerprints of both, made once and kept.

Raw folders are only read; an index lies in EOSIN_HOME/indexes. A second look costs one stat a file: the table is built
again when the csv, a folder or a source has changed, and only changed files are read again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from . import columns, folds
from . import sources as on_disk
from .cards import fingerprint, plain
from .dataset import Dataset
from .errors import DataError, EosinError
from .extractor import hash_file, sources_of
from .files import content_of
from .table import Table

TICK = 50_000_000  # nanoseconds; file systems count time in steps of up to some ten milliseconds
CHUNK = 128  # files that a thread reads before it says so
UNSURE = -2  # a mark that no file has
KEPT = "index.columns"
RULES = 2  # raised when equal data make another table, or more is said of it
LINES = 2**16  # values that are text at a time
PIXELS = ("id", "source", "x", "y", "w", "h", "px", "pad", "row", "key", "level")

Progress = Callable[[int, int], None]


@dataclass
class Index:
    """What the harness knows of a dataset on disk.

    Attributes:
        root: the raw folder.
        table: one row a tile. items: one row an item, to which labels belong; the same table where an item is a tile.
        tiles: fingerprint of what models see: ids, sources, boxes and the sources' content. Addresses embeddings.
        rows: fingerprint of all columns as well: labels, splits, groups, which tiles are whose. Addresses records.
        path: the csv of the items; the tiles lie beside it in tiles.csv where they are another table.
        mapped: whether the tables are pages of the kept file rather than memory of this process.
    """

    dataset: Dataset
    root: Path
    table: Table
    items: Table
    tiles: str
    rows: str
    path: Path
    mapped: bool = False

    def __reduce__(self) -> Any:
        """Another process maps what is mapped here; anything else is sent whole."""
        if self.mapped:
            return _reopened, (self.dataset, self.root, self.path, self.rows)
        return Index, tuple(getattr(self, f.name) for f in fields(self))

    @property
    def levels(self) -> bool:
        """Whether items are larger than tiles."""
        return self.items is not self.table

    @property
    def warnings(self) -> list[str]:
        """What was odd and accepted, in the items and in their tiles."""
        return list(dict.fromkeys([*self.items.warnings, *self.table.warnings]))


def open_index(
    dataset: Dataset, data: Path, indexes: Path, root: Path | None = None, progress: Progress | None = None
) -> Index:
    """The index of a dataset, from the kept one if nothing on disk has changed.

    Args:
        data: the data folder in which the dataset looks for itself; `root` names its folder outright.
        progress: called with (files read, files to read).

    Raises:
        MissingError: the data are not there, and nothing makes them. DataError: they are wrong.
    """
    root = (root or _located(dataset, data)).absolute()
    code = [hash_file(p) for p in sources_of(type(dataset))]  # a loader that was mended makes another table
    key = fingerprint([type(dataset).__name__, plain(dataset.card), str(root), code, RULES])
    folder = indexes / f"{dataset.name}@{key}"
    kept = _load(folder / KEPT)
    if kept is not None and _unchanged(root, kept):
        found = kept.index(dataset, root, folder)
        if not found.path.is_file():
            _write_csv(found)
        return found
    began = time.time_ns()
    items = _items(dataset, root)
    table = _tiles(dataset, root, items)
    sources = on_disk.all_of(table, items)
    stats = on_disk.stats(root, sources, dataset.name)
    known = {} if kept is None else dict(zip(_keys(kept.sources, kept.stats), kept.hashes.tolist(), strict=True))
    keys = _keys(sources, stats)
    fresh = [i for i, k in enumerate(keys) if k not in known]
    hashes = [known.get(k, "") for k in keys]
    with ThreadPoolExecutor(min(8, 2 * (os.cpu_count() or 1))) as pool:
        some = [
            fresh[at : at + CHUNK] for at in range(0, len(fresh), CHUNK)
        ]  # a thread's errand costs as much as a file
        done = 0
        for rows, digests in zip(
            some, pool.map(lambda rows: [_content(root / sources[i]) for i in rows], some), strict=True
        ):
            for i, digest in zip(rows, digests, strict=True):
                hashes[i] = digest
            done += len(rows)
            if progress:
                progress(done, len(fresh))
    # what changed while we read, or within the clock's tick before, may hold more than we saw: not to be trusted again
    marks = on_disk.marks(sorted({*table.watched, *items.watched, *on_disk.folders(root, sources)}))
    marks = {path: mark if mark < began - TICK else UNSURE for path, mark in marks.items()}
    found = _index(dataset, root, folder, table, items, sources, hashes)
    large = _save(found, sources, stats, np.asarray(hashes, str), marks) >= columns.MAPPED
    kept = _load(folder / KEPT) if large else None  # so that memory is given back, and workers share what is on disk
    return found if kept is None else kept.index(dataset, root, folder)


def _located(dataset: Dataset, data: Path) -> Path:
    """Where a dataset lies; made first by another, where its card names one and it is absent."""
    if dataset.maker is None or dataset.present(data):
        return dataset.locate(data)
    return dataset.maker.make(dataset.name, data)


def _items(dataset: Dataset, root: Path) -> Table:
    """The loader's table, sorted out: ids unique, labels within the classes."""
    table = _asked(dataset, root, "items", lambda: dataset.items(root))
    table.check_ids(dataset.name)
    if table["label"].max() >= max(1, len(table.classes)):
        raise DataError(
            f"{dataset.name}: a label of {table['label'].max()} and {len(table.classes)} classes. Give the table its classes."
        )
    table.warnings += folds.remarks(table.known("group"), table.known("split"))
    return table


def _tiles(dataset: Dataset, root: Path, items: Table) -> Table:
    """The tiles of the items, each of which is somebody's; the items themselves where they are tiles."""
    table = _asked(dataset, root, "tiles", lambda: items if (t := dataset.tiles(root, items)) is None else t)
    if table is items:
        return items
    table.check_ids(dataset.name)
    lost = table["item"][~np.isin(table["item"], items["id"])] if "item" in table else ["no column `item`"]
    if len(lost):
        raise DataError(f"{dataset.name}: tiles(root, items) names items that are not there: {lost[0]}.")
    return table


def _asked(dataset: Dataset, root: Path, what: str, ask: Callable[[], Any]) -> Table:
    """A table from somebody's loader, which may raise anything."""
    try:
        table = ask()
    except EosinError:
        raise
    except PermissionError as error:
        raise DataError(f"{dataset.name}: {error.filename} may not be read. Change its permissions.") from error
    except Exception as error:
        raise DataError(
            f"{dataset.name}: {root} could not be indexed ({type(error).__name__}: {error}). Compare it with `bench data where {dataset.name}`; --debug shows where it failed."
        ) from error
    if not isinstance(table, Table):
        given = "items(root)" if what == "items" else "tiles(root, items)"
        raise DataError(f"{dataset.name}: {given} gave {type(table).__name__}, not an eosin.Table.")
    return table


def _index(
    dataset: Dataset, root: Path, folder: Path, table: Table, items: Table, sources: Any, hashes: list[str]
) -> Index:
    tiles = _print_of_tiles(table, sources, hashes)
    owner = {"item of a tile": table["item"]} if table is not items else {}
    facts = {"classes": np.asarray(items.classes), "target": items.target, "tiles": np.asarray([tiles])}
    for name, some in {"masks": items, "masks of tiles": table}.items():
        if "mask" in some and (some is items or table is not items):
            there = some["mask"][some["mask"] != ""]
            facts[name] = np.asarray(hashes)[np.searchsorted(sources, there)] if len(there) else there
    return Index(dataset, root, table, items, tiles, _digest({**items.columns, **facts, **owner}), folder / "table.csv")


def _print_of_tiles(table: Table, sources: Any, hashes: list[str]) -> str:
    content = np.asarray(hashes)[np.searchsorted(sources, table["source"])] if len(hashes) else np.empty(0, str)
    return _digest({**{n: table[n] for n in PIXELS if n in table}, "content": content})


def kept(indexes: Path, name: str) -> Iterator[Index]:
    """The kept indexes of a dataset as they are, compared with nothing on disk: its data may lie elsewhere by now."""
    for path in sorted([*indexes.glob(f"{name}@*/{KEPT}"), *indexes.glob(f"*/{name}@*/{KEPT}")]):
        if found := _load(path):
            yield found.index(Dataset(name), path.parent, path.parent)


def _reopened(dataset: Dataset, root: Path, path: Path, rows: str) -> Index:
    """A mapped index in another process."""
    found = _load(path.with_name(KEPT))
    if found is None or found.rows != rows:
        raise DataError(
            f"{dataset.name}: the index in {path.parent} is not the one that this run began with. Run it again."
        )
    return found.index(dataset, root, path.parent)


def _digest(found: dict[str, Any]) -> str:
    digest = hashlib.blake2b(digest_size=6)
    for name in sorted(found):
        if found[name] is not None:
            digest.update(name.encode() + b"\0")
            for piece in _bytes(found[name]):
                digest.update(piece)
    return digest.hexdigest()


def _bytes(values: np.ndarray) -> Iterator[bytes]:
    """Bytes that say what a column holds, the same on every machine: text by lines, numbers as they are."""
    if values.dtype.kind != "U":
        yield np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<")).tobytes()
        return
    for at in range(0, len(values), LINES):
        yield b"\n" * bool(at) + "\n".join(values[at : at + LINES].tolist()).encode()


def _content(path: Path) -> str:
    try:
        return content_of(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}. Check its permissions, or copy it again.") from error


def _keys(sources: np.ndarray, stats: np.ndarray) -> list[tuple[str, int, int]]:
    return list(zip(sources.tolist(), *stats.T.tolist(), strict=True))


def _unchanged(root: Path, kept: Kept) -> bool:
    if on_disk.marks(kept.marks) != kept.marks:
        return False
    try:
        return np.array_equal(on_disk.stats(root, kept.sources, ""), kept.stats)
    except DataError:
        return False


@dataclass
class Kept:
    """What the kept file holds: an index, and by what it is known to be true still."""

    table: Table
    items: Table
    tiles: str
    rows: str
    sources: np.ndarray
    stats: np.ndarray
    hashes: np.ndarray
    marks: dict[str, int]
    mapped: bool

    def index(self, dataset: Dataset, root: Path, folder: Path) -> Index:
        return Index(dataset, root, self.table, self.items, self.tiles, self.rows, folder / "table.csv", self.mapped)


def _save(found: Index, sources: np.ndarray, stats: np.ndarray, hashes: np.ndarray, marks: dict[str, int]) -> int:
    """table.csv (and tiles.csv) for people, index.columns for us; the bytes of this, 0 where there is no room for it."""
    words: dict[str, Any] = {"tiles": found.tiles, "rows": found.rows, "marks": marks}
    arrays = {"sources": sources, "stats": stats, "hashes": hashes}
    _write_csv(found)
    _pack("items", found.items, words, arrays)
    if found.levels:
        _pack("tiles of items", found.table, words, arrays)
    with contextlib.suppress(OSError):  # an index that cannot be kept costs time at the next look
        return columns.write(found.path.with_name(KEPT), words, arrays)
    return 0


def _write_csv(found: Index) -> None:
    found.items.write_csv(found.path)
    if found.levels:
        found.table.write_csv(found.path.with_name("tiles.csv"))


def _pack(name: str, table: Table, words: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    own = {n: getattr(table, n) for n in ("classes", "target_names", "warnings", "counts", "watched")}
    words[name] = {"order": list(table.columns), "own": own}
    arrays |= {f"{name}:{n}": v for n, v in table.columns.items()}
    if table.target is not None:
        arrays[f"target:{name}"] = table.target


def _unpack(name: str, words: dict[str, Any], arrays: dict[str, np.ndarray]) -> Table:
    own: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) and k != "warnings" else v for k, v in words[name]["own"].items()
    }
    order = words[name]["order"]
    return Table({n: arrays[f"{name}:{n}"] for n in order}, target=arrays.get(f"target:{name}"), **own)


def _load(path: Path) -> Kept | None:
    """What `_save` wrote; None when it is absent or damaged."""
    try:
        words, arrays, mapped = columns.read(path)
        items = _unpack("items", words, arrays)
        table = _unpack("tiles of items", words, arrays) if "tiles of items" in words else items
        own = {n: arrays[n] for n in ("sources", "stats", "hashes")}
        return Kept(table, items, words["tiles"], words["rows"], marks=words["marks"], mapped=mapped, **own)
    except Exception:  # json and numpy each have errors of their own: a damaged index is made again
        return None
