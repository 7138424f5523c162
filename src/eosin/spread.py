"""What a specification curve says: ranges of scores and ranks, what reproduces the published, a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .axes import Scale, short
from .curve import Curve
from .drawing import SHAPES, Sheet

ROUNDING = 0.005  # how near a published number without spread must be


def ranks_of(curve: Curve) -> np.ndarray:
    """(specs, models) rank in each specification that all models have, 1 the best; nan elsewhere."""
    from scipy.stats import rankdata

    out = np.full(curve.values.shape, np.nan)
    whole = np.isfinite(curve.values).all(1)
    sign = -1 if curve.better == "higher" else 1
    if whole.any():
        out[whole] = rankdata(sign * curve.values[whole], axis=1, method="min")
    return out


def summary(curve: Curve) -> list[dict[str, Any]]:
    """One row a model: its own score, range of scores and ranks, how often it is first, what reproduces the published."""
    ranks, rows = ranks_of(curve), []
    for j, model in enumerate(curve.models):
        v = curve.values[:, j]
        there, r = v[np.isfinite(v)], ranks[np.isfinite(ranks[:, j]), j]
        row: dict[str, Any] = {"model": model, "own": _number(v[0]), "specifications": len(there)}
        row |= {
            k: _number(f(there)) if len(there) else None for k, f in (("min", np.min), ("median", np.median), ("max", np.max))
        }  # fmt: skip
        row |= {"rank_own": _number(ranks[0, j]), "rank_best": _number(r.min()) if len(r) else None}
        row |= {
            "rank_worst": _number(r.max()) if len(r) else None,
            "first": _number((r == 1).mean()) if len(r) else None,
        }
        said = curve.published.get(model) or []
        row["published"] = said[0][0] if said else None
        row["spread"] = said[0][1] if said else None
        hits = reproducing(curve, j)
        row["reproduce"] = len(hits) if said else None
        row["nearest"] = describe(curve, int(np.nanargmin(np.abs(v - said[0][0])))) if said and len(there) else None
        rows.append(row)
    return rows


def reproducing(curve: Curve, model: int) -> list[int]:
    """Specifications whose score lies within the published number's spread."""
    said = curve.published.get(curve.models[model]) or []
    v = curve.values[:, model]
    return [i for i in range(len(v)) if any(abs(v[i] - value) <= spread + 1e-12 for value, spread, _ in said)]


def survival(curve: Curve) -> dict[str, Any]:
    """Whether the ranking of the benchmark's own specification holds under the others."""
    from scipy.stats import kendalltau

    ranks = ranks_of(curve)
    whole = ranks[np.isfinite(ranks).all(1)]
    if len(curve.models) < 2 or not np.isfinite(ranks[0]).all():
        return {"compared": 0}
    taus = [float(kendalltau(ranks[0], r).statistic) for r in whole]
    same = [bool((r == ranks[0]).all()) for r in whole]
    first = [bool(((r == 1) & (ranks[0] == 1)).any()) for r in whole]
    tau = [t for t in taus if math.isfinite(t)]
    return {"compared": len(whole), "same_ranking": sum(same), "same_first": sum(first), "median_tau": float(np.median(tau)) if tau else None}  # fmt: skip


def describe(curve: Curve, spec: int) -> str:
    """A specification in words: where it departs from the benchmark's own."""
    own, s = curve.specs[0], curve.specs[spec]
    return ", ".join(f"{k}={v}" for k, v in s.items() if v != own[k]) or "as the benchmark has it"


def add_published(curve: Curve, rows: Sequence[Mapping[str, Any]]) -> None:
    """Published values of this benchmark and metric, by model; a number without spread may differ by ROUNDING."""
    for r in rows:
        if (r["benchmark"], r["metric"]) == (curve.benchmark, curve.metric) and r["model"] in curve.models:
            spread = r.get("spread") if r.get("spread_kind") != "iqr" else None
            where = f"{r.get('paper', '')} {r.get('table', '')}".strip()
            curve.published.setdefault(r["model"], []).append((float(r["mean"]), float(spread or ROUNDING), where))


def long_rows(curve: Curve) -> list[dict[str, Any]]:
    """One row a specification and model, every varied choice in a column of its own."""
    ranks = ranks_of(curve)
    hits = [set(reproducing(curve, j)) for j in range(len(curve.models))]
    return [
        {
            "specification": i,
            **{k: s[k] for k in curve.choices},
            "model": m,
            curve.metric: _number(curve.values[i, j]),
            "rank": _number(ranks[i, j]),
            "reproduces": i in hits[j],
        }  # fmt: skip
        for i, s in enumerate(curve.specs)
        for j, m in enumerate(curve.models)
    ]


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def picture(curve: Curve) -> Sheet:
    """Each model's score under every specification, and below which choices each specification makes.

    Specifications stand from left to right by the mean score of the models, the benchmark's own drawn larger; a tick
    below marks each choice that they make.
    """
    order = np.argsort(
        np.nan_to_num(np.nanmean(np.where(np.isfinite(curve.values), curve.values, np.nan), 1), nan=-np.inf)
    )
    rows = [(k, v) for k, values in curve.choices.items() for v in values]
    width, high, line = 720, 240, 14
    below = high + 30
    sheet = Sheet(width, below + line * len(rows) + 20 + line * len(curve.models))
    known = curve.values[np.isfinite(curve.values)].tolist()
    y = Scale.over(known, high, 24)
    left, right = 150, width - 14

    def at(place: int) -> float:
        return left + (right - left) * (place + 0.5) / len(order)

    sheet.text(left, 14, f"{curve.benchmark}: {curve.metric} under {len(order)} specifications", 12, bold=True)
    for value in y.ticks():
        sheet.line([(left, y.at(value)), (right, y.at(value))], "grid")
        sheet.text(left - 6, y.at(value) + 4, short(value), 11, "end", "soft")
    for j, model in enumerate(curve.models):
        colour, shape = f"c{j % 8}", SHAPES[j % len(SHAPES)]
        for value, spread, where in curve.published.get(model, []):
            sheet.line([(left, y.at(value)), (right, y.at(value))], colour, 1, True)
            sheet.text(right, y.at(value) - 3, f"published {where} ± {spread:g}", 9, "end", colour)
        for place, i in enumerate(order.tolist()):
            if math.isfinite(curve.values[i, j]):
                own = "; the benchmark's own" if i == 0 else ""
                tip = f"{model} {curve.values[i, j]:.4f}: {describe(curve, i)}{own}"
                sheet.mark(shape, at(place), y.at(curve.values[i, j]), 4 if i == 0 else 2.2, colour, tip)
        foot = below + line * (len(rows) + j) + 20
        sheet.mark(shape, left - 10, foot - 4, 4, colour)
        sheet.text(left, foot, model, 11)
    for r, (name, value) in enumerate(rows):
        foot = below + line * r
        sheet.text(left - 6, foot + 4, f"{name} {value}", 10, "end", "soft")
        for place, i in enumerate(order.tolist()):
            if curve.specs[i][name] == value:
                sheet.line([(at(place), foot - 4), (at(place), foot + 4)], "ink", 1)
    return sheet
