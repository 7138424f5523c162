"""A paper's table in its own layout: what it prints, what was measured here, and the difference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from . import published
from .errors import UsageError
from .leaderboard import place
from .tables import Cell, Table

LAYOUT = ("suite", "table", "paper", "axis", "kind", "key", "printed", "beside", "section")
Numbers = tuple[dict[str, Any] | None, dict[str, Any] | None]  # the row that was printed, the row that was measured


@dataclass(frozen=True)
class Line:
    """A row or column of a layout: what stands there, and how the paper heads it."""

    kind: str
    key: str
    printed: str
    beside: str
    section: str

    @property
    def head(self) -> str:
        return f"{self.printed} ({self.beside})" if self.beside not in ("", "-") else self.printed


def layouts(catalogue: Any) -> dict[tuple[str, str], list[dict[str, str]]]:
    """(suite, table) -> the lines of its layout."""
    found: dict[tuple[str, str], list[dict[str, str]]] = {}
    for row in published.files(catalogue, LAYOUT):
        found.setdefault((row["suite"], row["table"]), []).append(row)
    return found


def reproduce(
    catalogue: Any, suites: tuple[str, ...], table: str, measured: list[dict[str, Any]]
) -> tuple[Table, list[dict[str, Any]]]:
    """The table, and a dict a cell: row, column, printed, spread, measured, std, difference (measured less printed).

    Measured numbers are those that may stand in one column with the printed ones: the same protocol, options, folds,
    readout, metric and partner. Best and second are marked as the printed numbers have it, whatever the paper marks.

    Args:
        suites: which layouts to look among. measured: rows of `leaderboard.long_rows`.

    Raises:
        UsageError: no such table, or several.
    """
    known = layouts(catalogue)
    fitting = [k for k in known if k[1] == table and (not suites or k[0] in suites)]
    if len(fitting) != 1:
        raise UsageError(
            f"--reproduce {table}: name one of "
            + "; ".join(f"--suite {s} --reproduce {t}" for s, t in known)
            + "; or --reproduce claims."
        )
    layout = known[fitting[0]]
    names = published.Names(catalogue)
    printed = [r for r in published.rows(catalogue) if (r["paper"], r["table"]) == (layout[0]["paper"], table)]
    place([*measured, *printed], names)
    down, across = (
        [Line(r["kind"], r["key"], r["printed"], r["beside"], r["section"]) for r in layout if r["axis"] == axis]
        for axis in ("row", "column")
    )
    numbers = _numbers(down, across, printed, measured, names)
    models_down = any(d.kind == "model" for d in down)
    top = "Model" if models_down else "Benchmark"
    out = Table([top, *(c.head for c in across)], title=f"{layout[0]['paper']}, {table}: printed, and measured here")
    for i, line in enumerate(down):
        if line.section and (i == 0 or line.section != down[i - 1].section):
            out.sections[i] = line.section
        out.rows.append([Cell(line.head), *(_cell(*numbers[i, j], out) for j in range(len(across)))])
    _mark(out, numbers, range(len(down)), range(len(across)), models_down)
    out.note("Below each printed number: measured here (its difference); – where nothing was measured.")
    cells = [_record(down[i], across[j], *pair) for (i, j), pair in numbers.items()]
    return out, cells


def _numbers(
    down: list[Line], across: list[Line], printed: list[dict[str, Any]], measured: list[dict[str, Any]], names: Any
) -> dict[tuple[int, int], Numbers]:
    here = _here(measured)
    by_name = {(_who(r), r["printed_benchmark"], r["metric"]): r for r in reversed(printed)}
    numbers: dict[tuple[int, int], Numbers] = {}
    for i, a in enumerate(down):
        for j, b in enumerate(across):
            model, what = (a, b) if a.kind == "model" else (b, a)
            benchmark, _, metric = what.key.partition(":")
            found = next((f for m in model.key.split("|") if (f := by_name.get((m, benchmark, metric)))), None)
            numbers[i, j] = (found, None if found is None else _ours(found, printed, here, names))
    return numbers


def _here(measured: list[dict[str, Any]]) -> dict[tuple[str, Any], list[dict[str, Any]]]:
    here: dict[tuple[str, Any], list[dict[str, Any]]] = {}
    for r in measured:
        here.setdefault((_who(r), r["column"]), []).append(r)
    return here


def _ours(r: dict[str, Any], printed: list[dict[str, Any]], here: Any, names: Any) -> dict[str, Any] | None:
    """What was measured of a printed number; of a printed mean, the mean of its parts if each was measured, once."""
    if not r["average"]:
        found = here.get((_who(r), r["column"]), [])
        return found[0] if len(found) == 1 else _several(found)
    members = names.averages[r["printed_benchmark"]]
    parts = [p for p in printed if _who(p) == _who(r) and p["printed_benchmark"] in members]
    ours = [here.get((_who(p), p["column"]), []) for p in parts]
    if not ours or len(ours) < len(members) or any(len(o) != 1 or o[0]["mean"] is None for o in ours):
        return None
    return {"mean": sum(o[0]["mean"] for o in ours) / len(ours), "std": None}


def _several(ours: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Several measured rows may stand here (two copies of weights, two records that differ): all are shown."""
    return {"mean": None, "std": None, "several": [r["mean"] for r in ours]} if ours else None


