"""eva's segmentation: a small decoder on the frozen model's grids, five runs from the same start, Dice."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

import eosin
from eosin.arrays import refuse
from eosin.errors import DataError, UsageError

from .dice import mean_dice, nanmean
from .fit_decoder import ERAS, Recipe, fit, judge
from .samples import Crops, Squares

if TYPE_CHECKING:
    import torch
    from torch import nn

AUGMENT = eosin.Option(
    "none",
    ("none", "random-crop"),
    "random-crop: every epoch trains on a fresh crop of each whole image, embedded then (MoNuSAC). none: on the stored "
    "grids of the validation geometry (CoNSeP).",
)


def _options(patience: int, **more: eosin.Option) -> dict[str, eosin.Option]:
    return {
        "patience": eosin.Option(
            patience, doc="Epochs without a better Dice on the selecting split, then a run stops."
        ),
        "ignore": eosin.Option(None, int, "A label whose pixels the loss does not see and Dice has no class for."),
        "ignored_by": eosin.Option(
            "prediction",
            ("prediction", "target"),
            "prediction: as eva, where what is predicted on ignored pixels counts as false. target: it does not count.",
        ),
        "runs": eosin.Option(5, doc="Decoders trained, all from the same weights."),
        "max_steps": eosin.Option(2000, doc="Optimiser steps of a run, and the length of the 2024-12 schedule."),
        "batch_size": eosin.Option(64, doc="Images a step; the last batch of an epoch may be smaller."),
        "lr": eosin.Option(2e-3, doc="AdamW's learning rate."),
        "weight_decay": eosin.Option(0.01, doc="AdamW's."),
        "seed": eosin.Option(42, doc="Of the decoder's weights; a run adds its number for its shuffles and crops."),
        **more,
    }


def _card(name: str, notes: str, options: dict[str, eosin.Option]) -> eosin.ProtocolCard:
    return eosin.ProtocolCard(
        name,
        options=options,
        metrics=("dice",),
        ddof=1,
        online=True,
        readout="grid-pre-norm|grid",
        geometry="224",
        notes=notes,
    )


class EvaSegmentation(eosin.Protocol):
    """Dice of eva's decoder with the image beside the features, in the era of the H0-mini paper."""

    era = "2024-12"
    decoder = "ConvDecoderWithImage"
    card = _card(
        "eva-segmentation-2024-12@1",
        "kaiko-ai/eva at 71a2e189, online configurations: PolynomialLR stepped once an epoch; patience 34 on CoNSeP, 50 on MoNuSAC.",
        _options(34, augment=AUGMENT),
    )

    def score(self, emb: Any, **options: Any) -> eosin.Scores:
        """`dice` of each run on the split `test`, else `val`; the checkpoint is chosen on `val`, else `test`.

        Args:
            emb: X (n, d, h, w) grids, with `pixels` and a `split`; `classes` are the names of the mask's numbers.

        Returns:
            Predictions: `dice` of every image in every run. Details: `dice_per_image` (runs, images; null where an image
            has no foreground), `dice_per_class` (runs, foreground classes: mean over images that have it), `classes`,
            `best_epoch` and `epochs` (runs,).

        Raises:
            DataError: no grids, no pixels, no such splits, NaN, labels that are no class.
            UsageError: numbers below 1; crops of a model that is not here.
        """
        o = self.card.complete(options)
        crops = o.get("augment") == "random-crop"
        self._check(emb, o, crops)
        device = _device()
        select, report = _judging(emb)
        train_rows = _rows(emb, "train")
        train = Crops(emb.pixels[train_rows], device) if crops else _squares(emb, train_rows, device)
        judged = {name: _squares(emb, _rows(emb, name), device) for name in {select, report}}
        samples = {"train": train, **judged}
        classes, recipe = self._recipe(emb, samples, o)
        start = _start(self.decoder, emb.X.shape[1], recipe.num_classes, o["seed"], device)
        cells, found = [], []
        for run in range(o["runs"]):
            decoder, rng = copy.deepcopy(start), np.random.default_rng([o["seed"], run])
            found.append(fit(decoder, train, judged[select], recipe, rng))
            decoder.load_state_dict(found[-1].state)
            cells.append(judge(decoder, judged[report], recipe))
        table = np.stack(cells)  # (runs, images, foreground classes)
        per_image = nanmean(table, axis=2)
        return eosin.Scores(
            {"dice": [mean_dice(run) for run in table]},
            _predictions(emb.id[judged[report].rows], per_image),
            {
                "dice_per_image": per_image,
                "dice_per_class": nanmean(table, axis=1),
                "classes": np.array(classes),
                "best_epoch": np.array([c.epoch for c in found]),
                "epochs": np.array([c.epochs for c in found]),
            },
            _notes(select, report, train, recipe, per_image[0]),
        )

    def _check(self, emb: Any, o: dict[str, Any], crops: bool) -> None:
        name = self.card.name
        for option in ("runs", "max_steps", "batch_size"):
            if o[option] < 1:
                raise UsageError(f"{name}: option {option}={o[option]} must be at least 1.")
        if emb.X.ndim != 4:
            raise DataError(f"{name} needs grids (n, d, h, w), not {emb.X.shape}. Embed with the readout `grid`.")
        if emb.pixels is None:
            raise DataError(
                f"{name} needs the images and masks. Give a file with `image` (n, s, s, 3) uint8 and `mask` (n, s, s)."
            )
        if crops and emb.pixels.embed is None:
            raise UsageError(
                f"{name}: augment=random-crop embeds new crops while it trains, and the model is not here. "
                "Use `bench run` with the model, or augment=none for the stored grids."
            )
        bad = np.array([not np.isfinite(grid).all() for grid in emb.X])
        refuse(bad, "X has NaN or Inf", "Embed these tiles again, in float32.")

    def _recipe(self, emb: Any, samples: dict[str, Squares | Crops], o: dict[str, Any]) -> tuple[list[str], Recipe]:
        """How to train, and the names of the foreground classes that Dice counts."""
        labels = np.unique(np.concatenate([values for part in samples.values() for values in part.labels]))
        known = [int(c) for c in labels if c != o["ignore"]]
        names = emb.classes or tuple(f"class {c}" for c in range(max(known) + 1 if known else 1))
        K = len(names) - (o["ignore"] == len(names) - 1)  # an ignored last class has no output
        wrong = [str(c) for c in known if not 0 <= c < K]
        if wrong:
            raise DataError(
                f"The masks hold {', '.join(wrong)}, and the classes are 0 … {K - 1} ({', '.join(names[:K])}). "
                "Name every class on the dataset's card, or give `ignore`."
            )
        if K < 2:
            raise DataError("There is one class only. Segmentation needs background (0) and at least one more.")
        keys = ("lr", "weight_decay", "batch_size", "max_steps", "patience", "ignore", "ignored_by")
        counted = [names[c] for c in range(1, K) if c != o["ignore"]]
        return counted, Recipe(o.get("era", self.era), num_classes=K, **{k: o[k] for k in keys})


