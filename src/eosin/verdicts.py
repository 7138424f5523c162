"""What papers claim in words, each in a form that a table can be asked, and what the tables answer.

Forms (`test` of published/claims.csv): `rank` (the model's place by a benchmark, or by the mean of several), `above` (more
than each of the others, in each benchmark), `often` (more than each, in at least so many), `rounds` (the number, as the text
rounds it), `within` (how many models lie between two numbers), `share` (parameters, as our cards count them), `none`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from . import published
from .errors import CardError
from .leaderboard import place
from .reproduce import Figures, figures
from .tables import Cell, Table

CLAIMS = (
    "paper", "claim", "quote", "test", "model", "than", "table", "benchmark", "metric", "expected", "verdict", "note",
)  # fmt: skip
UNKNOWN = "–"


def claims(catalogue: Any, measured: list[dict[str, Any]]) -> tuple[Table, list[dict[str, Any]]]:
    """Every claim with the verdict of the printed tables and, where all that it speaks of was measured, of ours.

    Args:
        measured: rows of `leaderboard.long_rows`.

    Raises:
        CardError: a claim in a form that is not known.
    """
    names = published.Names(catalogue)
    rows = published.rows(catalogue)
    place([*measured, *rows], names)
    out = Table(["paper", "claim", "the printed tables", "measured here"], title="What the papers' texts claim")
    cells = []
    for claim in published.files(catalogue, CLAIMS):
        printed = published.chosen(rows, claim["paper"], claim["table"])
        theirs, ours = figures(printed, measured, names)
        said, found = verdict(claim, theirs, catalogue), verdict(claim, ours, catalogue)
        if claim["test"] in ("share", "none"):
            found = UNKNOWN  # nothing that a record holds
        notes = (out.note(claim["note"]),) if claim["note"] else ()
        out.rows.append([Cell(claim["paper"]), Cell(claim["claim"], notes=notes), Cell(said), Cell(found)])
        kept = ("paper", "claim", "quote", "test", "model", "than", "table", "benchmark", "metric", "expected", "note")
        cells.append({**{k: claim[k] for k in kept}, "tables": said, "measured": found})
    return out, cells


def verdict(claim: Mapping[str, str], known: Figures, catalogue: Any) -> str:
    """`holds`, `fails` or `ties`, with what decided it; a dash where numbers are missing.

    Args:
        known: the numbers of one table.
    """
    ask = FORMS.get(claim["test"])
    if ask is None:
        raise CardError(f"claim {claim['claim']!r}: the form {claim['test']!r} is not one of {', '.join(FORMS)}.")
    return str(ask(claim, known, catalogue))


def _values(claim: Mapping[str, str], known: Figures, benchmark: str) -> dict[str, float]:
    """Model -> its number, or its mean where benchmarks are joined by +; only models that have all."""
    parts = []
    for name in benchmark.split("+"):
        found = [v for (b, m), v in known.numbers.items() if b == name and claim["metric"] in ("", m)]
        if len(found) != 1:
            return {}
        parts.append(found[0])
    return {m: sum(p[m] for p in parts) / len(parts) for m in parts[0] if all(m in p for p in parts)}


def _subject(claim: Mapping[str, str], values: dict[str, float]) -> str | None:
    return next((m for m in claim["model"].split("|") if m in values), None)


def _rank(claim: Mapping[str, str], known: Figures, catalogue: Any) -> str:
    values = _values(claim, known, claim["benchmark"])
    who = _subject(claim, values)
    if who is None or len(values) < known.models(claim["benchmark"]):
        return UNKNOWN
    own = round(values[who], 9)
    rank = 1 + sum(round(v, 9) > own for v in values.values())
    tied = [m for m, v in values.items() if m != who and round(v, 9) == own]
    if rank != int(claim["expected"]):
        return f"fails: rank {rank} of {len(values)}"
    return f"ties with {', '.join(tied)}" if tied else f"holds: rank {rank} of {len(values)}"


def _compared(claim: Mapping[str, str], known: Figures) -> dict[str, bool]:
    """Benchmark -> whether the model is above each of the others, where all of them have a number."""
    out = {}
    for benchmark in claim["benchmark"].split():
        values = _values(claim, known, benchmark)
        who = _subject(claim, values)
        others = [m for m in values if m != who] if claim["than"] == "*" else claim["than"].split()
        complete = claim["than"] != "*" or len(values) >= known.models(benchmark)
        if who is not None and complete and others and all(m in values for m in others):
            out[benchmark] = all(values[who] > values[m] for m in others)
    return out


def _above(claim: Mapping[str, str], known: Figures, catalogue: Any) -> str:
    found = _compared(claim, known)
    if len(found) < len(claim["benchmark"].split()):
        return UNKNOWN
    wrong = [b for b, above in found.items() if not above]
    return f"fails: not in {', '.join(wrong)}" if wrong else f"holds: {len(found)} of {len(found)}"


def _often(claim: Mapping[str, str], known: Figures, catalogue: Any) -> str:
    found = _compared(claim, known)
    if len(found) < len(claim["benchmark"].split()):
        return UNKNOWN
    above = sum(found.values())
    return f"{'holds' if above >= int(claim['expected']) else 'fails'}: {above} of {len(found)}"


def _rounds(claim: Mapping[str, str], known: Figures, catalogue: Any) -> str:
    values = _values(claim, known, claim["benchmark"])
    who = _subject(claim, values)
    if who is None:
        return UNKNOWN
    digits = len(claim["expected"].partition(".")[2])
    fits = f"{values[who]:.{digits}f}" == claim["expected"]
    return f"{'holds' if fits else 'fails'}: {values[who]:.4f}"


def _within(claim: Mapping[str, str], known: Figures, catalogue: Any) -> str:
    match = re.fullmatch(r"(\d+) within ([\d.]+) ([\d.]+)", claim["expected"])
    if match is None:
        raise CardError(f"claim {claim['claim']!r}: expected reads as in `6 within 0.78 0.79`.")
    values = _values(claim, known, claim["benchmark"])
    if not values or len(values) < known.models(claim["benchmark"]):
        return UNKNOWN
    inside = sum(float(match[2]) <= v <= float(match[3]) for v in values.values())
    return f"{'holds' if inside == int(match[1]) else 'fails'}: {inside} models"


def _share(claim: Mapping[str, str], known: Figures, catalogue: Any) -> str:
    """Parameters of a model as a share of another's, in per cent; a tenth more or less is equal."""
    a, b = (catalogue.models.things.get(name) for name in (claim["model"], claim["than"]))
    if a is None or b is None or not a.card.params or not b.card.params:
        return UNKNOWN
    share = 100 * a.card.params / b.card.params
    return f"{'holds' if abs(share - float(claim['expected'])) <= float(claim['expected']) / 10 else 'fails'}: {share:.1f} %"


def _none(claim: Mapping[str, str], known: Figures, catalogue: Any) -> str:
    return "in no table"


FORMS = {
    "rank": _rank, "above": _above, "often": _often, "rounds": _rounds, "within": _within, "share": _share, "none": _none,
}  # fmt: skip
