"""The 95 % interval of each score, and the majority floor beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from . import stats
from .benchmark import Embeddings, Scores
from .record import finite

RESAMPLES = 1000
NEAR = 1e-4  # between a score and the same score of the predictions beside it


def intervals(summaries: dict[str, dict[str, Any]], scores: Scores, emb: Embeddings) -> dict[str, str]:
    """Fill `low` and `high` of each metric; return how each interval was made.

    Patients are resampled where predictions and groups are known, tiles where only predictions are; else a t interval
    over folds or seeds, which is a rule of thumb. What the protocol itself says comes first.
    """
    how, own = {}, scores.intervals or {}
    for metric, summary in summaries.items():
        values = [v for v in summary["values"] if v is not None]
        low, high, text = own[metric] if metric in own else _interval(metric, values, scores.predictions, emb)
        summary["low"], summary["high"] = finite(low), finite(high)
        if summary["mean"] is None:  # what is not a number has no neighbourhood
            summary["low"], summary["high"], text = None, None, "none: not a number"
        how[metric] = text if summary["low"] is not None or text.startswith("none") else f"none by {text}"
    return how


def _interval(
    metric: str, values: list[float], predictions: Mapping[str, np.ndarray] | None, emb: Embeddings
) -> tuple[float, float, str]:
    if predictions is None or not {"id", "y", "score"} <= set(predictions):
        return stats.interval(metric, values)
    owner = _groups(predictions, emb)
    group = np.asarray(predictions["id"]) if owner is None else owner
    group = np.where(group == "", predictions["id"], group)
    seeds = predictions.get("seed")
    if metric in stats.BY_WEIGHT and abs(_again(metric, predictions) - float(np.mean(values or [np.nan]))) > NEAR:
        low, high, text = stats.interval(metric, values)
        return low, high, f"{text}; the predictions give another score"
    unit = "tiles" if emb.group is None else "patients"
    low, high, text = stats.interval(
        metric,
        values,
        predictions["y"],
        predictions["score"],
        group,
        fold=predictions.get("fold"),
        seeds=seeds,
        n=RESAMPLES,
    )
    return low, high, text.replace("groups", unit)


def _again(metric: str, predictions: Mapping[str, np.ndarray]) -> float:
    """The metric of the predictions themselves, averaged over folds and seeds."""
    y, score = (np.asarray(predictions[k]) for k in ("y", "score"))
    value, _ = stats.by_groups(
        metric, y, score, np.zeros(len(y), np.int64), predictions.get("fold"), predictions.get("seed")
    )
    return float(value(np.ones((1, 1)))[0])


def _groups(predictions: Mapping[str, np.ndarray], emb: Embeddings) -> np.ndarray | None:
    """The patient of each prediction; None where patients or tiles are not known."""
    if emb.group is None:
        return None
    order = np.argsort(emb.id, kind="stable")
    at = order[np.clip(np.searchsorted(emb.id, predictions["id"], sorter=order), 0, len(order) - 1)]
    return emb.group[at] if (emb.id[at] == predictions["id"]).all() else None


def with_groups(predictions: Mapping[str, np.ndarray] | None, emb: Embeddings) -> Mapping[str, np.ndarray] | None:
    """Predictions with the patient of each as `group`, so that they can be compared where the dataset is not."""
    if predictions is None or "group" in predictions or "id" not in predictions:
        return predictions
    group = _groups(predictions, emb)
    return predictions if group is None else {**predictions, "group": group}


def majority(metrics: list[str], emb: Embeddings, predictions: Mapping[str, np.ndarray] | None) -> dict[str, float]:
    """What guessing the commonest class (or the mean) reaches, for the metrics that it is known for: on the rows that were
    tested, where the predictions tell them."""
    known: dict[str, float] = {"auroc": 0.5, "pearson": 0.0}
    if emb.y is not None and len(emb.y):
        told = emb.y if predictions is None else np.asarray(predictions.get("y", emb.y))
        tested = told if told.ndim == 1 and len(told) else emb.y
        counts = np.unique(tested, return_counts=True)[1]
        known["accuracy"] = float(counts.max() / counts.sum())
        known["balanced_accuracy"] = float(1 / len(counts))
    return {m: known[m] for m in metrics if m in known}
