"""eva's linear head: golden distributions of eva itself, torch written out plainly, its schedules, patience and rules."""

import json

import numpy as np
import pytest

import eosin
from eosin import metrics
from eosin.errors import DataError, UsageError
from eosin_eva import linear, training

PAPER, TODAY = linear.PROTOCOLS
BOTH = pytest.mark.parametrize("protocol", [PAPER, TODAY], ids=lambda p: p.card.name)


def embeddings(n=120, d=12, classes=3, seed=0, parts=("train", "train", "val"), gap=1.0, **columns):
    """Gaussian classes; every third row validates unless `parts` says otherwise."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % classes)
    X = rng.standard_normal((n, d)) + gap * rng.standard_normal((classes, d))[y]
    columns = {"split": np.array(parts)[np.arange(n) % len(parts)], **columns}
    return eosin.Embeddings(
        X.astype(np.float32), np.arange(n).astype(str), y, classes=("a", "b", "c", "d")[:classes], **columns
    )


def options(protocol, **given):
    return protocol.card.complete(given)


# ---- golden cases


@pytest.mark.parametrize("name, steps", [("binary", 160), ("multiclass", 200)])
def test_eva_itself(shared, name, steps):
    folder = shared("golden", f"eva-linear-{name}")
    given, eva = np.load(folder / "input.npz"), json.loads((folder / "expected.json").read_text())
    split = np.full(len(given["y"]), "train")
    split[given["val_idx"]] = "val"
    classes = tuple("abcd"[: given["y"].max() + 1])
    emb = eosin.Embeddings(given["x"], np.arange(len(split)).astype(str), given["y"], split=split, classes=classes)
    o = options(TODAY, max_steps=steps, patience=30, runs=30)
    weights, watches = linear.fit(emb.X, training.Task.of(emb, o), o)
    score, n_val = np.array([w.best for w in watches]), (split == "val").sum()
    assert [len(w.values) for w in watches] == [
        r["epochs_run"] - 1 for r in eva["runs"]
    ] * 3  # eva's ends with the best
    alike(score, eva["val_metric_per_run"])
    assert 0.4 < score.std(ddof=1) / eva["val_metric_std_ddof1"] < 2.5
    alike([w.best_epoch for w in watches], [r["best_epoch"] for r in eva["runs"]])
    p = [training.probabilities(emb["val"].X @ w.T + b)[np.arange(n_val), emb["val"].y] for w, b in weights]
    alike(-np.log(p).mean(1), [r["val/AverageLoss"] for r in eva["val_metrics_of_each_run"]])
    # the slow first epochs: with the other era's schedule the mean gain is 3 (binary) and 6 errors ahead of eva's
    alike([w.values[4] - w.values[0] for w in watches], [r["first_20"][4] - r["first_20"][0] for r in eva["runs"]])


def alike(ours, theirs):
    """The means of two samples of runs differ by less than 3 standard errors."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    error = np.sqrt(ours.var(ddof=1) / len(ours) + theirs.var(ddof=1) / len(theirs))
    assert abs(ours.mean() - theirs.mean()) < 3 * error


def test_golden_metrics(shared):
    folder = shared("golden", "eva-metrics-01")
    given, expected = np.load(folder / "input.npz"), json.loads((folder / "expected.json").read_text())["outputs"]

    def value(y, logits, classes, batch_size=1000):
        return training.balanced(y.astype(int), training.decide(logits[None], batch_size), classes)[0]

    seen = 0
    for key, want in expected["BinaryBalancedAccuracy"].items():
        z, y, *how = [given.get(word, word) for word in key.split("|")]
        if how and how[0] == "updates_0:150_150:":
            p = np.concatenate([training.decide(part[:, None], 1000) for part in (z[:150], z[150:])])
            got = training.balanced(y.astype(int), p[None], 2)[0]
        else:
            got = value(y, z[:, None], 2)
        assert got == pytest.approx(want, abs=1e-6), key
        seen += 1
    for key, want in expected.items():
        if key.startswith("MulticlassAccuracy_macro_"):
            name = key.removeprefix("MulticlassAccuracy_macro_")
            y, z = given[f"{name}_target"], given[f"{name}_logits"]
            assert value(y, z, z.shape[1]) == pytest.approx(want, abs=1e-6), key
            assert value(y, z, z.shape[1]) == pytest.approx(
                metrics.balanced_accuracy(y, z.argmax(1), np.union1d(y, z.argmax(1)))
            )
            seen += 1
    assert seen >= 16


