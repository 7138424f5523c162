"""The plan of a run: which embeddings are needed, which are there, what is missing. Nothing is loaded yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .benchmark import Benchmark, Need
from .cards import fingerprint, plain
from .dataset import Dataset
from .embed import Job
from .errors import EosinError, MissingError, NotApplicable, UsageError, said
from .extractor import FeatureExtractor, dense, parts_of
from .index import Index, open_index
from .places import Places
from .plugins import Catalogue
from .precomputed import Precomputed
from .store import Address, Memory

Watch = Callable[[str, int, int], None]  # what is being done, done, in all


@dataclass
class Task:
    """One model on one benchmark: the addresses it needs, by the names of `needs()`, and its options.

    `against` is the other model of a benchmark that compares two, `error` why the task cannot be done, `inapplicable` whether
    that is nobody's fault.
    """

    model: FeatureExtractor
    benchmark: Benchmark
    options: dict[str, Any]
    readout: str | None = None
    jobs: dict[str, Job] = field(default_factory=dict)
    error: str = ""
    inapplicable: bool = False
    against: FeatureExtractor | None = None


@dataclass
class Plan:
    """Everything a run will do.

    Attributes:
        jobs: the distinct addresses to fill, in order; several tasks share one.
        missing: what the user must fetch, one text each.
    """

    tasks: list[Task]
    jobs: list[Job]
    missing: list[str]

    def describe(self) -> list[dict[str, Any]]:
        """One row an address: tiles in all, to embed now, already stored, and where the pixels come from."""
        rows = []
        for job in self.jobs:
            todo = 0 if isinstance(job.extractor, Precomputed) else job.address.rows_of(job.address.missing())
            rows.append(
                {
                    "model": job.extractor.card.name,
                    "dataset": job.index.dataset.name,
                    "view": job.view,
                    "geometry": job.geometry,
                    "tiles": job.address.rows,
                    "embed": todo,
                    "reuse": job.address.rows - todo,
                    "source": str(job.index.root),
                    "address": str(job.address.folder),
                }
            )
        return rows


class Planner:
    """Makes plans: opens each dataset once, fingerprints each model once."""

    def __init__(self, catalogue: Catalogue, places: Places, watch: Watch = lambda what, done, total: None) -> None:
        self.catalogue, self.places, self.watch = catalogue, places, watch
        self.memory = Memory(places.home / "hashes.json")
        self.opened: dict[str, Index | EosinError] = {}
        self.prints: dict[int, str] = {}

    def index(self, name: str) -> Index:
        """The index of a dataset; the same error again for one that failed before."""
        if name not in self.opened:
            dataset: Dataset = self.catalogue.datasets.get(name, "bench list datasets", self.catalogue.broken_hint())
            try:
                self.opened[name] = open_index(
                    dataset,
                    self.places.data,
                    self.places.indexes,
                    progress=lambda done, total: self.watch(f"reading {name}", done, total),
                )
            except EosinError as error:
                self.opened[name] = error
        found = self.opened[name]
        if isinstance(found, EosinError):
            raise found
        return found

    def print_of(self, model: FeatureExtractor) -> str:
        if id(model) not in self.prints:
            self.prints[id(model)] = model.fingerprint(self.memory)
        return self.prints[id(model)]

    def job(self, model: FeatureExtractor, need: Need) -> Job:
        """The address of a need; MissingError or DataError when data or weights are not as they should be."""
        if isinstance(model, Precomputed) and need.view != "original":
            raise NotApplicable(
                f"Embeddings that another tool made are of the images as they are, and {need.view} is another view. "
                "Embed with the model itself."
            )
        index = self.index(need.dataset)
        grid = need.readout if dense(need.readout) else ""
        extra = "".join(
            f"+{part}"
            for part, plainly in (
                (need.view, need.view == "original"),
                (need.geometry, need.geometry == "card"),
                (grid.split("|")[0], not grid),
            )
            if not plainly
        )
        mark = self.print_of(model)
        folder = self.places.store / f"{model.card.name}@{mark}" / f"{need.dataset}@{index.tiles}{extra}"
        about = {
            "model": plain(model.card),
            "model-fingerprint": mark,
            "dataset": plain(index.dataset.card),
            "dataset-fingerprint": index.tiles,
            "view": need.view,
            "geometry": need.geometry,
        }
        for side, places in (("model", ("weights",)), ("dataset", ("root", "base"))):
            for place in places:  # where things lay on this machine is nobody else's business
                about[side].pop(place, None)
        return Job(model, index, Address(Path(folder), len(index.table), about), need.view, need.geometry, grid)

    def plan(
        self,
        models: Sequence[FeatureExtractor],
        benchmarks: Sequence[Benchmark],
        options: Mapping[str, Any],
        readout: str | None = None,
        against: FeatureExtractor | None = None,
    ) -> Plan:
        """The plan of these models on these benchmarks.

        Args:
            options: protocol options from the command line; each must be known to at least one protocol.
            against: the other model of the benchmarks that compare two; without one they do not apply.

        Raises:
            UsageError: an option that no protocol has, or a value it does not take; nothing but comparisons, and no partner.
        """
        known = {o for b in benchmarks if b.protocol for o in b.protocol.card.options}
        wrong = [o for o in options if o not in known]
        if wrong:
            raise UsageError(
                f"No protocol of these benchmarks has the option {', '.join(wrong)}. Options: {', '.join(sorted(known)) or 'none'}; `bench show PROTOCOL` explains them."
            )
        pairs = [b for b in benchmarks if compares(b)]
        if pairs and against is None and len(pairs) == len(benchmarks):
            raise UsageError(f"{pairs[0].card.name} compares two models: name the other with --against MODEL.")
        if against is not None and not pairs:
            raise UsageError("--against names the other model of a comparison, and no benchmark here compares two.")
        tasks = [
            Task(m, b, options_of(b, options), readout, against=against if b in pairs else None)
            for m in models
            for b in benchmarks
        ]
        missing: dict[str, None] = {}
        jobs: dict[Path, Job] = {}
        for task in tasks:
            try:
                _sound(task)
                for name, need in task.benchmark.needs().items():
                    model = task.against if need.against else task.model
                    if model is None:
                        raise NotApplicable("It compares two models: name the other with --against MODEL.")
                    if readout is not None:
                        parts_of(readout, model.card, model.card.readouts)
                    job = self.job(model, need if readout is None else read_as(need, readout))
                    task.jobs[name] = job = jobs.setdefault(job.address.folder, job)
                    if model.available() != "here" and job.address.missing() and (error := model.missing_weights()):
                        raise error
            except NotApplicable as error:
                task.error, task.inapplicable = str(error), True
            except MissingError as error:
                task.error = str(error)
                missing[str(error)] = None
            except Exception as error:  # a stranger's needs() or items() may raise anything
                task.error = said(error)
        if readout is not None and tasks and all(t.inapplicable for t in tasks):
            raise UsageError(tasks[0].error)  # what was asked for by name is nowhere: a slip of the pen
        return Plan(tasks, list(jobs.values()), list(missing))


def _sound(task: Task) -> None:
    """What would be found only after embedding: UsageError for an option that must be given and is not, and for a row whose
    metric its protocol does not give."""
    benchmark, card, protocol = task.benchmark, task.benchmark.card, task.benchmark.protocol
    lacking = {n: o for n, o in protocol.card.options.items() if o.required} if protocol else {}
    for name, option in lacking.items():
        if task.options.get(name) is None:
            raise UsageError(f"{card.name} needs the option {name}: {option.required}")
    given = protocol.card.metrics if protocol is not None and type(benchmark).score is Benchmark.score else ()
    if given and card.metric not in given:
        raise UsageError(
            f"{card.name}: metric {card.metric!r} is none of {', '.join(given)}, which {card.protocol} gives. Correct the row."
        )


def compares(benchmark: Benchmark) -> bool:
    """Whether a benchmark compares two models; what a stranger's needs() raises is said later, by its task."""
    try:
        return any(need.against for need in benchmark.needs().values())
    except Exception:
        return False


