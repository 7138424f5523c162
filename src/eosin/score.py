"""`bench score`: any protocol on arrays that were made elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from . import folds, record
from .benchmark import Embeddings, Protocol, Scores
from .cards import IMAGENET_MEAN, IMAGENET_STD
from .dataset import SPLITS
from .errors import DataError
from .intervals import intervals
from .pixels import Pixels
from .pool import of_items
from .precomputed import read_arrays

KNOWN = (
    "X",
    "y",
    "id",
    "group",
    "slide",
    "tile",
    "stain",
    "scanner",
    "centre",
    "split",
    "fold",
    "X2",
    "target",
    "image",
    "mask",
    "mean",
    "std",
    "classes",
)
PER_ROW = KNOWN[1:-3]


def from_file(path: Path) -> Embeddings:
    """The arrays of an npz or h5 file as Embeddings: `X` (n, d), `y` (labels, or (n, g) targets), and what else is known.

    Raises:
        DataError: no X, lengths that differ, NaN.
    """
    if not path.is_file():
        raise DataError(f"There is no file {path}. Give an npz or h5 file with X (n, d) and y (n).")
    arrays = read_arrays(path)
    if "X" not in arrays:
        raise DataError(
            f"{path} holds {', '.join(arrays) or 'nothing'}; the embeddings must be called X (n, d), the labels y."
        )
    X = np.asarray(arrays["X"])
    if X.ndim and not len(X):
        raise DataError(f"{path} has no rows: X has shape {X.shape}. Give one row an image.")
    if X.ndim not in (2, 4) or X.dtype.kind not in "fiu" or not X.size:
        raise DataError(f"{path}: X has shape {X.shape} of {X.dtype}, not (n, d) numbers, or (n, d, h, w) of grids.")
    X = X.astype(np.float32, copy=False)
    bad = np.flatnonzero(~np.isfinite(X.reshape(len(X), -1)).all(axis=1))
    if len(bad):
        raise DataError(
            f"{path}: {len(bad)} rows of X hold NaN or infinity, first rows {', '.join(map(str, bad[:5]))}. Remove or embed them again."
        )
    for name in PER_ROW:
        if name in arrays and name != "X2" and np.shape(arrays[name])[:1] != (len(X),):
            raise DataError(
                f"{path}: {name} has {np.size(arrays[name]) and len(np.atleast_1d(arrays[name]))} rows, X has {len(X)}. Give one value a row."
            )
    y, target, classes = _labels(arrays)
    split = arrays.get("split")
    if split is not None:
        split = np.array([SPLITS.get(str(s).lower(), str(s)) for s in split])

    def text(name: str) -> np.ndarray | None:
        if name not in arrays:
            return None
        values = arrays[name]
        lost = np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)
        return np.where(lost, "", values.astype(str))  # a number that is none is not known

    return Embeddings(
        X=X,
        id=_ids(path, arrays, len(X)),
        y=y,
        split=split,
        group=text("group"),
        slide=text("slide"),
        centre=text("centre"),
        fold=_folds(path, arrays["fold"]) if "fold" in arrays else None,
        target=target,
        target_names=tuple(f"target {i}" for i in range(target.shape[1])) if target is not None else (),
        classes=classes,
        table={k: v for k, v in arrays.items() if k not in ("X", "X2", "y", *KNOWN[-5:])},
        dataset=path.name,
        pixels=_pixels(path, arrays),
        X2=_other(path, arrays, len(X)),
    )


def _ids(path: Path, arrays: Mapping[str, np.ndarray], n: int) -> np.ndarray:
    """(n,) names, each of one row: predictions and patients are found by them."""
    ids = arrays["id"].astype(str) if "id" in arrays else np.arange(n).astype(str)
    names, counts = np.unique(ids, return_counts=True)
    if len(names) < n:
        raise DataError(
            f"{path}: {n} rows and {len(names)} different ids; {names[counts.argmax()]} stands {counts.max()} times. "
            "Give each row an id of its own; the patient of a row is `group`."
        )
    return ids


def _folds(path: Path, fold: np.ndarray) -> np.ndarray:
    """The test fold of each row: whole numbers, or names, which are numbered in sorted order."""
    if fold.dtype.kind in "iub":
        return fold.astype(np.int64)
    if fold.dtype.kind == "f":
        if not np.equal(np.mod(fold, 1), 0).all():
            raise DataError(f"{path}: fold holds numbers that are not whole. Give the test fold of each row, from 0.")
        return fold.astype(np.int64)
    return np.unique(fold.astype(str), return_inverse=True)[1].astype(np.int64)


def _other(path: Path, arrays: Mapping[str, np.ndarray], n: int) -> np.ndarray | None:
    """`X2`, the other model's rows."""
    if "X2" not in arrays:
        return None
    X2 = arrays["X2"]
    if X2.ndim != 2 or X2.dtype.kind not in "fiu" or len(X2) != n:
        raise DataError(f"{path}: X2 has shape {X2.shape} of {X2.dtype}, not ({n}, d) numbers: row i is the same tile.")
    return X2.astype(np.float32, copy=False)


