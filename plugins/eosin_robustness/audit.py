"""Centre audit: can the laboratory be read from the embeddings, and does what is read of the tissue lean on it?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

import eosin
from eosin import folds, metrics, probes
from eosin.arrays import matrix
from eosin.errors import DataError, UsageError
from eosin.logistic import logistic_path, probabilities


class CentreAudit(eosin.Protocol):
    """Probes of the centre, and of the label with and without its centre among the training rows."""

    card = eosin.ProtocolCard(
        "centre-audit@1",
        options={
            "folds": eosin.Option(5, doc="Fewer where a centre or a class has fewer patients, or fewer centres; a note says so."),
            "min_groups": eosin.Option(2, doc="A centre with fewer patients (else slides) is not probed for; it is counted."),
            "C": eosin.Option(1.0, doc="Inverse penalty of the linear probes, on standardised columns."),
            "k": eosin.Option(20, doc="Neighbours that vote on the centre; fewer where training rows are fewer."),
            "distance": eosin.Option("cosine", ("cosine", "euclidean"), "Of the vote."),
            "seed": eosin.Option(0, doc="Of all folds."),
        },
        metrics=("centre_linear", "centre_knn", "label_random", "label_site", "label_left_out", "gap"),
        ddof=1,
        notes="Ours. All values are balanced accuracies, each fold's over the classes that it holds; random folds keep "
        "patients (else slides) together, so that the gap is not one of patients.",
    )  # fmt: skip

    def score(self, emb: Any, **given: Any) -> eosin.Scores:
        """`centre_linear` and `centre_knn`, a value a fold; `label_random`, `label_site` (no centre on both sides), a
        value a fold; `label_left_out`, a value a centre left out; `gap` = label_random - label_left_out.

        Details: `centre chance` and `centre majority`; `centres`, their `tiles` and `patients` and `recall` by the linear
        probe; `left out`, the label's balanced accuracy in each centre that was left out; the class x centre table.

        Raises:
            DataError: no centres, or one only.
        """
        o = self.card.complete(given)
        if o["folds"] < 2 or o["min_groups"] < 2 or o["k"] < 1 or o["C"] <= 0:
            raise UsageError("centre-audit takes folds >= 2, min_groups >= 2, k >= 1 and C > 0. Correct the option.")
        name, notes = emb.dataset or "the data", []
        if emb.centre is None:
            raise DataError(f"{name}: no centres. An audit needs the laboratory of each tile: a column `centre`.")
        known = emb.centre != ""
        if not known.all():
            notes.append(f"{int((~known).sum()):,} tiles without a centre were left out")
            emb = emb[known]
        if not len(emb):
            raise DataError(f"{name}: no tile has a centre. Fill the column `centre`, the laboratory of each tile.")
        X, owner = matrix(emb.X, "X"), _owner(emb, notes)
        names, centre = np.unique(emb.centre, return_inverse=True)
        if len(names) < 2:
            raise DataError(f"{name}: one centre only, {names[0]}. An audit compares at least two.")
        groups = np.array([len(np.unique(owner[centre == c])) for c in range(len(names))])
        values, details = _of_centre(X, centre, owner, groups, names, o, notes)
        details |= {"centres": names, "tiles": np.bincount(centre), "patients": groups}
        label, more = _of_label(X, emb, centre, owner, names, o, notes)
        table = np.zeros((len(emb.classes) or 1, len(names)), np.int64)
        if emb.y is not None and emb.classes:
            np.add.at(table, (emb.y, centre), 1)
            details |= {"class x centre": table, "classes": np.asarray(emb.classes)}
        return eosin.Scores({**values, **label}, details={**details, **more}, notes=notes)


def _owner(emb: Any, notes: list[str]) -> np.ndarray:
    """Patient, else slide, else the tile itself, of each row."""
    owner = emb.group if emb.group is not None else emb.slide
    if owner is None:
        notes.append(
            "neither patients nor slides are known: tiles of one slide may be on both sides, which flatters every probe"
        )
        return np.char.add("tile ", emb.id.astype(str))
    return np.where(owner == "", np.char.add("tile ", emb.id.astype(str)), owner)


def _of_centre(
    X: np.ndarray,
    centre: np.ndarray,
    owner: np.ndarray,
    groups: np.ndarray,
    names: np.ndarray,
    o: Mapping[str, Any],
    notes: list[str],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """How well the centre is read, with no patient on both sides."""
    probed = np.flatnonzero(groups >= o["min_groups"])
    few = [str(n) for n, g in zip(names, groups, strict=True) if g < o["min_groups"]]
    if few:
        notes.append(
            f"{len(few)} centres with fewer than {o['min_groups']} patients are not probed for: {', '.join(few)}"
        )
    blank = {"centre_linear": float("nan"), "centre_knn": float("nan")}
    if len(probed) < 2:
        notes.append("fewer than two centres have enough patients: the centre is not probed for")
        return blank, {}
    rows = np.flatnonzero(np.isin(centre, probed))
    y = np.unique(centre[rows], return_inverse=True)[1]
    n = min(o["folds"], folds.most(y, owner[rows]))
    if n < 2:
        notes.append("patients are shared by all centres: the centre is not probed for")
        return blank, {}
    if n < o["folds"]:
        notes.append(f"{n} folds of the centre, of {o['folds']}: a centre has no more patients")
    fold = folds.grouped(y, owner[rows], n, o["seed"])
    guess = _linear(X[rows], y, fold, o["C"])
    linear = [metrics.balanced_accuracy(y[fold == f], guess[fold == f]) for f in range(n)]
    knn = []
    for f in range(n):
        train, test = rows[fold != f], rows[fold == f]
        probe = probes.knn(min(o["k"], len(train)), o["distance"]).fit(X[train], y[fold != f])
        knn.append(metrics.balanced_accuracy(y[fold == f], probe.predict(X[test])))
    recall = np.full(len(names), np.nan)
    for i, c in enumerate(probed):
        recall[c] = float((guess[y == i] == i).mean())
    found = {
        "centre chance": 1 / len(probed),
        "centre majority": float(np.bincount(y).max() / len(y)),
        "recall": recall,
    }
    notes.append(
        f"chance for the centre is {1 / len(probed):.3f}; the largest centre has {found['centre majority']:.3f} of the tiles"
    )
    return {"centre_linear": linear, "centre_knn": knn}, found


def _of_label(
    X: np.ndarray,
    emb: Any,
    centre: np.ndarray,
    owner: np.ndarray,
    names: np.ndarray,
    o: Mapping[str, Any],
    notes: list[str],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """How well the label is read, when the test rows' centre was trained on and when not."""
    nan = float("nan")
    blank = dict.fromkeys(("label_random", "label_site", "label_left_out", "gap"), nan)
    if emb.y is None or len(np.unique(emb.y)) < 2:
        notes.append("no labels, or one class: only the centre was probed for")
        return blank, {}
    y = np.unique(emb.y, return_inverse=True)[1]
    out = np.full(len(names), nan)
    fold = np.where([len(np.unique(y[centre != c])) > 1 for c in range(len(names))], np.arange(len(names)), -1)[centre]
    guess = _linear(X, y, fold, o["C"])
    for c in np.unique(fold[fold >= 0]):
        out[c] = metrics.balanced_accuracy(y[centre == c], guess[centre == c])
    found = {
        "label_random": _label_folds(X, y, owner, o, "patients", notes),
        "label_site": _label_folds(X, y, centre, o, "centres", notes),
    }
    left = out[np.isfinite(out)].tolist() or [nan]
    gap = float(np.mean(found["label_random"]) - np.mean(left))
    return {**found, "label_left_out": left, "gap": gap}, {"left out": out}


