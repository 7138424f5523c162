"""Where embeddings lie: a folder an address, an immutable HDF5 part a block of rows. The format: docs/store.md.

Nothing here is ever changed in place. A part is written beside its place and renamed; its first 512 bytes (the HDF5 user
block) hold the digest of the rest, so any flipped byte is found. Who works on a block says so with a claim file, which
saves double work and is never needed for correctness: two writers of one block publish equal bytes.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from .arrays import own_bytes, sound_heaps
from .claims import me
from .errors import StoreError
from .files import free_memory, free_space, opened, publish

ENCODING, VERSION = "eosin-embeddings", "1"
HEAD = 512
MOST = 10**10  # rows of one address; what says more was not written here
PART = re.compile(r"part-(\d{6})\.h5")


def block_size(rows: int) -> int:
    """Rows of a part: 256 for small datasets, more for large ones so that no address holds more than a few thousand parts."""
    size = 256
    while size < 8192 and size * 256 < rows:
        size *= 2
    return size


@dataclass(frozen=True)
class Address:
    """One model under one view of one dataset.

    Attributes:
        folder: where its parts lie.
        rows: how many tiles the dataset has.
        about: what made these embeddings (cards, fingerprints); written into every part.
    """

    folder: Path
    rows: int
    about: Mapping[str, Any]

    @property
    def block(self) -> int:
        return block_size(self.rows)

    @property
    def blocks(self) -> range:
        return range(-(-self.rows // self.block))

    def span(self, block: int) -> range:
        """The row numbers of a block."""
        return range(block * self.block, min(self.rows, (block + 1) * self.block))

    def part(self, block: int) -> Path:
        return self.folder / f"part-{block:06d}.h5"

    def present(self) -> set[int]:
        """The blocks that are published; one listing of the folder."""
        try:
            with os.scandir(self.folder) as entries:
                found = {int(m[1]) for e in entries if (m := PART.fullmatch(e.name))}
        except (FileNotFoundError, NotADirectoryError):
            return set()
        return {b for b in found if b in self.blocks}

    def missing(self) -> list[int]:
        here = self.present()
        return [b for b in self.blocks if b not in here]

    def rows_of(self, blocks: Iterable[int]) -> int:
        return sum(len(self.span(b)) for b in blocks)


def write_part(
    address: Address, block: int, ids: np.ndarray, readouts: Mapping[str, np.ndarray], broken: np.ndarray | None = None
) -> None:
    """Publish a block: all its readouts, ids, and which rows could not be read.

    Args:
        ids: (n,) tile ids; readouts: {name: (n, …) float32}; broken: (n,) bool, rows of nan.

    Raises:
        StoreError: when the disk is full or the folder cannot be written; nothing half-written is left. A value beyond
            float16 where the model's card says `stored: float16`.
    """
    target = address.part(block)
    temporary = target.with_name(f".{target.stem}.{me()}.tmp")
    body = _body(address, block, ids, readouts, broken)
    try:
        address.folder.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as handle:
            handle.write(_head(hashlib.blake2b(body[HEAD:], digest_size=16).hexdigest()))
            handle.write(body[HEAD:])
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, target)
    except OSError as error:
        raise StoreError(
            f"Cannot write {target}: {error.strerror or error}. {free_space(address.folder)} Make room, or name another folder with --store; what is stored stays."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _body(
    address: Address, block: int, ids: np.ndarray, readouts: Mapping[str, np.ndarray], broken: np.ndarray | None
) -> memoryview:
    """The HDF5 file as bytes: made in memory, so that a full disk can only fail one plain write."""
    import h5py

    buffer = io.BytesIO()
    with h5py.File(buffer, "w", userblock_size=HEAD) as file:
        file.attrs["encoding-type"], file.attrs["encoding-version"] = ENCODING, VERSION
        file.attrs["about"] = json.dumps(address.about, sort_keys=True)
        file.attrs["first-row"], file.attrs["rows"] = address.span(block).start, address.rows
        file.create_dataset("id", data=np.char.encode(ids.astype(str), "utf-8"))
        for name, values in readouts.items():
            file.create_dataset(name, data=_as_stored(address, name, values))
        if broken is not None and broken.any():
            file.create_dataset("broken", data=broken.astype(np.uint8))
    return buffer.getbuffer()


def _as_stored(address: Address, name: str, values: np.ndarray) -> np.ndarray:
    """As the model's card says, whose fact it is: rounded embeddings are another model's to every address."""
    model = address.about.get("model")
    dtype = np.dtype(model.get("stored", "float32") if isinstance(model, Mapping) else "float32")
    with np.errstate(over="ignore"):
        out = np.ascontiguousarray(values, dtype=dtype)
    if np.isinf(out).any():
        raise StoreError(
            f"{name} has values beyond {np.finfo(dtype).max:,.0f}, the largest that {dtype} holds. Use --stored float32."
        )
    return out


def _digest(path: Path) -> str:
    with opened(path) as handle:
        handle.seek(HEAD)
        return hashlib.file_digest(handle, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _head(digest: str) -> bytes:
    return f"{ENCODING} {VERSION} blake2b-16 {digest}\n".encode().ljust(HEAD, b" ")


def sound(path: Path) -> bool:
    """Whether every byte of a part is what was written; StoreError where that cannot be said."""
    try:
        with opened(path) as handle:
            return handle.read(HEAD) == _head(_digest(path))
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return False
    except OSError as error:  # no sign of damage: nothing is set aside for want of a right
        raise StoreError(f"{path} cannot be read: {error.strerror}. Check its permissions, and the disk.") from error


class Damaged(StoreError):
    """Parts that fail their checksum; they have been set aside and are to be embedded again."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths
        names = ", ".join(str(p) for p in paths)
        super().__init__(
            f"Damaged: {names}. Set aside as *.damaged and embedded again at the next `bench run` or `bench embed`."
        )


