"""data, new: the commands that handle materials."""

from __future__ import annotations

import copy
import shlex
import sys
from pathlib import Path
from typing import Any

import click

from .cards import plain
from .cli import Desk, common
from .errors import MissingError, NameTaken, UsageError


@click.group()
def data() -> None:
    """Say where data come from, index and check them."""


@data.command("list")
@common
def data_list(**o: Any) -> None:
    """List all datasets and whether they are in the data folder."""
    desk = Desk(o)
    rows = []
    for name, dataset in desk.catalogue.datasets.things.items():
        where = str(dataset.locate(desk.places.data)) if dataset.present(desk.places.data) else ""
        rows.append(
            {"dataset": name, "title": dataset.card.title, "registration": dataset.card.registration, "here": where}
        )
    if not desk.console.as_json:
        desk.console.table(["dataset", "title", "here"], [[r["dataset"], r["title"], r["here"] or "–"] for r in rows])
    desk.console.fact({"datasets": rows})


@data.command()
@click.argument("name")
@common
def where(name: str, **o: Any) -> None:
    """Say how to get a dataset: source, licence, registration, and the folder that is expected."""
    desk = Desk(o)
    card = desk.catalogue.datasets.get(name, "bench list datasets", desk.catalogue.broken_hint()).card
    if not desk.console.as_json:
        for key in ("title", "url", "licence", "registration", "how"):
            if getattr(card, key):
                print(f"{key}: {getattr(card, key).strip()}")
        print(f"put it at: {card.root or desk.places.data / name}")
        if card.tree:
            print("expected there:")
            print(card.tree.rstrip())
    desk.console.fact({**plain(card), "place": card.root or str(desk.places.data / name)})


def _index(desk: Desk, name: str, path: str | None) -> Any:
    from .index import open_index

    dataset = desk.catalogue.datasets.get(name, "bench list datasets", desk.catalogue.broken_hint())
    if path is not None and not Path(path).exists():
        raise UsageError(
            f"There is nothing at {path}. Give the folder that holds {name}; `bench data where {name}` describes it."
        )
    root, indexes = Path(path) if path else None, desk.places.indexes
    if getattr(
        dataset, "on_slides", False
    ):  # to list slides takes seconds, to tile them may take hours: that is for a run
        dataset, indexes = copy.copy(dataset), indexes / "slides"
        dataset.tiles = lambda root, items: None
    found = open_index(
        dataset, desk.places.data, indexes, root, lambda d, t: desk.console.watch(f"reading {name}", d, t)
    )
    desk.console.finish()
    return found


def facts_of(index: Any) -> dict[str, Any]:
    """`{"dataset", "items", "classes", "counts", "warnings", "table"}` of an index."""
    table = index.items
    label = table.known("label")
    counts = {} if label is None else {c: int((label == i).sum()) for i, c in enumerate(table.classes)}
    split = table.known("split")
    if split is not None:
        counts |= {s: int((split == s).sum()) for s in sorted(set(split.tolist())) if s}
    warnings = [{"message": text} for text in index.warnings]
    return {
        "dataset": index.dataset.name,
        "items": len(table),
        **({"tiles": len(index.table)} if index.levels else {}),
        "classes": list(table.classes),
        "counts": counts,
        "groups": len(set(table["group"].tolist()) - {""}),
        "warnings": warnings,
        "table": str(index.path),
        "fingerprint": index.rows,
    }


@data.command()
@click.argument("name")
@click.argument("path", required=False)
@common
def index(name: str, path: str | None, **o: Any) -> None:
    """Build the table of a dataset from its folder (PATH, or where --data finds it), once."""
    desk = Desk(o)
    facts = facts_of(_index(desk, name, path))
    if not desk.console.as_json:
        groups = [f"{facts['groups']} groups (patients)"] if facts["groups"] else []
        print("; ".join([f"{name}: {facts['items']} items", *groups, *filter(None, [_listed(facts["counts"])])]))
        for warning in facts["warnings"]:
            print(f"warning: {warning['message']}")
        print(f"table: {facts['table']}")
    desk.console.fact(facts)


def _listed(counts: dict[str, Any]) -> str:
    return ", ".join(f"{k} {v}" for k, v in counts.items())


