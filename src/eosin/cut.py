"""tile: the command that finds tissue on slides and writes where the tiles lie."""

from __future__ import annotations

import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from .cli import Desk, common
from .coordinates import Coordinates, find, read, write
from .errors import DataError, EosinError, UsageError
from .files import publish
from .slides import SUFFIXES, Slide, slides_at
from .tiling import RULES, Tiling, cut, fit


@click.command()
@click.argument("slides", nargs=-1, required=True, type=click.Path())
@click.option("--out", required=True, type=click.Path(file_okay=False), help="Where coordinates and pictures go.")
@click.option("--mpp", default=0.5, help="Micrometres per pixel of the tiles.")
@click.option("--size", default=256, help="Edge of a tile, in such pixels.")
@click.option("--stride", default=0, help="From one tile to the next, in such pixels (default: the size).")
@click.option("--rule", type=click.Choice(list(RULES)), default="otsu", help="How tissue is told from glass.")
@click.option("--share", default=-1.0, help="Least share of tissue in a tile (default: the rule's, otsu .2, eva .35).")
@click.option("--limit", default=0, help="At most so many tiles a slide, drawn at random (default: all).")
@click.option("--seed", default=42, help="Of that draw; below 0: the first of the grid.")
@click.option("--slide-mpp", type=float, help="Micrometres per pixel of the slides at level 0, over what they say.")
@click.option(
    "--coordinates", type=click.Path(), help="Take tiles from this folder's files (TRIDENT, the sampler) instead."
)
@click.option(
    "--rescale", is_flag=True, help="Give tiles of --coordinates the scale and size asked, about their centres."
)
@click.option("--again", is_flag=True, help="Tile again what was tiled with other options.")
@click.option("--workers", default=2, type=click.IntRange(min=1), help="Slides at a time.")
@click.option("--quiet", is_flag=True, help="No progress and no remarks.")
@common
def tile(slides: tuple[str, ...], **o: Any) -> None:
    """Find tissue on slides and lay a grid of tiles over it.

    SLIDES are files, or folders that are searched for slides. For each slide, <out>/<slide>.h5 holds the coordinates
    (docs/tiling.md) and <out>/<slide>.png shows mask and grid. A slide that is tiled already is left alone; one that
    cannot be read is reported, also in <out>/failed.csv, and the others go on; the same command again tries only those.
    """
    desk, out = Desk(o), Path(o["out"])
    tiling = Tiling(**{k: o[k] for k in asdict(Tiling())})
    paths = list(dict.fromkeys(p for s in slides for p in slides_at(Path(s))))
    if not paths:
        raise UsageError(f"There is no slide at {', '.join(slides)}. Known endings: {', '.join(SUFFIXES)}.")
    names = Counter(p.stem.lower() for p in paths)
    done: dict[Path, dict[str, Any]] = {}
    failed: dict[Path, str] = {}
    with ThreadPoolExecutor(o["workers"]) as pool:
        todo = {}
        for path in paths:
            if names[path.stem.lower()] > 1:
                failed[path] = (
                    f"{names[path.stem.lower()]} slides are called {path.stem}. Tile them into folders of their own."
                )
            else:
                todo[pool.submit(_one, path, out, tiling, o)] = path
        for number, future in enumerate(as_completed(todo), 1):
            try:
                done[todo[future]] = future.result()
            except EosinError as error:
                if not isinstance(error, DataError):
                    pool.shutdown(cancel_futures=True)
                    raise  # no room, no OpenSlide: the next slide would fare no better
                failed[todo[future]] = str(error)
            desk.console.watch("tiling", number, len(todo))
    desk.console.finish()
    rows = [{"slide": str(p), **done[p]} for p in paths if p in done]
    if not desk.console.as_json and rows:
        shown = ("state", "tiles", "mpp", "level", "above")
        desk.console.table(["slide", *shown], [[Path(r["slide"]).name, *(f"{r[k]}" for k in shown)] for r in rows])
        print(f"{sum(r['tiles'] for r in rows)} tiles of {len(rows)} slides in {out}")
    for path in failed:
        print(f"failed: {path}: {failed[path]}", file=sys.stderr)
    _list_failed(out / "failed.csv", failed)
    errors = [{"slide": str(p), "error": failed[p]} for p in paths if p in failed]
    desk.console.fact({"out": str(out), "tiles": sum(r["tiles"] for r in rows), "slides": rows, "failed": errors})
    sys.exit(1 if failed else 0)


def _list_failed(path: Path, failed: dict[Path, str]) -> None:
    """What failed in the last command and why, as a table for people; no file when nothing did."""
    import csv
    import io

    if not failed:
        return path.unlink(missing_ok=True)
    text = io.StringIO()
    csv.writer(text).writerows([("slide", "error"), *sorted((str(p), why) for p, why in failed.items())])
    publish(path, text.getvalue().encode())


def _one(path: Path, out: Path, tiling: Tiling, o: dict[str, Any]) -> dict[str, Any]:
    """Tile one slide, unless it is done; what it came to."""
    import io

    from .overview import draw

    slide = Slide(path, o["slide_mpp"])
    target, picture = out / f"{path.stem}.h5", out / f"{path.stem}.png"
    asked = {
        **asdict(tiling),
        "slide_mpp": slide.mpp,
        "coordinates": Path(o["coordinates"]).name if o["coordinates"] else "",
        "rescale": o["rescale"],
    }
    found = _kept(target, slide, asked, o["again"])
    state = "kept" if found else "tiled"
    if found is None:
        given = o["coordinates"] and find(Path(o["coordinates"]), path.stem)
        found = fit(slide, given, tiling, o["rescale"]) if given else cut(slide, tiling)
        found.about["asked"] = asked
        write(target, found, slide)
        picture.unlink(missing_ok=True)
    if not picture.is_file():
        buffer = io.BytesIO()
        draw(slide, found).save(buffer, "png")
        publish(picture, buffer.getbuffer())
    mask = {"level": None, "above": None, **found.about.get("mask", {})}
    files = {"coordinates": str(target), "overview": str(picture)}
    sizes = {"edge": found.edge, "px": found.px, "mpp": round(found.mpp, 4), "slide_mpp": slide.mpp}
    return {"state": state, "tiles": len(found.xy), **sizes, **mask, "fingerprint": slide.fingerprint, **files}


def _kept(target: Path, slide: Slide, asked: dict[str, Any], again: bool) -> Coordinates | None:
    """What was written before for this very slide and these options; None: it is to be tiled.

    Raises:
        DataError: it was tiled with other options, and nobody said --again.
    """
    try:
        found = read(target) if target.is_file() else None
    except DataError:
        return None  # damaged: made again
    if found is None or again or found.about.get("fingerprint") != slide.fingerprint:
        return None
    if found.about.get("asked") != asked:
        theirs = found.about.get("asked", {})
        differ = [f"{k} {theirs.get(k)}, now {v}" for k, v in asked.items() if theirs.get(k) != v]
        raise DataError(
            f"{target} was tiled with other options ({'; '.join(differ)}). Name another --out, or add --again."
        )
    return found


COMMANDS = {"tile": tile}
