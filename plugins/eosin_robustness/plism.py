"""PLISM: the same places under many stainings and scanners. Do a model's embeddings stay, and find each other again?"""

from __future__ import annotations

from typing import Any

import numpy as np

import eosin
from eosin import stats
from eosin.errors import UsageError

from .pairs import compute
from .slides import Registered, registered

GROUPS = ("all", "inter_scanner", "inter_staining", "both")
KS = (1, 3, 5, 10)
BASE = ("cosine", *(f"top{k}" for k in KS))
METRICS = tuple(f"{m}{'' if g == 'all' else f'_{g}'}" for g in GROUPS for m in BASE)
LEADERBOARD = ("cosine", "top10_inter_scanner", "top10_inter_staining", "top10_both")
UNNAMED = (
    "the paper keeps 3 of PLISM's 13 and does not name them. Say --option stainings=GMH,KRH,MY, or any three, or "
    "stainings=all for every pair, after which any three cost nothing more."
)
SCANNERS = eosin.Option(None, doc="Names with commas between them; none: all.")
KS_OPTION = eosin.Option("1,3,5,10", doc="The k of top-k, with commas between them.")
PRECISION = eosin.Option(
    "float32",
    ("float32", "float16"),
    "float32: exact, by the formula. float16: the arithmetic of plism-benchmark's published numbers.",
)


BY_SLIDE = "jackknife of slides, which pairs share; rough for medians; level 0.95"


class _Plism(eosin.Protocol):
    """What both protocols share: pairs of slides, their groups, medians, and intervals by leaving slides out."""

    whole = (0, 0)

    def score(self, emb: Any, **options: Any) -> eosin.Scores:
        """The median over pairs of each measure, for all pairs and for the three groups of pairs.

        Details: `pairs` (slides a and b, group, and every measure of each pair), `groups` (of each metric: pairs, median,
        iqr, mean, std, and the jackknife's low and high), `slides`, `stains` of these, `n_tiles`.

        Raises:
            UsageError: stainings that must be named, or are not there. DataError: slides that lack tiles; see `registered`.
        """
        o = self.card.complete(options)
        ks = _ks(o["ks"])
        if not {1, 10} & set(ks):
            raise UsageError(
                f"{self.card.name}: ks={o['ks']} has neither 1 nor 10, whose accuracies are the headlines. Add them."
            )
        why = self.card.options["stainings"].required
        found = registered(emb, o["stainings"], o["scanners"], o["n_tiles"], f"{self.card.name}: {why}" if why else "")
        pairs = compute(emb, found, ks, o["precision"])
        names = ("cosine", *(f"top{k}" for k in ks))
        pairs["group"] = _groups(pairs, found)
        slides = np.column_stack([pairs["a"], pairs["b"]])
        metrics, groups = {}, {}
        for group in GROUPS:
            of = np.ones(len(slides), bool) if group == "all" else pairs["group"] == group
            for name in names:
                key = name if group == "all" else f"{name}_{group}"
                metrics[key] = _median(pairs[name][of])
                groups[key] = _summary(pairs[name], of, slides, -1.0 if name == "cosine" else 0.0)
        self.combine(metrics, groups, pairs, slides)
        details = {
            "groups": groups,
            "pairs": pairs,
            "slides": [s.name for s in found.slides],
            "stains": {s.name: s.stain for s in found.slides},
            "n_tiles": found.n,
        }
        own = {m: (g["low"], g["high"], BY_SLIDE) for m, g in groups.items() if "low" in g}
        return eosin.Scores(metrics, None, details, self.remarks(found, o), own)

    def combine(self, metrics: dict[str, float], groups: dict[str, Any], pairs: Any, slides: np.ndarray) -> None:
        """Add what is made of several medians."""

    def remarks(self, found: Registered, o: dict[str, Any]) -> list[str]:
        """Sentences on what is not as published."""
        notes, (slides, tiles) = [], self.whole
        if not found.by_tile:
            notes.append("No column `tile`: the rows of each slide are taken to be the same places in one order.")
        if found.n < found.of:
            notes.append(
                f"The first {found.n:,} of {found.of:,} tiles a slide; plism-benchmark's own {found.n:,} are other ones "
                "unless the dataset's option `tiles` names its file of them."
            )
        if (len(found.slides), found.n) != (slides, tiles):
            notes.append(
                f"{len(found.slides)} slides of {found.n:,} tiles; published are {slides} of {tiles:,}, and accuracies "
                "depend on the number of tiles."
            )
        if o["precision"] == "float32" and self.card.name.startswith("plism-leaderboard"):
            notes.append("Exact; the leaderboard's own numbers were computed in float16 (precision=float16).")
        return notes


