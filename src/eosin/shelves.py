"""store: the commands that look into the stored embeddings, measure, check, tidy and export them."""

from __future__ import annotations

import contextlib
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import click

from .cli import Desk, common
from .errors import CardError, EosinError, StoreError, UsageError

PRECISIONS = ("fp32", "fp16", "bf16")  # that `bench run --precision` may ask of any card,
STORED = ("float32", "float16")  # and that --stored may


@click.group()
def store() -> None:
    """Look into, measure, check, tidy and export the stored embeddings."""


def addresses(desk: Desk) -> list[Path]:
    """The folders of all addresses, sorted."""
    return sorted(p for p in desk.places.store.glob("*@*/*@*") if p.is_dir())


def waste(folder: Path) -> list[Path]:
    """What nothing needs in an address: parts set aside, and what killed processes left."""
    from .claims import Claims

    claims = Claims(folder)
    left = [*folder.glob("*.damaged"), *(c for c in folder.glob("*.claim") if claims.void(c))]
    left += [t for t in folder.glob(".part-*.tmp") if claims.gone(t.name.split(".", 2)[2].removesuffix(".tmp"))]
    return sorted(left + [c for c in folder.glob(".clock.*") if claims.gone(c.name.removeprefix(".clock."))])


@dataclass
class Wanted:
    """What the cards and indexes of today address.

    Args:
        models: names that the catalogue does not list and that are still wanted: timm:ARCH, the path of a card.
    """

    desk: Desk
    models: tuple[str, ...] = ()

    def why_not(self, folder: Path) -> str:
        """Why no current card addresses a folder of the store; "" where one does, or where nobody can tell."""
        model, _, mark = folder.parent.name.rpartition("@")
        dataset, _, tiles = folder.name.split("+")[0].rpartition("@")
        return self._model(model, mark) or self._dataset(dataset, tiles)

    def _model(self, name: str, mark: str) -> str:
        if name not in self._asked and name not in self.desk.catalogue.models.things:
            return f"no card of a model {name}"
        known = self._prints(name)
        return "" if mark in known or "?" in known else f"the card of {name} has another fingerprint"

    def _dataset(self, name: str, tiles: str) -> str:
        if name not in self.desk.catalogue.datasets.things:
            return f"no card of a dataset {name}"
        if name not in self._tiles:
            from .index import kept

            self._tiles[name] = {index.tiles for index in kept(self.desk.places.indexes, name)}
        if not self._tiles[name]:
            return f"no index of {name} (bench data index {name})"
        return "" if tiles in self._tiles[name] else f"the tiles of {name} have changed"

    def _prints(self, name: str) -> set[str]:
        """The fingerprints of a model as --precision and --stored may ask for it; "?" where its weights cannot be looked at."""
        from .plan import Planner

        if name not in self._marks:
            found = set()
            for precision, stored in product(PRECISIONS, STORED):
                try:
                    asked = self._asked.get(name, name)
                    model = self.desk.catalogue.model(asked, precision=precision, stored=stored)
                    found.add(Planner(self.desk.catalogue, self.desk.places).print_of(model))
                except CardError:
                    continue
                except EosinError:
                    found.add("?")
            self._marks[name] = found
        return self._marks[name]

    @cached_property
    def _asked(self) -> dict[str, str]:
        return {self.desk.catalogue.model(m).card.name: m for m in self.models}

    @cached_property
    def _marks(self) -> dict[str, set[str]]:
        return {}

    @cached_property
    def _tiles(self) -> dict[str, set[str]]:
        return {}


def kept_models(command: Callable[..., Any]) -> Callable[..., Any]:
    text = "A model outside the catalogue that is still wanted (timm:ARCH, a card); may be given again."
    return click.option("--model", "-m", "models", multiple=True, help=text)(command)


def look(folder: Path, wanted: Wanted) -> dict[str, Any]:
    """One address in a row: how much of it is there, its size, what is waste, which card it is of, and why none."""
    from .store import PART, stored

    parts = [p for p in sorted(folder.iterdir()) if PART.fullmatch(p.name) and p.is_file()]
    address, extra = stored(folder), waste(folder)
    about = dict(address.about) if address else {}
    return {
        "model": folder.parent.name,
        "dataset": folder.name,
        "parts": len(parts),
        "tiles": address.rows if address else None,
        "stored": address.rows_of(address.present()) if address else 0,
        "bytes": sum(p.stat().st_size for p in parts),
        "damaged": len(list(folder.glob("*.damaged"))),
        "waste": sum(p.stat().st_size for p in extra if p.is_file()),
        "card": about.get("model"),
        "unaddressed": wanted.why_not(folder),
        "path": str(folder),
    }


