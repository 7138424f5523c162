"""The door for models: a batch of normalised tensors in, named readouts out."""

from __future__ import annotations

import hashlib
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import cards
from .cards import ModelCard
from .errors import DataError, MissingError, ModelError, NotApplicable, UsageError
from .files import opened

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL import Image

PREFERRED = ("cls", "pooled", "mean")
MAX_PIXELS = 2**28  # 16,384 x 16,384: above any region of interest we know, below what exhausts a laptop


class FeatureExtractor:
    """A model behind the contract. Set `card`; override `build`, or `embed` for full control.

    Nothing heavy happens before `build()`: listing and planning only read the card.
    """

    card: ModelCard
    source_counts = True  # the code is part of the address; False where the card alone pins what it does

    def __init__(self, card: ModelCard | None = None) -> None:
        if card is not None:
            self.card = card
        self.device: Any = "cpu"
        self._module: Any = None

    def build(self) -> torch.nn.Module:
        """The network on the CPU in evaluation mode, weights loaded."""
        raise ModelError(
            f"{self.card.name}: {type(self).__name__} must define build() or embed(batch); see docs/write-a-model.md."
        )

    @property
    def module(self) -> Any:
        """What `build` made, built once, on `self.device`."""
        if getattr(self, "_module", None) is None:
            self._module = self._built().eval().requires_grad_(False).to(getattr(self, "device", "cpu"))
        return self._module

    def _built(self) -> torch.nn.Module:
        import torch

        made: Any = self.build()  # a stranger's, so it may be anything; a forgotten `return` gives None
        if isinstance(made, torch.nn.Module):
            return made
        raise ModelError(
            f"{self.card.name}: build() returned {type(made).__name__}; return a torch module (docs/write-a-model.md)."
        )

    def embed(self, batch: torch.Tensor) -> torch.Tensor | dict[str, torch.Tensor]:
        """(n, 3, size, size) normalised floats to (n, dim), or to {readout: (n, d), "grid": (n, d, h, w)}."""
        return self.module(batch)

    def transform(self, image: Image.Image) -> np.ndarray:
        """A PIL image as the (3, size, size) float32 that `embed` expects, by the card."""
        return normalise(square(image, self.card)[None], self.card)[0]

    def fingerprint(self, memory: Any = None) -> str:
        """The address of all that can change this model's embeddings: card, weights' content, code.

        Args:
            memory: a `store.Memory` that remembers the hash of a large file by path, size and mtime.
        """
        facts: dict[str, Any] = dict(self.card.facts)
        path = self.weight_file()
        if path is not None:
            facts["weights"] = memory.hash(path) if memory is not None else hash_file(path)
        if self.source_counts:
            facts["source"] = [hash_file(p) for p in sources_of(type(self))]
        return cards.fingerprint(facts)

    def weight_file(self) -> Path | None:
        """The local file whose content is part of the address; None for weights that a hub pins, a seed or code makes."""
        return Path(self.card.weights).expanduser() if self.card.weights else None

    def available(self) -> str:
        """`here`, `missing` or `gated`: whether the weights can be loaded without asking anybody."""
        return "here"

    def missing_weights(self) -> MissingError | None:
        """Why weights that are not here cannot be had; None when the model will fetch them as it is built."""
        return None


def sources_of(cls: type) -> list[Path]:
    """The files that define a class and its bases, our own and the language's left out."""
    files = []
    for c in cls.__mro__:
        if c.__module__.split(".")[0] in ("builtins", "eosin"):
            continue
        try:
            files.append(Path(inspect.getsourcefile(c) or ""))
        except (TypeError, OSError):
            continue
    return sorted({f for f in files if f.is_file()})


def hash_file(path: Path) -> str:
    """Content hash of a file, 16 hex digits."""
    with opened(path) as handle:
        return hashlib.file_digest(handle, lambda: hashlib.blake2b(digest_size=8)).hexdigest()


def square(image: Image.Image, card: ModelCard, geometry: str = "card") -> np.ndarray:
    """An RGB image as uint8 (size, size, 3): shorter side resized, centre cropped, as torchvision does on PIL images.

    Args:
        geometry: `card`, or a number of pixels that a benchmark imposes for both resize (then bilinear) and crop.
    """
    import numpy as np

    size = side(card, geometry)
    shorter = int(size / card.crop) if geometry == "card" else size
    return np.asarray(fit(image, shorter, size, card.interpolation if geometry == "card" else "bilinear"))


def side(card: ModelCard, geometry: str = "card") -> int:
    """The side of the square that the model sees, in pixels."""
    return card.size if geometry == "card" else int(geometry)


def fit(image: Image.Image, shorter: int, size: int, interpolation: str) -> Image.Image:
    """The shorter side resized, then the central size x size, as torchvision does on PIL images."""
    from PIL import Image as PILImage

    w, h = image.size
    if min(w, h) != shorter:
        if not min(w, h) or shorter * shorter * max(w, h) / min(w, h) > MAX_PIXELS:
            raise DataError(
                f"is {w}x{h} pixels: too thin to resize its shorter side to {shorter}; cut it into tiles first"
            )
        w, h = (shorter, int(shorter * h / w)) if w <= h else (int(shorter * w / h), shorter)
        image = image.resize((w, h), PILImage.Resampling[interpolation.upper()])
    if (w, h) != (size, size):
        left, top = round((w - size) / 2), round((h - size) / 2)
        image = image.crop((left, top, left + size, top + size))
    return image


def normalise(pixels: np.ndarray, card: ModelCard) -> np.ndarray:
    """uint8 (n, h, w, 3) to float32 (n, 3, h, w): (value / 255 - mean) / std."""
    import numpy as np

    x: np.ndarray = pixels.astype(np.float32) / np.float32(255)
    x = (x - np.asarray(card.mean, np.float32)) / np.asarray(card.std, np.float32)
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2))


def default_readout(card: ModelCard, given: tuple[str, ...]) -> str:
    """What `default` means for a model: what its card recommends, else the first of cls, pooled, mean that it gives."""
    if card.readout:
        return card.readout
    return next((r for r in PREFERRED if r in given), given[0])


def dense(readout: str) -> bool:
    """Whether a readout is a map (d, h, w) a tile: `grid`, `grid-pre-norm`, or a choice that begins with one."""
    return readout.split("|")[0].split("-")[0] == "grid"


def parts_of(readout: str, card: ModelCard, given: tuple[str, ...]) -> list[str]:
    """The stored readouts that a readout is made of (`cls+mean` of two); NotApplicable when the model lacks one.

    `cls|default` is the first of its alternatives that the model has; the last, where nothing is known of the model.

    Args:
        given: the readouts that the model gives, as far as known: () when its card does not say.
    """
    *first, readout = readout.split("|")
    for alternative in first if given else ():
        if set(alternative.split("+")) <= set(given):
            return parts_of(alternative, card, given)
    if readout == "default" and not given and not card.readout:
        return []
    wanted = default_readout(card, given) if readout == "default" else readout
    parts = wanted.split("+")
    if not all(parts):
        raise UsageError(f"Readout {readout!r} is not understood: use cls, mean, cls+mean, pooled, grid or default.")
    lacking = [p for p in parts if given and p not in given]
    if lacking:
        raise NotApplicable(
            f"{card.name} has no readout {' or '.join(lacking)}: it gives {', '.join(given)}. Choose one with `--readout`."
        )
    return parts
