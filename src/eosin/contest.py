"""compare: models against each other, how alike they are, what leaks, and how much of a table is protocol."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np

from .cli import Desk, common, folders_of, merged, pairs
from .errors import EosinError, MissingError, UsageError

PAIRS = ("benchmark", "metric", "a", "b", "score_a", "score_b", "difference", "low", "high", "p", "p_holm", "verdict", "test", "units")  # fmt: skip
MARKS = {"best": " *", "alike": " ≈", "worse": "", "": " ?"}


@merged
@click.command()
@click.argument("models", nargs=-1)
@click.option("--model", "-m", "more", multiple=True, help="A model, as the arguments; may be given again.")
@click.option("--suite", "-s", "suites", multiple=True, help="The benchmarks of this suite.")
@click.option("--benchmark", "-b", "benchmarks", multiple=True, help="This benchmark; may be given again.")
@click.option("--dataset", "-d", "datasets", multiple=True, help="With --cka: this dataset; may be given again.")
@click.option("--metric", help="Another metric than each benchmark's own.")
@click.option("--option", "options", multiple=True, callback=pairs, help="Only records with this option, as folds=grouped; with --spec-curve: fix it.")  # fmt: skip
@click.option("--resamples", default=2000, type=click.IntRange(min=100), help="Of bootstrap and permutation.")
@click.option("--cka", is_flag=True, help="How alike two models see the same tiles, from stored embeddings.")
@click.option("--readout", default="cls|default", help="With --cka: which readout.")
@click.option("--folds-gap", is_flag=True, help="Paper folds beside folds that keep patients apart, and the gap.")
@click.option("--spec-curve", "curve", metavar="BENCHMARK", help="Score this benchmark under every admissible option, from the store.")  # fmt: skip
@click.option("--vary", multiple=True, callback=pairs, help="With --spec-curve: values to try, as k=5,15,50.")
@click.option("--cap", default=200, type=click.IntRange(min=1), help="With --spec-curve: the most specifications.")
@click.option("--out", type=click.Path(file_okay=False), help="A folder for the answer as csv, json and, of a curve, SVG.")  # fmt: skip
@click.option("--format", "how", type=click.Choice(["table", "markdown", "csv", "json"]), default="table")
@click.option("--quiet", is_flag=True, help="No progress and no remarks.")
@common
def compare(**o: Any) -> None:
    """Compare models: differences with intervals and p values, from records that are there.

    \b
    bench compare A B --suite breast            differences, Holm over the table; ranks for three models or more
    bench compare A B --cka --dataset bracs     how alike the embeddings are
    bench compare A --folds-gap -b idc-knn      what folds of tiles add to the score
    bench compare --spec-curve idc-knn -m A -m B
    """
    o["as_json"] = o["as_json"] or o["how"] == "json"
    folders = folders_of(o["results"])
    desk = Desk({**o, "results": None})
    models = [*o["models"], *o["more"]]
    benchmarks = list(dict.fromkeys([b for s in o["suites"] for b in desk.catalogue.suite(s)] + list(o["benchmarks"])))
    if not models:
        raise UsageError("No model: bench compare A B --suite S. `bench leaderboard` shows which have records.")
    if o["curve"]:
        return _curve(desk, o, models)
    if o["cka"]:
        return _cka(desk, o, models, benchmarks)
    if not benchmarks:
        raise UsageError("Compared on what? Add --suite S or --benchmark B, or --cka.")
    for b in benchmarks:
        desk.catalogue.benchmarks.get(b, "bench list benchmarks")
    from .leaderboard import collect

    records, left = collect(folders or [desk.places.results])
    for text in left:
        desk.console.warn(f"left out: {text}")
    names = {_as_recorded(desk, m): m if _elsewhere(m) else m.partition("@")[0] for m in models}
    (_gap if o["folds_gap"] else _contest)(desk, o, records, names, benchmarks)


def _as_recorded(desk: Desk, text: str) -> str:
    """A model's name as records have it: a path becomes name@fingerprint, an alias its name."""
    from .plan import Planner

    if _elsewhere(text):
        model = desk.catalogue.model(text)
        return f"{model.card.name}@{Planner(desk.catalogue, desk.places).print_of(model)}"
    name, at, mark = text.partition("@")
    known = desk.catalogue.models.things.get(name)
    return (known.card.name if known is not None else name) + at + mark


def _elsewhere(text: str) -> bool:
    """Whether a model is asked for by a path or a kind, and not by a name."""
    return "/" in text or text.endswith((".yaml", ".yml")) or ":" in text


