# eosin_mine.py: a model
import eosin


class Mine(eosin.FeatureExtractor):
    """Mean colour of a 16 x 16 grid: the floor that every real model must beat."""

    card = eosin.ModelCard("mine", dim=768, mpp=0.5)

    def build(self):
        import torch

        return torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(16), torch.nn.Flatten())


@eosin.hookimpl
def provide_models():
    return [Mine()]
