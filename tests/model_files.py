"""Making weights files as a hub would hold them, and loading them by our route."""

from __future__ import annotations

import torch

from eosin.cards import ModelCard
from eosin_models.timm_models import Timm

TINY = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "mlp_ratio": 2}


def shaken(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Every parameter and running mean random, so that no two tensors can be swapped unseen (many start as 0 or 1)."""
    torch.manual_seed(seed)
    for name, value in module.state_dict().items():
        if value.is_floating_point():
            noise = torch.randn_like(value) * 0.2
            value.copy_(
                noise.abs() + 0.5
                if "running_var" in name
                else noise + (1 if "norm" in name and "weight" in name else 0)
            )
    return module.eval()


def load(path, **fields) -> Timm:
    """Our extractor with the weights of a file (or of a folder that holds one)."""
    return Timm(ModelCard("ours", **{"kind": "timm", "arch": "vit_base_patch16_224", "weights": str(path), **fields}))


def tiles(n: int = 3, size: int = 32, channels: int = 3) -> torch.Tensor:
    return torch.randn(n, channels, size, size, generator=torch.Generator().manual_seed(1))


def near(a: torch.Tensor, b: torch.Tensor) -> None:
    """Equal to 1e-5 in float32, and not by being constant."""
    assert a.shape == b.shape
    assert b.std() > 1e-3
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
