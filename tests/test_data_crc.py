"""NCT-CRC-HE: the official layout and its traps."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

import eosin_data.crc as module
from eosin.errors import DataError
from eosin.plugins import Catalogue

CLASSES = ("ADI", "BACK", "DEB", "LYM", "MUC", "MUS", "NORM", "STR", "TUM")
TRAIN, VAL, RAW = "NCT-CRC-HE-100K", "CRC-VAL-HE-7K", "NCT-CRC-HE-100K-NONORM"


@pytest.fixture
def crc():
    return Catalogue().datasets.get("crc", "")


def image(path: Path, grey: int = 200) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (grey, 120, 180)).save(path)
    return path


def part(root: Path, name: str, n: int = 1, before: str = "") -> Path:
    for c in CLASSES:
        for k in range(n):
            image(root / name / c / f"{c}-{before}AAAFLCL{'YZX'[k]}.tif")
    return root


def tree(root: Path) -> Path:
    return part(part(root, TRAIN, 2), VAL, 1, "TCGA-")


def test_the_official_layout(crc, tmp_path):
    table = crc.items(tree(tmp_path))
    assert table.classes == CLASSES and len(table) == 27 and (table["mpp"] == 0.5).all()
    row = table["id"].tolist().index("MUS-TCGA-AAAFLCLY")
    assert (table["label"][row], table["split"][row]) == (5, "val")
    assert table["source"][row] == f"{VAL}/MUS/MUS-TCGA-AAAFLCLY.tif"
    assert {s: table["split"].tolist().count(s) for s in ("train", "val")} == {"train": 18, "val": 9}
    assert (table["group"] == "").all() and "no patients are known" in table.warnings[-1]


def test_the_unnormalised_set_is_not_mixed_in(crc, tmp_path):
    part(tree(tmp_path), RAW, 3)
    table = crc.items(tmp_path)
    assert len(table) == 27 and not any(RAW in s for s in table["source"].tolist())


def test_the_unnormalised_set_alone_will_not_do(crc, tmp_path):
    part(tmp_path, RAW)
    with pytest.raises(DataError, match=f"{RAW} only, which is not the set that is scored"):
        crc.items(tmp_path)


def test_a_folder_around_and_a_copy(crc, tmp_path):
    tree(tmp_path / "unpacked")
    part(tmp_path / "old" / "twice", TRAIN, 3)
    part(tmp_path / "__MACOSX", TRAIN, 3)
    (tmp_path / "unpacked" / TRAIN / "ADI" / "._ADI-AAAFLCLY.tif").write_bytes(b"x")
    table = crc.items(tmp_path)
    assert len(table) == 27 and table.warnings[0] == f"old/twice/{TRAIN} is a second copy and was passed over"


def test_one_part_is_a_partial_download(crc, tmp_path):
    table = crc.items(part(tmp_path, TRAIN))
    assert set(table["split"].tolist()) == {"train"}
    assert f"0 patches of {VAL} of the official 7,180: a subset or a partial download" in table.warnings


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("ADI/TUM-AAAFLCLY.tif", "it lies under ADI, and its name says TUM"),
        ("ADI/adi 1.tif", "does not match ADI-<code>.tif"),
        ("TUMOR/TUM-AAAFLCLY.tif", "TUMOR is none of ADI, BACK"),
    ],
)
def test_what_is_not_official_is_named(crc, tmp_path, wrong, says):
    image(tree(tmp_path) / TRAIN / wrong)
    with pytest.raises(DataError, match=says):
        crc.items(tmp_path)


def test_more_than_there_are_is_a_copy(crc, tmp_path, monkeypatch):
    monkeypatch.setitem(module.PARTS, "train", (TRAIN, 17))
    with pytest.raises(DataError, match=f"18 patches of {TRAIN}, more than the official 17"):
        crc.items(tree(tmp_path))


def test_nothing_there(crc, tmp_path):
    with pytest.raises(DataError, match=r"Expected there:[\s\S]*CRC-VAL-HE-7K"):
        crc.items(tmp_path)


def test_the_archives_have_checksums(crc):
    assert [(n, m) for _, n, m in crc.downloads()] == [
        (f"{TRAIN}.zip", "md5:035777cf327776a71a05c95da6d6325f"),
        (f"{VAL}.zip", "md5:2fd1651b4f94ebd818ebf90ad2b6ce06"),
    ]