class Patients:
    """Finds the patients of predictions that do not carry them, where the dataset is on this machine and unchanged."""

    def __init__(self, desk: Desk) -> None:
        from .plan import Planner

        self.desk, self.planner = desk, Planner(desk.catalogue, desk.places, desk.console.watch)

    def index(self, name: str) -> Any:
        """The index of a dataset that is here; None where it is not: nothing is fetched or made."""
        thing = self.desk.catalogue.datasets.things.get(name)
        if thing is None or not thing.present(self.desk.places.data):
            return None
        try:
            return self.planner.index(name)
        except EosinError:
            return None

    def __call__(self, record: Mapping[str, Any], ids: np.ndarray) -> np.ndarray | None:
        index = self.index(str(record["dataset"].get("name")))
        group = None if index is None else index.items.known("group")
        if group is None or index.rows != record["dataset"].get("fingerprint"):
            return None
        of = dict(zip(index.items["id"].tolist(), group.tolist(), strict=True))
        return np.array([of[i] for i in ids.tolist()]) if set(ids.tolist()) <= set(of) else None


def _contest(desk: Desk, o: dict[str, Any], records: list[Any], names: dict[str, str], benchmarks: list[str]) -> None:
    """`names`: how each model was asked for, under its name in the records."""
    from . import compare as verb

    patients, models = Patients(desk), list(names)
    found = verb.compare(
        records, models, benchmarks, patients, o["options"], o["metric"], o["resamples"], desk.console.watch, names
    )
    desk.console.finish()
    verb.refuse_all(found)
    remarks = _remarks(desk, records, models, benchmarks, patients)
    if not desk.console.as_json:
        rows = [[_text(p[k], k) for k in PAIRS] for p in found.pairs]
        _show(desk, o, "compare", list(PAIRS), rows, found.pairs)
        if o["how"] == "table":
            _standings(desk, found)
            for text in remarks:
                desk.console.say(text)
    desk.console.fact({**asdict(found), "leakage": remarks})
    for text in found.missing:
        print(f"missing: {text}", file=sys.stderr)
    for text in found.refused:
        print(f"not compared: {text}", file=sys.stderr)
    sys.exit(1 if found.refused else 3 if found.missing else 0)


def _standings(desk: Desk, found: Any) -> None:
    """Models by benchmarks with marks, and mean ranks, where there are three models or more."""
    from .record import value

    if len(found.models) < 3:
        return
    of = {(s["benchmark"], s["model"]): s for s in found.scores}
    titles = list(dict.fromkeys(s["benchmark"] for s in found.scores))
    rows = [
        [
            t,
            *(
                "–" if (s := of.get((t, m))) is None else value(s["mean"], s["std"]) + MARKS[s["mark"]]
                for m in found.models
            ),
        ]
        for t in titles
    ]
    if found.ranks:
        rows.append([f"mean rank ({found.counted})", *(f"{found.ranks[m]:.2f}" for m in found.models)])
    print()
    desk.console.table(["benchmark", *found.models], rows)
    print("* best; ≈ not distinguishable from it (p adjusted by Holm over this table, 0.05); ? not testable")
    if found.ranks:
        p = "–" if found.friedman is None else f"{found.friedman:.3g}"
        print(
            f"Mean ranks that differ by less than {found.critical:.2f} are not told apart (Nemenyi, 0.05; Friedman p {p})."
        )


def _remarks(desk: Desk, records: list[Any], models: list[str], benchmarks: list[str], patients: Patients) -> list[str]:
    """What leaks between these models and the datasets of these benchmarks."""
    from . import leakage
    from .compare import of_model

    said: dict[str, None] = {}
    for model in models:
        for r in of_model(records, model):
            if r["benchmark"].get("name") in benchmarks:
                known = desk.catalogue.datasets.things.get(str(r["dataset"].get("name")))
                said |= dict.fromkeys(leakage.mark(r["model"], known.card if known is not None else r["dataset"]))
                index = patients.index(str(r["dataset"].get("name"))) if r["model"].get("distilled") else None
                if index is not None:
                    said |= dict.fromkeys(leakage.of_student(r["model"], index.items, index.dataset.name))
    return list(said)


def _gap(desk: Desk, o: dict[str, Any], records: list[Any], names: dict[str, str], benchmarks: list[str]) -> None:
    from .leakage import folds_gap

    rows = folds_gap(records, names, benchmarks, Patients(desk))
    desk.console.finish()
    columns = ["model", "benchmark", "metric", "paper", "grouped", "gap", "low", "high"]
    _show(desk, o, "folds-gap", columns, [[_text(r[k], k) for k in columns] for r in rows], rows)
    desk.console.fact({"gaps": rows})
    if not rows:
        sys.exit(3)


def _cka(desk: Desk, o: dict[str, Any], models: list[str], benchmarks: list[str]) -> None:
    from . import alike
    from .plan import Planner

    if len(models) != 2:
        raise UsageError("CKA compares two models: bench compare A B --cka --dataset D.")
    planner = Planner(desk.catalogue, desk.places, desk.console.watch)
    a, b = (_model(planner, m) for m in models)
    datasets = [*o["datasets"], *(desk.catalogue.benchmark(n).card.dataset for n in benchmarks)]
    datasets = list(dict.fromkeys(datasets)) or alike.stored_datasets(planner, [a, b])
    if not datasets:
        raise MissingError(
            f"The store holds no dataset that both models were embedded on. Make them: bench embed --model {models[0]} --model {models[1]} --dataset D"
        )
    rows = alike.cka(planner, a, b, datasets, o["readout"])
    desk.console.finish()
    columns = ["dataset", "a", "b", "cka", "cka_debiased", "rows", "dimensions"]
    _show(desk, o, "cka", columns, [[_text(r[k], k) for k in columns] for r in rows], rows)
    for row in rows:
        for note in row["notes"]:
            desk.console.say(f"{row['dataset']}: {note}")
    desk.console.fact({"cka": rows})


