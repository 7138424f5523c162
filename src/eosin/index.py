"""The index of a dataset: its table, the content of its sources and the fingerprints of both, made once and kept.

Raw folders are only read; an index lies in EOSIN_HOME/indexes. A second look costs one stat a file: the table is built
again when the csv, a folder or a source has changed, and only changed files are read again.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .cards import fingerprint, plain
from .dataset import Dataset
from .errors import DataError, EosinError
from .files import content_of, publish
from .table import Table

TICK = 50_000_000  # nanoseconds; file systems count time in steps of up to some ten milliseconds
CHUNK = 128  # files that a thread reads before it says so
UNSURE = -2  # a mark that no file has
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
    """

    dataset: Dataset
    root: Path
    table: Table
    items: Table
    tiles: str
    rows: str
    path: Path

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
    key = fingerprint([type(dataset).__name__, plain(dataset.card), str(root)])
    folder = indexes / f"{dataset.name}@{key}"
    kept = _load(folder / "index.npz")
    if kept is not None and _unchanged(root, kept):
        return _index(dataset, root, folder, kept["table"], kept["items"], kept["sources"], kept["hash"])
    began = time.time_ns()
    items = _items(dataset, root)
    table = _tiles(dataset, root, items)
    bare = items["source"][~np.isin(items["id"], table["item"])] if table is not items else items["source"]
    masks = [t["mask"][t["mask"] != ""] for t in (table, items) if "mask" in t]  # labels too, pixel by pixel
    sources = np.unique(np.concatenate([table["source"], bare[bare != ""] if table is not items else bare, *masks]))
    stats = _stats(root, sources, dataset.name)
    known = (
        {}
        if kept is None
        else dict(zip(zip(kept["sources"], *kept["stats"].T.tolist(), strict=True), kept["hash"], strict=True))
    )
    keys = list(zip(sources.tolist(), *stats.T.tolist(), strict=True))
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
    marks = _marks(sorted({*table.watched, *items.watched, *_folders(root, sources)}))
    marks = {path: mark if mark < began - TICK else UNSURE for path, mark in marks.items()}
    _save(folder, table, items, sources.tolist(), stats, hashes, marks)
    return _index(dataset, root, folder, table, items, sources, hashes)


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
    for path in sorted([*indexes.glob(f"{name}@*/index.npz"), *indexes.glob(f"*/{name}@*/index.npz")]):
        if found := _load(path):
            yield _index(
                Dataset(name), path.parent, path.parent, *(found[k] for k in ("table", "items", "sources", "hash"))
            )


def _digest(columns: dict[str, Any]) -> str:
    digest = hashlib.blake2b(digest_size=6)
    for name in sorted(columns):
        if columns[name] is not None:
            digest.update(name.encode() + b"\0")
            digest.update(_blob(columns[name]))
    return digest.hexdigest()


def _blob(values: np.ndarray) -> bytes:
    """Bytes that say what a column holds, the same on every machine."""
    if values.dtype.kind == "U":
        return "\n".join(values.tolist()).encode()
    return np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<")).tobytes()


def _content(path: Path) -> str:
    try:
        return content_of(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}. Check its permissions, or copy it again.") from error


def _stats(root: Path, sources: np.ndarray, name: str) -> np.ndarray:
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


def _folders(root: Path, sources: np.ndarray) -> set[str]:
    """Every folder between the root and a source: a file that comes or goes changes one of them."""
    found = {str(root)} if root.is_dir() else set()
    for parent in {s.rpartition("/")[0] for s in sources.tolist()}:
        while parent:
            found.add(str(root / parent))
            parent = parent.rpartition("/")[0]
    return found


def _marks(paths: Iterable[str]) -> dict[str, int]:
    """When each file or folder was changed, in nanoseconds; -1 when it is gone."""

    def mark(path: str) -> int:
        with contextlib.suppress(OSError):
            return os.stat(path).st_mtime_ns
        return -1

    return {p: mark(p) for p in paths}


def _unchanged(root: Path, kept: dict[str, Any]) -> bool:
    if _marks(kept["marks"]) != kept["marks"]:
        return False
    try:
        return np.array_equal(_stats(root, np.asarray(kept["sources"]), ""), kept["stats"])
    except DataError:
        return False


def _save(
    folder: Path,
    table: Table,
    items: Table,
    sources: list[str],
    stats: np.ndarray,
    hashes: list[str],
    marks: dict[str, int],
) -> None:
    """table.csv (and tiles.csv) for people, index.npz for us: numbers as arrays, everything else as one JSON text."""
    items.write_csv(folder / "table.csv")
    words: dict[str, Any] = {"sources": sources, "hash": hashes, "marks": marks}
    arrays: dict[str, np.ndarray] = {"stats": stats}
    _pack("items", items, words, arrays)
    if table is not items:
        table.write_csv(folder / "tiles.csv")
        _pack("tiles", table, words, arrays)
    buffer = io.BytesIO()
    np.savez(buffer, words=np.frombuffer(json.dumps(words).encode(), np.uint8), **arrays)  # type: ignore[arg-type]
    with contextlib.suppress(OSError):  # an index that cannot be kept costs time at the next look
        publish(folder / "index.npz", buffer.getbuffer())


def _pack(name: str, table: Table, words: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    text = {n: v.tolist() for n, v in table.columns.items() if v.dtype.kind == "U"}
    own = {n: getattr(table, n) for n in ("classes", "target_names", "warnings", "counts", "watched")}
    words[name] = {"order": list(table.columns), "text": text, "own": own}
    arrays |= {f"{name}:{n}": v for n, v in table.columns.items() if n not in text}
    if table.target is not None:
        arrays[f"target:{name}"] = table.target


def _unpack(name: str, words: dict[str, Any], file: Any) -> Table:
    words = words[name]
    columns = {n: words["text"].get(n) or file[f"{name}:{n}"] for n in words["order"]}
    own: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) and k != "warnings" else v for k, v in words["own"].items()
    }
    return Table(columns, target=file[f"target:{name}"] if f"target:{name}" in file else None, **own)


def _load(path: Path) -> dict[str, Any] | None:
    """What `_save` wrote; None when it is absent or damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            words = json.loads(file["words"].tobytes())
            items = _unpack("items", words, file)
            table = _unpack("tiles", words, file) if "tiles" in words else items
            kept = {k: words[k] for k in ("sources", "hash", "marks")}
            return {"table": table, "items": items, "stats": file["stats"], **kept}
    except Exception:  # zip, zlib, numpy and json each have errors of their own: a damaged index is made again
        return None
