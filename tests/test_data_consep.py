"""CoNSeP: the official layout in small, boxes and classes of pixels, and the traps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import eosin_data.consep as module
from eosin.errors import DataError
from eosin.index import open_index
from eosin.plugins import Catalogue
from eosin.tiles import Reader

Q = 4  # px of a box in these tests; the set's own are 250


def consep(**options):
    known = Catalogue().datasets.get("consep", "")
    return type(known)(replace(known.card, options={"patch": Q, **options}))


def label(path: Path, types: np.ndarray, key: str = "type_map") -> None:
    from scipy.io import savemat

    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"inst_map": np.ones(types.shape), key: types})


def field(root: Path, part: str, n: int, types: np.ndarray | None = None, mode: str = "RGB") -> np.ndarray:
    """Image n of a part, 8 x 12 px, each pixel's red the number of its box, and its label."""
    height, width = 2 * Q, 3 * Q
    boxes = np.kron(np.arange(6).reshape(3, 2).T, np.ones((Q, Q))).astype(np.uint8)  # down one column after another
    pixels = np.stack([boxes, *[np.full_like(boxes, n)] * 2, np.full_like(boxes, 255)], axis=2)
    path = root / part / "Images" / f"{part.lower()}_{n}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels[..., : len(mode)], mode).save(path)
    types = np.arange(height * width).reshape(height, width) % 8 if types is None else types
    label(root / part / "Labels" / f"{part.lower()}_{n}.mat", types.astype(np.float64))
    return types


def tree(root: Path) -> Path:
    for part, numbers in (("Train", (1, 2, 10)), ("Test", (1,))):
        for n in numbers:
            field(root, part, n)
        (root / part / "Overlay").mkdir()
        Image.new("RGB", (9, 9)).save(root / part / "Overlay" / "train_77.png")
    return root


def test_boxes_go_down_one_column_after_another(tmp_path):
    dataset = consep()
    table = dataset.items(tree(tmp_path))
    assert len(table) == 4 * 6 and table.counts == {"images_train": 3, "images_test": 1}
    assert [(x, y) for x, y in zip(table["x"][:6].tolist(), table["y"][:6].tolist())] == [
        (0, 0), (0, 4), (4, 0), (4, 4), (8, 0), (8, 4)
    ]  # fmt: skip
    assert (table["w"] == Q).all() and (table["h"] == Q).all() and (table["mpp"] == 0.25).all()
    assert (
        table["id"][1] == "train_1#0,4"
        and table["slide"][1] == "train_1"
        and table["source"][1] == "Train/Images/train_1.png"
    )
    reader = Reader(tmp_path, table)
    assert [np.unique(np.asarray(reader.read(i))[..., 0]).tolist() for i in range(6)] == [[k] for k in range(6)]
    assert len(set(table["id"].tolist())) == 24 and table.known("label") is None
    assert table.classes == ("background", "other", "inflammatory", "epithelial", "spindle-shaped")


def test_the_official_image_gives_sixteen(tmp_path):
    (tmp_path / "Train" / "Images").mkdir(parents=True)
    Image.new("RGB", (1000, 1000)).save(tmp_path / "Train" / "Images" / "train_1.png", compress_level=1)
    label(tmp_path / "Train" / "Labels" / "train_1.mat", np.full((1000, 1000), 7.0))
    dataset = Catalogue().datasets.get("consep", "")
    table = dataset.items(tmp_path)
    assert len(table) == 16 and table["x"].tolist() == [x for x in (0, 250, 500, 750) for _ in range(4)]
    assert table["y"].tolist() == [0, 250, 500, 750] * 4
    mask = dataset.mask(tmp_path, table, 15)
    assert mask.shape == (250, 250) and set(mask.ravel().tolist()) == {4} and mask.dtype == np.int64


def test_numbers_are_in_order_and_test_is_val(tmp_path):
    table = consep().items(tree(tmp_path))
    assert list(dict.fromkeys(table["slide"].tolist())) == ["train_1", "train_2", "train_10", "test_1"]
    assert set(zip(table["slide"].tolist(), table["split"].tolist())) == {
        ("train_1", "train"), ("train_2", "train"), ("train_10", "train"), ("test_1", "val")
    }  # fmt: skip
    assert not any("Overlay" in s for s in table["source"].tolist()) and (table["group"] == "").all()


def test_seven_types_are_four_classes(tmp_path):
    types = np.kron([[0, 1, 2], [3, 4, 5]], np.ones((Q, Q)))
    types[:, :2] = [6, 7]
    field(tmp_path, "Train", 1, types)
    dataset = consep()
    table = dataset.items(tmp_path)
    row = np.array([0, 1, 2, 3, 3, 4, 4, 4])
    for i in range(len(table)):
        x, y = table["x"][i], table["y"][i]
        np.testing.assert_array_equal(dataset.mask(tmp_path, table, i), row[types.astype(int)][y : y + Q, x : x + Q])


