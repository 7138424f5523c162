"""IDC: the official layout and its traps."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from eosin.errors import DataError, MissingError
from eosin.plugins import Catalogue
from eosin.tiles import Reader


@pytest.fixture
def idc():
    return Catalogue().datasets.get("idc", "")


def patch(root, patient, x, label, folder=None, name=None, size=(50, 50)):
    place = root / str(patient) / str(label if folder is None else folder)
    place.mkdir(parents=True, exist_ok=True)
    path = place / (name or f"{patient}_idx5_x{x}_y101_class{label}.png")
    Image.fromarray(np.full((size[1], size[0], 3), x % 256, np.uint8)).save(path)
    return path


def tree(root):
    for patient in (10253, 8863):
        for x in (1, 51, 101):
            patch(root, patient, x, 0)
        patch(root, patient, 501, 1)
    return root


def test_the_official_layout(idc, tmp_path):
    table = idc.items(tree(tmp_path / "idc"))
    assert len(table) == 8 and table.classes == ("IDC-negative", "IDC-positive")
    row = table["id"].tolist().index("10253_idx5_x501_y101_class1")
    assert (table["label"][row], table["group"][row], table["slide"][row]) == (1, "10253", "10253")
    assert table["source"][row] == "10253/1/10253_idx5_x501_y101_class1.png" and table["mpp"][row] == 4.0
    assert table.counts == {"patient_folders": 2, "negative": 6, "positive": 2}
    assert "8 patches of the official 277,524" in table.warnings[0]


def test_the_nested_second_copy_is_read_once(idc, tmp_path):
    root = tree(tmp_path / "idc")
    tree(root / "IDC_regular_ps50_idx5")
    table = idc.items(root)
    assert len(table) == 8 and "second copy" in table.warnings[0]


def test_the_nested_copy_alone_and_a_folder_around_it_will_do(idc, tmp_path):
    tree(tmp_path / "a" / "IDC_regular_ps50_idx5")
    assert idc.items(tmp_path / "a")["source"][0].startswith("IDC_regular_ps50_idx5/")
    tree(tmp_path / "b" / "unzipped")
    assert len(idc.items(tmp_path / "b")) == 8


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (dict(label=1, folder=0), "lies in folder 0 and its name says class 1"),
        (dict(label=0, name="9999_idx5_x1_y1_class0.png"), "folder of patient 10253 and its name says 9999"),
        (dict(label=0, name="patch.png"), "does not match <patient>_idx5"),
        (dict(label=0, folder="other"), "is neither 0 nor 1"),
    ],
)
def test_what_disagrees_is_named(idc, tmp_path, wrong, said):
    root = tree(tmp_path / "idc")
    path = patch(root, 10253, 901, **wrong)
    with pytest.raises(DataError, match=said) as caught:
        idc.items(root)
    assert path.name in str(caught.value) or "other" in str(caught.value)


def test_patches_that_are_not_50_px_are_read_as_they_are(idc, tmp_path):
    root = tree(tmp_path / "idc")
    patch(root, 10253, 777, 0, size=(31, 50))
    table = idc.items(root)
    row = table["id"].tolist().index("10253_idx5_x777_y101_class0")
    assert Reader(root, table).read(row).size == (31, 50)


def test_what_systems_leave_behind_is_passed_over(idc, tmp_path):
    root = tree(tmp_path / "idc")
    (root / "10253" / "0" / "._10253_idx5_x1_y101_class0.png").write_bytes(b"x")
    (root / "10253" / "0" / "Thumbs.db").write_bytes(b"x")
    (root / "__MACOSX").mkdir()
    table = idc.items(root)
    assert len(table) == 8 and "1 files that are not png" in table.warnings[1]


def test_nothing_there(idc, tmp_path):
    (tmp_path / "idc").mkdir()
    with pytest.raises(DataError, match="bench data where idc"):
        idc.items(tmp_path / "idc")
    with pytest.raises(MissingError, match="kaggle datasets download"):
        idc.locate(tmp_path / "data")


def test_more_than_there_are_is_a_copy(idc, tmp_path, monkeypatch):
    import eosin_data.idc as loader

    monkeypatch.setattr(loader, "OFFICIAL", 7)
    with pytest.raises(DataError, match="holds a copy"):
        idc.items(tree(tmp_path / "idc"))
