"""The specification curve: one benchmark under every admissible choice of its protocol, from the store alone.

How much of a table is the models, and how much the protocol? Each specification is a complete set of options and a
readout; all models are scored under each. Nothing is embedded, and no record is written.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from . import store
from .alike import command
from .benchmark import Benchmark, Scores
from .errors import DataError, EosinError, MissingError, NotApplicable, UsageError
from .extractor import dense, parts_of
from .plan import Planner, Task, options_of, read_as
from .precomputed import Precomputed
from .rows import beside
from .run import Runner

Watch = Callable[[str, int, int], None]

# what an option whose number is open is tried with; others (seeds, steps, tolerances) stay as the benchmark has them
OPEN: dict[str, tuple[Any, ...]] = {
    "k": (5, 10, 15, 20, 50),
    "n_components": (32, 50, 128, 256),
    "alpha": (None, 1.0, 100.0, 10000.0),
}
STAYS = {
    "split",
    "precision",
    "nan",
    "classes",
    "stainings",
    "scanners",
    "part",
    "rows",
}  # another question, or no choice
READOUTS = ("cls", "mean", "cls+mean")
CAP = 200


class Stored(Runner):
    """A runner that only reads: what is not stored, or is damaged, is an error that says the command."""

    def ensure(self, job: Any, again: bool = False) -> dict[str, Any]:
        if again or not isinstance(job.extractor, Precomputed) and job.address.missing():
            raise MissingError(f"Embeddings are missing or damaged. Make them: {command(job, job.geometry)}")
        return {}


@dataclass
class Curve:
    """What came of it.

    Attributes:
        specs: every specification that was run; the first is the benchmark's own. values: (specs, models), nan where not
            possible. choices: option -> values that were varied. dropped: choices that cannot be, and why.
        admissible: how many specifications there are.
    """

    benchmark: str
    metric: str
    better: str
    models: list[str]
    specs: list[dict[str, Any]]
    values: np.ndarray
    choices: dict[str, list[Any]]
    dropped: dict[str, str]
    admissible: int
    published: dict[str, list[tuple[float, float, str]]] = field(default_factory=dict)


def choices_of(benchmark: Benchmark, given: Mapping[str, Any], varied: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:  # fmt: skip
    """option -> its admissible values, the benchmark's own first: allowed values, both of a switch, the list of OPEN.

    Args:
        given: options that are fixed. varied: options with values to try in place of these lists.
    """
    assert benchmark.protocol is not None
    card, own = benchmark.protocol.card, options_of(benchmark, given)
    unknown = [k for k in [*given, *varied] if k not in card.options]
    if unknown:
        raise UsageError(
            f"{card.name} has no option {', '.join(unknown)}. Its options: {', '.join(card.options) or 'none'}."
        )
    found = {}
    for name, option in card.options.items():
        if name in given or name in STAYS and name not in varied:
            continue
        values: Sequence[Any] = ()
        if name in varied:
            values = [option.read(card.name, name, v) for v in varied[name]]
        elif isinstance(option.allowed, tuple):
            values = option.allowed
        elif isinstance(option.default, bool):
            values = (False, True)
        elif name in OPEN:
            values = OPEN[name]
        listed = list(dict.fromkeys([own[name], *values]))
        if len(listed) > 1:
            found[name] = listed
    return found


def specifications(own: dict[str, Any], choices: Mapping[str, list[Any]], cap: int, seed: int = 0) -> list[dict[str, Any]]:  # fmt: skip
    """All combinations; above `cap`: the benchmark's own, each choice changed alone, and others drawn at random."""
    total = math.prod(map(len, choices.values()))
    if total <= cap:
        return [{**own, **dict(zip(choices, c, strict=True))} for c in itertools.product(*choices.values())]
    specs = [own, *({**own, k: v} for k, values in choices.items() for v in values[1:])]
    seen, rng = {str(s) for s in specs}, np.random.default_rng(seed)
    while len(specs) < cap:
        s = {**own, **{k: v[rng.integers(len(v))] for k, v in choices.items()}}
        if str(s) not in seen:
            seen.add(str(s))
            specs.append(s)
    return specs[: max(cap, 1)]


