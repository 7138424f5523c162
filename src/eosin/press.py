"""report, export, import: the commands that carry results to people and to other machines."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from .cli import Desk, as_recorded, common, folders_of, merged
from .errors import DataError, UsageError, unknown

SUITE = click.option(
    "--suite", "-s", "suites", multiple=True, help="Only benchmarks of this suite; may be given again."
)
BENCHMARK = click.option(
    "--benchmark", "-b", "benchmarks", multiple=True, help="Only this benchmark; may be given again."
)
MODEL = click.option(
    "--model", "-m", "models", multiple=True, callback=as_recorded, help="Only this model; may be given again."
)


@click.command()
@SUITE
@BENCHMARK
@MODEL
@click.option("--out", default="report.html", type=click.Path(dir_okay=False), help="The file to write.")
@click.option(
    "--figures", "folder", type=click.Path(file_okay=False), help="Also write each figure there, as SVG and as PNG."
)
@click.option(
    "--with", "which", type=click.Choice(["measured", "published", "both"]), default="both", help="Which values."
)
@click.option(
    "--headline",
    default="",
    help="The benchmark that is drawn against size and speed (default: TP53, else the commonest).",
)
@click.option("--title", default="", help="The heading.")
@common
def report(out: str, folder: str | None, which: str, headline: str, title: str, **o: Any) -> None:
    """Write one HTML file with the leaderboard, every benchmark's folds and intervals, and figures; it works offline."""
    desk = _desk(o)
    from . import leaderboard
    from .figures import figures
    from .gathered import gather
    from .report import report as page

    records, left = _records(desk, o)
    left += leaderboard.conflicts(records)
    printed, names = ([], None) if which == "measured" else _published(desk, records, o, left)
    for text in left:
        desk.console.warn(f"left out, or in conflict: {text}")
    found = gather([] if which == "published" else records, printed, names, _cards(desk))
    if not found.cells:
        raise DataError(
            f"There is nothing to report: no record in {desk.places.results} fits. Make some: bench run --model efficientnet-lite0 --suite phantom"
        )
    if headline and headline not in {c.benchmark for c in found.columns}:
        raise unknown("benchmark among these records", headline, {c.benchmark for c in found.columns})
    drawn = figures(found, headline)
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    title = title or (f"eosin: {', '.join(o['suites'])}" if o["suites"] else "eosin report")
    own = _own_options(desk, {c.benchmark for c in found.columns})
    models, short = set(desk.catalogue.models.things), [_short(t, o["results"]) for t in left]
    text = page(found, drawn, title, _version(), _suites(desk, o), short, own, today, models)
    _write(Path(out), text.encode())
    paths = _draw(drawn, Path(folder)) if folder else []
    desk.console.fact(
        {"out": str(Path(out).absolute()), "records": len(records), "figures": [f.name for f in drawn], "files": paths, "left_out": left},
        f"{out}: {len(found.models)} models, {len(found.columns)} columns, {len(drawn)} figures, {len(text.encode()) / 1e6:.1f} MB",
    )  # fmt: skip


@click.command()
@click.argument("target", metavar="[DIR|FILE.zip]", required=False, type=click.Path())
@SUITE
@BENCHMARK
@MODEL
@click.option(
    "--format",
    "how",
    type=click.Choice(["bundle", "hf-model-index"]),
    default="bundle",
    help="A bundle of records, or YAML for the model's page on the Hugging Face hub, on stdout.",
)
@click.option("--no-predictions", is_flag=True, help="Leave out the predictions, whose tile ids may name patients.")
@common
def export(target: str | None, how: str, no_predictions: bool, **o: Any) -> None:
    """Write records, predictions and their hashes as a bundle that another machine can import and check."""
    desk = _desk(o)
    records, left = _records(desk, o)
    for text in left:
        desk.console.warn(f"left out: {text}")
    if how == "hf-model-index":
        return _model_index(desk, records, o["models"])
    if target is None:
        raise UsageError("Say where the bundle goes: bench export DIR, or bench export results.zip.")
    if Path(target).suffix in (".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z"):
        raise UsageError(f"{target}: a bundle is a folder or a .zip. Write bench export {Path(target).stem}.zip.")
    from .bundle import export as bundle

    manifest = bundle(records, Path(target), _version(), not no_predictions)
    desk.console.fact(
        {"out": str(Path(target).absolute()), "records": len(manifest["records"]), "protocols": manifest["protocols"], "left_out": left},
        f"{target}: {len(manifest['records'])} records under {', '.join(manifest['protocols'])}. Check it elsewhere: bench import {target}",
    )  # fmt: skip


