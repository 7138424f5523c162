"""The two networks that turn a frozen model's grid into logits a pixel; state dicts carry eva's names.

Both take features (n, d, h, w) and the normalised image (n, 3, H, W), and give logits (n, classes, H, W).
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


def _conv(inside: int, outside: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inside, outside, 3, padding=1), nn.BatchNorm2d(outside), nn.ReLU(inplace=True))


def _upsampled(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return F.interpolate(x, like.shape[-2:], mode="bilinear")


class ConvDecoderWithImage(nn.Module):
    """The leaderboard's decoder: the features, brought up to the image's size, are joined with its three colours.

    kaiko-ai/eva, vision/models/networks/decoders/segmentation/semantic/with_image.py; 471,429 parameters for d = 768
    and 5 classes.
    """

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__()
        self._layers = nn.Sequential(nn.Upsample(scale_factor=2), _conv(in_features, 64))
        self.image_block = nn.Sequential(_conv(64 + 3, 32), _conv(32, 32))
        self.classifier = nn.Conv2d(32, num_classes, 1)

    def forward(self, features: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        up = _upsampled(self._layers(features), image)
        return self.classifier(self.image_block(torch.cat([up, image], dim=1)))


class ConvDecoderMS(nn.Module):
    """The decoder of eva's offline configurations: features alone; of the image it takes the size.

    kaiko-ai/eva, vision/models/networks/decoders/segmentation; 445,317 parameters for d = 768 and 5 classes.
    """

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__()
        first, last = (nn.Conv2d(i, o, 3, padding=1) for i, o in ((in_features, 64), (64, num_classes)))
        self._layers = nn.Sequential(nn.Upsample(scale_factor=2), first, nn.Upsample(scale_factor=2), last)

    def forward(self, features: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        return _upsampled(self._layers(features), image)