class PlismPaper(_Plism):
    """The paper of H0-mini: medians over all pairs of three stainings and seven scanners."""

    whole = (21, 16_278)
    card = eosin.ProtocolCard(
        "plism-paper@1",
        options={
            "stainings": eosin.Option(
                None,
                doc="Three names with commas between them, as the paper does not name its own; or all.",
                required=UNNAMED,
            ),
            "scanners": SCANNERS,
            "n_tiles": eosin.Option(0, doc="The first so many tiles of each slide; 0: all."),
            "ks": KS_OPTION,
            "precision": PRECISION,
        },
        metrics=METRICS,
        ddof=0,
        readout="cls|default",
        notes="Filiot et al. 2025 (H0-mini), appendix 7.3: rank = tiles of both slides, the tile itself excepted, at least as "
        "similar as the match; both directions. Table 3: median (interquartile range) over 210 pairs of 21 slides.",
    )


class PlismLeaderboard(_Plism):
    """plism-benchmark: all 91 slides, 8,139 tiles, and the mean of four medians."""

    whole = (91, 8_139)
    card = eosin.ProtocolCard(
        "plism-leaderboard@1",
        options={
            "stainings": eosin.Option(None, doc="Names with commas between them; none: all."),
            "scanners": SCANNERS,
            "n_tiles": eosin.Option(
                8139, doc="The first so many tiles of each slide, or as many as there are; 0: all."
            ),
            "ks": KS_OPTION,
            "precision": PRECISION,
        },
        metrics=("score", *METRICS),
        ddof=0,
        readout="cls|default",
        notes="owkin/plism-benchmark at b4f32b7 (README, 3 March 2025): the mean of the medians of cosine over all pairs and "
        "of top-10 over pairs that differ in scanner, in staining, and in both.",
    )

    def combine(self, metrics: dict[str, float], groups: dict[str, Any], pairs: Any, slides: np.ndarray) -> None:
        if "top10" not in metrics:
            raise UsageError(f"{self.card.name}: ks must have 10, of which the score is made. Write ks=1,3,5,10.")

        def score(keep: np.ndarray) -> float:
            parts = [("all", "cosine"), *((g, "top10") for g in GROUPS[1:])]
            return float(np.mean([_median(pairs[m][keep & ((g == "all") | (pairs["group"] == g))]) for g, m in parts]))

        metrics["score"] = score(np.ones(len(slides), bool))
        low, high = stats.jackknife(score, slides)
        found = {"median": metrics["score"], "low": low, "high": high}
        groups["score"] = {"of": list(LEADERBOARD), "pairs": len(slides), **found}


def _ks(given: Any) -> tuple[int, ...]:
    texts = given.split(",") if isinstance(given, str) else [given]
    try:
        ks = tuple(dict.fromkeys(int(t) for t in texts))
    except ValueError:
        ks = ()
    if not ks or min(ks) < 1:
        raise UsageError(f"ks={given}: give whole numbers from 1 with commas between them, as 1,3,5,10.")
    return ks


def _groups(pairs: dict[str, np.ndarray], found: Registered) -> np.ndarray:
    """By what the slides of each pair differ; "same" where two slides are alike in both."""
    of = {s.name: s for s in found.slides}
    kinds = {(False, True): "inter_scanner", (True, False): "inter_staining", (True, True): "both"}
    ends = [(of[a], of[b]) for a, b in zip(pairs["a"].tolist(), pairs["b"].tolist(), strict=True)]
    return np.array([kinds.get((a.stain != b.stain, a.scanner != b.scanner), "same") for a, b in ends])


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if len(values) else float("nan")


def _summary(values: np.ndarray, of: np.ndarray, slides: np.ndarray, least: float) -> dict[str, float]:
    """Of the pairs `of`; the interval leaves out one slide at a time with all of its pairs, which share it."""
    if not of.any():
        return {"pairs": 0}
    v = values[of]
    low, high = np.clip(stats.jackknife(lambda keep: _median(v[keep]), slides[of]), least, 1)
    spread = float(np.subtract(*np.quantile(v, (0.75, 0.25))))
    return {
        "pairs": int(of.sum()), "median": _median(v), "iqr": spread, "mean": float(v.mean()), "std": float(v.std()),
        "low": float(low), "high": float(high),
    }  # fmt: skip
