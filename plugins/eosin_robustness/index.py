"""The robustness index: do a tile's nearest neighbours share its tissue, or its laboratory?

All definitions come from the same four counts of neighbours: same or other class, same or other centre (SS, SO, OS, OO).
D1, of de Jong and of G2L, is (SS + SO) / (SS + OS); D3, of PathoROB, is SO / (SO + OS).
"""

from __future__ import annotations

from typing import Any

import numpy as np

import eosin
from eosin import stats
from eosin.arrays import matrix
from eosin.errors import DataError, UsageError
from eosin.similarity import neighbour_types_of

from .sampling import by_chance, draw, pairs_of

KEPT, LEFT_OUT = "same slide kept", "same slide left out"
RESAMPLES = 1000


BY_SLIDE = "bootstrap of slides as queries, the same in every fold, level 0.95"


def options(**defaults: Any) -> dict[str, eosin.Option]:
    """The options of both protocols, which differ in defaults only."""
    says = {
        "ks": (str, "Numbers of neighbours, with commas."),
        "k": (int, "The headline's number of neighbours, one of ks."),
        "definition": (("D1", "D3"), "The headline: D1 = (SS + SO) / (SS + OS), G2L's; D3 = SO / (SO + OS), PathoROB's."),
        "per_query": (bool, "Mean of the queries' own ratios, where they have one, in place of the ratio of sums."),
        "exclude_same_slide": (bool, "No patch of the query's slide is its neighbour."),
        "sampling": (("200", "4200", "all"), "200: `per` of each class. 4200: `per` of each class and centre. all."),
        "per": (int, "Patches of each class, or of each class and centre; fewer where there are fewer."),
        "balance": (("centre", "none"), "Under 200, a class is drawn as evenly from its centres as there are patches, or at random."),
        "fold": (("resample", "queries"), "What a fold is: another draw of patches, or a part of the queries of one draw."),
        "folds": (int, "Number of folds; one where there is nothing to draw."),
        "distance": (("cosine", "euclidean"), "Between embeddings."),
        "design": (("all", "paired"), "paired: neighbours within two classes of two centres at a time, counts pooled."),
        "seed": (int, "Of the first draw; each further one adds 1."),
    }  # fmt: skip
    return {name: eosin.Option(defaults[name], allowed, doc) for name, (allowed, doc) in says.items()}


class RobustnessIndex(eosin.Protocol):
    """The index of both papers; a subclass sets the card."""

    def score(self, emb: Any, **given: Any) -> eosin.Scores:
        """`robustness_index@k` for each k and `robustness_index` at the headline's k, a value a fold; `D1`, `D3` and
        `over_chance` at that k.

        Details: for same-slide neighbours kept and left out and for each k the pooled counts, D1 and D3 pooled and per
        query, chance, index / chance and queries without a ratio, a value a fold; the class x centre table of the first
        draw; 95 % intervals of the headline at each k, slides resampled as queries.

        Raises:
            DataError: no labels, no centres, same-slide exclusion without slides, tiles of zeros (named).
        """
        o = self.card.complete(given)
        ks, k = _ks(o)
        rows, notes = _Rows.of(emb, o)
        rule = LEFT_OUT if o["exclude_same_slide"] else KEPT
        folds = [rows.counts(at, queries, ks, o) for at, queries in rows.folds(o, notes)]
        found = {r: {str(j): _ratios([f[r][j] for f in folds]) for j in ks} for r in (KEPT, LEFT_OUT) if r in folds[0]}
        headline = o["definition"] + (" per query" if o["per_query"] else "")
        here = found[rule][str(k)]
        values = {f"robustness_index@{j}": found[rule][str(j)][headline] for j in ks}
        over = here[f"{o['definition']} / chance"]
        metrics = {"robustness_index": here[headline], "over_chance": over * np.nan if o["per_query"] else over}
        metrics |= {"D1": here["D1"], "D3": here["D3"], **values}
        details: dict[str, Any] = {**found, "class x centre": folds[0]["table"]}
        details |= {"classes": np.asarray(rows.classes), "centres": rows.centres}
        intervals = {j: _interval([f[rule][j] for f in folds], [f["slide"] for f in folds], headline) for j in ks}
        details["interval"] = {str(j): np.array(ends) for j, ends in intervals.items()}
        own = {f"robustness_index@{j}": (*ends, BY_SLIDE) for j, ends in intervals.items()}
        chance = here[o["definition"] + " chance"][0]
        if o["per_query"]:
            notes.append("over_chance is not a number: the chance level that is known is that of pooled counts")
        elif chance > 0:
            notes.append(f"chance for these base rates is {chance:.4g}; 1 is not neutral")
        notes += _odd(here, headline, k, rows)
        own |= {"robustness_index": (*intervals[k], BY_SLIDE)}
        found_values = {m: np.asarray(v).tolist() for m, v in metrics.items()}
        return eosin.Scores(found_values, details=details, notes=notes, intervals=own)


