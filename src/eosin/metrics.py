"""The sums of every score: numpy in, floats out; torch tensors on any device and lists are taken too.

>>> accuracy([0, 1, 1], [0, 1, 0])
0.6666666666666666
>>> auroc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
0.75
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .arrays import array, rows_of
from .cka import CKA, cka
from .errors import DataError
from .similarity import nearest_within, neighbour_types, plism_pair, robustness_counts

__all__ = [
    "CKA",
    "accuracy",
    "auroc",
    "balanced_accuracy",
    "cka",
    "dice",
    "nearest_within",
    "neighbour_types",
    "pearson",
    "performance_drop",
    "plism_pair",
    "robustness_counts",
]


def accuracy(y: Any, p: Any) -> float:
    """The share of labels that are predicted.

    Args:
        y, p: (n,) true and predicted labels, of any one type.

    Raises:
        DataError: shapes that differ, no rows, NaN (the rows are named).
    """
    y, p = _labels(y, p)
    return float((y == p).mean())


def balanced_accuracy(y: Any, p: Any, classes: Any = None) -> float:
    """Mean over classes of the share of the class's rows that are predicted as it (macro recall).

    Args:
        y, p: (n,) true and predicted labels.
        classes: the classes that count; by default those that occur in y (scikit-learn). A class named here that
            y lacks has recall 0: `classes=np.union1d(y, p)` and, for two classes, `classes=(0, 1)` are torchmetrics'
            rule, which eva reports.

    Raises:
        DataError: as `accuracy`.
    """
    y, p = _labels(y, p)
    classes = np.unique(y) if classes is None else classes
    recall = [(p[y == c] == c).mean() if (y == c).any() else 0.0 for c in classes]
    return float(np.mean(recall))


def auroc(y: Any, score: Any) -> float:
    """Area under the ROC curve by ranks: exact, ties count half.

    Args:
        y: (n,) labels. Two columns or fewer: any two values, of which the larger is positive. More: column numbers, or
            labels whose sorted order is that of the columns.
        score: (n,) or (n, 1) of the positive class; (n, 2), of which the second column counts; or (n, c): each class
            against the rest, and the mean over the classes that y has.

    Returns:
        The area; nan where y has one class only.

    Raises:
        DataError: lengths that differ, NaN scores (the rows are named), more than two labels for one score.
    """
    y, score = rows_of(y, "y"), rows_of(score, "score")
    if len(y) != len(score) or y.ndim != 1 or score.ndim > 2:
        raise DataError(f"y is {y.shape} and score {score.shape}. Give (n,) labels and (n,) or (n, c) scores.")
    if score.ndim == 2 and score.shape[1] > 2:
        code = class_codes(y, score.shape[1])
        areas = [_area(code == c, score[:, c]) for c in np.unique(code)]
    else:
        labels = np.unique(y)
        if len(labels) > 2:
            raise DataError(f"y has {len(labels)} classes and score one column. Give (n, classes) scores.")
        areas = [_area(y == labels[-1], score.reshape(len(y), -1)[:, -1])]
    return float(np.mean(areas))


def class_codes(y: np.ndarray, columns: int) -> np.ndarray:
    """(n,) the score column of each label: whole numbers are column numbers, other labels in sorted order."""
    if y.dtype.kind in "biuf" and (y == y.astype(np.int64)).all() and y.min() >= 0 and y.max() < columns:
        return y.astype(np.int64)
    labels, code = np.unique(y, return_inverse=True)
    if len(labels) != columns:
        raise DataError(f"y has {len(labels)} labels and score {columns} columns. Give labels as column numbers.")
    return code


def _area(positive: np.ndarray, score: np.ndarray) -> float:
    p, n = int(positive.sum()), int((~positive).sum())
    if not p or not n:
        return float("nan")
    _, place, size = np.unique(score, return_inverse=True, return_counts=True)
    rank = np.cumsum(size) - (size - 1) / 2  # the mean rank of equal scores
    return float((rank[place[positive]].sum() - p * (p + 1) / 2) / (p * n))


def pearson(Y: Any, P: Any) -> np.ndarray:
    """Pearson correlation of each column of the targets with the same column of the predictions, in float64.

    Args:
        Y, P: (n, g) or (n,).

    Returns:
        (g,) correlations; nan for a column that is constant in Y or in P, which has none.

    Raises:
        DataError: shapes that differ, NaN or Inf (the rows are named).
    """
    Y, P = (rows_of(v, name, finite=True) for v, name in ((Y, "Y"), (P, "P")))
    if Y.shape != P.shape or Y.ndim > 2:
        raise DataError(f"Y is {Y.shape} and P {P.shape}. Give targets and predictions of one shape, (n, g).")
    y, p = (v.reshape(len(v), -1).astype(np.float64) for v in (Y, P))
    flat = (y == y[0]).all(0) | (p == p[0]).all(0)
    y, p = y - y.mean(0), p - p.mean(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        r = (y * p).sum(0) / np.sqrt((y * y).sum(0)) / np.sqrt((p * p).sum(0))
    return np.where(flat, np.nan, np.clip(r, -1, 1))


def performance_drop(accuracy: Any) -> float:
    """PathoROB's average performance drop: what a probe loses when its training classes correlate with centres.

    Args:
        accuracy: (splits, iterations) of any score; split 0 is the balanced one, the others ever more confounded.

    Returns:
        The mean of accuracy[1:] / accuracy[0] - 1: negative is a loss; nan where a balanced score is 0.

    Raises:
        DataError: fewer than two splits, NaN (the splits are named).
    """
    table = rows_of(accuracy, "accuracy", finite=True)
    if table.ndim != 2 or len(table) < 2:
        raise DataError(f"accuracy is {table.shape}. Give (splits, iterations), of which split 0 is balanced.")
    return float((table[1:] / table[0] - 1).mean()) if table[0].all() else float("nan")


def dice(
    target: Any,
    prediction: Any,
    num_classes: int,
    include_background: bool = False,
    ignore_index: int | None = None,
    ignore_empty: bool = True,
    ignored_by: str = "prediction",
    reduction: str = "mean",
) -> Any:
    """Dice, 2 |P and T| / (|P| + |T|), as eva and MONAI count it: classes within an image, then images.

    Args:
        target, prediction: (n, …) whole numbers below num_classes, one map an image.
        num_classes: with background (class 0) and the ignored class.
        include_background: count class 0 too.
        ignore_index: a class that is not counted.
        ignore_empty: a class that the image's target lacks is left out; else it scores 1 if nothing is predicted as it,
            and 0 otherwise.
        ignored_by: which map says where the ignored pixels are. "prediction" blanks the target where the *prediction*
            is ignore_index, which is what eva does (kaiko-ai/eva, vision/metrics/segmentation/_utils.py): pixels that
            the target ignores still count against whatever is predicted there. "target" leaves these pixels out.
        reduction: "mean" over the images that have a counted class; "image": (n,), nan where none has; "class": (c,)
            of the counted classes, each the mean over images, nan where no image has it.

    Returns:
        A float (0.0 when no image has a counted class), or an array.

    Raises:
        DataError: shapes that differ, labels outside 0 … num_classes - 1 (the images are named).
    """
    target, prediction = array(target), array(prediction)
    if target.shape != prediction.shape or target.ndim < 2 or not target.size:
        raise DataError(f"target is {target.shape} and prediction {prediction.shape}. Give maps of one shape, (n, …).")
    if ignored_by not in ("prediction", "target") or reduction not in ("mean", "image", "class"):
        raise DataError(f"ignored_by={ignored_by!r}, reduction={reduction!r}: the docstring says what they can be.")
    table = np.stack(
        [_confusion(t, p, num_classes, i) for i, (t, p) in enumerate(zip(target, prediction, strict=True))]
    )
    if ignore_index is not None:
        table[:, :, ignore_index] = 0  # blank the target where the prediction is ignored
        if ignored_by == "target":
            table[:, ignore_index] = 0
    both, sizes = np.einsum("icc->ic", table), (table.sum(2), table.sum(1))
    with np.errstate(invalid="ignore"):
        value = 2 * both / (sizes[0] + sizes[1])
    empty = np.nan if ignore_empty else (sizes[1] == 0).astype(float)
    value = np.where(sizes[0] > 0, value, empty)
    counted = [c for c in range(num_classes) if c != ignore_index and (c or include_background)]
    per_image = _nanmean(value[:, counted], axis=1)
    if reduction == "image":
        return per_image
    if reduction == "class":
        return _nanmean(value[:, counted], axis=0)
    return float(np.nanmean(per_image)) if np.isfinite(per_image).any() else 0.0


def _confusion(target: np.ndarray, prediction: np.ndarray, classes: int, image: int) -> np.ndarray:
    """(target class, predicted class) pixel counts of one image."""
    pair = [np.asarray(v, np.int64).ravel() for v in (target, prediction)]
    if min(v.min() for v in pair) < 0 or max(v.max() for v in pair) >= classes:
        raise DataError(f"Image {image} has a label outside 0 … {classes - 1}. Raise num_classes, or map the labels.")
    return np.bincount(classes * pair[0] + pair[1], minlength=classes**2).reshape(classes, classes)


def _nanmean(values: np.ndarray, axis: int) -> np.ndarray:
    """Mean without nan; nan (and no warning) where all are."""
    there = np.isfinite(values).sum(axis)
    return np.where(there, np.nansum(values, axis) / np.maximum(there, 1), np.nan)


def _labels(y: Any, p: Any) -> tuple[np.ndarray, np.ndarray]:
    y, p = rows_of(y, "y"), rows_of(p, "p")
    if y.shape != p.shape or y.ndim != 1:
        raise DataError(f"y is {y.shape} and p {p.shape}. Give (n,) true and (n,) predicted labels, not scores.")
    return y, p
