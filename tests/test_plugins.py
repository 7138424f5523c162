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
from helpers import install as module
from helpers import write_plugin

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


MODEL = """
import eosin
class Mine(eosin.FeatureExtractor):
    card = eosin.ModelCard("of-{name}", dim=3)
{mark}
def {hook}():
    return [Mine()]
"""


def a_model(name: str, hook: str = "provide_models", mark: str = "@eosin.hookimpl") -> str:
    return MODEL.format(name=name, hook=hook, mark=mark)


def error_of(name: str) -> str:
    return next(p.error for p in Catalogue().plugins if p.name == name)


def test_a_module_called_like_one_of_ours_is_named_and_ours_stay(tmp_path, monkeypatch):
    write_plugin(tmp_path, "eosin_models", a_model("eosin_models"))
    on_path(monkeypatch, tmp_path)
    catalogue = Catalogue()
    assert {"random-vit-s", "color-stats"} <= catalogue.models.things.keys()
    said = next(p.error for p in catalogue.plugins if p.name == "eosin_models")
    assert "eosin-models takes the module name eosin_models, which is that of eosin's plugin models" in said
    assert "Rename the module" in said and "\n" not in said


def test_a_module_that_hides_ours_is_not_taken_for_ours(tmp_path, monkeypatch):
    Catalogue()  # ours is loaded, so that it comes back after the test
    module(monkeypatch, tmp_path, "eosin_models", a_model("thief"))
    catalogue = Catalogue()
    said = {p.name: p.error for p in catalogue.plugins if p.error}
    assert said.keys() == {"models", "eosin_models"} and "of-thief" not in catalogue.models.things
    assert f"{tmp_path / 'eosin_models.py'} hides eosin's own module eosin_models" in said["models"]
    with pytest.raises(CardError, match="no installed plugin provides"):
        catalogue.model("random-vit-s")


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ("eosin_b = eosin_a", "eosin-b takes the module name eosin_a, which is that of eosin-a's plugin eosin_a"),
        ("eosin_a = eosin_b", "eosin-b takes the plugin name eosin_a, which is that of a plugin of eosin-a"),
        ("x = eosin_b\ny = eosin_b", "eosin-b names eosin_b twice, as x and as y. Remove one entry point."),
        ("models = eosin_b", "eosin-b takes the plugin name models, which is that of a plugin of eosin"),
        ("eosin_b = eosin_b:again", "eosin-b takes the module name eosin_b, which is that of eosin-a's plugin eosin_a"),
    ],
)
def test_an_entry_point_that_takes_anothers_name(entries, said, tmp_path, monkeypatch):
    module(monkeypatch, tmp_path, "eosin_a", a_model("a"))
    module(monkeypatch, tmp_path, "eosin_b", a_model("b") + "import eosin_a as again\n")
    (tmp_path / "eosin_b-1.0.dist-info" / "entry_points.txt").write_text(f"[eosin]\n{entries}\n")
    catalogue = Catalogue()
    (error,) = {p.error for p in catalogue.plugins if p.error}
    assert said in error and "Plugin" not in error
    assert {"of-a", "color-stats"} <= catalogue.models.things.keys(), "who came first stays whole"


@pytest.mark.parametrize(
    ("hook", "mark", "said"),
    [
        ("provide_model", "@eosin.hookimpl", "provide_model is no hook. Did you mean provide_models?"),
        ("serve", "@eosin.hookimpl", "serve is no hook. docs/hooks.md lists them."),
        ("provide_model", "", "The module defines no hook. Did you mean provide_models?"),
        ("serve", "", "The module defines no hook. docs/hooks.md lists them."),
        ("provide_models", "", "provide_models lacks @eosin.hookimpl above it, so nobody calls it. Add that line."),
        (
            "provide_later",
            "@eosin.hookimpl(optionalhook=True)",
            "The module defines no hook. docs/hooks.md lists them.",
        ),
    ],
)
def test_a_misspelt_hook_is_named_with_the_nearest(hook, mark, said, tmp_path, monkeypatch):
    module(monkeypatch, tmp_path, "eosin_odd", a_model("odd", hook, mark))
    assert error_of("eosin_odd") == said
    code, out = bench("plugins", "--json")
    assert code == 0 and {r["plugin"]: r["error"] for r in out["plugins"] if r["error"]} == {"eosin_odd": said}


def test_a_right_hook_beside_a_misspelt_one_is_still_asked(tmp_path, monkeypatch):
    more = "@eosin.hookimpl\ndef provide_benchmark():\n    return []\n"
    module(monkeypatch, tmp_path, "eosin_odd", a_model("odd") + more)
    assert "of-odd" in Catalogue().models.things
    assert error_of("eosin_odd") == "provide_benchmark is no hook. Did you mean provide_benchmarks?"


def test_a_model_of_timm_has_one_name_written_in_two_ways():
    catalogue = Catalogue()
    one, other = (catalogue.model(name).card for name in ("timm:test_vit", "timm-test_vit"))
    assert one == other and one.name == "timm-test_vit"