class EvaSegmentation04(EvaSegmentation):
    """The same in today's era: another schedule, and more patience."""

    era = "0.4"
    card = _card(
        "eva-segmentation-0.4@1",
        "kaiko-ai/eva 0.4.5, online configurations: the first five epochs at a third of the rate; patience 200 on CoNSeP, 100 on MoNuSAC.",
        _options(200, augment=AUGMENT),
    )


class EvaSegmentationOffline(EvaSegmentation):
    """Dice of eva's decoder for cached features, which sees no image: lower numbers, and not the leaderboard's."""

    decoder = "ConvDecoderMS"
    card = _card(
        "eva-segmentation-offline@1",
        "kaiko-ai/eva, offline configurations: ConvDecoderMS on stored grids. eva's own make one run of it.",
        _options(
            34, era=eosin.Option("2024-12", ERAS, "Of eva: decides the learning rate's schedule, not `patience`.")
        ),
    )


def _device() -> torch.device:
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _start(decoder: str, features: int, classes: int, seed: int, device: torch.device) -> nn.Module:
    """The weights that every run starts from, whatever was drawn before."""
    import torch

    from . import decoders

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = getattr(decoders, decoder)(features, classes)
    return made.to(device, memory_format=torch.channels_last)  # a third faster on a CPU


def _rows(emb: Any, split: str) -> np.ndarray:
    """The row numbers of a split: grids are large, so they are not copied."""
    return replace(emb, X=np.arange(len(emb)), pixels=None)[split].X


def _judging(emb: Any) -> tuple[str, str]:
    """(the split that chooses the checkpoint, the split that is reported)."""
    there = set() if emb.split is None else set(emb.split.tolist())
    return ("val" if "val" in there else "test", "test" if "test" in there else "val")


def _squares(emb: Any, rows: np.ndarray, device: torch.device) -> Squares:
    return Squares(emb.X, rows, emb.pixels[rows], device)


def _predictions(ids: np.ndarray, per_image: np.ndarray) -> dict[str, np.ndarray]:
    runs, n = per_image.shape
    seed = np.repeat(np.arange(runs), n)
    return {"id": np.tile(ids, runs), "fold": np.zeros(runs * n, int), "seed": seed, "dice": per_image.ravel()}


def _notes(select: str, report: str, train: Squares | Crops, recipe: Recipe, images: np.ndarray) -> list[str]:
    notes = [f"The checkpoint was chosen on {select}, and {report} is reported."]
    if select == report:
        notes = [f"The reported split, {report}, also chose the checkpoint: the number is optimistic, as eva's is."]
    if isinstance(train, Crops):
        notes.append(
            f"Forward passes while training: {train.passes}, one crop an image, epoch and run. Validation: stored grids."
        )
    else:
        notes.append("Forward passes while training: none. Every batch comes from the stored grids.")
    if recipe.ignore is not None:
        so = (
            "what is predicted there counts as false, as in eva" if recipe.ignored_by == "prediction" else "not counted"
        )
        notes.append(f"Label {recipe.ignore} is neutral in the loss; in Dice: {so}.")
    if np.isnan(images).any():
        notes.append(f"{int(np.isnan(images).sum())} images have no foreground and are left out of the mean.")
    return notes
