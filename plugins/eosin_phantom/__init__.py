"""The phantom: procedural H&E-like tissue with known truth, the same bytes from the same seed.

`make.make` writes tiles, `make.pairs` registered pairs, `make.slides` pyramidal slides, `make.nuclei` instance masks;
`sets` has what other loaders read: sections with gene counts, bags, masks of regions.
"""

import eosin


@eosin.hookimpl
def provide_datasets(cards):
    from .dataset import Phantom

    return [Phantom(card) for card in cards if card.kind == "phantom"]