# ---- torch, written out plainly


def plain(emb, o, schedule, run=0):
    """One run with torch's own modules, optimiser and scheduler on the same first weights and batches."""
    import torch

    k = 1 if len(emb.classes) == 2 else len(emb.classes)
    train, val, d = emb["train"], emb["val"], emb.X.shape[1]
    draw = torch.Generator().manual_seed(o["seed"] + run)
    first = torch.empty(k * (d + 1)).uniform_(-(d**-0.5), d**-0.5, generator=draw)
    head = torch.nn.Linear(d, k)
    head.load_state_dict({"weight": first[: k * d].view(k, d), "bias": first[k * d :]})
    optimiser = torch.optim.AdamW(head.parameters(), lr=o["lr"])
    scheduler = schedule(optimiser)
    X, y = torch.from_numpy(train.X), torch.from_numpy(train.y)
    loss = torch.nn.functional.cross_entropy
    if k == 1:
        loss = lambda z, t: torch.nn.functional.binary_cross_entropy_with_logits(z.squeeze(-1), t.float())  # noqa: E731
    steps, values, waited, best = 0, [], 0, None
    while steps + -(-len(X) // o["batch_size"]) <= o["max_steps"] and waited < o["patience"]:
        for rows in torch.randperm(len(X), generator=draw).split(o["batch_size"]):
            optimiser.zero_grad()
            loss(head(X[rows]), y[rows]).backward()
            optimiser.step()
            steps += 1
        scheduler.step()
        z = head(torch.from_numpy(val.X)).detach().numpy()
        p = z.argmax(1) if k > 1 else (z[:, 0] > 0).astype(int)
        values.append(metrics.balanced_accuracy(val.y, p))
        waited = waited + 1 if best is not None and values[-1] <= max(values[:-1]) else 0
        if waited == 0:
            best = [v.detach().double().numpy().copy() for v in head.parameters()]
    return best, values


def schedules(o):
    from torch.optim import lr_scheduler

    if "t_max" in o:
        return lambda optimiser: lr_scheduler.CosineAnnealingLR(optimiser, o["t_max"] or o["max_steps"])
    return lambda optimiser: lr_scheduler.ConstantLR(optimiser)


@BOTH
@pytest.mark.parametrize("classes", [2, 3])
def test_every_run_is_what_torch_gives(protocol, classes):
    emb = embeddings(classes=classes, gap=0.7)
    o = options(protocol, lr=0.01, batch_size=32, max_steps=95, patience=6, runs=4)
    best, watches = linear.fit(emb.X, training.Task.of(emb, o), o)
    for run in range(4):
        (weight, bias), values = plain(emb, o, schedules(o), run)
        assert watches[run].values == pytest.approx(values)
        assert best[run][0] == pytest.approx(weight, abs=1e-5)
        assert best[run][1] == pytest.approx(bias, abs=1e-5)
    epochs = [len(w.values) for w in watches]
    assert min(epochs) < max(epochs) <= 95 // 3, "some run should stop early, and others go on without it"


def test_adamw_is_torch_s():
    import torch

    draw = torch.Generator().manual_seed(0)
    weights, o = torch.randn(3, 5, generator=draw), options(TODAY, weight_decay=0.1, beta1=0.8)
    theirs = torch.nn.Parameter(weights.clone())
    torch_s = torch.optim.AdamW([theirs], lr=1.0, betas=(0.8, 0.999), weight_decay=0.1)
    ours = training.AdamW(weights, o)
    for step in range(20):
        gradient, lr = torch.randn(3, 5, generator=draw), 0.1 / (1 + step)
        ours.step(gradient, lr)
        torch_s.param_groups[0]["lr"], theirs.grad = lr, gradient
        torch_s.step()
    assert torch.allclose(ours.weights, theirs.detach(), atol=1e-6)
    ours.keep([2, 0])
    assert torch.equal(ours.weights[1], weights[0]) and len(ours.mean) == len(ours.square) == 2


@BOTH
def test_schedules_are_torch_s(protocol):
    import torch

    for given in ({}, {"t_max": 7} if protocol is PAPER else {}):
        o = options(protocol, max_steps=50, **given)
        optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=o["lr"])
        scheduler = schedules(o)(optimiser)
        for epoch in range(25):
            assert training.learning_rate(o, epoch, o["max_steps"]) == pytest.approx(
                scheduler.get_last_lr()[0], rel=1e-9, abs=1e-18
            )
            optimiser.step()
            scheduler.step()
    assert training.learning_rate(options(TODAY), 4, 0) == pytest.approx(1e-4)
    assert training.learning_rate(options(TODAY), 5, 0) == 3e-4
    assert training.learning_rate(options(PAPER), 6249, 12_500) == pytest.approx(1.5e-4, rel=1e-3)  # BACH's last epoch


