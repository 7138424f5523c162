"""From the names in a published file to timm's names, one pure function a format: state dict in, state dict out."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

State = dict[str, Any]


def efficientnet_pytorch(state: State, module: Any) -> State:
    """lukemelas' EfficientNet names (the PyPI package of Lite0): blocks numbered through, timm's by stage."""
    homes = [(s, b) for s, stage in enumerate(module.blocks) for b in range(len(stage))]
    expanding = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2", "_project_conv": "conv_pwl", "_bn2": "bn3"}
    separable = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    ends = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
    out = {}
    for key, value in state.items():
        block = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(.+)", key)
        if block:
            stage, index = homes[int(block[1])]
            names = expanding if f"_blocks.{block[1]}._expand_conv.weight" in state else separable
            out[f"blocks.{stage}.{index}.{names[block[2]]}.{block[3]}"] = value
        else:
            head, _, rest = key.partition(".")
            out[f"{ends[head]}.{rest}"] = value
    return out


KEY_MAPS: dict[str, Callable[[State, Any], State]] = {"efficientnet_pytorch": efficientnet_pytorch}
