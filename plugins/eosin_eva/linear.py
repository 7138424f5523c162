"""eva's linear head on frozen embeddings, all runs trained at once as one batched problem."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import eosin
from eosin.arrays import matrix
from eosin.errors import UsageError

from .training import (
    ADAMW,
    CLASSES,
    SEED,
    WARM,
    AdamW,
    Task,
    Watch,
    at_least,
    balanced,
    decide,
    device,
    learning_rate,
    one_thread,
    scores,
)

COMMON = {
    "lr": eosin.Option(3e-4, doc="Learning rate, before the schedule."),
    **ADAMW,
    "batch_size": eosin.Option(256, doc="Rows a step, drawn anew each epoch; the last batch may be smaller."),
    "max_steps": eosin.Option(12_500, doc="Steps of a run; a last epoch that is not whole is never validated."),
    "patience": eosin.Option(None, int, "Validations (one an epoch) without a new best that end a run."),
    "runs": eosin.Option(5, doc="Heads trained from different first weights, in different order."),
    "seed": SEED,
    "classes": CLASSES,
}
SHARE = "Of all epochs, rounded up: the patience where that is none."


class EvaLinear(eosin.Protocol):
    """eva's patch classification: one linear layer by AdamW, validated each epoch; the best checkpoint is scored.

    Embeddings are used as they are. Needs `y` and `split`; scores test where it exists, else val.
    Source: kaiko-ai/eva, core/models/modules/head.py and configs/vision/pathology/offline/classification.
    """

    def __init__(self, name: str, notes: str, **era: eosin.Option) -> None:
        self.card = eosin.ProtocolCard(
            name,
            options={**COMMON, **era},
            metrics=("balanced_accuracy",),
            ddof=1,
            readout="cls|default",
            geometry="224",
            notes=notes,
        )

    def score(self, emb: Any, **options: Any) -> eosin.Scores:
        """`balanced_accuracy` of each run on the reported split, its predictions, and `epochs`, `best_epoch`, `val`.

        Raises:
            DataError: no labels or splits, NaN. UsageError: max_steps below one epoch, numbers that train nothing.
        """
        o = self.card.complete(options)
        at_least(o, batch_size=1, max_steps=1, patience=1, patience_share=0, runs=1, classes=0)
        X, task = matrix(emb.X, "X"), Task.of(emb, o)
        per_epoch = math.ceil(len(task.parts["train"]) / o["batch_size"])
        if o["max_steps"] < per_epoch:
            raise UsageError(f"max_steps={o['max_steps']}, and an epoch has {per_epoch}: nothing would be validated.")
        with one_thread():
            weights, watches = fit(X, task, o)
        rows = X[task.parts["reported"]].astype(np.float64)
        return scores(task, [rows @ w.T + b for w, b in weights], watches, o)


def fit(X: np.ndarray, task: Task, o: dict[str, Any]) -> tuple[list[tuple[np.ndarray, np.ndarray]], list[Watch]]:
    """The best checkpoint of each run, weight (outputs, d) and bias (outputs,), and what its validations saw.

    A step is one gather and two products for all runs together; a run that has lost patience leaves.
    """
    import torch

    place, d, k = device(), X.shape[1], task.outputs
    rows = torch.from_numpy(np.require(X, np.float32, ["C", "W"])).to(place)
    truth = torch.from_numpy(_truth(task.y, k)).to(place)
    train, val = (torch.from_numpy(task.parts[part]).to(place) for part in ("train", "val"))
    seen, y_val = rows[val], task.y[task.parts["val"]]
    epochs = o["max_steps"] // math.ceil(len(train) / o["batch_size"])
    draws = [torch.Generator().manual_seed(o["seed"] + r) for r in range(o["runs"])]
    first = [torch.empty(k * (d + 1)).uniform_(-(d**-0.5), d**-0.5, generator=g) for g in draws]
    optimiser = AdamW(torch.stack(first).to(place), o)
    watches = [Watch(o["patience"] or max(1, math.ceil(o["patience_share"] * epochs))) for _ in draws]
    best, alive = list(optimiser.weights.clone()), list(range(o["runs"]))
    for epoch in range(epochs):
        lr = learning_rate(o, epoch, o["max_steps"])
        order = train[torch.stack([torch.randperm(len(train), generator=draws[r]) for r in alive]).to(place)]
        for batch in order.split(o["batch_size"], dim=1):
            optimiser.step(_gradient(rows, truth, batch, *_parts(optimiser.weights, k)), lr)
        W, b = _parts(optimiser.weights, k)
        logits = (W.reshape(-1, d) @ seen.T).view(len(alive), k, -1) + b[..., None]
        predicted = decide(logits.mT.cpu().numpy(), o["batch_size"])
        for run, weights, value in zip(alive, optimiser.weights, balanced(y_val, predicted, task.classes), strict=True):
            if watches[run].see(float(value)):
                best[run] = weights.clone()
        stay = [i for i, run in enumerate(alive) if not watches[run].done]
        if len(stay) < len(alive):
            optimiser.keep(stay)
            alive = [alive[i] for i in stay]
        if not alive:
            break
    weights, bias = (part.cpu().numpy().astype(np.float64) for part in _parts(torch.stack(best), k))
    return list(zip(weights, bias, strict=True)), watches


def _truth(y: np.ndarray, k: int) -> np.ndarray:
    """(n, k) what the k outputs should be."""
    return np.equal(y[:, None], np.arange(k) if k > 1 else 1).astype(np.float32)


def _parts(weights: Any, k: int) -> tuple[Any, Any]:
    """Views of (runs, k d + k): weights (runs, k, d) and biases (runs, k)."""
    return weights[:, :-k].unflatten(1, (k, -1)), weights[:, -k:]


def _gradient(rows: Any, truth: Any, batch: Any, W: Any, b: Any) -> Any:
    """(runs, k d + k), of the mean loss over each run's batch (runs, n) of row numbers: cross-entropy, or binary
    cross-entropy of one logit. At the logits both are (probability - truth)."""
    import torch

    runs, n = batch.shape
    Z = rows.index_select(0, batch.reshape(-1)).view(runs, n, -1)
    logits = torch.baddbmm(b[..., None], W, Z.mT)  # classes before rows: several times faster this way round
    probability = logits.softmax(1) if logits.shape[1] > 1 else logits.sigmoid_()
    residual = (probability - truth[batch].mT).div_(n)
    return torch.cat([torch.bmm(residual, Z).flatten(1), residual.sum(2)], 1)


PROTOCOLS = (
    EvaLinear(
        "eva-linear-2024-12@1",
        "kaiko-ai/eva at 71a2e189, of which the H0-mini paper's numbers are. The cosine is stepped once an epoch towards "
        "the number of steps, so the learning rate hardly falls: as it was run.",
        t_max=eosin.Option(None, int, "Epochs in which half a cosine takes the learning rate to 0; none: max_steps."),
        patience_share=eosin.Option(0.05, doc=SHARE),
    ),
    EvaLinear(
        "eva-linear-0.4@1",
        "kaiko-ai/eva 0.4.5, of which today's leaderboard is. No schedule is set there, and torch's ConstantLR is the default.",
        **WARM,
        patience_share=eosin.Option(0.2, doc=SHARE),
    ),
)
