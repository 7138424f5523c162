"""What a protocol may ask for beyond one row an item: tiles of bags, grids, images and masks."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

import eosin
from eosin.errors import DataError, UsageError
from eosin.pixels import Pixels, fitted, mask_file
from helpers import bench, install, make_tiles, write_table

PLUGIN = '''
import numpy as np
import eosin


class Dense(eosin.FeatureExtractor):
    """Two maps of the same pixels: 4 x 4 means, and these plus one."""
    card = eosin.ModelCard("dense", dim=3, size=32, mean=(.5, .5, .5), std=(.25, .25, .25))

    def build(self):
        import torch
        return torch.nn.AdaptiveAvgPool2d(4)

    def embed(self, batch):
        grid = self.module(batch)
        return {"pooled": batch.mean((2, 3)), "grid": grid, "grid-pre-norm": grid + 1}


class Plain(Dense):
    card = eosin.ModelCard("plain", dim=3, size=32, mean=(.5, .5, .5), std=(.25, .25, .25))

    def embed(self, batch):
        return {"pooled": batch.mean((2, 3)), "grid": self.module(batch)}


class Flat(Dense):
    card = eosin.ModelCard("flat", dim=3, size=32)

    def embed(self, batch):
        return batch.mean((2, 3))


class Segment(eosin.Protocol):
    """Looks at everything that an online protocol is given."""
    card = eosin.ProtocolCard("segment@1", metrics=("off",), online=True, readout="grid-pre-norm|grid", geometry="24")

    def score(self, emb, **options):
        test = emb["test"]
        images, masks = test.pixels.square(range(len(test)))
        again = test.pixels.embed(images).numpy()
        share = {"ones": (masks == 1).mean((1, 2)), "whole": np.array([test.pixels.pair(0)[1].shape])}
        return eosin.Scores({"off": float(np.abs(again - test.X).max())}, details={**share, "least": test.X.min()})


class Bags(eosin.Protocol):
    card = eosin.ProtocolCard("bags@1", metrics=("tiles",), rows="tiles")

    def score(self, emb, **options):
        bags = np.unique(emb.slide)
        n = np.array([(emb.slide == b).sum() for b in bags])
        y = np.array([emb.y[emb.slide == b][0] for b in bags])
        zero = np.zeros(len(bags), int)
        predictions = {"id": bags, "fold": zero, "seed": zero, "y": y, "score": np.eye(2)[y]}
        return eosin.Scores({"tiles": float(n.mean()), "accuracy": 1.0}, predictions)


class Halves(eosin.Manifest):
    """Each picture is an item of two tiles; the last has none."""

    def tiles(self, root, items):
        rows = [dict(id=f"{i}/{x}", item=i, source=s, x=x, y=0, w=20, h=20, px=0)
                for i, s in zip(items["id"][:-1], items["source"][:-1]) for x in (0, 10)]
        return eosin.Table.of(rows)


@eosin.hookimpl
def provide_models():
    return [Dense(), Plain(), Flat()]


@eosin.hookimpl
def provide_protocols():
    return [Segment(), Bags()]


@eosin.hookimpl
def provide_datasets():
    return [eosin.Manifest("masked", mpp=0.5, classes=("rest", "nucleus")), Halves("halves", root="masked", mpp=0.5)]


@eosin.hookimpl
def provide_benchmarks():
    return [eosin.Benchmark(eosin.BenchmarkCard("seg", dataset="masked", metric="off", protocol="segment@1")),
            eosin.Benchmark(eosin.BenchmarkCard("bag", dataset="halves", metric="tiles", protocol="bags@1"))]
'''


@pytest.fixture
def masked(home, tmp_path, monkeypatch):
    """Six pictures of 40 x 30, the left quarter of each mask is class 1."""
    install(monkeypatch, tmp_path / "plugin", "eosin_pixels_test", PLUGIN)
    root, rng, rows = home / "data" / "masked", np.random.default_rng(0), []
    root.mkdir(parents=True)
    for i in range(6):
        Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(root / f"{i}.png")
        mask = np.zeros((30, 40), np.uint8)
        mask[:, :10] = 1
        Image.fromarray(mask).save(root / f"{i}-mask.png")
        split = "train" if i < 4 else "test"
        rows.append({"path": f"{i}.png", "mask": f"{i}-mask.png", "split": split, "label": "ab"[i % 2]})
    write_table(root, [{k: v for k, v in r.items() if k != "label"} for r in rows])
    return root, rows


def run(*args):
    done = bench("run", *args, "--json", "--no-floor")
    assert done.code == 0, done
    return json.loads(open(done.json["records"][0]).read())


@pytest.mark.parametrize("model", ["dense", "plain"])
def test_an_online_protocol_gets_grids_masks_and_the_model(masked, model):
    record = run("-m", model, "-b", "seg")
    assert record["scores"]["off"]["mean"] == 0, "the stored grids are what the model gives for the same pixels"
    # 40 x 30 becomes 32 x 24, and the middle 24 of it; a quarter of 32 is 8, less the 4 that are cut off
    assert record["details"]["ones"] == [4 / 24, 4 / 24] and record["details"]["whole"] == [[30, 40]]
    assert record["readout"][""] == ("grid-pre-norm" if model == "dense" else "grid")


def test_a_model_without_a_grid_is_not_applicable(masked):
    done = bench("run", "-m", "flat", "-b", "seg", "--json")
    assert "gives no grid-pre-norm or grid" in str(done.json) and done.json["records"] == []


def test_the_content_of_masks_is_in_the_address_of_the_record(masked):
    root, _ = masked
    before = run("-m", "dense", "-b", "seg")
    Image.fromarray(np.ones((30, 40), np.uint8)).save(root / "5-mask.png")
    after = run("-m", "dense", "-b", "seg")
    assert before["dataset"]["fingerprint"] != after["dataset"]["fingerprint"]
    assert before["dataset"]["tiles_fingerprint"] == after["dataset"]["tiles_fingerprint"], "nothing is embedded again"
    (root / "4-mask.png").unlink()
    assert "4-mask.png" in bench("run", "-m", "dense", "-b", "seg").err


def test_bags_of_tiles(masked):
    root, rows = masked
    write_table(root, [{k: v for k, v in r.items() if k != "mask"} for r in rows])
    record = run("-m", "dense", "-b", "bag")
    assert record["scores"]["tiles"]["mean"] == 2
    assert record["dataset"]["rows"] == 5 and record["dataset"]["left_out"] == 1
    assert record["dataset"]["counts"] == {"a": 3, "b": 2}, "slides are counted, not tiles"
    assert record["dataset"]["tiles"] == 10 and "pooled" not in record["dataset"]


def test_grids_from_a_file(tmp_path, home, monkeypatch):
    install(monkeypatch, tmp_path / "plugin", "eosin_pixels_test", PLUGIN)
    image = np.zeros((2, 8, 8, 3), np.uint8)
    arrays = {"X": np.zeros((2, 3, 4, 4), np.float32), "image": image, "mask": np.ones((2, 8, 8), np.int64)}
    np.savez(tmp_path / "grids.npz", **arrays, split=["train", "test"])
    from eosin.score import from_file

    emb = from_file(tmp_path / "grids.npz")["test"]
    assert emb.pixels.size == 8 and emb.pixels.embed is None and emb.pixels.square([0])[1].sum() == 64
    np.savez(tmp_path / "bad.npz", **{**arrays, "mask": np.ones((2, 4, 4))})
    with pytest.raises(DataError, match=r"mask has shape \(2, 4, 4\), image"):
        from_file(tmp_path / "bad.npz")


def test_a_mask_and_an_image_of_other_sizes():
    pixels = Pixels(
        lambda i: np.zeros((4, 6, 3), np.uint8), lambda i: np.zeros((6, 4)), None, (0,) * 3, (1,) * 3, 4, np.arange(1)
    )
    with pytest.raises(DataError, match="6x4 pixels and its mask 4x6"):
        pixels.pair(0)


def test_resizing_is_torchvisions():
    torch = pytest.importorskip("torch")
    v2 = pytest.importorskip("torchvision.transforms.v2.functional")
    rng = np.random.default_rng(1)
    for h, w in ((61, 90), (90, 61), (20, 31), (28, 28)):
        image = rng.integers(0, 256, (h, w, 3), dtype=np.uint8)
        pil = v2.center_crop(v2.resize(Image.fromarray(image), 28), [28, 28])
        assert (fitted(image, 28, "bilinear") == np.asarray(pil)).all()
        tensor = v2.center_crop(v2.resize(torch.from_numpy(image).permute(2, 0, 1), 28, antialias=True), [28, 28])
        assert np.abs(fitted(image, 28, "bilinear").astype(int) - tensor.permute(1, 2, 0).numpy()).max() <= 1


def test_mask_files(tmp_path):
    mask = np.arange(12, dtype=np.uint8).reshape(3, 4)
    palette = Image.fromarray(mask, "P")
    palette.putpalette([7] * 768)
    palette.save(tmp_path / "p.png")
    np.save(tmp_path / "m.npy", mask)
    for name in ("p.png", "m.npy"):
        assert (mask_file(tmp_path / name) == mask).all()
        assert (mask_file(tmp_path / name, (1, 0, 2, 2)) == mask[:2, 1:3]).all()
    Image.new("RGB", (4, 3)).save(tmp_path / "rgb.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "p.png").read_bytes()[:40])
    for name, why in (
        ("rgb.png", "RGB image, not a mask"),
        ("cut.png", "cannot be read"),
        ("no.png", "cannot be read"),
    ):
        with pytest.raises(DataError, match=f"{name}.*{why}"):
            mask_file(tmp_path / name)


def test_masks_of_0_and_255(tmp_path):
    Image.fromarray(np.array([[0, 255]], np.uint8)).save(tmp_path / "m.png")
    table = eosin.Table({"id": np.array(["a"]), "source": np.array(["a.png"]), "mask": np.array(["m.png"])})
    assert eosin.Manifest("d").mask(tmp_path, table, 0).tolist() == [[0, 255]]
    assert eosin.Manifest("d", options={"mask_values": {255: 1}}).mask(tmp_path, table, 0).tolist() == [[0, 1]]
    with pytest.raises(DataError, match="m.png holds 255.*mask_values"):
        eosin.Manifest("d", options={"mask_values": {1: 1}}).mask(tmp_path, table, 0)


def test_rows_are_items_or_tiles():
    with pytest.raises(UsageError, match="items or tiles"):
        eosin.Need("d", rows="slides")


COMPARE = '''
import numpy as np
import eosin


class Apart(eosin.Protocol):
    """How far two models are apart; counts how often it was asked in its scratch folder."""
    card = eosin.ProtocolCard("apart@1", metrics=("apart",), against=True)

    def score(self, emb, **options):
        if emb.scratch:
            emb.scratch.mkdir(parents=True, exist_ok=True)
            (emb.scratch / "asked").open("a").write("x")
        half = emb[np.arange(len(emb)) % 2 == 0]
        return {"apart": float(np.abs(half.X - half.X2[:, ::-1]).max())}


class Turned(eosin.FeatureExtractor):
    card = eosin.ModelCard("turned", dim=3, size=16, mean=(0, 0, 0), std=(1, 1, 1))

    def embed(self, batch):
        return batch.mean((2, 3)).flip(1)


class Straight(Turned):
    card = eosin.ModelCard("straight", dim=3, size=16, mean=(0, 0, 0), std=(1, 1, 1))

    def embed(self, batch):
        return batch.mean((2, 3))


@eosin.hookimpl
def provide_models():
    return [Turned(), Straight()]


@eosin.hookimpl
def provide_protocols():
    return [Apart()]


@eosin.hookimpl
def provide_benchmarks():
    card = eosin.BenchmarkCard("apart-tiny", dataset="tiny", metric="apart", protocol="apart@1")
    return [eosin.Benchmark(card), eosin.Benchmark(eosin.BenchmarkCard("knn", dataset="tiny", metric="accuracy",
            protocol="g2l-knn@1", options={"n_folds": 3, "k": 3}))]


@eosin.hookimpl
def provide_datasets():
    return [eosin.Manifest("tiny", mpp=0.5)]
'''


def test_two_models_compared(home, tmp_path, monkeypatch):
    install(monkeypatch, tmp_path / "plugin", "eosin_apart_test", COMPARE)
    make_tiles(home / "data" / "tiny", 20)
    record = run("-m", "straight", "--against", "turned", "-b", "apart-tiny")
    assert record["scores"]["apart"]["mean"] < 1e-6 and record["against"].startswith("turned@")
    itself = bench("run", "-m", "straight", "--against", "straight", "-b", "apart-tiny", "--json").json["records"][0]
    assert json.loads(open(itself).read())["scores"]["apart"]["mean"] > 0.01, "another partner, another record"
    (asked,) = (home / "scratch").rglob("asked")
    assert asked.read_text() == "xx" and "straight@" in str(asked)
    table = bench("leaderboard", "--format", "csv").out.splitlines()
    rows = [dict(zip(table[0].split(","), r.split(","), strict=True)) for r in table[1:]]
    assert {r["against"] for r in rows} == {"straight", "turned"}
    alone = bench("run", "-m", "straight", "-b", "apart-tiny", "--json")
    assert alone.code == 2 and "--against MODEL" in alone.err
    both = bench("run", "-m", "straight", "-b", "apart-tiny", "-b", "knn", "--json")
    assert both.code == 0 and "--against MODEL" in str(both.json["skipped"]) and len(both.json["records"]) == 1
    none = bench("run", "-m", "straight", "--against", "turned", "-b", "knn", "--json")
    assert none.code == 2 and "no benchmark here compares two" in none.err
    np.savez(tmp_path / "two.npz", X=np.eye(4), X2=np.eye(4)[:, ::-1])
    score = bench("score", "--protocol", "apart@1", "--embeddings", str(tmp_path / "two.npz"), "--json").json
    assert score["scores"]["apart"]["mean"] == 0
