"""PANDA: eva's labels, its stratified draw index for index, and the table that Kaggle does not give."""

from __future__ import annotations

import csv
import hashlib
import json

import numpy as np
import pytest

from eosin.errors import CardError, DataError
from eosin.plugins import Catalogue
from eosin_data.panda import SHARES, Panda, stratified
from helpers import bench
from slide_files import pyramid, tissue

CLEAN = (2603, 2399, 1209, 1118, 1124, 1102)
COLUMNS = ("image_id", "data_provider", "isup_grade", "gleason_score", "noise_ratio_10")


def ids(n):
    return [hashlib.md5(str(i).encode(), usedforsecurity=False).hexdigest() for i in range(n)]


def make(root, n=48, table="train_with_noisy_labels.csv", columns=COLUMNS, slides=True, **changes):
    """n slides without pixels, grades in turn, every eighth of them noisy; the rows of the table by id."""
    images = root / "prostate-cancer-grade-assessment" / "train_images"
    images.mkdir(parents=True, exist_ok=True)
    rows = {}
    for i, name in enumerate(ids(n)):
        values = (name, ("radboud", "karolinska")[i % 2], i % 6, ("negative", "3+3")[i % 2], 0 if i % 8 == 7 else 1)
        rows[name] = dict(zip(COLUMNS, values, strict=True))
        if slides:
            (images / f"{name}.tiff").write_bytes(b"")
    write(root / table, list(rows.values()), columns)
    return rows


def write(path, rows, columns=COLUMNS):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def read(root, **options):
    return Panda("panda", options=options).items(root)


def test_the_draw_is_evas(shared):
    folder = shared("golden", "eva-splits-01")
    expected, labels = json.loads((folder / "expected.json").read_text())["stratified"], np.load(folder / "input.npz")
    for case, want in expected.items():
        name, shares, seed = case.split("|")
        got = stratified(labels[name], json.loads(f"[{shares[1:-1]}]"), int(seed.removeprefix("seed")))
        assert {part: rows.tolist() for part, rows in got.items()} == {p: rows or [] for p, rows in want.items()}


def test_the_official_counts():
    y = np.random.default_rng(0).permutation(np.repeat(np.arange(6), CLEAN))
    for part, counts in (("small", (952, 475, 475)), ("full", (6686, 1430, 1439))):
        drawn = stratified(y, SHARES[part], 42)
        assert tuple(map(len, drawn.values())) == counts
        assert len(np.unique(np.concatenate(list(drawn.values())))) == sum(counts)
        card = Catalogue().datasets.get({"small": "panda", "full": "panda-full"}[part], "").card
        assert card.counts == {"all": sum(counts), **dict(zip(drawn, counts, strict=True))}
        assert card.options["part"] == part and card.options["limit"] == {"small": 200, "full": 1000}[part]
        assert {"mpp": 0.5, "size": 224, "rule": "eva", "seed": 42}.items() <= card.options.items()


@pytest.mark.parametrize("part, counts", [("small", (6, 6, 6)), ("full", (27, 6, 9))])
def test_noise_is_left_out_and_the_rest_drawn(tmp_path, part, counts):
    rows = make(tmp_path)
    table = read(tmp_path, part=part)
    found = {s: int((table["split"] == s).sum()) for s in ("train", "val", "test")}
    noisy = {n for n, row in rows.items() if not row["noise_ratio_10"]}
    assert tuple(found.values()) == counts and not noisy & set(table["id"].tolist())
    assert table["id"].tolist() == sorted(table["id"].tolist())
    assert all(table["label"][i] == rows[n]["isup_grade"] for i, n in enumerate(table["id"].tolist()))
    assert set(table["centre"].tolist()) == {"radboud", "karolinska"} and table.classes[5] == "ISUP 5"
    clean = sorted(set(rows) - noisy)
    drawn = stratified(np.array([rows[n]["isup_grade"] for n in clean]), SHARES[part], 42)
    for split, places in drawn.items():
        assert sorted(clean[i] for i in places) == table["id"][table["split"] == split].tolist()
    assert "6 slides have noisy labels and were left out, as in eva" in table.warnings
    assert any("not the official file" in w for w in table.warnings) and any("patients" in w for w in table.warnings)