def read(address: Address, readouts: list[str]) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """All rows of an address: ids (n,), broken (n,) bool, and {readout: (n, d) float32}. No readouts named: all.

    Raises:
        Damaged: after setting aside every part that fails its checksum.
        StoreError: when parts are missing or lack a readout.
    """
    ids, broken, X, columns = read_joined(address, readouts)
    return ids, broken, {name: X[:, own] for name, own in columns.items()}


def read_joined(address: Address, readouts: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, slice]]:
    """As `read`, with the readouts side by side in one array (n, d, …) float32, and which columns are whose.

    Parts are read straight into their rows, so that no row is ever held twice; see `room` for what exceeds memory.
    """
    import h5py

    bad = [address.part(b) for b in address.blocks if not sound(address.part(b))]
    set_aside(p for p in bad if os.path.lexists(p))
    if bad:
        raise Damaged(bad)
    ids: list[np.ndarray] = []
    broken, X, columns = np.zeros(address.rows, bool), np.empty((address.rows, 0), np.float32), dict[str, slice]()
    for block in address.blocks:
        span = address.span(block)
        rows = slice(span.start, span.stop)
        path = address.part(block)
        with _odd_is_damaged(path), h5py.File(path, "r") as file:
            ids.append(np.char.decode(_rows(file, "id", "S", span, path)[:], "utf-8"))
            if "broken" in file:
                broken[rows] = _rows(file, "broken", "u", span, path)[:].astype(bool)
            given = [n for n in file if n not in ("id", "broken")]
            lacking = next((n for n in readouts if n not in given), None)
            if lacking:
                raise StoreError(
                    f"{path} holds no readout {lacking!r}, only {', '.join(given)}. Choose one with --readout."
                )
            values = {n: _rows(file, n, "f", span, path) for n in readouts or given}
            if not columns:
                ends = np.cumsum([0, *(v.shape[1] for v in values.values())]).tolist()
                columns = {n: slice(*ends[i : i + 2]) for i, n in enumerate(values)}
                X = room((address.rows, ends[-1], *next(iter(values.values())).shape[2:]), address.folder)
            for name, own in columns.items():
                values[name].read_direct(X, dest_sel=np.s_[rows, own])
    return np.concatenate(ids) if ids else np.empty(0, str), broken, X, columns


def _rows(file: Any, name: str, kind: str, span: range, path: Path) -> Any:
    """A dataset of a part, which may be what it says it is: of this kind, with a row a tile, in bytes that the file has."""
    data = own_bytes(file[name], path)
    if data.dtype.kind != kind or data.shape[:1] != (len(span),):
        raise ValueError(f"{name} is {data.dtype} of shape {data.shape}, for {len(span)} rows")
    return data


