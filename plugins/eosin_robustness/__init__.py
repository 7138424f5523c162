"""Robustness: how much embeddings say about the laboratory, the scanner and the stain instead of the tissue."""

import eosin


@eosin.hookimpl
def provide_protocols():
    from .apd import PerformanceDrop
    from .audit import CentreAudit
    from .cka import Cka
    from .drift import Drift
    from .index import RobustnessIndexG2L, RobustnessIndexPathoROB
    from .plism import PlismLeaderboard, PlismPaper

    indices = [RobustnessIndexG2L(), RobustnessIndexPathoROB()]
    return [CentreAudit(), Cka(), Drift(), PerformanceDrop(), PlismLeaderboard(), PlismPaper(), *indices]


@eosin.hookimpl
def provide_datasets(cards):
    from .pathorob import PathoROB
    from .plism_data import Plism
    from .tiger import Bcss, Tiger

    kinds = {kind.kind: kind for kind in (Bcss, PathoROB, Plism, Tiger)}
    return [kinds[card.kind](card) for card in cards if card.kind in kinds]


@eosin.hookimpl
def provide_benchmarks(cards):
    from .drift import DriftBenchmark

    return [DriftBenchmark(card) for card in cards if card.kind == DriftBenchmark.kind]


@eosin.hookimpl
def provide_commands(cli):
    from .triples import command

    command(cli)