@data.command()
@click.argument("name")
@click.argument("path", required=False)
@common
def check(name: str, path: str | None, **o: Any) -> None:
    """Compare a dataset on disk with its official counts."""
    desk = Desk(o)
    found = _index(desk, name, path)
    facts = facts_of(found)
    here = {"all": facts["items"], **facts["counts"], **found.items.counts}
    official = {k: v for k, v in found.dataset.card.counts.items() if isinstance(v, int)}
    rows = [
        {"what": k, "official": v, "here": here.get(k), "state": "same" if here.get(k) == v else "differs"}
        for k, v in official.items()
    ]
    differs = [r for r in rows if r["state"] == "differs"]
    if not desk.console.as_json:
        if rows:
            desk.console.table(
                ["what", "official", "here", "state"],
                [[str(v) if v is not None else "–" for v in r.values()] for r in rows],
            )
        for warning in facts["warnings"]:
            print(f"warning: {warning['message']}")
        if not official:
            print(f"{name}: {facts['items']} items; its card has no official counts.")
        elif differs:
            print(
                f"{len(differs)} count(s) differ: fewer is a partial download or a subset, more is a copy. `bench data where {name}` says how to get the whole."
            )
    desk.console.fact({**facts, "official": official, "differences": differs})
    sys.exit(1 if differs else 0)


@data.command()
@click.argument("name")
@common
def fetch(name: str, **o: Any) -> None:
    """Download a dataset that is open to all; for the others say where to go (exit 3)."""
    desk = Desk(o)
    from .fetch import fetch as fetched

    dataset = desk.catalogue.datasets.get(name, "bench list datasets", desk.catalogue.broken_hint())
    place = fetched(dataset, desk.places.data, desk.console.watch)
    desk.console.finish()
    desk.console.fact({"dataset": name, "path": str(place)}, f"{place}\nNext: bench data check {name}")


@data.command()
@click.argument("project")
@click.option("--slides", default=0, type=click.IntRange(min=0), help="How many to draw (default: all there are).")
@click.option("--exclude", multiple=True, help="Patients not to draw: a dataset's name, or a text file of barcodes.")
@click.option("--files", type=click.Path(), help="The portal's manifest, or the files endpoint's JSON or TSV.")
@click.option("--frozen", is_flag=True, help="Frozen sections too, not only diagnostic slides.")
@click.option("--out", type=click.Path(dir_okay=False), help="The manifest to write (default: PROJECT.txt).")
@click.option("--seed", default=0, help="Another seed draws other slides.")
@common
def manifest(project: str, slides: int, exclude: tuple[str, ...], files: str | None, **o: Any) -> None:
    """Draw slides of tcga-brca, tcga-prad, … (tcga-16: those of H0-mini) for the GDC client.

    One slide of each patient is drawn before any patient gives a second. The list of files is asked of
    api.gdc.cancer.gov unless --files gives it.
    """
    from . import gdc
    from .files import publish, writing

    desk, wanted = Desk(o), gdc.projects(project)
    left_out = set().union(*(gdc.patients(_named(desk, name), name) for name in exclude))
    found = gdc.listed(Path(files)) if files else gdc.fetched(wanted, o["frozen"])
    sieved, reasons = gdc.sieve(found, wanted, left_out, o["frozen"])
    lost = ", ".join(f"{n} {reason}" for reason, n in reasons.items())
    if not sieved:
        raise UsageError(f"None of {len(found)} files may be drawn ({lost or 'none is listed'}). Give another list.")
    drawn, out = gdc.draw(sieved, slides, o["seed"]), Path(o["out"] or f"{project.lower()}.txt")
    with writing(out, "--out"):
        publish(out, gdc.manifest(drawn).encode())
    people, size = len({s.patient for s in drawn}), sum(s.size for s in drawn)
    text = (
        f"{out}: {len(drawn)} slides of {people} patients, {size / 1e9:.1f} GB, of {len(sieved)} that may be drawn.\n"
    )
    text += f"left out: {lost}.\n" if lost else ""
    if len(drawn) < slides:
        text += f"There are fewer than the {slides} asked for. --frozen adds frozen sections.\n"
    if not all(s.project for s in drawn):
        text += f"The list names no projects: all of it was taken for {project}.\n"
    facts = {"manifest": str(out), "slides": len(drawn), "patients": people, "bytes": size, "left_out": reasons}
    desk.console.fact(facts, f"{text}Next: gdc-client download -m {shlex.quote(str(out))} -d SLIDES")


