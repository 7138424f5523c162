"""Looks at a student while it learns: how like the teacher it has become, and how well its neighbours vote."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import folds, metrics, probes
from .extractor import FeatureExtractor, default_readout, normalise, square
from .index import Index
from .tiles import Reader

BATCH = 32


class Watchtower:
    """Embeds the same held-out tiles again and again.

    Args:
        rows: tiles of the training data that are never trained on. labelled: an index with labels, for a kNN score; never
            a benchmark's, or the score of that benchmark means nothing.
    """

    def __init__(
        self, teacher: FeatureExtractor, index: Index, rows: np.ndarray, labelled: Index | None, most: int, seed: int
    ) -> None:
        self.images = _images(index, rows)
        self.labelled, self.y = None, np.empty(0, int)
        if labelled is not None:
            known = np.flatnonzero(labelled.items["label"] >= 0)
            chosen = np.sort(np.random.default_rng(seed).permutation(known)[:most])
            self.labelled, self.y = _images(labelled, chosen), labelled.items["label"][chosen]
            group = labelled.items["group"][chosen]
            n = 5 if not (group != "").all() else min(5, len(np.unique(group)))
            self.fold = folds.grouped(self.y, group, n) if (group != "").all() else folds.kfold(self.y, n)
        self.taught = embedded(teacher, self.images) if self.images else None

    def look(self, student: FeatureExtractor, module: Any) -> dict[str, float]:
        """`cka` to the teacher (and `cka_debiased`), and `knn` accuracy of 5 folds, k = 15, as far as they can be had."""
        before, training = student._module, module.training
        student._module = module.eval()
        found: dict[str, float] = {}
        try:
            if self.taught is not None and len(self.taught) > 3:
                mine = embedded(student, self.images)
                found["cka"] = metrics.cka(self.taught, mine)
                found["cka_debiased"] = metrics.cka(self.taught, mine, debiased=True)
            if self.labelled:
                X, right = embedded(student, self.labelled), []
                for k in np.unique(self.fold):
                    train, test = self.fold != k, self.fold == k
                    probe = probes.knn(min(15, int(train.sum()))).fit(X[train], self.y[train])
                    right.append(metrics.accuracy(self.y[test], probe.predict(X[test])))
                found["knn"] = float(np.mean(right))
        finally:
            module.train(training)
            student._module = before
        return found


def _images(index: Index, rows: np.ndarray) -> list[Any]:
    reader = Reader(index.root, index.table)
    return [reader.read(int(i)) for i in rows]


def embedded(model: FeatureExtractor, images: list[Any]) -> np.ndarray:
    """(n, d) float32 of the readout that the card recommends."""
    import torch

    out = []
    for start in range(0, len(images), BATCH):
        pixels = np.stack([square(image, model.card) for image in images[start : start + BATCH]])
        with torch.no_grad():
            found = model.embed(torch.from_numpy(normalise(pixels, model.card)).to(model.device))
        named = found if isinstance(found, dict) else {"pooled": found}
        parts = default_readout(model.card, tuple(named)).split("+")
        out.append(torch.cat([named[p] for p in parts], dim=1).float().cpu().numpy())
    return np.concatenate(out)
