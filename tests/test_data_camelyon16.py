"""Camelyon16 in both layouts, eva's validation slides, and eva's tiles."""

from __future__ import annotations

import numpy as np
import pytest

from eosin.errors import CardError, DataError
from eosin.plugins import Catalogue
from eosin_data.camelyon16 import OFFICIAL, VAL, Camelyon16
from helpers import bench
from slide_files import pyramid, tissue

TRAIN = ("normal/normal_001", "normal/normal_010", "tumor/tumor_002", "tumor/tumor_109")


def make(root, reference="test_001,Tumor,IDC,Macro\ntest_002,Normal,,None\n"):
    """Slides without pixels, which the list of items never opens."""
    for name in TRAIN:
        touch(root / "training" / f"{name}.tif")
    for n in (1, 2):
        touch(root / "testing" / "images" / f"test_{n:03d}.tif")
    (root / "testing" / "reference.csv").write_text(reference)
    return root


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")


def read(root, **options):
    return Camelyon16("camelyon16", options=options).items(root)


def test_eva_validates_on_the_54_slides_of_patch_camelyon():
    assert len(VAL["normal"]) == 32 and len(VAL["tumor"]) == 22
    assert OFFICIAL["normal"] + OFFICIAL["tumor"] - 54 == 216 and sum(OFFICIAL.values()) == 399


def test_the_official_layout(tmp_path):
    for deep in ("", "a", "a/CAMELYON16"):
        root = tmp_path / f"depth {len(deep)}"
        make(root / deep)
        table = read(root)
        found = dict(zip(table["id"], zip(table["label"], table["split"], strict=True), strict=True))
        assert found == {
            "normal_001": (0, "train"), "normal_010": (0, "val"), "tumor_002": (1, "train"), "tumor_109": (1, "val"),
            "test_001": (1, "test"), "test_002": (0, "test"),
        }  # fmt: skip
        assert table.classes == ("normal", "tumor") and (table["slide"] == table["id"]).all()
        assert "2 test slides of the official 129: a subset or a partial download" in table.warnings


def test_the_whole_set_has_216_54_129(tmp_path):
    for kind, numbers in (("normal", range(1, 161)), ("tumor", range(1, 112))):
        for n in numbers:
            if (kind, n) != ("normal", 86):
                touch(tmp_path / "training" / kind / f"{kind}_{n:03d}.tif")
    tests = [f"test_{n:03d}" for n in range(1, 131) if n != 49]
    for name in tests:
        touch(tmp_path / "testing" / "images" / f"{name}.tif")
    (tmp_path / "testing" / "reference.csv").write_text(
        "".join(f"{t},{'Tumor' if i < 49 else 'Normal'}\n" for i, t in enumerate(tests))
    )
    table = read(tmp_path)
    splits, counts = np.unique(table["split"], return_counts=True)
    assert dict(zip(splits, counts, strict=True)) == {"train": 216, "val": 54, "test": 129}
    assert len(table.warnings) == 1 and "PatchCamelyon" in table.warnings[0]
    touch(tmp_path / "training" / "normal" / "normal_086.tif")
    touch(tmp_path / "testing" / "images" / "test_049.tif")
    with (tmp_path / "testing" / "reference.csv").open("a") as file:
        file.write("test_049,Tumor\n")
    old = read(tmp_path)
    assert len(old) == 399 and old["id"].tolist() == table["id"].tolist()
    assert sum("was left out" in w for w in old.warnings) == 2
    touch(tmp_path / "training" / "tumor" / "tumor_112.tif")
    with pytest.raises(DataError, match="112 tumor slides, more than the official 111"):
        read(tmp_path)


def test_the_layout_of_the_cloud(tmp_path):
    names = ["normal_001", "tumor_001", "test_001", "test_002"]
    for name in names:
        touch(tmp_path / "images" / f"{name}.tif")
        touch(tmp_path / "masks" / f"{name}_mask.tif")
        touch(tmp_path / "background_tissue" / f"{name}.tif")
    with pytest.raises(DataError, match=r"reference.csv is missing"):
        read(tmp_path)
    touch(tmp_path / "annotations" / "tumor_001.xml")
    touch(tmp_path / "annotations" / "test_002.xml")
    table = read(tmp_path)
    assert dict(zip(table["id"], table["label"], strict=True)) == {
        "normal_001": 0, "tumor_001": 1, "test_001": 0, "test_002": 1,
    }  # fmt: skip
    assert any("with a drawn tumour is tumor" in w for w in table.warnings)
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "reference.csv").write_text("test_001.tif,tumor\ntest_002.tif,NORMAL\n")
    table = read(tmp_path)
    assert table["label"][table["split"] == "test"].tolist() == [1, 0]