def _named(desk: Desk, name: str) -> list[str]:
    """The lines of a text file, or the patients and slides of a dataset."""
    if Path(name).is_file():
        return Path(name).read_text(encoding="utf-8", errors="replace").splitlines()
    try:
        items = _index(desk, name, None).items
    except MissingError as error:
        raise MissingError(f"{error} Or name its patients in a text file, as labels.csv: --exclude FILE.") from error
    columns = [items.known(column) for column in ("group", "slide")]
    return [str(value) for column in columns if column is not None for value in column.tolist()]


@data.command()
@click.argument("name")
@click.option(
    "--out", default="twins", type=click.Path(file_okay=False), help="The folder to write, a --data for bench run."
)
@click.option("--seed", default=0, help="Another seed gives other tissue.")
@common
def phantom(name: str, out: str, seed: int, **o: Any) -> None:
    """Write miniatures of a suite's datasets (or of one dataset) in their official layouts, of made-up tissue."""
    from .files import writing

    desk = Desk(o)
    suites, things = desk.catalogue.suites.things, desk.catalogue.datasets.things
    names = [name]
    if name in suites and name not in things:
        needs = [need for b in desk.catalogue.suite(name) for need in desk.catalogue.benchmark(b).needs().values()]
        names = list(dict.fromkeys(need.dataset for need in needs))
    makers = [thing for thing in things.values() if hasattr(thing, "twin")]
    made = {n: next((twin for m in makers if (twin := m.twin(n))), None) for n in names}
    if not any(made.values()):
        raise UsageError(
            f"There is no miniature of {name}. Name a suite (`bench list suites`) or a dataset of G2L, such as idc."
        )
    written, absent = {}, [n for n, build in made.items() if build is None]
    for done, (n, build) in enumerate(made.items(), 1):
        if build is not None:
            desk.console.watch(f"making {n}", done, len(made))
            with writing(Path(out) / n, "--out"):
                build(Path(out) / n, seed)
            written[n] = str(Path(out) / n)
    desk.console.finish()
    text = "\n".join(written.values()) + (f"\nno miniature of: {', '.join(absent)}" if absent else "")
    desk.console.fact(
        {"written": written, "absent": absent}, f"{text}\nNext: bench run -m color-stats --data {shlex.quote(out)} …"
    )


@click.command()
@click.argument("what", type=click.Choice(["model", "benchmark"]))
@click.argument("name")
@click.option("--out", type=click.Path(file_okay=False), help="The folder to write (default: ./eosin-NAME).")
@common
def new(what: str, name: str, out: str | None, **o: Any) -> None:
    """Write a new plugin distribution, with a test that passes, ready to publish."""
    desk = Desk(o)
    from .template import write

    _free(desk, what, name)
    folder = write(what, name, Path(out) if out else Path(f"eosin-{name}"))
    here = shlex.quote(str(folder))
    text = f"Wrote {folder}. Next:\n  pip install -e {shlex.quote(f'{folder}[test]')} && pytest {here}\n  bench {'show' if what == 'model' else 'data where'} {name}"
    desk.console.fact(
        {"path": str(folder), "files": sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())},
        text,
    )


def _free(desk: Desk, what: str, name: str) -> None:
    """NameTaken when the template would claim a name that something has: a benchmark brings a dataset and a protocol."""
    catalogue = desk.catalogue
    shelves = [catalogue.models] if what == "model" else [catalogue.benchmarks, catalogue.datasets, catalogue.protocols]
    for shelf in shelves:
        if name in shelf.things or name in shelf.problems or f"{name}@1" in shelf.things:
            raise NameTaken(
                f"There is a {shelf.word} called {name!r} already, and a name that two claim is refused. Choose another."
            )


COMMANDS = {"data": data, "new": new}
