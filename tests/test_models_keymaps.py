"""Each published format, made by the library that invented it with random weights, gives the same features by our route."""

from __future__ import annotations

import pytest
import timm
import torch
from safetensors.torch import load_file

from eosin.errors import ModelError
from model_files import TINY, load, near, shaken, tiles

transformers = pytest.importorskip("transformers")

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}


def same(ours, theirs, prefix=1):
    """All readouts of ours against the other library's last hidden state."""
    with torch.no_grad():
        found, tokens = ours.embed(tiles()), theirs(tiles())
    near(found["cls"], tokens[:, 0])
    near(found["mean"], tokens[:, prefix:].mean(1))
    near(found["grid"].flatten(2).transpose(1, 2), tokens[:, prefix:])


def test_vit(tmp_path):
    """Phikon's format, with the pooler that must go."""
    config = transformers.ViTConfig(**SIZES, intermediate_size=64, layer_norm_eps=1e-6)
    model = shaken(transformers.ViTModel(config))
    model.save_pretrained(tmp_path)
    ours = load(tmp_path, arch_options=TINY, key_map="hf_vit")
    same(ours, lambda x: model(x).last_hidden_state)


def test_vit_inside_a_classifier(tmp_path):
    """`vit.` before every name, and a classifier."""
    config = transformers.ViTConfig(**SIZES, intermediate_size=64, layer_norm_eps=1e-6)
    model = shaken(transformers.ViTForImageClassification(config))
    torch.save(model.state_dict(), tmp_path / "old.bin")
    model.save_pretrained(tmp_path)
    same(load(tmp_path / "model.safetensors", arch_options=TINY), lambda x: model.vit(x).last_hidden_state)


@pytest.mark.parametrize("swiglu", [False, True], ids=["gelu", "swiglu"])
@pytest.mark.parametrize("registers", [0, 4])
def test_dinov2(tmp_path, swiglu, registers):
    """Phikon-v2 (gelu, none), Midnight (swiglu, none), Hibou (swiglu, 4); registers fold a row of positions away."""
    if registers:
        config = transformers.Dinov2WithRegistersConfig(
            **SIZES, mlp_ratio=4, use_swiglu_ffn=swiglu, num_register_tokens=registers
        )
        model = transformers.Dinov2WithRegistersModel(config)
    else:
        config = transformers.Dinov2Config(**SIZES, mlp_ratio=4, use_swiglu_ffn=swiglu)
        model = transformers.Dinov2Model(config)
    shaken(model).save_pretrained(tmp_path)
    hidden = (int(4 * 32 * 2 / 3) + 7) // 8 * 8
    mlp = (
        {"mlp_layer": "SwiGLUPacked", "act_layer": "SiLU", "mlp_ratio": 2 * hidden / 32} if swiglu else {"mlp_ratio": 4}
    )
    options = {**TINY, **mlp, "init_values": 1e-5, "reg_tokens": registers, "no_embed_class": bool(registers)}
    ours = load(tmp_path, arch_options=options, key_map="hf_dinov2", prefix_tokens=1 + registers)
    same(ours, lambda x: model(x).last_hidden_state, prefix=1 + registers)


def test_positions_of_a_size_that_no_card_can_know(tmp_path):
    """Midnight's card: whatever size the file has is taken, and resampled to the input at every pass."""
    model = shaken(transformers.Dinov2Model(transformers.Dinov2Config(**{**SIZES, "image_size": 64}, mlp_ratio=4)))
    model.save_pretrained(tmp_path)
    options = {**TINY, "mlp_ratio": 4, "init_values": 1e-5, "dynamic_img_size": True}
    ours = load(tmp_path, arch_options=options, options={"positions": "stored"})
    with torch.no_grad():
        near(ours.embed(tiles(size=64))["cls"], model(tiles(size=64)).last_hidden_state[:, 0])
        assert ours.embed(tiles())["grid"].shape[-2:] == (4, 4)


def test_a_file_that_has_timm_s_names_already_needs_no_map(tmp_path):
    """A distilled Hibou-L is saved under our names and still loads through Hibou-L's card."""
    options = {**TINY, "init_values": 1e-5, "reg_tokens": 4, "no_embed_class": True}
    model = shaken(timm.create_model("vit_base_patch16_224", num_classes=0, **options))
    torch.save(model.state_dict(), tmp_path / "model.pth")
    with torch.no_grad():
        found = load(tmp_path, arch_options=options, key_map="hf_dinov2").embed(tiles())
        near(found["cls"], model.forward_features(tiles())[:, 0])


def test_clip(tmp_path):
    """PLIP's format: two towers, of which one sees; the projection is the embedding."""
    vision = {**SIZES, "intermediate_size": 64, "layer_norm_eps": 1e-5, "hidden_act": "quick_gelu"}
    text = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "vocab_size": 50,
    }
    model = shaken(
        transformers.CLIPModel(transformers.CLIPConfig(vision_config=vision, text_config=text, projection_dim=24))
    )
    model.save_pretrained(tmp_path)
    ours = load(
        tmp_path,
        arch="vit_base_patch32_clip_quickgelu_224",
        arch_options={**TINY, "num_classes": 24},
        key_map="hf_clip_vision",
    )
    with torch.no_grad():
        found = ours.embed(tiles())
        seen = model.vision_model(tiles())
        near(found["pooled"], model.visual_projection(seen.pooler_output))
        near(found["cls"], seen.pooler_output)
        near(found["mean"], model.vision_model.post_layernorm(seen.last_hidden_state[:, 1:]).mean(1))


