"""What eva's heads share: the schedules of its two eras, AdamW, patience and best checkpoint, its splits and scores.

An era is a set of options; the numbers are in the cards of the protocols. Source: kaiko-ai/eva, core/trainers and
configs/vision/pathology/offline, at 71a2e189 (2024-12, the H0-mini paper) and 0.4.5 (today's leaderboard).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import eosin
from eosin.errors import DataError, UsageError

ADAMW = {
    "weight_decay": eosin.Option(0.01, doc="Of AdamW, on weights and biases: torch's default, which eva leaves."),
    "beta1": eosin.Option(0.9, doc="Of AdamW."),
    "beta2": eosin.Option(0.999, doc="Of AdamW."),
    "eps": eosin.Option(1e-8, doc="Of AdamW."),
}
WARM = {
    "warm_epochs": eosin.Option(5, doc="First epochs, at a part of the learning rate: torch's ConstantLR by default."),
    "warm_factor": eosin.Option(1 / 3, doc="The part."),
}
SEED = eosin.Option(42, doc="Run r draws its first weights and its batches from a generator seeded with seed + r.")
CLASSES = eosin.Option(0, doc="Classes; 0: as many as the labels name. Two have one output, else one a class.")


def learning_rate(o: Mapping[str, Any], epoch: int, span: int) -> float:
    """Of an epoch (from 0), by the options of its era: half a cosine over t_max epochs (none: over `span`), or a lower
    one in the first epochs."""
    if "t_max" in o:
        return o["lr"] * (1 + math.cos(math.pi * epoch / (o["t_max"] or span))) / 2
    return o["lr"] * (o["warm_factor"] if epoch < o["warm_epochs"] else 1.0)


@dataclass
class AdamW:
    """torch.optim.AdamW on one tensor in place; runs are rows, and one step is a few operations for all of them.

    Args:
        weights: (runs, p).
        o: options `weight_decay`, `beta1`, `beta2`, `eps`.
    """

    weights: Any
    o: Mapping[str, Any]

    def __post_init__(self) -> None:
        self.mean, self.square = self.weights.clone().zero_(), self.weights.clone().zero_()
        self.steps = 0

    def step(self, gradient: Any, lr: float) -> None:
        """Move the weights against the gradient (runs, p)."""
        b1, b2, self.steps = self.o["beta1"], self.o["beta2"], self.steps + 1
        self.mean.lerp_(gradient, 1 - b1)
        self.square.mul_(b2).addcmul_(gradient, gradient, value=1 - b2)
        size = (self.square / (1 - b2**self.steps)).sqrt_().add_(self.o["eps"])
        self.weights.mul_(1 - lr * self.o["weight_decay"])
        self.weights.addcdiv_(self.mean, size, value=-lr / (1 - b1**self.steps))

    def keep(self, rows: Any) -> None:
        """Go on with some runs only."""
        self.weights, self.mean, self.square = self.weights[rows], self.mean[rows], self.square[rows]


@dataclass
class Watch:
    """One run's validations: which was best, and whether to stop, as Lightning's ModelCheckpoint and EarlyStopping
    judge it (mode max, min_delta 0): of equal ones the first is best, and `patience` counts validations since."""

    patience: int
    values: list[float] = field(default_factory=list)
    best: float = -math.inf
    best_epoch: int = -1

    def see(self, value: float) -> bool:
        """Note a validation; whether it is a new best."""
        self.values.append(value)
        better = value > self.best
        if better:
            self.best, self.best_epoch = value, len(self.values) - 1
        return better

    @property
    def done(self) -> bool:
        return len(self.values) - 1 - self.best_epoch >= self.patience


@dataclass(frozen=True)
class Task:
    """Labels and parts of what a head classifies: rows, or bags.

    Attributes:
        id, y: (n,). classes: how many. parts: row numbers of `train`, `val` and `reported`.
        notes: what a reader of the score must know.
    """

    id: np.ndarray
    y: np.ndarray
    classes: int
    parts: dict[str, np.ndarray]
    notes: list[str]

    @property
    def outputs(self) -> int:
        """Of the head: one logit decides between two classes."""
        return 1 if self.classes == 2 else self.classes

    @classmethod
    def of(cls, emb: Any, o: Mapping[str, Any]) -> Task:
        """The task of an Embeddings.

        Raises:
            DataError: no labels or splits, no row to train or to validate on, more classes than the option says.
        """
        for name in ("y", "split"):
            if getattr(emb, name) is None:
                raise DataError(
                    f"eva's protocols need `{name}`, and there is none. Give one a row; split: train, val, test."
                )
        y, split = np.asarray(emb.y).astype(np.int64), np.asarray(emb.split).astype(str)
        parts = {part: np.flatnonzero(split == part) for part in ("train", "val", "test")}
        notes = []
        if not len(parts["val"]) and len(parts["test"]):
            parts["val"] = parts["test"]
            notes.append("No row has split val, so the test rows chose the checkpoint, as in eva's MHIST.")
        elif not len(parts["test"]):
            notes.append("The reported split, val, also chose the checkpoint: there is no test split.")
        parts["reported"] = parts.pop("test") if len(parts["test"]) else parts["val"]
        for part, end in (("train", "to train on"), ("val", "to choose the checkpoint with")):
            if not len(parts[part]):
                raise DataError(f"No row has split {part}, so nothing is left {end}. Correct `split`.")
        used = np.unique(np.concatenate(list(parts.values())))
        if (y[used] < 0).any():
            raise DataError(f"{(y[used] < 0).sum()} rows have no label. Label them, or leave them out.")
        named = max(len(emb.classes), int(y[used].max()) + 1)
        classes = o["classes"] or named
        if int(y[used].max()) >= classes or classes < 2:
            raise DataError(f"classes={o['classes']}, and the labels are 0 … {y[used].max()}. Give at least two, or 0.")
        absent = sorted(set(y[used].tolist()) - set(y[parts["train"]].tolist()))
        if absent:
            notes.append(f"No training row has class {', '.join(map(str, absent))}: a head never learns it.")
        return cls(np.asarray(emb.id), y, classes, parts, notes)


def decide(logits: np.ndarray, batch_size: int) -> np.ndarray:
    """(…, n) class numbers of logits (…, n, outputs): the largest, or one logit above 0.

    A batch of single logits that all lie in 0 … 1 is taken for probabilities and cut at .5 (torchmetrics' binary
    metrics decide this at each update): with small batches, as of slides, it moves scores.
    """
    if logits.shape[-1] > 1:
        return logits.argmax(-1)
    return (logits[..., 0] > _cuts(logits[..., 0], batch_size)).astype(np.int64)


def _cuts(z: np.ndarray, batch_size: int) -> np.ndarray:
    """(…, n) above which a single logit says class 1."""
    starts = np.arange(0, z.shape[-1], batch_size)
    low, high = (edge.reduceat(z, starts, axis=-1) for edge in (np.minimum, np.maximum))
    cut = np.where((low >= 0) & (high <= 1), 0.5, 0.0)
    return np.repeat(cut, np.diff(np.append(starts, z.shape[-1])), axis=-1)


def balanced(y: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """(runs,) `metrics.balanced_accuracy` of predictions (runs, n) by torchmetrics' rule, which eva reports: classes
    count that are in y or predicted; of two both do; 0 / 0 is 0."""
    runs, K = len(predicted), classes
    cell = (np.arange(runs)[:, None] * K + y) * K + predicted
    table = np.bincount(cell.ravel(), minlength=runs * K * K).reshape(runs, K, K)
    right, there = np.einsum("rcc->rc", table), table.sum(2)
    counts = np.ones_like(there, bool) if K == 2 else there + table.sum(1) > 0
    return (right / np.maximum(there, 1)).sum(1) / counts.sum(1)


def scores(task: Task, logits: Sequence[np.ndarray], watches: Sequence[Watch], o: Mapping[str, Any]) -> eosin.Scores:
    """What a protocol returns: `balanced_accuracy` of each run's best checkpoint on the reported split.

    Args:
        logits: (reported, outputs) of each run.

    Details: `epochs`, `best_epoch` (both from 1) and `val`, the metric that chose it, each (runs,).
    """
    z, rows = np.stack(logits).astype(np.float64), task.parts["reported"]
    values = balanced(task.y[rows], decide(z, o["batch_size"]), task.classes)
    if z.shape[-1] == 1:  # the predictions decide as the score did
        z = z - _cuts(z[..., 0], o["batch_size"])[..., None]
    runs, n = z.shape[:2]
    predictions = {
        "id": np.tile(task.id[rows], runs),
        "fold": np.zeros(runs * n, np.int64),
        "seed": np.repeat(np.arange(runs), n),
        "y": np.tile(task.y[rows], runs),
        "score": probabilities(z).reshape(runs * n, -1).astype(np.float32),
    }
    details = {
        "epochs": np.array([len(w.values) for w in watches]),
        "best_epoch": np.array([w.best_epoch + 1 for w in watches]),
        "val": np.array([w.best for w in watches]),
    }
    return eosin.Scores({"balanced_accuracy": values.tolist()}, predictions, details, tuple(task.notes))


def probabilities(z: np.ndarray) -> np.ndarray:
    """(…, classes) of logits (…, outputs)."""
    z = np.concatenate([np.zeros_like(z), z], -1) if z.shape[-1] == 1 else z
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def at_least(o: Mapping[str, Any], **least: float) -> None:
    """UsageError for an option below its least value; none is not asked."""
    for name, value in least.items():
        if o[name] is not None and o[name] < value:
            raise UsageError(f"{name}={o[name]}: it must be at least {value}.")


@contextmanager
def one_thread() -> Iterator[int]:
    """torch on one thread of the processor; yields how many it had. Products this small lose more to threads that wait
    for each other than they gain (ten times and more on a busy machine), and numbers do not depend on how many."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield before
    finally:
        torch.set_num_threads(before)


def side_by_side(work: Callable[[int], Any], runs: int) -> list[Any]:
    """work(0) … work(runs - 1): each on one thread of the processor, as many at once as torch has; on a GPU in turn."""
    import torch

    with one_thread() as threads:
        workers = 1 if device() == "cuda" else threads
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(work, range(runs)))


def device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
