"""Entry points: which modules come in as plugins, whose they are, and what is wrong with the way one came in."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from . import hookspecs
from .errors import PluginError

GROUP = HARNESS = "eosin"
HOOKS = tuple(name for name in vars(hookspecs) if name.startswith("provide_"))


@dataclass
class Plugin:
    """One entry point: where it comes from, what it provides, and why it failed if it did."""

    name: str
    module: str
    distribution: str
    version: str
    error: str = ""
    provides: dict[str, list[str]] = field(default_factory=dict)
    object: Any = None

    @property
    def top(self) -> str:
        """The top-level module, which is the name that two distributions cannot share."""
        return self.module.partition(":")[0].partition(".")[0].strip()


def entries() -> list[metadata.EntryPoint]:
    """Every entry point of the group, the harness's own first: what they hold is not for strangers to take."""
    return sorted(metadata.entry_points(group=GROUP), key=lambda e: (owner(e) != HARNESS, e.name))


def owner(entry: metadata.EntryPoint) -> str:
    return entry.dist.name if entry.dist else ""


def announced(entry: metadata.EntryPoint) -> Plugin:
    """The plugin that an entry point names, not loaded yet."""
    return Plugin(entry.name, entry.value, owner(entry), entry.dist.version if entry.dist else "")


def modules() -> dict[str, str]:
    """{top-level module: distribution} of everything that is installed; the first of several."""
    found: dict[str, str] = {}
    for entry in entries():
        found.setdefault(announced(entry).top, owner(entry))
    return found


def refuse(plugin: Plugin, others: Iterable[Plugin], thing: Any = None) -> None:
    """PluginError when a name of the plugin is taken: one of two modules of one name is never imported.

    Args:
        others: the plugins that came before. thing: the module, once it is loaded.
    """
    who = plugin.distribution or plugin.name
    for other in others:
        whose = other.distribution or other.name
        if plugin.name == other.name:
            raise PluginError(
                f"{who} takes the plugin name {plugin.name}, which is that of a plugin of {whose}. "
                f"Rename the entry point of {who}."
            )
        same = plugin.module == other.module or (thing is not None and thing is other.object)
        if same and who == whose:
            raise PluginError(
                f"{who} names {plugin.module} twice, as {other.name} and as {plugin.name}. Remove one entry point."
            )
        if same or (whose == HARNESS != who and plugin.top == other.top):
            raise PluginError(
                f"{who} takes the module name {plugin.top}, which is that of {whose}'s plugin {other.name}: one hides "
                f"the other. Rename the module of {who}, and uninstall {who} until then."
            )


def strayed(plugin: Plugin, thing: Any) -> None:
    """PluginError when the harness's own module was found elsewhere: another of its name lies before it on the path."""
    file, here = getattr(thing, "__file__", None), Path(__file__).resolve()
    places = (here.parents[1], here.parents[2] / "plugins")  # installed; in a source tree
    if plugin.distribution == HARNESS and file and not any(Path(file).resolve().is_relative_to(p) for p in places):
        raise PluginError(
            f"{file} hides {HARNESS}'s own module {plugin.module}, and all that it provides. Uninstall what brought it, "
            "or rename it."
        )


def misspelt(thing: Any, hooks: Iterable[str]) -> str:
    """Why a module provides less than it seems to, with the nearest hook; empty when nothing is odd.

    Args:
        hooks: the names that it marks with `@eosin.hookimpl`, as pluggy found them.
    """
    marked = sorted(hooks)
    bare = sorted(n for n in HOOKS if n not in marked and callable(getattr(thing, n, None)))
    if bare:
        return f"{bare[0]} lacks @eosin.hookimpl above it, so nobody calls it. Add that line."
    for name in marked:
        if name not in HOOKS:
            return f"{name} is no hook. {_near([name])}"
    return "" if marked else f"The module defines no hook. {_near(dir(thing))}"


def _near(names: Iterable[str]) -> str:
    """The hook that is nearest to any of these names, as a question; where they are listed, when none is near."""
    found = [near for n in names for near in difflib.get_close_matches(n, HOOKS, n=1, cutoff=0.8)]
    return f"Did you mean {found[0]}?" if found else "docs/hooks.md lists them."
