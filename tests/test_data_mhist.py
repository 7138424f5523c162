"""MHIST: the official layout and its traps."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from PIL import Image

import eosin_data.mhist as module
from eosin.errors import DataError, MissingError
from eosin.plugins import Catalogue

HEADER = "Image Name,Majority Vote Label,Number of Annotators who Selected SSA (Out of 7),Partition"
ROWS = ("MHIST_aaa.png,SSA,6,train", "MHIST_aab.png,HP,0,train", "MHIST_aac.png,HP,3,test", "MHIST_aaf.png,SSA,4,test")


@pytest.fixture
def mhist():
    return Catalogue().datasets.get("mhist", "")


def tree(root: Path, rows=ROWS, header: str = HEADER, images=("aaa", "aab", "aac", "aaf")) -> Path:
    (root / "images").mkdir(parents=True, exist_ok=True)
    for name in images:
        Image.new("RGB", (8, 8), (200, 120, 180)).save(root / "images" / f"MHIST_{name}.png")
    (root / "annotations.csv").write_text("\n".join([header, *rows]) + "\n")
    return root


def read(table) -> list[tuple]:
    return list(zip(*(table[c].tolist() for c in ("id", "label", "split", "partition", "votes"))))


EXPECTED = [
    ("MHIST_aaa", 0, "train", "train", 6), ("MHIST_aab", 1, "train", "train", 0),
    ("MHIST_aac", 1, "val", "test", 3), ("MHIST_aaf", 0, "val", "test", 4),
]  # fmt: skip


def test_the_official_layout(mhist, tmp_path):
    table = mhist.items(tree(tmp_path))
    assert table.classes == ("SSA", "HP") and read(table) == EXPECTED
    assert table["source"][0] == "images/MHIST_aaa.png" and (table["mpp"] == 2.0).all()
    assert table.warnings[0] == "4 images of the official 3,152: a subset or a partial download"


def test_columns_are_found_by_their_names(mhist, tmp_path):
    header = ",".join(reversed(HEADER.split(",")))
    assert read(mhist.items(tree(tmp_path, [",".join(reversed(r.split(","))) for r in ROWS], header))) == EXPECTED
    few = [r.split(",") for r in ROWS]
    table = mhist.items(
        tree(tmp_path, [f"{a},{b},{d}" for a, b, _, d in few], "Image Name,Majority Vote Label,Partition")
    )
    assert [r[:4] for r in read(table)] == [r[:4] for r in EXPECTED] and table["votes"].tolist() == [-1] * 4


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("MHIST_aag.png,ssa,1,train", "line 6: 'ssa' and 'train' are not SSA or HP and train or test"),
        ("MHIST_aag.png,SSA,1,val", "line 6: 'SSA' and 'val' are not"),
        ("../MHIST_aag.png,SSA,1,train", "line 6: image '../MHIST_aag.png' is not MHIST_<letters>.png"),
        ("MHIST_aaa.png,SSA,6,train", "line 6 and .*line 2 are one and the same item"),
        ("MHIST_aag.png,SSA,many,train", "line 6: Number of Annotators .* is 'many', not a whole number"),
    ],
)
def test_what_is_not_official_is_named(mhist, tmp_path, row, says):
    with pytest.raises(DataError, match=says):
        mhist.items(tree(tmp_path, [*ROWS, row]))


def test_a_table_without_its_columns(mhist, tmp_path):
    with pytest.raises(DataError, match="the column Partition is missing"):
        mhist.items(tree(tmp_path, ["MHIST_aaa.png,SSA,6,train"], HEADER.replace("Partition", "Split")))


def test_images_and_table_that_do_not_match(mhist, tmp_path):
    tree(tmp_path / "unpacked", images=("aaa", "aac", "zzz"))
    (tmp_path / "unpacked" / "images" / "._MHIST_aaa.png").write_bytes(b"x")
    table = mhist.items(tmp_path)
    assert [r[0] for r in read(table)] == ["MHIST_aaa", "MHIST_aac"]
    assert table.warnings[:2] == [
        "2 images of annotations.csv are not in images/: a partial download",
        "1 images of images/ are not in annotations.csv and were passed over",
    ]


def test_a_table_that_is_not_the_official_one(mhist, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "OFFICIAL", 4)
    warnings = mhist.items(tree(tmp_path)).warnings
    assert warnings[0].startswith("annotations.csv is not the official file, whose md5 is 4f4a2c2b621c4caa")
    monkeypatch.setattr(module, "MD5", hashlib.md5((tmp_path / "annotations.csv").read_bytes()).hexdigest())
    assert mhist.items(tmp_path).warnings == warnings[1:]


def test_nothing_there(mhist, tmp_path):
    (tmp_path / "mhist" / "images").mkdir(parents=True)
    with pytest.raises(DataError, match=r"Expected there:[\s\S]*annotations.csv"):
        mhist.items(tmp_path / "mhist")
    with pytest.raises(MissingError, match=r"fill in the form at bmirds.github.io/MHIST"):
        mhist.locate(tmp_path / "nowhere")
    assert not hasattr(mhist, "downloads")
