"""The module that is trained: the student's network, the objectives with their heads, and a token for hidden patches."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import nn
from torch.nn import functional as F

from eosin.errors import NotApplicable
from eosin.recipe import vector


class Student(nn.Module):
    """A normalised batch to {`dino`: (n, …), `ibot`: (n, patches, …)}, as the objectives compare them.

    Attributes:
        masks: of the views to come, in their order, (n, h, w) booleans each; a view without one is seen whole.
    """

    def __init__(self, extractor, dino: nn.Module, ibot: nn.Module | None, side: int, masked: bool) -> None:
        super().__init__()
        self.extractor, self.backbone = extractor, extractor.module
        self.dino, self.ibot, self.side = dino, ibot, side
        self.mask_token = nn.Parameter(torch.zeros(token_width(self.backbone, extractor.card.name))) if masked else None
        self.masks: list[torch.Tensor] = []

    def forward(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        mask = self.masks.pop(0) if self.masks else None
        with hidden(self.backbone, mask, self.mask_token):
            out = named(self.extractor.embed(batch))
        found = {"dino": self.dino(vector(out))}
        if self.ibot is not None and batch.shape[-1] == self.side:
            found["ibot"] = self.ibot(patches(out))
        return found


def named(out) -> Mapping[str, torch.Tensor]:
    return out if isinstance(out, Mapping) else {"pooled": out}


def patches(readouts: Mapping[str, torch.Tensor], grid: tuple[int, int] | None = None) -> torch.Tensor:
    """(n, h * w, d): patch tokens, interpolated (bilinear) where they lie on another grid than is asked for."""
    found = readouts["grid"]
    if grid is not None and found.shape[-2:] != grid:
        found = F.interpolate(found, size=grid, mode="bilinear", align_corners=False)
    return found.flatten(2).transpose(1, 2)


def patch_embedding(network: nn.Module) -> nn.Module | None:
    """The part of a vision transformer, alone or in a tower, that makes patches into tokens; None if there is none."""
    return next((m for name, m in network.named_modules() if name.split(".")[-1] == "patch_embed"), None)


def token_width(network: nn.Module, name: str) -> int:
    """Width of what the patch embedding gives.

    Raises:
        NotApplicable: there is none that we know.
    """
    found = getattr(getattr(patch_embedding(network), "proj", None), "out_channels", None)
    if found is None:
        raise NotApplicable(
            f"rob-ibot hides patch tokens from the student, and {name} has no patch embedding that we know "
            "(`patch_embed.proj`, as timm's vision transformers have). Use h0-mini or rob-dino, which hide nothing."
        )
    return found


@contextlib.contextmanager
def hidden(network: nn.Module, mask: torch.Tensor | None, token: torch.Tensor | None) -> Iterator[None]:
    """Within it, patches under the mask (n, h, w) reach the network's first block as `token` (d,)."""
    if mask is None or token is None:
        yield
        return

    def replace(module, args, out):
        return torch.where(mask.reshape(*out.shape[:-1], 1), token.to(out.dtype), out)

    handle = patch_embedding(network).register_forward_hook(replace)
    try:
        yield
    finally:
        handle.remove()
