"""Leakage: has the model seen what it is tested on, and do folds keep patients apart?

Three sources: what a model's card says it was trained on (`seen`) against where a dataset's images come from (`sources`);
the slides that a student was distilled on (tiles.csv beside its card) against the patients of a dataset; and the same
benchmark with folds of rows at random beside folds of patients.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from . import paired, record
from .cards import plain
from .errors import MissingError

# collections of natural images, and none: no tissue of a benchmark is among them
NATURAL = {"nothing", "imagenet-1k", "imagenet-21k", "imagenet-22k", "lvd-142m", "lvd-1689m", "laion-2b", "laion-5b"}
BARCODE = re.compile(r"TCGA-[A-Z0-9]{2}-[A-Z0-9]{4}", re.IGNORECASE)


def overlap(model: Any, dataset: Any) -> str:
    """`seen`, `part` (some of the images), `unknown`, or `none`: has the model been trained on the dataset's images?

    Args:
        model, dataset: cards, or the dicts that a record holds. A collection contains its parts: `tcga` has `tcga-brca`.
    """
    seen, sources = _seen(model), _sources(dataset)
    if any(_within(source, s) for s in seen for source in sources):
        own = any(_within(sources[-1], s) for s in seen)
        return "seen" if own or all(any(_within(source, s) for s in seen) for source in _stated(dataset)) else "part"
    if any(_within(s, source) for s in seen for source in sources):
        return "part"
    if seen <= NATURAL:
        return "none"
    return "none" if _stated(dataset) and "unknown" not in seen else "unknown"


def mark(model: Any, dataset: Any) -> list[str]:
    """Sentences on what the two cards say of leakage; none where there is nothing to fear.

    Args:
        model, dataset: cards, or the dicts that a record holds.
    """
    m, d = plain(model), plain(dataset)
    state, seen, stated = overlap(m, d), _seen(m), _stated(d)
    name, on = m.get("name"), d.get("name")
    said = []
    if state in ("seen", "part"):
        common = sorted(s for s in seen for source in _sources(d) if _within(source, s) or _within(s, source))
        how = "" if state == "seen" else "in part "
        said.append(
            f"{name} was trained on {', '.join(dict.fromkeys(common))}, of which {on}'s images {how}come: its score may be too high."
        )
    elif state == "unknown" and "unknown" in seen:
        known = sorted(seen - {"unknown"})
        also = f" beside {', '.join(known)}" if known else ""
        said.append(f"What {name} was trained on{also} is unknown: it may have seen {on}.")
    elif state == "unknown":
        said.append(f"{on}'s card does not say where its images come from: whether {name} has seen them is unknown.")
    if m.get("distilled") and state != "none":
        data = m["distilled"].get("data") or {}
        left = data.get("excluded_slides")
        said.append(
            f"{name} was distilled on {data.get('slides', 'unknown')} slides"
            + (f", {left} left out beforehand" if left else ", none left out")
            + f"; its tiles.csv says which, and {'whether' if stated else 'only its owner knows whether'} {on}'s patients are among them."
        )
    return said


def distilled_on(card: Any) -> list[str] | None:
    """The slides and patients of tiles.csv beside a distilled model's weights, the tiles of those that name neither; None
    where there is no such list here."""
    m = plain(card)
    path = Path(m.get("weights") or "").expanduser().parent / "tiles.csv"
    if not m.get("distilled") or not m.get("weights") or not path.is_file():
        return None
    from .table import read_csv

    columns = read_csv(path, required=("slide",))
    slides, n = columns["slide"], len(columns["slide"])
    groups, ids = columns.get("group", [""] * n), columns.get("id", [""] * n)
    return sorted({name for s, g, i in zip(slides, groups, ids, strict=True) for name in ({s, g} - {""} or {i})})


def patient(name: str) -> str:
    """Whose slide this is: the TCGA patient where the name holds a barcode, else the bare name without folder and ending."""
    found = BARCODE.search(str(name))
    return found[0].upper() if found else Path(str(name)).name.split(".")[0]


def taught_and_tested(slides: Iterable[str], table: Any) -> list[str]:
    """The patients of a dataset's table (group, slide, id) whose slides a model was distilled on, sorted."""
    taught = {patient(s) for s in slides} - {""}
    known = {c: np.unique(table[c], return_inverse=True) for c in ("group", "slide", "id") if c in table}
    met = np.zeros(len(next(iter(known.values()))[1]) if known else 0, bool)
    for values, code in known.values():
        met |= np.array([patient(v) in taught for v in values.tolist()])[code]
    whose = next((v[code[met]] for v, code in known.values() if (v != "").any()), np.empty(0, str))
    return sorted({patient(v) for v in np.unique(whose).tolist()} - {""})


