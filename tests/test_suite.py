"""The main job, end to end: the phantom suite, its table, its records, its second run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from eosin.cli import main

TINY = """
datasets: {little: {kind: phantom, mpp: 0.5, targets: genes.csv, options: {seed: 3, size: tiny}}}
benchmarks:
  little-knn: {dataset: little, protocol: g2l-knn@1, metric: accuracy, options: {n_folds: 4, k: 5, folds: grouped}}
  little-linear: {dataset: little, protocol: g2l-linear@1, metric: auroc, options: {n_C: 5, seeds: 2}}
  little-ridge: {dataset: little, protocol: hest-ridge@1, metric: pearson}
suites: {little: [little-knn, little-linear, little-ridge]}
"""


@pytest.fixture
def registry(tmp_path):
    path = tmp_path / "registry.yaml"
    path.write_text(TINY)
    return str(path)


def bench(*args: str):
    return CliRunner().invoke(main, list(args), catch_exceptions=False)


def test_one_command_from_nothing_to_records(registry):
    done = bench("run", "-m", "color-stats", "--suite", "little", "--registry", registry, "--json")
    out = json.loads(done.stdout)
    assert done.exit_code == 0 and out["embedded"] == 120 and len(out["records"]) == 3
    records = {r["benchmark"]["name"]: r for r in (json.loads(Path(p).read_text()) for p in out["records"])}
    knn = records["little-knn"]
    assert knn["floor"]["majority"]["accuracy"] == pytest.approx(1 / 6)
    assert knn["scores"]["accuracy"]["mean"] > 0.3, "colour alone beats a guess"
    assert knn["scores"]["accuracy"]["low"] < knn["scores"]["accuracy"]["mean"] < knn["scores"]["accuracy"]["high"]
    assert "patients" in knn["intervals"]["accuracy"]
    assert knn["protocol"]["options"]["folds"] == "grouped" and knn["protocol"]["options"]["k"] == 5
    assert 0.05 < records["little-ridge"]["scores"]["pearson"]["mean"] < 1


def test_predictions_stand_beside_the_record(registry):
    out = json.loads(bench("run", "-m", "color-stats", "-b", "little-knn", "--registry", registry, "--json").stdout)
    record = json.loads(Path(out["records"][0]).read_text())
    with np.load(Path(out["records"][0]).with_name(record["predictions"])) as kept:
        assert {"id", "fold", "seed", "y", "score"} <= set(kept.files)
        predicted = kept["score"].argmax(1)
        per_fold = [(predicted == kept["y"])[kept["fold"] == f].mean() for f in np.unique(kept["fold"])]
    assert np.allclose(per_fold, record["scores"]["accuracy"]["values"])


def test_the_table_shows_the_floors_and_the_second_run_embeds_nothing_and_says_the_same(registry, monkeypatch):
    done = bench("run", "-m", "random-vit-s", "-b", "little-knn", "--registry", registry)
    head, _, row = done.stdout.splitlines()[:3]
    assert head.split() == ["benchmark", "metric", "majority", "color-stats", "random-vit-s"]
    assert row.split()[:3] == ["little-knn", "accuracy", "0.167"]
    board = bench("leaderboard", "--format", "csv")
    assert "color-stats,little-knn,g2l-knn@1,grouped,accuracy" in board.stdout
    assert "| majority | 0.167 |" in bench("leaderboard", "--format", "markdown").stdout

    def never(*a, **k):
        raise AssertionError("a model was built")

    monkeypatch.setattr("timm.create_model", never)
    second = json.loads(bench("run", "-m", "random-vit-s", "-b", "little-knn", "--registry", registry, "--json").stdout)
    assert second["embedded"] == 0 and second["reused"] == 120
    again = bench("run", "-m", "random-vit-s", "-b", "little-knn", "--registry", registry)
    assert again.stdout.splitlines()[:3] == done.stdout.splitlines()[:3]


def test_a_protocol_is_a_variant_under_another_address(registry):
    a = json.loads(bench("run", "-m", "color-stats", "-b", "little-knn", "--registry", registry, "--json").stdout)
    b = json.loads(
        bench(
            "run", "-m", "color-stats", "-b", "little-knn", "--registry", registry, "--option", "k=3", "--json"
        ).stdout
    )
    assert a["records"] != b["records"] and b["embedded"] == 0


def test_what_is_missing_is_listed_before_any_work(registry, tmp_path):
    done = bench(
        "run",
        "-m",
        "color-stats",
        "-b",
        "little-knn",
        "-b",
        "idc-knn",
        "--registry",
        registry,
        "--data",
        str(tmp_path / "d"),
    )
    assert done.exit_code == 3 and "kaggle" in done.stderr and "10253/" in done.stderr
    assert not (tmp_path / "home" / "results").exists()
    done = bench(
        "run",
        "-m",
        "color-stats",
        "-b",
        "little-knn",
        "-b",
        "idc-knn",
        "--registry",
        registry,
        "--data",
        str(tmp_path / "d"),
        "--available",
        "--json",
    )
    out = json.loads(done.stdout)
    assert done.exit_code == 3 and len(out["records"]) == 1 and len(out["missing"]) == 1


def test_embeddings_made_elsewhere(registry, tmp_path):
    """The stored rows as an npz: `precomputed:` and `bench score` give the numbers of `bench run`."""
    out = json.loads(bench("run", "-m", "color-stats", "-b", "little-knn", "--registry", registry, "--json").stdout)
    record = json.loads(Path(out["records"][0]).read_text())
    import h5py

    parts = sorted((tmp_path / "home" / "embeddings").rglob("part-*.h5"))
    with h5py.File(parts[0]) as part:
        ids, X = np.char.decode(part["id"][:], "utf-8"), part["pooled"][:]
    folder = tmp_path / "made"
    folder.mkdir()
    order = np.random.default_rng(0).permutation(len(ids))
    np.savez(folder / "little.npz", id=ids[order], X=X[order])
    again = json.loads(
        bench("run", "-m", f"precomputed:{folder}", "-b", "little-knn", "--registry", registry, "--json").stdout
    )
    theirs = json.loads(Path(again["records"][0]).read_text())
    assert theirs["scores"] == record["scores"] and theirs["model"]["precomputed"] is True

    with np.load(Path(out["records"][0]).with_name(record["predictions"])) as kept:
        fold = dict(zip(kept["id"].tolist(), kept["fold"].tolist(), strict=True))
        y = dict(zip(kept["id"].tolist(), kept["y"].tolist(), strict=True))
    np.savez(tmp_path / "e.npz", X=X, y=[y[i] for i in ids], fold=[fold[i] for i in ids])
    scored = json.loads(
        bench("score", "-p", "g2l-knn@1", "-e", str(tmp_path / "e.npz"), "--option", "k=5", "--json").stdout
    )
    assert scored["options"]["split"] == "given"
    assert scored["scores"]["accuracy"]["values"] == record["scores"]["accuracy"]["values"]
