"""G2L's recipe: losses and gradients against float64 sums written out, schedules, views, the stop rule's readings."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import eosin
from eosin.errors import NotApplicable, UsageError
from eosin.recipe import vector
from eosin_g2l.recipe import G2L, exceeding
from helpers import bench

RECORDED = Path(__file__).parent / "g2l_loss.json"


class Tiny(eosin.FeatureExtractor):
    """Means of a tile's channels through a linear layer, under the readouts that it is told to give."""

    def __init__(self, name: str, dim: int, *readouts: str) -> None:
        super().__init__(eosin.ModelCard(name, dim=dim, size=8))
        self.dim, self.readouts = dim, readouts

    def build(self):
        return torch.nn.Linear(3, self.dim)

    def embed(self, batch):
        out = self.module(batch.mean(dim=(2, 3)))
        return {name: out + i for i, name in enumerate(self.readouts)} if self.readouts else out


def features(seed: int, n: int = 7, d: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).normal(1.0, 2.0, (n, d))


def normal(x: np.ndarray, eps: float) -> tuple[np.ndarray, np.ndarray]:
    """Batch norm, and the standard deviation that it divided by."""
    scale = np.sqrt(x.var(axis=0) + eps)
    return (x - x.mean(axis=0)) / scale, scale


def through_norm(gradient: np.ndarray, normed: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """The gradient before a batch norm from the one after it."""
    return (gradient - gradient.mean(axis=0) - normed * (gradient * normed).mean(axis=0)) / scale


def resnet(z: np.ndarray, t: np.ndarray, o: dict) -> tuple[float, np.ndarray]:
    """Value and gradient of log sum |bn(z) - bn(t)|^alpha."""
    eps = 1e-4 if o["eps"] is None else o["eps"]
    p, scale = normal(z, eps) if o["normalise"] != "none" else (z, None)
    q = normal(t, eps)[0] if o["normalise"] == "both" else t
    power = np.abs(p - q) ** o["alpha"]
    slope = o["alpha"] * np.abs(p - q) ** (o["alpha"] - 1) * np.sign(p - q)
    if o["loss"] == "log-sum":
        value, g = math.log(power.sum()), slope / power.sum()
    else:
        value, g = float(np.mean(np.log(power.sum(1)))), slope / power.sum(1, keepdims=True) / len(z)
    return value, g if scale is None else through_norm(g, p, scale)


def deit(z: np.ndarray, t: np.ndarray, o: dict) -> tuple[float, np.ndarray]:
    """Value and gradient of log(sum |diag corr - 1|^alpha + 1e-5)."""
    eps = 0.0 if o["eps"] is None else o["eps"]
    (p, scale), (q, _) = normal(z, eps), normal(t, eps)
    short = (p * q).mean(axis=0) - 1
    inside = (np.abs(short) ** o["alpha"]).sum() + 1e-5
    slope = o["alpha"] * np.abs(short) ** (o["alpha"] - 1) * np.sign(short) / inside
    return math.log(inside), through_norm(slope * q / len(z), p, scale)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"normalise": "student"},
        {"normalise": "none"},
        {"alpha": 2.0, "eps": 0.0},
        {"loss": "log-sum-per-tile"},
        {"loss": "log-sum-per-tile", "normalise": "none", "alpha": 3.0},
        {"variant": "deit"},
        {"variant": "deit", "alpha": 2.0, "eps": 1e-3},
    ],
    ids=lambda o: " ".join(f"{k}={v}" for k, v in o.items()) or "default",
)
def test_losses_and_gradients_are_those_written_out(options):
    recipe, z, t = G2L(options=options), features(1), features(2)
    learned = torch.tensor(z, requires_grad=True)
    loss = recipe.loss([{"cls": torch.tensor(t)}], [{"projected": learned}], 0)
    loss.backward()
    value, gradient = (deit if recipe.options["variant"] == "deit" else resnet)(z, t, recipe.options)
    assert math.isclose(loss.item(), value, rel_tol=1e-12)
    np.testing.assert_allclose(learned.grad.numpy(), gradient, rtol=1e-8, atol=1e-12)


