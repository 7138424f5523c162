"""The record: one JSON file of one model on one benchmark, enough to repeat the number from the file alone."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .card import plain
from .errors import StoreError
from .files import opened, publish

ENCODING, VERSION = "eosin-record", "1"


def summary(values: list[float], ddof: int) -> dict[str, Any]:
    """`{mean, std, low, high, values}` of one metric; what is not a number is null. `low` and `high` are filled later."""
    arr = np.asarray(values, dtype=np.float64)
    mean = float(arr.mean()) if arr.size else math.nan
    std = float(arr.std(ddof=ddof)) if arr.size > ddof and arr.size > 1 else math.nan
    return {
        "mean": finite(mean),
        "std": finite(std),
        "low": None,
        "high": None,
        "values": [finite(v) for v in arr.tolist()],
    }


def finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def value(mean: float | None, std: float | None = None) -> str:
    """A score as people read it: `0.912 ± 0.010`; a dash where there is none."""
    if mean is None:
        return "–"
    return f"{mean:.3f}" + (f" ± {std:.3f}" if std is not None else "")


def write(path: Path, record: Mapping[str, Any], predictions: Mapping[str, np.ndarray] | None = None) -> None:
    """Publish a record and, beside it, its predictions (`….predictions.npz`): each written whole, then renamed.

    Raises:
        StoreError: when the results folder cannot be written.
    """
    text = json.dumps(
        {"encoding-type": ENCODING, "encoding-version": VERSION, **record},
        indent=1,
        allow_nan=False,
        ensure_ascii=False,
    )
    try:
        if predictions is not None:
            buffer = io.BytesIO()
            np.savez_compressed(buffer, **{k: _storable(v) for k, v in predictions.items()})  # type: ignore[arg-type]
            publish(predictions_path(path), buffer.getvalue())
        publish(path, (text + "\n").encode())
    except OSError as error:
        raise StoreError(
            f"Cannot write {path}: {error.strerror}. Name a folder that you may write, with room, with --results; the embeddings are kept."
        ) from error


def predictions_path(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(".json") + ".predictions.npz")


def _storable(values: Any) -> np.ndarray:
    arr = np.asarray(values)
    return arr.astype(str) if arr.dtype.kind == "O" else arr


def read(path: Path, memory: dict[bytes, Any] | None = None) -> dict[str, Any]:
    """A record; ValueError says why a file is none (damaged, foreign, of a later version).

    Args:
        memory: an empty dict, given with each of thousands of records of which only `SKIMMED` is wanted: blocks that
            many records share (cards above all) are then parsed once. They are one object: read them, change nothing.
    """
    try:
        with opened(path) as handle:
            return parse(handle.read(), path, memory)
    except OSError as error:
        raise ValueError(f"{path} is damaged ({error})") from error


def parse(text: bytes, path: Path, memory: dict[bytes, Any] | None = None) -> dict[str, Any]:
    """A record from the bytes of its file, as `read`."""
    try:
        content = (None if memory is None else _skimmed(text, memory)) or json.loads(text)
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error})") from error
    if not isinstance(content, dict) or content.get("encoding-type") != ENCODING:
        raise ValueError(f"{path} is not a record of eosin")
    if content.get("encoding-version") != VERSION:
        raise ValueError(
            f"{path} is a record of version {content.get('encoding-version')}; this eosin reads version {VERSION}"
        )
    lacking = [
        k for k in ("model", "benchmark", "protocol", "dataset", "scores") if not isinstance(content.get(k), dict)
    ]
    if lacking:
        raise ValueError(f"{path} lacks {', '.join(lacking)}")
    return content


SKIMMED = frozenset(
    b"encoding-type encoding-version model benchmark protocol readout against dataset scores floor embed peak_memory_mb "
    b"created".split()
)


def _skimmed(text: bytes, memory: dict[bytes, Any]) -> dict[str, Any] | None:
    """The blocks of SKIMMED; None where the file is laid out in another way than `write` does.

    As it indents, a line that begins with one space and a quote is a key of the record itself, and no string holds one.
    """
    top, *blocks = text.split(b'\n "')
    if top != b"{" or not text.endswith(b"\n}\n"):
        return None
    found: dict[str, Any] = {}
    for block in blocks:
        key, _, body = block.partition(b'": ')
        if key == b"scores":
            found["scores"] = json.loads(_value(body).decode())
        elif key in SKIMMED:
            if body not in memory:
                memory[body] = json.loads(_value(body).decode())
            found[key.decode()] = memory[body]
    return found


def _value(body: bytes) -> bytes:
    """A block's value without the comma, or the end of the record, behind it."""
    return body[:-1] if body.endswith(b",") else body.removesuffix(b"\n}\n")


def details(given: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a protocol tells beside its scores, as JSON holds it."""
    return {k: plain(_listed(v)) for k, v in (given or {}).items()}


def _listed(values: Any) -> Any:
    """Small arrays as JSON holds them, nan as null."""
    if isinstance(values, Mapping):
        return {str(k): _listed(v) for k, v in values.items()}
    arr = np.asarray(values)
    if arr.dtype.kind == "f":
        return np.where(np.isfinite(arr), arr, None).tolist()  # type: ignore[call-overload]
    return arr.tolist()


def find(results: Path) -> Iterator[Path]:
    """Every record file below a results folder, sorted."""
    return iter(sorted(p for p in results.glob("*@*/*@*.json") if not p.name.startswith(".")))
