"""What the page of a report shows, as JSON holds it: models, columns, cells, and each text once."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from .gathered import Cell, Column, Gathered, Model
from .leakage import mark, overlap

MOST_VALUES = 32  # folds or seeds that are carried into the file; of more only the summary
DIGITS = 5
ORIGIN = ("readout", "rows", "majority guess", "training data", "seconds", "made")  # what is said of a record
LEAKS = {
    "seen": "the model was trained on these images, or on their source",
    "part": "the model was trained on some of these images, or on their source",
    "none": "not of this source",
    "unknown": "not known",
}
PRINTED = ("paper", "table", "date", "readout", "spread_kind")  # and of a printed value


def payload(
    found: Gathered,
    suites: Mapping[str, Sequence[str]],
    commands: Mapping[str, Mapping[str, Any]],
    models: Collection[str] | None = None,
) -> Any:
    """What the script shows, as JSON holds it; a text that many records share stands there once."""
    texts, metrics, environments, summaries = _Once(), _Once(), _Once(), list[Any]()
    cells = []
    for cell in found.cells:
        record = cell.record or {}
        environment = None
        if record.get("environment"):
            environment = environments.of(json.dumps(record["environment"], sort_keys=True, default=str))
            if environment == len(summaries):
                summaries.append(_environment(record["environment"]))
        scores = [[metrics.of(m), *_numbers(s)] for m, s in cell.scores.items()]
        cells.append([cell.model, cell.column, scores, [*_run(cell, texts), environment]])
    counts = [0] * len(found.columns)
    for cell in found.cells:
        counts[cell.column] += 1
    titles = _titles(found.columns)
    present = {c.benchmark for c in found.columns}
    return {
        "models": [_model(m, models) for m in found.models],
        "columns": [_column(c, titles[i], counts[i], commands.get(c.benchmark)) for i, c in enumerate(found.columns)],
        "cells": cells,
        "texts": list(texts),
        "metrics": list(metrics),
        "facts": [*ORIGIN, *PRINTED],
        "environments": summaries,
        "suites": {name: list(of) for name, of in suites.items() if present & set(of)},
    }


class _Once(dict):
    """Texts in the order in which they came, each once."""

    def of(self, text: Any) -> int:
        return self.setdefault(str(text), len(self))


def _titles(columns: Sequence[Column]) -> list[str]:
    """A name a column that no other has."""
    titles = [
        c.benchmark
        + (f" against {c.against}" if c.against else "")
        + (f" ({c.folds} folds)" if c.folds and c.folds not in ("paper", "0") else "")
        for c in columns
    ]
    for tell in (
        lambda c: f" {c.protocol}",
        lambda c: "" if c.fingerprint else " [published]",
        lambda c: f" of {c.asked}" if c.asked else "",
        lambda c: f" [{c.fingerprint[:6]}]" if c.fingerprint else "",
    ):
        groups = {t: [i for i, u in enumerate(titles) if u == t] for t in titles}
        for group in groups.values():
            if len({tell(columns[i]) for i in group}) > 1:
                for i in group:
                    titles[i] += tell(columns[i])
    return titles


def _numbers(s: Mapping[str, Any]) -> list[Any]:
    """mean, std, low, high, values, how many values there were."""
    values = s.get("values") or []
    kept = [_round(v, 4) for v in values] if len(values) <= MOST_VALUES else []
    mean = s.get("mean")  # whole, so that it is shown as elsewhere, to the last digit
    whole = mean if mean is not None and math.isfinite(mean) else None
    return [whole, *(_round(s.get(k)) for k in ("std", "low", "high")), kept, len(values)]


def _round(value: Any, digits: int = DIGITS) -> float | None:
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.{digits}g}")


def _model(m: Model, known: Collection[str] | None) -> dict[str, Any]:
    card = m.card
    return {
        "label": m.label,
        "name": m.name,
        "source": m.source,
        "fingerprint": m.fingerprint,
        "params": m.params,
        "gflops": card.get("gflops"),
        "rates": sorted(([d, _round(r)] for d, r in m.rate.items()), key=lambda pair: -(pair[1] or 0)),
        "memory": m.memory,
        "licence": str(card.get("licence") or ""),
        "seen": ", ".join(map(str, card.get("seen") or [])),
        "command": f"bench run --model {_model_word(card, m.name, known)}",
    }


def _model_word(card: Mapping[str, Any], name: str, known: Collection[str] | None) -> str:
    """How a model is asked for; one that no catalogue lists by the card that whoever repeats it must have."""
    if card.get("precomputed"):
        return "precomputed:DIR"
    if (card.get("options") or {}).get("shorthand"):
        return shlex.quote(f"{card.get('kind')}:{card.get('arch')}")
    return shlex.quote(name if known is None or name in known else f"path/to/{name}.yaml")


def _column(c: Column, title: str, models: int, own: Mapping[str, Any] | None) -> dict[str, Any]:
    dataset, classes = c.dataset, c.dataset.get("classes") or []
    rows = dataset.get("rows")
    facts = [
        ("benchmark", str(c.card.get("title") or "")),
        ("about", str(c.card.get("description") or "")),
        ("paper", str(c.card.get("paper") or "")),
        ("dataset", " ".join(str(x) for x in (dataset.get("title") or dataset.get("name"), dataset.get("fingerprint")) if x)),
        ("rows", f"{rows:,}" if isinstance(rows, int) else ""),
        ("classes", ", ".join(map(str, classes))),
        ("data licence", str(dataset.get("licence") or "")),
        ("protocol", c.protocol),
        ("options", ", ".join(f"{k} = {_plain(v)}" for k, v in c.options.items())),
    ]  # fmt: skip
    return {
        "benchmark": c.benchmark,
        "title": title,
        "protocol": c.protocol,
        "metric": c.metric,
        "folds": c.folds,
        "fingerprint": c.fingerprint,
        "better": c.better,
        "models": models,
        "facts": [[k, v] for k, v in facts if v],
        "command": repeat(c, own),
    }


def repeat(c: Column, own: Mapping[str, Any] | None) -> str:
    """The part of a command that asks this column's question: the benchmark and every option that it has not by itself.

    Args:
        own: the options that the benchmark has by itself; None where it is not installed: all are named.
    """
    words = ["", "--benchmark", c.benchmark]
    for name, value in c.options.items():
        if value is not None and (own is None or own.get(name) != value):
            words += ["--option", f"{name}={_plain(value)}"]
    if c.against:
        words += ["--against", c.against]
    return " ".join(shlex.quote(w) if w else "" for w in words)


def _plain(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _run(cell: Cell, texts: _Once) -> list[Any]:
    """Whether the model has seen the data, notes, how each interval was made, and origin, by their places among the texts."""
    if cell.record is None:
        notes = dict.fromkeys(str(row["note"]) for row in cell.printed if row.get("note"))
        first = cell.printed[0]
        return [
            0,
            [texts.of(t) for t in notes],
            [],
            [*[None] * len(ORIGIN), *(_place(first.get(k), texts) for k in PRINTED)],
        ]
    r = cell.record
    warnings = [w.get("message", "") if isinstance(w, dict) else w for w in r["dataset"].get("warnings") or []]
    reasons = [f"{metric}: {why}" for metric, why in (r.get("reasons") or {}).items()]
    majority = (r.get("floor") or {}).get("majority") or {}
    state, marks = _leak(r)
    notes = dict.fromkeys(str(t) for t in [*marks, *(r.get("notes") or []), *warnings, *reasons] if t)
    origin = {
        "readout": ", ".join(str(v) for v in (r.get("readout") or {}).values()),
        "rows": _rows(r["dataset"]),
        "majority guess": ", ".join(f"{m} {v:.3f}" for m, v in majority.items() if isinstance(v, (int, float))),
        "training data": LEAKS[state],
        "seconds": ", ".join(f"{k} {v}" for k, v in (r.get("seconds") or {}).items()),
        "made": str(r.get("created") or ""),
    }
    how = r.get("intervals") or {}
    return [
        int(state in ("seen", "part")),
        [texts.of(t) for t in notes],
        [_place(how.get(m), texts) for m in cell.scores],
        [_place(origin[k], texts) for k in ORIGIN],
    ]


def _leak(r: Mapping[str, Any]) -> tuple[str, list[str]]:
    """What `leakage.overlap` says of a record, and the sentences of `leakage.mark` where there is something to fear."""
    model, dataset = r["model"], r["dataset"]
    seen, distilled, sources = model.get("seen"), model.get("distilled"), dataset.get("sources")
    m = {
        "name": model["name"],
        "seen": seen if isinstance(seen, list) else [],
        "distilled": distilled if isinstance(distilled, dict) else {},
    }
    d = {"name": dataset.get("name"), "sources": sources if isinstance(sources, list) else []}
    state = overlap(m, d)
    return state, mark(m, d) if state in ("seen", "part") else []


def _place(text: Any, texts: _Once) -> int | None:
    return texts.of(text) if text else None


def _rows(dataset: Mapping[str, Any]) -> str:
    rows, left = dataset.get("rows"), dataset.get("left_out")
    return f"{rows}" + (f", {left} left out" if left else "") if rows is not None else ""


def _environment(environment: Mapping[str, Any]) -> dict[str, Any]:
    listed = lambda of: ", ".join(f"{k} {v}" for k, v in (of or {}).items()) if isinstance(of, dict) else str(of)  # noqa: E731
    facts = {
        "python": environment.get("python"),
        "platform": environment.get("platform"),
        "versions": listed(environment.get("versions")),
        "plugins": listed(environment.get("plugins")),
        "source": listed(environment.get("source")),
    }
    said = [[k, str(v)] for k, v in facts.items() if v]
    return {
        "summary": ", ".join(str(v) for v in (facts["python"] and f"python {facts['python']}", facts["platform"]) if v),
        "facts": said,
    }
