"""Formats whose inventors' libraries are not installed: written out here from their descriptions, loaded by our route."""

from __future__ import annotations

import math

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

from eosin.errors import ModelError
from model_files import TINY, load, near, shaken, tiles


class Attention(nn.Module):
    """Plain multi-head self-attention, with BEiT-3's norm before the projection where asked."""

    def __init__(self, d, norm=False):
        super().__init__()
        self.qkv, self.proj = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.norm = nn.LayerNorm(d) if norm else nn.Identity()

    def forward(self, x):
        q, k, v = (t.unflatten(-1, (2, -1)).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        a = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1)
        return self.proj(self.norm((a @ v).transpose(1, 2).flatten(2)))


class Dino2Block(nn.Module):
    """A block as facebookresearch/dinov2 has it: LayerScale, and SwiGLU's two matrices as w12 and w3."""

    def __init__(self, d, hidden):
        super().__init__()
        self.norm1, self.norm2, self.attn = nn.LayerNorm(d, eps=1e-6), nn.LayerNorm(d, eps=1e-6), Attention(d)
        self.ls1, self.ls2 = nn.ParameterDict({"gamma": torch.ones(d)}), nn.ParameterDict({"gamma": torch.ones(d)})
        self.mlp = nn.ModuleDict({"w12": nn.Linear(d, 2 * hidden), "w3": nn.Linear(hidden, d)})

    def forward(self, x):
        x = x + self.ls1["gamma"] * self.attn(self.norm1(x))
        gate, value = self.mlp["w12"](self.norm2(x)).chunk(2, -1)
        return x + self.ls2["gamma"] * self.mlp["w3"](F.silu(gate) * value)


