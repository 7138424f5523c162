"""Files that are whole or not there, and what is in them in a few letters."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

WHOLE_FILE = 64 * 2**20  # larger files count by size, first and last megabyte
END = 2**20


def publish(path: Path, content: bytes | memoryview) -> None:
    """Write a file beside its place and rename it; whatever happens, nothing half-written is left.

    Raises:
        OSError: when the folder cannot be made or written, or the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def content_of(path: Path) -> str:
    """Hex digest of a file's content; of more than 64 MB its size, head and tail. OSError when it cannot be read."""
    digest = hashlib.blake2b(digest_size=8)
    with open(path, "rb", buffering=0) as handle:
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
