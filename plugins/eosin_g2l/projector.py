"""The module that G2L trains: a student with a linear layer to the teacher's dimensions."""

from __future__ import annotations

import torch
from torch import nn

import eosin
from eosin.errors import UsageError
from eosin.recipe import vector


class Projected(nn.Module):
    """Gives {"projected": (n, teacher's dimensions)} of a normalised batch. Batch norms are the loss's affair.

    Args:
        readout: of the student; see `eosin.recipe.vector`.
        widths: dimensions of the student's readout and of the teacher's.
    """

    def __init__(self, student: eosin.FeatureExtractor, readout: str, widths: tuple[int, int]) -> None:
        super().__init__()
        self.backbone = student.module
        self.projector = nn.Linear(*widths)
        self.embed, self.readout = student.embed, readout

    def forward(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"projected": self.projector(vector(named(self.embed(batch)), self.readout))}


def named(out: torch.Tensor | dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What `embed` gave as {readout: tensor}; one tensor alone is `pooled`."""
    return out if isinstance(out, dict) else {"pooled": out}


@torch.no_grad()
def look(model: eosin.FeatureExtractor, side: int) -> dict[str, torch.Tensor]:
    """A model's readouts of one tile of zeros.

    Raises:
        UsageError: it takes no tiles of this side.
    """
    try:
        return named(model.embed(torch.zeros(1, 3, side, side, device=model.device)))
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, AssertionError, ValueError) as error:
        raise UsageError(
            f"{model.card.name} cannot see tiles of {side} px ({str(error).splitlines()[0]}). "
            f"Its card says {model.card.size}: try --option crop={model.card.size}."
        ) from error
