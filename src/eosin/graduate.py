"""The end of a distillation: a card and weights, a model like any other; and what people want to see of the run."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from .card import LONGEST, NAME_CHARS, plain
from .cards import ModelCard
from .errors import StoreError, UsageError
from .extractor import FeatureExtractor
from .files import publish
from .recipe import DistillationRecipe
from .table import Table
from .trainset import Choice

WEIGHTS, CARD, LOG, CURVES, RUN = "model.safetensors", "card.yaml", "train.jsonl", "curves.png", "run.json"
TILES = "tiles.csv"
FORBIDDING = ("noderiv", "no-deriv", "no deriv", "-nd", "forbids distillation", "no distillation")


def check_licences(cards: Sequence[ModelCard], accepted: bool) -> list[str]:
    """What the models' licences say, one text a model.

    Raises:
        UsageError: one of them forbids derivatives, and `accepted` is false.
    """
    notes = [f"{c.name}: {c.licence or 'licence unknown'}" for c in cards]
    forbidding = [n for n, c in zip(notes, cards, strict=True) if any(f in c.licence.lower() for f in FORBIDDING)]
    if forbidding and not accepted:
        raise UsageError(
            f"A student is a derivative of its models, and these licences forbid or restrict that: {'; '.join(forbidding)}. "
            "Read them; if you have the right to go on, add --accept-licence."
        )
    return notes


def can_graduate(student: FeatureExtractor) -> None:
    """UsageError for a student whose card cannot bring it back: one made by code, not by a kind and an architecture."""
    if student.card.kind == "class" or not student.card.arch:
        raise UsageError(
            f"{student.card.name} is made by code of a plugin, so that a card could not build it again. Use a model that has "
            "an architecture (`arch:`) as student, such as timm:vit_small_patch16_224."
        )


def check_same_run(out: Path, facts: Mapping[str, Any]) -> None:
    """UsageError where a run is to go on with other facts than it began with: each that differs is named."""
    if not (out / RUN).is_file():
        return
    before = json.loads((out / RUN).read_text(encoding="utf-8"))
    found = _differences("", before, json.loads(json.dumps(facts)))
    if found:
        raise UsageError(
            f"--resume goes on with the run in {out} as it was: {'; '.join(found)}. Give what was given then, or another --out."
        )


def write_tiles(out: Path, table: Table, choice: Choice, broken: Collection[str] = ()) -> None:
    """tiles.csv: id, slide and group (patient) of each tile that was chosen, and its use: train, held-out, or broken (it could not be read).

    Raises:
        OSError: it cannot be written.
    """
    use = {i: "broken" if table["id"][i] in broken else "train" for i in choice.rows.tolist()}
    use |= dict.fromkeys(choice.held_out.tolist(), "held-out")
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["id", "slide", "group", "use"])
    writer.writerows([table["id"][i], table["slide"][i], table["group"][i], use[i]] for i in sorted(use))
    publish(out / TILES, text.getvalue().encode())


def _differences(name: str, before: Any, now: Any) -> list[str]:
    """A text for each value that changed."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        return [t for k in now if before.get(k) != now[k] for t in _differences(k, before.get(k), now[k])]
    return [f"{name} was {before} and is {now}"]


def name_of(recipe: DistillationRecipe, out: Path) -> str:
    """The recipe's variant and what the folder's name adds to it: `g2l` in runs/g2l-brca makes g2l-brca."""
    variant, own = getattr(recipe, "variant", "") or recipe.card.name, out.absolute().name
    rest = own.removeprefix(variant).removeprefix(recipe.card.name)
    rest = "".join(c if c in NAME_CHARS else "-" for c in rest).strip("-")
    return f"{variant}-{rest}"[:LONGEST] if rest else variant


def changed(recipe: DistillationRecipe) -> list[str]:
    """Options that differ from the card's, which holds the paper's values."""
    options = recipe.card.options
    return [f"{k} = {v}, not {options[k].default}" for k, v in recipe.options.items() if v != options[k].default]


