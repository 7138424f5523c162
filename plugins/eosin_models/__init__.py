"""Models: whatever timm can build, towers around it, and the baselines that every real model must beat."""

import eosin

from .color import ColorStats
from .timm_models import KINDS, Timm


@eosin.hookimpl
def provide_models(cards):
    return [ColorStats(), *(Timm(card) for card in cards if card.kind in KINDS)]