def _model(planner: Any, text: str) -> Any:
    """A model by any of its names; with @fingerprint, as records have it, only where the card of today has that one."""
    name, _, mark = text.partition("@")
    if not mark or name not in planner.catalogue.models.things:
        return planner.catalogue.model(text)
    model = planner.catalogue.model(name)
    today = planner.print_of(model)
    if not today.startswith(mark):
        raise UsageError(
            f"{text}: the card of {name} has the fingerprint {today} today. Name that, or the other's card."
        )
    return model


def _curve(desk: Desk, o: dict[str, Any], models: list[str]) -> None:
    from . import curve as verb
    from . import published, spread
    from .drawing import svg
    from .embed import Engine
    from .plan import Planner

    planner = Planner(desk.catalogue, desk.places, desk.console.watch)
    varied = {k: v.split(",") for k, v in o["vary"].items()}
    found = verb.run(
        planner, desk.catalogue.benchmark(o["curve"]), [desk.catalogue.model(m) for m in dict.fromkeys(models)],
        Engine(device="cpu"), o["options"], varied, o["cap"], desk.console.watch,
    )  # fmt: skip
    desk.console.finish()
    left: list[str] = []
    spread.add_published(found, published.rows(desk.catalogue, left))
    rows, holds, long = spread.summary(found), spread.survival(found), spread.long_rows(found)
    columns = ["model", "own", "min", "median", "max", "rank_own", "rank_best", "rank_worst", "first", "published", "spread", "reproduce", "nearest"]  # fmt: skip
    _show(desk, o, f"spec-curve-{found.benchmark}", columns, [[_text(r[k], k) for k in columns] for r in rows], long)
    if o["out"]:
        _write(
            Path(o["out"]) / f"spec-curve-{found.benchmark}.svg",
            svg(spread.picture(found), f"Specification curve of {found.benchmark}"),
        )
    tried = "; ".join(f"{k}: {', '.join(map(str, v))}" for k, v in found.choices.items())
    desk.console.say(f"\n{len(found.specs)} of {found.admissible} admissible specifications. {tried}")
    if len(found.specs) < found.admissible:
        desk.console.say(
            f"Above the cap of {o['cap']}: the benchmark's own, each choice changed alone, and others drawn at random. Fix some with --option, or raise --cap."
        )
    for choice, why in found.dropped.items():
        desk.console.say(f"not possible: {choice}: {why}")
    if holds["compared"] and len(found.models) > 1:
        desk.console.say(
            f"The ranking under the benchmark's own options holds in {holds['same_ranking']} of {holds['compared']} specifications, its first place in {holds['same_first']}."
        )
    desk.console.fact(
        {
            "benchmark": found.benchmark,
            "metric": found.metric,
            "models": rows,
            "ranking": holds,
            "choices": found.choices,
            "dropped": found.dropped,
            "admissible": found.admissible,
            "specifications": long,
        }  # fmt: skip
    )


def _text(value: Any, key: str) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        if key.startswith("p") and key in ("p", "p_holm"):
            return "<0.001" if value < 0.001 else f"{value:.3f}"
        if key.startswith("rank"):
            return f"{value:.0f}"
        return f"{value:+.3f}" if key in ("difference", "gap") else f"{value:.3f}"
    return " x ".join(map(str, value)) if isinstance(value, list) else str(value)


def _show(desk: Desk, o: dict[str, Any], name: str, columns: Sequence[str], rows: list[list[str]], facts: list[dict[str, Any]]) -> None:  # fmt: skip
    """A table as it was asked for, on stdout; as csv and json into the folder --out."""
    from .tables import Cell, Table, clean, csv_text, markdown

    keys = list(facts[0]) if facts else list(columns)
    raw = csv_text(keys, [[_flat(f[k]) for k in keys] for f in facts])
    if o["out"]:
        _write(Path(o["out"]) / f"{name}.csv", raw)
        _write(Path(o["out"]) / f"{name}.json", json.dumps(facts, indent=1, ensure_ascii=False, default=str) + "\n")
    if desk.console.as_json:
        return
    if o["how"] == "csv":
        print(raw, end="")
    elif o["how"] == "markdown":
        print(markdown(Table(list(columns), [[Cell(v) for v in row] for row in rows])), end="")
    else:
        desk.console.table(columns, [[clean(v) for v in row] for row in rows])


def _flat(value: Any) -> Any:
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else value


def _write(path: Path, text: str) -> None:
    from .files import publish

    try:
        publish(path, text.encode())
    except OSError as error:
        raise UsageError(f"Cannot write {path}: {error.strerror}. Name another folder with --out.") from error


COMMANDS = {"compare": compare}