def test_the_default_is_the_papers_equation_with_the_references_norms():
    z, t = features(3), features(4)
    p, q = (torch.nn.BatchNorm1d(5, eps=1e-4, affine=False).double()(torch.tensor(x)) for x in (z, t))
    expected = torch.log((p - q).abs().pow(4).sum())
    torch.testing.assert_close(G2L().loss([{"cls": torch.tensor(t)}], [{"projected": torch.tensor(z)}], 0), expected)


def test_the_papers_numbers_are_the_defaults():
    o = G2L().options
    assert (o["batch_size"], o["alpha"], o["crop"], o["kernel"]) == (32, 4, 224, 9)
    assert (o["lr"], o["lr_end"], o["weight_decay"], o["weight_decay_end"]) == (1e-4, 1e-6, 0.05, 0.5)
    assert (o["flip"], o["jitter"], o["blur"]) == (0.5, 0.5, 0.1)
    assert [o[k] for k in ("brightness", "contrast", "saturation", "hue")] == [0.15, 0.15, 0.1, 0.05]
    assert (o["window"], o["patience"], o["warmup"], o["readout"]) == (100, 10, 0, "cls")
    assert all(option.doc for option in G2L.card.options.values())


def test_schedules_are_half_cosines_from_the_first_step_to_the_last():
    recipe = G2L(options={"steps": 101})
    for step in range(101):
        half = (1 + math.cos(math.pi * step / 100)) / 2
        values = recipe.schedule(step)
        assert set(values) == {"lr", "weight_decay"}
        assert math.isclose(values["lr"], 1e-6 + 99e-6 * half, rel_tol=1e-12)
        assert math.isclose(values["weight_decay"], 0.5 - 0.45 * half, rel_tol=1e-12)
    assert math.isclose(recipe.schedule(0)["lr"], 1e-4) and math.isclose(recipe.schedule(0)["weight_decay"], 0.05)
    assert math.isclose(recipe.schedule(100)["lr"], 1e-6) and recipe.schedule(100)["weight_decay"] == 0.5
    assert G2L(options={"steps": 1}).schedule(0)["lr"] == recipe.schedule(0)["lr"]


def test_warm_up_rises_in_a_line_and_the_cosine_follows():
    recipe = G2L(options={"steps": 111, "warmup": 10, "clip": 3})
    for step in range(10):
        assert math.isclose(recipe.schedule(step)["lr"], 1e-4 * (step + 1) / 11)
    for step in range(10, 111):
        half = (1 + math.cos(math.pi * (step - 10) / 100)) / 2
        assert math.isclose(recipe.schedule(step)["lr"], 1e-6 + 99e-6 * half, rel_tol=1e-12)
    assert recipe.schedule(5)["clip"] == 3.0
    assert recipe.schedule(5)["weight_decay"] == 0.5 - 0.45 * (1 + math.cos(math.pi * 5 / 110)) / 2


def views(n: int, side: int = 8, **options: float) -> tuple[torch.Tensor, torch.Tensor]:
    """n equal tiles of side 10 and their views, with everything off that is not named."""
    off = {"flip": 0.0, "jitter": 0.0, "blur": 0.0, "crop": side} | options
    tile = torch.rand(1, 3, 10, 10, generator=torch.Generator().manual_seed(3)) * 0.5 + 0.25
    (made,) = G2L(options=off).views(tile.expand(n, -1, -1, -1), torch.Generator().manual_seed(1))
    return tile, made


def same(made: torch.Tensor, tile: torch.Tensor) -> torch.Tensor:
    return (made - tile).abs().amax(dim=(1, 2, 3)) < 1e-6


def test_crops_lie_anywhere_in_the_tile():
    tile, made = views(900)
    windows = torch.stack([tile[0, :, i : i + 8, j : j + 8] for i in range(3) for j in range(3)])
    counts = torch.stack([same(made, window).sum() for window in windows])
    assert counts.sum() == 900 and counts.min() > 60 and counts.max() < 140


