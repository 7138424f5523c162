"""Models: whatever timm can build, and the baselines that every real model must beat."""

import eosin

from .color import ColorStats
from .timm_models import Timm


@eosin.hookimpl
def provide_models(cards):
    return [ColorStats(), *(Timm(card) for card in cards if card.kind == "timm")]
