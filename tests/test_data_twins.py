"""The twins: miniatures of G2L's datasets that their own loaders read, and the suite that runs on them offline."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from eosin.cards import ModelCard
from eosin.errors import NotApplicable
from eosin.extractor import parts_of
from eosin.plugins import Catalogue
from helpers import bench

# items, tiles (None: an item is a tile), rows of each class (at least ten, for ten folds)
TWINS = {
    "tils": (48, None), "idc": (48, None), "gleason2019": (48, None), "aggc": (60, None),
    "gleason-arvaniti": (58, None), "tp53": (25, 50), "bracs": (84, 91), "breakhis": (384, 384), "chimera": (24, 48),
}  # fmt: skip
QUICK = ("tils", "idc", "gleason2019")
CHEAP = ("--option", "n_C=3", "--option", "seeds=2", "--quiet")


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in TWINS])
def test_a_twin_is_read_like_the_original(name, tmp_path):
    done = bench("data", "phantom", name, "--out", tmp_path / "twins", "--json").json
    assert done == {"written": {name: str(tmp_path / "twins" / name)}, "absent": []}
    dataset, root = Catalogue().datasets.get(name, ""), tmp_path / "twins" / name
    items = dataset.items(root)
    tiles = dataset.tiles(root, items)
    n, m = TWINS[name]
    assert len(items) == n and (tiles is None if m is None else len(tiles) >= m)
    assert min((items["label"] == c).sum() for c in range(len(items.classes))) >= 10
    assert (items["group"] != "").all() and len(set(items["group"].tolist())) >= 10
    before = sorted((p.relative_to(root).as_posix(), p.stat().st_mtime_ns) for p in root.rglob("*"))
    assert bench("data", "phantom", name, "--out", tmp_path / "twins").code == 0
    assert before == sorted((p.relative_to(root).as_posix(), p.stat().st_mtime_ns) for p in root.rglob("*"))


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    for out, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert bench("data", "phantom", "idc", "--out", tmp_path / out, "--seed", seed).code == 0
    a, b, c = ([p.read_bytes() for p in sorted((tmp_path / out).rglob("*.png"))] for out in "abc")
    assert a == b and a != c


def test_what_has_no_twin(tmp_path):
    done = bench("data", "phantom", "phantom-set", "--out", tmp_path)
    assert done.code == 2 and "no miniature of phantom-set" in done.err


def scores(out: dict) -> dict[str, dict]:
    return {r["benchmark"]["name"]: r for r in (json.loads(Path(p).read_text()) for p in out["records"])}


def test_two_of_nine(tmp_path):
    """Nothing is done until all is there, unless one asks for what is available."""
    for name in ("tils", "gleason2019"):
        assert bench("data", "phantom", name, "--out", tmp_path).code == 0
    done = bench("run", "-m", "color-stats", "--suite", "g2l", "--data", tmp_path, *CHEAP)
    absent = ("tp53", "idc", "bracs", "breakhis", "aggc", "chimera")
    assert done.code == 3 and all(f"Dataset {name} is missing" in done.err for name in absent)
    assert not (tmp_path / "home" / "results").exists()
    done = bench("run", "-m", "color-stats", "--suite", "g2l", "--data", tmp_path, *CHEAP, "--available", "--json")
    found = scores(done.json)
    assert done.code == 3 and set(found) == {"tils-knn", "tils-linear", "gleason-knn", "gleason-linear"}
    assert len(done.json["missing"]) == 6
    assert found["tils-knn"]["readout"] == {"": "pooled"}, "a model without `cls` gives what its card recommends"
    assert found["gleason-knn"]["dataset"]["options"]["cover"] == 0.5, "the choices behind the labels are on the record"


@pytest.mark.slow
def test_the_suite_runs_offline(tmp_path):
    written = bench("data", "phantom", "g2l", "--out", tmp_path, "--json").json["written"]
    assert set(written) == set(TWINS) - {"gleason-arvaniti"}, "which G2L cites and does not use"
    done = bench("run", "-m", "color-stats", "--suite", "g2l", "--data", tmp_path, *CHEAP, "--json")
    found = scores(done.json)
    assert done.code == 0 and len(found) == 18
    assert found["bracs-knn"]["dataset"]["rows"] == 84, "one row a region, the mean of its tiles"
    assert {f"magnification={m}/accuracy" for m in (40, 100, 200, 400)} <= set(found["breakhis-binary-knn"]["details"])
    again = ("-b", "breakhis-subtype-knn", "--data", tmp_path, "--folds", "grouped", "--quiet", "--json")
    done = bench("run", "-m", "color-stats", *again)
    record = scores(done.json)["breakhis-subtype-knn"]
    assert done.code == 0 and done.json["embedded"] == 0 and len(record["scores"]["accuracy"]["values"]) == 3
    assert "magnification 40: 3 folds, not 10: a class has rows of 3 patients only." in record["notes"]


def test_one_readout_or_another():
    vit = ModelCard("vit", dim=8, readouts=("cls", "mean"), readout="cls+mean")
    assert parts_of("cls|default", vit, ("cls", "mean")) == ["cls"]
    assert parts_of("cls+mean|cls", vit, ("cls", "mean")) == ["cls", "mean"]
    cnn = ModelCard("cnn", dim=8, readouts=("pooled",), readout="pooled")
    assert parts_of("cls|default", cnn, ("pooled",)) == ["pooled"]
    assert parts_of("cls|default", ModelCard("foreign", dim=8), ()) == [], "nothing is known: what was given"
    with pytest.raises(NotApplicable, match="no readout mean"):
        parts_of("cls|mean", cnn, ("pooled",))
