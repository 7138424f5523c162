"""eva's slide-level head: attention over the embeddings of a slide's tiles, which lie in memory once for all runs."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

import eosin
from eosin.arrays import codes, matrix
from eosin.errors import DataError

from .training import (
    ADAMW,
    CLASSES,
    SEED,
    WARM,
    Task,
    Watch,
    at_least,
    balanced,
    decide,
    device,
    learning_rate,
    scores,
    side_by_side,
)


def options(runs: int, patience: int, **era: eosin.Option) -> dict[str, eosin.Option]:
    """Of the protocol of an era."""
    return {
        "lr": eosin.Option(1e-3, doc="Learning rate, before the schedule."),
        **ADAMW,
        "batch_size": eosin.Option(32, doc="Bags a step, drawn anew each epoch; the last batch may be smaller."),
        "epochs": eosin.Option(100, doc="At most."),
        "patience": eosin.Option(patience, doc="Validations (one an epoch) without a new best that end a run."),
        "width": eosin.Option(128, doc="Of the network: projection, attention, first hidden layer."),
        "runs": eosin.Option(runs, doc="Networks trained from different first weights, in different order."),
        "seed": SEED,
        "classes": CLASSES,
        **era,
    }


class EvaAbmil(eosin.Protocol):
    """eva's slide classification: gated attention (ABMIL) over each slide's tiles by AdamW; the best checkpoint is scored.

    Needs one row a tile with `slide` (the bag; its rows may lie anywhere), `y` and `split`; scores test where it exists,
    else val. Every row of a bag is used: how many tiles a slide has is up to the dataset.
    Source: kaiko-ai/eva, vision/models/networks/abmil.py and configs/vision/pathology/offline/classification.
    """

    def __init__(self, name: str, notes: str, options: dict[str, eosin.Option]) -> None:
        self.card = eosin.ProtocolCard(
            name,
            options=options,
            metrics=("balanced_accuracy",),
            ddof=1,
            rows="tiles",
            readout="cls|default",
            geometry="224",
            notes=notes,
        )

    def score(self, emb: Any, **options: Any) -> eosin.Scores:
        """`balanced_accuracy` of each run on the reported split, predictions of its bags, `epochs`, `best_epoch`, `val`.

        Raises:
            DataError: no labels, splits or slides; a slide with several labels or splits; NaN.
        """
        o = self.card.complete(options)
        at_least(o, batch_size=1, epochs=1, patience=1, width=2, runs=1, classes=0)
        bags = Bags(emb)
        task = Task.of(bags.items, o)
        networks = [network(bags, task, o, run) for run in range(o["runs"])]  # not in threads, which share a generator

        def trained(run: int) -> tuple[Watch, np.ndarray]:
            watch = fit(networks[run], bags, task, o, run)
            return watch, logits_of(networks[run], bags, task.parts["reported"], o["batch_size"])

        watches, logits = zip(*side_by_side(trained, o["runs"]), strict=True)
        return scores(task, logits, watches, o)


class Bags:
    """Rows by slide, in memory, on the GPU where they leave room; slides in the order in which they first come.

    `items` is one row a bag, the first it has, with the slide as id.
    """

    def __init__(self, emb: Any) -> None:
        if emb.slide is None:
            raise DataError("A bag is the tiles of one `slide`, and there is no such column. Give one a row.")
        import torch

        X, code = matrix(emb.X, "X"), codes(emb.slide, "slide", len(emb))
        _, first, sizes = np.unique(code, return_index=True, return_counts=True)
        order = np.argsort(first)
        self.sizes, first = sizes[order], first[order]
        self.items = replace(emb[first], id=np.asarray(emb.slide)[first])
        rows = np.argsort(np.argsort(order)[code], kind="stable")
        for name in ("y", "split"):
            _of_a_bag(name, getattr(emb, name), rows, self.sizes, self.items.id)
        tidy = (rows == np.arange(len(rows))).all()
        self.rows = torch.from_numpy(np.require(X if tidy else X[rows], np.float32, ["C", "W"]))
        self.device = device()
        if self.device == "cuda" and torch.cuda.mem_get_info()[0] > 4 * self.rows.nbytes:
            self.rows = self.rows.cuda()
        self.starts = np.append(0, self.sizes.cumsum())

    def take(self, which: np.ndarray) -> list[Any]:
        """The rows of some bags, (rows, d) each; nothing is copied."""
        return [self.rows[self.starts[b] : self.starts[b + 1]].to(self.device) for b in which]


def _of_a_bag(name: str, values: Any, rows: np.ndarray, sizes: np.ndarray, ids: np.ndarray) -> None:
    """DataError where the rows of a bag differ in what belongs to the bag."""
    if values is None:
        return
    value = np.asarray(values)[rows]
    odd = value != np.repeat(value[sizes.cumsum() - sizes], sizes)
    if odd.any():
        raise DataError(
            f"The rows of slide {ids[np.repeat(np.arange(len(ids)), sizes)[odd][0]]} differ in `{name}`. Give one a slide."
        )


def network(bags: Bags, task: Task, o: dict[str, Any], run: int) -> Any:
    """A run's untrained network; its first weights are the processor's, also on a GPU."""
    import torch

    from .attention import ABMIL

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(o["seed"] + run)
        return ABMIL(bags.rows.shape[1], task.outputs, o["width"]).to(bags.device)


def fit(network: Any, bags: Bags, task: Task, o: dict[str, Any], run: int) -> Watch:
    """Train a network in place, to its best checkpoint; what its validations saw."""
    import torch
    from torch.nn import functional as F

    draw, y = torch.Generator().manual_seed(o["seed"] + run), torch.from_numpy(task.y).to(bags.device)
    train, val = task.parts["train"], task.parts["val"]
    betas = (o["beta1"], o["beta2"])
    optimiser = torch.optim.AdamW(network.parameters(), betas=betas, eps=o["eps"], weight_decay=o["weight_decay"])
    watch, best = Watch(o["patience"]), {}
    for epoch in range(o["epochs"]):
        optimiser.param_groups[0]["lr"] = learning_rate(o, epoch, o["epochs"])
        for batch in batches(train[torch.randperm(len(train), generator=draw).numpy()], o["batch_size"]):
            logits, truth = network(bags.take(batch)), y[torch.from_numpy(batch)]
            if task.outputs == 1:
                loss = F.binary_cross_entropy_with_logits(logits[:, 0], truth.float())
            else:
                loss = F.cross_entropy(logits, truth)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        predicted = decide(logits_of(network, bags, val, o["batch_size"]), o["batch_size"])
        if watch.see(float(balanced(task.y[val], predicted[None], task.classes)[0])):
            best = copy.deepcopy(network.state_dict())
        if watch.done:
            break
    network.load_state_dict(best)
    return watch


def logits_of(network: Any, bags: Bags, which: np.ndarray, batch_size: int) -> np.ndarray:
    """(bags, outputs)."""
    import torch

    with torch.inference_mode():
        return torch.cat([network(bags.take(b)) for b in batches(which, batch_size)]).cpu().numpy()


def batches(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    return (rows[start : start + size] for start in range(0, len(rows), size))


PROTOCOLS = (
    EvaAbmil(
        "eva-abmil-2024-12@1",
        "kaiko-ai/eva at 71a2e189, of which the H0-mini paper's numbers are; PANDA has 49 epochs and patience 8.",
        options(
            5, 10, t_max=eosin.Option(None, int, "Epochs in which half a cosine takes the rate to 0; none: `epochs`.")
        ),
    ),
    EvaAbmil(
        "eva-abmil-0.4@1",
        "kaiko-ai/eva 0.4.5, of which today's leaderboard is. No schedule is set there, and torch's ConstantLR is the default.",
        options(20, 20, **WARM),
    ),
)
