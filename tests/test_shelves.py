"""The store seen by people: what is there, whose it is, what may go, and how it leaves the house."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from eosin import shelves
from eosin.claims import Claims
from eosin.precomputed import read_arrays, write_arrays
from helpers import TINT, bench, install, make_tiles, parts, read_table, uninstall, write_table
from test_store import ended_process


@pytest.fixture
def filled(home, tmp_path, monkeypatch):
    """The traced model's rows of 60 tiles in a store."""
    install(monkeypatch, tmp_path / "site", "eosin_tint", TINT)
    (home / "data").mkdir(parents=True)
    (home / "registry.yaml").write_text("datasets: {tiny: {kind: manifest}}\n")
    root = make_tiles(home / "data" / "tiny")
    assert bench("embed", "-m", "tint", "-d", "tiny").code == 0
    return root


def listed(*args) -> list[dict]:
    return bench("store", "ls", *args, "--json").json["addresses"]


def test_what_is_there_how_much_and_whose(filled, home):
    assert bench("embed", "-m", "tint", "-d", "tiny", "--view", "jpeg-30").code == 0
    plain, seen = listed()
    assert plain["model"].startswith("tint@") and plain["dataset"].startswith("tiny@")
    assert seen["dataset"] == plain["dataset"] + "+jpeg-30"
    assert (plain["tiles"], plain["stored"], plain["parts"], plain["damaged"]) == (60, 60, 1, 0)
    assert plain["card"]["name"] == "tint" and plain["card"]["dim"] == 6 and plain["unaddressed"] == ""
    assert plain["bytes"] == sum(p.stat().st_size for p in Path(plain["path"]).glob("*.h5"))
    du = bench("store", "du", "--json").json
    assert du["bytes"] == plain["bytes"] + seen["bytes"] == du["models"][0]["bytes"] and du["unaddressed"] == 0
    assert du["indexes"] == sum(p.stat().st_size for p in home.glob("indexes/*/*"))
    text = bench("store", "ls").out + bench("store", "du").out
    assert "current" in text and "GB free" in text


def test_an_empty_store_is_no_error(home):
    assert listed() == [] and bench("store", "du", "--json").json["bytes"] == 0
    assert bench("store", "gc", "--unaddressed", "--yes", "--json").json["files"] == []


def changed_tiles(root: Path, monkeypatch, tmp_path) -> str:
    write_table(root, read_table(root)[:-1])
    assert bench("data", "index", "tiny").code == 0
    return "the tiles of tiny have changed"


def changed_card(root: Path, monkeypatch, tmp_path) -> str:
    uninstall(monkeypatch, "eosin_tint")
    install(monkeypatch, tmp_path / "site", "eosin_tint", TINT.replace("size=16", "size=8"))
    return "the card of tint has another fingerprint"


def no_card(root: Path, monkeypatch, tmp_path) -> str:
    uninstall(monkeypatch, "eosin_tint")
    for file in (tmp_path / "site").rglob("*.txt"):
        file.unlink()
    return "no card of a model tint"


def no_dataset(root: Path, monkeypatch, tmp_path) -> str:
    Path(os.environ["EOSIN_HOME"], "registry.yaml").write_text("datasets: {}\n")
    return "no card of a dataset tiny"


@pytest.mark.parametrize("change", [changed_tiles, changed_card, no_card, no_dataset])
def test_what_no_current_card_addresses_is_named_and_only_goes_when_confirmed(
    filled, monkeypatch, tmp_path, home, change
):
    before = parts(home / "embeddings")
    said = change(filled, monkeypatch, tmp_path)
    assert [r["unaddressed"] for r in listed()] == [said]
    assert bench("store", "gc", "--yes", "--json").json["files"] == [], "only what is asked for by name"
    done = bench("store", "gc", "--unaddressed")
    assert said in done.out and "would remove" in done.out and parts(home / "embeddings") == before
    gone = bench("store", "gc", "--unaddressed", "--yes", "--json").json
    assert len(gone["files"]) == 1 and gone["bytes"] == sum(map(len, before.values()))
    assert not parts(home / "embeddings") and not list((home / "embeddings").iterdir()), "empty folders go too"


def test_other_precisions_and_models_from_the_command_line_can_be_kept(filled):
    assert bench("embed", "-m", "tint", "-d", "tiny", "--precision", "bf16").code == 0
    assert bench("embed", "-m", "timm:test_vit", "-d", "tiny").code == 0
    assert [r["unaddressed"] for r in listed()] == ["no card of a model timm-test_vit", "", ""]
    assert [r["unaddressed"] for r in listed("-m", "timm:test_vit")] == ["", "", ""]


def test_what_somebody_works_on_is_not_unaddressed_yet(filled, monkeypatch, tmp_path, home):
    from eosin.claims import Claims

    no_dataset(filled, monkeypatch, tmp_path)
    Claims(Path(listed()[0]["path"])).take(0)
    assert bench("store", "gc", "--unaddressed", "--yes", "--json").json["files"] == []