def test_patience_counts_validations_since_the_first_best():
    watch = training.Watch(3)
    assert [watch.see(v) for v in (0.5, 0.7, 0.7, 0.6)] == [True, True, False, False]
    assert not watch.done and watch.best_epoch == 1
    watch.see(0.7)
    assert watch.done and watch.best == 0.7


def test_the_patience_of_other_datasets_is_a_share_of_the_epochs():
    emb = embeddings(60, gap=0.0)
    for protocol, share in ((PAPER, 0.05), (TODAY, 0.2)):
        o = options(protocol, batch_size=20, max_steps=2 * 90)
        assert o["patience"] is None and o["patience_share"] == share
        _, watches = linear.fit(emb.X, training.Task.of(emb, o), o)
        assert {w.patience for w in watches} == {round(90 * share + 0.49)}


# ---- what can be reached, what is reported


@pytest.mark.parametrize("classes, d", [(2, 8), (4, 16)])
def test_heads_get_near_the_best_possible(classes, d):
    rng = np.random.default_rng(0)
    n, centres = 6000, rng.standard_normal((classes, d)) * 0.6
    y = rng.integers(0, classes, n)
    X = rng.standard_normal((n, d)) + centres[y]
    best = metrics.balanced_accuracy(y[4000:], ((X[4000:, None] - centres) ** 2).sum(2).argmin(1))
    split = np.repeat(["train", "val", "test"], [3000, 1000, 2000])
    emb = eosin.Embeddings(
        X.astype(np.float32), np.arange(n).astype(str), y, split=split, classes=tuple("abcd"[:classes])
    )
    for protocol in (PAPER, TODAY):
        reached = protocol.score(emb, max_steps=1500, lr=3e-3, patience=40).metrics["balanced_accuracy"]
        assert np.mean(reached) == pytest.approx(best, abs=0.01)  # 2,000 test rows: the luck of both is the same rows


def test_test_is_reported_where_it_exists():
    emb = embeddings(parts=("train", "train", "val", "test"))
    scores = TODAY.score(emb, max_steps=60, runs=3)
    p, test = scores.predictions, emb["test"]
    assert scores.notes == ()
    assert p["id"].tolist() == test.id.tolist() * 3 and set(p["fold"]) == {0}
    assert p["seed"].tolist() == np.repeat([0, 1, 2], len(test)).tolist()
    assert p["score"].shape == (3 * len(test), 3) and p["score"].sum(1) == pytest.approx(1)
    for run, value in enumerate(scores.metrics["balanced_accuracy"]):
        mine = p["seed"] == run
        assert value == pytest.approx(metrics.balanced_accuracy(p["y"][mine], p["score"][mine].argmax(1)))
    assert (scores.details["best_epoch"] <= scores.details["epochs"]).all()


def test_without_val_the_test_rows_choose_and_a_note_says_so():
    emb = embeddings(parts=("train", "test"))
    scores = TODAY.score(emb, max_steps=20, runs=2)
    assert "test rows chose the checkpoint" in scores.notes[0]
    assert set(scores.predictions["id"]) == set(emb["test"].id)


@BOTH
def test_a_run_depends_on_its_seed_alone(protocol):
    emb = embeddings(classes=2)
    first, again = (protocol.score(emb, max_steps=60, runs=4) for _ in range(2))
    assert first.metrics == again.metrics
    assert first.predictions["score"].tobytes() == again.predictions["score"].tobytes()
    other = protocol.score(emb, max_steps=60, runs=2, seed=44)  # runs 2 and 3 of the others
    of = first.predictions["seed"] >= 2
    assert other.predictions["score"] == pytest.approx(first.predictions["score"][of], abs=1e-6)


def test_threads_are_given_back():
    import torch

    torch.set_num_threads(2)
    with pytest.raises(ZeroDivisionError), training.one_thread():
        assert torch.get_num_threads() == 1
        1 / 0  # noqa: B018
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)