def write_model(out: Path, module: Any, student: ModelCard, name: str, about: Mapping[str, Any]) -> ModelCard:
    """Publish model.safetensors, then card.yaml; the card as `bench run --model DIR` reads it.

    Raises:
        StoreError: no room, or the folder may not be written.
    """
    import yaml
    from safetensors.torch import save

    state = {k: v.detach().cpu().contiguous().clone() for k, v in module.state_dict().items()}
    gone = {
        "hub",
        "revision",
        "file",
        "gated",
        "how",
        "tensors",
        "aliases",
        "paper",
        "url",
        "year",
        "title",
        "seed",
        "key_map",
    }
    facts = {
        f.name: getattr(student, f.name)
        for f in dataclasses.fields(student)
        if f.name not in gone and getattr(student, f.name) != _default(f)
    }
    facts |= {"weights": WEIGHTS, "distilled": dict(about), "licence": "; ".join(about.get("licences", ()))}
    facts |= {
        "description": f"{student.name} distilled by `bench distill`; what of, how and on which tiles: see distilled."
    }
    facts.pop("name", None)
    try:
        publish(out / WEIGHTS, save(state))
        row = yaml.safe_dump(
            json.loads(json.dumps(plain(facts), default=str)), sort_keys=False, allow_unicode=True, width=120
        )
        publish(out / CARD, f"name: {name}\n{row}".encode())
    except OSError as error:
        raise StoreError(f"The model cannot be written to {out}: {error}. Make room; --resume ends the run.") from error
    from .registry import read_card

    return read_card(out)


def _default(f: dataclasses.Field) -> Any:
    if f.default is not dataclasses.MISSING:
        return f.default
    return f.default_factory() if f.default_factory is not dataclasses.MISSING else dataclasses.MISSING


def digest(texts: Sequence[str]) -> str:
    """A short hash of a list."""
    return hashlib.blake2b("\n".join(texts).encode(), digest_size=8).hexdigest()


def log_lines(out: Path, upto: int | None = None) -> list[dict[str, Any]]:
    """The lines of train.jsonl, up to a step; a line that was cut short is left out."""
    found = []
    if (out / LOG).is_file():
        for text in (out / LOG).read_text(encoding="utf-8").splitlines():
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if upto is None or line.get("step", 0) <= upto:
                found.append(line)
    return found


def draw_curves(out: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """curves.png: loss, learning rate and what the probe found, over the steps."""
    from PIL import Image, ImageDraw

    names = [n for n in ("loss", "lr", "weight_decay", "cka", "knn") if any(n in line for line in lines)]
    width, height, left = 900, 200, 70
    picture = Image.new("RGB", (width, max(1, len(names)) * height), "white")
    pen = ImageDraw.Draw(picture)
    for i, name in enumerate(names):
        points = [(line["step"], line[name]) for line in lines if line.get(name) is not None]
        top, bottom, right = i * height + 25, (i + 1) * height - 25, width - 20
        low, high = min(v for _, v in points), max(v for _, v in points)
        first, last = points[0][0], max(points[-1][0], points[0][0] + 1)
        spread = (high - low) or 1.0
        line = [
            (left + (s - first) / (last - first) * (right - left), bottom - (v - low) / spread * (bottom - top))
            for s, v in points
        ]
        pen.rectangle((left, top, right, bottom), outline=(200, 200, 200))
        pen.text((left, top - 16), name, fill="black")
        pen.text((5, top - 5), f"{high:.4g}", fill="black")
        pen.text((5, bottom - 8), f"{low:.4g}", fill="black")
        pen.text((left, bottom + 4), f"step {first}", fill="black")
        pen.text((right - 60, bottom + 4), f"{points[-1][0]}", fill="black")
        if len(line) > 1:
            pen.line(line, fill=(10, 60, 160), width=2)
        else:
            pen.ellipse((line[0][0] - 3, line[0][1] - 3, line[0][0] + 3, line[0][1] + 3), fill=(10, 60, 160))
    picture.save(out / CURVES)
