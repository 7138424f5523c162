"""View drift: how far embeddings and what is read from them move when the same tiles look a little different."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

import eosin
from eosin import folds, metrics, probes
from eosin.arrays import matched
from eosin.errors import DataError, UsageError
from eosin.metrics import nearest_within, plism_pair
from eosin.views import view as view_of

ORIGINAL = "original"
VIEWS = (
    "jpeg-80,jpeg-50,jpeg-20,blur-0.5,blur-1,blur-2,brightness-0.8,brightness-1.2,"
    "stain-shift--0.2,stain-shift-0.1,stain-shift-0.2,stain-shift-0.4,scanner-0.5,scanner-1,rot90,rot180"
)


class Drift(eosin.Protocol):
    """Each view's tiles against the originals: cosine, retrieval, and accuracy of a vote of original neighbours."""

    card = eosin.ProtocolCard(
        "drift@1",
        options={
            "views": eosin.Option(VIEWS, str, "Names with commas; in the benchmark's row, since they say what is embedded."),
            "k": eosin.Option(20, doc="Neighbours that vote, all of them original tiles; fewer where there are fewer."),
            "distance": eosin.Option("cosine", ("cosine", "euclidean"), "Of the vote."),
            "folds": eosin.Option(5, doc="Of the vote; no patient (else slide) on both sides where they are known."),
            "tiles": eosin.Option(5000, doc="Tiles drawn for cosine and retrieval, which depends on how many; 0: all."),
            "seed": eosin.Option(0, doc="Of the folds and of the draw."),
        },
        metrics=("drop", "accuracy", "cosine", "top1"),
        ddof=1,
        notes="Ours. Cosine and top-1 as in PLISM's formula (H0-mini paper): candidates are the tiles of both views.",
    )  # fmt: skip

    def score(self, emb: Any, **given: Any) -> eosin.Scores:
        """Means over the views: `drop` of accuracy and `accuracy`, a value a fold (nan without labels); `cosine`, `top1`.

        Details: `view` and, in its order, `cosine`, `top1`, `accuracy`, `drop`; `accuracy of the originals`; and
        `curves`: {word: {strength, cosine, top1, drop}} of the views that have a strength.

        Args:
            emb: {name: Embeddings} with "original", or Embeddings whose `X2` is the other view's.

        Raises:
            DataError: views of different tiles, zeros. UsageError: views that the benchmark's row does not name.
        """
        o = self.card.complete(given)
        if o["k"] < 1 or o["folds"] < 2 or o["tiles"] < 0:
            raise UsageError(
                f"k={o['k']}, folds={o['folds']}, tiles={o['tiles']}: give k >= 1, folds >= 2, tiles >= 0."
            )
        base, others = _views(emb, o)
        notes: list[str] = []
        rows = _drawn(len(base), o["tiles"], o["seed"])
        if len(rows) < len(base):
            notes.append(f"cosine and top-1 of {len(rows):,} tiles of {len(base):,}")
        still = [name for name, X in others.items() if np.array_equal(X, base.X)]
        if still:
            notes.append(f"{', '.join(still)}: not one embedding moved")
        start = base.X[rows]
        within = nearest_within(start, 1)
        near = {}
        for name, X in others.items():
            there = X[rows]
            near[name] = plism_pair(start, there, (1,), (within, nearest_within(there, 1)))
        own, accuracy = _accuracies(base, others, o, notes)
        drop = own - accuracy  # (views, folds)
        names = list(others)
        found = {
            "cosine": np.array([near[n]["cosine"] for n in names]),
            "top1": np.array([near[n]["top1"] for n in names]),
            "accuracy": accuracy.mean(1),
            "drop": drop.mean(1),
        }
        details = {"view": np.array(names), **found, "accuracy of the originals": own, "curves": _curves(names, found)}
        values = {"drop": drop.mean(0), "accuracy": accuracy.mean(0), "cosine": found["cosine"].mean(), "top1": found["top1"].mean()}  # fmt: skip
        return eosin.Scores({m: v.tolist() for m, v in values.items()}, details=details, notes=notes)


class DriftBenchmark(eosin.Benchmark):
    """kind `drift`: any dataset of patches under the views of its option `views`, each embedded once and stored."""

    kind = "drift"

    def __init__(self, card: eosin.BenchmarkCard) -> None:
        super().__init__(card)
        self.protocol = Drift()

    def needs(self) -> dict[str, eosin.Need]:
        """The original and one need a view, in the order of the option."""
        assert self.protocol is not None
        c, card = self.card, self.protocol.card
        names = [ORIGINAL, *_names(card.complete(c.options)["views"])]
        return {n: eosin.Need(c.dataset, n, c.readout, c.geometry, rows=card.rows) for n in names}


