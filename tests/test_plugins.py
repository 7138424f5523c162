"""Strangers' plugins, installed as whole distributions: the design's own two files, and three that misbehave."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from eosin.cli import main
from eosin.errors import CardError, NameTaken, UsageError
from eosin.plugins import Catalogue

THIRD = Path(__file__).parent / "third_party"


def install(target: Path, *names: str) -> Path:
    """pip puts the distributions into a folder; no second environment is made."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--target",
        str(target),
    ]
    sources = []
    for name in names:  # built from a copy: a build leaves files beside its sources
        copy = target.parent / "sources" / name
        copy.mkdir(parents=True)
        for file in (THIRD / name).iterdir():
            if file.is_file():
                (copy / file.name).write_bytes(file.read_bytes())
        sources.append(str(copy))
    done = subprocess.run([*command, *sources], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return install(tmp_path_factory.mktemp("good") / "site", "eosin-mine", "eosin-fibro", "eosin-stain-gap")


@pytest.fixture(scope="module")
def bad(tmp_path_factory):
    return install(tmp_path_factory.mktemp("bad") / "site", "eosin-broken", "eosin-thief", "eosin-badcard")


def on_path(monkeypatch, folder: Path) -> None:
    monkeypatch.syspath_prepend(str(folder))
    importlib.invalidate_caches()


def fibro(data: Path) -> None:
    """60 tiles of two classes: darker and lighter, by patient."""
    rng = np.random.default_rng(0)
    folder = data / "fibro"
    folder.mkdir(parents=True)
    lines = ["path,label,split,group"]
    for i in range(60):
        label, split = i % 2, "train" if i < 40 else "test"
        pixels = rng.integers(60 + 90 * label, 120 + 90 * label, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        lines.append(f"{i}.png,{['adenoma', 'phyllodes'][label]},{split},p{i // 4}")
    (folder / "tiles.csv").write_text("\n".join(lines) + "\n")


def bench(*args: str) -> tuple[int, dict]:
    done = CliRunner().invoke(main, list(args), catch_exceptions=False)
    return done.exit_code, json.loads(done.stdout) if done.stdout.strip() else {}


def test_a_strangers_model_and_benchmark_work_as_printed(good, tmp_path, monkeypatch):
    on_path(monkeypatch, good)
    fibro(tmp_path / "data")
    code, out = bench("run", "--model", "mine", "--benchmark", "fibro-knn", "--data", str(tmp_path / "data"), "--json")
    assert code == 0 and out["embedded"] == 60 and out["failed"] == []
    record = json.loads(Path(out["records"][0]).read_text())
    assert record["scores"]["balanced_accuracy"]["mean"] == 1.0
    assert record["environment"]["plugins"]["eosin-mine"] == "0.1.0"
    code, again = bench(
        "run", "--model", "mine", "--benchmark", "fibro-knn", "--data", str(tmp_path / "data"), "--json"
    )
    assert code == 0 and again["embedded"] == 0 and again["reused"] == 60


def test_a_readout_that_a_model_lacks_is_said_not_failed(good, tmp_path, monkeypatch):
    """StainGap asks for `mean`; Mine gives one pooled output."""
    on_path(monkeypatch, good)
    fibro(tmp_path / "data")
    code, out = bench(
        "run", "--model", "mine", "--benchmark", "fibro-stain-gap", "--data", str(tmp_path / "data"), "--json"
    )
    assert code == 0 and out["failed"] == [] and "no readout mean" in out["skipped"][0]["error"]


def test_a_benchmark_over_two_views(good, tmp_path, monkeypatch):
    on_path(monkeypatch, good)
    fibro(tmp_path / "data")
    code, out = bench(
        "run", "--model", "timm:test_vit", "--benchmark", "fibro-stain-gap", "--data", str(tmp_path / "data"), "--json"
    )
    assert code == 0 and out["embedded"] == 120, "the same tiles under two views"
    record = json.loads(Path(out["records"][0]).read_text())
    assert record["readout"] == {"clean": "cls", "shifted": "mean"}
    assert -1 <= record["scores"]["drop"]["mean"] <= 1


def test_a_plugin_that_cannot_be_imported_is_named_and_the_rest_go_on(bad, monkeypatch):
    on_path(monkeypatch, bad)
    catalogue = Catalogue()
    broken = {p.name: p.error for p in catalogue.plugins if p.error}
    assert "cannot even be imported" in broken["eosin_broken"]
    assert "random-vit-s" in catalogue.models.things
    with pytest.raises(UsageError, match="eosin_broken .*cannot even be imported"):
        catalogue.model("something-else")


def test_a_name_claimed_twice_names_both(bad, monkeypatch):
    on_path(monkeypatch, bad)
    catalogue = Catalogue()
    with pytest.raises(NameTaken, match="models and eosin_thief"):
        catalogue.model("color-stats")
    assert catalogue.model("random-vit-s").card.name == "random-vit-s"


def test_a_bad_card_is_named(bad, monkeypatch):
    on_path(monkeypatch, bad)
    catalogue = Catalogue()
    assert "color-stats" in catalogue.models.things
    assert "dim must be at least 1" in next(p.error for p in catalogue.plugins if p.name == "eosin_badcard")


def test_plugins_and_doctor_show_what_fails(bad, monkeypatch):
    on_path(monkeypatch, bad)
    code, out = bench("plugins", "--json")
    assert code == 0 and {r["plugin"] for r in out["plugins"] if r["error"]} == {"eosin_broken", "eosin_badcard"}
    code, out = bench("doctor", "--json")
    failing = {r["what"] for r in out["checks"] if r["state"] == "FAIL"}
    assert code == 1 and {"plugin eosin_broken", "plugin eosin_badcard", "model color-stats"} <= failing


def test_a_users_row_of_a_kind_that_nobody_provides(tmp_path):
    registry = tmp_path / "registry.yaml"
    registry.write_text("models: {odd: {kind: nowhere}}\n")
    with pytest.raises(CardError, match="kind 'nowhere'"):
        Catalogue([registry]).model("odd")
