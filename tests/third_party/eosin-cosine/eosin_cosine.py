# eosin_cosine.py: the student's vector must point where the teacher's points
import math

import eosin
from eosin.augment import flip
from eosin.recipe import vector


class Cosine(eosin.DistillationRecipe):
    """1 - cosine of the teacher's vector and a linear map of the student's."""

    card = eosin.RecipeCard(
        "cosine", options={"lr": eosin.Option(1e-3, doc="At the first step; falls to 0 as a cosine.")}
    )

    def student(self, teacher, student):
        import torch

        class Projected(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.backbone = student.module
                self.projector = torch.nn.LazyLinear(teacher.card.dim or 1)

            def forward(self, batch):
                return {"cls": self.projector(vector(student.embed(batch)))}

        module = Projected()
        module(torch.zeros(2, 3, student.card.size, student.card.size))  # the projector learns its width
        return module

    def views(self, tiles, generator):
        return [flip(tiles, generator, 0.5, -1)]

    def loss(self, teacher, student, step):
        import torch

        return (1 - torch.cosine_similarity(vector(teacher[0]), student[0]["cls"])).mean()

    def schedule(self, step):
        return {
            "lr": self.options["lr"] * (1 + math.cos(math.pi * step / self.options["steps"])) / 2,
            "weight_decay": 0.05,
        }


@eosin.hookimpl
def provide_recipes():
    return [Cosine()]
