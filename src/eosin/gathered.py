"""What a report is made of: models, columns and cells, from records and from published values."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from itertools import count
from dataclasses import dataclass, field
from typing import Any

from .card import fingerprint

FEW = 64  # an embedding of fewer tiles says more of starting than of going


@dataclass
class Model:
    """One model, measured at one fingerprint or as a paper printed it."""

    name: str
    label: str
    source: str
    fingerprint: str = ""
    card: Mapping[str, Any] = field(default_factory=dict)
    rates: dict[str, list[float]] = field(default_factory=dict)

    @property
    def params(self) -> int | None:
        return self.card.get("params") or None

    @property
    def rate(self) -> dict[str, float]:
        """Tiles a second on each device: the median over embeddings."""
        return {device: statistics.median(found) for device, found in self.rates.items()}


@dataclass
class Column:
    """One question: a benchmark under one protocol, with one set of options, on one set of rows."""

    benchmark: str
    protocol: str
    metric: str
    folds: str = ""
    against: str = ""
    fingerprint: str = ""
    better: str = "higher"
    options: Mapping[str, Any] = field(default_factory=dict)
    card: Mapping[str, Any] = field(default_factory=dict)
    dataset: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Cell:
    """The scores of a model in a column; `record` as it was read, or `printed`, the rows of a paper."""

    model: int
    column: int
    scores: dict[str, dict[str, Any]]
    record: Mapping[str, Any] | None = None
    printed: list[Mapping[str, Any]] = field(default_factory=list)

    def mean(self, metric: str) -> float | None:
        return self.scores.get(metric, {}).get("mean")


@dataclass
class Gathered:
    models: list[Model] = field(default_factory=list)
    columns: list[Column] = field(default_factory=list)
    cells: list[Cell] = field(default_factory=list)

    def of(self, column: int) -> list[Cell]:
        return [c for c in self.cells if c.column == column]


def unsound(record: Mapping[str, Any]) -> str:
    """Why a record that could be read cannot be shown; "" for a sound one."""
    for part, key in (("model", "name"), ("benchmark", "name"), ("benchmark", "metric"), ("protocol", "name")):
        if not isinstance(record[part].get(key), str) or not record[part][key]:
            return f"{part}.{key} is not text"
    for metric, s in record["scores"].items():
        if not isinstance(s, dict) or not isinstance(s.get("values"), list):
            return f"scores.{metric} has no values"
        for number in (*(s.get(k) for k in ("mean", "std", "low", "high")), *s["values"]):
            if number is not None and not _is_number(number):
                return f"scores.{metric} holds {number!r}, which is not a number"
    if record["benchmark"]["metric"] not in record["scores"]:
        return f"scores lack {record['benchmark']['metric']}, the metric of the benchmark"
    if not isinstance(record["protocol"].get("options") or {}, dict):
        return "protocol.options is not a mapping"
    return ""


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def gather(
    records: Iterable[Mapping[str, Any]],
    published: Iterable[Mapping[str, Any]] = (),
    cards: Mapping[str, Any] | None = None,
) -> Gathered:
    """Records and published values as one table of cells.

    A published value stands in the column of its benchmark and protocol as the papers ran it (folds `paper`, where the
    protocol has such), and in one of its own where nothing was measured so. Two records of one address that differ are
    both kept, as two rows.

    Args:
        published: rows of `published.rows`. cards: model name -> card, for models that only papers measured.
    """
    found, models, columns = Gathered(), _Numbers(), _Numbers()
    taken: dict[tuple[Any, ...], str] = {}
    for r in records:
        column = columns.of(found.columns, _column_key(r), _column(r))
        name, mark, state = r["model"]["name"], str(r["model"].get("fingerprint") or ""), fingerprint(r["scores"])
        copy = next(c for c in count() if taken.get((name, mark, c, column), state) == state)
        known = (name, mark, copy, column) in taken
        taken[name, mark, copy, column] = state
        model = models.of(found.models, (name, mark, copy), Model(name, name, "measured", mark, r["model"]))
        _add_rates(found.models[model], r)
        if not known:
            found.cells.append(Cell(model, column, dict(r["scores"]), r))
    _add_published(found, published, cards or {})
    _label(found.models)
    return found


class _Numbers(dict):
    """The place of each key in a list that grows."""

    def of(self, things: list[Any], key: tuple[Any, ...], thing: Any) -> int:
        if key not in self:
            self[key] = len(things)
            things.append(thing)
        return self[key]


def _column_key(r: Mapping[str, Any]) -> tuple[str, ...]:
    mark = r["benchmark"].get("fingerprint") or fingerprint(r["protocol"].get("options"))
    return (r["benchmark"]["name"], r["protocol"]["name"], str(mark))


def _column(r: Mapping[str, Any]) -> Column:
    options = r["protocol"].get("options") or {}
    return Column(
        benchmark=r["benchmark"]["name"],
        protocol=r["protocol"]["name"],
        metric=r["benchmark"]["metric"],
        folds=str(options.get("folds") or ""),
        against=str(r.get("against") or "").split("@")[0],
        fingerprint=str(r["benchmark"].get("fingerprint") or ""),
        better="lower" if r["benchmark"].get("better") == "lower" else "higher",
        options=options,
        card=r["benchmark"],
        dataset=r["dataset"],
    )


def _add_rates(model: Model, r: Mapping[str, Any]) -> None:
    for entry in r.get("embed") or []:
        if isinstance(entry, dict) and _is_number(entry.get("tiles_per_second")) and (entry.get("tiles") or 0) >= FEW:
            device = str(entry.get("device_name") or entry.get("device") or "?")
            model.rates.setdefault(device, []).append(float(entry["tiles_per_second"]))


def _add_published(found: Gathered, rows: Iterable[Mapping[str, Any]], cards: Mapping[str, Any]) -> None:
    models, columns, cells = _Numbers(), _Numbers(), {}
    for row in rows:
        key = (row["benchmark"], row["protocol"])
        column = _like(found.columns, *key)
        if column is None:
            column = columns.of(found.columns, key, Column(row["benchmark"], row["protocol"], row["metric"], "paper"))
        name, source = str(row["model"]), _source(row)
        model = models.of(found.models, (name, source), Model(name, name, source, card=cards.get(name, {})))
        if (model, column) not in cells:
            cells[model, column] = Cell(model, column, {})
            found.cells.append(cells[model, column])
        summary = {k: row.get(k) for k in ("mean", "std", "low", "high")}
        cells[model, column].scores[str(row["metric"]).removesuffix("_median")] = {**summary, "values": []}
        cells[model, column].printed.append(row)
    for column in columns.values():  # a column that only papers fill has its first metric as the primary one
        found.columns[column].metric = found.columns[column].metric.removesuffix("_median")


def _source(row: Mapping[str, Any]) -> str:
    said = [str(row.get(k)) for k in ("paper", "date") if row.get(k)]
    return " ".join(said) or "published"


def _like(columns: list[Column], benchmark: str, protocol: str) -> int | None:
    """The measured column that a paper's value of this benchmark and protocol belongs to, if exactly one does."""
    same = [i for i, c in enumerate(columns) if (c.benchmark, c.protocol) == (benchmark, protocol) and c.fingerprint]
    as_printed = [i for i in same if columns[i].folds in ("", "paper", "0")]
    return as_printed[0] if len(as_printed) == 1 else None


def _label(models: list[Model]) -> None:
    """A name that no other row has: with the fingerprint or the source where it needs one."""
    measured = [m.name for m in models if m.source == "measured"]
    for m in models:
        if m.source != "measured":
            m.label = f"{m.name} ({m.source})"
        elif measured.count(m.name) > 1:
            m.label = f"{m.name}@{m.fingerprint[:6]}"
    seen: dict[str, int] = {}
    for m in models:
        seen[m.label] = seen.get(m.label, 0) + 1
        m.label += f" #{seen[m.label]}" if seen[m.label] > 1 else ""
