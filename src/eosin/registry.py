"""Reading registry.yaml files into cards: rows of facts, the same schema for us and for strangers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .cards import BenchmarkCard, Card, DatasetCard, ModelCard, RecipeCard, SuiteCard
from .errors import CardError, MissingError

SECTIONS: dict[str, type[Card]] = {
    "models": ModelCard,
    "datasets": DatasetCard,
    "benchmarks": BenchmarkCard,
    "recipes": RecipeCard,
    "suites": SuiteCard,
}

DEEPEST, MOST = 50, 1_000_000  # levels and values of a file of cards; ours has 6 and some thousand
ANCHOR, OPENS = re.compile(rb"(?:^|[\s,\[{]|[\"']:)&[\w-]"), re.compile(rb"[\[{]|[-?]\s")


@dataclass
class Registry:
    """The cards of one file, by section, and the csv files of published numbers that it names."""

    path: Path
    models: list[ModelCard] = field(default_factory=list)
    datasets: list[DatasetCard] = field(default_factory=list)
    benchmarks: list[BenchmarkCard] = field(default_factory=list)
    recipes: list[RecipeCard] = field(default_factory=list)
    suites: list[SuiteCard] = field(default_factory=list)
    published: list[Path] = field(default_factory=list)


def read_yaml(path: Path) -> Any:
    """A YAML file's content, safely; CardError gives line and column of a slip, and of a key that stands twice."""
    import yaml

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen = set()
            for key, _ in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    raise yaml.constructor.ConstructorError(None, None, "a key must be a word", key.start_mark)
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value!r} stands twice", key.start_mark
                    )
                seen.add(key.value)
            return super().construct_mapping(node, deep)

    stamp = "tag:yaml.org,2002:timestamp"  # a date is text: cards hold what JSON holds
    rules = Loader.yaml_implicit_resolvers.items()
    Loader.yaml_implicit_resolvers = {c: [r for r in found if r[0] != stamp] for c, found in rules}

    try:
        content = path.read_bytes()
        if ANCHOR.search(content) or len(OPENS.findall(content)) > 100 * DEEPEST:  # else it cannot be out of bounds
            _bounded(yaml.parse(content, Loader))
        return yaml.load(content, Loader)  # noqa: S506 (a safe loader, subclassed)
    except FileNotFoundError:
        raise MissingError(f"There is no file {path}. Check the path given to --registry or --model.") from None
    except OSError as error:
        raise CardError(f"{path} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise CardError(f"{path} is not valid YAML: {' '.join(str(error).split())}. Correct that line.") from error


def _bounded(events: Iterable[Any]) -> None:
    """ValueError for what would exhaust stack or memory when built: depth, repetition by aliases, a value that holds itself."""
    nodes, opened, sizes = 0, list[tuple[Any, int]](), dict[Any, int]()
    for event in events:
        kind, anchor = type(event).__name__, getattr(event, "anchor", None)
        if kind == "AliasEvent":
            if anchor not in sizes:
                raise ValueError(f"*{anchor} holds itself, or is nowhere")
            nodes += sizes[anchor]
        elif kind.endswith("EndEvent") and kind[:3] in ("Map", "Seq"):
            name, start = opened.pop()
            sizes[name] = nodes - start
        elif kind in ("MappingStartEvent", "SequenceStartEvent"):
            opened.append((anchor, nodes))
            nodes += 1
        elif kind == "ScalarEvent":
            nodes += 1
            sizes[anchor] = 1
        if len(opened) > DEEPEST or nodes > MOST:
            raise ValueError(f"it nests deeper than {DEEPEST} levels or says more than {MOST:,} things")


def read_registry(path: Path) -> Registry:
    """All cards of a registry file.

    Raises:
        CardError: naming the file, the row and the key.
    """
    content = read_yaml(path) or {}
    known = [*SECTIONS, "published"]
    if not isinstance(content, dict):
        raise CardError(f"{path}: a registry file has the sections {', '.join(known)}.")
    wrong = [k for k in content if k not in known]
    if wrong:
        raise CardError(f"{path}: unknown section {', '.join(map(str, wrong))}. Sections: {', '.join(known)}.")
    registry = Registry(path)
    for section, card in SECTIONS.items():
        rows = content.get(section) or {}
        if not isinstance(rows, dict):
            raise CardError(f"{path}: section {section} maps names to rows, as `{section}: {{name: {{…}}}}`.")
        for name, row in rows.items():
            try:
                getattr(registry, section).append(card.from_row(str(name), row, path.parent))
            except CardError as error:
                raise CardError(f"{path}: {error}") from error
    named = content.get("published") or []
    named = [named] if isinstance(named, str) else named
    if not isinstance(named, list):
        raise CardError(f"{path}: published is a list of csv files, not {named!r}.")
    registry.published = [path.parent / str(p) for p in named]
    return registry


def read_card(path: Path) -> ModelCard:
    """The one model of a card file (`card.yaml`, or a folder that holds one): the row's keys and perhaps a `name`."""
    file = path / "card.yaml" if path.is_dir() else path
    row = read_yaml(file)
    if not isinstance(row, dict):
        raise CardError(f"{file}: a model card is a mapping such as `kind: timm`, `arch: …`, `weights: …`.")
    if isinstance(row.get("models"), dict) and len(row["models"]) == 1:
        ((name, row),) = row["models"].items()
    else:
        row = dict(row)
        name = row.pop("name", None) or (path.absolute().name if path.is_dir() else path.stem)
    try:
        return ModelCard.from_row(str(name), row, file.parent)
    except CardError as error:
        raise CardError(f"{file}: {error}") from error