@store.command()
@kept_models
@common
def ls(models: tuple[str, ...], **o: Any) -> None:
    """List the addresses: model, dataset, tiles, size, and why no current card addresses one."""
    desk = Desk(o)
    wanted = Wanted(desk, models)
    rows = [look(folder, wanted) for folder in addresses(desk)]
    if not desk.console.as_json:
        desk.console.table(
            ["model", "dataset", "tiles", "of", "MB", "damaged", "card"],
            [
                [
                    *(str(r[k]) for k in ("model", "dataset", "stored")),
                    "–" if r["tiles"] is None else str(r["tiles"]),
                    f"{r['bytes'] / 1e6:.1f}",
                    str(r["damaged"]),
                    r["unaddressed"] or "current",
                ]
                for r in rows
            ],
        )
    desk.console.fact({"addresses": rows})


@store.command()
@kept_models
@common
def du(models: tuple[str, ...], **o: Any) -> None:
    """Say how large the store is, model by model, and how much of it nothing addresses or needs."""
    desk = Desk(o)
    wanted, sums = Wanted(desk, models), dict[str, dict[str, Any]]()
    for row in (look(folder, wanted) for folder in addresses(desk)):
        name = row["model"].rpartition("@")[0]
        own = sums.setdefault(name, {"model": name, "addresses": 0, "bytes": 0, "unaddressed": 0, "waste": 0})
        own["addresses"] += 1
        own["bytes"] += row["bytes"]
        own["unaddressed"] += row["bytes"] if row["unaddressed"] else 0
        own["waste"] += row["waste"]
    rows = sorted(sums.values(), key=lambda r: -r["bytes"])
    sizes = ("bytes", "unaddressed", "waste")
    total = {"addresses": sum(r["addresses"] for r in rows), **{k: sum(r[k] for r in rows) for k in sizes}}
    place = next(p for p in (desk.places.store, *desk.places.store.parents) if p.exists())
    free = shutil.disk_usage(place).free
    indexes = sum(p.stat().st_size for p in desk.places.indexes.rglob("*") if p.is_file())
    if not desk.console.as_json:
        desk.console.table(
            ["model", "addresses", "MB", "unaddressed MB", "waste MB"],
            [
                [r["model"], str(r["addresses"]), *(f"{r[k] / 1e6:.1f}" for k in sizes)]
                for r in [*rows, {"model": "all", **total}]
            ],
        )
        print(f"{free / 1e9:.1f} GB free at {place}. Indexes: {indexes / 1e6:.1f} MB in {desk.places.indexes}.")
    desk.console.fact({"models": rows, **total, "free": free, "indexes": indexes})


@store.command()
@common
def verify(**o: Any) -> None:
    """Check every byte of every part; damaged ones are named and set aside, to be embedded again by the next run."""
    desk = Desk(o)
    from .store import PART, set_aside, sound

    parts = [p for folder in addresses(desk) for p in sorted(folder.iterdir()) if PART.fullmatch(p.name)]
    bad, unread = [], []
    for done, part in enumerate(parts, 1):
        try:
            if not sound(part):
                bad.append(part)
        except StoreError as error:  # nothing is known of this one; the rest are looked at
            unread.append(str(error))
        desk.console.watch("checking the store", done, len(parts))
    desk.console.finish()
    set_aside(bad)
    if not desk.console.as_json:
        print(f"{len(parts)} parts, {len(bad)} damaged" + (f", {len(unread)} not checked." if unread else "."))
        for part in bad:
            print(f"damaged, set aside as *.damaged: {part}")
    for text in unread:
        desk.console.warn(text)
    desk.console.fact({"parts": len(parts), "damaged": [str(p) for p in bad], "unread": unread})
    sys.exit(1 if bad or unread else 0)


