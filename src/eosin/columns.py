"""Many arrays in one file, with words about them: checked when it is opened, read whole or, where it is large, mapped.

Layout: MAGIC; the length of the head and its CRC-32, as two little-endian 64-bit numbers; the head, JSON; the arrays, each
from a multiple of 64 bytes, as numpy holds them. The head names them and holds the CRC-32 of all that follows it.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .files import publishing

MAGIC = b"eosincol"
START = len(MAGIC) + 16
STEP = 64
MAPPED = (
    2**28
)  # bytes from which a file is mapped: processes of one machine then share it, and memory holds what is used
PIECE = 2**24


def write(path: Path, words: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> int:
    """Write the file whole or not at all; its bytes. OSError when it cannot be written. Arrays of objects are not for files."""
    solid = {name: np.ascontiguousarray(a) for name, a in arrays.items()}
    at, crc, places = 0, 0, {}
    for name, a in solid.items():
        places[name] = [a.dtype.str, a.shape, at]
        for piece in _pieces(a):
            crc = zlib.crc32(piece, crc)
        at += a.nbytes + -a.nbytes % STEP
    head = json.dumps({"words": words, "arrays": places, "bytes": at, "crc": crc}).encode()
    head += b" " * (-(START + len(head)) % STEP)
    with publishing(path) as handle:
        handle.write(MAGIC + struct.pack("<QQ", len(head), zlib.crc32(head)) + head)
        for a in solid.values():
            for piece in _pieces(a):
                handle.write(piece)
        return handle.tell()


def read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray], bool]:
    """(words, arrays that cannot be written to, whether they are mapped).

    Raises:
        ValueError: it is no such file, or is damaged. OSError: it cannot be read.
    """
    with open(path, "rb") as handle:
        opening = handle.read(START)
        if len(opening) < START or not opening.startswith(MAGIC):
            raise ValueError(f"{path} holds no columns")
        length, crc = struct.unpack("<QQ", opening[len(MAGIC) :])
        size = os.fstat(handle.fileno()).st_size
        text = handle.read(length) if length <= size else b""
        if zlib.crc32(text) != crc or not text:
            raise ValueError(f"the head of {path} is damaged")
        head = json.loads(text)
        if size != START + length + head["bytes"]:
            raise ValueError(f"{path} has {size:,} bytes, not those that it says")
        mapped = size >= MAPPED
        content: Any = (
            mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) if mapped else opening + text + handle.read()
        )
    data = memoryview(content)[START + length :]
    if _crc(data) != head["crc"]:
        raise ValueError(f"{path} is damaged")
    return head["words"], {n: _array(data, *place) for n, place in head["arrays"].items()}, mapped


def _array(data: memoryview, kind: str, shape: list[int], at: int) -> np.ndarray:
    dtype, count = np.dtype(kind), math.prod(shape)
    return np.frombuffer(data, dtype, count, at).reshape(shape) if count * dtype.itemsize else np.empty(shape, dtype)


def _pieces(a: np.ndarray) -> list[memoryview | bytes]:
    """An array's bytes, and what fills them up to a whole step, a few megabytes at a time."""
    flat = a.reshape(-1).view(np.uint8) if a.nbytes else np.empty(0, np.uint8)
    return [flat[i : i + PIECE].data for i in range(0, len(flat), PIECE)] + [b"\0" * (-len(flat) % STEP)]


def _crc(data: memoryview) -> int:
    crc = 0
    for i in range(0, len(data), PIECE):
        crc = zlib.crc32(data[i : i + PIECE], crc)
    return crc
