"""From the names in a published file to timm's names, one pure function a format: state dict in, state dict out.

A format is recognised by its keys (`recognise`), else it is the one that the card names, else the names are timm's own.
What a map leaves out is what no embedding uses (a pooler, a mask token, a text tower); everything else must find its place.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

State = dict[str, Any]


def efficientnet_pytorch(state: State, module: Any) -> State:
    """lukemelas' EfficientNet names (the PyPI package of Lite0): blocks numbered through, timm's by stage."""
    homes = [(s, b) for s, stage in enumerate(module.blocks) for b in range(len(stage))]
    expanding = {
        "_expand_conv": "conv_pw",
        "_bn0": "bn1",
        "_depthwise_conv": "conv_dw",
        "_bn1": "bn2",
        "_project_conv": "conv_pwl",
        "_bn2": "bn3",
    }
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


def hf_vit(state: State, module: Any = None) -> State:
    """transformers' ViTModel (Phikon). The layers of both Hugging Face formats differ in a few names only."""
    names = {
        "layernorm_before": "norm1",
        "layernorm_after": "norm2",
        "intermediate.dense": "mlp.fc1",
        "output.dense": "mlp.fc2",
    }
    return _huggingface(_stripped(state, "vit."), names)


def hf_dinov2(state: State, module: Any = None) -> State:
    """transformers' Dinov2Model and Dinov2WithRegisters, and Hibou's own (Phikon-v2, Midnight, Hibou).

    With registers timm adds no position to the class token (`no_embed_class`), so its row is folded into the token.
    `weights_in` holds gate and value in the order of timm's SwiGLUPacked.
    """
    names = {
        "layer_scale1.lambda1": "ls1.gamma",
        "layer_scale2.lambda1": "ls2.gamma",
        "mlp.weights_in": "mlp.fc1",
        "mlp.weights_out": "mlp.fc2",
    }
    out = _huggingface(_stripped(state, "dinov2.", "dinov2_with_registers."), names)
    if "reg_token" in out:
        out["cls_token"] = out["cls_token"] + out["pos_embed"][:, :1]
        out["pos_embed"] = out["pos_embed"][:, 1:]
    return out


EMBEDDINGS = {
    "embeddings.cls_token": "cls_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.register_tokens": "reg_token",
    "embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
    "embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
    "layernorm.weight": "norm.weight",
    "layernorm.bias": "norm.bias",
}


def _huggingface(state: State, names: dict[str, str]) -> State:
    """A transformers encoder with separate query, key and value, joined in this order."""
    out = {new: state[old] for old, new in EMBEDDINGS.items() if old in state}
    for key, value in state.items():
        layer = re.fullmatch(r"encoder\.layer\.(\d+)\.(.+)", key)
        if layer:
            block, rest = f"blocks.{layer[1]}.", layer[2]
            if rest.startswith("attention.attention.query."):
                leaf = rest.rpartition(".")[2]
                parts = [state[key.replace(".query.", f".{p}.")] for p in ("query", "key", "value")]
                out[f"{block}attn.qkv.{leaf}"] = _joined(parts)
            elif rest.startswith("attention.output.dense."):
                out[block + rest.replace("attention.output.dense", "attn.proj")] = value
            elif not rest.startswith(("attention.attention.key.", "attention.attention.value.")):
                old = next((n for n in names if rest.startswith(n)), "")
                out[block + (names[old] + rest[len(old) :] if old else rest)] = value
        elif (
            key not in EMBEDDINGS and not key.startswith(("pooler.", "classifier.")) and key != "embeddings.mask_token"
        ):
            out[key] = value
    return out


def hf_clip_vision(state: State, module: Any = None) -> State:
    """transformers' CLIPModel or CLIPVisionModelWithProjection (PLIP); the projection becomes timm's head, without bias."""
    import torch

    head = state["visual_projection.weight"]
    out = {"head.weight": head, "head.bias": torch.zeros(len(head))}
    names = {
        "layer_norm1": "norm1",
        "layer_norm2": "norm2",
        "self_attn.out_proj": "attn.proj",
        "mlp.fc1": "mlp.fc1",
        "mlp.fc2": "mlp.fc2",
    }
    ends = {"pre_layrnorm": "norm_pre", "post_layernorm": "norm", "embeddings.patch_embedding": "patch_embed.proj"}
    for key, value in state.items():
        if not key.startswith("vision_model."):
            continue  # the text tower, the temperature, and the projection above
        rest = key.removeprefix("vision_model.")
        layer = re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)", rest)
        if layer and layer[2] == "self_attn.q_proj":
            out[f"blocks.{layer[1]}.attn.qkv.{layer[3]}"] = _joined(
                [state[key.replace(".q_proj.", f".{p}_proj.")] for p in "qkv"]
            )
        elif layer and layer[2] not in ("self_attn.k_proj", "self_attn.v_proj"):
            out[f"blocks.{layer[1]}.{names[layer[2]]}.{layer[3]}"] = value
        elif rest == "embeddings.class_embedding":
            out["cls_token"] = value.reshape(1, 1, -1)
        elif rest == "embeddings.position_embedding.weight":
            out["pos_embed"] = value[None]
        elif not layer and rest != "embeddings.position_ids":
            name, _, leaf = rest.rpartition(".")
            out[f"{ends[name]}.{leaf}"] = value
    return out