def _names(text: str) -> list[str]:
    """The views of the option, each known, none twice."""
    names = [n.strip() for n in text.split(",") if n.strip()]
    for name in names:
        view_of(name)
    twice = [n for i, n in enumerate(names) if n in names[:i]]
    if not names or twice or ORIGINAL in names:
        raise UsageError(f"views={text!r}: name at least one view beside the original, each once, with commas.")
    return names


def _views(emb: Any, o: Mapping[str, Any]) -> tuple[Any, dict[str, np.ndarray]]:
    """The originals, and the rows of each other view, tile by tile the same."""
    if not isinstance(emb, Mapping):
        if getattr(emb, "X2", None) is None:
            raise DataError(
                "drift compares views: give X of the originals and X2 of the same tiles under a view, or run a benchmark of kind drift."
            )
        matched(emb.X, emb.X2, ("X", "X2"))
        return emb, {"X2": emb.X2}
    base, asked = emb[ORIGINAL], _names(o["views"])
    if set(asked) != set(emb) - {ORIGINAL}:
        raise UsageError(
            f"views={o['views']!r}, and embedded are {', '.join(n for n in emb if n != ORIGINAL)}. The views of a drift benchmark are "
            "set in its row, `options: {views: …}`, because they say what is embedded."
        )
    for name in asked:
        if not np.array_equal(emb[name].id, base.id):
            raise DataError(
                f"{base.dataset}: {name} holds other tiles than the original. Embed both without --skip-broken."
            )
    return base, {name: emb[name].X for name in asked}


def _drawn(n: int, tiles: int, seed: int) -> np.ndarray:
    if not tiles or tiles >= n:
        return np.arange(n)
    return np.sort(np.random.RandomState(seed).permutation(n)[:tiles])


def _accuracies(
    base: Any, others: Mapping[str, np.ndarray], o: Mapping[str, Any], notes: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy of the originals (folds,) and of each view (views, folds): original rows vote, others are tested."""
    fold = _folds(base, o, notes)
    if fold is None:
        return np.full(1, np.nan), np.full((len(others), 1), np.nan)
    own, there = [], []
    for f in range(fold.max() + 1):
        train, test = fold != f, fold == f
        probe = probes.knn(min(o["k"], int(train.sum())), o["distance"]).fit(base.X[train], base.y[train])
        own.append(metrics.accuracy(base.y[test], probe.predict(base.X[test])))
        there.append([metrics.accuracy(base.y[test], probe.predict(X[test])) for X in others.values()])
    return np.array(own), np.array(there).T


def _folds(base: Any, o: Mapping[str, Any], notes: list[str]) -> np.ndarray | None:
    """The test fold of each row, patients (else slides) kept together; None where there is nothing to vote on."""
    if base.y is None or len(np.unique(base.y)) < 2:
        notes.append("no labels, or one class: no accuracy, and no drop of it")
        return None
    group = base.group if base.group is not None else base.slide
    if group is not None:
        owner = np.where(group == "", np.char.add("tile ", base.id.astype(str)), group)
        n = min(o["folds"], folds.most(base.y, owner))
        if n >= 2:
            return folds.grouped(base.y, owner, n, o["seed"])
        notes.append("a class has one patient (or slide) only, so folds are of tiles: neighbours from one slide vote")
    n = min(o["folds"], int(np.bincount(base.y)[np.unique(base.y)].min()))
    if n < 2:
        notes.append("a class has one tile only: no accuracy, and no drop of it")
        return None
    return folds.kfold(base.y, n, o["seed"])


def _curves(names: list[str], found: Mapping[str, np.ndarray]) -> dict[str, dict[str, list[float]]]:
    """What each sort of view does as its strength grows."""
    at: dict[str, list[tuple[float, int]]] = {}
    for i, name in enumerate(names):
        word, strength = _strength(name)
        if strength is not None:
            at.setdefault(word, []).append((strength, i))
    return {
        word: {"strength": [s for s, _ in sorted(some)], **{m: found[m][[i for _, i in sorted(some)]].tolist() for m in found}}
        for word, some in at.items()
    }  # fmt: skip


def _strength(name: str) -> tuple[str, float | None]:
    """`jpeg-30` as ("jpeg", 30.0); a view without a strength has None."""
    from eosin.views import GRADED

    for word in GRADED:
        if name.startswith(f"{word}-"):
            return word, float(name[len(word) + 1 :])
    return name, None