def _label_folds(
    X: np.ndarray, y: np.ndarray, group: np.ndarray, o: Mapping[str, Any], what: str, notes: list[str]
) -> list[float]:
    """Balanced accuracy of each fold, no group on both sides."""
    n = min(o["folds"], folds.most(y, group))
    if n < 2:
        notes.append(f"a class has one of the {what} only: no folds of {what}")
        return [float("nan")]
    if n < o["folds"]:
        notes.append(f"{n} folds of {what}, of {o['folds']}: a class has no more")
    fold = folds.grouped(y, group, n, o["seed"])
    guess = _linear(X, y, fold, o["C"])
    return [metrics.balanced_accuracy(y[fold == f], guess[fold == f]) for f in range(n)]


def _linear(X: np.ndarray, y: np.ndarray, fold: np.ndarray, C: float) -> np.ndarray:
    """(n,) what logistic regression of the other folds says of each row; -1 for rows of no fold."""
    tested = np.unique(fold[fold >= 0])
    guess = np.full(len(y), -1)
    if len(tested):
        train = np.stack([fold != f for f in tested])
        for fit in logistic_path(X, y, train, [C], scale="standard"):
            rows = fold == tested[fit.split]
            guess[rows] = probabilities(fit.decision[rows]).argmax(1)
    return guess
