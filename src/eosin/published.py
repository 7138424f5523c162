"""Published numbers: the csv files that registry files name, as rows of the leaderboard.

Three sorts of file, told apart by their heads: numbers (`NUMBERS`), names that papers print for things of the registry
(`NAMES`), and the rest, which whoever asks for them reads by its head (`files`). Numbers stay as printed.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .errors import CardError, EosinError
from .leaderboard import folds_of

NUMBERS = (
    "paper", "table", "model", "benchmark", "protocol", "readout", "metric", "value", "spread", "spread_kind", "source",
    "date", "note",
)  # fmt: skip
NAMES = ("kind", "printed", "name")
UNSTATED = ("", "unstated")


def files(catalogue: Any, head: tuple[str, ...], left: list[str] | None = None) -> list[dict[str, str]]:
    """The rows of every published csv with this head; `file` and `line` say where a row stands.

    Args:
        left: takes the reasons why a file was left out; without it they are raised.

    Raises:
        CardError: a file that is not there, is no csv in UTF-8, or lacks columns that its others let expect.
    """
    rows: list[dict[str, str]] = []
    for path in dict.fromkeys(p for _, registry in catalogue.files for p in registry.published):
        try:
            rows += _rows(path, head)
        except EosinError as error:
            if left is None:
                raise
            left.append(str(error))
    return rows


def _rows(path: Path, head: tuple[str, ...]) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as handle:
            reader = csv.DictReader(handle, strict=True)
            found = reader.fieldnames or []
            if found[:2] != list(head[:2]):
                return []
            lacking = [c for c in head if c not in found]
            if lacking:
                raise CardError(
                    f"{path}: a csv of published numbers has the columns {', '.join(head)}; {', '.join(lacking)} is missing."
                )
            rows = []
            for row in reader:
                if None in row or None in row.values():
                    raise CardError(f"{path}, line {reader.line_num}: not as many cells as the head has columns.")
                rows.append({**row, "file": str(path), "line": str(reader.line_num)})
            return rows
    except OSError as error:
        raise CardError(
            f"{path}: {error.strerror}. A registry file names it under `published:`; correct that line."
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise CardError(f"{path} is not a csv file in UTF-8: {error}.") from error


def rows(catalogue: Any, left: list[str] | None = None) -> list[dict[str, Any]]:
    """Every published number as a row of the long table, its names those of the registry where it has them.

    Beside the columns of `leaderboard.LONG`: `spread` (as a number; `std` only where it is no interquartile range),
    `printed` (value and spread, digit by digit), `printed_model` and `printed_benchmark`, `asked` (the readout of the
    column that the number may stand in) and `average` (it is a mean of others).

    Raises:
        CardError: a file or row that cannot be read, unless `left` takes the reasons.
    """
    names = Names(catalogue, left)
    found = []
    for row in files(catalogue, NUMBERS, left):
        try:
            found.append(_published(row, names))
        except CardError as error:
            if left is None:
                raise
            left.append(str(error))
    return found


def _published(row: dict[str, str], names: Names) -> dict[str, Any]:
    model, _, against = row["model"].partition(" vs ")
    metric = names.of("metric", row["metric"])
    benchmark = names.of("benchmark", row["benchmark"])
    spread = _number(row, "spread")
    name, asked = names.column(benchmark, row["protocol"], metric, names.of("readout", row["readout"]))
    return {
        "model": names.of("model", model),
        "benchmark": name,
        "protocol": row["protocol"],
        "folds": names.folds(name, row["protocol"]),
        "metric": metric,
        "mean": _number(row, "value", needed=True),
        "std": None if row["spread_kind"] == "iqr" else spread,
        "low": None,
        "high": None,
        "n": None,
        "source": "published",
        "against": names.of("model", against) if against else "",
        **{k: row[k] for k in ("readout", "paper", "table", "date", "spread_kind", "note")},
        "spread": spread,
        "printed": _printed(row),
        "printed_model": row["model"],
        "printed_benchmark": benchmark,
        "asked": asked,
        "average": benchmark in names.averages,
        "majority": None,
        "primary": benchmark not in names.averages and names.primary(name, metric),
        "better": names.better(name),
        "address": f"{row['paper']} {row['table']}/",
        "dataset_fingerprint": None,
        "fingerprint": "",
        "options": {},
    }


def _number(row: dict[str, str], key: str, needed: bool = False) -> float | None:
    text = row[key].strip()
    if not text and not needed:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise CardError(f"{row['file']}, line {row['line']}: {key} is {text!r}, not a number.")
    return value


def _printed(row: dict[str, str]) -> str:
    """As papers print it: `0.9344 ± 0.006`; an interquartile range in brackets."""
    if not row["spread"]:
        return row["value"]
    return f"{row['value']} ({row['spread']})" if row["spread_kind"] == "iqr" else f"{row['value']} ± {row['spread']}"


class Names:
    """What the registry calls the things that papers and boards print."""

    def __init__(self, catalogue: Any, left: list[str] | None = None) -> None:
        self.catalogue = catalogue
        given = files(catalogue, NAMES, left)
        self.known = {(r["kind"], r["printed"]): r["name"] for r in given if r["kind"] != "average"}
        self.averages = {r["printed"]: tuple(r["name"].split()) for r in given if r["kind"] == "average"}
        self.columns: dict[tuple[str, ...], tuple[str, str]] = {}

    def of(self, kind: str, printed: str) -> str:
        """The registry's own name first, then its aliases, then the table of names; else the name as printed."""
        if kind == "model" and printed in self.catalogue.models.things:
            return str(self.catalogue.models.things[printed].card.name)
        return self.known.get((kind, printed), printed)

    def card(self, benchmark: str) -> Any:
        thing = self.catalogue.benchmarks.things.get(benchmark)
        return None if thing is None else thing.card

    def column(self, benchmark: str, protocol: str, metric: str, readout: str) -> tuple[str, str]:
        """The benchmark whose column the number may stand in, and the readout of that column.

        The benchmark of that name, if it asks for the readout that was published; else one that differs from it in the
        readout alone; else that name, in a column for the published readout.
        """
        key = (benchmark, protocol, metric, readout)
        if key not in self.columns:
            self.columns[key] = self._column(*key)
        return self.columns[key]

    def _column(self, benchmark: str, protocol: str, metric: str, readout: str) -> tuple[str, str]:
        card = self.card(benchmark)
        if card is None or card.protocol != protocol:
            return benchmark, readout
        if _compatible(readout, asked := self.asked(card)):
            return benchmark, asked
        for other in (thing.card for thing in self.catalogue.benchmarks.things.values()):
            same = all(getattr(other, f) == getattr(card, f) for f in ("dataset", "protocol", "metric", "label"))
            same = same and (other.options, other.subsets) == (card.options, card.subsets)
            if same and _compatible(readout, asked := self.asked(other)):
                return other.name, asked
        return benchmark, readout

    def asked(self, card: Any) -> str:
        """The readout that a benchmark asks for: its own, else its protocol's."""
        protocol = self.catalogue.protocols.things.get(card.protocol)
        return str(card.readout if card.readout != "default" or protocol is None else protocol.card.readout)

    def options(self, benchmark: str) -> dict[str, Any] | None:
        """Every option of the benchmark as the registry has it; None where its protocol is unknown.

        One that a run must state, as the paper does not, is not among them.
        """
        card = self.card(benchmark)
        protocol = None if card is None else self.catalogue.protocols.things.get(card.protocol)
        if protocol is None:
            return None
        stated = [k for k, option in protocol.card.options.items() if option.required]
        return {k: v for k, v in protocol.card.complete(card.options).items() if k not in stated}

    def folds(self, benchmark: str, protocol: str) -> Any:
        card = self.card(benchmark)
        known = self.options(benchmark) if card is not None and card.protocol == protocol else None
        return folds_of(known or {})

    def primary(self, benchmark: str, metric: str) -> bool:
        """Whether a table of one number a benchmark shows this one: the card's metric; any of a benchmark without card."""
        card = self.card(benchmark)
        return card is None or card.metric == metric

    def better(self, benchmark: str) -> str:
        card = self.card(benchmark)
        return "higher" if card is None else card.better


def _compatible(readout: str, asked: str) -> bool:
    """Whether a number read so may stand in a column that asks so. Maps are maps, whatever a paper says of class tokens."""
    return readout in (*UNSTATED, asked, asked.split("|")[0]) or asked.startswith("grid")


def chosen(rows: Iterable[dict[str, Any]], paper: str, table: str = "") -> list[dict[str, Any]]:
    """The rows of one paper, or of one of its tables."""
    return [r for r in rows if r["paper"] == paper and table in ("", r["table"])]
