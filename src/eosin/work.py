"""run, embed, score: the commands that compute."""

from __future__ import annotations

import json
import sys
import traceback
from itertools import product
from pathlib import Path
from typing import Any

import click

from .cli import Desk, common, pairs
from .errors import EosinError, MissingError, StoreError, UsageError
from .hands import chosen_models, compute, engine, read_shard


@click.command()
@click.option("--suite", "-s", "suites", multiple=True, help="A list of benchmarks; `bench list suites`.")
@click.option("--benchmark", "-b", "benchmarks", multiple=True, help="One benchmark; may be given again.")
@click.option("--option", "options", multiple=True, callback=pairs, help="A protocol's option, as k=15; recorded.")
@click.option("--folds", help="Short for --option folds=…: paper, grouped, site.")
@click.option("--readout", help="cls, mean, cls+mean, pooled or grid instead of what the benchmark asks for.")
@click.option("--against", help="The other model, for benchmarks that compare two (CKA).")
@click.option(
    "--available", is_flag=True, help="Run what is there and report the rest as missing, instead of stopping."
)
@click.option("--no-floor", is_flag=True, help="Do not add the row of color-stats to the table.")
@click.option("--dry-run", is_flag=True, help="Show the plan: what would be embedded, from where, what is missing.")
@compute
@common
def run(**o: Any) -> None:
    """Score models on benchmarks.

    Tiles are embedded once and stored; every benchmark on the same dataset reuses them. Records go to the results folder,
    one JSON file a model and benchmark.
    """
    desk = Desk(o)
    from .plan import Planner

    console = desk.console
    names = [b for s in o["suites"] for b in desk.catalogue.suite(s)] + list(o["benchmarks"])
    if not names:
        raise UsageError(
            "Nothing to run: add --benchmark NAME or --suite NAME. `bench list benchmarks` shows them all."
        )
    options = {**o["options"], **({"folds": o["folds"]} if o["folds"] else {})}
    models = chosen_models(desk, o)
    benchmarks = [desk.catalogue.benchmark(n) for n in dict.fromkeys(names)]
    planner = Planner(desk.catalogue, desk.places, console.watch)
    against = desk.catalogue.model(o["against"], precision=o["precision"], stored=o["stored"]) if o["against"] else None
    plan = planner.plan(models, benchmarks, options, o["readout"], against)
    console.finish()
    if o["dry_run"]:
        return show_plan(console, plan)
    if plan.missing and not o["available"]:
        raise_missing(console, plan)
    if o["kind"] == "ray":
        from .cluster import ClusterRunner as Runner
    else:
        from .run import Runner  # type: ignore[assignment]
    runner = Runner(desk.places, engine(o, console), desk.catalogue.distributions(), console.watch)
    outcome = runner.run(plan)
    if not console.as_json and not o["no_floor"]:
        add_floor(desk, planner, runner, benchmarks, options, plan)
    console.finish()
    report(desk, outcome, o["debug"], o["readout"])


def add_floor(desk: Desk, planner: Any, runner: Any, benchmarks: list[Any], options: Any, plan: Any) -> None:
    """Score color-stats too, so that no number stands without its floor. It never fails a run."""
    good = [t.benchmark for t in plan.tasks if not t.error]
    floor = [
        b
        for b in benchmarks
        if b in good and all("default" in n.readout.split("|") for n in b.needs().values()) and len(b.needs()) == 1
    ]
    if (
        not floor
        or "color-stats" not in desk.catalogue.models.things
        or any(type(t.model) is type(desk.catalogue.models.things["color-stats"]) for t in plan.tasks)
    ):
        return
    from .run import Runner

    below = Runner(desk.places, runner.engine, desk.catalogue.distributions(), desk.console.watch)
    below.environment = runner.environment
    outcome = below.run(planner.plan([desk.catalogue.model("color-stats")], floor, options))
    runner.outcome.floor = outcome.records