@pytest.mark.parametrize(
    "reference, why",
    [
        ("test_001,Tumor\n", "no row of test_002"),
        ("test_001,Tumor\ntest_002,Maybe\n", "line 2: 'test_002,Maybe' does not say"),
        ("test_001,Tumor\ntest_002\n", "line 2"),
        ("test_001,Tumor\ntest_002,Normal\ntest_001,Normal\n", "test_001 is normal here and tumor above"),
    ],
)
def test_a_reference_that_cannot_be(tmp_path, reference, why):
    with pytest.raises(DataError, match=why):
        read(make(tmp_path, reference))


def test_a_header_that_somebody_added_is_no_slide(tmp_path):
    table = read(make(tmp_path, "\ufeffimage,type\r\ntest_001,Tumor\r\n\r\ntest_002,Normal\r\n"))
    assert table["label"][table["split"] == "test"].tolist() == [1, 0]


def test_what_does_not_belong(tmp_path):
    root = make(tmp_path)
    touch(root / "training" / "tumor" / "._tumor_002.tif")
    assert len(read(root)) == 6
    touch(root / "training" / "tumor" / "normal_003.tif")
    with pytest.raises(DataError, match="lies under tumor, and its name says normal"):
        read(root)
    (root / "training" / "tumor" / "normal_003.tif").rename(root / "training" / "tumor" / "tumor_3.tif")
    with pytest.raises(DataError, match="does not match normal_<nnn>.tif"):
        read(root)
    (root / "training" / "tumor" / "tumor_3.tif").unlink()
    touch(root / "copy" / "images" / "tumor_002.tif")
    with pytest.raises(DataError, match="are one and the same item"):
        read(root)
    with pytest.raises(DataError, match="does not hold the official layout"):
        read(_empty(tmp_path))
    with pytest.raises(CardError, match="no option tiles"):
        read(root, tiles=3)


def _empty(tmp_path):
    (tmp_path / "empty").mkdir()
    return tmp_path / "empty"


def test_small_is_a_prefix_of_full(tmp_path):
    """Tiles are drawn by eva's rule from one shuffled grid, so that the smaller set is the beginning of the larger."""
    for i, name in enumerate(TRAIN):
        pyramid(tmp_path / "training" / f"{name}.tif", tissue(256, 192, seed=i), 0.25)
    shelf = Catalogue().datasets
    cards = {name: shelf.get(name, "").card for name in ("camelyon16", "camelyon16-full")}
    assert [c.options["limit"] for c in cards.values()] == [1000, 10_000]
    assert all(
        {"mpp": 0.25, "size": 224, "rule": "eva", "seed": 42}.items() <= c.options.items() for c in cards.values()
    )
    of = {}
    for limit in (0, 3, 7):
        dataset = Camelyon16("camelyon16", options={**cards["camelyon16"].options, "size": 32, "limit": limit})
        tiles = dataset.tiles(tmp_path, dataset.items(tmp_path))
        of[limit] = {s: tiles["id"][tiles["slide"] == s].tolist() for s in set(tiles["item"].tolist())}
    assert all(len(v) == 12 for v in of[0].values()) and len(of[0]) == 4
    for slide, whole in of[0].items():
        assert of[3][slide] == of[7][slide][:3] and len(of[7][slide]) == 7
        assert set(of[7][slide]) <= set(whole)
    assert set(tiles["split"].tolist()) == {"train", "val"} and set(tiles["px"].tolist()) == {32}


@pytest.mark.slow
def test_the_miniature_is_read_like_the_original(tmp_path):
    assert bench("data", "phantom", "camelyon16", "--out", tmp_path).code == 0
    dataset = Catalogue().datasets.get("camelyon16", "")
    items = dataset.items(tmp_path / "camelyon16")
    splits, counts = np.unique(items["split"], return_counts=True)
    assert dict(zip(splits.tolist(), counts.tolist(), strict=True)) == {"test": 6, "train": 12, "val": 6}
    tiles = dataset.tiles(tmp_path / "camelyon16", items)
    assert set(tiles["item"].tolist()) == set(items["id"].tolist()), "every slide has tissue"
