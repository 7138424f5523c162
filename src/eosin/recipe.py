"""The door for distillation: a recipe says what is compared and how it is scheduled; the engine owns the rest."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .cards import RecipeCard
from .errors import NotApplicable, UsageError

if TYPE_CHECKING:
    import torch

    from .extractor import FeatureExtractor

    Readouts = Mapping[str, torch.Tensor]


class DistillationRecipe(ABC):
    """How a teacher becomes a student. Set `card`, whose options are all hyperparameters, and define the methods.

    The engine owns devices, data, precision, processes, logging and checkpoints; a recipe never touches a file. All that
    must survive an interruption lies in the module that `student` made: parameters and buffers.

    Attributes:
        options: every option of the card with its value, as this run has it. `steps` and `batch_size` are always there; an
            option `tile`, else `crop`, is the side of the tiles in pixels, else they have the teacher's size.
        teacher_views: how many of the views, from the first, the teacher sees too; None for all.
    """

    card: RecipeCard
    options: dict[str, Any]
    teacher_views: int | None = None

    def __init__(self, card: RecipeCard | None = None, options: Mapping[str, Any] | None = None) -> None:
        if card is not None:
            self.card = card
        self.options = self.card.complete(options or {})
        for name, option in self.card.options.items():
            value, least = self.options[name], 1 if name in ("steps", "batch_size") else 0
            positive = (
                isinstance(option.default, (int, float)) and not isinstance(option.default, bool) and option.default > 0
            )
            if positive and isinstance(value, (int, float)) and value < least:
                raise UsageError(f"{self.card.name}: {name}={value}. Give {least} or more.")

    @abstractmethod
    def student(self, teacher: FeatureExtractor, student: FeatureExtractor) -> torch.nn.Module:
        """The module to train. Called with a normalised batch it gives the readouts that `loss` compares, heads applied;
        its attribute `backbone` is `student.module`, the network that is left at the end."""

    @abstractmethod
    def views(self, tiles: torch.Tensor, generator: torch.Generator) -> list[torch.Tensor]:
        """The batches that the models see, from (n, 3, side, side) tiles in 0..1; each model then normalises by its card.

        `eosin.augment` has the usual augmentations. They draw from `generator`, which is the same for the same step.
        """

    @abstractmethod
    def loss(self, teacher: Sequence[Readouts], student: Sequence[Readouts], step: int) -> torch.Tensor:
        """The scalar to be minimised, from one mapping of readouts a view: the teacher's, and the student's.

        The gradient is the mean over processes. What sums over the batch inside a function that is not linear (a
        logarithm, a batch norm) must sum over all processes: `eosin.joint`.
        """

    @abstractmethod
    def schedule(self, step: int) -> dict[str, float]:
        """`lr` and `weight_decay` of a step (from 0). `clip` (the largest norm of the gradient) and `ema` (how much a
        moving average of the module keeps; then the average is what is left at the end) are understood too."""

    def stop(self, history: Sequence[float]) -> bool:
        """Whether to stop before the last step, from the losses so far."""
        return False

    def prepare(self, module: torch.nn.Module, taught: Callable[[int], Iterator[Readouts]]) -> None:
        """Called once before the first step. `taught(n)` gives the teacher's readouts of n tiles, in batches."""
        return None

    def groups(self, module: torch.nn.Module) -> list[dict[str, Any]]:
        """Parameters for AdamW: `{"params": [...], "lr_scale": 1.0, "decay_scale": 1.0}` each."""
        return [{"params": [p for p in module.parameters() if p.requires_grad]}]

    def deviations(self) -> list[str]:
        """What of this run is not as the paper has it, a sentence each; the engine adds options that differ from the card's."""
        return []


def vector(readouts: Readouts, wanted: str = "cls") -> torch.Tensor:
    """(n, d): the readout that is wanted, or `pooled` of a model that has no class token.

    Raises:
        NotApplicable: neither is there, or it is a map.
    """
    for name in (wanted, "pooled"):
        if name in readouts and readouts[name].ndim > 2:
            raise NotApplicable(f"{name} is a map of vectors, not one vector a tile. Choose cls, mean or pooled.")
        if name in readouts:
            return readouts[name]
    raise NotApplicable(
        f"There is no {wanted} and no pooled readout among {', '.join(readouts)}. Choose another model."
    )