@contextlib.contextmanager
def _odd_is_damaged(path: Path) -> Iterator[None]:
    """A part that has its digest and is no part all the same was not written by `write_part`: as damaged as any."""
    try:
        yield
    except (OSError, KeyError, ValueError, TypeError, IndexError, AttributeError, RuntimeError) as error:
        set_aside([path])
        raise Damaged([path]) from error


def room(shape: tuple[int, ...], folder: Path) -> np.ndarray:
    """A float32 array: in memory; or, where it would take more than half of what is free, in a nameless file of the
    store's disk, whose pages the system takes in and gives back as they are used.

    Raises:
        StoreError: neither has room.
    """
    size, free = 4 * math.prod(shape), free_memory()
    if free is None or size <= free / 2:
        return np.empty(shape, np.float32)
    place = folder if os.access(folder, os.W_OK) else Path(tempfile.gettempdir())
    try:
        if size > shutil.disk_usage(place).free:  # to find out by filling the disk would harm others
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        file = tempfile.TemporaryFile(dir=place)
        with contextlib.suppress(AttributeError):  # on a Mac
            os.posix_fallocate(file.fileno(), 0, size)  # now, since a page that finds no room later kills the process
        return np.memmap(file, np.float32, "w+", shape=shape)
    except OSError as error:
        raise StoreError(
            f"{folder} holds {size / 2**30:.1f} GB, {free / 2**30:.1f} GB of memory are free, and there is no room to map it: {error.strerror}. {free_space(place)} Use a machine with more, or another --store."
        ) from error


def stored(folder: Path) -> Address | None:
    """The address that a folder is, as its first undamaged part says; None where there is none."""
    import h5py

    for path in sorted(folder.glob("part-*.h5")):
        with contextlib.suppress(StoreError, OSError, KeyError, ValueError, TypeError, RecursionError):
            if not sound(path):
                continue
            sound_heaps(path)  # text of attributes lies in them
            with h5py.File(path, "r") as file:
                rows, about = int(file.attrs["rows"]), json.loads(file.attrs["about"])
            if 0 < rows <= MOST and isinstance(about, dict):
                return Address(folder, rows, about)
    return None


def given_readouts(address: Address) -> tuple[str, ...]:
    """The readouts that the first undamaged part holds, () when there is none."""
    import h5py

    part = next((p for b in sorted(address.present()) if sound(p := address.part(b))), None)
    if part is None:
        return ()
    with h5py.File(part, "r") as file:
        return tuple(n for n in file if n not in ("id", "broken"))


def set_aside(paths: Iterable[Path]) -> None:
    """Rename parts so that they no longer count and can still be looked at; StoreError where that may not be."""
    for path in paths:
        try:
            os.replace(path, path.with_name(path.name + ".damaged"))
        except FileNotFoundError:
            continue
        except OSError as error:
            raise StoreError(
                f"{path} is damaged and cannot be set aside: {error.strerror}. Make the store writable, or name another --store."
            ) from error


class Memory:
    """Content hashes remembered by path, size and time of change, in one JSON file; a second look costs a stat."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def known(self) -> dict[str, list[Any]]:
        try:
            content = json.loads(self.path.read_text())
            return content if isinstance(content, dict) else {}
        except (OSError, ValueError):
            return {}

    def hash(self, file: Path) -> str:
        """The content hash of a file; StoreError when it cannot be read."""
        from .extractor import hash_file

        try:
            stat = file.stat()
            key, mark = str(file.absolute()), [stat.st_size, stat.st_mtime_ns]
            kept = self.known.get(key)
            if not (isinstance(kept, list) and len(kept) == 3 and kept[:2] == mark):
                self.known[key] = kept = [*mark, hash_file(file)]
                self._save()
            return str(kept[2])
        except OSError as error:
            raise StoreError(f"Cannot read {file}: {error.strerror}. Check the path and its permissions.") from error

    def _save(self) -> None:
        with contextlib.suppress(OSError):  # a memory that cannot be kept costs time, not correctness
            publish(self.path, json.dumps(self.known).encode())
