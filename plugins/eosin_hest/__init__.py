"""HEST-Benchmark: its data, its ridge protocol, and the variants that were proposed."""

import eosin


@eosin.hookimpl
def provide_protocols():
    from .protocols import HestRidge
    from .variants import HestRidgeCv, HestRidgeIntercept, HestRidgeRaw

    return [HestRidge(), HestRidgeRaw(), HestRidgeIntercept(), HestRidgeCv()]


@eosin.hookimpl
def provide_datasets(cards):
    from .bench import HestBench
    from .visium import Visium

    kinds = {HestBench.kind: HestBench, Visium.kind: Visium}
    return [kinds[card.kind](card) for card in cards if card.kind in kinds]
