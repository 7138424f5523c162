"""The door for distillation: a recipe says what is compared and how it is scheduled; the engine owns the rest."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from .cards import RecipeCard


class DistillationRecipe(ABC):
    """How a teacher becomes a student. Set `card` and define the methods.

    The engine owns devices, data, precision, logging and checkpoints; a recipe never touches a file.
    """

    card: RecipeCard

    def __init__(self, card: RecipeCard | None = None) -> None:
        if card is not None:
            self.card = card

    @abstractmethod
    def student(self, teacher: Any, student: Any) -> Any:
        """The student module with the heads that training needs, from the two extractors."""

    @abstractmethod
    def views(self, tiles: Any, generator: Any) -> list[Any]:
        """The batches that both models see, from (n, 3, size, size) tiles in 0..1."""

    @abstractmethod
    def loss(self, teacher_readouts: Any, student_readouts: Any, step: int) -> Any:
        """The scalar to be minimised."""

    @abstractmethod
    def schedule(self, step: int) -> dict[str, float]:
        """Learning rate, weight decay and whatever else changes with the step."""

    @abstractmethod
    def stop(self, history: list[float]) -> bool:
        """Whether to stop early, from the losses so far."""
