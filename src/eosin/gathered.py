"""What a report is made of: models, columns and cells, from records and from published values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from typing import Any

from .card import fingerprint
from .leaderboard import folds_of, long_rows, place, real


@dataclass
class Model:
    """One model, measured at one fingerprint or as a paper printed it."""

    name: str
    label: str
    source: str
    fingerprint: str = ""
    card: Mapping[str, Any] = field(default_factory=dict)
    costs: dict[str, set[tuple[str, float, float]]] = field(default_factory=dict)
    memory: float | None = None

    @property
    def short(self) -> str:
        """As figures call it, where a ring says already that a paper printed it."""
        return self.label if self.source == "measured" else self.name

    @property
    def params(self) -> int | None:
        return self.card.get("params") or None

    @property
    def rate(self) -> dict[str, float]:
        """Tiles a second on each device: all tiles over all seconds, as the leaderboard has it."""
        return {
            device: sum(tiles for _, tiles, _ in found) / sum(seconds for *_, seconds in found)
            for device, found in self.costs.items()
        }


@dataclass
class Column:
    """One question: a benchmark under one protocol, with one set of options, on one set of rows.

    A column that only papers fill has no fingerprint; `asked` is its readout.
    """

    benchmark: str
    protocol: str
    metric: str
    folds: str = ""
    against: str = ""
    fingerprint: str = ""
    asked: str = ""
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
        return self._by_column.get(column, [])

    @cached_property
    def _by_column(self) -> dict[int, list[Cell]]:
        """Made when all cells are there."""
        by: dict[int, list[Cell]] = {}
        for cell in self.cells:
            by.setdefault(cell.column, []).append(cell)
        return by

    @cached_property
    def places(self) -> dict[str, int]:
        """Model name -> its place by number of cells: what has most comes first, and keeps its colour in every figure."""
        counts: dict[str, int] = {}
        for cell in self.cells:
            name = self.models[cell.model].name
            counts[name] = counts.get(name, 0) + 1
        return {name: i for i, name in enumerate(sorted(counts, key=lambda n: -counts[n]))}


def unsound(record: Mapping[str, Any]) -> str:
    """Why a record that could be read cannot be shown; "" for a sound one."""
    for part, key in (("model", "name"), ("benchmark", "name"), ("benchmark", "metric"), ("protocol", "name")):
        if not isinstance(record[part].get(key), str) or not record[part][key]:
            return f"{part}.{key} is not text"
    for metric, s in record["scores"].items():
        if not isinstance(s, dict) or not isinstance(s.get("values"), list):
            return f"scores.{metric} has no values"
        for number in (*(s.get(k) for k in ("mean", "std", "low", "high")), *s["values"]):
            if number is not None and real(number) is None:
                return f"scores.{metric} holds {number!r}, which is not a number"
    if record["benchmark"]["metric"] not in record["scores"]:
        return f"scores lack {record['benchmark']['metric']}, the metric of the benchmark"
    if not isinstance(record["protocol"].get("options") or {}, dict):
        return "protocol.options is not a mapping"
    return ""


def gather(
    records: Iterable[Mapping[str, Any]],
    published: Iterable[dict[str, Any]] = (),
    names: Any = None,
    cards: Mapping[str, Any] | None = None,
) -> Gathered:
    """Records and published values as one table of cells.

    A published value stands in the column where `leaderboard.place` has it. Two records of one address that differ are
    both kept, as two rows.

    Args:
        records: sound ones; see `unsound`. published: rows of `published.rows`; names: `published.Names`.
        cards: model name -> card, for models that only papers measured.
    """
    records, published = list(records), list(published)
    found, models, columns = Gathered(), _Numbers(), _Numbers()
    taken: dict[tuple[Any, ...], Any] = {}
    for r in records:
        column = columns.of(found.columns, _column_key(r), _column(r))
        name, mark, scores = r["model"]["name"], str(r["model"].get("fingerprint") or ""), r["scores"]
        copy = next(c for c in count() if taken.get((name, mark, c, column), scores) == scores)
        known = (name, mark, copy, column) in taken
        taken[name, mark, copy, column] = scores
        model = models.of(found.models, (name, mark, copy), Model(name, name, "measured", mark, r["model"]))
        _add_costs(found.models[model], r)
        if not known:
            found.cells.append(Cell(model, column, dict(scores), r))
    if published:
        _add_published(found, records, published, names, cards or {})
    _label(found.models)
    return found


class _Numbers(dict):
    """The place of each key in a list that grows."""

    def of(self, things: list[Any], key: tuple[Any, ...], thing: Any) -> int:
        if key not in self:
            self[key] = len(things)
            things.append(thing)
        return self[key]


def _rule(folds: Any) -> str:
    """How folds are made (paper, grouped, site); where the option is their number, no word on it."""
    return folds if isinstance(folds, str) and not folds.isdigit() else ""


def _column_key(r: Mapping[str, Any]) -> tuple[str, ...]:
    mark = r["benchmark"].get("fingerprint") or fingerprint(r["protocol"].get("options"))
    return (r["benchmark"]["name"], r["protocol"]["name"], str(mark))


def _column(r: Mapping[str, Any]) -> Column:
    options = r["protocol"].get("options") or {}
    return Column(
        benchmark=r["benchmark"]["name"],
        protocol=r["protocol"]["name"],
        metric=r["benchmark"]["metric"],
        folds=_rule(folds_of(options)),
        against=str(r.get("against") or "").split("@")[0],
        fingerprint=str(r["benchmark"].get("fingerprint") or ""),
        better="lower" if r["benchmark"].get("better") == "lower" else "higher",
        options=options,
        card=r["benchmark"],
        dataset=r["dataset"],
    )


def _add_costs(model: Model, r: Mapping[str, Any]) -> None:
    held = real(r.get("peak_memory_mb"))
    model.memory = held if model.memory is None or held is None else max(held, model.memory)
    for entry in r.get("embed") or []:
        tiles, seconds = (real(entry.get(k)) if isinstance(entry, dict) else None for k in ("tiles", "seconds"))
        if tiles and seconds:  # several records keep the cost of one run
            device = str(entry.get("device_name") or entry.get("device") or "?")
            model.costs.setdefault(device, set()).add((str(entry.get("address")), tiles, seconds))


def _add_published(
    found: Gathered, records: list[Mapping[str, Any]], rows: list[dict[str, Any]], names: Any, cards: Mapping[str, Any]
) -> None:
    """Each printed value in the column where the leaderboard has it; averages, which are of several, in none."""
    rows = [r for r in rows if not r.get("average")]
    place([*long_rows(list(map(dict, records))), *rows], names)
    measured = {(c.benchmark, c.protocol, c.fingerprint): i for i, c in enumerate(found.columns)}
    models, columns, cells = _Numbers(), _Numbers(), dict[tuple[int, int], Cell]()
    for r in sorted(rows, key=lambda r: not r["primary"]):
        column = measured.get((r["benchmark"], r["protocol"], r["column"][-1]))
        if column is None or r["column"][0] == "published":
            own = (r["benchmark"], r["protocol"], _rule(r["folds"]), r["against"], r["asked"])
            column = columns.of(
                found.columns,
                own,
                Column(*own[:2], r["metric"], *own[2:4], asked=own[4], better=r.get("better") or "higher"),
            )
        name, source = r["model"], " ".join(str(r[k]) for k in ("paper", "date") if r.get(k)) or "published"
        model = models.of(found.models, (name, source), Model(name, name, source, card=cards.get(name, {})))
        cell = cells.get((model, column))
        if cell is None:
            cell = cells[model, column] = Cell(model, column, {})
            found.cells.append(cell)
        if r["metric"] not in cell.scores:
            cell.scores[r["metric"]] = {**{k: r[k] for k in ("mean", "std", "low", "high")}, "values": []}
            cell.printed.append(r)


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
