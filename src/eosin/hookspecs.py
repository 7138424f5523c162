"""The doors: what a plugin may provide. A module named in the entry-point group `eosin` implements any of these with
`@eosin.hookimpl`; all return values, none may be slow, and an implementation may leave its arguments out.

    [project.entry-points.eosin]
    mine = "eosin_mine"
"""

from __future__ import annotations

import pluggy

hookspec = pluggy.HookspecMarker("eosin")
hookimpl = pluggy.HookimplMarker("eosin")


@hookspec
def provide_cards():
    """The path of the plugin's own registry.yaml, or a list of such paths."""


@hookspec
def provide_models(cards):
    """Extractors, one a model. `cards`: every model card of the registry files, to pick those of the plugin's kinds."""


@hookspec
def provide_datasets(cards):
    """Datasets. `cards`: every dataset card of the registry files."""


@hookspec
def provide_protocols(cards):
    """Protocols. `cards`: none today (protocols are code), an empty list."""


@hookspec
def provide_benchmarks(cards):
    """Benchmarks. `cards`: the benchmark cards that name a `kind`; the harness itself serves those that name none."""


@hookspec
def provide_recipes(cards):
    """Distillation recipes. `cards`: every recipe card of the registry files."""


@hookspec
def provide_commands(cli):
    """Commands of the plugin's own, added to the click group `cli`."""
