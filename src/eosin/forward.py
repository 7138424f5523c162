"""A model on a device: pixels in, checked readouts out. Built at the first batch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np

from .errors import EosinError, ModelError, stranger
from .extractor import FeatureExtractor, square
from .outputs import Outputs


class Forward:
    """The model's transform and its forward pass.

    Args:
        device: a torch device. geometry: see Need. grid: the dense readout to keep instead of the vectors.
    """

    def __init__(
        self,
        extractor: FeatureExtractor,
        device: str,
        geometry: str = "card",
        grid: str = "",
        compile: bool = False,
        channels_last: bool = False,
    ) -> None:
        self.extractor, self.device, self.geometry = extractor, device, geometry
        self.compile, self.channels_last = compile, channels_last
        self.own_transform = type(extractor).transform is not FeatureExtractor.transform
        self.outputs = Outputs(extractor.card, grid)
        self.embed: Callable[[Any], Any] | None = None

    def prepare(self) -> None:
        """Build the network and put it on its device."""
        extractor = self.extractor
        extractor.device = self.device
        if type(extractor).build is not FeatureExtractor.build:
            module = guarded(extractor, "build", lambda: extractor.module)
            if self.channels_last:
                import torch

                module.to(memory_format=torch.channels_last)
        self.embed = extractor.embed
        if self.compile:
            import torch

            self.embed = torch.compile(extractor.embed)

    def see(self, image: Any) -> np.ndarray:
        """A PIL image as what goes into a batch: uint8 (size, size, 3), or the floats of a model's own transform."""
        extractor = self.extractor
        if not self.own_transform:
            return square(image, extractor.card, self.geometry)
        if self.geometry != "card":
            from PIL import Image

            image = Image.fromarray(square(image, extractor.card, self.geometry))
        return np.asarray(guarded(extractor, "transform", lambda: extractor.transform(image)), dtype=np.float32)

    def __call__(self, images: np.ndarray) -> dict[str, Any]:
        """{readout: tensor} of one batch of what `see` gave, checked against the card."""
        import torch

        if self.embed is None:
            self.prepare()
        card, embed = self.extractor.card, self.embed
        assert embed is not None
        batch = torch.from_numpy(images)
        if self.device.startswith("cuda"):
            batch = batch.pin_memory()
        batch = batch.to(self.device, non_blocking=True)
        if not self.own_transform:
            mean = torch.tensor(card.mean, device=self.device).view(1, 3, 1, 1)
            std = torch.tensor(card.std, device=self.device).view(1, 3, 1, 1)
            batch = ((batch.permute(0, 3, 1, 2).float() / 255.0) - mean) / std
        batch = batch.contiguous(memory_format=torch.channels_last if self.channels_last else torch.contiguous_format)
        kind = self.device.split(":")[0]
        half = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(card.precision)
        with torch.inference_mode(), torch.autocast(kind, dtype=half) if half else contextlib.nullcontext():
            try:
                out = guarded(self.extractor, "embed", lambda: embed(batch))
            except torch.OutOfMemoryError as error:
                raise ModelError(
                    f"{card.name}: out of memory on {self.device} with {len(images)} tiles a batch. Use --batch-size {max(1, len(images) // 2)}."
                ) from error
        return self.outputs.check(out, len(images))


def guarded(extractor: FeatureExtractor, what: str, action: Callable[[], Any]) -> Any:
    """Run a model's own code; an error that is not ours says whose it is."""
    import torch

    try:
        return action()
    except (EosinError, torch.OutOfMemoryError, KeyboardInterrupt):
        raise
    except (Exception, SystemExit) as error:  # a stranger's model may raise anything
        raise ModelError(
            f"{extractor.card.name}: {what} failed with {stranger(error)}. Run with --debug for the traceback."
        ) from error