def test_a_partial_download_has_evas_split(tmp_path):
    make(tmp_path)
    whole = read(tmp_path, part="full")
    for name in whole["id"][::3].tolist():
        next(tmp_path.rglob(f"{name}.tiff")).unlink()
    left = read(tmp_path, part="full")
    split = dict(zip(whole["id"], whole["split"], strict=True))
    assert len(left) == 28 and all(split[n] == s for n, s in zip(left["id"], left["split"], strict=True))
    assert "14 slides of the split are not there" in left.warnings


def test_kaggles_table_is_refused(tmp_path):
    make(tmp_path, table="prostate-cancer-grade-assessment/train.csv", columns=COLUMNS[:4])
    with pytest.raises(DataError, match="Kaggle's own train.csv does not do: it lacks noise_ratio_10"):
        read(tmp_path)
    (tmp_path / "prostate-cancer-grade-assessment" / "train.csv").unlink()
    with pytest.raises(DataError, match="train_with_noisy_labels.csv is missing in .*analokmaus") as error:
        read(tmp_path)
    assert "Kaggle" not in str(error.value).replace("kaggle-panda", "")


@pytest.mark.parametrize("place", ["panda", "panda/prostate-cancer-grade-assessment"])
def test_where_the_table_may_lie(tmp_path, place):
    make(tmp_path / "panda", table="train.csv", columns=COLUMNS[:4])
    make(tmp_path / "panda", slides=False, table="../noisy.csv")
    (tmp_path / "noisy.csv").rename(tmp_path / place / "train_with_noisy_labels.csv")
    assert len(read(tmp_path / "panda")) == 18


def test_the_table_under_its_first_name(tmp_path):
    """Its authors call it train.csv, like Kaggle's."""
    make(tmp_path, table="train.csv")
    assert len(read(tmp_path)) == 18


def test_tables_that_cannot_be(tmp_path):
    rows = list(make(tmp_path).values())
    path = tmp_path / "train_with_noisy_labels.csv"
    write(path, [*rows, rows[3]])
    with pytest.raises(DataError, match=f"{rows[3]['image_id']} stands twice"):
        read(tmp_path)
    write(path, rows[1:])
    with pytest.raises(DataError, match=f"no row of {rows[0]['image_id']}.tiff"):
        read(tmp_path)
    write(path, [{**rows[0], "isup_grade": 6}, *rows[1:]])
    with pytest.raises(DataError, match=f"isup_grade of {rows[0]['image_id']} is not 0 to 5"):
        read(tmp_path)
    write(path, rows)
    odd = tmp_path / "prostate-cancer-grade-assessment" / "train_images" / f"{rows[0]['image_id']}_mask.tiff"
    odd.write_bytes(b"")
    with pytest.raises(DataError, match="does not match <32 hexadecimal digits>.tiff"):
        read(tmp_path)
    with pytest.raises(CardError, match="part is small or full, not 'tiny'"):
        read(tmp_path, part="tiny")


def test_slides_become_evas_tiles(tmp_path):
    rows = list(make(tmp_path, n=18).values())
    for i, row in enumerate(rows):
        path = tmp_path / "prostate-cancer-grade-assessment" / "train_images" / f"{row['image_id']}.tiff"
        pyramid(path, tissue(256, 192, seed=i), 0.48)
    of = {}
    for limit in (2, 5):
        dataset = Panda("panda", options={"mpp": 0.5, "size": 32, "rule": "eva", "limit": limit, "seed": 42})
        items = dataset.items(tmp_path)
        tiles = dataset.tiles(tmp_path, items)
        of[limit] = {s: tiles["id"][tiles["slide"] == s].tolist() for s in items["id"].tolist()}
    assert all(len(v) == 5 and of[2][s] == v[:2] for s, v in of[5].items())
    assert set(tiles["w"].tolist()) == {33} and set(tiles["px"].tolist()) == {32}, "int(.5 / .48 * 32) level-0 pixels"
    assert set(tiles["label"].tolist()) == set(range(6))


@pytest.mark.slow
def test_the_miniature_is_read_like_the_original(tmp_path):
    assert bench("data", "phantom", "panda", "--out", tmp_path).code == 0
    dataset = Catalogue().datasets.get("panda", "")
    items = dataset.items(tmp_path / "panda")
    splits, counts = np.unique(items["split"], return_counts=True)
    assert dict(zip(splits.tolist(), counts.tolist(), strict=True)) == {"test": 6, "train": 6, "val": 6}
    tiles = dataset.tiles(tmp_path / "panda", items)
    assert set(tiles["item"].tolist()) == set(items["id"].tolist()), "every slide has tissue"
