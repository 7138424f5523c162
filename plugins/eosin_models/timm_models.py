"""Any architecture that timm builds, with weights from a file, a PyPI package, the hub, or a seed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import eosin
from eosin.errors import MissingError, ModelError, UsageError

from . import weights


class Timm(eosin.FeatureExtractor):
    """A timm architecture. Vision transformers give `cls`, `mean` and `grid`; everything else `pooled` and `grid`."""

    def __init__(self, card):
        if card.options.get("shorthand"):
            card = _with_timms_eyes(card)
        if not card.arch:
            raise UsageError(f"Model {card.name}: kind timm needs `arch:`, a timm architecture such as vit_small_patch16_224.")
        super().__init__(card)

    def build(self):
        import timm
        import torch

        card = self.card
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(card.seed)
            try:
                module = timm.create_model(card.arch, pretrained=False, **{"num_classes": 0, **card.arch_options})
            except (RuntimeError, TypeError, AssertionError) as error:
                raise ModelError(f"{card.name}: timm cannot build {card.arch!r} ({str(error).splitlines()[0]}). `timm.list_models()` names what it can; correct `arch` or `arch_options`.") from error
        if card.weights or card.hub:
            weights.load(module, card, self.weight_file())
        return module

    def embed(self, batch):
        out = self.module.forward_features(batch)
        if out.ndim == 3:
            return self._tokens(out)
        pooled = self.module.forward_head(out, pre_logits=True)
        grid = out.permute(0, 3, 1, 2) if out.ndim == 4 and getattr(self.module, "output_fmt", "NCHW") == "NHWC" else out
        return {"pooled": pooled.flatten(1), **({"grid": grid} if grid.ndim == 4 else {})}

    def _tokens(self, out):
        """Class token, mean of patch tokens (registers excluded) and their grid, after the final norm."""
        prefix = getattr(self.module, "num_prefix_tokens", 1)
        patches = out[:, prefix:]
        side = int(patches.shape[1] ** 0.5)
        found = {"cls": out[:, 0]} if getattr(self.module, "cls_token", None) is not None else {}
        found["mean"] = patches.mean(dim=1)
        if side * side == patches.shape[1]:
            found["grid"] = patches.transpose(1, 2).reshape(len(out), -1, side, side)
        return found

    def weight_file(self) -> Path:
        """The card's `weights` (a path, or `package:NAME/FILE` of an installed Python package), else the hub's file."""
        return weights.locate(self.card)

    def available(self) -> str:
        return weights.available(self.card)

    def missing_weights(self) -> MissingError:
        return weights.missing(self.card)


def _with_timms_eyes(card):
    """`timm:ARCH` without a card: size, crop, interpolation, mean and std as timm has them for the architecture."""
    import timm

    name = card.arch
    if not timm.is_model(name):
        near = timm.list_models(f"*{name.split('_')[0]}*")[:5]
        raise UsageError(f"timm has no architecture {name!r}. {'Near: ' + ', '.join(near) + '. ' if near else ''}`timm.list_models()` names them all.")
    config = timm.get_pretrained_cfg(name)
    eyes = {} if config is None else {
        "size": int(config.input_size[-1]),
        "crop": float(config.crop_pct or 1.0),
        "interpolation": config.interpolation or "bicubic",
        "mean": tuple(config.mean),
        "std": tuple(config.std),
    }
    return dataclasses.replace(card, options={}, **eyes)
