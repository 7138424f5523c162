"""PathoROB's average performance drop: what a classifier loses when tissue and laboratory are tied to each other."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import eosin
from eosin import metrics
from eosin.arrays import matrix
from eosin.errors import DataError, UsageError
from eosin.logistic import logistic_path, probabilities

C = 10 ** np.linspace(-8, 4, 15)


@dataclass(frozen=True)
class Split:
    """Row numbers of one training mixture."""

    train: np.ndarray
    val: np.ndarray
    tests: tuple[np.ndarray, ...]


class PerformanceDrop(eosin.Protocol):
    """Training mixtures from balanced to wholly confounded, tested in and out of their centres."""

    card = eosin.ProtocolCard(
        "apd-pathorob@1",
        options={
            "scheme": eosin.Option("two-centres", ("two-centres", "four-centres"), "two-centres: Camelyon, Tolkach. four-centres: TCGA, with four classes."),
            "slides": eosin.Option(7, doc="Of each class and centre in the balanced mixture of two centres: 7 Camelyon, 3 Tolkach."),
            "centres": eosin.Option("", doc="Centres that are trained on, with commas; else the column `subset` says ID, else those with most slides."),
            "iterations": eosin.Option(20, doc="Times that slides are drawn anew."),
            "seed": eosin.Option(0, doc="Of the first draw; each further one adds 1."),
            "solver": eosin.Option("pathorob", ("pathorob", "exact"), "pathorob: scikit-learn's LogisticRegression as it stops by default. exact: to convergence."),
        },
        metrics=("apd_id", "apd_ood"),
        ddof=1,
        notes="PathoROB at 46594e9, pathorob/apd: logistic regression, 15 penalties, balanced accuracy on validation chooses, "
        "no refit. With the smallest C's its solver stops before the intercept has moved, and of equal C's the smallest is "
        "chosen: the published numbers hold that. Draws come from another generator than its own.",
    )  # fmt: skip

    def score(self, emb: Any, **given: Any) -> eosin.Scores:
        """`apd_id` and `apd_ood`, a value an iteration: mean over the confounded mixtures of accuracy / balanced one's - 1.

        Details: `id` and `ood` balanced accuracies (mixtures, iterations), and `slides` (mixtures, centres, classes).

        Raises:
            DataError: no labels, centres or slides; too few slides of a class in a centre (the cell is named).
        """
        o = self.card.complete(given)
        if o["slides"] < 1 or o["iterations"] < 1:
            raise UsageError(f"slides={o['slides']}, iterations={o['iterations']}: both are at least 1.")
        name = emb.dataset or "the data"
        slide = emb.slide if emb.slide is not None else emb.group
        if emb.y is None or emb.centre is None or slide is None:
            raise DataError(f"{name}: a performance drop needs `label`, `centre` and `slide` of each tile.")
        emb, slide, notes = _placed(emb, slide)
        X, (labels, y) = matrix(emb.X, "X"), np.unique(emb.y, return_inverse=True)
        if len(labels) < 2:
            raise DataError(f"{name}: one class only. A performance drop needs two or more in the column `label`.")
        plan = mixtures(o["scheme"], o["slides"], len(labels))
        inside = _inside(emb, slide, o, plan.shape[1])
        outside = np.flatnonzero(~np.isin(emb.centre, inside))
        if plan.shape[2] != len(labels):
            raise DataError(
                f"{name}: scheme=four-centres has four classes, and there are {len(labels)}. Use two-centres."
            )
        found = []
        for i in range(o["iterations"]):
            rng = np.random.RandomState(o["seed"] + i)
            cells = [[_slides(emb, y, slide, centre, c, rng) for c in range(len(labels))] for centre in inside]
            found.append(accuracies(X, y, _splits(cells, plan, outside, emb, inside), o["solver"]))
        table = np.array(found).transpose(2, 1, 0)  # tests, mixtures, iterations
        drop = {
            key: [_drop(table[t][:, [i]]) for i in range(o["iterations"])]
            for t, key in enumerate(("apd_id", "apd_ood"))
        }
        if not len(outside):
            notes.append("no centre is outside the training: apd_ood is not a number")
        details = {"id": table[0], "ood": table[1], "slides": plan, "centres": np.asarray(inside)}
        return eosin.Scores(drop, details=details, notes=notes)


def _placed(emb: Any, slide: np.ndarray) -> tuple[Any, np.ndarray, list[str]]:
    """Rows of which the centre is known, in the order of their ids, so that no draw depends on the table's; their slides,
    a tile without one being a slide of its own; what was left out."""
    known = emb.centre != ""
    order = np.flatnonzero(known)[np.argsort(emb.id[known], kind="stable")]
    left = int((~known).sum())
    slide = np.where(slide == "", np.char.add("tile ", emb.id.astype(str)), slide)
    return emb[order], slide[order], [f"{left:,} tiles without a centre were left out"] if left else []


def mixtures(scheme: str, slides: int, classes: int) -> np.ndarray:
    """(mixtures, centres, classes) how many slides of each cell are trained on; the first mixture is balanced."""
    if scheme == "four-centres":
        i, j = np.indices((4, 4))
        steps = []
        for s in range(7):
            across = 1 if s % 2 else 2 if s < 3 else 0
            rest = 2 if s < 2 else 1 if s < 5 else 0
            steps.append(np.where(i == j, s + 2, np.where(i + j == 3, across, rest)))
        return np.array(steps)
    lean = np.where(np.arange(classes) < classes // 2, -1, 1)
    return np.array([[slides + s * lean, slides - s * lean] for s in range(slides + 1)])


def accuracies(X: np.ndarray, y: np.ndarray, splits: Sequence[Split], solver: str = "pathorob") -> np.ndarray:
    """(splits, tests) balanced accuracy of the logistic regression whose C does best on validation (the first of equals).

    Args:
        solver: "pathorob", scikit-learn's as it stops by default; "exact", to convergence.
    """
    best: dict[int, tuple[float, int, np.ndarray]] = {}
    for s, index, guess in _guesses(X, y, splits, solver):
        good = metrics.balanced_accuracy(y[splits[s].val], guess[splits[s].val])
        if s not in best or (good, -index) > best[s][:2]:
            best[s] = good, -index, guess
    out = np.full((len(splits), len(splits[0].tests)), np.nan)
    for s, split in enumerate(splits):
        for t, rows in enumerate(split.tests):
            if len(rows):
                out[s, t] = metrics.balanced_accuracy(y[rows], best[s][2][rows])
    return out


def _guesses(
    X: np.ndarray, y: np.ndarray, splits: Sequence[Split], solver: str
) -> Iterator[tuple[int, int, np.ndarray]]:
    """Number of the split, number of the C, and the class that is predicted for each row."""
    if solver == "exact":
        train = np.zeros((len(splits), len(y)), bool)
        for s, split in enumerate(splits):
            train[s, split.train] = True
        for fit in logistic_path(X, y, train, C, dtype="float64", tol=1e-9):
            yield fit.split, fit.index, probabilities(fit.decision).argmax(1)
        return
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    for s, split in enumerate(splits):
        for index, c in enumerate(C):
            with warnings.catch_warnings():  # it stops after 100 steps, converged or not
                warnings.simplefilter("ignore", ConvergenceWarning)
                fitted = LogisticRegression(C=c, random_state=0).fit(X[split.train], y[split.train])
            yield s, index, fitted.predict(X)


def _drop(table: np.ndarray) -> float:
    return metrics.performance_drop(table) if np.isfinite(table).all() else float("nan")


def _inside(emb: Any, slide: np.ndarray, o: dict[str, Any], number: int) -> list[str]:
    """The centres that are trained on."""
    if o["centres"]:
        named = [c.strip() for c in o["centres"].split(",")]
        wrong = [c for c in named if c not in emb.centre]
        if wrong or len(named) != number or len(set(named)) < number:
            raise UsageError(
                f"centres={o['centres']!r}: name {number} different ones of {', '.join(np.unique(emb.centre)[:20])}, with commas."
            )
        return named
    if "subset" in emb.table and (np.asarray(emb.table["subset"]) == "ID").any():
        names = np.unique(emb.centre[np.asarray(emb.table["subset"]) == "ID"]).tolist()
    else:
        names = sorted(np.unique(emb.centre).tolist(), key=lambda c: (-len(np.unique(slide[emb.centre == c])), c))
    if len(names) < number:
        raise DataError(f"{emb.dataset or 'The data'}: {len(names)} centres, and the scheme trains on {number}.")
    return sorted(names[:number])


def _slides(emb: Any, y: np.ndarray, slide: np.ndarray, centre: str, c: int, rng: Any) -> list[np.ndarray]:
    """The rows of each slide of one class in one centre, in an order drawn anew."""
    rows = np.flatnonzero((emb.centre == centre) & (y == c))
    return [rng.permutation(rows[slide[rows] == s]) for s in rng.permutation(np.unique(slide[rows]))]


def _splits(
    cells: list[list[list[np.ndarray]]], plan: np.ndarray, outside: np.ndarray, emb: Any, inside: list[str]
) -> list[Split]:
    """One Split a mixture: its first slides train, some tiles of the next validate, those after the most that train test."""
    most = int(plan.max())
    for i, row in enumerate(cells):
        for j, slides in enumerate(row):
            if len(slides) < most + 2:
                raise DataError(
                    f"{emb.dataset or 'The data'}: {len(slides)} slides of class {j} in {inside[i]}, and the mixtures need {most + 2}. "
                    "Lower the option slides, or name other centres."
                )
    flat = [(i, j, slides) for i, row in enumerate(cells) for j, slides in enumerate(row)]
    test = np.concatenate([rows for _, _, slides in flat for rows in slides[most + 1 :]])
    made = []
    for mixture in plan:
        train, val = [], []
        for i, j, slides in flat:
            own = slides[: mixture[i, j]]
            train += own
            val.append(slides[mixture[i, j]][: sum(map(len, own)) // most])
        made.append(Split(np.concatenate(train), np.concatenate(val), (test, outside)))
    return made
