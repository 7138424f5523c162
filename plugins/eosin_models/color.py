"""The floor: hand-made numbers of colour and texture, no weights."""

import eosin

# Optical density of haematoxylin, eosin and their residual (Ruifrok and Johnston 2001).
STAINS = ((0.650, 0.704, 0.286), (0.072, 0.990, 0.105), (0.268, 0.570, 0.776))


class ColorStats(eosin.FeatureExtractor):
    """Of RGB and of haematoxylin/eosin/residual density: mean, deviation, 16-bin histogram; and gradient strengths.

    What it reaches, a colour profile of the laboratory can reach: a model that is not above it has learnt no tissue.
    """

    card = eosin.ModelCard(
        "color-stats",
        dim=113,
        size=96,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        readout="pooled",
        readouts=("pooled",),
        version=1,
        params=0,
        licence="Apache-2.0",
        seen=("nothing",),
        title="Colour and texture statistics",
        description="Hand-made colour, stain and gradient numbers: the floor that every real model must beat.",
    )

    def embed(self, batch):
        """(n, 3, h, w) in 0..1 to (n, 113)."""
        import torch

        density = -torch.log((batch * 255).clamp(min=1) / 255)
        unmix = torch.linalg.inv(torch.tensor(STAINS, device=batch.device))
        amounts = torch.einsum("nchw,cs->nshw", density, unmix)
        planes = torch.cat([batch, (amounts / 2).clamp(0, 1)], dim=1).flatten(2)
        grey = batch.mean(dim=1)
        steps = [_step(grey, s) for s in (1, 2, 4, 8, 16)]
        return torch.cat(
            [planes.mean(2), planes.std(2), _histograms(planes, 16).flatten(1), torch.stack(steps, dim=1)], dim=1
        )


def _histograms(planes, bins):
    """(n, c, pixels) in 0..1 to shares (n, c, bins), all at once."""
    import torch

    n, c, pixels = planes.shape
    at = (planes * bins).long().clamp(0, bins - 1) + bins * torch.arange(n * c, device=planes.device).view(n, c, 1)
    return torch.bincount(at.flatten(), minlength=n * c * bins).view(n, c, bins).float() / pixels


def _step(grey, s):
    """Mean absolute difference of pixels s apart, down and across."""
    return (grey[:, s:, :] - grey[:, :-s, :]).abs().mean(dim=(1, 2)) + (grey[:, :, s:] - grey[:, :, :-s]).abs().mean(
        dim=(1, 2)
    )