def show_plan(console: Any, plan: Any) -> None:
    rows = plan.describe()
    if not console.as_json:
        console.table(
            ["model", "dataset", "view", "tiles", "to embed", "from"],
            [[r["model"], r["dataset"], _seen(r), str(r["tiles"]), str(r["embed"]), r["source"]] for r in rows],
        )
        for task in plan.tasks:
            if task.error and task.error not in plan.missing:
                print(f"will fail: {task.model.card.name} on {task.benchmark.card.name}: {task.error}")
        for text in plan.missing:
            print(f"missing: {text}")
    console.fact(
        {
            "plan": rows,
            "missing": plan.missing,
            "failed": [t.error for t in plan.tasks if t.error and t.error not in plan.missing],
        }
    )


def _seen(row: dict[str, Any]) -> str:
    return row["view"] + ("" if row["geometry"] == "card" else f", {row['geometry']} px")


def raise_missing(console: Any, plan: Any) -> None:
    if console.as_json:
        console.fact({"records": [], "embedded": 0, "reused": 0, "failed": [], "missing": plan.missing})
    some = "" if all(t.error for t in plan.tasks) else "\nNothing was run. Add --available to run what is there."
    raise MissingError("\n\n".join(plan.missing) + some)


def report(desk: Desk, outcome: Any, debug: bool, readout: str | None) -> None:
    """Print what a run did, and end with its exit code: 2 also where the readout asked for by name was nowhere."""
    console = desk.console
    if console.as_json:
        keys = ("embedded", "reused", "failed", "missing", "skipped", "repaired")
        console.fact({"records": [str(p) for p in outcome.records], **{k: getattr(outcome, k) for k in keys}})
    else:
        from .leaderboard import run_table

        columns, rows, remarks = run_table(outcome.records, outcome.floor)
        if rows:
            console.table(columns, rows)
        for text in remarks:
            print(text)
        console.say(
            f"\n{len(outcome.records)} record(s) in {desk.places.results}; {outcome.embedded} tiles embedded, {outcome.reused} reused."
        )
    for row in outcome.skipped:
        console.warn(f"not applicable: {row['model']} on {row['benchmark']}: {row['error']}")
    for row in outcome.failed:
        print(f"failed: {row['model']} on {row['benchmark']}: {row['error']}", file=sys.stderr)
    for text in outcome.missing:
        print(f"missing: {text}", file=sys.stderr)
    if debug:
        for error in outcome.errors:
            traceback.print_exception(error)
    nowhere = readout and outcome.skipped and not outcome.records
    sys.exit(1 if outcome.failed else 3 if outcome.missing else 2 if nowhere else 0)


