"""Networks with a part that timm lacks, written from their papers and file formats around a timm trunk.

Each is `Tower(trunk)`, knows `num_prefix_tokens`, and gives its readouts from a batch (n, 3, h, w) by `readouts`.
"""

from __future__ import annotations

import torch
from timm.layers import to_2tuple
from torch import nn
from torch.nn import functional as F

from .readouts import of_tokens


class ConvStem(nn.Module):
    """CTransPath's way into its Swin: two strided convolutions and a 1 x 1 instead of one patch projection.

    Wang et al. 2022, section 3.2 (Xiyue-Wang/TransPath: ctran.py). Gives (n, h / 4, w / 4, embed_dim).
    """

    def __init__(self, img_size=224, patch_size=4, in_chans=3, embed_dim=96, norm_layer=None, **ignored):
        super().__init__()
        pixels, patch = to_2tuple(img_size), to_2tuple(patch_size)
        self.img_size, self.patch_size = pixels, patch
        self.grid_size = (pixels[0] // patch[0], pixels[1] // patch[1])
        self.num_patches = self.grid_size[0] * self.grid_size[1]
        narrow, middle = embed_dim // 8, embed_dim // 4
        self.proj = nn.Sequential(
            *(nn.Conv2d(in_chans, narrow, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(narrow), nn.ReLU()),
            *(nn.Conv2d(narrow, middle, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(middle), nn.ReLU()),
            nn.Conv2d(middle, embed_dim, 1),
        )
        self.norm = norm_layer(embed_dim) if norm_layer else nn.Identity()

    def forward(self, x):
        return self.norm(self.proj(x).permute(0, 2, 3, 1))


class Tower(nn.Module):
    """A trunk and what comes after it. `bare`: the published file holds the trunk alone, under timm's own names."""

    bare = False

    def __init__(self, trunk):
        super().__init__()
        self.trunk = trunk

    @property
    def num_prefix_tokens(self):
        return getattr(self.trunk, "num_prefix_tokens", None)

    def tokens(self, x):
        return of_tokens(self.trunk.forward_features(x), self.num_prefix_tokens)


class Conch(Tower):
    """CONCH's visual tower: one query attends to all tokens; the embedding is what comes before the projection.

    Lu et al. 2024. The caption pooler and the projection count among its parameters and no readout uses them (`spare`).
    """

    spare = ("proj_contrast", "attn_pool_caption.", "ln_caption.")

    def __init__(self, trunk, width=512, caption=768, queries=256):
        super().__init__(trunk)
        self.attn_pool_contrast = _Pooler(width, trunk.embed_dim, 1)
        self.ln_contrast = nn.LayerNorm(width)
        self.attn_pool_caption = _Pooler(caption, trunk.embed_dim, queries)
        self.ln_caption = nn.LayerNorm(caption)
        self.proj_contrast = nn.Parameter(torch.zeros(width, width))

    def readouts(self, x):
        tokens = self.trunk.forward_features(x)
        pooled = self.ln_contrast(self.attn_pool_contrast(tokens))[:, 0]
        return {"pooled": pooled, **of_tokens(tokens, self.num_prefix_tokens)}


class _Pooler(nn.Module):
    """CoCa's attentional pooler: learnt queries, keys and values of another width."""

    def __init__(self, width, context, queries, heads=8):
        super().__init__()
        self.query = nn.Parameter(torch.zeros(queries, width))
        self.attn = nn.MultiheadAttention(width, heads, kdim=context, vdim=context, batch_first=True)
        self.ln_q, self.ln_k = nn.LayerNorm(width), nn.LayerNorm(context)

    def forward(self, x):
        x = self.ln_k(x)
        query = self.ln_q(self.query).expand(len(x), -1, -1)
        return self.attn(query, x, x, need_weights=False)[0]


class ConchV15(Tower):
    """CONCH v1.5 (Ding et al. 2024, TITAN): a ViT-L whose 14 x 14 positions are resized once, then a pooler without biases."""

    def __init__(self, trunk, width=768):
        super().__init__(trunk)
        self.attn_pool_contrast = _BiaslessPooler(width, trunk.embed_dim)
        self.ln_contrast = nn.LayerNorm(width)

    def readouts(self, x):
        tokens = self._trunk_tokens(x)
        pooled = self.ln_contrast(self.attn_pool_contrast(tokens))[:, 0]
        return {"pooled": pooled, **of_tokens(tokens, self.num_prefix_tokens)}

    def _trunk_tokens(self, x):
        trunk = self.trunk
        x = trunk.patch_embed.proj(x)
        side = x.shape[-1]
        x = torch.cat([trunk.cls_token.expand(len(x), -1, -1), x.flatten(2).transpose(1, 2)], dim=1)
        return trunk.norm(trunk.blocks(trunk.norm_pre(x + self._positions(side))))

    def _positions(self, side):
        """DINO's recipe: bicubic without antialiasing, scaled by 0.1 more than asked (its guard against rounding)."""
        first, grid = self.trunk.pos_embed[:, :1], self.trunk.pos_embed[:, 1:]
        stored = int(grid.shape[1] ** 0.5)
        if stored == side:
            return self.trunk.pos_embed
        plane = grid.reshape(1, stored, stored, -1).permute(0, 3, 1, 2)
        scale = (side + 0.1) / stored
        plane = F.interpolate(plane.float(), scale_factor=(scale, scale), mode="bicubic").to(grid.dtype)
        return torch.cat([first, plane.flatten(2).transpose(1, 2)], dim=1)


class _BiaslessPooler(nn.Module):
    def __init__(self, width, context, queries=1, heads=8):
        super().__init__()
        self.heads = heads
        self.query = nn.Parameter(torch.zeros(queries, width))
        self.ln_k, self.ln_q = nn.LayerNorm(context), nn.LayerNorm(width)
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_kv = nn.Linear(context, 2 * width, bias=False)
        self.to_out = nn.Linear(width, width, bias=False)

    def forward(self, x):
        x, query = self.ln_k(x), self.ln_q(self.query).expand(len(x), -1, -1)
        key, value = self.to_kv(x).chunk(2, dim=-1)
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (self.to_q(query), key, value))
        return self.to_out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Keep(Tower):
    """KEEP (Zhou et al. 2024): the class token through two layers, scaled to unit length."""

    def __init__(self, trunk, width=768):
        super().__init__(trunk)
        self.head = nn.Sequential(nn.Linear(trunk.embed_dim, width), nn.GELU(), nn.Linear(width, width))

    def readouts(self, x):
        found = self.tokens(x)
        return {"pooled": F.normalize(self.head(found["cls"]), dim=-1), **found}


class ChannelWise(Tower):
    """GenBio-PathFM: a one-channel network sees red, green and blue in turn; readouts are joined in this order."""

    bare = True

    def readouts(self, x):
        n, c, h, w = x.shape
        each = self.tokens(x.reshape(n * c, 1, h, w))
        return {name: value.unflatten(0, (n, c)).flatten(1, 2) for name, value in each.items()}


class Stage3(Tower):
    """What HEST and TRIDENT call resnet50: the map after the third of four stages, averaged."""

    bare = True

    def loaded(self):
        """Drop what comes after, once the whole file has been checked."""
        self.trunk.prune_intermediate_layers([3], prune_head=True)
        return self

    def readouts(self, x):
        (grid,) = self.trunk.forward_intermediates(x, indices=[3], stop_early=True, intermediates_only=True)
        return {"pooled": grid.mean(dim=(2, 3)), "grid": grid}


TOWERS = {"conch": Conch, "conch-v1.5": ConchV15, "keep": Keep, "channelwise": ChannelWise, "stage3": Stage3}
