"""eva's ABMIL: golden forward passes, bags in any order, its schedules, and a bag task whose answer is known."""

import json

import numpy as np
import pytest

import eosin
from eosin.errors import DataError, UsageError
from eosin_eva import abmil, training

PAPER, TODAY = abmil.PROTOCOLS


def bags(n=60, most=20, d=16, classes=2, gap=2.0, seed=0, parts=("train", "train", "train", "val", "test")):
    """A fifth of a bag's rows carry its class; the others are noise."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % classes)
    sizes = rng.integers(max(1, most // 2), most + 1, n)
    slide = np.repeat(np.arange(n), sizes)
    centres = gap * rng.standard_normal((classes, d)) / np.sqrt(d) * 4
    X = rng.standard_normal((len(slide), d)) + (rng.random((len(slide), 1)) < 0.2) * centres[y[slide]]
    names, split = np.array([f"slide-{i}" for i in range(n)]), np.array(parts)[np.arange(n) % len(parts)]
    ids = np.array([f"tile-{i}" for i in range(len(slide))])
    return eosin.Embeddings(
        X.astype(np.float32), ids, y[slide], split=split[slide], slide=names[slide], classes=tuple("abcdef"[:classes])
    )


@pytest.mark.parametrize("number", [1, 2])
def test_golden_forward(shared, number):
    import torch

    from eosin_eva.attention import ABMIL

    folder = shared("golden", f"eva-abmil-0{number}")
    given, expected = np.load(folder / "input.npz"), json.loads((folder / "expected.json").read_text())
    network = ABMIL(expected["settings"]["input_size"], expected["settings"]["output_size"])
    network.load_state_dict({k[2:]: torch.from_numpy(given[k]) for k in given.files if k.startswith("w.")})
    assert sum(p.numel() for p in network.parameters()) == expected["parameters"]
    padded = torch.from_numpy(given["x"])
    ragged = [bag[:length] for bag, length in zip(padded, given["lengths"], strict=True)]
    for x in (padded, ragged):
        assert network(x).detach().numpy() == pytest.approx(np.array(expected["logits"]), abs=1e-6)


def test_parameters():
    from eosin_eva.attention import ABMIL

    assert sum(p.numel() for p in ABMIL(768, 1).parameters()) == 156_418


@pytest.mark.parametrize("protocol", [PAPER, TODAY], ids=lambda p: p.card.name)
@pytest.mark.parametrize("classes", [2, 3])
def test_a_task_that_attention_solves(protocol, classes):
    emb = bags(90, classes=classes)
    scores = protocol.score(emb, runs=2, epochs=25)
    assert np.mean(scores.metrics["balanced_accuracy"]) > 0.9
    p, test = scores.predictions, np.unique(emb["test"].slide)
    assert sorted(p["id"]) == sorted(np.repeat(test, 2)) and p["score"].shape == (len(p["id"]), classes)
    assert scores.notes == () and scores.details["val"].shape == (2,)
    assert (scores.details["epochs"] <= 25).all()


def test_a_run_is_torch_written_out():
    """Padded bags, torch's own schedulers, one run after the other: the same validations and logits."""
    import torch

    from eosin_eva.attention import ABMIL

    emb = bags(40, most=8, classes=3, gap=1.0, parts=("train", "train", "val"))
    for protocol, scheduler in (
        (PAPER, lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 8)),
        (TODAY, torch.optim.lr_scheduler.ConstantLR),
    ):
        scores = protocol.score(emb, runs=2, epochs=8, patience=3, batch_size=10)
        own = abmil.Bags(emb)
        task = training.Task.of(own.items, {"classes": 0})
        padded = torch.full((40, 8, 16), -torch.inf)
        for i, name in enumerate(own.items.id):
            rows = emb.X[emb.slide == name]
            padded[i, : len(rows)] = torch.from_numpy(rows)
        for run in range(2):
            torch.manual_seed(42 + run)
            network, draw = ABMIL(16, 3), torch.Generator().manual_seed(42 + run)
            optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3)
            steps, watch = scheduler(optimiser), training.Watch(3)
            train, val = torch.from_numpy(task.parts["train"]), torch.from_numpy(task.parts["val"])
            for _ in range(8):
                for batch in train[torch.randperm(len(train), generator=draw)].split(10):
                    optimiser.zero_grad()
                    torch.nn.functional.cross_entropy(
                        network(padded[batch]), torch.from_numpy(task.y)[batch]
                    ).backward()
                    optimiser.step()
                steps.step()
                z = network(padded[val]).detach()
                if watch.see(float(training.balanced(task.y[val], z.argmax(1).numpy()[None], 3)[0])):
                    best = z.softmax(1).numpy()
                if watch.done:
                    break
            mine = scores.predictions["seed"] == run
            assert scores.details["epochs"][run] == len(watch.values)
            assert scores.details["val"][run] == pytest.approx(watch.best)
            assert scores.predictions["score"][mine] == pytest.approx(best, abs=1e-4)


def test_rows_may_lie_anywhere():
    emb = bags(30)
    shuffled = emb[np.random.default_rng(1).permutation(len(emb))]
    own, other = abmil.Bags(emb), abmil.Bags(shuffled)
    assert sorted(own.items.id) == sorted(other.items.id)
    for name in ("slide-0", "slide-17"):
        rows = [np.sort(b.take(np.flatnonzero(b.items.id == name))[0].numpy(), axis=0) for b in (own, other)]
        assert (rows[0] == rows[1]).all()
    assert other.items.id[0] == shuffled.slide[0], "slides come in the order of the table"


def test_same_input_same_bytes():
    import torch

    emb = bags(30)
    first = TODAY.score(emb, runs=3, epochs=3)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    again = TODAY.score(emb, runs=3, epochs=3)
    torch.set_num_threads(before)
    assert first.metrics == again.metrics
    assert first.predictions["score"].tobytes() == again.predictions["score"].tobytes()


def test_defaults_of_the_eras():
    paper, today = (p.card.complete({}) for p in (PAPER, TODAY))
    assert (paper["runs"], paper["epochs"], paper["patience"], paper["t_max"]) == (5, 100, 10, None)
    assert (today["runs"], today["epochs"], today["patience"], today["warm_epochs"]) == (20, 100, 20, 5)
    assert {o["lr"] for o in (paper, today)} == {1e-3} and {o["batch_size"] for o in (paper, today)} == {32}
    assert PAPER.card.rows == TODAY.card.rows == "tiles"


def test_what_cannot_be_scored():
    emb = bags(20)
    with pytest.raises(DataError, match="no such column"):
        TODAY.score(eosin.Embeddings(emb.X, emb.id, emb.y, split=emb.split))
    with pytest.raises(DataError, match="rows of slide slide-0 differ in `y`"):
        TODAY.score(
            eosin.Embeddings(
                emb.X, emb.id, np.where(emb.id == "tile-1", 1 - emb.y, emb.y), split=emb.split, slide=emb.slide
            )
        )
    with pytest.raises(DataError, match="rows of slide slide-0 differ in `split`"):
        split = np.where(emb.id == "tile-1", "val", emb.split)
        TODAY.score(eosin.Embeddings(emb.X, emb.id, emb.y, split=split, slide=emb.slide))
    with pytest.raises(UsageError, match="epochs=0"):
        TODAY.score(emb, epochs=0)
