"""H0-mini's losses against plain float64 references, values and gradients; no scores are ever held all at once."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from eosin_h0mini import chunked
from eosin_h0mini.heads import Head
from eosin_h0mini.objectives import EPS, Constants, Moment, Regression, Scores, WithHead, WithLearnedHead
from h0mini_models import naive, pair, readouts, tokens

AT = Moment(temperature=0.05)


def sides(n=11, k=40, b=6, c=8):
    rows = torch.linspace(0.1, 1, n, dtype=torch.float64)
    return (
        tokens(n, b, seed=1, grad=True), tokens(k, b, seed=2, grad=True), tokens(n, c, seed=3), tokens(k, c, seed=4),
        tokens(k, seed=5), rows,
    )  # fmt: skip


# --- the chunked cross-entropy


@pytest.mark.parametrize("chunk", [1, 4, 11, 100])
def test_chunked_equals_naive(chunk):
    args = sides()
    plain = naive(*args, 0.1, 0.05)
    ours = chunked.cross_entropy(*args, 0.1, 0.05, chunk)
    assert torch.isclose(ours, plain, rtol=1e-12)
    for a, b in zip(torch.autograd.grad(3 * ours, args[:2]), torch.autograd.grad(3 * plain, args[:2])):
        assert torch.allclose(a, b, rtol=1e-10, atol=1e-12)


def test_its_gradient_is_that_of_finite_differences():
    student, prototypes, *rest = sides(5, 7, 3, 4)
    along = tokens(5, 3, seed=8), tokens(7, 3, seed=9)

    def value(h):
        return chunked.cross_entropy(student + h * along[0], prototypes + h * along[1], *rest, 0.5, 0.3, 2)

    slopes = torch.autograd.grad(value(0.0), (student, prototypes))
    wanted = (value(1e-5) - value(-1e-5)) / 2e-5
    assert torch.isclose(sum((a * b).sum() for a, b in zip(slopes, along)), wanted, rtol=1e-7)


def test_a_second_backward_pass_is_refused():
    args = sides()
    value = chunked.cross_entropy(*args, 0.1, 0.05)
    value.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="inplace"):
        (2 * value).backward()


def test_no_tokens_are_worth_nothing():
    student, prototypes, teacher, *rest = sides()
    args = student[:0], prototypes, teacher[:0], *rest[:-1], rest[-1][:0]
    value = chunked.cross_entropy(*args, 0.1, 0.05)
    assert value == 0
    assert not torch.autograd.grad(value, prototypes)[0].any()


def test_large_scores_do_not_overflow():
    student, prototypes, *rest = [t.float() for t in sides()]
    student = (500 * student).detach().requires_grad_()
    value = chunked.cross_entropy(student, prototypes, *rest, 0.1, 0.05, 3)
    value.backward()
    assert torch.isfinite(value) and torch.isfinite(student.grad).all()


class Largest(TorchDispatchMode):
    """Remembers how many values the largest tensor had that any operation made."""

    size = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, (tuple, list)) else [out]:
            self.size = max(self.size, x.numel() if isinstance(x, torch.Tensor) else 0)
        return out


def test_never_more_than_a_chunk_of_scores():
    args = sides(n=64, k=1000)
    with Largest() as seen:
        chunked.cross_entropy(*args, 0.1, 0.05, 4).backward()
    assert seen.size == 1000 * 8  # prototypes and the teacher's; a chunk of scores is 4,000 and all of them 64,000


# --- the objectives of the paper


def scores_of(head, x):
    return head(x) @ (head.length * F.normalize(head.direction, dim=1)).T


def with_file(tmp_path, recipe="h0-mini", **options):
    state = {}
    for part, seed, bottleneck in (("dino", 3, 6), ("ibot", 4, 5)):
        torch.manual_seed(seed)
        for name, value in Head(24, 30, 12, bottleneck).state_dict().items():
            named = {"direction": "last_layer.weight_v", "length": "last_layer.weight_g"}.get(name, name)
            state[f"teacher.{part}_head.{named}"] = value * (1.3 if name == "length" else 1)
    torch.save(state, tmp_path / "heads.pth")
    return pair(recipe, teacher_head=f"path:{tmp_path / 'heads.pth'}", **options)


def by_hand(module, teacher, student_tokens, centres, temperature):
    """L_dino + L_ibot as the paper writes them, from the teacher's tokens and the student's."""

    def h(objective, t, s, centre):
        p = torch.softmax((scores_of(objective.taught, t) - centre) / temperature, dim=-1)
        return -(p * torch.log_softmax(scores_of(objective.head, s) / 0.1, dim=-1)).sum(-1)

    t1, t2 = teacher
    s1, s2 = student_tokens
    dino = (h(module.dino, t1["cls"], s2[0], centres[0]) + h(module.dino, t2["cls"], s1[0], centres[0])).mean() / 2
    patches = [t["grid"].flatten(2).transpose(1, 2) for t in teacher]
    P = patches[0].shape[1]
    ibot = sum(h(module.ibot, t, s[1], centres[1]).sum(1).mean() for t, s in zip(patches, student_tokens)) / (2 * P)
    return dino + ibot


@pytest.mark.parametrize("step", [0, 7, 100])
def test_h0_mini_is_the_paper_s_sum(tmp_path, step):
    recipe, module, _ = with_file(tmp_path)
    for part, seed in ((module.dino, 8), (module.ibot, 9)):
        part.centre.copy_(tokens(30, seed=seed))
        torch.nn.init.normal_(part.head.length)
    centres = module.dino.centre.clone(), module.ibot.centre.clone()
    teacher = [readouts(seed=1), readouts(seed=2)]
    student = [(tokens(3, 16, seed=s, grad=True), tokens(3, 16, 16, seed=s + 50, grad=True)) for s in (5, 6)]
    learned = [{"dino": module.dino(c), "ibot": module.ibot(p)} for c, p in student]
    temperature = 0.04 + 0.03 * min(step, 59) / 59  # 30 epochs of 168 / 84 steps
    ours = recipe.loss(teacher, learned, step)
    plain = by_hand(module, teacher, student, centres, temperature)
    assert torch.isclose(ours, plain, rtol=1e-12)
    heads = {n: p for n, p in module.named_parameters() if ".head." in n}
    last = {n for n in heads if "direction" in n or "length" in n}
    # the last layers of two heads stand for an epoch, two steps: no gradient, and so no weight decay, reaches them
    assert {n for n, p in heads.items() if not p.requires_grad} == (last if step < 2 else set())
    free = {n: p for n, p in heads.items() if p.requires_grad}
    wanted = [x for s in student for x in s] + list(free.values())
    ours, plain = torch.autograd.grad(ours, wanted), torch.autograd.grad(plain, wanted)
    for name, a, b in zip(["token"] * 4 + list(free), ours, plain):
        assert torch.allclose(a, b, rtol=1e-8, atol=1e-12), name


def test_local_crops_join_the_mean_over_pairs(tmp_path):
    recipe, module, _ = with_file(tmp_path, "rob-dino")
    teacher = [readouts(seed=1), readouts(seed=2)]
    learned = [{"dino": module.dino(tokens(3, 16, seed=s))} for s in range(4)]
    value = recipe.loss(teacher, learned, 0)
    rows = torch.full((3,), 1 / 3, dtype=torch.float64)
    head, taught = module.dino.head, module.dino.taught
    pairs = [
        naive(s["dino"], head.weights(), taught(t["cls"]), taught.weights(), torch.zeros(30), rows, 0.1, 0.04)
        for i, t in enumerate(teacher)
        for j, s in enumerate(learned)
        if i != j
    ]
    assert len(pairs) == 6
    assert torch.isclose(value, sum(pairs) / 6, rtol=1e-12)


def test_masked_ibot_counts_hidden_patches_only(tmp_path):
    recipe, module, _ = with_file(tmp_path, "rob-ibot", dino_weight=0.0)
    recipe.hidden = [torch.zeros(3, 4, 4, dtype=torch.bool) for _ in range(2)]
    recipe.hidden[0][0, 1:3, 2] = recipe.hidden[1][1, 0] = recipe.hidden[1][2, 3, 3] = True
    teacher = [readouts(seed=1), readouts(seed=2)]
    learned = [{"dino": module.dino(tokens(3, 16)), "ibot": module.ibot(tokens(3, 16, 16, seed=s))} for s in (5, 6)]
    value = recipe.loss(teacher, learned, 0)
    plain = 0.0
    for t, s, mask in zip(teacher, learned, recipe.hidden):
        p = torch.softmax(scores_of(module.ibot.taught, t["grid"].flatten(2).transpose(1, 2)) / 0.04, dim=-1)
        h = -(p * torch.log_softmax(s["ibot"] @ module.ibot.head.weights().T / 0.1, dim=-1)).sum(-1)
        for i in range(3):
            hidden = mask[i].flatten()
            plain += h[i][hidden].mean() / 3 / 2 if hidden.any() else 0.0  # iBOT: a tile without hidden patches gives 0
    assert torch.isclose(value, plain, rtol=1e-12)


# --- centring


def test_the_centre_is_a_running_mean_of_scores_and_a_buffer(tmp_path):
    recipe, module, _ = with_file(tmp_path)
    centre = torch.zeros(30, dtype=torch.float64)
    for step in range(3):
        teacher = [readouts(seed=3 * step), readouts(seed=3 * step + 1)]
        learned = [{"dino": module.dino(tokens(3, 16)), "ibot": module.ibot(tokens(3, 16, 16))}] * 2
        recipe.loss(teacher, learned, step)
        scores = torch.cat([scores_of(module.ibot.taught, t["grid"].flatten(2).transpose(1, 2)) for t in teacher])
        centre = 0.9 * centre + 0.1 * scores.mean(dim=(0, 1))
        assert torch.allclose(module.ibot.centre, centre, rtol=1e-10)
    assert {"dino.centre", "ibot.centre"} <= set(module.state_dict())


# --- without the teacher's heads


def test_cosine_regression():
    part = Regression(4, 6).double()
    part.fit(tokens(9, 6, seed=7))
    teacher, student = [tokens(3, 6, seed=s) for s in (1, 2)], [tokens(3, 4, seed=s, grad=True) for s in (3, 4)]
    rows = [torch.full((3,), 1 / 3, dtype=torch.float64)] * 2
    value = part.loss(teacher, [part(s) for s in student], [(0, 1), (1, 0)], rows, AT)
    plain = 0.0
    for i, j in ((0, 1), (1, 0)):
        a = student[j] @ part.projector.weight.T + part.projector.bias
        b = teacher[i] - tokens(9, 6, seed=7).mean(0)
        plain = plain + (1 - (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))).mean() / 2
    assert torch.isclose(value, plain, rtol=1e-12)
    for a, b in zip(torch.autograd.grad(value, student), torch.autograd.grad(plain, student)):
        assert torch.allclose(a, b, rtol=1e-9)


def test_log_sum_regression():
    part = Regression(4, 6, "log-sum", alpha=4.0).double()
    teacher, student = tokens(5, 6), tokens(5, 4, seed=3, grad=True)
    value = part.loss([teacher], [part(student)], [(0, 0)], [torch.ones(5)], AT)
    a, b = student @ part.projector.weight.T + part.projector.bias, teacher
    a, b = ((x - x.mean(0)) / (x.var(0, unbiased=False) + EPS).sqrt() for x in (a, b))
    plain = ((a - b).abs() ** 4).sum().log()
    assert torch.isclose(value, plain, rtol=1e-12)
    assert torch.allclose(
        torch.autograd.grad(value, student, retain_graph=True)[0], torch.autograd.grad(plain, student)[0], rtol=1e-8
    )


def test_a_learned_head_predicts_its_own_average_and_the_student_cannot_move_it():
    torch.manual_seed(0)
    part = WithLearnedHead(Head(4, 10, 8, 3), Constants(), Head(6, 10, 8, 3)).double()
    for p in part.learner.parameters():
        p.data.add_(0.1 * torch.randn_like(p))
    before = {n: b.clone() for n, b in part.average.named_buffers()}
    teacher, student = [tokens(3, 6, seed=s) for s in (1, 2)], [part(tokens(3, 4, seed=s)) for s in (3, 4)]
    rows, pairs = [torch.full((3,), 1 / 3, dtype=torch.float64)] * 2, [(0, 1), (1, 0)]
    value = part.loss(teacher, student, pairs, rows, Moment(0.05, memory=0.75))
    learned = dict(part.learner.named_parameters())
    for name, mean in part.average.named_buffers():
        assert torch.allclose(mean, 0.75 * before[name] + 0.25 * learned[name], rtol=1e-12)
    with torch.no_grad():
        targets = [part.average(t) for t in teacher], part.average.weights()
    sides = [(part.head, student), (part.learner, [part.learner(t) for t in teacher])]
    plain = [
        naive(x[j], head.weights(), targets[0][i], targets[1], torch.zeros(10), rows[0], 0.1, 0.05) / 2
        for head, x in sides
        for i, j in pairs
    ]
    assert torch.isclose(value, sum(plain), rtol=1e-12)
    names = [n for n, _ in part.learner.named_parameters()]
    ours = torch.autograd.grad(value, list(part.learner.parameters()), retain_graph=True)
    theirs = torch.autograd.grad(sum(plain[2:]), list(part.learner.parameters()))
    for name, a, b in zip(names, ours, theirs):
        assert torch.allclose(a, b, rtol=1e-8, atol=1e-13), name


def test_prototypes_are_scored_by_cosine_without_the_mean():
    recipe, module, _ = pair(teacher_head="prototypes")
    part = module.dino
    part.mean.copy_(tokens(24, seed=3))
    x = tokens(5, 24, seed=4)
    scores = part.teach(x) @ part.teacher_prototypes().T
    assert torch.allclose(
        scores, F.cosine_similarity((x - part.mean)[:, None], part.prototypes[None], dim=2), atol=1e-9
    )


def test_frozen_heads_are_buffers(tmp_path):
    _, module, _ = with_file(tmp_path)
    assert isinstance(module.dino, WithHead) and isinstance(module.dino, Scores)
    assert not [n for n, _ in module.named_parameters() if ".taught." in n]
    assert "dino.taught.direction" in module.state_dict()
