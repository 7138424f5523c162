"""Tables of records: the long one (a row a value) and the wide one (a row a model), and the table that a run prints."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from . import record
from .record import value

LONG = ("model", "benchmark", "protocol", "folds", "against", "metric", "mean", "std", "low", "high", "n", "source")


def collect(folders: Iterable[Path]) -> tuple[list[dict[str, Any]], list[str]]:
    """All readable records below the folders, and why the others were left out."""
    records, left = [], []
    for folder in folders:
        for path in record.find(folder):
            try:
                records.append({**record.read(path), "path": path})
            except ValueError as error:
                left.append(str(error))
    return records, left


def long_rows(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a value; `primary` marks the benchmark's own metric."""
    rows = []
    for r in records:
        for metric, s in r["scores"].items():
            rows.append(
                {
                    "model": r["model"]["name"],
                    "benchmark": r["benchmark"]["name"],
                    "protocol": r["protocol"]["name"],
                    "folds": (r["protocol"].get("options") or {}).get("folds", ""),
                    "against": (r.get("against") or "").split("@")[0],
                    "metric": metric,
                    "mean": s["mean"],
                    "std": s["std"],
                    "low": s["low"],
                    "high": s["high"],
                    "n": r["dataset"].get("rows"),
                    "source": "measured",
                    "majority": (r.get("floor") or {}).get("majority", {}).get(metric),
                    "primary": metric == r["benchmark"].get("metric"),
                    "address": f"{r['model'].get('fingerprint')}/{r['benchmark'].get('fingerprint')}",
                    "dataset_fingerprint": r["dataset"].get("fingerprint"),
                }
            )
    return rows


def frame(rows: list[dict[str, Any]]):
    """The long table as pandas has it."""
    import pandas as pd

    return pd.DataFrame(rows, columns=[*LONG, "majority", "primary", "address", "dataset_fingerprint"])


def wide(rows: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """A row a model, a column a benchmark under one protocol, fold rule and option set; primary metrics only."""
    rows = [r for r in rows if r["primary"]]
    columns: dict[tuple[str, ...], str] = {}
    for r in rows:
        key = _column(r)
        columns.setdefault(
            key,
            f"{r['benchmark']} {r['metric']}"
            + (f" against {r['against']}" if r["against"] else "")
            + (f" ({r['folds']} folds)" if r["folds"] not in ("", "paper") else ""),
        )
    titles = list(columns.values())
    for key, title in columns.items():  # the same question asked with other options stands in a column of its own
        if titles.count(title) > 1:
            columns[key] = f"{title} [{key[-1][:6]}]"
    models = dict.fromkeys((r["model"], r["address"].split("/")[0]) for r in rows)
    names = [m for m, _ in models]
    cells = {((r["model"], r["address"].split("/")[0]), _column(r)): r for r in rows}
    floor = ["majority", *("–" if (m := _majority(rows, k)) is None else f"{m:.3f}" for k in columns)]
    table = [floor] if any(v != "–" for v in floor[1:]) else []
    for model in models:
        name = model[0] if names.count(model[0]) == 1 else f"{model[0]}@{model[1][:6]}"
        found = [cells.get((model, k)) for k in columns]
        table.append([name, *("–" if r is None else value(r["mean"], r["std"]) for r in found)])
    return ["model", *columns.values()], table


def _column(row: dict[str, Any]) -> tuple[str, ...]:
    return (row["benchmark"], row["protocol"], str(row["folds"]), row["metric"], row["address"].split("/")[1])


def _majority(rows: list[dict[str, Any]], key: tuple[str, ...]) -> float | None:
    return next((r["majority"] for r in rows if _column(r) == key and r["majority"] is not None), None)


def run_table(paths: list[Path], floor: list[Path]) -> tuple[list[str], list[list[str]], list[str]]:
    """The table that `bench run` prints: a row a benchmark; majority, color-stats and the models of the run as columns.

    Returns:
        column names, rows, and remarks (notes of the protocols, each once).
    """
    own = [record.read(p) for p in paths]
    records = [*(record.read(p) for p in floor), *own]
    names = dict.fromkeys(["color-stats"] if any(r["model"]["name"] == "color-stats" for r in records) else [])
    names |= dict.fromkeys(r["model"]["name"] for r in own)
    table: dict[tuple[str, str], dict[str, str]] = {}
    for r in records:
        metric = r["benchmark"]["metric"]
        row = table.setdefault((r["benchmark"]["name"], metric), {})
        row[r["model"]["name"]] = value(r["scores"][metric]["mean"], r["scores"][metric]["std"])
        guess = (r.get("floor") or {}).get("majority", {}).get(metric)
        row[""] = "–" if guess is None else f"{guess:.3f}"
    rows = [[b, m, row.get("", "–"), *(row.get(n, "–") for n in names)] for (b, m), row in table.items()]
    remarks = []
    for r in own:
        remarks += [f"{r['benchmark']['name']}: {n}" for n in r.get("notes", [])]
        remarks += [f"{r['dataset']['name']}: {n}" for n in r["dataset"].get("warnings", [])]
        if r["dataset"].get("left_out"):
            remarks.append(
                f"{r['benchmark']['name']}: {r['dataset']['left_out']} tiles left out (unlabelled or broken)."
            )
    return ["benchmark", "metric", "majority", *names], rows, list(dict.fromkeys(remarks))


def render(rows: list[dict[str, Any]], how: str, in_wide: bool) -> str:
    """csv, markdown or json text. csv is the long table unless `in_wide`."""
    if how == "json":
        return frame(rows)[list(LONG)].to_json(orient="records", indent=1)
    if how == "csv" and not in_wide:
        return frame(rows)[list(LONG)].to_csv(index=False)
    columns, table = wide(rows)
    if how == "csv":
        import pandas as pd

        return pd.DataFrame(table, columns=columns).to_csv(index=False)
    lines = [columns, ["---"] * len(columns), *table]
    return "\n".join("| " + " | ".join(str(c).replace("|", "\\|") for c in line) + " |" for line in lines) + "\n"