def test_flips_jitter_and_blur_happen_as_often_as_the_paper_says():
    tile, made = views(4000, 10, flip=0.5)
    kinds = [same(made, tile.flip(axes)).float().mean() for axes in ((), (-1,), (-2,), (-1, -2))]
    assert all(abs(k - 0.25) < 0.03 for k in kinds) and math.isclose(sum(kinds), 1, rel_tol=1e-5)
    tile, made = views(4000, 10, jitter=0.5)
    assert abs(same(made, tile).float().mean() - 0.5) < 0.04
    tile, made = views(4000, 10, blur=0.1)
    untouched = same(made, tile).float().mean()
    assert 0.88 < untouched < 0.94, "90 %, and those whose sigma is so small that nothing is seen"


def test_brightness_stays_in_its_range():
    tile, made = views(3000, 10, jitter=1.0, contrast=0.0, saturation=0.0, hue=0.0)
    factor = (made / tile).mean(dim=(1, 2, 3))
    assert 0.849 < factor.min() < 0.853 and 1.147 < factor.max() < 1.151 and abs(factor.mean() - 1) < 0.01


def recorded() -> list[float]:
    """Losses of 450 steps of this recipe on colon and lung tissue (LC25000): efficientnet-lite0 to a random ViT, crops
    of 64 px, batches of 16, lr 1e-3."""
    return json.loads(RECORDED.read_text())


def first(options: dict, history: list[float]) -> int | None:
    recipe = G2L(options=options)
    return next((n for n in range(len(history) + 1) if recipe.stop(history[:n])), None)


def test_a_healthy_run_stops_within_tens_of_steps_in_one_reading_and_never_in_the_other():
    history = recorded()
    assert np.mean(history[-20:]) < np.mean(history[:20]) - 0.6, "it learned"
    assert first({"stop": "cumulative"}, history) == 153
    assert first({}, history) is first({"stop": "off"}, history) is None


def test_a_run_that_diverges_is_stopped():
    history = recorded()[:200] + [12.0 + 0.1 * i for i in range(50)]
    assert first({"stop": "consecutive"}, history) == 211, "eleven in a row are more than ten"
    assert first({"stop": "off"}, history) is None
    steps = [1.0 - 0.01 * i for i in range(150)] + [5.0] * 9
    assert (
        first({"stop": "consecutive", "patience": 3}, steps)
        == first({"stop": "cumulative", "patience": 3}, steps)
        == 154
    )


def test_a_plateau_is_left_after_some_thousands_of_steps():
    """What the option's text says of `consecutive`."""
    waits = []
    for seed in range(40):
        above = np.array(exceeding(np.random.default_rng(seed).normal(size=30_000), 100))
        in_a_row = np.convolve(above, np.ones(11, int), "valid") == 11
        waits.append(in_a_row.argmax() if in_a_row.any() else 30_000)
    assert 1000 < np.median(waits) < 5000


def test_a_loss_is_compared_with_the_window_before_it():
    history = recorded()
    by_hand = [history[t] > np.mean(history[t - 100 : t]) for t in range(100, len(history))]
    assert exceeding(history, 100) == by_hand
    assert exceeding(history[:100], 100) == []
    assert not any(exceeding([0.1] * 300, 100)), "a constant loss exceeds nothing"
    assert first({"stop": "cumulative", "window": 5, "patience": 0}, [1.0] * 5 + [2.0]) == 6


def test_the_student_is_projected_to_the_teachers_dimensions():
    recipe, student = G2L(options={"crop": 8}), Tiny("hibou-l", 4, "mean", "cls")
    module = recipe.student(Tiny("h-optimus-0", 6, "cls"), student)
    assert module.backbone is student.module
    batch = torch.rand(3, 3, 8, 8)
    out = module(batch)["projected"]
    torch.testing.assert_close(out, module.projector(student.embed(batch)["cls"]))
    assert out.shape == (3, 6) and recipe.deviations() == []
    assert {n for n, _ in module.named_parameters()} == {
        f"{part}.{kind}" for part in ("backbone", "projector") for kind in ("weight", "bias")
    }


