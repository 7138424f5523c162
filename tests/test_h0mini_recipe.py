"""H0-mini, rob-dino, rob-ibot: views, masks, prototypes, whose heads, what a model cannot give."""

from __future__ import annotations

import copy

import pytest
import torch

import eosin
from eosin.errors import MissingError, NotApplicable, UsageError
from eosin_h0mini.heads import Head, head_of, read_heads
from eosin_h0mini.objectives import Constants, Moment, WithLearnedHead, WithPrototypes
from eosin_h0mini.prototypes import gathered, spherical_kmeans
from eosin_h0mini.views import masks
from h0mini_models import RECIPES, TINY, pair, readouts, tokens, vit


def seeded(n=0):
    return torch.Generator().manual_seed(n)


def one_step(recipe, module, teacher, step=3, seed=0):
    """A training step as the engine does it, without the engine: the loss, gradients in place."""
    views = recipe.views(torch.rand(4, 3, 40, 40, generator=seeded(1)), seeded(seed))
    with torch.inference_mode():
        taught = [dict(teacher.embed(v)) for v in views[: recipe.teacher_views]]
    value = recipe.loss(taught, [module(v) for v in views], step)
    value.backward()
    return value.item(), views


# --- all of it


@pytest.mark.parametrize("recipe", list(RECIPES))
@pytest.mark.parametrize("head", ["regression", "prototypes", "learned"])
def test_a_step_reaches_every_parameter(recipe, head):
    hiding = {"mask_probability": 1.0} if recipe == "rob-ibot" else {}
    made, module, teacher = pair(recipe, double=False, teacher_head=head, **hiding)
    made.prepare(module, lambda n: iter([{k: v.float() for k, v in readouts(16, seed=5).items()}]))
    value, views = one_step(made, module, teacher)
    assert value > 0 and [v.shape for v in views] == [(4, 3, 32, 32)] * 2
    without = [n for n, p in module.named_parameters() if p.grad is None or not p.grad.any()]
    if head == "regression" or recipe == "rob-dino":
        assert without == []
    else:  # k biases of attention have no influence but through rounding
        assert [n for n in without if "backbone" not in n] == []
    assert made.variant == f"{recipe}-{head}" and made.variant in made.deviations()[0]
    assert not teacher.module.training and all(p.grad is None for p in teacher.module.parameters())


def test_the_same_step_gives_the_same_numbers_and_another_does_not():
    values = []
    for seed in (0, 0, 1):
        recipe, module, teacher = pair("rob-ibot", double=False, teacher_head="learned")
        values.append(one_step(recipe, module, teacher, seed=seed)[0])
    assert values[0] == values[1] != values[2]


def test_a_copy_of_the_module_has_its_own_network():
    _, module, _ = pair("rob-ibot", double=False)
    other = copy.deepcopy(module)
    assert other.extractor.module is other.backbone is not module.backbone


@pytest.mark.parametrize("head", ["prototypes", "learned"])
def test_students_learn_the_clumps_of_a_teacher_whose_tokens_have_a_large_mean(head):
    torch.manual_seed(0)
    clump = torch.arange(64) % 6
    theirs, ours, mean = torch.randn(6, 24), torch.randn(6, 16), 5 * torch.randn(24)

    def seen(centres):
        return centres[clump] + 0.3 * torch.randn(64, centres.shape[1])

    shape = Head(16, 12, 64, 8), Constants()
    part = WithPrototypes(*shape, 24) if head == "prototypes" else WithLearnedHead(*shape, Head(24, 12, 64, 8))
    part.fit(torch.cat([seen(theirs) for _ in range(4)]) + mean)
    optimiser = torch.optim.AdamW(part.parameters(), lr=1e-3)
    for _ in range(120):
        optimiser.zero_grad()
        teacher, student = [seen(theirs) + mean for _ in range(2)], [part(seen(ours)) for _ in range(2)]
        rows, at = [torch.full((64,), 1 / 64)] * 2, Moment(0.04, memory=0.95)
        part.loss(teacher, student, [(0, 1), (1, 0)], rows, at).backward()
        optimiser.step()
    with torch.no_grad():
        wanted = (part.teach(seen(theirs) + mean) @ part.teacher_prototypes().T - part.centre).argmax(1)
        given = (part(seen(ours)) @ part.head.weights().T).argmax(1)
    assert len(wanted.unique()) >= 5  # collapsed, all tokens would share one
    assert (wanted == given).float().mean() > (0.9 if head == "learned" else 0.5)  # 12 prototypes split the 6 clumps


