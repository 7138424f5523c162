"""Records as rows of the long table (a row a value), what stands in one column of the wide one, and `bench run`'s table."""

from __future__ import annotations

import contextlib
import gc
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import record
from .card import plain
from .record import value

LONG = (
    "model", "benchmark", "protocol", "folds", "metric", "mean", "std", "low", "high", "n", "source", "against", "readout",
    "spread", "spread_kind", "paper", "table", "date", "note", "fingerprint", "options",
)  # fmt: skip
NEEDED = (
    ("model", "name"), ("model", "fingerprint"), ("benchmark", "name"), ("benchmark", "fingerprint"), ("protocol", "name"),
)  # fmt: skip


def collect(folders: Iterable[Path], skim: bool = False) -> tuple[list[dict[str, Any]], list[str]]:
    """All readable records below the folders, and why the others were left out.

    A copy of a record (same address, same scores) counts once; two of one address that differ both stay, and
    `conflicts` names them.

    Args:
        skim: only what `record.SKIMMED` lists; cards are shared between records.
    """
    records: list[dict[str, Any]] = []
    left: list[str] = []
    seen: dict[tuple[str, str], list[Any]] = {}
    memory: dict[bytes, Any] | None = {} if skim else None
    with still():
        for folder in folders:
            for path in record.find(folder):
                try:
                    found = {**sound(record.read(path, memory), path), "path": path}
                except ValueError as error:
                    left.append(str(error))
                    continue
                same = seen.setdefault(address(found), [])
                if found["scores"] not in same:
                    same.append(found["scores"])
                    records.append(found)
    return records, left


@contextlib.contextmanager
def still() -> Iterator[None]:
    """Without the search for cyclic garbage, which walks through everything again and again while much is made and all kept."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def sound(found: dict[str, Any], path: Path) -> dict[str, Any]:
    """The record, if tables can be made of it; ValueError says why not."""
    for block, key in NEEDED:
        if not isinstance(found[block].get(key), str):
            raise ValueError(f"{path} lacks {block}.{key}")
    for metric, score in found["scores"].items():
        for key in ("mean", "std", "low", "high"):
            number = score.get(key, "nothing") if isinstance(score, dict) else "nothing"
            if number is not None and (number.__class__ not in (float, int) or not math.isfinite(number)):
                raise ValueError(f"{path} is damaged (scores.{metric}.{key} is {number!r})")
    for key in ("readout", "floor"):
        if not isinstance(found.get(key) or {}, dict):
            raise ValueError(f"{path} is damaged ({key} is no mapping)")
    if not isinstance(found.get("against") or "", str) or not isinstance(found["protocol"].get("options") or {}, dict):
        raise ValueError(f"{path} is damaged (against or protocol.options)")
    return found


def address(found: dict[str, Any]) -> tuple[str, str]:
    return found["model"]["fingerprint"], found["benchmark"]["fingerprint"]


def conflicts(records: list[dict[str, Any]]) -> list[str]:
    """Records of one address whose scores differ: a sentence each. Tables show both and rank neither."""
    by: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for r in records:
        by.setdefault(address(r), []).append(r)
    return [
        f"{group[0]['model']['name']} on {group[0]['benchmark']['name']}: {len(group)} records of one address differ: "
        + ", ".join(f"{_headline(r)} in {r['path']}" for r in group)
        for group in by.values()
        if len(group) > 1
    ]


def _headline(r: dict[str, Any]) -> str:
    score = r["scores"].get(r["benchmark"].get("metric")) or {}
    return value(score.get("mean"), score.get("std"))


def long_rows(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a value; `primary` marks the benchmark's own metric."""
    rows = []
    times = Counter(map(address, records))
    for r in records:
        model, benchmark, protocol, dataset = r["model"], r["benchmark"], r["protocol"], r["dataset"]
        options, majority = protocol.get("options") or {}, (r.get("floor") or {}).get("majority") or {}
        same = {
            "model": model["name"],
            "benchmark": benchmark["name"],
            "protocol": protocol["name"],
            "folds": folds_of(options),
            "n": real(dataset.get("rows")),
            "source": "measured",
            "against": (r.get("against") or "").split("@")[0],
            "readout": ", ".join(dict.fromkeys(map(str, (r.get("readout") or {}).values()))),
            "spread_kind": "std",
            "paper": "",
            "table": "",
            "date": str(r.get("created") or "")[:10],
            "note": "conflict: another record of this address says otherwise" if times[address(r)] > 1 else "",
            "fingerprint": model["fingerprint"],
            "options": options,
            "recommended": model.get("readout") or "",
            "better": benchmark.get("better") or "higher",
            "address": f"{model['fingerprint']}/{benchmark['fingerprint']}",
            "dataset_fingerprint": dataset.get("fingerprint"),
        }
        for metric, s in r["scores"].items():
            scores = {"mean": s["mean"], "std": s["std"], "low": s["low"], "high": s["high"], "spread": s["std"]}
            primary = metric == benchmark.get("metric")
            rows.append({**same, "metric": metric, **scores, "majority": majority.get(metric), "primary": primary})
    return rows


