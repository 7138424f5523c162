"""cka@1: golden cases through the protocol, tiles and items, batches and folds, two models by `bench run --against`."""

from __future__ import annotations

import json

import numpy as np
import pytest

import eosin
from eosin import metrics
from eosin.errors import DataError, UsageError
from eosin.plugins import Catalogue
from helpers import bench

CKA = Catalogue().protocol("cka@1")


def two(X, Y, **table):
    table = {k: np.asarray(v) for k, v in table.items()}
    return eosin.Embeddings(X, np.arange(len(X)).astype(str), X2=Y, table=table)


def made(n=60, d=9, e=7, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d)).astype(np.float32)
    return X, (X @ rng.standard_normal((d, e)) + 0.5 * rng.standard_normal((n, e))).astype(np.float32)


@pytest.mark.parametrize("number", range(1, 6))
def test_golden(shared, number):
    folder = shared("golden", f"cka-{number:02d}")
    given, expected = np.load(folder / "input.npz"), json.loads((folder / "expected.json").read_text())
    form = expected["float64_feature_form"]
    for normalize, rows in ((False, "raw"), (True, "normalised_rows")):
        got = CKA.score(two(given["a"], given["b"]), normalize=normalize)
        assert got.metrics["cka"] == pytest.approx([form[f"{rows}_biased"]], rel=1e-9)
        assert got.metrics["cka_debiased"] == pytest.approx([form[f"{rows}_unbiased"]], rel=1e-7, abs=1e-9)
    assert got.details["n"] == [len(given["a"])]


def test_batches_and_folds_take_each_row_once():
    X, Y = made(62)
    batches = CKA.score(two(X, Y), batches=20)
    assert batches.details["n"] == [20, 20, 20] and len(batches.metrics["cka"]) == 3
    assert "2 rows that fill no batch" in batches.notes[1]
    folds = CKA.score(two(X, Y), folds=4)
    assert folds.details["n"] == [16, 16, 15, 15]
    order = np.random.default_rng(0).permutation(62)[:16]
    assert folds.metrics["cka"][0] == pytest.approx(metrics.cka(X[order], Y[order]))
    assert np.mean(folds.metrics["cka"]) > CKA.score(two(X, Y)).metrics["cka"][0], "fewer rows, a larger number"
    assert CKA.score(two(X, Y), folds=4, seed=1).metrics["cka"] != folds.metrics["cka"]
    for wrong in ({"batches": 20, "folds": 2}, {"folds": 1}, {"batches": 3}, {"batches": 63}, {"folds": 40}):
        with pytest.raises(UsageError):
            CKA.score(two(X, Y), **wrong)


def test_items_are_the_means_of_their_tiles():
    X, Y = made(60)
    item = np.random.default_rng(1).permutation(np.repeat([f"r{i}" for i in range(12)], 5))
    pooled = [np.stack([V[item == i].mean(0) for i in np.unique(item)]) for V in (X, Y)]
    assert CKA.score(two(X, Y, item=item)).metrics["cka"] == pytest.approx([metrics.cka(X, Y)])
    got = CKA.score(two(X, Y, item=item), rows="items")
    assert got.details["n"] == [12] and got.metrics["cka"] == pytest.approx([metrics.cka(*pooled)])
    assert CKA.score(two(X, Y), rows="items").metrics["cka"] == pytest.approx([metrics.cka(X, Y)]), "each tile an item"


def test_unrelated_models_are_alike_only_as_published():
    rng = np.random.default_rng(0)
    got = CKA.score(two(rng.standard_normal((40, 60)), rng.standard_normal((40, 80))))
    assert got.metrics["cka"][0] > 0.5 and abs(got.metrics["cka_debiased"][0]) < 0.1
    assert "the debiased one is not" in got.notes[-1]
    same = CKA.score(two(*[rng.standard_normal((40, 3))] * 2))
    assert same.metrics["cka"] == pytest.approx([1]) and same.metrics["cka_debiased"] == pytest.approx([1])


def test_two_models_are_needed(tmp_path):
    X, Y = made()
    with pytest.raises(DataError, match="--against"):
        CKA.score(two(X, None))
    np.savez(tmp_path / "e.npz", X=X, X2=Y)
    done = bench("score", "--protocol", "cka@1", "--embeddings", tmp_path / "e.npz", "--json")
    assert done.json["scores"]["cka"]["mean"] == pytest.approx(metrics.cka(X, Y))


def test_bracs_patches_by_two_models(tmp_path):
    from PIL import Image

    rng = np.random.default_rng(0)
    folder = tmp_path / "bracs" / "BRACS_RoI" / "latest_version" / "train" / "0_N"
    folder.mkdir(parents=True)
    for k in range(8):
        pixels = rng.integers(0, 40 + 25 * k, (230, 460, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"BRACS_{k}_N_{k}.png", compress_level=0)
    done = bench(
        "run", "-m", "color-stats", "--against", "timm:test_vit", "-b", "cka-bracs", "--data", tmp_path, "--json"
    )
    assert done.code == 0, done
    record = json.loads(open(done.json["records"][0]).read())
    assert record["details"]["n"] == [16] and record["dataset"]["rows"] == 8, "patches, of which a region has two"
    assert 0 < record["scores"]["cka"]["mean"] <= 1


def test_the_mean_over_magnifications():
    X, Y = made(80)
    benchmark = Catalogue().benchmark("cka-breakhis")
    part = np.repeat(["40", "100", "200", "400"], 20)
    got = benchmark.score(two(X, Y, magnification=part), **CKA.card.complete({}))
    apart = [metrics.cka(X[part == m], Y[part == m]) for m in ("40", "100", "200", "400")]
    assert got.metrics["cka"] == pytest.approx([np.mean(apart)])
    assert any(note.startswith("magnification 40: 20 rows") for note in got.notes)
