"""list, show, plugins, doctor: the commands that look and change nothing."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from .cards import plain
from .cli import Desk, common
from .errors import unknown

THINGS = ("models", "datasets", "protocols", "benchmarks", "suites", "recipes", "views")


@click.command("list")
@click.argument("things", type=click.Choice(THINGS), default="models")
@common
def list_(things: str, **o: Any) -> None:
    """List models, datasets, protocols, benchmarks, suites, recipes or views."""
    desk = Desk(o)
    columns, rows = _listing(desk, things)
    if not desk.console.as_json:
        desk.console.table(columns, [[_cell(v) for v in row] for row in rows])
        if things in ("models", "datasets", "protocols", "benchmarks"):
            shelf = getattr(desk.catalogue, things)
            for name, who in shelf.clashes.items():
                desk.console.warn(f"{name} is provided twice, by {' and '.join(who)}; uninstall or rename one")
            for text in shelf.problems.values():
                desk.console.warn(text)
    desk.console.fact({things: [dict(zip(columns, row, strict=True)) for row in rows]})


def _cell(value: Any) -> str:
    """A value as a table shows it; of a long list the number and the first three."""
    if isinstance(value, list) and value:
        return f"{len(value)}: {' '.join(value[:3])}{' …' if len(value) > 3 else ''}"
    return "–" if value in (None, "", []) else str(value)


def _listing(desk: Desk, things: str) -> tuple[list[str], list[list[Any]]]:
    catalogue = desk.catalogue
    if things == "views":
        from .views import GRADED, PLAIN

        return ["view", "strength"], [[n, None] for n in PLAIN] + [
            [f"{n}-…", f"{a} to {b}"] for n, (_, a, b) in GRADED.items()
        ]
    if things == "suites":
        return ["suite", "benchmarks", "description"], [
            [n, list(c.benchmarks), c.description] for n, c in catalogue.suites.things.items()
        ]
    shelf = getattr(catalogue, things)
    if things == "models":
        rows = [
            [c.name, c.params, c.dim, c.licence, _yes(c.gated), _weights(m), shelf.origin[c.name]]
            for m in _once(shelf)
            for c in [m.card]
        ]
        return ["model", "params", "dim", "licence", "gated", "weights", "from"], rows
    if things == "datasets":
        return ["dataset", "kind", "mpp", "classes", "here", "from"], [
            [n, d.card.kind, d.card.mpp, len(d.card.classes) or None, _here(desk, d), shelf.origin[n]]
            for n, d in shelf.things.items()
        ]
    if things == "protocols":
        return ["protocol", "metrics", "options", "from"], [
            [
                n,
                " ".join(p.card.metrics),
                " ".join(f"{k}={'(required)' if v.required else v.default}" for k, v in p.card.options.items()),
                shelf.origin[n],
            ]
            for n, p in shelf.things.items()
        ]
    if things == "recipes":
        return ["recipe", "from", "description"], [
            [n, shelf.origin[n], r.card.description or " ".join((type(r).__doc__ or "").split())]
            for n, r in shelf.things.items()
        ]
    return ["benchmark", "dataset", "protocol", "metric", "from"], [
        [n, b.card.dataset, b.card.protocol, b.card.metric, shelf.origin[n]] for n, b in shelf.things.items()
    ]


def _once(shelf: Any) -> list[Any]:
    """Models without their aliases."""
    return [m for n, m in shelf.things.items() if n == m.card.name]


def _yes(value: Any) -> str:
    return "" if not value else "yes" if value is True else str(value)


def _weights(model: Any) -> str:
    return str(model.available())


def _here(desk: Desk, dataset: Any) -> str:
    return "yes" if dataset.present(desk.places.data) else "no"


@click.command()
@click.argument("name")
@click.option("--weights", type=click.Path(), help="A local weights file instead of the card's.")
@click.option("--fit", "room", help="Of a model: which batch fits into a card's memory, as in --fit 24GB.")
@common
def show(name: str, **o: Any) -> None:
    """Show one model, dataset, protocol, benchmark, suite or recipe: its card, and what is known of it here.

    NAME may begin with what it is, as in recipe:g2l, where two sorts of things have one name.
    """
    desk = Desk(o)
    facts = _facts(desk, name, o)
    if not desk.console.as_json:
        for key, value in facts.items():
            if value in (None, "", [], {}):
                continue
            if isinstance(value, dict):
                print(f"{key}:")
                for k, v in value.items():
                    print(f"  {k}: {_option(v)}")
            else:
                print(f"{key}: {', '.join(map(str, value)) if isinstance(value, list) else value}")
    desk.console.fact(facts)


def _option(value: Any) -> str:
    if isinstance(value, dict) and "default" in value:
        allowed = value.get("allowed")
        choices = f" ({' | '.join(map(str, allowed))})" if isinstance(allowed, list) else ""
        start = "required" if value.get("required") else value["default"]
        return f"{start}{choices}  {value.get('doc', '')}"
    return str(value)


def _facts(desk: Desk, name: str, o: dict[str, Any]) -> dict[str, Any]:
    catalogue = desk.catalogue
    if "@" in name or any(p.partition("@")[0] == name for p in catalogue.protocols.things):
        protocol = catalogue.protocol(name)
        return {**plain(protocol.card), "about": " ".join((type(protocol).__doc__ or "").split())}
    asked, colon, rest = name.partition(":")
    for word, shelf in (
        ("suite", catalogue.suites),
        ("benchmark", catalogue.benchmarks),
        ("dataset", catalogue.datasets),
        ("recipe", catalogue.recipes),
    ):
        if colon and asked == word:
            name = rest
        elif colon or word == "recipe" and name in catalogue.models.things:
            continue
        if name in shelf.things or name in shelf.clashes:
            thing = shelf.get(name, f"bench list {word}s")
            card = getattr(thing, "card", thing)
            about = (
                (type(thing).__doc__ or "")
                if word == "benchmark" and thing is not card and type(thing).__module__ != "eosin.benchmark"
                else ""
            )
            return {"is": word, **plain(card), **({"about": " ".join(about.split())} if about else {})}
    name = name.removeprefix("model:")
    if (
        name not in catalogue.models.things
        and ":" not in name
        and "/" not in name
        and not Path(name).exists()
        and name not in catalogue.models.problems
    ):
        known = [
            n
            for s in (
                catalogue.models,
                catalogue.benchmarks,
                catalogue.datasets,
                catalogue.protocols,
                catalogue.suites,
                catalogue.recipes,
            )
            for n in s.things
        ]
        raise unknown("model, dataset, protocol, benchmark, suite or recipe", name, known, "bench list models")
    weights = o["weights"] and str(Path(o["weights"]).absolute())
    return model_facts(catalogue.model(name, weights=weights), o["room"])


def model_facts(model: Any, room: str | None = None) -> dict[str, Any]:
    """The card, what the network measures (built without memory for weights), and whether the weights are here."""
    from .measure import fit, measure

    facts = {"is": "model", **plain(model.card), "weights": model.available()}
    measured = measure(model) if model.card.kind != "precomputed" else {}  # of which there is no network
    facts |= {k: v for k, v in measured.items() if v is not None}
    return facts if room is None or not measured else {**facts, "fit": fit(measured, room)}


@click.command()
@common
def plugins(**o: Any) -> None:
    """List the installed plugins, what each provides, and why one failed."""
    desk = Desk(o)
    catalogue = desk.catalogue
    for shelf in ("models", "datasets", "protocols", "benchmarks", "recipes"):
        getattr(catalogue, shelf)
    rows: list[dict[str, Any]] = [
        {
            "plugin": p.name,
            "distribution": p.distribution,
            "version": p.version,
            "provides": {k: v for k, v in p.provides.items()},
            "error": p.error,
        }
        for p in catalogue.plugins
    ]
    if not desk.console.as_json:
        columns = ["plugin", "distribution", "provides", "state"]
        desk.console.table(
            columns,
            [
                [
                    r["plugin"],
                    f"{r['distribution']} {r['version']}",
                    ", ".join(f"{len(v)} {k}" for k, v in r["provides"].items()) or "–",
                    f"FAILED: {r['error']}" if r["error"] else "ok",
                ]
                for r in rows
            ],
        )
    desk.console.fact({"plugins": rows})


@click.command()
@click.option(
    "--models", is_flag=True, help="Say of every model whether it can be loaded on this machine, and why not."
)
@common
def doctor(models: bool, **o: Any) -> None:
    """Check this installation: PASS, WARN or FAIL, each with a fix."""
    desk = Desk(o)
    from .checkup import checkup, models_checkup

    found = models_checkup(desk.catalogue) if models else checkup(desk.places)
    if not desk.console.as_json:
        for row in found:
            print(
                f"{row['state']}  {row['what']}: {row['found']}" + (f"\n      fix: {row['fix']}" if row["fix"] else "")
            )
    desk.console.fact({"checks": found})
    sys.exit(1 if any(r["state"] == "FAIL" for r in found) else 0)


COMMANDS = {"list": list_, "show": show, "plugins": plugins, "doctor": doctor}
