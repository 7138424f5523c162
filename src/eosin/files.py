"""Files that are whole or not there."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


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
