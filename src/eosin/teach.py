"""distill: the command that makes a student of a teacher."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

import click

from .cli import Desk, common, pairs
from .errors import DataError, NotApplicable, UsageError


@click.command()
@click.argument("recipe", required=False)
@click.option("--teacher", help="A model: `bench list models`, timm:ARCH, or the folder of a card.")
@click.option("--student", help="The model to start from; timm:ARCH starts from seeded random weights.")
@click.option("--slides", type=click.Path(), help="A folder of slides; tiles are cut from their tissue.")
@click.option("--tiles", type=click.Path(), help="A folder of tiles: images, an HDF5 file, or tiles.csv.")
@click.option("--out", required=True, type=click.Path(file_okay=False), help="Where the model and its log go.")
@click.option(
    "--steps", type=click.IntRange(min=1), help="Steps, and the horizon of the schedules (default: the recipe's)."
)
@click.option(
    "--batch-size", type=click.IntRange(min=1), help="Tiles a step, over all processes (default: the recipe's)."
)
@click.option(
    "--option", "options", multiple=True, callback=pairs, help="An option of the recipe, as lr=1e-4; recorded."
)
@click.option("--checkpoint-every", default=500, type=click.IntRange(min=0), help="Steps; 0: only at the end.")
@click.option("--resume", is_flag=True, help="Go on from the checkpoint in --out; start where there is none.")
@click.option(
    "--seed", default=0, type=click.IntRange(min=0), help="Of data order, augmentation, dropout and random weights."
)
@click.option(
    "--max-slides",
    default=0,
    type=click.IntRange(min=0),
    help="Train on so many slides, drawn with the seed (default: all).",
)
@click.option(
    "--max-tiles",
    default=0,
    type=click.IntRange(min=0),
    help="Of each slide at most so many tiles, drawn with the seed (default: all).",
)
@click.option("--exclude", multiple=True, help="Slides or patients not to train on: a text file, or a dataset's name.")
@click.option("--mpp", default=0.25, help="Of tiles cut from slides: micrometres per pixel.")
@click.option("--size", default=256, help="Of tiles cut from slides: edge in pixels.")
@click.option("--rule", default="otsu", help="How tissue is told from glass; see bench tile.")
@click.option("--share", default=-1.0, help="Least share of tissue in a tile (default: the rule's).")
@click.option("--slide-mpp", type=float, help="Micrometres per pixel of the slides at level 0, over what they say.")
@click.option(
    "--coordinates", type=click.Path(), help="A folder of `bench tile`, TRIDENT or the sampler to take tiles from."
)
@click.option(
    "--probe-every",
    default=0,
    type=click.IntRange(min=0),
    help="Steps between looks at held-out tiles: CKA to the teacher.",
)
@click.option("--probe", "probe", help="A labelled dataset for a kNN score at each look; not one of your benchmarks.")
@click.option(
    "--held-out",
    type=click.IntRange(min=0),
    help="Tiles that are looked at and never trained on (default: 256 with --probe-every).",
)
@click.option("--precision", type=click.Choice(["fp32", "bf16", "fp16"]), default="fp32", help="Of the forward passes.")
@click.option("--accumulate", default=1, type=click.IntRange(min=1), help="Pieces to cut a batch into, to save memory.")
@click.option("--recompute", is_flag=True, help="Compute activations again in the backward pass, to save memory.")
@click.option("--compile", is_flag=True, help="torch.compile the teacher.")
@click.option("--workers", default=0, type=click.IntRange(min=0), help="Threads that read tiles (default: by machine).")
@click.option("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps.")
@click.option("--control", type=click.Choice(["continued"]), help="continued: the student's own start is its teacher.")
@click.option("--accept-licence", is_flag=True, help="I may make derivatives of these models.")
@click.option("--register", "registered", help="Make the model in --out the weights of this name (EOSIN_HOME/models).")
@click.option("--quiet", is_flag=True, help="No progress and no remarks.")
@common
def distill(recipe: str | None, **o: Any) -> None:
    """Distil a teacher into a student, by a RECIPE (`bench list recipes`).

    \b
    bench distill g2l --teacher h-optimus-0 --student hibou-l --slides SLIDES --out runs/g2l-brca
    torchrun --nproc-per-node 3 -m eosin.cli distill g2l …
    bench run --model runs/g2l-brca --suite breast

    --out gets card.yaml and model.safetensors, a model like any other; checkpoint.pt, for --resume; train.jsonl and
    curves.png, what happened; tiles.csv, what was used.
    """
    o["quiet"] |= os.environ.get("RANK", "0") != "0"  # of several processes the first one speaks
    desk, out = Desk(o), Path(o["out"])
    if recipe is None and o["registered"]:
        return desk.console.fact(*register(desk, out, o["registered"]))
    lacking = [f"--{n}" for n in ("teacher", "student") if not o[n]] + ["RECIPE"] * (recipe is None)
    if o["control"] == "continued" and "--teacher" in lacking:
        lacking.remove("--teacher")
    if lacking:
        raise UsageError(f"Missing {', '.join(lacking)}. `bench distill --help` shows an example.")
    if bool(o["slides"]) == bool(o["tiles"]):
        raise UsageError("Give either --slides DIR or --tiles DIR.")
    if o["held_out"] is None:
        o["held_out"] = 256 if o["probe_every"] else 0
    for idle, why in (
        (o["probe"] and not o["probe_every"], "--probe is looked at every so many steps: add --probe-every 500."),
        (
            o["probe_every"] and not o["held_out"] and not o["probe"],
            "--probe-every has nothing to look at: leave out --held-out 0.",
        ),
        (o["coordinates"] and o["tiles"], "--coordinates are of slides: give --slides instead of --tiles."),
    ):
        if idle:
            raise UsageError(why)
    if o["control"] and o["teacher"]:
        desk.console.say(f"--teacher {o['teacher']} is not used: in this control the student's own start teaches")
    from . import processes
    from .lesson import Lesson

    try:
        console = desk.console
        left_out = excluded(desk, o["exclude"])
        lesson = Lesson(desk.catalogue, desk.places, str(recipe), out, o, left_out, console.watch, console.say)
        fact, text = lesson.run()
        console.finish()
    except NotApplicable as error:  # of a benchmark it is nobody's fault; here nothing was made
        raise UsageError(str(error)) from error
    finally:
        processes.end()
    if o["registered"]:
        fact["registered"] = register(desk, out, o["registered"])[0]["registered"]
    if lesson.first:
        desk.console.fact(fact, text)


def register(desk: Desk, out: Path, name: str) -> tuple[dict[str, Any], str]:
    """Copy the weights to where the model of this name looks for them."""
    from .cards import NAME_CHARS
    from .files import publish
    from .graduate import CARD, WEIGHTS
    from .registry import read_card

    if not (out / WEIGHTS).is_file() or not (out / CARD).is_file():
        raise DataError(f"{out} holds no finished model ({WEIGHTS}, {CARD}). Distil one first, or correct --out.")
    if not name or set(name) - NAME_CHARS or name.startswith("."):
        raise UsageError(f"--register {name!r}: a model's name has letters, digits and . _ + - only. Choose another.")
    known = desk.catalogue.models.things.get(name)
    if known is not None and (ours := read_card(out).arch) != known.card.arch:
        raise UsageError(
            f"{out} is a {ours}, and {name} is a {known.card.arch}: these weights do not fit. Choose another name."
        )
    folder = desk.places.home / "models" / name
    for file in (WEIGHTS, CARD):
        publish(folder / file, (out / file).read_bytes())
    if known is None:
        return {
            "registered": str(folder)
        }, f"No card is called {name}, so: bench run --model {shlex.quote(str(folder))}"
    return {"registered": str(folder)}, f"bench run --model {name} now finds its weights in {folder}."


def excluded(desk: Desk, names: tuple[str, ...]) -> list[str]:
    """The slides and patients of text files (one a line, # for remarks) and of datasets."""
    found: list[str] = []
    for name in names:
        if Path(name).is_file():
            lines = Path(name).read_text(encoding="utf-8").splitlines()
            found += [text for line in lines if (text := line.split("#")[0].strip())]
            continue
        if name not in desk.catalogue.datasets.things:
            raise UsageError(f"--exclude {name}: neither a text file nor a dataset. `bench list datasets` shows them.")
        dataset = desk.catalogue.datasets.things[name]
        items = dataset.items(dataset.locate(desk.places.data))  # not its tiles: nothing is cut here
        found += [v for column in ("group", "slide") for v in items[column].tolist() if v]
    return sorted(set(found))


COMMANDS = {"distill": distill}
