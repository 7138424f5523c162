"""PNG files without compression: the same pixels give the same bytes whatever zlib a machine has."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np

_BLOCK = 65535  # the longest stored block of deflate (RFC 1951, 3.2.4), bytes


def save(path: Path, picture: np.ndarray) -> None:
    """Write (h, w, 3) uint8 as RGB, or (h, w) uint16 as 16-bit grey. Raises ValueError for anything else."""
    if picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3:
        depth, colour = 8, 2
    elif picture.dtype == np.uint16 and picture.ndim == 2:
        depth, colour = 16, 0
    else:
        raise ValueError(f"cannot save {picture.dtype} {picture.shape}: give (h, w, 3) uint8 or (h, w) uint16")
    height, width = picture.shape[:2]
    rows = np.ascontiguousarray(picture.astype(picture.dtype.newbyteorder(">"))).view(np.uint8).reshape(height, -1)
    raw = np.pad(rows, ((0, 0), (1, 0))).tobytes()  # each row is led by its filter: 0, none
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = _chunk(b"IHDR", header) + _chunk(b"IDAT", _stored(raw)) + _chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)


def _stored(raw: bytes) -> bytes:
    """A zlib stream (RFC 1950) whose deflate blocks are all stored."""
    starts = range(0, len(raw), _BLOCK)
    blocks = [
        struct.pack("<BHH", at == starts[-1], len(part), len(part) ^ 0xFFFF) + part
        for at, part in ((at, raw[at : at + _BLOCK]) for at in starts)
    ]
    return b"\x78\x01" + b"".join(blocks) + struct.pack(">I", zlib.adler32(raw))


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
