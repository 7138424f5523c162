"""leaderboard: the command that prints what was measured, what was published, and both."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from . import leaderboard as long
from . import tables
from .cli import Desk, as_recorded, common, folders_of, merged
from .errors import StoreError, unknown

FORMATS = ("table", "markdown", "csv", "latex", "html", "json")


@click.command()
@click.option("--suite", "-s", "suites", multiple=True, help="Only benchmarks of this suite.")
@click.option("--benchmark", "-b", "benchmarks", multiple=True, help="Only this benchmark; may be given again.")
@click.option(
    "--model", "-m", "models", multiple=True, callback=as_recorded, help="Only this model; may be given again."
)
@click.option("--protocol", "-p", "protocols", multiple=True, help="Only this protocol, with or without its version.")
@click.option("--folds", help="Only numbers from these folds: paper, grouped, …")
@click.option(
    "--with", "source", type=click.Choice(["measured", "published", "both"]), default="measured", help="Which numbers."
)
@click.option("--sort", default="rank", help="By rank (the mean one), mean, wins, model, params, or a benchmark.")
@click.option("--format", "how", type=click.Choice(FORMATS), default="table")
@click.option("--wide", is_flag=True, help="With csv and json: a row a model instead of a row a value.")
@click.option("--efficiency", is_flag=True, help="Also parameters, GFLOPs a tile, measured tiles/s and memory, device.")
@click.option("--reproduce", help="A paper's table in its layout, as --suite g2l --reproduce table2; or claims.")
@click.option("--out", type=click.Path(dir_okay=False), help="Write to this file instead of stdout.")
@common
def leaderboard(source: str, sort: str, how: str, reproduce: str | None, **o: Any) -> None:
    """Print the table of all records: means ± deviation, beside what a majority guess reaches.

    The best of a column is bold (* on a terminal), the second underlined (+). Rows of different protocols, options, folds
    or readouts never share a column.
    """
    folders = folders_of(o["results"])
    desk = Desk({**o, "results": None})
    folders = folders or [desk.places.results]
    records: list[dict[str, Any]] = []
    if source != "published":
        records, left = long.collect(folders, skim=True)
        _warn(desk, [f"left out: {text}" for text in left] + [f"conflict: {c}" for c in long.conflicts(records)])
    rows = long.long_rows(records)
    if reproduce:
        return _reproduce(desk, reproduce, rows, how, o)
    names = None
    if source != "measured":
        from . import published

        left = []
        rows += published.rows(desk.catalogue, left)
        names = published.Names(desk.catalogue, [])
        _warn(desk, left)
    rows = _chosen(desk, rows, o)
    if not rows:
        where = " and ".join(map(str, folders))
        desk.console.say(
            f"No records in {where} fit. Make some: bench run --model efficientnet-lite0 --suite phantom"
            if source == "measured"
            else "No number fits. bench leaderboard --with published shows all that were published."
        )
    _print(desk, rows, records, names, sort, how, o)


def _print(
    desk: Desk,
    rows: list[dict[str, Any]],
    records: list[dict[str, Any]],
    names: Any,
    sort: str,
    how: str,
    o: dict[str, Any],
) -> None:
    from .standing import wide

    def table() -> tables.Table:
        return wide(rows, names, sort, _efficiency(desk, records, names) if o["efficiency"] else None)

    if desk.console.as_json or (how in ("csv", "json") and not o["wide"]):
        listed = [{k: r[k] for k in long.LONG} for r in rows]
        if desk.console.as_json:
            return desk.console.fact({"rows": listed})
        lines = ([*(r[k] for k in long.LONG[:-1]), _options(r["options"])] for r in rows)
        return _out(tables.csv_text(long.LONG, lines) if how == "csv" else _json(listed), o["out"])
    if how in ("csv", "json"):
        columns, values = tables.numbers(found := table())
        if how == "csv":
            return _out(tables.csv_text(columns, values), o["out"])
        return _out(_json({"columns": columns, "rows": values, "notes": found.notes}), o["out"])
    if rows or how != "table" or o["out"]:
        _show(desk, table(), how, o["out"])


def _show(desk: Desk, table: tables.Table, how: str, out: str | None) -> None:
    if how == "table" and not out:
        desk.console.table(*tables.plain(table), title=table.title)
        print("".join(f"{note}\n" for note in tables.footnotes(table)), end="")
    else:
        render = {"latex": tables.latex, "html": tables.html}.get(how, tables.markdown)
        _out(render(table), out)


def _options(options: Mapping[str, Any]) -> str:
    """What a protocol was asked with, as `--option` takes it, so that rows of one protocol can be told apart."""
    return " ".join(f"{k}={v if isinstance(v, str) else json.dumps(v)}" for k, v in sorted(options.items()))


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _out(text: str, out: str | None) -> None:
    if out:
        try:
            Path(out).write_text(text, encoding="utf-8")
        except OSError as error:
            raise StoreError(f"Cannot write {out}: {error.strerror}. Name another --out.") from error
    else:
        print(text, end="")


def _warn(desk: Desk, texts: list[str]) -> None:
    for text in texts:
        desk.console.warn(tables.clean(text))


def _chosen(desk: Desk, rows: list[dict[str, Any]], o: dict[str, Any]) -> list[dict[str, Any]]:
    wanted = {b for s in o["suites"] for b in desk.catalogue.suite(s)} | set(o["benchmarks"])
    models, protocols = set(o["models"]), set(o["protocols"])
    for word, names in (("model", models), ("benchmark", o["benchmarks"]), ("protocol", protocols)):
        there = {r[word] for r in rows} | set(getattr(desk.catalogue, f"{word}s").things)
        there |= {name.partition("@")[0] for name in there}
        absent = [unknown(word, name, there, f"bench list {word}s") for name in names if name not in there]
        if absent and len(absent) == len(names):
            raise absent[0]
        _warn(desk, list(map(str, absent)))
    if models:
        known = desk.catalogue.models.things
        models |= {known[m].card.name for m in models if m in known}
    return [
        r
        for r in rows
        if (not wanted or r["benchmark"] in wanted)
        and (not models or r["model"] in models)
        and (not protocols or {r["protocol"], r["protocol"].partition("@")[0]} & protocols)
        and (o["folds"] is None or str(r["folds"]) == o["folds"])
    ]


def _efficiency(desk: Desk, records: list[dict[str, Any]], names: Any) -> dict[tuple[str, str], dict[str, Any]]:
    """What records tell of each model; of models that were only published, what their cards say."""
    found = long.efficiency(records)
    if names is not None:
        for thing in desk.catalogue.models.things.values():
            found[(thing.card.name, "")] = {"params": thing.card.params, "gflops": thing.card.gflops}
    return found


def _reproduce(desk: Desk, table: str, rows: list[dict[str, Any]], how: str, o: dict[str, Any]) -> None:
    if table == "claims":
        from .verdicts import claims

        made, cells = claims(desk.catalogue, rows)
    else:
        from .reproduce import reproduce

        made, cells = reproduce(desk.catalogue, o["suites"], table, rows)
    if desk.console.as_json:
        desk.console.fact({"cells": cells})
    elif how == "csv":
        _out(tables.csv_text(list(cells[0]), [list(c.values()) for c in cells]), o["out"])
    elif how == "json":
        _out(_json(cells), o["out"])
    else:
        _show(desk, made, how, o["out"])


COMMANDS = {"leaderboard": merged(leaderboard)}
