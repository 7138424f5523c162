"""Tiny vision transformers, and what torch says of H0-mini's losses when memory and time do not matter."""

from __future__ import annotations

import torch

import eosin
from eosin_h0mini.recipe import H0Mini, RobDino, RobIbot
from eosin_models.timm_models import Timm

RECIPES = {"h0-mini": H0Mini, "rob-dino": RobDino, "rob-ibot": RobIbot}
TINY = {
    "global_size": 32, "steps": 168, "batch_size": 4, "hidden": 16, "dino_bottleneck": 6, "ibot_bottleneck": 5,
    "prototypes": 24, "class_prototypes": 7, "patch_prototypes": 9, "fit_tiles": 16, "fit_patches": 4, "chunk": 5,
}  # fmt: skip


def vit(name="tiny-vit", width=16, patch=8, seed=0, **options) -> Timm:
    shape = {"img_size": 32, "patch_size": patch, "embed_dim": width, "depth": 2, "num_heads": 2}
    return Timm(
        eosin.ModelCard(
            name, kind="timm", arch="vit_tiny_patch16_224", size=32, seed=seed, arch_options={**shape, **options}
        )
    )


def pair(recipe="h0-mini", teacher=None, student=None, double=True, **options):
    """A recipe and its module, for a teacher of width 24 and a student of width 16 unless they are given."""
    known = RECIPES[recipe].card.options
    made = RECIPES[recipe](options={**{k: v for k, v in TINY.items() if k in known}, **options})
    torch.manual_seed(0)
    teacher = teacher or vit("tiny-teacher", 24, seed=1)
    student = student or vit("tiny-student", 16)
    student.module.requires_grad_(True)
    module = made.student(teacher, student).train()
    return made, module.double() if double else module, teacher


def tokens(*shape, seed=0, grad=False):
    made = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return made.requires_grad_(grad)


def readouts(n=3, width=24, grid=(4, 4), seed=0):
    return {"cls": tokens(n, width, seed=seed), "grid": tokens(n, width, *grid, seed=seed + 100)}


def naive(student, prototypes, teacher, teacher_prototypes, centre, rows, temperature, teacher_temperature):
    """sum_i rows_i H(p_i, q_i) with all scores at once."""
    target = torch.softmax((teacher @ teacher_prototypes.T - centre) / teacher_temperature, dim=1)
    return -(rows * (target * torch.log_softmax(student @ prototypes.T / temperature, dim=1)).sum(dim=1)).sum()
