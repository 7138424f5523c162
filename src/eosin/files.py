"""Files that are whole or not there, and what is in them in a few letters."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from .errors import StoreError

WHOLE_FILE = 64 * 2**20  # larger files count by size, first and last megabyte
END = 2**20
LEFT = re.compile(r"\..+\.[0-9a-f]{12}\.tmp")  # what `publish` writes before it renames
OLD = 3600  # seconds after which nobody is still writing such a file


def publish(path: Path, content: bytes | memoryview) -> None:
    """Write a file beside its place and rename it; whatever happens, nothing half-written is left.

    Raises:
        OSError: when the folder cannot be made or written, or the disk is full.
    """
    with publishing(path) as handle:
        handle.write(content)


@contextlib.contextmanager
def publishing(path: Path) -> Iterator[BinaryIO]:
    """The same for what is written piece by piece; an error in between leaves the old file as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(
        f".{path.name[:200]}.{secrets.token_hex(6)}.tmp"
    )  # process numbers repeat across machines
    try:
        with open(temporary, "wb") as handle:
            yield handle
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


@contextlib.contextmanager
def writing(place: Path | str, instead: str) -> Iterator[None]:
    """What is written in here fails in a sentence: no rights, no room, a file where a folder should be.

    Args:
        place: as the user named it. instead: what to name in its stead (`--out`).

    Raises:
        StoreError: for any OSError.
    """
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"Cannot write {place}: {error.strerror or error}. Name another {instead}, where you may write, with room."
        ) from error


def leftovers(folder: Path) -> list[Path]:
    """Files that `publish` had begun below a folder when its process was killed, an hour ago or longer."""
    now, found = time.time(), []
    for top, _, names in os.walk(folder):
        found += [Path(top, n) for n in names if LEFT.fullmatch(n)]
    return sorted(p for p in found if p.is_file() and now - p.stat().st_mtime > OLD)


def opened(path: Path, buffering: int = -1) -> Any:
    """A file to read; OSError where a pipe or a device has its name, which may never answer, or never end."""
    mode = os.stat(path).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # a folder has an error of its own
        raise OSError(errno.EINVAL, "it is no plain file", str(path))
    return open(path, "rb", buffering)


def content_of(path: Path) -> str:
    """Hex digest of a file's content; of more than 64 MB its size, head and tail. OSError when it cannot be read."""
    digest = hashlib.blake2b(digest_size=8)
    with opened(path, 0) as handle:
        size = os.fstat(handle.fileno()).st_size
        if size <= WHOLE_FILE:
            digest.update(handle.read())
        else:
            digest.update(str(size).encode() + handle.read(END))
            handle.seek(-END, os.SEEK_END)
            digest.update(handle.read(END))
    return digest.hexdigest()


def free_space(folder: Path) -> str:
    """A sentence on the space left where `folder` lies."""
    import shutil

    for place in (folder, *folder.parents):
        with contextlib.suppress(OSError):
            return f"{shutil.disk_usage(place).free / 2**30:.2f} GB free at {place}."
    return ""


def free_memory() -> int | None:
    """Bytes that this process may still take: of the machine, or of its container where that allows less; None: unknown."""
    found = []
    with contextlib.suppress(OSError, ValueError, IndexError):
        found.append(int(Path("/proc/meminfo").read_text().partition("MemAvailable:")[2].split()[0]) * 1024)
    with contextlib.suppress(OSError, ValueError):  # "max" where there is no limit
        group = Path("/sys/fs/cgroup")
        found.append(int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    return max(0, min(found)) if found else None