@click.command("import")
@click.argument("source", metavar="DIR|FILE.zip", type=click.Path())
@common
def import_(source: str, **o: Any) -> None:
    """Check a bundle and copy its records into the results; what is there already is never replaced."""
    desk = Desk(o)
    from .bundle import bring

    found = bring(Path(source), desk.places.results, desk.catalogue)
    for text in found.conflicts:
        desk.console.warn(f"conflict: {text}")
    for text in found.refused:
        desk.console.warn(f"refused: {text}")
    desk.console.fact(
        {"added": found.added, "here": found.here, "conflicts": found.conflicts, "refused": found.refused},
        f"{len(found.added)} records added, {len(found.here)} here already, {len(found.conflicts)} in conflict, {len(found.refused)} refused",
    )
    sys.exit(1 if found.conflicts or found.refused else 0)


# --- what these commands share


def _desk(o: dict[str, Any]) -> Desk:
    """The counter; --results becomes the list of folders to read, the first of which is the desk's."""
    given = folders_of(o["results"])
    desk = Desk({**o, "results": str(given[0]) if given else None})
    o["results"] = given or [desk.places.results]
    return desk


def _records(desk: Desk, o: dict[str, Any]) -> tuple[list[dict[str, Any]], list[str]]:
    """The records of all folders that were asked for, and why others were left out."""
    from .gathered import unsound
    from .leaderboard import collect

    found, left = collect(o["results"])
    wanted = _wanted(desk, o)
    records = []
    for r in found:
        if (wanted and r["benchmark"]["name"] not in wanted) or (o["models"] and r["model"]["name"] not in o["models"]):
            continue
        problem = unsound(r)
        if problem:
            left.append(f"{r['path']}: {problem}")
        else:
            records.append(r)
    return records, left


def _wanted(desk: Desk, o: dict[str, Any]) -> set[str]:
    return {b for s in o["suites"] for b in desk.catalogue.suite(s)} | set(o["benchmarks"])


def _published(
    desk: Desk, records: list[dict[str, Any]], o: dict[str, Any], left: list[str]
) -> tuple[list[dict[str, Any]], Any]:
    """Printed values of the benchmarks asked for, else of those that were measured."""
    from . import published

    wanted = _wanted(desk, o) or {r["benchmark"]["name"] for r in records}
    rows = [
        r
        for r in published.rows(desk.catalogue, left)
        if r["benchmark"] in wanted and (not o["models"] or r["model"] in o["models"])
    ]
    return rows, published.Names(desk.catalogue, left)


def _cards(desk: Desk) -> Mapping[str, Any]:
    from .card import plain

    return {name: plain(model.card) for name, model in desk.catalogue.models.things.items()}


def _suites(desk: Desk, o: dict[str, Any]) -> dict[str, list[str]]:
    names = o["suites"] or [n for n in desk.catalogue.suites.things if n != "all"]
    return {n: desk.catalogue.suite(n) for n in names}


def _own_options(desk: Desk, benchmarks: set[str]) -> dict[str, dict[str, Any]]:
    """The options that each benchmark has by itself, of those that are installed here."""
    from .card import plain

    found = {}
    for name in benchmarks & set(desk.catalogue.benchmarks.things):
        card = desk.catalogue.benchmarks.things[name].card
        protocol = desk.catalogue.protocols.things.get(card.protocol)
        if protocol is not None:
            found[name] = plain(protocol.card.complete(card.options))
    return found


def _short(text: str, folders: list[Path]) -> str:
    """A reason without the folders of this machine: the report may be shown to others."""
    for folder in folders:
        text = text.replace(f"{folder}/", "")
    return text


def _version() -> str:
    from importlib.metadata import version

    return version("eosin")


def _draw(drawn: list[Any], folder: Path) -> list[str]:
    from .drawing import png, svg

    paths = []
    for figure in drawn:
        for path, content in (
            (folder / f"{figure.name}.svg", svg(figure.sheet, figure.title).encode()),
            (folder / f"{figure.name}.png", png(figure.sheet)),
        ):
            _write(path, content)
            paths.append(str(path))
    return paths


def _write(path: Path, content: bytes) -> None:
    from .files import publish, writing

    with writing(path, "folder"):
        publish(path, content)


def _model_index(desk: Desk, records: list[dict[str, Any]], models: tuple[str, ...]) -> None:
    from .modelindex import model_index

    names = sorted({r["model"]["name"] for r in records})
    if len(names) != 1:
        there = f"These records are of {', '.join(names)}." if names else "No record fits."
        raise UsageError(f"A model-index is of one model: say --model. {there}")
    text = model_index(records, names[0], _version())
    desk.console.fact({"model": names[0], "records": len(records), "yaml": text}, text.rstrip("\n"))


COMMANDS = {"report": merged(report), "export": merged(export), "import": import_}
