"""What a decoder is trained and validated on, in batches on the device: features, normalised image, mask."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from eosin.arrays import blocks

from .crops import Box, crop, random_box

if TYPE_CHECKING:
    import torch

    from eosin.pixels import Pixels

KEPT = 2**31  # bytes of whole images and masks that stay in memory between epochs; further ones are read again

Batch = tuple["torch.Tensor", "torch.Tensor", "torch.Tensor"]  # (n, d, h, w), (n, 3, S, S), (n, S, S) int64


@dataclass
class Squares:
    """Images as the model saw them when its grids were stored: no forward pass is needed.

    Args:
        X: (rows, d, h, w) all grids, which stay where they are. rows: (n,) those of these images.
        pixels: the pixels of these n images.
    """

    X: np.ndarray
    rows: np.ndarray
    pixels: Pixels
    device: torch.device

    def __post_init__(self) -> None:
        import torch

        n, S = len(self.rows), self.pixels.size
        image, mask = np.empty((n, S, S, 3), np.uint8), np.empty((n, S, S), np.uint8)
        for b in blocks(n, 64):
            image[b], mask[b] = self.pixels.square(range(b.start, b.stop))
        self.labels = [np.unique(m) for m in mask]
        self.image, self.mask = torch.from_numpy(image), torch.from_numpy(mask)
        self._grids = self._on_device()

    def __len__(self) -> int:
        return len(self.rows)

    def batches(self, size: int, rng: np.random.Generator | None = None) -> Iterator[Batch]:
        """All images once, in order, or as `rng` shuffles them."""
        import torch

        order = np.arange(len(self)) if rng is None else rng.permutation(len(self))
        for b in blocks(len(self), size):
            these = order[b]
            grids = torch.from_numpy(self.X[self.rows[these]]) if self._grids is None else self._grids[these]
            image = normalised(self.image[these], self.pixels, self.device)
            yield grids.to(self.device, torch.float32), image, self.mask[these].to(self.device).long()

    def _on_device(self) -> torch.Tensor | None:
        """All grids of these rows on a GPU that has room to spare, else None: batches are sliced and carried over."""
        import torch

        size = len(self) * self.X[:1].nbytes
        if self.device.type != "cuda" or size > torch.cuda.mem_get_info(self.device)[0] / 2:
            return None
        return torch.cat([torch.from_numpy(self.X[self.rows[b]]).to(self.device) for b in blocks(len(self), 64)])


class Crops:
    """A fresh random crop of every image in every epoch, embedded by the frozen model as it is used: one pass each.

    Args:
        pixels: of the training images; its `embed` is the model. threads: that cut crops while the device computes.
    """

    def __init__(self, pixels: Pixels, device: torch.device, threads: int = 0) -> None:
        self.pixels, self.device = pixels, device
        self.threads = threads or min(8, os.cpu_count() or 1)
        self.passes = 0
        self._kept: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._reading = threading.Lock()
        self.sizes: list[tuple[int, ...]] = []
        self.labels = []
        room = KEPT
        for i in range(len(pixels)):
            image, mask = self._pair(i)
            self.sizes.append(mask.shape)
            self.labels.append(np.unique(mask))
            room -= image.nbytes + mask.nbytes
            if room >= 0:
                self._kept[i] = image, mask

    def __len__(self) -> int:
        return len(self.pixels)

    def batches(self, size: int, rng: np.random.Generator) -> Iterator[Batch]:
        """All images once, as `rng` shuffles them, each in the crop that it draws; the next batch is cut meanwhile."""
        order = rng.permutation(len(self))
        boxes = [random_box(self.sizes[i][0], self.sizes[i][1], rng) for i in order]
        with ThreadPoolExecutor(self.threads) as pool:
            ahead: deque[list[Future[Any]]] = deque()
            for b in blocks(len(self), size):
                ahead.append([pool.submit(self._cut, int(i), box) for i, box in zip(order[b], boxes[b], strict=True)])
                if len(ahead) > 1:
                    yield self._embedded(ahead.popleft())
            yield self._embedded(ahead.popleft())

    def _embedded(self, cut: Sequence[Future[Any]]) -> Batch:
        import torch

        images, masks = (torch.stack(part) for part in zip(*(c.result() for c in cut), strict=True))
        self.passes += len(images)
        assert self.pixels.embed is not None, "the protocol asks before it trains"
        grids = self.pixels.embed(images.numpy()).to(self.device, torch.float32)
        return grids, normalised(images, self.pixels, self.device), masks.to(self.device).long()

    def _cut(self, i: int, box: Box) -> tuple[torch.Tensor, torch.Tensor]:
        image, mask = self._kept[i] if i in self._kept else self._pair(i)
        return crop(image, box, self.pixels.size), crop(mask, box, self.pixels.size)

    def _pair(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        with self._reading:
            image, mask = self.pixels.pair(i)
        return image, mask.astype(np.uint8) if mask.min() >= 0 and mask.max() < 256 else mask


def normalised(image: torch.Tensor, pixels: Pixels, device: torch.device) -> torch.Tensor:
    """(n, 3, S, S) float32 as the model's own transform has it, of uint8 (n, S, S, 3)."""
    import torch

    mean, std = (torch.tensor(v, dtype=torch.float32, device=device)[:, None, None] for v in (pixels.mean, pixels.std))
    return (image.to(device).movedim(-1, 1).float() / 255 - mean) / std