@click.command()
@click.option("--dataset", "-d", "datasets", multiple=True, required=True, help="A dataset; may be given again.")
@click.option(
    "--view", "views", multiple=True, default=("original",), help="A view such as jpeg-30; may be given again."
)
@click.option("--readout", default="default", help="`grid` stores dense features as well.")
@click.option("--geometry", default="card", help="`224`: shorter side 224 and centre crop, whatever the card says.")
@click.option("--shard", default="1/1", help="i/n: only the i-th of n parts of the work, for array jobs.")
@click.option(
    "--status", is_flag=True, help="Say what is there and what is missing (of --shard i/n: of that shard), and stop."
)
@compute
@common
def embed(**o: Any) -> None:
    """Embed datasets and store the rows. A killed run loses at most the block in work; run it again to go on."""
    desk = Desk(o)
    from .benchmark import Need
    from .extractor import dense
    from .plan import Planner
    from .precomputed import Precomputed
    from .views import view as find_view

    shard = read_shard(o["shard"])
    if o["readout"] != "default" and not dense(o["readout"]):
        desk.console.warn(
            f"--readout {o['readout']} changes nothing: every vector that a model gives is stored, and grid or grid-pre-norm adds maps"
        )
    planner = Planner(desk.catalogue, desk.places, desk.console.watch)
    for name in o["views"]:
        find_view(name)
    models = chosen_models(desk, o)
    for model in (m for m in models if isinstance(m, Precomputed)):
        raise UsageError(f"{model.card.name} are embeddings already: `bench run` reads them where they lie.")
    needs = [Need(d, v, o["readout"], o["geometry"]) for d in o["datasets"] for v in o["views"]]
    jobs, absent = [], {}
    for model, need in product(models, needs):
        try:
            jobs.append(planner.job(model, need))
        except MissingError as lacking:
            absent[str(lacking)] = lacking
    if absent:
        raise MissingError("\n\n".join(absent))
    desk.console.finish()
    chosen = engine(o, desk.console, shard)
    rows, failed, codes = [], [], {0}
    for job in jobs:
        row = {
            "model": job.extractor.card.name,
            "dataset": job.index.dataset.name,
            "view": job.view,
            "tiles": job.address.rows,
            "reused": job.address.rows_of(job.address.present()),
        }
        row["embedded"], error = (0, None) if o["status"] else filled(desk.console, chosen, job)
        row["missing_blocks"] = missing = chosen.missing(job.address)
        row["missing"] = job.address.rows_of(missing)
        if missing and not error and not o["status"]:
            error = StoreError(
                f"{row['missing']} tiles were taken away from {job.address.folder} meanwhile. Run it again."
            )
        if error and o["debug"]:
            raise error
        if error:
            codes.add(error.exit_code)
            failed.append({"model": row["model"], "dataset": row["dataset"], "error": str(error)})
        rows.append({**row, "address": str(job.address.folder)})
    desk.console.finish()
    if not desk.console.as_json:
        columns = ["model", "dataset", "view", "tiles", "embedded", "reused", "missing"]
        desk.console.table(columns, [[str(r[c]) for c in columns] for r in rows])
    desk.console.fact(
        {
            "jobs": rows,
            "embedded": sum(r["embedded"] for r in rows),
            "reused": sum(r["reused"] for r in rows),
            "missing": sum(r["missing"] for r in rows),
            "failed": failed,
        }
    )
    for row in failed:
        print(f"failed: {row['model']} on {row['dataset']}: {row['error']}", file=sys.stderr)
    sys.exit(1 if 1 in codes else max(codes))


def filled(console: Any, chosen: Any, job: Any) -> tuple[int, EosinError | None]:
    """How many tiles were embedded now, and what went wrong."""
    what, done = f"embedding {job.extractor.card.name} on {job.index.dataset.name}", 0
    todo = job.address.rows_of(chosen.missing(job.address))

    def progress(n: int) -> None:
        nonlocal done
        done += n
        console.watch(what, done, todo)

    try:
        chosen.fill(job, progress)
    except EosinError as error:
        return done, error
    return done, None


@click.command()
@click.option("--protocol", "-p", required=True, help="A protocol such as g2l-knn@1; `bench list protocols`.")
@click.option(
    "--embeddings",
    "-e",
    required=True,
    type=click.Path(dir_okay=False),
    help="An npz or h5 file with X (n, d), y, and perhaps group, slide, centre, split, fold.",
)
@click.option("--option", "options", multiple=True, callback=pairs, help="A protocol's option, as k=15.")
@common
def score(protocol: str, embeddings: str, options: dict[str, str], **o: Any) -> None:
    """Apply a protocol to embeddings that were made elsewhere. With --json also the details of a record: counts, pairs, curves."""
    desk = Desk(o)
    from .record import value
    from .score import from_file
    from .score import score as apply

    found = desk.catalogue.protocol(protocol)
    found.card.complete(options)
    result = apply(found, from_file(Path(embeddings)), options)
    if not desk.console.as_json:
        rows = [
            [m, value(s["mean"], s["std"]), value(s["low"]), value(s["high"]), str(len(s["values"]))]
            for m, s in result["scores"].items()
        ]
        desk.console.table(
            ["metric", "mean ± std", "low", "high", "values"],
            rows,
            f"{result['protocol']} {json.dumps(result['options'])}",
        )
        for note in result["notes"]:
            print(f"note: {note}")
    desk.console.fact(result)


COMMANDS = {"run": run, "embed": embed, "score": score}