def read_as(need: Need, readout: str) -> Need:
    import dataclasses

    return dataclasses.replace(need, readout=readout)


def _facts(need: Need) -> dict[str, Any]:
    """What a need asks beyond the usual: a question that can be asked later leaves the addresses of before."""
    usual = plain(Need(need.dataset))
    return {"dataset": need.dataset, **{k: v for k, v in plain(need).items() if v != usual[k]}}


def options_of(benchmark: Benchmark, given: Mapping[str, Any]) -> dict[str, Any]:
    """The protocol's options, complete: defaults, then the benchmark card's, then the command line's."""
    if benchmark.protocol is None:
        return {}
    card = benchmark.protocol.card
    own = {k: v for k, v in given.items() if k in card.options}
    return card.complete({**benchmark.card.options, **own})


def against_of(task: Task) -> str:
    """The other model as name@fingerprint; "" where there is none."""
    needs = task.benchmark.needs()
    other = next((job for n, job in task.jobs.items() if needs[n].against), None)
    return "" if other is None else f"{other.extractor.card.name}@{other.address.about['model-fingerprint']}"


def benchmark_fingerprint(task: Task) -> str:
    """Protocol, options, metric, readouts, datasets: all that makes this question another question."""
    protocol = task.benchmark.protocol
    needs = {
        n: _facts(need if task.readout is None else read_as(need, task.readout))
        for n, need in task.benchmark.needs().items()
    }
    return fingerprint(
        {
            "card": task.benchmark.card.facts,
            "protocol": protocol.card.name if protocol else task.benchmark.card.protocol,
            "options": task.options,
            "needs": needs,
            "datasets": {n: job.index.rows for n, job in task.jobs.items()},
            **({"against": against_of(task)} if task.against else {}),
        }
    )
