"""PatchCamelyon: the official layout and its traps."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import h5py
import numpy as np
import pytest

import eosin_data.pcam as module
from eosin.errors import DataError
from eosin.index import open_index
from eosin.plugins import Catalogue
from eosin.tiles import Reader

STEM = "camelyonpatch_level_2_split"
SIZES = {"train": 4, "valid": 3, "test": 2}


@pytest.fixture
def pcam():
    return Catalogue().datasets.get("pcam", "")


def write(path: Path, **arrays) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for key, values in arrays.items():
            file[key] = values
    return path


def pair(root: Path, split: str, n: int, first: int = 0, **y) -> Path:
    x = np.full((n, 12, 12, 3), 7, np.uint8) * np.arange(1, n + 1, dtype=np.uint8)[:, None, None, None]
    write(root / f"{STEM}_{split}_x.h5", x=x)
    write(
        root / f"{STEM}_{split}_y.h5", **(y or {"y": ((np.arange(n) + first) % 2).astype(np.uint8).reshape(n, 1, 1, 1)})
    )
    return root


def tree(root: Path) -> Path:
    for split, n in SIZES.items():
        pair(root, split, n, split == "valid")
    return root


def meta(root: Path, split: str, slides: list[str]) -> None:
    rows = [f"{k},9,9,True,False,{s}" for k, s in enumerate(slides)]
    text = "\n".join([",coord_y,coord_x,tumor_patch,center_tumor_patch,wsi", *rows])
    (root / f"{STEM}_{split}_meta.csv").write_text(text + "\n")


def test_the_official_layout(pcam, tmp_path):
    table = pcam.items(tree(tmp_path))
    assert table.classes == ("normal", "tumor") and (table["mpp"] == 0.97).all()
    assert table["id"].tolist() == [*(f"train#{i}" for i in range(4)), "val#0", "val#1", "val#2", "test#0", "test#1"]
    assert table["split"].tolist() == ["train"] * 4 + ["val"] * 3 + ["test"] * 2, "valid on disk is val"
    assert table["label"].tolist() == [0, 1, 0, 1, 1, 0, 1, 0, 1]
    assert table["row"].tolist() == [0, 1, 2, 3, 0, 1, 2, 0, 1] and set(table["key"].tolist()) == {"x"}
    assert table["source"][5] == f"{STEM}_valid_x.h5"
    assert np.asarray(Reader(tmp_path, table).read(5)).tolist() == np.full((12, 12, 3), 14).tolist()


def test_slides_come_from_the_tables_beside(pcam, tmp_path):
    meta(tree(tmp_path), "train", ["camelyon16_train_tumor_070", "a", "a", "b"])
    table = pcam.items(tmp_path)
    assert table["slide"].tolist() == ["camelyon16_train_tumor_070", "a", "a", "b", *[""] * 5]
    assert table["group"].tolist() == table["slide"].tolist()
    assert f"there is no {STEM}_test_meta.csv, so the slides of its patches are not known" in table.warnings
    meta(tmp_path, "valid", ["a"])
    with pytest.raises(DataError, match="valid_meta.csv has 1 rows for 3 patches"):
        pcam.items(tmp_path)


@pytest.mark.parametrize("name", [f"{STEM}_valid_x.h5", f"{STEM}_test_y.h5"])
def test_files_that_are_still_packed(pcam, tmp_path, name):
    path = tree(tmp_path) / name
    packed = path.with_name(f"{name}.gz")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert len(pcam.items(tmp_path)) == 9, "both are there: the packed one is not read"
    path.unlink()
    with pytest.raises(DataError, match=rf"{name}.gz is packed, and rows are read from {name}\. Run: gunzip"):
        pcam.items(tmp_path)


def test_all_packed(pcam, tmp_path):
    (tmp_path / f"{STEM}_train_x.h5.gz").write_bytes(gzip.compress(b"x"))
    with pytest.raises(DataError, match="Run: gunzip"):
        pcam.items(tmp_path)


def test_a_pair_that_is_not_whole(pcam, tmp_path):
    (tree(tmp_path) / f"{STEM}_valid_y.h5").unlink()
    with pytest.raises(DataError, match=f"{STEM}_valid_x.h5 is there and {STEM}_valid_y.h5 is not"):
        pcam.items(tmp_path)
    (tmp_path / f"{STEM}_valid_x.h5").unlink()
    table = pcam.items(tmp_path)
    assert set(table["split"].tolist()) == {"train", "test"}
    assert f"there is no {STEM}_valid_x.h5: a partial download" in table.warnings


@pytest.mark.parametrize(
    ("y", "says"),
    [
        ({"y": np.zeros((3, 1, 1, 1), np.uint8)}, r"has 4 images and .*_y.h5 labels of shape \(3, 1, 1, 1\)"),
        ({"y": np.full((4, 1, 1, 1), 2, np.uint8)}, "holds other labels than 0 and 1"),
        ({"y": np.zeros((4, 1, 1, 1), np.float32)}, "array y is float32, not uint8"),
        ({"mask": np.zeros(4, np.uint8)}, "holds mask and no array y"),
    ],
)
def test_labels_that_are_not_the_images(pcam, tmp_path, y, says):
    with pytest.raises(DataError, match=says):
        pcam.items(pair(tmp_path, "train", 4, **y))


def test_files_that_are_not_what_their_names_say(pcam, tmp_path):
    path = pair(tmp_path, "train", 4) / f"{STEM}_train_x.h5"
    write(path, x=np.zeros((4, 12, 12), np.uint8))
    with pytest.raises(DataError, match=r"array x has shape \(4, 12, 12\)"):
        pcam.items(tmp_path)
    path.write_bytes(b"<html>")
    with pytest.raises(DataError, match="train_x.h5 is not an HDF5 file"):
        pcam.items(tmp_path)


def test_a_folder_around_a_copy_and_the_masks(pcam, tmp_path):
    tree(tmp_path / "a")
    tree(tmp_path / "b")
    write(tmp_path / "a" / f"{STEM}_train_mask.h5", mask=np.zeros(4))
    table = pcam.items(tmp_path)
    assert len(table) == 9 and table.warnings[0] == "b is a second copy and was passed over"


def test_labels_that_are_not_the_official_ones(pcam, tmp_path, monkeypatch):
    """Swapped valid and test have as many rows each: only the checksum of the labels tells."""
    monkeypatch.setattr(module, "COUNTS", SIZES)
    said = [w for w in pcam.items(tree(tmp_path)).warnings if "md5" in w]
    assert said[1] == f"{STEM}_valid_y.h5 is not the official file, whose md5 is 94d8aacc249253159ce2a2e78a86e658"
    assert len(said) == 3 and "11ed647efe9fe457a4eb45df1dba19ba" in said[2]
    monkeypatch.setattr(module, "COUNTS", SIZES | {"train": 3})
    with pytest.raises(DataError, match="4 patches of .*, more than the official 3"):
        pcam.items(tmp_path)


def test_new_labels_are_seen(pcam, tmp_path):
    """The labels' file is no source of tiles, and yet the table is made anew when it changes."""
    for path in (tree(tmp_path / "pcam"), *(tmp_path / "pcam").iterdir()):
        os.utime(path, (1e9, 1e9))  # what changed a moment ago is never trusted
    first = open_index(pcam, tmp_path, tmp_path / "indexes", tmp_path / "pcam")
    write(tmp_path / "pcam" / f"{STEM}_test_y.h5", y=np.array([1, 0], np.uint8).reshape(2, 1, 1, 1))
    second = open_index(pcam, tmp_path, tmp_path / "indexes", tmp_path / "pcam")
    assert second.table["label"].tolist()[-2:] == [1, 0] and first.rows != second.rows