def _pixels(path: Path, arrays: Mapping[str, np.ndarray]) -> Pixels | None:
    """What `image` (n, s, s, 3) uint8 and `mask` (n, s, s) of a file hold, for segmentation on grids made elsewhere.

    `mean` and `std` (3 each) are what the model's transform subtracted and divided by; default ImageNet's.
    """
    if "image" not in arrays or "mask" not in arrays:
        return None
    images, masks = arrays["image"], arrays["mask"]
    if images.ndim != 4 or images.dtype != np.uint8 or images.shape[1:] != (images.shape[1],) * 2 + (3,):
        raise DataError(f"{path}: image is {images.dtype} of shape {images.shape}, not uint8 (n, size, size, 3).")
    if masks.shape != images.shape[:3] or len(images) != len(arrays["X"]):
        raise DataError(f"{path}: mask has shape {masks.shape}, image {images.shape}. Give one mask an image and row.")
    mean, std = arrays.get("mean", IMAGENET_MEAN), arrays.get("std", IMAGENET_STD)
    return Pixels(
        lambda i: images[i], lambda i: masks[i], None, tuple(mean), tuple(std), images.shape[1], np.arange(len(images))
    )


def _labels(arrays: Mapping[str, np.ndarray]) -> tuple[np.ndarray | None, np.ndarray | None, tuple[str, ...]]:
    """Labels as indices into classes (sorted values), or a matrix of targets."""
    y = arrays.get("y", arrays.get("label"))
    target = arrays.get("target")
    if y is not None and y.ndim == 2 and y.shape[1] > 1:
        return None, y.astype(np.float64), ()
    if y is None:
        return None, None if target is None else np.asarray(target, np.float64).reshape(len(target), -1), ()
    y = y.reshape(len(y))
    unknown = np.isnan(y) if y.dtype.kind == "f" else np.zeros(len(y), bool)
    if unknown.any() and np.equal(np.mod(y[~unknown], 1), 0).all():
        raise DataError(f"y is NaN in {unknown.sum()} of {len(y)} rows. Leave rows without a label out.")
    if y.dtype.kind == "f" and not np.equal(np.mod(y, 1), 0).all():
        return None, y.astype(np.float64)[:, None], ()
    values, index = np.unique(y.astype(np.int64) if y.dtype.kind == "f" else y, return_inverse=True)
    named = arrays.get("classes")
    whole = values.dtype.kind in "iub"
    if named is not None and whole and values.min() >= 0:
        if values.max() >= len(named):
            raise DataError(f"y holds {values.max()}, and `classes` names {len(named)}. Name every class, from 0.")
        return y.astype(np.int64), target, tuple(named.astype(str).tolist())
    return index.astype(np.int64), target, tuple(values.astype(str).tolist())


def score(protocol: Protocol, emb: Embeddings, given: Mapping[str, Any]) -> dict[str, Any]:
    """`{"protocol", "options", "scores", "seconds", …}`: splits and folds of the file are used unless an option says otherwise."""
    card = protocol.card
    own = dict(given)
    if "split" in card.options and (emb.split is not None or emb.fold is not None):
        own.setdefault("split", "given")
    options = card.complete(own)
    start = time.perf_counter()
    scores = Scores.of(protocol.score(emb, **options), card.name)
    seconds = time.perf_counter() - start
    summaries = {
        m: record.summary(np.atleast_1d(np.asarray(v, float)).tolist(), card.ddof) for m, v in scores.metrics.items()
    }
    how = intervals(summaries, scores, of_items(emb) if card.rows == "tiles" else emb)
    return {
        "protocol": card.name,
        "options": options,
        "scores": summaries,
        "seconds": round(seconds, 4),
        "rows": len(emb),
        "intervals": how,
        "notes": [*scores.notes, *folds.remarks(emb.group, emb.split)],
        "details": record.details(scores.details),
    }
