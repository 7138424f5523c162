"""BACH: the official layout, EVA's split, and the traps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from eosin.errors import DataError, MissingError
from eosin.plugins import Catalogue
from helpers import bench

CODES = {"Benign": "b", "InSitu": "is", "Invasive": "iv", "Normal": "n"}
TOP = "ICIAR2018_BACH_Challenge"


@pytest.fixture
def bach():
    return Catalogue().datasets.get("bach", "")


def image(path: Path, grey: int = 200) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), (grey, 120, 180)).save(path)
    return path


def tree(root: Path, numbers=(1, 41, 42, 60, 100), top: str = TOP) -> Path:
    for name, code in CODES.items():
        for n in numbers:
            image(root / top / "Photos" / name / f"{code}{n:03d}.tif")
    return root


def parts(table) -> dict[str, list[int]]:
    """{split: 100 x class + number - 1 of its rows}, as eva numbers them."""
    found: dict[str, list[int]] = {}
    for id, label, split in zip(table["id"].tolist(), table["label"].tolist(), table["split"].tolist()):
        found.setdefault(split, []).append(100 * label + int(id[-3:]) - 1)
    return found


def test_the_official_layout(bach, tmp_path):
    table = bach.items(tree(tmp_path))
    assert table.classes == tuple(CODES) and len(table) == 20 and (table["mpp"] == 0.42).all()
    row = table["id"].tolist().index("iv042")
    assert (table["label"][row], table["split"][row]) == (2, "val")
    assert table["source"][row] == f"{TOP}/Photos/Invasive/iv042.tif"
    assert "20 images of the official 400" in table.warnings[0] and "shrunk" in table.warnings[1]


def test_the_split_is_evas(bach, tmp_path, shared):
    expected = json.loads(shared("golden", "eva-splits-01", "expected.json").read_text())["bach"]
    assert parts(bach.items(tree(tmp_path, range(1, 101)))) == {"train": expected["train"], "val": expected["val"]}


def test_the_split_in_numbers(bach, tmp_path):
    found = bench("data", "check", "bach", tree(tmp_path, range(1, 101)), "--json").json
    assert found["differences"] == [] and found["official"] == found["counts"] | {"all": 400}
    ranges = ((0, 41), (59, 60), (90, 139), (169, 240), (258, 260), (273, 345), (368, 400))
    assert parts(bach.items(tmp_path))["train"] == [i for a, b in ranges for i in range(a, b)]


def test_a_file_that_is_not_there_moves_no_other(bach, tmp_path):
    root = tree(tmp_path, range(1, 101))
    whole = parts(bach.items(root))
    (root / TOP / "Photos" / "Benign" / "b001.tif").unlink()
    rest = parts(bach.items(root))
    assert rest["train"] == whole["train"][1:] and rest["val"] == whole["val"]


@pytest.mark.parametrize("inside", ["", "Photos"])
def test_the_folder_may_be_named_from_within(bach, tmp_path, inside):
    assert len(bach.items(tree(tmp_path) / TOP / inside)) == 20


def test_copies_and_leftovers_are_passed_over(bach, tmp_path):
    root = tree(tmp_path)
    tree(root, (1, 2), top="BACH_TRAIN")  # before the official folder by name, with a picture more
    photos = root / TOP / "Photos"
    image(root / "__MACOSX" / "Photos" / "Benign" / "b002.tif")
    (photos / "Benign" / "Thumbs.db").write_bytes(b"x")
    (photos / "Benign" / "._b001.tif").write_bytes(b"x")
    (photos / "microscopy_ground_truth.csv").write_text("b001.tif,Normal\n")
    image(root / "ICIAR2018_BACH_Challenge_TestDataset" / "Photos" / "test0.tif")
    table = bach.items(root)
    assert len(table) == 20 and all(s.startswith(f"{TOP}/") for s in table["source"].tolist())
    assert table.warnings[0] == "BACH_TRAIN/Photos is a second copy and was passed over"


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("In Situ/is001.tif", r"In Situ is none of Benign, InSitu, Invasive, Normal\. Give it its official name"),
        ("Benign/iv007.tif", "iv007.tif: it lies under Benign, and its name says Invasive"),
        ("Benign/b101.tif", r"b101.tif does not match b001.tif … b100.tif"),
        ("Benign/b000.tif", "b000.tif does not match"),
        ("Benign/b1.tif", "b1.tif does not match"),
    ],
)
def test_what_is_not_official_is_named(bach, tmp_path, wrong, says):
    image(tree(tmp_path) / TOP / "Photos" / wrong)
    with pytest.raises(DataError, match=says):
        bach.items(tmp_path)


def test_nothing_there(bach, tmp_path):
    image(tmp_path / "bach" / "Photos" / "test0.tif")
    with pytest.raises(DataError, match=r"Expected there:[\s\S]*Benign/b001.tif[\s\S]*bench data where bach"):
        bach.items(tmp_path / "bach")
    with pytest.raises(MissingError, match="bench data fetch bach"):
        bach.locate(tmp_path / "nowhere")
