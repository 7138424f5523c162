"""EVA: its linear heads, ABMIL and segmentation decoders, as they were at the end of 2024 and as they are today."""

import eosin


@eosin.hookimpl
def provide_protocols():
    from . import abmil, linear
    from .segmentation import EvaSegmentation, EvaSegmentation04, EvaSegmentationOffline

    return [*linear.PROTOCOLS, *abmil.PROTOCOLS, EvaSegmentation(), EvaSegmentation04(), EvaSegmentationOffline()]