def folds_of(options: dict[str, Any]) -> Any:
    """Who was tested when, in a word: `given` with the data, else the protocol's rule or number."""
    return "given" if options.get("split") == "given" else options.get("folds", "")


@dataclass
class Column:
    """What one column holds: one question. `key` is the fingerprint of what was measured, or what was published."""

    key: tuple[str, ...]
    title: str
    benchmark: str
    metric: str
    better: str
    digits: int = 3
    majority: float | None = None


def place(rows: list[dict[str, Any]], names: Any = None) -> list[Column]:
    """The columns of these rows; each row gets its `column`.

    Measured rows share a column if one fingerprint asked them: protocol, options, folds, readout, data, partner. Published
    ones share it if protocol, folds, partner, metric and readout are equal; they stand beside the measured ones that
    were asked with the registry's own options, if these are of one fingerprint.

    Args:
        names: `published.Names`, where rows are published.
    """
    measured: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    published: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for r in rows:
        if r["source"] == "measured":
            measured.setdefault((*_question(r), r["address"].partition("/")[2]), []).append(r)
        else:
            published.setdefault((*_question(r), r["asked"]), []).append(r)
    columns = dict(measured)
    for key, group in published.items():
        beside = [k for k, g in measured.items() if k[:-1] == key[:-1] and all(as_asked(r, key[-1], names) for r in g)]
        columns.setdefault(beside[0] if len(beside) == 1 else ("published", *key), []).extend(group)
    found = []
    for key, group in columns.items():
        for r in group:
            r["column"] = key
        first = group[0]
        decimals = [len(r["printed"].split()[0].partition(".")[2]) for r in group if r["source"] == "published"]
        found.append(
            Column(
                key,
                _title(first),
                first["benchmark"],
                first["metric"],
                first["better"],
                max(decimals, default=3),
                next((r["majority"] for r in group if isinstance(r["majority"], (int, float))), None),
            )
        )
    _tell_apart(found, {k: {**g[0], "readout": _common(g)} for k, g in columns.items()}, names)
    return found


def _common(group: list[dict[str, Any]]) -> str:
    """The readout of all rows of a column, or that each model has its own."""
    readouts = {r["readout"] for r in group}
    return readouts.pop() if len(readouts) == 1 else "default"


def _question(r: dict[str, Any]) -> tuple[str, ...]:
    return (r["benchmark"], r["protocol"], str(r["folds"] or ""), r["against"], r["metric"])


def as_asked(r: dict[str, Any], asked: str, names: Any) -> bool:
    """Whether a measured row has the registry's own options, and the readout that its benchmark asks for."""
    options = None if names is None else names.options(r["benchmark"])
    if options is not None and any(r["options"].get(k, v) != v for k, v in plain(options).items()):
        return False
    choices = asked.split("|")
    return r["readout"] in choices or "default" in choices and r["readout"] in ("given", r["recommended"], "")


def _title(r: dict[str, Any]) -> str:
    against = f" against {r['against']}" if r["against"] else ""
    folds = f" ({r['folds']} folds)" if r["folds"] not in ("", "paper", 0, None) else ""
    return f"{r['benchmark']} {r['metric']}{against}{folds}"


def _tell_apart(columns: list[Column], first: dict[tuple[str, ...], dict[str, Any]], names: Any) -> None:
    """Add to equal titles what differs: protocol, options, readout, else the fingerprint, or that they are published."""
    tells = (
        lambda c, group: f" {first[c.key]['protocol']}",
        lambda c, group: _options(first[c.key], [first[g.key] for g in group], names),
        lambda c, group: f" of {first[c.key].get('asked') or first[c.key]['readout'] or 'its readout'}",
        lambda c, group: (
            " [published]" if c.key[0] == "published" else f" [{short(c.key[-1], [g.key[-1] for g in group])}]"
        ),
    )
    for tell in tells:
        count = Counter(c.title for c in columns)
        for group in [[c for c in columns if c.title == t] for t, n in count.items() if n > 1]:
            told = [tell(c, group) for c in group]
            if len(set(told)) > 1:
                for c, text in zip(group, told, strict=True):
                    c.title += text