def run(
    planner: Planner,
    benchmark: Benchmark,
    models: Sequence[Any],
    engine: Any,
    given: Mapping[str, Any],
    varied: Mapping[str, Sequence[Any]],
    cap: int = CAP,
    watch: Watch = lambda what, done, total: None,
) -> Curve:
    """Score all models under the specifications of a benchmark.

    Raises:
        UsageError: a benchmark without a protocol's options, or one that trains on pixels. MissingError: embeddings that
        are not stored, all of them listed.
    """
    card = benchmark.card
    if benchmark.protocol is None or type(benchmark).score is not Benchmark.score:
        raise UsageError(f"{card.name} scores in code of its own: it has no options to vary.")
    needs = benchmark.needs()
    if any(n.online or n.against for n in needs.values()):
        raise UsageError(
            f"{card.name} trains on pixels or compares two models: it cannot be read from stored embeddings."
        )
    tasks = [Task(m, benchmark, {}) for m in models]
    missing: dict[str, None] = {}
    for task in tasks:
        for name, need in needs.items():
            job = task.jobs[name] = planner.job(task.model, need)
            if not isinstance(job.extractor, Precomputed) and job.address.missing():
                missing[command(job, need.geometry)] = None
    if missing:
        raise MissingError("The curve never embeds, and embeddings are missing. Make them:\n  " + "\n  ".join(missing))
    choices = choices_of(benchmark, given, varied)
    own = {**options_of(benchmark, given), "readout": needs[""].readout if "" in needs else "default"}
    if len(needs) == 1 and not dense(own["readout"]):
        choices = {"readout": _readouts(tasks, own["readout"]), **choices}
    runner = Stored(planner.places, engine, {}, watch)
    choices = {k: v for k, v in choices.items() if len(v) > 1}
    base = [own, *({**own, k: v} for k, values in choices.items() for v in values[1:])]
    scored = [_scores(runner, t, base, watch) for t in tasks]
    dropped: dict[str, str] = {}
    for name, values in choices.items():  # a choice that cannot be made alone is made nowhere
        for value in values[1:]:
            found = [of[str({**own, name: value})] for of in scored]
            if all(isinstance(v, str) for v in found):
                dropped[f"{name}={value}"] = str(found[0])
        choices[name] = [v for v in values if f"{name}={v}" not in dropped]
    choices = {k: v for k, v in choices.items() if len(v) > 1}
    specs = specifications(own, choices, cap)
    for task, of in zip(tasks, scored, strict=True):
        of |= _scores(runner, task, [s for s in specs if str(s) not in of], watch)
    rows = [[of[str(s)] for of in scored] for s in specs]
    table = np.array([[math.nan if isinstance(v, str) else v for v in row] for row in rows])
    names = [m.card.name for m in models]
    if not np.isfinite(table).any():
        raise DataError(f"{card.name} cannot be scored under any specification: {rows[0][0]}")
    total = math.prod(map(len, choices.values()))
    return Curve(card.name, card.metric, card.better, names, specs, table, choices, dropped, total)


def _scores(runner: Stored, task: Task, specs: Sequence[dict[str, Any]], watch: Watch) -> dict[str, float | str]:
    """The primary metric of a model under each specification, or why there is none; one readout in memory at a time."""
    benchmark, needs = task.benchmark, task.benchmark.needs()
    out: dict[str, float | str] = {}
    what = f"scoring {task.model.card.name} under {len(specs)} specifications"
    held: tuple[str, Any] = ("", None)
    for done, spec in enumerate(sorted(specs, key=lambda s: str(s["readout"]))):
        watch(what, done, len(specs))
        options, readout = {k: v for k, v in spec.items() if k != "readout"}, str(spec["readout"])
        try:
            if held[0] != readout:
                held = ("", None)
                runner.rows.keep(set())
                asked = {n: read_as(need, readout) if len(needs) == 1 else need for n, need in needs.items()}
                named = {n: runner.rows.embeddings(j, asked[n], benchmark.card.label) for n, j in task.jobs.items()}
                held = (readout, beside(named) if set(named) == {""} else named)
            found = Scores.of(benchmark.score(held[1], **options), benchmark.card.name).metrics[benchmark.card.metric]
            out[str(spec)] = float(np.mean(np.atleast_1d(np.asarray(found, float))))
        except MissingError:
            raise
        except EosinError as error:
            out[str(spec)] = str(error)
    runner.rows.keep(set())
    return out


def _readouts(tasks: Sequence[Task], own: str) -> list[str]:
    """The benchmark's own readout, then those that the store has of any model; a model without one gives its default."""
    there = [
        (t.model.card, store.given_readouts(t.jobs[""].address)) for t in tasks if not isinstance(t.model, Precomputed)
    ]
    found: dict[tuple[tuple[str, ...], ...], str] = {}
    for readout in (own, *(f"{r}|default" for r in READOUTS)):
        try:
            found.setdefault(tuple(tuple(parts_of(readout, card, given)) for card, given in there), readout)
        except NotApplicable:
            if readout == own:
                raise
    return list(found.values())