# --- views


def test_local_crops_are_for_the_student_alone():
    student = vit("any-size", dynamic_img_size=True)
    recipe, module, teacher = pair(double=False, student=student, local_crops=3, local_size=16, teacher_head="learned")
    value, views = one_step(recipe, module, teacher)
    assert [v.shape[-1] for v in views] == [32, 32, 16, 16, 16] and recipe.teacher_views == 2
    assert set(module(views[2])) == {"dino"} and set(module(views[0])) == {"dino", "ibot"}


def test_local_crops_need_a_student_of_any_size():
    with pytest.raises(UsageError, match="tiny-student does not take views of 16 pixels.*dynamic_img_size"):
        pair(local_crops=2, local_size=16)


def test_global_views_that_the_teacher_cannot_take():
    with pytest.raises(UsageError, match="tiny-teacher does not take views of 48 pixels.*global_size"):
        pair(global_size=48, student=vit("any-size", dynamic_img_size=True))


# --- masks


OPTIONS = {"mask_probability": 0.5, "mask_low": 0.1, "mask_high": 0.5, "mask_shape": "block"}


@pytest.mark.parametrize("shape", ["block", "random"])
def test_masks_hide_the_share_that_is_asked_for(shape):
    made = masks(2000, (16, 16), {**OPTIONS, "mask_shape": shape}, seeded())
    share = made.float().mean(dim=(1, 2))
    some = share > 0
    assert abs(float(some.float().mean()) - 0.5) < 0.05
    assert float(share.max()) <= 0.5 and float(share[some].min()) >= (0.1 - 1 / 256 if shape == "random" else 0.01)
    assert abs(float(share[some].mean()) - 0.3) < (0.01 if shape == "random" else 0.03)
    with_neighbour = (made[:, :, 1:] & made[:, :, :-1]).sum() / made.sum()
    assert with_neighbour > 0.6 if shape == "block" else with_neighbour < 0.45
    assert torch.equal(made, masks(2000, (16, 16), {**OPTIONS, "mask_shape": shape}, seeded()))


def test_no_probability_hides_nothing():
    assert not masks(50, (4, 4), {**OPTIONS, "mask_probability": 0.0}, seeded()).any()


@pytest.mark.parametrize("dynamic", [False, True])
def test_hidden_patches_cannot_be_seen(dynamic):
    recipe, module, _ = pair("rob-ibot", student=vit("s", dynamic_img_size=dynamic))
    module.eval()
    a = tokens(2, 3, 32, 32)
    b = a.clone()
    b[:, :, 8:16, :8] += 5  # the patch in row 1, column 0
    mask = torch.zeros(2, 4, 4, dtype=torch.bool)
    mask[:, 1, 0] = True

    def seen(x, hide):
        module.masks = [mask] if hide else []
        return module(x)["ibot"].detach()

    assert torch.equal(seen(a, True), seen(b, True))
    assert not torch.allclose(seen(a, False), seen(b, False))
    assert not module.masks and not torch.equal(seen(a, True), seen(a, False))


def test_hiding_needs_a_patch_embedding():
    class Pooling(eosin.FeatureExtractor):
        card = eosin.ModelCard("pooling", dim=3)

        def build(self):
            return torch.nn.AdaptiveAvgPool2d(4)

        def embed(self, batch):
            grid = self.module(batch)
            return {"cls": grid.mean((2, 3)), "grid": grid}

    with pytest.raises(NotApplicable, match="pooling has no patch embedding.*h0-mini or rob-dino"):
        pair("rob-ibot", student=Pooling())


# --- prototypes


