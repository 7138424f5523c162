"""`bench run`: plan, embed what is missing, score, record. One model after another; what fails leaves the rest standing."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from . import environment, record
from .benchmark import Benchmark, Embeddings, Need, Scores
from .cards import plain
from .embed import Engine, Job
from .errors import DataError, EosinError, MissingError, NotApplicable, said
from .extractor import parts_of
from .intervals import intervals, majority, with_groups
from .places import Places
from .plan import Plan, Task, against_of, benchmark_fingerprint
from .pool import of_items
from .precomputed import Precomputed
from .rows import Rows, beside, given_readouts

Watch = Callable[[str, int, int], None]


@dataclass
class Outcome:
    """What a run did: records written, tiles embedded and reused, what failed and why, what does not apply."""

    records: list[Path] = field(default_factory=list)
    embedded: int = 0
    reused: int = 0
    failed: list[dict[str, str]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)
    repaired: list[str] = field(default_factory=list)
    floor: list[Path] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)

    def fail(self, task: Task, error: BaseException) -> None:
        self.errors.append(error)
        if isinstance(error, MissingError):
            return self.missing.append(str(error)) if str(error) not in self.missing else None
        where = self.skipped if isinstance(error, NotApplicable) else self.failed
        where.append({"model": task.model.card.name, "benchmark": task.benchmark.card.name, "error": said(error)})


class Runner:
    """Carries out a plan.

    Args:
        engine: how to compute. plugins: {distribution: version} for the records.
        watch: called with (what, done, total) as work goes on.
    """

    def __init__(
        self, places: Places, engine: Engine, plugins: Mapping[str, str], watch: Watch = lambda *a: None
    ) -> None:
        self.places, self.engine, self.watch = places, engine, watch
        self.environment = environment.environment(dict(plugins))
        self.outcome = Outcome()
        self.filled: dict[Path, BaseException | dict[str, Any]] = {}
        self.rows = Rows(engine, places.home / "scratch", self._repair)

    def run(self, plan: Plan) -> Outcome:
        """Every task of the plan; a task whose data or weights are missing is counted as missing."""
        self.outcome.missing = list(plan.missing)
        by_model: dict[int, list[Task]] = {}
        for task in plan.tasks:
            by_model.setdefault(id(task.model), []).append(task)
        for tasks in by_model.values():
            for i, task in enumerate(tasks):
                if not task.error:
                    self._attempt(task)
                elif task.error not in plan.missing:
                    self.outcome.fail(task, (NotApplicable if task.inapplicable else DataError)(task.error))
                wanted = {job.address.folder for later in tasks[i + 1 :] for job in later.jobs.values()}
                self.rows.keep(wanted)
            for model in {id(m): m for t in tasks for m in (t.model, t.against) if m is not None}.values():
                model._module = None  # the next model needs the memory
        return self.outcome

    def _attempt(self, task: Task) -> None:
        try:
            self.outcome.records.append(self._score(task))
        except (Exception, SystemExit) as error:  # a stranger's benchmark may raise anything; the others still run
            self.outcome.fail(task, error)

    def ensure(self, job: Job, again: bool = False) -> dict[str, Any]:
        """Fill an address once a run; what it cost. The error again for an address that failed before.

        Args:
            again: parts were damaged and set aside: fill what is missing now.
        """
        key = job.address.folder
        if again or key not in self.filled:
            try:
                self.filled[key] = self._fill(job, again)
            except EosinError as error:
                self.filled[key] = error
        done = self.filled[key]
        if isinstance(done, BaseException):
            raise done
        return done

    def _fill(self, job: Job, again: bool) -> dict[str, Any]:
        if isinstance(job.extractor, Precomputed):
            return {}
        todo = job.address.rows_of(job.address.missing())
        self.outcome.reused += -todo if again else job.address.rows - todo
        if not todo:
            return {}
        what = f"{job.extractor.card.name} on {job.index.dataset.name}" + (
            f" ({job.view})" if job.view != "original" else ""
        )
        done, start = 0, time.perf_counter()

        def progress(rows: int) -> None:
            nonlocal done
            done += rows
            self.outcome.embedded += rows
            self.watch(f"embedding {what}", done, todo)

        self.watch(f"embedding {what}", 0, todo)
        self.engine.fill(job, progress)
        self.outcome.reused += todo - done  # what another process published meanwhile
        seconds = time.perf_counter() - start
        return {
            "tiles": done,
            "seconds": round(seconds, 3),
            "tiles_per_second": round(done / seconds, 2),
            **self.engine.where(),
        }

    def _repair(self, job: Job, parts: list[Path]) -> None:
        """Parts were damaged and set aside: embed them again."""
        self.outcome.repaired += [str(p) for p in parts]
        self.watch(f"repairing {len(parts)} damaged part(s): {', '.join(map(str, parts))}", 0, 0)
        self.ensure(job, again=True)

    def _score(self, task: Task) -> Path:
        """Embed if need be, score, and write the record."""
        benchmark, costs = task.benchmark, [self.ensure(job) for job in task.jobs.values()]
        needs = benchmark.needs()
        label = benchmark.card.label
        what = f"scoring {task.model.card.name} on {benchmark.card.name}"
        self.watch(what, 0, 0)
        named = {n: self.rows.embeddings(job, _as_asked(needs[n], task), label) for n, job in task.jobs.items()}
        emb = beside(named) if set(named) <= {"", "against"} else named
        start = time.perf_counter()
        passes_options = benchmark.protocol is not None and type(benchmark).score is Benchmark.score
        found = benchmark.score(emb, **task.options) if passes_options else benchmark.score(emb)
        scores = Scores.of(found, benchmark.card.name)
        seconds = time.perf_counter() - start
        path = (
            self.places.results
            / f"{task.model.card.name}@{self._print(task)}"
            / f"{benchmark.card.name}@{benchmark_fingerprint(task)}.json"
        )
        content = self._record(task, next(iter(named.values())), scores, seconds, [c for c in costs if c], path)
        first = next(iter(named.values()))
        items = of_items(first) if next(iter(needs.values())).rows == "tiles" else first
        record.write(path, content, with_groups(scores.predictions, items))
        return path

    def _print(self, task: Task) -> str:
        return next(iter(task.jobs.values())).address.about["model-fingerprint"]

    def _record(
        self, task: Task, emb: Embeddings, scores: Scores, seconds: float, costs: list[dict[str, Any]], path: Path
    ) -> dict[str, Any]:
        card, protocol = task.benchmark.card, task.benchmark.protocol
        job, needs = next(iter(task.jobs.values())), list(task.benchmark.needs().values())
        left_out = len(job.index.items) - len(emb)  # of items that are tiles
        if needs[0].rows == "tiles":
            emb = of_items(emb)
            left_out = len(job.index.items) - len(emb) if job.index.levels else left_out
        ddof = protocol.card.ddof if protocol else 1
        summaries = {
            m: record.summary(np.atleast_1d(np.asarray(v, float)).tolist(), ddof) for m, v in scores.metrics.items()
        }
        if card.metric not in summaries:
            raise DataError(
                f"{card.name}: score() gave {', '.join(summaries) or 'nothing'}, and the card's metric is {card.metric!r}. Make them agree."
            )
        how = intervals(summaries, scores, emb)
        return {
            "model": {
                **plain(task.model.card),
                "fingerprint": self._print(task),
                "precomputed": isinstance(task.model, Precomputed),
            },
            "benchmark": {**plain(card), "fingerprint": benchmark_fingerprint(task)},
            "protocol": {
                "name": protocol.card.name if protocol else card.protocol,
                "options": plain(task.options),
                "ddof": ddof,
            },
            "readout": {
                n: "+".join(
                    parts_of(task.readout or need.readout, task.jobs[n].extractor.card, given_readouts(task.jobs[n]))
                )
                or "given"
                for n, need in task.benchmark.needs().items()
            },
            "against": against_of(task) or None,
            "dataset": {
                **plain(job.index.dataset.card),
                "fingerprint": job.index.rows,
                "tiles_fingerprint": job.index.tiles,
                "rows": len(emb),
                "left_out": left_out,
                **({"tiles": len(job.index.table)} if job.index.levels else {}),
                **({"pooled": "mean"} if job.index.levels and needs[0].rows == "items" else {}),
                "classes": list(emb.classes),
                "counts": {} if emb.y is None else {c: int((emb.y == i).sum()) for i, c in enumerate(emb.classes)},
                "warnings": job.index.warnings,
            },
            "scores": summaries,
            "intervals": how,
            "reasons": {m: "not a number" for m, s in summaries.items() if None in s["values"]},
            "floor": {"majority": majority(list(summaries), emb, scores.predictions)},
            "notes": list(scores.notes),
            "details": record.details(scores.details),
            "predictions": record.predictions_path(path).name if scores.predictions is not None else None,
            "seed": task.options.get("seed"),
            "environment": self.environment,
            "embed": costs or _kept(path),
            "seconds": {"embed": round(sum(c["seconds"] for c in costs), 3), "score": round(seconds, 3)},
            "peak_memory_mb": environment.peak_memory_mb(),
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }


def _as_asked(need: Need, task: Task) -> Need:
    return need if task.readout is None else replace(need, readout=task.readout)


def _kept(path: Path) -> list[Any]:
    """What embedding cost when it was done: kept from the record of before when nothing was embedded now."""
    try:
        return record.read(path).get("embed", [])
    except ValueError:
        return []