@store.command()
@click.option("--unaddressed", is_flag=True, help="Also every part that no current card addresses (see `store ls`).")
@click.option("--yes", is_flag=True, help="Remove what is listed; without it, only list.")
@kept_models
@common
def gc(unaddressed: bool, yes: bool, models: tuple[str, ...], **o: Any) -> None:
    """List what nothing needs: parts set aside and what killed runs left; with --yes remove it."""
    desk = Desk(o)
    from .files import leftovers
    from .store import PART

    wanted, found = Wanted(desk, models), dict[Path, str]()
    for folder in addresses(desk):
        found |= dict.fromkeys(waste(folder), "left by a killed run, or damaged")
        reason = wanted.why_not(folder) if unaddressed and not held(folder) else ""
        if reason:
            found |= {p: reason for p in sorted(folder.iterdir()) if PART.fullmatch(p.name)}
    for place in (desk.places.home, desk.places.results):
        kept = [p for p in leftovers(place) if desk.places.data not in p.parents]  # data folders are only read
        found |= dict.fromkeys(kept, "left by a killed run, or damaged")
    size = sum(p.stat().st_size for p in found if p.is_file())
    if not desk.console.as_json:
        for path, reason in found.items():
            print(f"{'removing' if yes else 'would remove'}: {path} ({reason})", flush=True)
    stuck = _removed(list(found)) if yes else []
    if not desk.console.as_json:
        print(
            f"{len(found) - len(stuck)} file(s), {size / 1e6:.1f} MB."
            + ("" if yes or not found else " Add --yes to remove them.")
        )
    for text in stuck:
        desk.console.warn(text)
    desk.console.fact({"files": [str(p) for p in found], "bytes": size, "removed": yes, "stuck": stuck})
    sys.exit(1 if stuck else 0)


def _removed(paths: list[Path]) -> list[str]:
    """Remove files, and the folders of addresses that are empty then; a sentence on each that stays."""
    from .claims import Claims

    stuck = []
    for path in paths:
        if path.suffix == ".claim" and not Claims(path.parent).void(path):  # taken over since it was listed
            continue
        try:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
        except OSError as error:
            stuck.append(f"{path} cannot be removed: {error.strerror}. Check its permissions.")
    for folder in sorted({p.parent for p in paths if "@" in p.parent.name}):
        with contextlib.suppress(OSError):  # only what is empty goes
            folder.rmdir()
            folder.parent.rmdir()
    return stuck


def held(folder: Path) -> bool:
    """Whether somebody alive works on an address."""
    from .claims import Claims

    return any(not Claims(folder).void(c) for c in folder.glob("*.claim"))


@store.command()
@click.argument("address")
@click.option("--out", required=True, type=click.Path(dir_okay=False), help="The file to write: .npz, .h5 or .csv.")
@click.option("--readout", default="default", help="Which readout becomes X; `cls+mean` joins two.")
@common
def export(address: str, out: str, readout: str, **o: Any) -> None:
    """Write the rows of an ADDRESS for `bench score --embeddings`: X, id, y, and the columns of the dataset's table.

    ADDRESS is MODEL/DATASET, each with its @fingerprint (and +view) where several are stored; `bench store ls` shows them.
    Rows that could not be read, or have no label where others have one, are left out, as in a run.
    """
    desk = Desk(o)
    from .plan import Planner
    from .precomputed import write_arrays
    from .takeout import rows_of

    folder = _one(addresses(desk), address)
    arrays, notes = rows_of(folder, Planner(desk.catalogue, desk.places), readout)
    write_arrays(Path(out), arrays)
    for note in notes:
        desk.console.warn(note)
    shape = arrays["X"].shape
    text = f"{out}: X {shape}, {', '.join(n for n in arrays if n != 'X')}\nNext: bench score --protocol PROTOCOL --embeddings {shlex.quote(str(out))}"
    desk.console.fact(
        {"out": out, "address": str(folder), "shape": shape, "columns": list(arrays), "notes": notes}, text
    )


def _one(folders: list[Path], asked: str) -> Path:
    """The address that is meant; UsageError where none or several are."""
    model, _, dataset = asked.rstrip("/").rpartition("/")
    model = model.rpartition("/")[2]

    def fits(name: str, wanted: str) -> int:
        return 2 if name == wanted else int(name.rpartition("@")[0] == wanted)

    ranked = {f: (fits(f.parent.name, model), fits(f.name, dataset)) for f in folders}
    found = [f for f, (m, d) in ranked.items() if m and d]
    if len(found) != 1:
        listed = ", ".join(f"{f.parent.name}/{f.name}" for f in found or folders[:5])
        raise UsageError(
            f"{'Several addresses are' if found else 'No address is'} {asked}: write MODEL/DATASET as `bench store ls` shows them, such as {listed or 'none yet'}."
        )
    return found[0]


COMMANDS = {"store": store}