def test_prototypes_are_unit_vectors_and_find_the_clumps():
    directions = torch.nn.functional.normalize(torch.randn(6, 20, generator=seeded(1)), dim=1)
    of = torch.arange(600) % 6
    x = directions[of] + 0.03 * torch.randn(600, 20, generator=seeded(2))
    made = spherical_kmeans(x * torch.rand(600, 1, generator=seeded(3)).add(0.1), 6, rounds=20, chunk=77)
    assert torch.allclose(made.norm(dim=1), torch.ones(6), atol=1e-6)
    chosen = (torch.nn.functional.normalize(x, dim=1) @ made.T).argmax(1)
    assert (chosen.bincount(minlength=6) > 0).all()
    cosine = (torch.nn.functional.normalize(x, dim=1) * made[chosen]).sum(1)
    assert cosine.mean() > 0.95


def test_more_rounds_serve_the_tokens_better():
    x = torch.nn.functional.normalize(torch.randn(500, 8, generator=seeded(1)), dim=1)
    served = [float((x @ spherical_kmeans(x, 12, r).T).amax(1).mean()) for r in (0, 1, 3, 20)]
    assert served == sorted(served) and served[-1] > served[0] + 0.02


def test_too_few_tokens_for_the_prototypes():
    with pytest.raises(UsageError, match="12 prototypes cannot be fitted to 5 tokens.*fit_tiles"):
        spherical_kmeans(torch.randn(5, 3), 12, 2)


def test_prepare_fits_both_objectives_on_the_teacher_s_tokens():
    recipe, module, _ = pair(teacher_head="prototypes")
    asked = []

    def taught(n):
        asked.append(n)
        yield from (readouts(8, seed=s) for s in (1, 2))

    before = module.dino.prototypes.clone()
    recipe.prepare(module, taught)
    cls = torch.cat([readouts(8, seed=s)["cls"] for s in (1, 2)])
    assert asked == [16] and torch.allclose(module.dino.mean, cls.mean(0))
    assert not torch.equal(before, module.dino.prototypes)
    again, other, _ = pair(teacher_head="prototypes")
    again.prepare(other, taught)
    for name in ("dino.prototypes", "ibot.prototypes"):
        found = module.state_dict()[name]
        assert torch.allclose(found.norm(dim=1), torch.ones(len(found), dtype=found.dtype))
        assert torch.equal(found, other.state_dict()[name])


def test_alone_gathering_is_nothing():
    x = tokens(3, 2)
    assert torch.equal(gathered(x), x)


# --- whose heads


def test_only_a_file_of_heads_makes_plain_h0_mini(tmp_path):
    from test_h0mini_losses import with_file

    recipe, _, _ = with_file(tmp_path)
    assert recipe.variant == "h0-mini"
    assert recipe.deviations()[0] == "The teacher's dino head has 30 prototypes, not 24; so has the student's."
    recipe, _, _ = with_file(tmp_path, prototypes=30)
    assert [d for d in recipe.deviations() if "head" in d.replace("heads together", "")] == []
    assert RECIPES["h0-mini"]().variant == "h0-mini-regression"


@pytest.mark.parametrize("style", ["weight_", "parametrizations.weight.original", "plain"])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_heads_are_read_as_dinov2_names_them(tmp_path, style, suffix):
    from safetensors.torch import save_file

    head = Head(6, 9, 8, 4)
    head.length.data.uniform_(0.5, 2)
    state = {f"dino_head.{n}": t for n, t in head.state_dict().items() if n.startswith("mlp")}
    if style == "plain":
        state["dino_head.last_layer.weight"] = head.weights().detach()
    else:
        names = "gv" if style == "weight_" else "01"
        state[f"dino_head.last_layer.{style}{names[0]}"] = head.length.data
        state[f"dino_head.last_layer.{style}{names[1]}"] = 3 * head.direction.data
    path = tmp_path / f"heads.{suffix}"
    torch.save({"teacher": state}, path) if suffix == "pth" else save_file(state, path)
    found = read_heads(str(path))
    assert found["ibot"] is found["dino"]
    made = head_of(found["dino"], 6)
    x = torch.randn(5, 6)
    assert torch.allclose(made(x) @ made.weights().T, head(x) @ head.weights().T, atol=1e-6)


