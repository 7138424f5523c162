"""The record: one JSON file of one model on one benchmark, enough to repeat the number from the file alone."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .errors import StoreError
from .files import publish

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


def read(path: Path) -> dict[str, Any]:
    """A record; ValueError says why a file is none (damaged, foreign, of a later version)."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
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


def find(results: Path) -> Iterator[Path]:
    """Every record file below a results folder, sorted."""
    return iter(sorted(p for p in results.glob("*@*/*@*.json") if not p.name.startswith(".")))
