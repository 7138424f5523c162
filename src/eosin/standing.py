"""The wide table: a row a model, a column a question; best and second, mean, mean rank and wins."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import UsageError
from .leaderboard import Column, place, short
from .tables import Cell, Table

SORTS = ("rank", "mean", "wins", "model", "params")
INCOMPLETE = (
    "Over some of the columns only (so many of all): not comparable with a row that stands in other columns, and below "
    "those that stand in more."
)
EFFICIENCY = ("parameters", "GFLOPs", "tiles/s", "peak MB", "device")


@dataclass
class Row:
    """A model as measured, or as one table published it: what it has in each column (several: they contradict)."""

    model: str
    source: str
    fingerprint: str
    cells: dict[tuple[str, ...], list[dict[str, Any]]] = field(default_factory=dict)
    ranks: dict[tuple[str, ...], float] = field(default_factory=dict)
    wins: int = 0
    mean: float | None = None
    rank: float | None = None


def wide(
    rows: list[dict[str, Any]],
    names: Any = None,
    sort: str = "rank",
    efficiency: Mapping[tuple[str, str], dict[str, Any]] | None = None,
) -> Table:
    """The table of primary metrics.

    Args:
        rows: of `leaderboard.long_rows` and `published.rows`. names: `published.Names`, where rows are published.
        sort: one of SORTS, or a benchmark: models best there first.
        efficiency: `leaderboard.efficiency` (and of published models, under fingerprint "", what cards say).

    Raises:
        UsageError: nothing to sort by of that name.
    """
    rows = [r for r in rows if r["primary"]]
    columns = place(rows, names)
    people = _people(rows)
    marks = {c.key: _rank(c, people) for c in columns}
    summed = len(columns) > 1
    _sum_up(columns, people)
    _sort(people, columns, sort, efficiency or {})
    several = any(p.source != "measured" for p in people)
    table = Table(["model", *["source"] * several, *(c.title for c in columns)])
    table.head += ["mean", "mean rank", "wins", "columns"] if summed else []
    table.head += EFFICIENCY if efficiency is not None else ()
    if any(c.majority is not None for c in columns):
        floor = [Cell() if c.majority is None else _number(c.majority, c.digits) for c in columns]
        rest = len(table.head) - 1 - several - len(columns)
        table.rows.append([Cell("majority"), *[Cell("floor")] * several, *floor, *[Cell("")] * rest])
    prints: dict[str, list[str]] = {}
    for p in people:
        prints.setdefault(p.model, []).extend([p.fingerprint] * (p.source == "measured"))
    for p in people:
        alike = p.source == "measured" and len(prints[p.model]) > 1
        name = f"{p.model}@{short(p.fingerprint, prints[p.model])}" if alike else p.model
        cells = [Cell(name), *[Cell(p.source)] * several, *(_cell(p, c, marks[c.key], table) for c in columns)]
        cells += _summary(p, len(columns), table) if summed else []
        cells += _cost((efficiency or {}).get((p.model, p.fingerprint), {})) if efficiency is not None else []
        table.rows.append(cells)
    if summed:
        _explain(columns, table)
    return table


def _people(rows: list[dict[str, Any]]) -> list[Row]:
    people: dict[tuple[str, ...], Row] = {}
    for r in rows:
        measured = r["source"] == "measured"
        source = "measured" if measured else f"{r['paper']} {r['table']}"
        fingerprint = r["address"].split("/")[0] if measured else ""
        who = people.setdefault((r["model"], source, fingerprint), Row(r["model"], source, fingerprint))
        who.cells.setdefault(r["column"], []).append(r)
    return list(people.values())


def _one(p: Row, key: tuple[str, ...]) -> float | None:
    """The number of a cell; None where it is missing, not a number, or contradicted."""
    found = p.cells.get(key, [])
    return found[0]["mean"] if len(found) == 1 else None


def _rank(column: Column, people: list[Row]) -> dict[int, str]:
    """Give each row its rank (ties share the mean of theirs) and its win; id(row) -> best or second.

    Numbers that print alike are equal: a difference that nobody sees is no victory.
    """
    sign = 1 if column.better == "lower" else -1
    entries = [(sign * round(v, column.digits), p) for p in people if (v := _one(p, column.key)) is not None]
    entries.sort(key=lambda e: e[0])
    groups: dict[float, list[Row]] = {}
    for v, p in entries:
        groups.setdefault(v, []).append(p)
    before, marks = 0, {}
    for place_, group in enumerate(groups.values()):
        for p in group:
            p.ranks[column.key] = before + (len(group) + 1) / 2
            p.wins += before == 0 and len(entries) > 1
            if len(entries) > 1 and (place_ == 0 or place_ == 1 and before == 1):
                marks[id(p)] = ("best", "second")[place_]
        before += len(group)
    return marks


def _sum_up(columns: list[Column], people: list[Row]) -> None:
    """Mean and mean rank of each row over the columns that it stands in; no mean where lower is better somewhere."""
    mixed = any(c.better == "lower" for c in columns)
    for p in people:
        values = [v for c in columns if (v := _one(p, c.key)) is not None]
        p.mean = math.fsum(values) / len(values) if values and not mixed else None
        p.rank = math.fsum(p.ranks.values()) / len(p.ranks) if p.ranks else None


def _sort(people: list[Row], columns: list[Column], sort: str, efficiency: Mapping[Any, dict[str, Any]]) -> None:
    """In place; a row that stands in fewer columns comes after those that stand in more, whatever its mean."""
    last = math.inf
    if sort == "model":
        people.sort(key=lambda p: (p.model, p.source))
    elif sort == "params":
        people.sort(key=lambda p: efficiency.get((p.model, p.fingerprint), {}).get("params") or last)
    elif sort == "mean":
        people.sort(key=lambda p: (-len(p.ranks), last if p.mean is None else -p.mean))
    elif sort == "wins":
        people.sort(key=lambda p: (-len(p.ranks), -p.wins, p.rank or last))
    elif sort == "rank":
        people.sort(key=lambda p: (-len(p.ranks), p.rank or last))
    else:
        by = next((c for c in columns if sort in (c.benchmark, c.title)), None)
        if by is None:
            raise UsageError(
                f"--sort {sort}: sort by {', '.join(SORTS)}, or by a benchmark of the table: "
                f"{', '.join(dict.fromkeys(c.benchmark for c in columns)) or 'it has none'}."
            )
        people.sort(key=lambda p: p.ranks.get(by.key, last))


def _number(number: float, digits: int, std: float | None = None) -> Cell:
    spread = "" if std is None else f" ± {std:.{digits}f}"
    return Cell(f"{number:.{digits}f}{spread}", number=number, std=std)


def _cell(p: Row, column: Column, marks: dict[int, str], table: Table) -> Cell:
    found = p.cells.get(column.key)
    if not found:
        return Cell()
    shown = [_shown(r, column) for r in found]
    if len(found) > 1:
        note = table.note("Records of one address that differ: all are shown, none is ranked or averaged.")
        return Cell(" or ".join(c.text for c in shown), notes=(note,))
    cell = shown[0]
    cell.mark = marks.get(id(p), "")
    cell.notes = (table.note(found[0]["note"]),) if found[0]["note"] else ()
    return cell


def _shown(r: dict[str, Any], column: Column) -> Cell:
    if r["mean"] is None:
        return Cell("not a number")
    if r["source"] == "published":
        return Cell(r["printed"], number=r["mean"], std=r["std"])
    return _number(r["mean"], column.digits, r["std"])


def _summary(p: Row, columns: int, table: Table) -> list[Cell]:
    """Mean, mean rank and wins; of a row that misses columns, how many it stands in."""
    some = len(p.ranks)
    count = Cell(f"{some} of {columns}")
    if not some:
        return [Cell(), Cell(), Cell(), count]
    notes = () if some == columns else (table.note(INCOMPLETE),)
    of = "" if some == columns else f" ({some}/{columns})"
    mean = Cell() if p.mean is None else Cell(f"{p.mean:.3f}{of}", notes=notes, number=p.mean)
    rank = Cell(f"{p.rank:.2f}{of}", notes=notes, number=p.rank)
    return [mean, rank, Cell(f"{p.wins}{of}", notes=notes, number=p.wins), count]


def _explain(columns: list[Column], table: Table) -> None:
    metrics = list(dict.fromkeys(c.metric for c in columns))
    if any(c.better == "lower" for c in columns):
        lower = ", ".join(c.title for c in columns if c.better == "lower")
        table.note(f"No mean: less is better in {lower}, and more elsewhere.")
    elif len(metrics) > 1:
        table.note(f"The mean is over different metrics: {', '.join(metrics)}.")


def _cost(facts: dict[str, Any]) -> list[Cell]:
    shown = []
    for key, form in (("params", "{:,.0f}"), ("gflops", "{:.1f}"), ("rate", "{:.1f}"), ("memory", "{:,.0f}")):
        number = facts.get(key)
        shown.append(Cell() if number is None else Cell(form.format(number), number=number))
    return [*shown, Cell(str(facts["device"])) if facts.get("device") else Cell()]