class Dino2(nn.Module):
    """facebookresearch/dinov2's vision transformer with registers: positions for class token and patches, none for registers."""

    def __init__(self, d=32, hidden=48):
        super().__init__()
        self.cls_token, self.mask_token = nn.Parameter(torch.zeros(1, 1, d)), nn.Parameter(torch.zeros(1, d))
        self.pos_embed, self.register_tokens = nn.Parameter(torch.zeros(1, 17, d)), nn.Parameter(torch.zeros(1, 4, d))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, d, 8, 8)})
        self.blocks = nn.ModuleList(Dino2Block(d, hidden) for _ in range(2))
        self.norm = nn.LayerNorm(d, eps=1e-6)

    def forward(self, x):
        x = self.patch_embed["proj"](x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed
        x = torch.cat([x[:, :1], self.register_tokens.expand(len(x), -1, -1), x[:, 1:]], 1)
        return self.norm(nn.Sequential(*self.blocks)(x))


DINO2 = {
    **TINY,
    "mlp_layer": "SwiGLUPacked",
    "act_layer": "SiLU",
    "mlp_ratio": 3,
    "init_values": 1e-5,
    "reg_tokens": 4,
    "no_embed_class": True,
}


@pytest.mark.parametrize("form", ["plain", "training", "chunked"])
def test_dinov2_native(tmp_path, form):
    """OpenMidnight and Hibou's GitHub files; a whole training checkpoint; GPFM's teacher with its blocks in chunks."""
    model = shaken(Dino2())
    state = model.state_dict()
    if form == "training":
        state = {
            "teacher": {**{f"backbone.{k}": v for k, v in state.items()}, "dino_head.mlp.0.weight": torch.ones(2)},
            "iteration": 7,
        }
    if form == "chunked":
        state = {"teacher": {"backbone." + k.replace("blocks.", "blocks.0."): v for k, v in state.items()}}
    torch.save(state, tmp_path / "teacher_checkpoint_load.pt")
    ours = load(tmp_path, arch_options=DINO2, prefix_tokens=5)
    with torch.no_grad():
        found, tokens = ours.embed(tiles()), model(tiles())
    near(found["cls"], tokens[:, 0])
    near(found["mean"], tokens[:, 5:].mean(1))


def test_positions_of_a_larger_training_size_are_resampled_once(tmp_path):
    """DINOv2's 518-pixel checkpoints at 224, as timm does it; the card must say so, else shapes differ and it is refused."""
    big = shaken(timm.create_model("vit_base_patch16_224", num_classes=0, **{**TINY, "img_size": 64}))
    torch.save(big.state_dict(), tmp_path / "model.bin")
    found = load(tmp_path, arch_options=TINY, key_map="dinov2").embed(tiles())
    dynamic = timm.create_model(
        "vit_base_patch16_224", num_classes=0, **{**TINY, "img_size": 64, "dynamic_img_size": True}
    ).eval()
    dynamic.load_state_dict(big.state_dict())
    with torch.no_grad():
        near(found["cls"], dynamic.forward_features(tiles())[:, 0])
    with pytest.raises(ModelError, match="pos_embed"):
        load(tmp_path, arch_options=TINY).build()


def conch_state(trunk, width=512):
    """A CoCa file as MahmoodLab/CONCH names it, around a small trunk; the pooler's own modules to check against."""
    pool = shaken(nn.MultiheadAttention(width, 8, kdim=32, vdim=32), 1)
    norms = {
        "ln_q": shaken(nn.LayerNorm(width), 2),
        "ln_k": shaken(nn.LayerNorm(32), 3),
        "ln_contrast": shaken(nn.LayerNorm(width), 4),
    }
    query = torch.randn(1, width, generator=torch.Generator().manual_seed(5))
    state = {f"visual.trunk.{k}": v for k, v in trunk.state_dict().items()}
    state |= {f"visual.attn_pool_contrast.attn.{k}": v for k, v in pool.state_dict().items()} | {
        "visual.attn_pool_contrast.query": query
    }
    for name, norm in norms.items():
        place = "visual." if name == "ln_contrast" else "visual.attn_pool_contrast."
        state |= {f"{place}{name}.{k}": v for k, v in norm.state_dict().items()}

    def embed(x):
        keys = norms["ln_k"](trunk.forward_features(x)).transpose(0, 1)
        out = pool(norms["ln_q"](query)[:, None].expand(-1, len(x), -1), keys, keys)[0]
        return norms["ln_contrast"](out[0])

    return {**state, "logit_scale": torch.ones(()), "text.token_embedding.weight": torch.ones(3, 3)}, embed


@pytest.mark.parametrize("caption", [False, True], ids=["embedding-path", "with-captioner"])
def test_conch(tmp_path, caption):
    """The embedding before the projection; a captioner and a projection in the file change nothing."""
    trunk = shaken(timm.create_model("vit_base_patch16_224", num_classes=0, **TINY))
    state, embed = conch_state(trunk)
    if caption:
        width, queries = 768, 256
        pooler = {
            "query": torch.ones(queries, width),
            "ln_q.weight": torch.ones(width),
            "ln_q.bias": torch.ones(width),
            "ln_k.weight": torch.ones(32),
            "ln_k.bias": torch.ones(32),
        }
        pooler |= {f"attn.{k}": v for k, v in nn.MultiheadAttention(width, 8, kdim=32, vdim=32).state_dict().items()}
        state |= {f"visual.attn_pool_caption.{k}": v for k, v in pooler.items()}
        state |= {
            "visual.ln_caption.weight": torch.ones(width),
            "visual.ln_caption.bias": torch.ones(width),
            "visual.proj_contrast": torch.ones(512, 512),
        }
    torch.save(state, tmp_path / "pytorch_model.bin")
    with torch.no_grad():
        found = load(tmp_path, kind="conch", arch_options=TINY, key_map="conch_v1").embed(tiles())
        near(found["pooled"], embed(tiles()))
        near(found["cls"], trunk.forward_features(tiles())[:, 0])


def test_conch_with_a_part_of_the_pooler_lacking_is_refused(tmp_path):
    state, _ = conch_state(timm.create_model("vit_base_patch16_224", num_classes=0, **TINY))
    torch.save({k: v for k, v in state.items() if "ln_contrast" not in k}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="ln_contrast"):
        load(tmp_path, kind="conch", arch_options=TINY).build()


def test_conch_v15(tmp_path):
    """Positions of 4 x 4 seen at 8 x 8 by DINO's recipe, then one query, eight heads, no biases, one norm."""
    trunk = shaken(timm.create_model("vit_base_patch16_224", num_classes=0, init_values=1.0, **TINY))
    shapes = {"query": (1, 768), "to_q.weight": (768, 768), "to_kv.weight": (1536, 32), "to_out.weight": (768, 768)}
    shapes |= {f"ln_q.{p}": (768,) for p in ("weight", "bias")} | {f"ln_k.{p}": (32,) for p in ("weight", "bias")}
    rng = torch.Generator().manual_seed(2)
    pool = {k: torch.randn(s, generator=rng) * 0.1 for k, s in shapes.items()}
    last = {p: torch.randn(768, generator=rng) for p in ("weight", "bias")}
    state = {f"trunk.{k}": v for k, v in trunk.state_dict().items()} | {
        f"attn_pool_contrast.{k}": v for k, v in pool.items()
    }
    torch.save(state | {f"ln_contrast.{k}": v for k, v in last.items()}, tmp_path / "pytorch_model_vision.bin")

    x = tiles(2, 64)
    with torch.no_grad():
        plane = trunk.pos_embed[:, 1:].reshape(1, 4, 4, 32).permute(0, 3, 1, 2)
        plane = F.interpolate(plane, scale_factor=(8.1 / 4, 8.1 / 4), mode="bicubic").flatten(2).transpose(1, 2)
        tokens = torch.cat([trunk.cls_token.expand(2, -1, -1), trunk.patch_embed.proj(x).flatten(2).transpose(1, 2)], 1)
        tokens = trunk.norm(trunk.blocks(tokens + torch.cat([trunk.pos_embed[:, :1], plane], 1)))
        seen = F.layer_norm(tokens, (32,), pool["ln_k.weight"], pool["ln_k.bias"])
        q = (F.layer_norm(pool["query"], (768,), pool["ln_q.weight"], pool["ln_q.bias"]) @ pool["to_q.weight"].T).view(
            1, 8, 96
        )
        k, v = (seen @ pool["to_kv.weight"].T).chunk(2, -1)
        weights = torch.einsum("qhd,nkhd->nhqk", q, k.view(2, 65, 8, 96)).div(math.sqrt(96)).softmax(-1)
        out = torch.einsum("nhqk,nkhd->nqhd", weights, v.view(2, 65, 8, 96)).reshape(2, 768) @ pool["to_out.weight"].T
        ours = load(tmp_path, kind="conch-v1.5", size=64, arch_options={**TINY, "init_values": 1.0})
        near(ours.embed(x)["pooled"], F.layer_norm(out, (768,), last["weight"], last["bias"]))


def test_keep(tmp_path):
    """Unit-length projection of the class token; LayerScale's gammas are called weight in the file."""
    trunk = shaken(timm.create_model("vit_base_patch16_224", num_classes=0, init_values=1e-5, **TINY))
    head = shaken(nn.Sequential(nn.Linear(32, 768), nn.GELU(), nn.Linear(768, 768)), 1)
    state = {f"visual.{k}".replace(".gamma", ".weight"): v for k, v in trunk.state_dict().items()}
    state |= {f"visual_head.{k}": v for k, v in head.state_dict().items()} | {
        "text.embeddings.weight": torch.ones(2, 2),
        "logit_scale": torch.ones(()),
    }
    torch.save(state, tmp_path / "model.pt")
    with torch.no_grad():
        found = load(tmp_path, kind="keep", arch_options={**TINY, "init_values": 1e-5}, key_map="keep").embed(tiles())
        near(found["pooled"], F.normalize(head(trunk.forward_features(tiles())[:, 0]), dim=-1))


class Beit3(nn.Module):
    """BEiT-3's eyes: norms inside attention and feed-forward (sub-layer norms)."""

    def __init__(self, d=32):
        super().__init__()
        self.proj, self.cls, self.pos = (
            nn.Conv2d(3, d, 8, 8),
            nn.Parameter(torch.zeros(1, 1, d)),
            nn.Parameter(torch.zeros(17, d)),
        )
        parts = {
            "norm1": nn.LayerNorm(d),
            "attn": Attention(d, norm=True),
            "norm2": nn.LayerNorm(d),
            "fc1": nn.Linear(d, 2 * d),
            "mid": nn.LayerNorm(2 * d),
            "fc2": nn.Linear(2 * d, d),
        }
        self.blocks = nn.ModuleList([nn.ModuleDict(parts)])
        self.norm = nn.LayerNorm(d)

    def forward(self, x):
        x = torch.cat([self.cls.expand(len(x), -1, -1), self.proj(x).flatten(2).transpose(1, 2)], 1) + self.pos
        for b in self.blocks:
            x = x + b["attn"](b["norm1"](x))
            x = x + b["fc2"](b["mid"](F.gelu(b["fc1"](b["norm2"](x)))))
        return self.norm(x)


def test_musk(tmp_path):
    """Of each pair of experts the one that sees; two rows of positions are padding."""
    model = shaken(Beit3())
    s, e = model.state_dict(), "beit3.encoder.layers.0."
    state = {
        "beit3.vision_embed.cls_token": s["cls"],
        "beit3.vision_embed.mask_token": s["cls"],
        "beit3.text_embed.weight": torch.ones(4, 4),
        "logit_scale": torch.ones(()),
    }
    state["beit3.encoder.embed_positions.A.weight"] = torch.cat([torch.full((2, 32), 9.0), s["pos"]])
    state["beit3.encoder.embed_positions.B.weight"] = torch.ones(5, 32)
    names = {
        "norm1": "self_attn_layer_norm.A",
        "norm2": "final_layer_norm.A",
        "attn.norm": "self_attn.inner_attn_ln.A",
        "attn.proj": "self_attn.out_proj.A",
        "fc1": "ffn.A.fc1",
        "fc2": "ffn.A.fc2",
        "mid": "ffn.A.ffn_layernorm",
    }
    for p in ("weight", "bias"):
        state[f"beit3.vision_embed.proj.{p}"], state[f"beit3.encoder.layer_norm.A.{p}"] = s[f"proj.{p}"], s[f"norm.{p}"]
        state |= {f"{e}{new}.{p}": s[f"blocks.0.{old}.{p}"] for old, new in names.items()}
        state |= {
            f"{e}self_attn.{n}_proj.A.{p}": t for n, t in zip("qkv", s[f"blocks.0.attn.qkv.{p}"].chunk(3), strict=True)
        }
    state |= {k.replace(".A.", ".B."): v + 1 for k, v in state.items() if ".A." in k and "positions" not in k}
    torch.save({"module": state} | state, tmp_path / "mixed.pt")
    with pytest.raises(ModelError, match="no state dict"):
        load(tmp_path).build()
    torch.save(state, tmp_path / "mixed.pt")
    options = {**TINY, "depth": 1, "global_pool": "token"}
    ours = load(tmp_path, arch="beit3_large_patch16_224", arch_options=options, key_map="musk_beit3")
    with torch.no_grad():
        near(ours.embed(tiles())["cls"], model(tiles())[:, 0])


def test_resnet50_after_the_third_stage(tmp_path):
    """HEST's and TRIDENT's resnet50: loaded whole and strictly, then cut."""
    options = {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]}
    whole = shaken(timm.create_model("resnet50", num_classes=7, **options))
    torch.save(whole.state_dict(), tmp_path / "model.pth")
    ours = load(tmp_path, kind="stage3", arch="resnet50", arch_options=options)
    with torch.no_grad():
        found = ours.embed(tiles(2, 64))
        near(found["pooled"], whole.forward_intermediates(tiles(2, 64), intermediates_only=True)[3].mean((2, 3)))
    assert "layer4.0.conv1.weight" not in ours.module.state_dict()


def test_the_grid_is_there_after_and_before_the_last_norm():
    """EVA's segmentation reads models that timm builds before the final norm, those of transformers after it."""
    model = load("", arch_options=TINY)
    with torch.no_grad():
        found = model.embed(tiles())
        before, after = (found[name].flatten(2).transpose(1, 2) for name in ("grid-pre-norm", "grid"))
        near(model.module.norm(before), after)
        assert (before - after).abs().max() > 1e-3
        near(model.module.forward_intermediates(tiles(), norm=False)[1][-1], found["grid-pre-norm"])
    assert "grid-pre-norm" not in load("", arch_options=TINY, readouts=("cls", "mean", "grid")).embed(tiles())