def _who(r: dict[str, Any]) -> str:
    return f"{r['model']} against {r['against']}" if r["against"] else str(r["model"])


@dataclass
class Figures:
    """The numbers of one table: (benchmark, metric) -> model -> number; and how many models the paper has there."""

    numbers: dict[tuple[str, str], dict[str, float]]
    printed: dict[str, int]

    def models(self, benchmark: str) -> int:
        return min(self.printed.get(b, 0) for b in benchmark.split("+"))


def figures(printed: list[dict[str, Any]], measured: list[dict[str, Any]], names: Any) -> tuple[Figures, Figures]:
    """The numbers of a printed table, and those measured that may stand beside them. Rows have a `column` (`place`)."""
    here = _here(measured)
    theirs: dict[tuple[str, str], dict[str, float]] = {}
    ours: dict[tuple[str, str], dict[str, float]] = {}
    for r in printed:
        key = (r["printed_benchmark"], r["metric"])
        theirs.setdefault(key, {})[_who(r)] = r["mean"]
        found = _ours(r, printed, here, names)
        if found is not None and found["mean"] is not None:
            ours.setdefault(key, {})[_who(r)] = found["mean"]
    count = {b: len(models) for (b, _), models in theirs.items()}
    return Figures(theirs, count), Figures(ours, count)


def _cell(printed: dict[str, Any] | None, measured: dict[str, Any] | None, table: Table) -> Cell:
    if printed is None:
        return Cell()
    notes = (table.note(printed["note"]),) if printed["note"] else ()
    below, digits = "–", _digits(printed)
    if measured is not None and measured.get("several"):
        below = " or ".join("–" if v is None else f"{v:.{digits}f}" for v in measured["several"])
    elif measured is not None and measured["mean"] is not None:
        spread = "" if measured["std"] is None else f" ± {measured['std']:.{digits}f}"
        gap = f"{measured['mean'] - printed['mean']:+.{digits}f}".replace("-", "−")
        below = f"{measured['mean']:.{digits}f}{spread} ({gap})"
    return Cell(printed["printed"], notes=notes, below=below, number=printed["mean"], std=printed["std"])


def _digits(printed: dict[str, Any]) -> int:
    return len(printed["printed"].split()[0].partition(".")[2])


def _mark(table: Table, numbers: dict[tuple[int, int], Numbers], down: range, across: range, models_down: bool) -> None:
    """Best and second among the models of each benchmark, by the printed numbers; of equal second ones, all."""
    for what in across if models_down else down:
        cells = [(i, what) for i in down] if models_down else [(what, j) for j in across]
        values = {c: numbers[c][0]["mean"] for c in cells if numbers[c][0] is not None}  # type: ignore[index]
        order = sorted(set(values.values()), reverse=True)
        top = [c for c, v in values.items() if v == order[0]]
        for (i, j), v in values.items():
            second = len(top) == 1 and len(order) > 1 and v == order[1]
            table.rows[i][j + 1].mark = "best" if v == order[0] else "second" if second else ""


def _record(a: Line, b: Line, printed: dict[str, Any] | None, measured: dict[str, Any] | None) -> dict[str, Any]:
    ours = None if measured is None else measured["mean"]
    return {
        "row": a.printed,
        "column": b.printed,
        "section": a.section or b.section,
        "model": None if printed is None else _who(printed),
        "benchmark": None if printed is None else printed["benchmark"],
        "metric": None if printed is None else printed["metric"],
        "printed": None if printed is None else printed["mean"],
        "spread": None if printed is None else printed["spread"],
        "measured": ours,
        "std": None if measured is None else measured["std"],
        "difference": None if printed is None or ours is None else ours - printed["mean"],
        "note": "" if printed is None else printed["note"],
    }
