"""Images and masks for the few protocols that train on pixels (`online`): the one door through which they see any."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import DataError, EosinError

if TYPE_CHECKING:
    import torch

FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "DIB", "GIF", "PPM", "TGA", "JPEG2000")


@dataclass(frozen=True)
class Pixels:
    """The pixels behind the rows of an Embeddings, and the frozen model's way to embed more of them.

    Attributes:
        image: row number of the dataset -> uint8 (H, W, 3), as read and seen under the need's view.
        mask: the same -> int64 (H, W) class numbers.
        embed: uint8 (n, size, size, 3) -> float32 (n, d, h, w): the readout that the need asks for; None where
            embeddings came from a file.
        mean, std: what the model's transform subtracts and divides by, of values from 0 to 1.
        size: the side of the square that the model sees, in pixels.
        rows: (n,) which rows of the dataset these are.
    """

    image: Callable[[int], np.ndarray]
    mask: Callable[[int], np.ndarray]
    embed: Callable[[np.ndarray], torch.Tensor] | None
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    size: int
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: Any) -> Pixels:
        return replace(self, rows=self.rows[key])

    def pair(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Image and mask of the i-th of these rows, whole.

        Raises:
            DataError: the two differ in size.
        """
        image, mask = self.image(int(self.rows[i])), np.asarray(self.mask(int(self.rows[i])), np.int64)
        if image.shape[:2] != mask.shape:
            raise DataError(
                f"Row {self.rows[i]}: the image has {image.shape[1]}x{image.shape[0]} pixels and its mask "
                f"{mask.shape[1]}x{mask.shape[0]}. Give each image a mask of its size."
            )
        return image, mask

    def square(self, rows: Any) -> tuple[np.ndarray, np.ndarray]:
        """(n, size, size, 3) uint8 and (n, size, size) int64 of some of these rows: the shorter side resized (images
        bilinear, masks nearest), then the centre."""
        images, masks = zip(*(self._square(int(i)) for i in rows), strict=True)
        return np.stack(images), np.stack(masks)

    def _square(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        image, mask = self.pair(i)
        if mask.min(initial=0) < 0 or mask.max(initial=0) > 255:
            raise DataError(f"Row {self.rows[i]}: a mask holds class numbers from 0 to 255. Number its classes so.")
        return fitted(image, self.size, "bilinear"), fitted(mask.astype(np.uint8), self.size, "nearest").astype(int)


def fitted(pixels: np.ndarray, size: int, interpolation: str) -> np.ndarray:
    """(size, size[, 3]): shorter side resized, centre cropped, as torchvision does on PIL images."""
    from PIL import Image

    from .extractor import fit

    return np.asarray(fit(Image.fromarray(pixels), size, size, interpolation))


def mask_file(path: Any, box: tuple[int, int, int, int] | None = None) -> np.ndarray:
    """(H, W) int64 class numbers of a mask image (grey, palette or 1 bit) or .npy file; `box` (x, y, w, h) cuts it.

    Raises:
        DataError: naming the file, when it cannot be read or has colours.
    """
    try:
        if str(path).endswith(".npy"):
            values = np.load(path, allow_pickle=False)
        else:
            with opened(path) as image:
                if image.mode not in ("L", "P", "1", "I", "I;16"):
                    raise DataError(
                        f"{path} is a {image.mode} image, not a mask of one number a pixel. Save it as grey."
                    )
                values = np.asarray(image)
    except EosinError:
        raise
    except Exception as error:  # a damaged file may make a decoder raise anything
        raise DataError(f"The mask {path} cannot be read ({error}). Copy or make it again.") from error
    if values.ndim != 2:
        raise DataError(f"The mask {path} has shape {values.shape}, not (height, width). Save one number a pixel.")
    if box is not None:
        x, y, w, h = box
        values = values[y : y + h, x : x + w]
    return values.astype(np.int64)


def renumbered(values: np.ndarray, names: dict[Any, int], what: str) -> np.ndarray:
    """Class numbers of what a mask file holds; as they are where `names` is empty.

    Raises:
        DataError: a value that has no class.
    """
    if not names:
        return values
    classes = {0: 0, **{int(k): int(v) for k, v in names.items()}}
    found, at = np.unique(values, return_inverse=True)
    strange = [v for v in found.tolist() if v not in classes]
    if strange:
        raise DataError(
            f"The mask {what} holds {strange[0]}, which `mask_values` of the card does not name. Add it there."
        )
    return np.array([classes[v] for v in found.tolist()])[at].reshape(values.shape)


def opened(path: Any) -> Any:
    """An image file, or its bytes, as Pillow opens it: its head only, in formats that Pillow decodes by itself (others start
    programs: PostScript is one), with an error above twice our bound of pixels."""
    from PIL import Image

    from .extractor import MAX_PIXELS

    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    return Image.open(path, formats=FORMATS)
