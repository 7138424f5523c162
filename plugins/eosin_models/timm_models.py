"""Any architecture that timm builds, alone or inside a tower, with weights from a file, a package, the hub, or a seed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import eosin
from eosin.errors import MissingError, ModelError, UsageError

from . import weights

KINDS = ("timm", "conch", "conch-v1.5", "keep", "channelwise", "stage3")
WORDS = (
    "mlp_layer",
    "act_layer",
    "norm_layer",
    "embed_layer",
)  # arch_options that name a class, which YAML cannot hold


class Timm(eosin.FeatureExtractor):
    """A timm architecture. Vision transformers give `cls`, `mean` and `grid`; everything else `pooled` and `grid`.

    A card that asks for a head (`num_classes`) also gets its output, as `pooled`. `grid` is of tokens after the final norm,
    `grid-pre-norm` of those that the last block hands to it, as EVA's segmentation reads models that timm builds.
    """

    source_counts = False  # the card says which architecture and which weights

    def __init__(self, card):
        if card.options.get("shorthand"):
            card = _with_timms_eyes(card)
        if not card.arch:
            raise UsageError(
                f"Model {card.name}: kind {card.kind} needs `arch:`, a timm architecture such as vit_small_patch16_224."
            )
        super().__init__(card)

    def build(self):
        import torch

        card = self.card
        path = weights.locate(card)
        if path is None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(card.seed)
                return self.network()
        module = self.skeleton()
        if set(dict(module.named_buffers())) - set(module.state_dict()):
            module = self.network()  # it computes buffers that no file holds
        weights.load(module.trunk if getattr(module, "bare", False) else module, card, path)
        return module.loaded() if hasattr(module, "loaded") else module

    def network(self):
        """The network with fresh weights, on torch's default device.

        Raises:
            ModelError: timm cannot build it, or its leading tokens are not as many as the card says.
        """
        import timm

        card = self.card
        try:
            module = timm.create_model(card.arch, pretrained=False, **{"num_classes": 0, **_options(card)})
        except (RuntimeError, TypeError, AssertionError, ValueError) as error:
            raise ModelError(
                f"{card.name}: timm cannot build {card.arch!r} ({str(error).splitlines()[0]}). `timm.list_models()` names what it can; correct `arch` or `arch_options`."
            ) from error
        if card.kind != "timm":
            from .towers import TOWERS

            module = TOWERS[card.kind](module)
        prefix = getattr(module, "num_prefix_tokens", None)
        if card.prefix_tokens is not None and prefix is not None and prefix != card.prefix_tokens:
            raise ModelError(
                f"{card.name}: {card.arch} has {prefix} leading tokens, the card says prefix_tokens: {card.prefix_tokens}. Correct the card: registers would leak into the mean."
            )
        return module.eval().requires_grad_(False)

    def skeleton(self):
        """The network without weights, on the meta device: it takes no memory, and says all that can be counted."""
        import torch

        with torch.device("meta"):
            return self.network()

    def embed(self, batch):
        from .readouts import entering, of_map, of_tokens

        module = self.module
        if hasattr(module, "readouts"):
            return module.readouts(batch)
        wanted = not self.card.readouts or "grid-pre-norm" in self.card.readouts
        with entering(getattr(module, "norm", None) if wanted else None) as before:
            out = module.forward_features(batch)
        if out.ndim != 3:
            return of_map(module, out)
        prefix = getattr(module, "num_prefix_tokens", 1)
        found = of_tokens(out, prefix, getattr(module, "cls_token", None) is not None)
        if before and before[-1].shape == out.shape and "grid" in found:
            found["grid-pre-norm"] = of_tokens(before[-1], prefix)["grid"]
        if self.card.arch_options.get("num_classes"):
            found["pooled"] = module.forward_head(out)
        return found

    def weight_file(self) -> Path | None:
        return weights.local(self.card)

    def available(self) -> str:
        return weights.available(self.card)

    def missing_weights(self) -> MissingError | None:
        """Why the weights cannot be had; None when they are here or the hub will give them."""
        return weights.missing(self.card)


def _options(card) -> dict:
    """The card's arch_options, with the classes that its words stand for."""
    options = dict(card.arch_options)
    named = {k: v for k, v in options.items() if k in WORDS and isinstance(v, str)}
    if not named:
        return options
    from functools import partial

    from timm.layers import SwiGLUPacked
    from torch import nn

    from .towers import ConvStem

    known = {
        "SwiGLUPacked": SwiGLUPacked,
        "SiLU": nn.SiLU,
        "LayerNorm": partial(nn.LayerNorm, eps=1e-6),
        "ConvStem": ConvStem,
    }
    for key, word in named.items():
        if word not in known:
            raise UsageError(
                f"{card.name}: arch_options {key}: {word} is not a word we know. Known: {', '.join(known)}."
            )
        options[key] = known[word]
    return options


def _with_timms_eyes(card):
    """`timm:ARCH` without a card: size, crop, interpolation, mean and std as timm has them for the architecture.

    `timm:ARCH.TAG` names weights, which come from the hub; without a tag they are random.
    """
    import timm

    name = card.arch
    if not timm.is_model(name):
        near = timm.list_models(f"*{name.split('_')[0]}*")[:5]
        raise UsageError(
            f"timm has no architecture {name!r}. {'Near: ' + ', '.join(near) + '. ' if near else ''}`timm.list_models()` names them all."
        )
    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError:  # a tag that timm does not have
        config = None
    eyes = (
        {}
        if config is None
        else {
            "size": int(config.input_size[-1]),
            "crop": float(config.crop_pct or 1.0),
            "interpolation": config.interpolation or "bicubic",
            "mean": tuple(config.mean),
            "std": tuple(config.std),
        }
    )
    tag = name.partition(".")[2]
    if not tag:
        return dataclasses.replace(card, options={}, seen=("nothing",), title=f"{name}, random weights", **eyes)
    if config is None or config.tag != tag or not config.hf_hub_id:
        raise UsageError(
            f"timm knows no weights {tag!r} of {name.partition('.')[0]} on the hub. `timm.list_pretrained()` names them; "
            f"timm:{name.partition('.')[0]} has random weights."
        )
    hub = config.hf_hub_id if config.hf_hub_id.rpartition("/")[2] else f"{config.hf_hub_id}{name}"
    return dataclasses.replace(card, options={}, hub=hub, **eyes)