def dinov2(state: State, module: Any) -> State:
    """DINOv2's own names, also from its training checkpoints (OpenMidnight, GPFM's release, Hibou's GitHub format).

    timm's filter does the renaming, and the resampling of positions where a file was trained at another size (518).
    """
    from timm.models.vision_transformer import checkpoint_filter_fn

    state = _stripped(_stripped(state, "teacher."), "backbone.")
    state = {re.sub(r"^blocks\.\d+\.(\d+)\.", r"blocks.\1.", k): v for k, v in state.items()}
    kept = {k: v for k, v in state.items() if not k.startswith(("dino_head.", "ibot_head.")) and k != "mask_token"}
    native = "register_tokens" in kept or any(".mlp.w12." in k for k in kept)
    if native:  # the key by which timm knows the format; it drops it again
        kept["mask_token"] = kept["cls_token"][0]
    return checkpoint_filter_fn(kept, module)


def dinov3(state: State, module: Any) -> State:
    """DINOv3's own names (GenBio-PathFM), by timm's filter."""
    from timm.models.eva import checkpoint_filter_fn

    biases = [k for k in state if k.endswith("attn.qkv.bias")]
    if not any(hasattr(m, "q_bias") and m.q_bias is not None for m in module.modules()):
        for key in biases:  # timm leaves them out when its network has none, whatever they hold
            if state[key].any():
                raise KeyError(f"{key} is not zero and the architecture has no such bias")
        state = {k: v for k, v in state.items() if k not in biases}
    return checkpoint_filter_fn(state, module)


def ctranspath(state: State, module: Any = None) -> State:
    """Swin as timm 0.5 had it: a stage shrinks at its end, in today's timm at the beginning of the next."""
    out = {}
    for key, value in state.items():
        if key.endswith(("relative_position_index", "attn_mask")) or key.startswith("head."):
            continue
        stage = re.fullmatch(r"layers\.(\d+)\.downsample\.(.+)", key)
        out[f"layers.{int(stage[1]) + 1}.downsample.{stage[2]}" if stage else key] = value
    return out


def conch_v1(state: State, module: Any = None) -> State:
    """CONCH: the visual tower of a CoCa; the text tower and the temperature are left out."""
    return {k.removeprefix("visual."): v for k, v in state.items() if k.startswith("visual.")}


def keep(state: State, module: Any = None) -> State:
    """KEEP: image tower and its projection; transformers renamed every gamma to weight when it saved the file."""
    kept = {k: v for k, v in state.items() if k.startswith(("visual.", "visual_head."))}
    renamed = {re.sub(r"\.(ls[12])\.weight$", r".\1.gamma", k): v for k, v in kept.items()}
    return {re.sub(r"^visual\.", "trunk.", k).replace("visual_head.", "head."): v for k, v in renamed.items()}


def musk_beit3(state: State, module: Any = None) -> State:
    """MUSK: of every pair of experts (A sees, B reads) the one that sees; two padding rows of its positions go."""
    names = {
        "self_attn_layer_norm.A": "norm1",
        "final_layer_norm.A": "norm2",
        "self_attn.inner_attn_ln.A": "attn.norm",
        "self_attn.out_proj.A": "attn.proj",
        "ffn.A.fc1": "mlp.fc1",
        "ffn.A.fc2": "mlp.fc2",
        "ffn.A.ffn_layernorm": "mlp.norm",
    }
    ends = {"vision_embed.proj": "patch_embed.proj", "encoder.layer_norm.A": "norm"}
    out = {}
    for key, value in state.items():
        rest = key.removeprefix("beit3.")
        name, _, leaf = rest.rpartition(".")
        layer = re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)", name)
        if rest == key or ".B." in f".{rest}." or rest.startswith("text_embed") or "mask_token" in rest:
            continue
        if rest == "vision_embed.cls_token":
            out["cls_token"] = value
        elif rest == "encoder.embed_positions.A.weight":
            out["pos_embed"] = value[None, 2:]
        elif layer and layer[2] == "self_attn.q_proj.A":
            out[f"blocks.{layer[1]}.attn.qkv.{leaf}"] = _joined(
                [state[key.replace(".q_proj.", f".{p}_proj.")] for p in "qkv"]
            )
        elif layer and layer[2] not in ("self_attn.k_proj.A", "self_attn.v_proj.A"):
            out[f"blocks.{layer[1]}.{names[layer[2]]}.{leaf}"] = value
        elif not layer:
            out[f"{ends[name]}.{leaf}"] = value
    return out


def _stripped(state: State, *prefixes: str) -> State:
    """Without the first of the prefixes that any key has; keys without it are another part of the model and go."""
    for prefix in prefixes:
        inside = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        if inside:
            return inside
    return dict(state)


def _joined(parts: list[Any]) -> Any:
    import torch

    return torch.cat(parts, dim=0)


KEY_MAPS: dict[str, Callable[[State, Any], State]] = {
    f.__name__: f
    for f in (
        conch_v1,
        ctranspath,
        dinov2,
        dinov3,
        efficientnet_pytorch,
        hf_clip_vision,
        hf_dinov2,
        hf_vit,
        keep,
        musk_beit3,
    )
}

# What a key must begin with or contain, most telling first.
SIGNS = (
    ("vision_model.encoder.", "hf_clip_vision"),
    ("visual.trunk.", "conch_v1"),
    ("visual_head.", "keep"),
    ("beit3.", "musk_beit3"),
    ("storage_tokens", "dinov3"),
    ("layer_scale1.", "hf_dinov2"),
    ("layernorm_before.", "hf_vit"),
    ("dino_head.", "dinov2"),
    ("mlp.w12.", "dinov2"),
    ("register_tokens", "dinov2"),
)


def recognise(state: State) -> str:
    """The format that a file's keys give away; "" when they do not."""
    return next((name for sign, name in SIGNS if any(sign in k for k in state)), "")
