"""PLISM's two releases in miniature: what the loader reads, refuses and says; and the protocols on them, from tile to record."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest

import eosin
from eosin.errors import CardError, DataError
from eosin.plugins import Catalogue
from eosin.tiles import BrokenTile, Reader
from eosin_phantom.twins_robustness import PLISM_SCANNERS, PLISM_STAINS, plism
from eosin_robustness.plism_data import Plism
from helpers import bench


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("plism") / "plism"
    plism(root, 0, n=12, size=32)
    return root


def loader(**options):
    return Plism(eosin.DatasetCard("plism", kind="plism", mpp=0.5, options=options))


def test_slides_have_the_same_places_in_the_same_order(tree):
    table = loader().items(tree)
    assert len(table) == 9 * 12 and table.counts == {
        "slides": 9, "tiles_per_slide": 12, "stainings": 3, "scanners": 3,
    }  # fmt: skip
    assert any("9 slides of the official 91" in w for w in table.warnings)
    tiles = table["tile"].reshape(9, 12)
    assert (tiles == tiles[0]).all()
    places = [tuple(map(int, t.split("_")[2:])) for t in tiles[0]]
    assert places == sorted(places) and sorted(tiles[0]) != tiles[0].tolist(), "by number, not by text"
    assert set(table["stain"]) == set(PLISM_STAINS) and set(table["scanner"]) == set(PLISM_SCANNERS)
    assert table["slide"][0] == "GIVH_AT2" and table["id"][0] == f"GIVH_AT2/{tiles[0][0]}"


def test_pixels_are_the_arrays(tree):
    table = loader().items(tree)
    reader = Reader(tree, table)
    for i in (0, 40, 107):
        with h5py.File(tree / table["source"][i]) as file:
            assert (np.asarray(reader.read(i)) == file[table["tile"][i]][:]).all()


def test_both_releases_hold_the_same(tree, tmp_path):
    pytest.importorskip("pyarrow")
    plism(tmp_path, 0, n=12, size=32, parquet=True)
    h5, shards = loader().items(tree), loader().items(tmp_path)
    for name in ("id", "tile", "slide", "stain", "scanner"):
        assert (h5[name] == shards[name]).all()
    assert len(set(shards["source"])) == 2
    readers = Reader(tree, h5), Reader(tmp_path, shards)
    for i in (0, 59, 60, 107):
        assert (np.asarray(readers[0].read(i)) == np.asarray(readers[1].read(i))).all()
    (tmp_path / "GMH_P_to_GMH_S60.tif.h5").write_bytes((tree / "GMH_P_to_GMH_S60.tif.h5").read_bytes())
    both = loader().items(tmp_path)
    assert set(both["slide"]) == {"GMH_P"} and any("parquet files too" in w for w in both.warnings)


def test_any_subset(tree, tmp_path):
    some = loader(stainings=["GMH", "KR"], scanners="P", tiles=5).items(tree)
    assert some.counts["slides"] == 2 and len(some) == 10
    everything = loader().items(tree)["tile"][:12]
    assert some["tile"][:5].tolist() == [everything[i] for i in (0, 2, 4, 7, 9)], "evenly spaced"
    np.save(tmp_path / "subset.npy", np.array([7, 1, 3]))
    chosen = loader(tiles=str(tmp_path / "subset.npy")).items(tree)
    assert chosen["tile"][:3].tolist() == [everything[i] for i in (1, 3, 7)]
    (tmp_path / "subset.txt").write_text("\n".join(everything[[5, 2]]))
    assert loader(tiles=str(tmp_path / "subset.txt")).items(tree)["tile"][:2].tolist() == [everything[2], everything[5]]


def test_what_is_wrong_is_said(tree, tmp_path):
    for options, says in (
        ({"tiles": 13}, "13, and there are 12"),
        ({"tiles": "x.npy"}, "neither all"),
        ({"a": 1}, "no option a"),
    ):
        with pytest.raises(CardError, match=says):
            loader(**options).items(tree)
    with pytest.raises(DataError, match="no slide of the stainings"):
        loader(stainings=["HR"]).items(tree)
    with pytest.raises(DataError, match="neither .h5 nor .parquet"):
        loader().items(tmp_path)
    (tmp_path / "GMH_P.h5").write_bytes(b"")
    with pytest.raises(DataError, match="GMH_P.h5 does not match"):
        loader().items(tmp_path)
    (tmp_path / "GMH_P.h5").rename(tmp_path / "GMH_P_to_GMH_S60.tif.h5")
    with pytest.raises(DataError, match="no HDF5 file"):
        loader().items(tmp_path)
    with h5py.File(tmp_path / "GMH_P_to_GMH_S60.tif.h5", "w") as file:
        file["tile_16_1_1"] = np.zeros((8, 8), np.uint8)
        file["thumbnail"] = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(DataError, match="'thumbnail' does not match"):
        loader().items(tmp_path)
    with h5py.File(tmp_path / "GMH_P_to_GMH_S60.tif.h5", "a") as file:
        del file["thumbnail"]
    with pytest.raises(BrokenTile, match=r"uint8 of shape \(8, 8\)"):
        Reader(tmp_path, loader().items(tmp_path)).read(0)


def test_a_slide_that_lacks_tiles_is_indexed_and_not_scored(tree, tmp_path):
    for path in tree.glob("GMH_*.h5"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    with h5py.File(tmp_path / "GMH_P_to_GMH_S60.tif.h5", "a") as file:
        del file["tile_16_4_99"]
    table = loader().items(tmp_path)
    assert any("GMH_P (1)" in w for w in table.warnings)
    emb = eosin.Embeddings(np.random.default_rng(0).random((len(table), 4)), table["id"], table=table.columns)
    with pytest.raises(DataError, match=r"GMH_P \(1, such as tile_16_4_99\)"):
        Catalogue().protocol("plism-leaderboard@1").score(emb)


def test_from_tile_to_record(tree, home):
    def go(name, *more):
        done = bench("run", "-m", "color-stats", "-b", name, "--data", tree.parent, *more, "--json")
        return done, done.json["records"] if done.code == 0 else []

    done, (path,) = go("plism", "--option", "stainings=all")
    assert done.json["embedded"] == 108
    record = json.loads(open(path).read())
    assert record["details"]["n_tiles"] == 12 and len(record["details"]["pairs"]["a"]) == 36
    assert 0 < record["scores"]["cosine"]["mean"] <= 1 and record["protocol"]["options"]["precision"] == "float32"
    kept = list(home.rglob("plism-pairs.jsonl"))
    assert len(kept) == 1 and sum(bool(line) for line in kept[0].read_text().splitlines()) == 36
    done, (again,) = go("plism-leaderboard")
    assert done.json["embedded"] == 0 and done.json["reused"] == 108
    assert json.loads(open(again).read())["scores"]["cosine"] == record["scores"]["cosine"]


def test_names_and_row_numbers_of_a_card(tree, tmp_path):
    assert set(loader(stainings="GMH, GIVH").items(tree)["stain"]) == {"GMH", "GIVH"}
    with pytest.raises(CardError, match="stainings NOPE are not in"):
        loader(stainings=["GMH", "NOPE"]).items(tree)
    mask = np.arange(12) % 3 == 0
    np.save(tmp_path / "mask.npy", mask)
    assert loader(tiles=str(tmp_path / "mask.npy")).items(tree).counts["tiles_per_slide"] == 4
    np.save(tmp_path / "odd.npy", np.array([1.7, 2.2]))
    with pytest.raises(DataError, match="not row numbers"):
        loader(tiles=str(tmp_path / "odd.npy")).items(tree)
    (tmp_path / "bad.npy").write_bytes(b"x")
    with pytest.raises(DataError, match="bad.npy is no .npy file"):
        loader(tiles=str(tmp_path / "bad.npy")).items(tree)


def test_stainings_are_asked_for_before_anything_is_embedded(tree, home):
    done = bench("run", "-m", "color-stats", "-b", "plism", "--data", tree.parent, "--json")
    assert done.code != 0 and "needs the option stainings" in done.out + done.err and not list(home.rglob("*.part"))
    assert "stainings=(required)" in bench("list", "protocols").out.replace("\n", "")
    both = bench("run", "-m", "color-stats", "--suite", "plism", "--data", tree.parent, "--json")
    assert [r.rsplit("/", 1)[1].split("@")[0] for r in both.json["records"]] == ["plism-leaderboard"]


def test_strength_makes_models_worse_at_it(tmp_path):
    """Equal slides find each other; the further apart stainings and scanners are, the less."""
    found = []
    for strength in (0.0, 0.4, 2.0):
        root = tmp_path / str(strength) / "plism"
        plism(root, 0, strength, n=18, size=48)
        done = bench("run", "-m", "color-stats", "-b", "plism-leaderboard", "--data", root.parent, "--json")
        scores = json.loads(open(done.json["records"][0]).read())["scores"]
        found.append(
            [scores[m]["mean"] for m in ("cosine", "top1", "top1_inter_scanner", "top1_inter_staining", "top1_both")]
        )
    found = np.array(found)
    assert found[0] == pytest.approx(np.ones(5))
    assert (np.diff(found, axis=0) <= 0).all() and (found[2] < found[0]).all()