def of_student(card: Any, table: Any, dataset: str) -> list[str]:
    """What a student's own list says about the patients of a dataset; empty for a model without one."""
    slides, name = distilled_on(card), plain(card).get("name")
    if slides is None:
        return []
    common = taught_and_tested(slides, table)
    if not common:
        return [f"None of {dataset}'s patients is among those that {name} was distilled on."]
    some = ", ".join(common[:3]) + (" …" if len(common) > 3 else "")
    return [
        f"LEAK: {name} was distilled on slides of {len(common)} of {dataset}'s patients ({some}). Distil again with --exclude, or leave them out of the test."
    ]


def folds_gap(records: Iterable[dict[str, Any]], models: Mapping[str, str], benchmarks: Iterable[str], groups_of: Any) -> list[dict[str, Any]]:  # fmt: skip
    """Scores with folds of rows (paper) and of patients (grouped) side by side; gap = paper - grouped.

    Args:
        models: how each model was asked for, under its name in the records.

    Raises:
        MissingError: naming the commands that make the records which are not there.
    """
    from .compare import asked, of_model, predictions

    records = list(records)
    rows, missing = [], []
    for name in benchmarks:
        for model in models:
            own = [r for r in of_model(records, model) if r["benchmark"].get("name") == name]
            found = [(p, g) for p in own for g in own if (_folds(p), _folds(g)) == ("paper", "grouped") and _same(p, g)]
            if not found:
                there = {_folds(r) for r in own}
                need = [f for f in ("paper", "grouped") if f not in there] or ["paper", "grouped"]
                missing += [f"bench run --model {asked(model, models)} --benchmark {name} --folds {f}" for f in need]
            for p, g in found:
                metric = str(p["benchmark"].get("metric"))
                a, b = (r["scores"][metric] for r in (p, g))
                low = high = None
                of_p, of_g = (predictions(r, metric, groups_of) for r in (p, g))
                if isinstance(of_p, dict) and isinstance(of_g, dict) and "tiles" not in of_p:
                    low, high = map(record.finite, paired.bootstrap(metric, of_p, of_g, n=1000))
                gap = None if None in (a["mean"], b["mean"]) else a["mean"] - b["mean"]
                sure = low is not None and high is not None and not low <= 0 <= high
                rows.append(
                    {
                        "model": model,
                        "benchmark": name,
                        "metric": metric,
                        "paper": a["mean"],
                        "paper_std": a["std"],
                        "grouped": b["mean"],
                        "grouped_std": b["std"],
                        "gap": gap,
                        "low": low,
                        "high": high,
                        "patients_shared": sure,
                    }  # fmt: skip
                )
    if missing and not rows:
        raise MissingError(
            "The gap needs records with folds=paper and folds=grouped. Make them:\n  " + "\n  ".join(missing)
        )
    return rows


def _folds(r: Mapping[str, Any]) -> Any:
    return (r["protocol"].get("options") or {}).get("folds")


def _same(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Whether two records of one model differ in their folds alone."""

    def facts(r: Mapping[str, Any]) -> Any:
        options = {k: v for k, v in (r["protocol"].get("options") or {}).items() if k != "folds"}
        return r["model"].get("fingerprint"), r["protocol"].get("name"), options, r["dataset"].get("fingerprint"), r.get("readout")  # fmt: skip

    return facts(a) == facts(b)


def _seen(model: Any) -> set[str]:
    m = plain(model)
    own = [*(m.get("seen") or ("unknown",)), *((m.get("distilled") or {}).get("seen") or ())]
    return {str(s).lower() for s in own}


def _stated(dataset: Any) -> list[str]:
    return [str(s).lower() for s in plain(dataset).get("sources") or ()]


def _sources(dataset: Any) -> list[str]:
    """Where images come from, the dataset's own name among them."""
    return [*_stated(dataset), str(plain(dataset).get("name", "")).lower()]


def _within(part: str, whole: str) -> bool:
    return bool(part) and (part == whole or part.startswith(f"{whole}-"))
