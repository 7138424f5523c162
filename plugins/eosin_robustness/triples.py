"""Which three stainings did the paper of H0-mini keep? Every triple of a record of all pairs, beside its Table 3."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from eosin.errors import DataError

MEASURES = ("cosine", "top1", "top5")
TABLE3 = {
    "h0-mini": ((0.876, 0.075), (0.239, 0.430), (0.451, 0.501)),
    "h-optimus-0": ((0.799, 0.108), (0.261, 0.375), (0.444, 0.431)),
    "virchow2": ((0.866, 0.070), (0.162, 0.244), (0.336, 0.325)),
    "conch": ((0.902, 0.065), (0.154, 0.389), (0.315, 0.507)),
    "virchow": ((0.838, 0.088), (0.110, 0.202), (0.234, 0.265)),
    "uni": ((0.686, 0.172), (0.081, 0.219), (0.222, 0.357)),
    "ctranspath": ((0.857, 0.090), (0.056, 0.173), (0.166, 0.324)),
    "prov-gigapath": ((0.690, 0.169), (0.054, 0.201), (0.155, 0.345)),
    "kaiko-vitb8": ((0.835, 0.088), (0.024, 0.100), (0.097, 0.227)),
    "hibou-l": ((0.595, 0.149), (0.002, 0.011), (0.010, 0.034)),
    "plip": ((0.909, 0.047), (0.001, 0.016), (0.009, 0.055)),
    "phikon-v2": ((0.641, 0.160), (0.001, 0.006), (0.007, 0.027)),
    "phikon": ((0.715, 0.178), (0.001, 0.005), (0.006, 0.028)),
}
"""Median and interquartile range of cosine, top-1 and top-5 over 210 pairs (arXiv:2501.16239, Table 3)."""

Published = Mapping[str, Sequence[tuple[float, float]]]


def triples(
    pairs: Mapping[str, Any], stain_of: Mapping[str, str], published: Sequence[tuple[float, float]] = ()
) -> list[dict[str, Any]]:
    """Medians and interquartile ranges over the pairs of every three stainings.

    Args:
        pairs: `a`, `b` (slide names), `cosine`, `top1`, `top5` of each pair: the details of a record.
        stain_of: the staining of each slide.
        published: (median, iqr) of each measure; adds `distance`, the mean absolute difference of these six numbers.

    Returns:
        [{"stainings": […], "cosine": (median, iqr), …[, "distance"]}], nearest first, else by name.
    """
    a, b = ([stain_of[s] for s in pairs[side]] for side in "ab")
    stains = sorted({*a, *b})
    number = {s: i for i, s in enumerate(stains)}
    ends = np.array([[number[s] for s in side] for side in (a, b)])
    values = {m: np.asarray(pairs[m], float) for m in MEASURES}
    found = []
    for three in combinations(range(len(stains)), 3):
        among = np.isin(ends, three).all(0)
        row: dict[str, Any] = {"stainings": [stains[i] for i in three]}
        for m in MEASURES:
            low, middle, high = np.quantile(values[m][among], (0.25, 0.5, 0.75))
            row[m] = (float(middle), float(high - low))
        if published:
            row["distance"] = float(np.mean([np.abs(np.subtract(row[m], p)) for m, p in zip(MEASURES, published)]))
        found.append(row)
    return sorted(found, key=lambda r: (r.get("distance", 0.0), r["stainings"]))


def over_models(
    records: Sequence[Path], published: Published = TABLE3
) -> tuple[list[dict[str, Any]], list[str], list[str]]:
    """(triples by their mean distance over the models that Table 3 has, those models, why other records were passed over).

    Of several records of a model the one with most slides counts.

    Args:
        records: of `plism-paper@1` with stainings=all (or `plism-leaderboard@1`, whose numbers of tiles are others).

    Raises:
        DataError: a file that is no such record, or none that can be used; records of different scanners, tiles or precision.
    """
    found: dict[str, tuple[Path, dict[str, Any]]] = {}
    passed = []
    for path in records:
        model, details = _read(path)
        if model not in published:
            passed.append(f"{path}: {model} is not in Table 3")
        elif len(set(details["stains"].values())) < 3:
            passed.append(f"{path}: fewer than three stainings")
        elif model in found and len(found[model][1]["stains"]) >= len(details["stains"]):
            passed.append(f"{path}: another record of {model} has as many slides or more")
        else:
            if model in found:
                passed.append(f"{found[model][0]}: another record of {model} has more slides")
            found[model] = path, details
    if not found:
        raise DataError(
            f"No record of these can be used ({'; '.join(passed)}). Table 3 has {', '.join(published)}: run one of them with "
            "--option stainings=all."
        )
    kinds = {_settings(details): path for path, details in found.values()}
    if len(kinds) > 1:
        raise DataError(
            f"{' and '.join(map(str, kinds.values()))} have different slides or tiles ({'; '.join(kinds)}). Give records of one run."
        )
    total: dict[tuple[str, ...], list[float]] = {}
    for model, (_, details) in found.items():
        for row in triples(details["pairs"], details["stains"], published[model]):
            total.setdefault(tuple(row["stainings"]), []).append(row["distance"])
    whole = [(float(np.mean(d)), s) for s, d in total.items()]
    return [{"stainings": list(s), "distance": d} for d, s in sorted(whole)], list(found), passed


def _settings(details: Mapping[str, Any]) -> str:
    """What records must share to be averaged: slides, tiles and arithmetic."""
    stains = sorted(set(details["stains"].values()))
    return (
        f"{len(details['stains'])} slides of {' '.join(stains)}, {details.get('n_tiles')} tiles, {details['precision']}"
    )


def _read(path: Path) -> tuple[str, dict[str, Any]]:
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        details = content["details"]
        if not {"a", "b", *MEASURES} <= set(details["pairs"]) or not details["stains"]:
            raise KeyError
        options = content.get("protocol", {}).get("options", {})
        return content["model"]["name"], {**details, "precision": options.get("precision")}
    except (ValueError, KeyError, TypeError, OSError):
        raise DataError(
            f"{path} is no record of a PLISM protocol with top-1 and top-5. Give one of `bench run --benchmark plism`."
        ) from None


def command(cli: Any) -> None:
    """Add `bench plism-triples` to the click group."""
    import click

    @cli.command("plism-triples")
    @click.argument("records", nargs=-1, required=True, type=click.Path(dir_okay=False))
    @click.option("--top", default=10, type=click.IntRange(min=1), help="How many triples to show.")
    @click.option("--json", "as_json", is_flag=True, help="One JSON object with all triples.")
    def plism_triples(records: tuple[str, ...], top: int, as_json: bool) -> None:
        """Score every three stainings of RECORDS (plism, stainings=all) against Table 3 of the H0-mini paper."""
        rows, models, passed = over_models([Path(r) for r in records])
        if as_json:
            click.echo(json.dumps({"models": models, "triples": rows, "passed_over": passed}))
            return
        for text in passed:
            click.echo(f"passed over: {text}", err=True)
        click.echo(f"Mean distance from Table 3 over {', '.join(models)}; {len(rows)} triples, nearest first:")
        for row in rows[:top]:
            click.echo(f"{row['distance']:.4f}  {' '.join(row['stainings'])}")