def test_files_that_are_no_heads(tmp_path):
    with pytest.raises(MissingError, match="no such file"):
        pair(teacher_head=f"path:{tmp_path / 'none.pth'}")
    torch.save({"blocks.0.weight": torch.ones(2)}, tmp_path / "trunk.pth")
    with pytest.raises(UsageError, match="no tensor named dino_head.*blocks.0.weight"):
        pair(teacher_head=f"path:{tmp_path / 'trunk.pth'}")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(UsageError, match="cannot be read as plain tensors"):
        pair(teacher_head=f"path:{tmp_path / 'text.pth'}")
    torch.save({"dino_head.mlp.0.weight": torch.ones(2, 2)}, tmp_path / "part.pth")
    with pytest.raises(UsageError, match="not DINOv2's"):
        pair(teacher_head=f"path:{tmp_path / 'part.pth'}")
    state = {f"dino_head.{n}": t for n, t in Head(7, 9, 8, 4).state_dict().items() if n.startswith("mlp")}
    torch.save({**state, "dino_head.last_layer.weight": torch.ones(9, 4)}, tmp_path / "other.pth")
    with pytest.raises(UsageError, match="width 7, the teacher's have 24"):
        pair(teacher_head=f"path:{tmp_path / 'other.pth'}")


@pytest.mark.parametrize("word", ["path", "path:", "kmeans", "learned:x"])
def test_words_that_are_no_teacher_head(word):
    with pytest.raises(UsageError, match="not one of path:FILE"):
        RECIPES["h0-mini"](options={"teacher_head": word})


# --- what models cannot give


class Bare(eosin.FeatureExtractor):
    """Gives the readouts that it is told to, from a small convolution."""

    def __init__(self, names, side=4):
        self.names, self.side = names, side
        super().__init__(eosin.ModelCard("bare", dim=24))

    def build(self):
        return torch.nn.Sequential(torch.nn.Conv2d(3, 24, 3), torch.nn.AdaptiveAvgPool2d(self.side))

    def embed(self, batch):
        grid = self.module(batch)
        found = {"cls": grid.mean((2, 3)), "pooled": grid.amax((2, 3)), "grid": grid}
        return {n: found[n] for n in self.names} if self.names else found["pooled"]


@pytest.mark.parametrize("recipe", ["h0-mini", "rob-ibot"])
def test_ibot_needs_patch_tokens(recipe):
    with pytest.raises(NotApplicable, match="bare gives none: only pooled. Use rob-dino"):
        pair(recipe, teacher=Bare(()))
    with pytest.raises(NotApplicable, match="bare gives none: only cls"):
        pair(recipe, student=Bare(("cls",)))


def test_rob_dino_takes_models_with_one_output():
    recipe, module, teacher = pair("rob-dino", double=False, teacher=Bare(()), teacher_head="learned")
    views = recipe.views(torch.rand(4, 3, 40, 40), seeded())
    with torch.no_grad():
        taught = [{"pooled": teacher.embed(v)} for v in views]
    assert recipe.loss(taught, [module(v) for v in views], 0) > 0


def test_a_teacher_without_class_token_is_read_by_its_pooled_output():
    recipe, module, teacher = pair(double=False, teacher=Bare(("pooled", "grid")))
    assert one_step(recipe, module, teacher)[0] > 0
    with pytest.raises(NotApplicable, match="no cls and no pooled"):
        pair(teacher=Bare(("grid",)))


def test_grids_of_unequal_size_are_interpolated_and_it_is_said():
    recipe, module, teacher = pair(double=False, teacher=Bare(("cls", "grid"), side=6))
    assert any(
        "6 x 6 patch tokens are interpolated (bilinear) to the student's 4 x 4" in d for d in recipe.deviations()
    )
    assert one_step(recipe, module, teacher)[0] > 0
    assert not any("interpolated" in d for d in pair()[0].deviations())


def test_every_option_is_said():
    for made in RECIPES.values():
        for name, option in made.card.options.items():
            assert option.doc.endswith("."), name
            assert name in TINY or option.default is not None
