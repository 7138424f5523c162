"""Who may come in: plugins found through entry points, one at a time, and the catalogue of all that they provide."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property, partial
from importlib import metadata
from pathlib import Path
from typing import Any

import pluggy

from . import hookspecs
from .benchmark import Benchmark, Protocol
from .cards import Card, ModelCard, SuiteCard, recorded
from .dataset import Dataset
from .doors import HARNESS, Plugin, announced, entries, misspelt, refuse, strayed
from .errors import CardError, EosinError, NameTaken, PluginError, UsageError, unknown
from .extractor import FeatureExtractor
from .recipe import DistillationRecipe
from .registry import Registry, read_card, read_registry

PRECOMPUTED = "precomputed"


@dataclass
class Shelf:
    """Things of one sort by name; each with the plugin or file that brought it. A name claimed twice is kept as a clash."""

    word: str
    things: dict[str, Any] = field(default_factory=dict)
    origin: dict[str, str] = field(default_factory=dict)
    clashes: dict[str, list[str]] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, thing: Any, origin: str) -> None:
        if name in self.things:
            self.clashes.setdefault(name, [self.origin[name]]).append(origin)
        self.things.setdefault(name, thing)
        self.origin.setdefault(name, origin)

    def get(self, name: str, listing: str, hint: str = "") -> Any:
        """The thing of that name; UsageError with near names, NameTaken with both claimants."""
        if name in self.clashes:
            raise NameTaken(
                f"Two plugins provide a {self.word} called {name!r}: {' and '.join(self.clashes[name])}. Uninstall or rename one."
            )
        if name in self.things:
            return self.things[name]
        if name in self.problems:
            raise CardError(self.problems[name])
        error = unknown(self.word, name, self.things, listing)
        raise UsageError(f"{error}{hint}")


class Catalogue:
    """All models, datasets, protocols, benchmarks, recipes and suites, from plugins and registry files.

    Args:
        registries: the user's registry files, read last; an error in one of them is the user's to mend and is raised.
    """

    def __init__(self, registries: Iterable[Path] = ()) -> None:
        self.manager = pluggy.PluginManager("eosin")
        self.manager.add_hookspecs(hookspecs)
        self.plugins: list[Plugin] = []
        for entry in entries():
            self.plugins.append(self._load(entry))
        self.files: list[tuple[str, Registry]] = [(HARNESS, read_registry(built_in_registry()))]
        for plugin in self._sound():
            paths = self._ask(plugin, "provide_cards") or []
            for path in [paths] if isinstance(paths, (str, Path)) else paths:
                registry = self._guard(plugin, partial(read_registry, Path(path)))
                self.files += [(plugin.name, registry)] if registry is not None else []
        self.files += [(str(p), read_registry(p)) for p in registries]

    def _load(self, entry: metadata.EntryPoint) -> Plugin:
        plugin = announced(entry)

        def enter() -> None:
            refuse(plugin, self.plugins)
            thing = entry.load()
            refuse(plugin, self.plugins, thing)
            strayed(plugin, thing)
            self.manager.register(thing, name=entry.name)
            plugin.object = thing  # not before: an object that two plugins hold would be asked for neither
            plugin.error = misspelt(thing, self._marked(thing))

        self._guard(plugin, enter)
        return plugin

    def _marked(self, thing: Any) -> list[str]:
        """The hooks that a module means to define, also those that there are not; those it calls optional excepted."""
        found = [(c.name, i) for c in self.manager.get_hookcallers(thing) or [] for i in c.get_hookimpls()]
        return [name for name, impl in found if impl.plugin is thing and not impl.optionalhook]

    def _sound(self) -> list[Plugin]:
        return [p for p in self.plugins if p.object is not None]

    def _guard(self, plugin: Plugin, action: Callable[[], Any]) -> Any:
        """Run a piece of somebody's code; what it raises is kept on the plugin and the rest go on."""
        try:
            return action()
        except Exception as error:  # a stranger's code may raise anything
            text = str(error) or "no message"
            plugin.error = text if isinstance(error, EosinError) else f"{type(error).__name__}: {text}"
            return None

    def _call(self, plugin: Plugin, hook: str, **arguments: Any) -> Any:
        """One hook of one plugin; whatever it raises."""
        others = [p.object for p in self._sound() if p is not plugin]
        found = self.manager.subset_hook_caller(hook, remove_plugins=others)(**arguments)
        return found[0] if found else None

    def _ask(self, plugin: Plugin, hook: str, **arguments: Any) -> Any:
        return self._guard(plugin, partial(self._call, plugin, hook, **arguments))

    def _gather(self, section: str, word: str, wanted: type, cards: list[Any]) -> Shelf:
        shelf = Shelf(word)
        for plugin in self._sound():
            for thing in self._things(plugin, section, cards, shelf):
                card = getattr(thing, "card", None)
                if not isinstance(thing, wanted) or not isinstance(card, Card):
                    plugin.error = f"provide_{section} gave {thing!r}, which is not a {wanted.__name__} with a card"
                    continue
                shelf.add(card.name, thing, plugin.name)
                plugin.provides.setdefault(section, []).append(card.name)
        return shelf

    def _things(self, plugin: Plugin, section: str, cards: list[Any], shelf: Shelf) -> list[Any]:
        """What a plugin's hook returns. One bad row does not cost the others: the hook is then asked row by row."""
        hook = f"provide_{section}"
        try:
            return list(self._call(plugin, hook, cards=cards) or [])
        except EosinError:
            found = list(self._ask(plugin, hook, cards=[]) or [])
        except Exception:  # a stranger's hook may raise anything
            return list(self._ask(plugin, hook, cards=cards) or [])
        for card in cards:
            try:
                found += [t for t in self._call(plugin, hook, cards=[card]) or [] if getattr(t, "card", None) == card]
            except EosinError as error:
                shelf.problems[card.name] = str(error)
        return found

    def _cards(self, section: str) -> list[tuple[str, Any]]:
        return [(origin, card) for origin, file in self.files for card in getattr(file, section)]

    def _with_rows(self, section: str, word: str, wanted: type) -> Shelf:
        """What plugins provide; rows that no plugin served are problems, rows of a name already taken are clashes."""
        rows = self._cards(section)
        shelf = self._gather(section, word, wanted, [card for _, card in rows])
        by_kind = {id(card): origin for origin, card in rows}
        for name, thing in shelf.things.items():
            shelf.origin[name] = by_kind.get(id(thing.card), shelf.origin[name])
        for origin, card in rows:
            thing = shelf.things.get(card.name)
            if thing is None:
                nobody = f"{origin}: {word} {card.name} has kind {card.kind!r}, which no installed plugin provides. `bench plugins` lists them."
                shelf.problems.setdefault(card.name, nobody)
            elif thing.card is not card and card.name not in shelf.clashes:
                shelf.clashes[card.name] = [shelf.origin[card.name], origin]
        return shelf

    @cached_property
    def models(self) -> Shelf:
        shelf = self._with_rows("models", "model", FeatureExtractor)
        for origin, card in self._cards("models"):
            if card.kind == PRECOMPUTED:
                shelf.add(card.name, precomputed(card), origin)
                shelf.problems.pop(card.name, None)
        for thing in list(shelf.things.values()):
            for alias in thing.card.aliases:
                shelf.things.setdefault(alias, thing)
        return shelf

    @cached_property
    def datasets(self) -> Shelf:
        from .folders import BUILT_IN

        rows = self._cards("datasets")
        shelf = self._gather("datasets", "dataset", Dataset, [card for _, card in rows])
        for origin, card in rows:
            if card.kind in BUILT_IN:
                shelf.add(card.name, BUILT_IN[card.kind](card), origin)
            elif card.name not in shelf.things:
                shelf.problems[card.name] = (
                    f"{origin}: dataset {card.name} has kind {card.kind!r}, which no installed plugin provides. `bench plugins` lists them."
                )
        for name, benchmark in self.benchmarks.things.items():
            own = benchmark.dataset
            if own is not None and not _same(shelf.things.get(own.name), own):
                shelf.add(own.name, own, self.benchmarks.origin[name])
        for thing in shelf.things.values():
            thing.maker = shelf.things.get(thing.card.made_by)
        return shelf

    @cached_property
    def protocols(self) -> Shelf:
        return self._gather("protocols", "protocol", Protocol, [])

    @cached_property
    def benchmarks(self) -> Shelf:
        rows = self._cards("benchmarks")
        shelf = self._gather("benchmarks", "benchmark", Benchmark, [card for _, card in rows if card.kind])
        for origin, card in rows:
            if not card.kind:
                shelf.add(card.name, Benchmark(card), origin)
            elif card.name not in shelf.things:
                shelf.problems[card.name] = (
                    f"{origin}: benchmark {card.name} has kind {card.kind!r}, which no installed plugin provides."
                )
        return shelf

    @cached_property
    def recipes(self) -> Shelf:
        return self._with_rows("recipes", "recipe", DistillationRecipe)

    @cached_property
    def suites(self) -> Shelf:
        shelf = Shelf("suite")
        for origin, card in self._cards("suites"):
            shelf.add(card.name, card, origin)
        everything = tuple(dict.fromkeys(b for card in shelf.things.values() for b in card.benchmarks))
        shelf.things.setdefault("all", SuiteCard("all", everything, description="every benchmark of every suite"))
        shelf.origin.setdefault("all", HARNESS)
        return shelf

    def model(self, name: str, **changes: Any) -> FeatureExtractor:
        """A model by name, `timm:ARCH`, `precomputed:DIR`, or the path of a card or of a folder that holds one.

        Args:
            changes: card fields that the command line overrides (weights, precision).
        """
        changes = {k: v for k, v in changes.items() if v is not None}
        if name.startswith("timm-") and name not in self.models.things:
            name = name.replace("-", ":", 1)  # as records and tables call it
        kind, _, rest = name.partition(":")
        if recorded(name) != name:
            thing = self._from_card(ModelCard(recorded(name), kind=kind, arch=rest, options={"shorthand": True}))
        elif name not in self.models.things and (
            name.endswith((".yaml", ".yml")) or "/" in name or Path(name, "card.yaml").is_file()
        ):
            thing = self._from_card(read_card(Path(name)))
        else:
            thing = self.models.get(name, "bench list models", self.broken_hint())
        if not changes:
            return thing
        import copy

        thing = copy.copy(thing)
        thing._module = None
        thing.card = dataclasses.replace(thing.card, **changes)
        return thing

    def _from_card(self, card: Any) -> FeatureExtractor:
        if card.kind == PRECOMPUTED:
            return precomputed(card)
        for plugin in self._sound():
            for thing in self._call(plugin, "provide_models", cards=[card]) or []:
                if thing.card.name == card.name and thing.card.kind == card.kind:
                    return thing
        raise CardError(
            f"Model {card.name} has kind {card.kind!r}, which no installed plugin provides. Use kind: timm, or install the plugin; `bench plugins` lists them."
        )

    def benchmark(self, name: str) -> Benchmark:
        """A benchmark with its protocol set, if the protocol is one of the catalogue's."""
        found: Benchmark = self.benchmarks.get(name, "bench list benchmarks", self.broken_hint())
        if found.protocol is None and (
            found.card.protocol in self.protocols.things or type(found).score is Benchmark.score
        ):
            found.protocol = self.protocols.get(found.card.protocol, "bench list protocols", self.broken_hint())
        return found

    def protocol(self, name: str) -> Protocol:
        """A protocol by name; without a version, the newest."""
        if "@" not in name:
            versions = [n for n in self.protocols.things if n.partition("@")[0] == name]
            name = max(versions, key=lambda n: int(n.partition("@")[2]), default=name)
        found: Protocol = self.protocols.get(name, "bench list protocols", self.broken_hint())
        return found

    def distributions(self) -> dict[str, str]:
        """Installed distributions that provide plugins, with their versions."""
        return {p.distribution: p.version for p in self._sound() if p.distribution}

    def commands(self) -> dict[str, Any]:
        """Commands that plugins add."""
        import click

        group = click.Group()
        for plugin in self._sound():
            self._ask(plugin, "provide_commands", cli=group)
        return dict(group.commands)

    def suite(self, name: str) -> list[str]:
        return list(self.suites.get(name, "bench list suites").benchmarks)

    def broken_hint(self) -> str:
        """A sentence on plugins that failed, for an error about a name that one of them may have held."""
        broken = [p for p in self.plugins if p.error]
        if not broken:
            return ""
        return (
            " A plugin failed and may hold it: "
            + "; ".join(f"{p.name} ({p.error})" for p in broken)
            + ". `bench plugins` says more."
        )

    def require(self, plugin_name: str) -> Plugin:
        for plugin in self.plugins:
            if plugin.name == plugin_name:
                if plugin.error:
                    raise PluginError(
                        f"Plugin {plugin_name} failed: {plugin.error.removesuffix('.')}. Update or uninstall {plugin.distribution}."
                    )
                return plugin
        raise unknown("plugin", plugin_name, [p.name for p in self.plugins], "bench plugins")


def precomputed(card: ModelCard) -> FeatureExtractor:
    from .precomputed import Precomputed

    return Precomputed(card)


def _same(a: Any, b: Any) -> bool:
    """Whether two datasets are one: the same class with equal cards."""
    return type(a) is type(b) and a.card == b.card


def built_in_registry() -> Path:
    """registry.yaml: inside the installed package, or at the top of a source tree."""
    inside = Path(__file__).with_name("registry.yaml")
    return inside if inside.is_file() else Path(__file__).parents[2] / "registry.yaml"