@pytest.mark.parametrize("readouts", [("pooled",), ()], ids=["named", "bare"])
def test_a_teacher_without_a_class_token_is_matched_by_its_pooled_output_and_that_is_said(readouts):
    recipe, teacher = G2L(options={"crop": 8}), Tiny("conv", 6, *readouts)
    module = recipe.student(teacher, Tiny("hibou-l", 4, "cls"))
    batch = torch.rand(3, 3, 8, 8)
    out = teacher.embed(batch)
    taught = out if readouts else {"pooled": out}
    with_cls = recipe.loss([{"cls": taught["pooled"]}], [module(batch)], 0)
    assert torch.equal(recipe.loss([taught], [module(batch)], 0), with_cls)
    assert recipe.deviations() == [
        "The teacher is conv; the paper's is h-optimus-0.",
        "conv has no cls: its pooled output is used.",
    ]


def test_models_that_cannot_be_matched_are_named():
    with pytest.raises(NotApplicable, match="no cls and no pooled readout among mean"):
        G2L(options={"crop": 8}).student(Tiny("a", 4, "mean"), Tiny("b", 4, "cls"))
    narrow = Tiny("narrow", 4, "cls")
    narrow.build = lambda: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 4))
    narrow.embed = lambda batch: narrow.module(batch)
    with pytest.raises(UsageError, match="narrow cannot see tiles of 12 px.*crop=8"):
        G2L(options={"crop": 12}).student(Tiny("a", 4, "cls"), narrow)


def test_options_that_contradict_each_other_are_refused():
    for options in ({"normalise": "none"}, {"loss": "log-sum-per-tile"}):
        with pytest.raises(UsageError, match="variant=deit"):
            G2L(options={"variant": "deit", **options})
    for options in ({"kernel": 8}, {"sigma_low": 3}, {"sigma_low": 0}):
        with pytest.raises(UsageError, match="odd kernel"):
            G2L(options=options)
    with pytest.raises(UsageError, match="does not fit a crop of 8"):
        G2L(options={"kernel": 17, "crop": 8})
    with pytest.raises(UsageError, match="normalise=teacher is not one of"):
        G2L(options={"normalise": "teacher"})


def test_a_map_is_no_vector():
    with pytest.raises(NotApplicable, match="grid is a map .* Choose cls"):
        vector({"grid": torch.zeros(2, 4, 3, 3), "cls": torch.zeros(2, 4)}, "grid")


def test_biases_decay_as_in_adamw_itself_unless_asked_otherwise():
    module = torch.nn.Linear(3, 2)
    (group,) = G2L().groups(module)
    assert len(group["params"]) == 2
    decayed, kept = G2L(options={"decayed": "matrices"}).groups(module)
    assert decayed["params"] == [module.weight] and kept == {"params": [module.bias], "decay_scale": 0.0}


def test_it_learns():
    torch.manual_seed(0)
    recipe = G2L(options={"steps": 60, "crop": 8, "lr": 0.02})
    teacher, student = Tiny("t", 6, "cls"), Tiny("s", 4, "cls")
    student.module.requires_grad_(True)
    module, tiles = recipe.student(teacher, student), torch.rand(16, 3, 10, 10)
    optimizer, losses = torch.optim.AdamW(recipe.groups(module)), []
    for step in range(60):
        (view,) = recipe.views(tiles, torch.Generator().manual_seed(step))
        loss = recipe.loss([teacher.embed(view)], [module(view)], step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.param_groups[0].update(lr=recipe.schedule(step)["lr"])
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 3


def test_it_is_listed():
    assert "g2l" in [row["recipe"] for row in bench("list", "recipes", "--json").json["recipes"]]
    assert "2510.11176" in G2L.card.paper
