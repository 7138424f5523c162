"""H0-mini's schedules at every step against closed forms, and which parameters learn how fast."""

from __future__ import annotations

import math

import numpy as np
import pytest

from eosin.errors import UsageError
from eosin_h0mini import schedules
from h0mini_models import RECIPES, pair, vit

FULL = RECIPES["h0-mini"]()


def curve(start, end, steps, warmup=0):
    """As facebookresearch/dinov2's CosineScheduler fills its array."""
    i = np.arange(steps - warmup)
    falling = end + 0.5 * (start - end) * (1 + np.cos(np.pi * i / len(i)))
    return np.concatenate([np.linspace(0, start, warmup), falling])


def test_the_paper_s_numbers_are_the_defaults():
    o = FULL.options
    assert (o["steps"], o["batch_size"], o["prototypes"]) == (105_000, 2048, 131_072)
    assert (o["dino_bottleneck"], o["ibot_bottleneck"]) == (384, 256)
    assert (o["warmup_epochs"], o["temperature_epochs"], o["weight_decay_end"]) == (16, 30, 0.4)
    assert o["steps"] / o["epochs"] == 1250


@pytest.mark.parametrize("steps", [84, 1000])
def test_every_step_of_a_run(steps):
    recipe = RECIPES["h0-mini"](options={"steps": steps, "batch_size": 512})
    found = [recipe.schedule(i) for i in range(steps)]
    lr = 0.004 * math.sqrt(0.5)
    assert np.allclose([f["lr"] for f in found], curve(lr, 1e-6, steps, round(16 * steps / 84)), rtol=1e-12, atol=0)
    assert np.allclose([f["weight_decay"] for f in found], curve(0.04, 0.4, steps), rtol=1e-12)
    assert np.allclose([f["ema"] for f in found], curve(0.992, 1.0, steps), rtol=1e-12)
    assert {f["clip"] for f in found} == {3.0}
    n = round(30 * steps / 84)
    warm = np.concatenate([np.linspace(0.04, 0.07, n), np.full(steps - n, 0.07)])
    assert np.allclose([recipe.moment(i).temperature for i in range(steps)], warm, rtol=1e-12)
    assert [recipe.moment(i).standing for i in range(steps)] == [i < round(steps / 84) for i in range(steps)]


@pytest.mark.parametrize(
    "step, lr", [(0, 0.0), (19_999, 0.004 * 2**0.5), (20_000, 0.004 * 2**0.5), (105_000, 1e-6), (200_000, 1e-6)]
)
def test_the_full_run_at_its_corners(step, lr):
    assert math.isclose(FULL.schedule(step)["lr"], lr, rel_tol=1e-12)


def test_a_ramp_of_one_step_and_of_none():
    assert [schedules.ramp(i, 1, 2.0, 5.0) for i in range(3)] == [2.0, 5.0, 5.0]
    assert schedules.ramp(0, 0, 2.0, 5.0) == 5.0


def test_releasing_the_student_keeps_no_average():
    assert "ema" not in RECIPES["h0-mini"](options={"released": "student"}).schedule(5)


def test_a_warm_up_longer_than_the_run():
    with pytest.raises(UsageError, match="30 epochs is not shorter than the run of 10"):
        RECIPES["h0-mini"](options={"epochs": 10})


# --- groups


def scales(recipe, module):
    names = {id(p): n for n, p in module.named_parameters()}
    return {names[id(p)]: (g["lr_scale"], g["decay_scale"]) for g in recipe.groups(module) for p in g["params"]}


def test_layers_learn_more_slowly_the_lower_they_are():
    recipe, module, _ = pair("rob-ibot", teacher_head="learned", student=vit(reg_tokens=2, init_values=1e-5))
    found = scales(recipe, module)
    assert set(found) == {n for n, p in module.named_parameters() if p.requires_grad}
    wanted = {
        "backbone.cls_token": (0.9**3, 1), "backbone.pos_embed": (0.9**3, 1), "backbone.reg_token": (0.9**3, 1),
        "mask_token": (0.9**3, 1),
        "backbone.patch_embed.proj.weight": (0.2 * 0.9**3, 1), "backbone.patch_embed.proj.bias": (0.2 * 0.9**3, 0),
        "backbone.blocks.0.attn.qkv.weight": (0.9**2, 1), "backbone.blocks.0.ls1.gamma": (0.9**2, 0),
        "backbone.blocks.1.mlp.fc1.bias": (0.9, 0), "backbone.blocks.1.norm1.weight": (0.9, 0),
        "backbone.norm.weight": (1, 0),
        "dino.head.mlp.0.weight": (1, 1), "ibot.head.mlp.0.bias": (1, 0), "ibot.learner.direction": (1, 1),
    }  # fmt: skip
    for name, (lr, decay) in wanted.items():
        assert math.isclose(found[name][0], lr, rel_tol=1e-12) and found[name][1] == decay, name


def test_a_network_without_blocks_learns_at_one_rate():
    from eosin_h0mini.groups import groups

    made = groups([("backbone.stem.weight", 1), ("backbone.stem.bias", 2), ("dino.head.length", 3)], 0.9, 0.2)
    assert made == [
        {"params": [1, 3], "lr_scale": 1.0, "decay_scale": 1.0},
        {"params": [2], "lr_scale": 1.0, "decay_scale": 0.0},
    ]
