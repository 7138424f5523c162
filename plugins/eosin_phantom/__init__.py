"""The phantom: procedural H&E-like tissue with known truth, the same bytes from the same seed.

`make.make` writes tiles, `make.pairs` registered pairs, `make.slides` pyramidal slides, `make.nuclei` instance masks.
"""

import eosin

from .dataset import Phantom


@eosin.hookimpl
def provide_datasets(cards):
    return [Phantom(card) for card in cards if card.kind == "phantom"]