def test_an_alpha_channel_is_dropped(tmp_path):
    field(tmp_path, "Train", 1, mode="RGBA")
    image = Reader(tmp_path, consep().items(tmp_path)).read(3)
    assert image.mode == "RGB" and image.getpixel((0, 0)) == (3, 1, 1)


def test_a_copy_whose_types_are_merged_is_said(tmp_path):
    field(tmp_path, "Train", 1, np.full((2 * Q, 3 * Q), 4))
    table = consep().items(tmp_path)
    assert any("no type above 4" in w and "types: merged" in w for w in table.warnings)
    assert set(consep().mask(tmp_path, table, 0).ravel().tolist()) == {3}, "4 is dysplastic epithelium"
    merged = consep(types="merged")
    assert set(merged.mask(tmp_path, merged.items(tmp_path), 0).ravel().tolist()) == {4}
    assert not any("no type above" in w for w in merged.items(tmp_path).warnings)
    field(tmp_path, "Train", 2)
    with pytest.raises(DataError, match="train_2.mat: type_map holds 7; merged types go from 0 to 4"):
        merged.items(tmp_path)
    assert not any("no type above" in w for w in consep().items(tmp_path).warnings)


@pytest.mark.parametrize(
    ("types", "says"),
    [
        (np.full((2 * Q, 3 * Q), 8), "type_map holds 8; raw types go from 0 to 7"),
        (np.full((2 * Q, 3 * Q), 0.5), r"type_map \(float64, shape \(8, 12\)\) is no map of whole numbers"),
        (np.full((2 * Q, 3 * Q), -1), "is no map of whole numbers"),
        (np.full((2 * Q, 3 * Q), np.nan), "is no map of whole numbers"),
        (np.zeros((3 * Q, 2 * Q)), r"type_map is 8 x 12 px and .*train_1.png is 12 x 8 px"),
    ],
)
def test_maps_that_cannot_be(tmp_path, types, says):
    field(tmp_path, "Train", 1, types)
    with pytest.raises(DataError, match=says):
        consep().items(tmp_path)


def test_labels_of_another_kind(tmp_path):
    field(tmp_path, "Train", 1)
    path = tmp_path / "Train" / "Labels" / "train_1.mat"
    label(path, np.zeros((2 * Q, 3 * Q)), key="types")
    with pytest.raises(DataError, match="train_1.mat holds no type_map"):
        consep().items(tmp_path)
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(200))
    with pytest.raises(DataError, match="train_1.mat cannot be read as a MATLAB file"):
        consep().items(tmp_path)


def test_images_and_labels_that_do_not_match(tmp_path):
    (tree(tmp_path) / "Train" / "Images" / "train_2.png").unlink()
    assert any(
        "1 labels have no image and were passed over, such as train_2.mat" in w
        for w in consep().items(tmp_path).warnings
    )
    (tmp_path / "Train" / "Labels" / "train_1.mat").unlink()
    with pytest.raises(DataError, match=r"train_1.png has no .*Labels/train_1.mat"):
        consep().items(tmp_path)


def test_broken_trees(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"Expected there:[\s\S]*Labels/train_1.mat"):
        consep().items(tmp_path)
    tree(tmp_path / "CoNSeP")
    (tmp_path / "CoNSeP" / "Train" / "Images" / "._train_1.png").write_bytes(b"x")
    tree(tmp_path / "__MACOSX" / "CoNSeP")
    assert len(consep().items(tmp_path)) == 24
    with pytest.raises(DataError, match="is 12 x 8 px, smaller than a box of 250 px"):
        consep(patch=250).items(tmp_path)
    Image.new("RGB", (8, 8)).save(tmp_path / "CoNSeP" / "Train" / "Images" / "test_4.png")
    with pytest.raises(DataError, match="test_4.png: it lies under Train, and its name says test"):
        consep().items(tmp_path)
    (tmp_path / "CoNSeP" / "Train" / "Images" / "test_4.png").rename(tmp_path / "CoNSeP" / "Train" / "Images" / "4.png")
    with pytest.raises(DataError, match="4.png does not match train_<number>.png"):
        consep().items(tmp_path)
    (tmp_path / "CoNSeP" / "Train" / "Images" / "4.png").unlink()
    monkeypatch.setitem(module.PARTS, "Train", ("train", 2))
    with pytest.raises(DataError, match="3 images of Train, more than the official 2"):
        consep().items(tmp_path)


def test_other_masks_are_other_rows_and_the_same_tiles(tmp_path):
    field(tmp_path / "consep", "Train", 1)
    first = open_index(consep(), tmp_path, tmp_path / "indexes", tmp_path / "consep")
    before = consep().mask(tmp_path / "consep", first.table, 0)
    field(tmp_path / "consep", "Train", 1, np.full((2 * Q, 3 * Q), 6))
    second = open_index(consep(), tmp_path, tmp_path / "indexes", tmp_path / "consep")
    assert first.rows != second.rows and first.tiles == second.tiles
    assert (before != consep().mask(tmp_path / "consep", second.table, 0)).any(), (
        "a kept mask is not the file's any more"
    )