def test_what_cannot_be_scored():
    emb = embeddings(classes=2)
    with pytest.raises(DataError, match="need `split`"):
        TODAY.score(embeddings(split=None))
    with pytest.raises(DataError, match="need `y`"):
        TODAY.score(eosin.Embeddings(emb.X, emb.id, split=emb.split))
    with pytest.raises(DataError, match="No row has split train"):
        TODAY.score(embeddings(parts=("val", "test")))
    with pytest.raises(DataError, match="No row has split val"):
        TODAY.score(embeddings(parts=("train",)))
    with pytest.raises(DataError, match="1 rows have no label"):
        TODAY.score(eosin.Embeddings(emb.X, emb.id, np.where(np.arange(120) == 5, -1, emb.y), split=emb.split))
    with pytest.raises(DataError, match="labels are 0 … 2"):
        TODAY.score(embeddings(), classes=2)
    with pytest.raises(DataError, match="NaN or Inf in rows 3"):
        TODAY.score(
            eosin.Embeddings(np.where(np.arange(120)[:, None] == 3, np.nan, emb.X), emb.id, emb.y, split=emb.split)
        )
    with pytest.raises(UsageError, match="max_steps=1, and an epoch has 3"):
        TODAY.score(emb, max_steps=1, batch_size=32)
    for wrong in ({"runs": 0}, {"patience": 0}, {"batch_size": 0}):
        with pytest.raises(UsageError, match="at least 1"):
            TODAY.score(emb, **wrong)
    lacking = eosin.Embeddings(
        emb.X, emb.id, emb.y, split=np.where((emb.y == 1) & (emb.split == "train"), "", emb.split)
    )
    assert "No training row has class 1" in TODAY.score(lacking, max_steps=9, runs=1).notes[1]


def test_rows_without_a_split_are_left_out():
    emb = embeddings(parts=("train", "val", ""))
    y = np.where(emb.split == "", -1, emb.y)
    scores = TODAY.score(eosin.Embeddings(emb.X, emb.id, y, split=emb.split, classes=emb.classes), max_steps=9, runs=1)
    assert set(scores.predictions["id"]) == set(emb["val"].id)


def test_rows_of_the_registry_carry_the_numbers_of_each_dataset():
    """kaiko-ai/eva's configurations at 71a2e189 and 0.4.5: patience; for slides epochs, patience and runs."""
    from eosin.plugins import Catalogue

    catalogue, patience = Catalogue(), {"bach": (400, 1250), "crc": (24, 7), "mhist": (70, 278), "pcam": (9, 3)}
    slides = {"camelyon16": [(100, 10, 5), (100, 20, 20)], "panda": [(49, 8, 5), (100, 20, 20)]}
    slides |= {f"{name}-full": numbers for name, numbers in slides.items()}
    for era, end in enumerate(("", "-0.4")):
        for name in [*patience, *slides]:
            benchmark = catalogue.benchmark(f"eva-{name}{end}")
            o = benchmark.protocol.card.complete(benchmark.card.options)
            if name in patience:
                assert (o["patience"], o["max_steps"], o["runs"]) == (patience[name][era], 12_500, 5)
            else:
                assert (o["epochs"], o["patience"], o["runs"]) == slides[name][era]
            assert benchmark.card.geometry == "224" and benchmark.card.readout == "cls|default"
            assert benchmark.protocol.card.name.endswith(("2024-12@1", "0.4@1")[era])


def test_predictions_decide_as_the_score_did():
    """Single logits in 0 … 1 are cut at .5 a batch, as torchmetrics does; what is kept beside the record says the same."""
    rng = np.random.default_rng(0)
    y = np.arange(60) % 2
    z = np.where(rng.random(60) < 0.8, y, 1 - y) * 0.4 + 0.3 + 0.01 * rng.standard_normal(60)
    z[40:] = 4 * (z[40:] - 0.5)  # a batch of logits proper
    task = training.Task(y=y, id=np.arange(60).astype(str), classes=2, parts={"reported": np.arange(60)}, notes=[])
    watch = type("Watch", (), {"values": [1], "best_epoch": 0, "best": 1.0})
    found = training.scores(task, [z[:, None]], [watch], {"batch_size": 20})
    kept = found.predictions
    assert metrics.balanced_accuracy(kept["y"], kept["score"].argmax(1)) == pytest.approx(
        found.metrics["balanced_accuracy"][0]
    )
    assert found.metrics["balanced_accuracy"][0] > 0.6