def _options(r: dict[str, Any], group: list[dict[str, Any]], names: Any) -> str:
    """The options of a measured row in which it differs from the others of its title, and from the registry's."""
    if r["source"] != "measured":
        return ""
    usual = None if names is None else names.options(r["benchmark"])
    given = [o["options"] for o in group if o["source"] == "measured"] + ([plain(usual)] if usual else [])
    differ = [k for k, v in r["options"].items() if any(o.get(k, v) != v for o in given)]
    return " with " + ", ".join(f"{k}={r['options'][k]}" for k in differ) if differ else ""


def short(whole: str, others: Iterable[str]) -> str:
    """A fingerprint in six characters, or in as many as tell it from the others."""
    others = {o for o in others if o != whole}
    return next((whole[:n] for n in range(6, len(whole)) if whole[:n] not in {o[:n] for o in others}), whole)


def efficiency(records: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    """Of each (model, fingerprint): `params`, `gflops` a tile, `rate` in tiles/s, `memory` in MB, and the `device`.

    The rate is of all tiles that were embedded on the device that embedded most; the memory is the most that a process
    that embedded there has held.
    """
    runs: dict[tuple[str, str], dict[str, dict[Any, tuple[float, float]]]] = {}
    facts: dict[tuple[str, str], dict[str, Any]] = {}
    memory: dict[tuple[Any, ...], float] = {}
    for r in records:
        key = (r["model"]["name"], r["model"]["fingerprint"])
        facts.setdefault(key, {k: real(r["model"].get(k)) for k in ("params", "gflops")})
        embedded = r.get("embed")
        for run in embedded if isinstance(embedded, list) else []:
            tiles, seconds = (real(run.get(k)) if isinstance(run, dict) else None for k in ("tiles", "seconds"))
            if tiles and seconds:
                device = str(run.get("device_name") or run.get("device") or "unknown device")
                once = (str(run.get("address")), tiles, seconds)  # several records keep the cost of one run
                runs.setdefault(key, {}).setdefault(device, {})[once] = (tiles, seconds)
                memory[(key, device)] = max(memory.get((key, device), 0.0), real(r.get("peak_memory_mb")) or 0.0)
    for key, devices in runs.items():
        total = {d: [sum(part) for part in zip(*costs.values(), strict=True)] for d, costs in devices.items()}
        device = max(total, key=lambda d: total[d][0])
        tiles, seconds = total[device]
        facts[key] |= {"rate": tiles / seconds, "device": device, "memory": memory[(key, device)] or None}
    return facts


def real(number: Any) -> float | None:
    """A finite number as it is; anything else is None."""
    fine = isinstance(number, (int, float)) and not isinstance(number, bool) and math.isfinite(number)
    return number if fine else None


def run_table(paths: list[Path], floor: list[Path]) -> tuple[list[str], list[list[str]], list[str]]:
    """The table that `bench run` prints: a row a benchmark; majority, color-stats and the models of the run as columns.

    Returns:
        column names, rows, and remarks (notes of the protocols, each once).
    """
    own = [record.read(p) for p in paths]
    records = [*(record.read(p) for p in floor), *own]
    names = _told_apart(records)
    table: dict[tuple[str, str], dict[str, str]] = {(r["benchmark"]["name"], r["benchmark"]["metric"]): {} for r in own}
    for r in records:
        metric = r["benchmark"]["metric"]
        row = table.setdefault((r["benchmark"]["name"], metric), {})
        row[names[_who(r)]] = value(r["scores"][metric]["mean"], r["scores"][metric]["std"])
        guess = (r.get("floor") or {}).get("majority", {}).get(metric)
        row[""] = "–" if guess is None else f"{guess:.3f}"
    rows = [[b, m, row.get("", "–"), *(row.get(n, "–") for n in names.values())] for (b, m), row in table.items()]
    remarks = []
    for r in own:
        remarks += [f"{r['benchmark']['name']}: {n}" for n in [*r.get("notes", []), *r["dataset"].get("warnings", [])]]
        if r["dataset"].get("left_out"):
            remarks.append(
                f"{r['benchmark']['name']}: {r['dataset']['left_out']} tiles left out (unlabelled or broken)."
            )
    return ["benchmark", "metric", "majority", *names.values()], rows, list(dict.fromkeys(remarks))


def _who(r: Mapping[str, Any]) -> tuple[str, str]:
    return r["model"]["name"], r["model"]["fingerprint"]


def _told_apart(records: list[dict[str, Any]]) -> dict[tuple[str, str], str]:
    """What each model is called, color-stats first: its name, with its fingerprint where several share that."""
    own = sorted(dict.fromkeys(map(_who, records)), key=lambda who: who[0] != "color-stats")
    marks = {name: [mark for n, mark in own if n == name] for name, _ in own}
    return {(n, mark): n if len(marks[n]) == 1 else f"{n}@{short(mark, marks[n])}" for n, mark in own}