def test_ctranspath(tmp_path):
    """A ConvStem before transformers' Swin, saved under the names of timm 0.5: a stage shrinks at its end."""
    from torch import nn

    config = transformers.SwinConfig(image_size=224, embed_dim=24, depths=[2, 2], num_heads=[2, 4], window_size=7)
    swin = transformers.SwinModel(config)
    stem = [
        nn.Conv2d(3, 3, 3, 2, 1, bias=False),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.Conv2d(3, 6, 3, 2, 1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 24, 1),
    ]
    swin.embeddings.patch_embeddings.projection = nn.Sequential(*stem)
    shaken(swin).save_pretrained(tmp_path / "swin")
    saved, state = load_file(tmp_path / "swin" / "model.safetensors"), {}
    for key, value in saved.items():
        new = key.replace("embeddings.patch_embeddings.projection.", "patch_embed.proj.").replace(
            "embeddings.norm.", "patch_embed.norm."
        )
        new = (
            new.replace("encoder.layers.", "layers.")
            .replace("layernorm_before", "norm1")
            .replace("layernorm_after", "norm2")
        )
        new = (
            new.replace("attention.output.dense", "attn.proj")
            .replace("intermediate.dense", "mlp.fc1")
            .replace("output.dense", "mlp.fc2")
        )
        new = new.replace("attention.self.relative_position", "attn.relative_position").replace("layernorm.", "norm.")
        if ".attention.self.query." in new:
            parts = [saved[key.replace("query", p)] for p in ("query", "key", "value")]
            state[new.replace("attention.self.query", "attn.qkv")] = torch.cat(parts)
        elif ".attention.self." not in new:
            state[new] = value
    state |= {
        "layers.0.blocks.1.attn_mask": torch.zeros(1),
        "head.weight": torch.zeros(5, 48),
        "head.bias": torch.zeros(5),
    }
    torch.save({"model": state}, tmp_path / "ctranspath.pth")
    options = {"embed_layer": "ConvStem", "embed_dim": 24, "depths": [2, 2], "num_heads": [2, 4], "window_size": 7}
    ours = load(tmp_path, arch="swin_tiny_patch4_window7_224", arch_options=options, key_map="ctranspath")
    with torch.no_grad():
        found, theirs = ours.embed(tiles(2, 224)), swin(tiles(2, 224))
    near(found["pooled"], theirs.pooler_output)
    near(found["grid"].flatten(2).transpose(1, 2), theirs.last_hidden_state)


def test_dinov3(tmp_path):
    """GenBio-PathFM's format: DINOv3's own names around a one-channel network, run once a colour."""
    config = transformers.DINOv3ViTConfig(
        **SIZES, intermediate_size=64, num_channels=1, num_register_tokens=4, use_gated_mlp=True, hidden_act="silu", layer_norm_eps=1e-6,
        query_bias=False, key_bias=False, value_bias=False, mlp_bias=True,
    )  # fmt: skip
    model = shaken(transformers.DINOv3ViTModel(config))
    theirs = {k.removeprefix("model."): v for k, v in model.state_dict().items()}
    state = {
        "storage_tokens": theirs["embeddings.register_tokens"],
        "cls_token": theirs["embeddings.cls_token"],
        "mask_token": theirs["embeddings.mask_token"][0],
    }
    state |= {f"patch_embed.proj.{p}": theirs[f"embeddings.patch_embeddings.{p}"] for p in ("weight", "bias")}
    state |= {f"norm.{p}": theirs[f"norm.{p}"] for p in ("weight", "bias")}
    names = {
        "attention.o_proj": "attn.proj",
        "mlp.gate_proj": "mlp.w1",
        "mlp.up_proj": "mlp.w2",
        "mlp.down_proj": "mlp.w3",
        "norm1": "norm1",
        "norm2": "norm2",
    }
    for i in range(2):
        for old, new in names.items():
            state |= {f"blocks.{i}.{new}.{p}": theirs[f"layer.{i}.{old}.{p}"] for p in ("weight", "bias")}
        state[f"blocks.{i}.attn.qkv.weight"] = torch.cat(
            [theirs[f"layer.{i}.attention.{q}_proj.weight"] for q in "qkv"]
        )
        state |= {f"blocks.{i}.attn.qkv.bias": torch.zeros(96), f"blocks.{i}.attn.qkv.bias_mask": torch.zeros(96)}
        state |= {f"blocks.{i}.ls{j}.gamma": theirs[f"layer.{i}.layer_scale{j}.lambda1"] for j in (1, 2)}
    torch.save(state, tmp_path / "model.pth")
    options = {
        "img_size": 32,
        "patch_size": 8,
        "embed_dim": 32,
        "depth": 2,
        "num_heads": 2,
        "mlp_ratio": 2,
        "in_chans": 1,
        "global_pool": "token",
        "norm_layer": "LayerNorm",
    }
    ours = load(tmp_path, kind="channelwise", arch="vit_7b_patch16_dinov3", arch_options=options, key_map="dinov3")
    with torch.no_grad():
        found = ours.embed(tiles())
        each = [model(tiles()[:, c : c + 1]).last_hidden_state for c in range(3)]
    near(found["cls"], torch.cat([t[:, 0] for t in each], dim=1))
    near(found["mean"], torch.cat([t[:, 5:].mean(1) for t in each], dim=1))
    assert found["grid"].shape == (3, 96, 4, 4)
    state["blocks.0.attn.qkv.bias"] += 1
    torch.save(state, tmp_path / "model.pth")
    with pytest.raises(ModelError, match="qkv.bias"):
        ours.build()
