"""Which parameters learn how fast: layer decay, a slow patch embedding, no weight decay on biases and norms.

As dinov2/utils/param_groups.py of facebookresearch/dinov2 has it, with timm's names.
"""

from __future__ import annotations

import re
from typing import Any

FIRST = ("pos_embed", "patch_embed", "mask_token", "cls_token", "reg_token", "register_tokens")
BLOCK = re.compile(r"(?:^|\.)blocks\.(\d+)\.")


def groups(named: list[tuple[str, Any]], layer_decay: float, patch_embed_lr: float) -> list[dict[str, Any]]:
    """Groups for AdamW of (name, parameter) pairs; names of the network begin with `backbone.`.

    Of b blocks, block i learns layer_decay ** (b - i) as fast as what follows them (i from 0); tokens and embeddings
    count as the layer before the first block.
    """
    ours = [n for n, _ in named if n.startswith("backbone.")]
    blocks = 1 + max((int(m[1]) for n in ours if (m := BLOCK.search(n))), default=-1)
    found: dict[tuple[float, float], list[Any]] = {}
    for name, parameter in named:
        lr = layer_decay ** (blocks + 1 - _layer(name, blocks))
        if "patch_embed" in name:
            lr *= patch_embed_lr
        decay = 0.0 if name.endswith(".bias") or "norm" in name or "gamma" in name else 1.0
        found.setdefault((lr, decay), []).append(parameter)
    return [{"params": p, "lr_scale": lr, "decay_scale": decay} for (lr, decay), p in found.items()]


def _layer(name: str, blocks: int) -> int:
    if blocks and any(part in name for part in FIRST):
        return 0
    block = BLOCK.search(name) if name.startswith("backbone.") else None
    return int(block[1]) + 1 if block else blocks + 1