class RobustnessIndexG2L(RobustnessIndex):
    card = eosin.ProtocolCard(
        "robustness-index-g2l@1",
        options=options(
            ks="3,5,10,20", k=10, definition="D1", per_query=False, exclude_same_slide=False, sampling="200", per=40,
            balance="centre", fold="resample", folds=5, distance="cosine", design="all", seed=0,
        ),
        metrics=("robustness_index", "over_chance", "D1", "D3", *(f"robustness_index@{k}" for k in (3, 5, 10, 20))),
        ddof=1,
        notes="G2L paper, Robustness Index: 40 patches in each of five tissue classes spanning 21 centres of TIGER, same "
        "tissue over same centre among the k nearest. Open in the paper: per class or per class and centre, same-slide "
        "neighbours, distance, pooled or per query, what a fold is.",
    )  # fmt: skip


class RobustnessIndexPathoROB(RobustnessIndex):
    card = eosin.ProtocolCard(
        "robustness-index-pathorob@1",
        options=options(
            ks="5,11,46,61", k=11, definition="D3", per_query=False, exclude_same_slide=True, sampling="all", per=40,
            balance="centre", fold="resample", folds=1, distance="cosine", design="all", seed=0,
        ),
        metrics=("robustness_index", "over_chance", "D1", "D3", *(f"robustness_index@{k}" for k in (5, 11, 46, 61))),
        ddof=1,
        notes="PathoROB (Koemen et al., arXiv:2507.17845): SO / (SO + OS), slide excluded, counts pooled; k is 11 for "
        "Camelyon, 61 for TCGA (design paired), 46 for Tolkach. Its code cuts all neighbour lists to the shortest; "
        "here a query counts those it has.",
    )  # fmt: skip


