"""What a model gives, held against its card."""

from __future__ import annotations

from typing import Any

from .cards import ModelCard
from .errors import ModelError, NotApplicable
from .extractor import default_readout, dense


class Outputs:
    """Checks what embed() gave for each batch, against the card and against the batches before.

    Args:
        grid: the dense readout to keep instead of the vectors, or the first that is there of `one|another`.
    """

    def __init__(self, card: ModelCard, grid: str = "") -> None:
        self.card, self.grid = card, grid
        self.shapes: dict[str, tuple[int, ...]] = {}  # of one tile's readouts, as the first batch gave them

    def check(self, out: Any, n: int) -> dict[str, Any]:
        """What embed() gave as {readout: float32 tensor}, or a ModelError that says how it is not what it should be."""
        card, named = self.card, self._named(out)
        for name, values in named.items():
            self._shaped(name, tuple(values.shape), n)
        lacking = [r for r in dict.fromkeys([*card.readouts, *self.shapes]) if r not in named]
        if lacking:
            raise ModelError(
                f"{card.name}: the card lists readout {', '.join(lacking)}, or tiles before had it; the model gave "
                f"{', '.join(named)}. Correct the card or embed()."
            )
        if self.grid:
            found = next((g for g in self.grid.split("|") if g in named), None)
            if found is None:
                raise NotApplicable(f"{card.name} gives no {self.grid.replace('|', ' or ')}: {', '.join(named)}.")
            return {found: named[found]}
        vectors = {k: v for k, v in named.items() if not dense(k)}
        if not vectors:
            raise ModelError(
                f"{card.name} gave {', '.join(named) or 'nothing'} and no vector a tile. "
                "Let embed() return (n, dim), or a dict with cls, mean or pooled."
            )
        if card.dim is not None:
            default = default_readout(card, tuple(vectors))
            width = sum(vectors[p].shape[1] for p in default.split("+") if p in vectors)
            if width != card.dim:
                raise ModelError(
                    f"{card.name}: readout {default} is {width} wide, the card says dim={card.dim}. "
                    "Correct the card or the model."
                )
        return vectors

    def _named(self, out: Any) -> dict[str, Any]:
        """Names that the store can keep, each with a float32 tensor."""
        import torch

        card, named = self.card, {}
        for name, values in (out if isinstance(out, dict) else {"pooled": out}).items():
            if not str(name).replace("-", "_").isidentifier() or name in ("id", "broken"):
                raise ModelError(
                    f"{card.name}: readout {name!r} cannot be called so. Use cls, mean, pooled, grid or a word of your own."
                )
            try:
                named[str(name)] = torch.as_tensor(values).float()
            except (TypeError, ValueError, RuntimeError) as error:
                raise ModelError(
                    f"{card.name}: readout {name} is a {type(values).__name__} that is no tensor ({error}). Correct embed()."
                ) from error
        return named

    def _shaped(self, name: str, shape: tuple[int, ...], n: int) -> None:
        card, wanted = self.card, ("dim", "height", "width") if dense(name) else ("dim",)
        if len(shape) != 1 + len(wanted) or shape[0] != n or 0 in shape:
            raise ModelError(
                f"{card.name}: readout {name} has shape {shape} for {n} tiles, not ({n}, {', '.join(wanted)}). "
                "Correct embed() or build()."
            )
        before = self.shapes.setdefault(name, shape[1:])
        if shape[1:] != before:
            raise ModelError(
                f"{card.name}: a tile's {name} has shape {before} in one batch and {shape[1:]} in another. Correct embed()."
            )
