"""G2L (arXiv:2510.11176v2, "Implementation Details"): a student learns a teacher's features of one cancer's tiles.

The paper names the loss and follows Miles & Mikolajczyk (2024) in the projector; what it leaves open is an option here
whose doc begins with "Open:". Reference for those: roymiles/Simple-Recipe-Distillation, imagenet/torchdistill/losses/
single.py (`resnet`) and deit/models.py (`deit`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import eosin
from eosin import augment, joint
from eosin.cards import Option, RecipeCard
from eosin.errors import UsageError
from eosin.recipe import DistillationRecipe, vector

if TYPE_CHECKING:
    import torch

    Readouts = Mapping[str, torch.Tensor]

OPTIONS = {
    "steps": Option(
        31_250,
        doc="Open: steps, the horizon of the schedules. Default: a million tiles, as a thousand of each of 1K slides.",
    ),
    "batch_size": Option(32, doc="Tiles a step, over all processes."),
    "loss": Option(
        "log-sum",
        ("log-sum", "log-sum-per-tile"),
        doc="Open: i in log sum_i runs over tiles and features (as the reference), or over the features of a tile.",
    ),
    "alpha": Option(4.0, doc="Smoothing exponent of the loss."),
    "variant": Option(
        "resnet",
        ("resnet", "deit"),
        doc="Open: differences of features, as the equation and the reference's ResNet code; or correlations of them.",
    ),
    "normalise": Option(
        "both",
        ("both", "student", "none"),
        doc="Open: what is batch-normalised, without scale and shift: the reference normalises both sides.",
    ),
    "eps": Option(None, float, doc="Of the batch norms; None for the variant's: 1e-4 (resnet), 0 (deit)."),
    "readout": Option("cls", doc="Open: the readout to match; `pooled` where a model has no such."),
    "lr": Option(1e-4, doc="Learning rate at the start."),
    "lr_end": Option(1e-6, doc="Learning rate of the last step; a cosine between."),
    "weight_decay": Option(0.05, doc="Weight decay at the start."),
    "weight_decay_end": Option(0.5, doc="Weight decay of the last step; a cosine between."),
    "decayed": Option(
        "all",
        ("all", "matrices"),
        doc="Open: every parameter decays, as in AdamW itself, or none of biases, norms and scales.",
    ),
    "warmup": Option(0, doc="Open: steps of linear warm-up; the paper speaks of none."),
    "clip": Option(None, float, doc="Open: largest norm of the gradient; the paper speaks of none."),
    "stop": Option(
        "consecutive",
        ("off", "consecutive", "cumulative"),
        doc="Open: stop when the loss exceeded the mean of the last `window` more than `patience` times, in a row or "
        "in all. In a row, a run goes on while its loss falls and ends some 2,500 steps into a plateau (the median for "
        "Gaussian noise); in all, noise ends it within tens of steps, with no use for a cosine to 1e-6.",
    ),
    "window": Option(100, doc="Losses before the present one that it is compared with."),
    "patience": Option(10, doc="Times the loss may exceed their mean."),
    "crop": Option(224, doc="Side of the random crop, in pixels of a tile of 256."),
    "flip": Option(0.5, doc="Probability of a flip, left-right and up-down each."),
    "jitter": Option(0.5, doc="Probability of a colour jitter."),
    "brightness": Option(0.15, doc="Of the jitter: 1 - b .. 1 + b."),
    "contrast": Option(0.15, doc="Of the jitter: 1 - c .. 1 + c."),
    "saturation": Option(0.1, doc="Of the jitter: 1 - s .. 1 + s."),
    "hue": Option(0.05, doc="Of the jitter: -h .. h of a circle."),
    "blur": Option(0.1, doc="Probability of a Gaussian blur."),
    "kernel": Option(9, doc="Side of the blur's kernel, in pixels."),
    "sigma_low": Option(0.1, doc="Open: least sigma of the blur, in pixels; torchvision's default."),
    "sigma_high": Option(2.0, doc="Open: largest sigma of the blur, in pixels; torchvision's default."),
}
CORRELATION_EPS = 1e-5  # added to the deit variant's sum before the logarithm
ROUNDING = 1e-9  # by how much of the mean a loss must exceed it: a constant loss does not
PAPERS = {"teacher": "h-optimus-0", "student": "hibou-l"}


class G2L(DistillationRecipe):
    """Random crop, flips, jitter and blur, the same for teacher and student; a linear projector; the log-sum loss."""

    card = RecipeCard(
        "g2l",
        options=OPTIONS,
        paper="G2L, AAAI-26, arXiv:2510.11176v2",
        description="From giga to cancer-specific large: features of a frozen teacher, log-sum loss.",
    )

    def __init__(self, card: RecipeCard | None = None, options: Mapping[str, Any] | None = None) -> None:
        super().__init__(card, options)
        self.substitutes: list[str] = []
        o = self.options
        if o["variant"] == "deit" and (o["normalise"], o["loss"]) != ("both", "log-sum"):
            raise UsageError(
                "g2l: variant=deit correlates what is normalised on both sides over the batch. "
                "Use normalise=both and loss=log-sum, or variant=resnet."
            )
        if o["window"] < 1:
            raise UsageError("g2l: a loss is compared with the mean of the `window` before it. Give window 1 or more.")
        if o["batch_size"] < 2:
            raise UsageError("g2l normalises over the tiles of a batch, so it needs two or more. Raise --batch-size.")
        if o["kernel"] < 1 or o["kernel"] % 2 == 0 or not 0 < o["sigma_low"] <= o["sigma_high"]:
            raise UsageError("g2l: a blur needs an odd kernel and 0 < sigma_low <= sigma_high. Correct these options.")
        if o["kernel"] // 2 >= o["crop"]:
            raise UsageError(
                f"g2l: a blur of {o['kernel']} pixels does not fit a crop of {o['crop']}. Lower the kernel."
            )

    def student(self, teacher: eosin.FeatureExtractor, student: eosin.FeatureExtractor) -> torch.nn.Module:
        from .projector import Projected, look

        wanted, crop = self.options["readout"], self.options["crop"]
        seen = [(model, look(model, crop)) for model in (student, teacher)]
        used = {"teacher": teacher.card.name, "student": student.card.name}
        self.substitutes = [
            f"The {role} is {used[role]}; the paper's is {name}." for role, name in PAPERS.items() if used[role] != name
        ]
        self.substitutes += [
            f"{m.card.name} has no {wanted}: its pooled output is used." for m, r in seen if wanted not in r
        ]
        student_width, teacher_width = (vector(readouts, wanted).shape[1] for _, readouts in seen)
        return Projected(student, wanted, (student_width, teacher_width))

    def views(self, tiles: torch.Tensor, generator: torch.Generator) -> list[torch.Tensor]:
        o = self.options
        x = augment.random_crop(tiles, o["crop"], generator)
        x = augment.flip(x, generator, o["flip"], axis=-1)
        x = augment.flip(x, generator, o["flip"], axis=-2)
        x = augment.jitter(x, generator, o["jitter"], o["brightness"], o["contrast"], o["saturation"], o["hue"])
        return [augment.blur(x, generator, o["blur"], o["kernel"], (o["sigma_low"], o["sigma_high"]))]

    def loss(self, teacher: Sequence[Readouts], student: Sequence[Readouts], step: int) -> torch.Tensor:
        o = self.options
        taught, learned = vector(teacher[0], o["readout"]), student[0]["projected"]
        eps = o["eps"] if o["eps"] is not None else {"resnet": 1e-4, "deit": 0.0}[o["variant"]]
        if o["normalise"] != "none":
            learned = joint.batch_norm(learned, eps)
        if o["normalise"] == "both":
            taught = joint.batch_norm(taught, eps)
        if o["variant"] == "deit":
            return log_sum_of_correlations(learned, taught, o["alpha"])
        return log_sum(learned, taught, o["alpha"], per_tile=o["loss"] == "log-sum-per-tile")

    def schedule(self, step: int) -> dict[str, float]:
        o = self.options
        last, warm = o["steps"] - 1, o["warmup"]
        lr = cosine(o["lr"], o["lr_end"], step - warm, last - warm) * min(1, (step + 1) / (warm + 1))
        values = {"lr": lr, "weight_decay": cosine(o["weight_decay"], o["weight_decay_end"], step, last)}
        return values | ({"clip": o["clip"]} if o["clip"] is not None else {})

    def stop(self, history: Sequence[float]) -> bool:
        o = self.options
        rule = {"off": None, "cumulative": cumulative, "consecutive": consecutive}[o["stop"]]
        return rule is not None and rule(history, o["window"], o["patience"])

    def groups(self, module: torch.nn.Module) -> list[dict[str, Any]]:
        if self.options["decayed"] == "all":
            return super().groups(module)
        trained = [p for p in module.parameters() if p.requires_grad]
        return [
            {"params": [p for p in trained if p.ndim > 1]},
            {"params": [p for p in trained if p.ndim < 2], "decay_scale": 0.0},
        ]

    def deviations(self) -> list[str]:
        return list(self.substitutes)


def log_sum(learned: torch.Tensor, taught: torch.Tensor, alpha: float, per_tile: bool = False) -> torch.Tensor:
    """log sum_i |learned - taught|_i ^ alpha (paper, equation 1) of (n, d) features, as one number.

    Args:
        per_tile: i runs over a tile's features, and logarithms are averaged; else over all tiles of all processes too.
    """
    powers = (learned - taught).abs().pow(alpha)
    if per_tile:
        return joint.mean(powers.sum(dim=1).log().mean())
    return joint.total(powers.sum()).log()


def log_sum_of_correlations(learned: torch.Tensor, taught: torch.Tensor, alpha: float) -> torch.Tensor:
    """log(sum_j |c_j - 1| ^ alpha + 1e-5), c_j the mean over tiles of learned_j taught_j: the reference's DeiT code."""
    correlation = joint.mean((learned * taught).mean(dim=0))
    return ((correlation - 1).abs().pow(alpha).sum() + CORRELATION_EPS).log()


def cosine(first: float, last: float, step: int, steps: int) -> float:
    """Half a cosine from `first` at step 0 to `last` at step `steps`; constant before and after."""
    share = min(1.0, max(0, step) / max(1, steps))
    return last + (first - last) * (1 + math.cos(math.pi * share)) / 2


def exceeding(history: Sequence[float], window: int) -> list[bool]:
    """Whether each loss is above the mean of the `window` before it, from the first that has so many before it."""
    import numpy as np

    losses = np.asarray(history, dtype=np.float64)
    if len(losses) <= window:
        return []
    sums = np.concatenate([[0.0], losses.cumsum()])
    means = (sums[window:-1] - sums[: -window - 1]) / window
    return (losses[window:] - means > ROUNDING * np.abs(means)).tolist()


def cumulative(history: Sequence[float], window: int, patience: int) -> bool:
    """The loss exceeded the mean of the last `window` more than `patience` times, ever."""
    return sum(exceeding(history, window)) > patience


def consecutive(history: Sequence[float], window: int, patience: int) -> bool:
    """The loss exceeded the mean of the last `window` more than `patience` times in a row, up to now."""
    latest = exceeding(history[-(window + patience + 1) :], window)
    return len(latest) == patience + 1 and all(latest)