class _Rows:
    """The rows of an Embeddings that have a class and a centre."""

    def __init__(self, X: np.ndarray, y: np.ndarray, centre: np.ndarray, slide: np.ndarray | None) -> None:
        self.X, self.y, self.slide = X, y, slide
        self.centres, self.centre = np.unique(centre, return_inverse=True)
        self.classes: tuple[str, ...] = ()
        self.subset: np.ndarray | None = None

    @classmethod
    def of(cls, emb: Any, o: dict[str, Any]) -> tuple[_Rows, list[str]]:
        name, notes = emb.dataset or "the data", []
        if emb.y is None:
            raise DataError(
                f"{name}: no labels. A robustness index needs the tissue class of each tile: column `label`."
            )
        if emb.centre is None:
            raise DataError(
                f"{name}: no centres. A robustness index needs the laboratory of each tile: column `centre`."
            )
        known = emb.centre != ""
        if not known.all():
            notes.append(f"{int((~known).sum()):,} tiles without a centre were left out")
        if not known.any():
            raise DataError(f"{name}: no tile has a centre. Fill the column `centre`, the laboratory of each tile.")
        # in the order of ids, so that no draw depends on the table's
        emb = emb[np.flatnonzero(known)[np.argsort(emb.id[known], kind="stable")]]
        X, slide = matrix(emb.X, "X"), emb.slide
        zero = ~X.any(1) if o["distance"] == "cosine" else np.zeros(len(X), bool)
        if zero.any():
            raise DataError(
                f"{name}: {int(zero.sum())} tiles have embeddings of zeros, which have no direction: "
                f"{', '.join(emb.id[zero][:10])}. Embed them again, or take them out of the table."
            )
        if slide is None and emb.group is not None:
            slide, _ = emb.group, notes.append("no slides are known: a patient's tiles count as one slide")
        if slide is not None:  # a tile without a slide is one of its own
            slide = np.where(slide == "", np.char.add("tile ", emb.id.astype(str)), slide)
        elif o["exclude_same_slide"]:
            raise DataError(
                f"{name}: exclude_same_slide needs the slide of each tile. Give the table a column `slide`, or say exclude_same_slide=false."
            )
        rows = cls(X, np.asarray(emb.y), emb.centre, slide)
        rows.classes = tuple(emb.classes) or tuple(map(str, range(int(rows.y.max()) + 1)))
        rows.subset = np.asarray(emb.table["subset"]) if o["design"] == "paired" and "subset" in emb.table else None
        if len(rows.centres) == 1:
            notes.append(f"one centre only, {rows.centres[0]}: D1 says how many neighbours share the class, D3 nothing")
        return rows, notes

    def folds(self, o: dict[str, Any], notes: list[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        """(rows, which of them are queries) of each fold."""
        if o["folds"] < 1 or o["per"] < 1:
            raise UsageError(f"folds={o['folds']}, per={o['per']}: both are at least 1.")
        how = (o["sampling"], o["per"], o["balance"])
        first = draw(self.y, self.centre, *how, seed=o["seed"])
        self._count_short(first, o, notes)
        if o["folds"] == 1 or (o["fold"] == "resample" and o["sampling"] == "all"):
            if o["folds"] > 1:
                notes.append("sampling is all, so there is one fold: nothing is drawn. fold=queries parts the queries")
            return [(first, np.ones(len(first), bool))]
        if o["fold"] == "queries":
            part = np.random.RandomState(o["seed"]).permutation(len(first)) % o["folds"]
            return [(first, part == f) for f in range(o["folds"]) if (part == f).any()]
        drawn = [draw(self.y, self.centre, *how, seed=o["seed"] + f) for f in range(o["folds"])]
        return [(rows, np.ones(len(rows), bool)) for rows in drawn]

    def _count_short(self, first: np.ndarray, o: dict[str, Any], notes: list[str]) -> None:
        if o["sampling"] == "all":
            return
        label = self.y if o["sampling"] == "200" else self.y * len(self.centres) + self.centre
        have = np.bincount(
            label[first], minlength=(self.y.max() + 1) * (1 if o["sampling"] == "200" else len(self.centres))
        )
        short = int((have < o["per"]).sum())
        if short:
            what = "classes" if o["sampling"] == "200" else "of all pairs of class and centre"
            notes.append(f"{short} {what} have fewer than {o['per']} patches: all of theirs were taken")

    def counts(self, at: np.ndarray, queries: np.ndarray, ks: list[int], o: dict[str, Any]) -> dict[str, Any]:
        """{rule: {k: (SS SO OS OO of each query, the same by chance)}}, slide of each query, and the table."""
        y, centre = self.y[at], self.centre[at]
        single = np.arange(len(at))
        slide = None if self.slide is None else np.unique(self.slide[at], return_inverse=True)[1]
        rules = {KEPT: single} | ({LEFT_OUT: slide} if slide is not None else {})
        subsets, short = [single], 0
        if o["design"] == "paired":
            subsets, short = pairs_of(y, centre, None if self.subset is None else self.subset[at])
            if not subsets:
                raise DataError(
                    f"design=paired: no two classes are in the same two centres ({short} tried). Use design=all."
                )
        out: dict[str, Any] = {r: {k: (np.zeros((len(at), 4)), np.zeros((len(at), 4))) for k in ks} for r in rules}
        for rows in subsets:
            barred = {r: bar[rows] for r, bar in rules.items()}
            types = neighbour_types_of(
                self.X[at[rows]], y[rows], centre[rows], list(barred.values()), ks, o["distance"]
            )
            for (rule, bar), found in zip(barred.items(), types, strict=True):
                for k in ks:
                    out[rule][k][0][rows] += found[k]
                    out[rule][k][1][rows] += by_chance(y[rows], centre[rows], bar, k)
        table = np.zeros((max(len(self.classes), int(self.y.max()) + 1), len(self.centres)), np.int64)
        np.add.at(table, (y, centre), 1)
        for per_k in (out[r] for r in rules):
            for k in ks:
                per_k[k] = tuple(c[queries] for c in per_k[k])
        owner = single.astype(str) if self.slide is None else self.slide[at]
        return {**out, "slide": owner[queries], "table": table}


def _parts(counts: np.ndarray, what: str) -> tuple[np.ndarray, np.ndarray]:
    """Numerator and denominator of each query, whose sums make the index."""
    ss, so, os, _ = counts.T
    num, den = (ss + so, ss + os) if what.startswith("D1") else (so, so + os)
    if what.endswith("per query"):
        return np.divide(num, den, out=np.zeros_like(num), where=den > 0), (den > 0).astype(float)
    return num, den


def _ratio(num: np.ndarray, den: np.ndarray) -> float:
    """nan where the denominator is 0, as with no same-centre neighbour at all."""
    return float(num.sum() / den.sum()) if den.sum() > 0 else float("nan")


def _ratios(folds: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, np.ndarray]:
    """Counts, indices and chance levels, a value a fold."""
    out = {kind: np.array([c[:, i].sum() for c, _ in folds]) for i, kind in enumerate(("SS", "SO", "OS", "OO"))}
    for d in ("D1", "D3"):
        out[d] = np.array([_ratio(*_parts(c, d)) for c, _ in folds])
        out[f"{d} per query"] = np.array([_ratio(*_parts(c, f"{d} per query")) for c, _ in folds])
        out[f"{d} chance"] = np.array([_ratio(*_parts(chance, d)) for _, chance in folds])
        for what in (d, f"{d} per query"):  # where nothing could be found, as in one centre, 0 would not mean the worst
            out[what][out[f"{d} chance"] == 0] = np.nan
        out[f"{d} / chance"] = np.array([_over(a, b) for a, b in zip(out[d], out[f"{d} chance"], strict=True)])
        out[f"queries without {d}"] = np.array([int((_parts(c, d)[1] == 0).sum()) for c, _ in folds])
    return out


def _over(a: float, b: float) -> float:
    return float(a / b) if b > 0 else float("nan")


def _interval(folds: list[tuple[np.ndarray, np.ndarray]], slides: list[np.ndarray], what: str) -> tuple[float, float]:
    """95 % interval: slides resampled as queries, in every fold alike; the neighbours of a query stay as they are."""
    sums, group, fold = [], [], []
    for f, ((counts, _), slide) in enumerate(zip(folds, slides, strict=True)):
        names, at = np.unique(slide, return_inverse=True)
        sums.append(np.stack([np.bincount(at, part, len(names)) for part in _parts(counts, what)], axis=1))
        group.append(names)
        fold.append(np.full(len(names), f))
    score = np.concatenate(sums)
    ratio = lambda y, s: _ratio(s[:, 0], s[:, 1])  # noqa: E731
    return stats.bootstrap(
        ratio, np.zeros(len(score)), score, np.concatenate(group), n=RESAMPLES, fold=np.concatenate(fold)
    )


def _odd(here: dict[str, np.ndarray], headline: str, k: int, rows: _Rows) -> list[str]:
    notes = []
    if np.isnan(here[headline]).any():
        folds = int(np.isnan(here[headline]).sum())
        notes.append(
            f"in {folds} of {len(here[headline])} folds no query has a neighbour that the index divides by: it is not a number"
        )
    without = int(here[f"queries without {headline[:2]}"].sum())
    if without:
        notes.append(f"{without:,} queries of all folds have no {headline[:2]} of their own at k = {k}")
    if rows.slide is not None:
        of = {c: len(np.unique(rows.slide[rows.centre == i])) for i, c in enumerate(rows.centres)}
        single = [str(c) for c, number in of.items() if number == 1]
        if single:
            notes.append(
                f"one slide only in {', '.join(single)}: without same-slide neighbours these have none of their centre"
            )
    return notes


def _ks(o: dict[str, Any]) -> tuple[list[int], int]:
    try:
        ks = sorted({int(k) for k in o["ks"].split(",")})
    except ValueError:
        raise UsageError(f"ks={o['ks']!r}: give whole numbers with commas, such as 3,5,10,20.") from None
    if ks[0] < 1 or o["k"] < 1:
        raise UsageError(f"ks={o['ks']}, k={o['k']}: a number of neighbours is at least 1.")
    return sorted({*ks, o["k"]}), o["k"]