def test_what_killed_runs_left_is_waste_and_what_living_ones_write_is_not(filled, home):
    from eosin.claims import me

    folder, owner = Path(listed()[0]["path"]), ended_process()
    old, young = home / "indexes" / ".index.columns.0123456789ab.tmp", home / "results" / ".x.json.0123456789ab.tmp"
    young.parent.mkdir(exist_ok=True)
    theirs = [folder / f".part-000003.{owner}.tmp", folder / f".clock.{owner}", folder / "part-000003.claim", old]
    ours = [folder / f".part-000004.{me()}.tmp", folder / f".clock.{me()}", young]
    for path in theirs + ours:
        path.write_text(owner)
    os.utime(old, (time.time() - 5000,) * 2)
    assert set(bench("store", "gc", "--yes", "--json").json["files"]) == set(map(str, theirs))
    assert all(p.exists() for p in ours) and not any(p.exists() for p in theirs)
    assert bench("store", "du", "--json").json["waste"] == 0


# ---- export


@pytest.mark.parametrize("suffix", [".npz", ".h5", ".csv"])
def test_what_is_exported_scores_as_the_run_did(filled, home, tmp_path, suffix):
    rows = read_table(filled)
    for i, row in enumerate(rows):
        row |= {"label": "" if i == 5 else row["label"], "fold": i % 3, "note": f"é {i}, {i}"}
    write_table(filled, rows)
    (home / "registry.yaml").write_text(
        "datasets: {tiny: {kind: manifest}}\nbenchmarks: {tiny-knn: {dataset: tiny, protocol: g2l-knn@1, metric: accuracy}}\n"
    )
    ran = bench("run", "-m", "tint", "-b", "tiny-knn", "--json").json
    record = json.loads(Path(ran["records"][0]).read_text())
    done = bench("store", "export", "tint/tiny", "--out", tmp_path / f"e{suffix}", "--json")
    assert done.code == 0 and done.json["shape"] == [59, 6], done
    arrays = read_arrays(tmp_path / f"e{suffix}")
    assert arrays["note"].tolist() == [f"é {i}, {i}" for i in range(60) if i != 5]
    options = [x for k, v in record["protocol"]["options"].items() if v is not None for x in ("--option", f"{k}={v}")]
    scored = bench("score", "-p", "g2l-knn@1", "-e", tmp_path / f"e{suffix}", *options, "--json").json
    assert scored["scores"]["accuracy"]["values"] == record["scores"]["accuracy"]["values"]


def test_one_of_several_addresses_is_asked_for_by_its_whole_name(filled, tmp_path):
    assert bench("embed", "-m", "tint", "-d", "tiny", "--view", "jpeg-30").code == 0
    names = [f"{r['model']}/{r['dataset']}" for r in listed()]
    assert bench("store", "export", names[1], "--out", tmp_path / "e.npz").code == 0
    for asked in ("tnit/tiny", "tint", "tint/tiny@0"):
        done = bench("store", "export", asked, "--out", tmp_path / "x.npz")
        assert done.code == 2 and "write MODEL/DATASET" in done.err and names[0] in done.err
    done = bench("store", "export", names[0], "--out", tmp_path / "both.npz", "--readout", "cls+mean", "--json")
    assert done.json["shape"] == [60, 9]
    assert bench("store", "export", names[0], "--out", tmp_path / "e.txt").code == 2


def test_without_an_index_there_are_rows_and_no_labels(filled, home, tmp_path):
    shutil.rmtree(home / "indexes")
    shutil.move(filled, tmp_path / "away")
    done = bench("store", "export", "tint/tiny", "--out", tmp_path / "e.npz", "--json")
    assert done.json["columns"] == ["id", "X"] and "bench data index tiny" in done.err


def test_labels_are_those_of_today(filled, home, tmp_path):
    """Labels that were corrected after embedding; then the data go, and which labels were meant is said or asked."""
    (home / "registry.yaml").write_text("datasets: {tiny: {kind: manifest}}\n")
    export = ("store", "export", "tint/tiny", "--out", tmp_path / "e.npz")
    assert bench(*export).code == 0
    before = read_arrays(tmp_path / "e.npz")["y"]
    rows = read_table(filled)
    write_table(filled, [row | {"label": {"a": "b", "b": "a"}[row["label"]]} for row in rows])
    assert bench(*export).code == 0
    assert (read_arrays(tmp_path / "e.npz")["y"] == 1 - before).all()
    shutil.move(filled, tmp_path / "away")
    done = bench(*export)
    assert done.code == 0 and "compared with nothing on disk: Dataset tiny is missing" in done.err
    shutil.copytree(tmp_path / "away", tmp_path / "other" / "tiny")
    write_table(tmp_path / "other" / "tiny", rows)
    assert bench("data", "index", "tiny", "--data", tmp_path / "other").code == 0
    done = bench(*export)
    assert done.code == 1 and "indexed with different labels" in done.err and "Name its --data" in done.err
    assert bench(*export, "--data", tmp_path / "other").code == 0
    assert (read_arrays(tmp_path / "e.npz")["y"] == before).all()


def test_parts_that_were_swapped_are_not_exported(filled, tmp_path):
    shutil.rmtree(filled)
    make_tiles(filled, 600)
    assert bench("embed", "-m", "tint", "-d", "tiny").code == 0
    folder = max((Path(r["path"]) for r in listed()), key=lambda f: len(list(f.iterdir())))
    one, two = folder / "part-000000.h5", folder / "part-000001.h5"
    for a, b in ((one, folder / "x"), (two, one), (folder / "x", two)):
        a.rename(b)
    done = bench("store", "export", f"tint/{folder.name}", "--out", tmp_path / "e.npz")
    assert done.code == 1 and "holds other tiles than" in done.err and not (tmp_path / "e.npz").exists()


@pytest.mark.parametrize("facts", [{"rows": 10**15}, {"rows": -5}, {"about": "[]"}, {"about": '{"model": {"nmae": "x"}}'}])  # fmt: skip
def test_a_part_that_claims_what_cannot_be(filled, tmp_path, facts):
    """With its right digest: a store may come from anybody."""
    import hashlib

    import h5py

    from eosin import store

    path = Path(listed()[0]["path"]) / "part-000000.h5"
    with h5py.File(path, "r+") as file:
        file.attrs.update(facts)
    path.write_bytes(store._head(hashlib.blake2b(path.read_bytes()[store.HEAD :], digest_size=16).hexdigest()) + path.read_bytes()[store.HEAD :])  # fmt: skip
    assert bench("store", "ls").code == 0 and bench("store", "du").code == 0
    done = bench("store", "export", "tint/tiny", "--out", tmp_path / "e.npz")
    assert done.code in (1, 3) and ("no sound part" in done.err or "remove it" in done.err)


def test_what_is_odd_in_an_address_stops_nobody(filled, home, tmp_path):
    folder = Path(listed()[0]["path"])
    for name in ("part-000000.claim", ".part-.tmp", ".part-x.tmp", ".clock.", ".clock.**"):
        (folder / name).write_bytes(b"\xff\xfe")
    (tmp_path / "victim").mkdir()
    (folder / "part-000001.h5.damaged").symlink_to(tmp_path / "victim")
    notes = home / "data" / "mine" / ".notes.0123456789ab.tmp"
    notes.parent.mkdir(parents=True)
    notes.touch()
    for path in (notes, *folder.iterdir()):
        os.utime(path, (1, 1), follow_symlinks=False)
    assert bench("store", "ls").code == 0
    done = bench("store", "gc", "--yes", "--json")
    assert done.code == 0 and not list(folder.glob(".*")) and not list(folder.glob("*.damaged"))
    assert (tmp_path / "victim").is_dir() and notes.exists(), "data folders are only read"


def test_an_address_that_is_not_whole_is_not_exported(filled, tmp_path):
    part = Path(listed()[0]["path"]) / "part-000000.h5"
    part.write_bytes(part.read_bytes()[:-4] + b"\0\1\2\3")
    done = bench("store", "export", "tint/tiny", "--out", tmp_path / "e.npz")
    assert done.code == 3 and "no sound part" in done.err and not (tmp_path / "e.npz").exists()
    assert bench("store", "verify").code == 1 and bench("embed", "-m", "tint", "-d", "tiny").code == 0
    assert bench("store", "export", "tint/tiny", "--out", tmp_path / "e.npz").code == 0


@pytest.mark.parametrize("suffix", [".npz", ".h5", ".csv"])
def test_numbers_and_targets_survive_writing(tmp_path, suffix):
    rng = np.random.default_rng(0)
    X = (rng.normal(size=(7, 3)) * 10.0 ** rng.integers(-30, 30, (7, 3))).astype(np.float32)
    target = rng.normal(size=(7, 2))
    write_arrays(tmp_path / f"a{suffix}", {"id": np.arange(7).astype(str), "X": X, "target": target})
    found = read_arrays(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(found["X"], X)
    np.testing.assert_array_equal(found["target"], target)


def test_a_claim_that_somebody_took_over_meanwhile_stays(tmp_path):
    mine, gone = Claims(tmp_path), tmp_path / "part-000001.claim"
    assert mine.take(0)
    gone.write_text("elsewhere~1~1")
    os.utime(gone, (1, 1))
    assert shelves._removed([mine.path(0), gone]) == [] and mine.path(0).exists() and not gone.exists()
