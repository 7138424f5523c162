"""Loaders of the prostate sets, on miniature trees in the official layouts, each trap in one of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from eosin.errors import DataError
from eosin.plugins import Catalogue

CATALOGUE = Catalogue()
Q = 8  # px of a tile in these tests; the sets' own are 256 and 750


def dataset(name: str, **options):
    """The registry's dataset, with some options changed."""
    known = CATALOGUE.datasets.get(name, "")
    return type(known)(replace(known.card, options={**known.card.options, **options}))


def warned(table, text: str) -> bool:
    return any(text in w for w in table.warnings)


def picture(path: Path, height: int, width: int, grey: int = 120) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (grey, grey, grey)).save(path)
    return path


def mask(path: Path, blocks: list[list[int]], mode: str = "L") -> Path:
    """A mask of Q x Q px blocks, one value each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.kron(np.array(blocks, np.uint8), np.ones((Q, Q), np.uint8)))
    if mode == "P":  # a palette in which neighbours have the colours of others
        image = image.copy()
        image.putpalette([v for i in range(256) for v in (255 - i, 255 - i, 255 - i)])
    image.save(path)
    return path


def grid(table, name: str) -> dict[tuple[int, int], int]:
    """{(column, row): label} of the tiles of one image."""
    rows = [i for i, source in enumerate(table["source"].tolist()) if name in source]
    return {(int(table["x"][i]) // Q, int(table["y"][i]) // Q): int(table["label"][i]) for i in rows}


NAME = "slide001_core003"


def vote_tree(
    root: Path, maps: dict[int, list[list[int]]], images: str = "Train Imgs", folder: str = "Maps{}_T"
) -> Path:
    picture(root / images / f"{NAME}.jpg", Q, 2 * Q)
    for expert, blocks in maps.items():
        mask(root / folder.format(expert) / f"{NAME}_classimg_nonconvex.png", blocks)
    return root


def gleason(root: Path, **options):
    return dataset("gleason2019", patch=Q, **options).items(root)


@pytest.mark.parametrize(
    ("images", "folder"),
    [
        ("Train Imgs", "Maps{}_T"),
        ("Train_imgs", "Maps/Maps{}_T"),
        ("Train Imgs/Train Imgs", "Maps{0}_T/Maps{0}_T"),
        ("gleason/train imgs", "gleason/maps{} t"),
    ],
)
def test_gleason_folders_as_people_have_them(tmp_path, images, folder):
    table = gleason(vote_tree(tmp_path, {1: [[3, 4]], 6: [[3, 4]]}, images, folder))
    assert grid(table, NAME) == {(0, 0): 1, (1, 0): 2} and table.classes == ("benign", "G3", "G4", "G5")
    assert set(table["group"].tolist()) == {NAME} and set(table["slide"].tolist()) == {"slide001"}
    assert (table["w"] == Q).all() and warned(table, "G2L says 77,364") and table.counts["cores_train"] == 1


def test_gleason_asks_all_six(tmp_path):
    """Without the sixth pathologist it would be a tie; without the first, too."""
    assert grid(gleason(vote_tree(tmp_path, {1: [[3, 5]], 2: [[4, 4]], 6: [[3, 4]]})), NAME) == {(0, 0): 1, (1, 0): 2}


def test_gleason_ties_of_the_vote(tmp_path):
    vote_tree(tmp_path, {1: [[3, 5]], 2: [[4, 5]]})
    assert grid(gleason(tmp_path), NAME) == {(1, 0): 3}
    assert grid(gleason(tmp_path, pixel_ties="worst"), NAME) == {(0, 0): 2, (1, 0): 3}


def test_gleason_zero_abstains_unless_it_is_asked_to_vote(tmp_path):
    """Two of five drew a tumour: it is not hidden by the three who drew nothing there."""
    vote_tree(tmp_path, {1: [[4, 1]], 2: [[4, 1]], 3: [[0, 1]], 4: [[0, 1]], 5: [[0, 1]]})
    assert grid(gleason(tmp_path), NAME) == {(0, 0): 2, (1, 0): 0}
    assert grid(gleason(tmp_path, zero="vote"), NAME) == {(1, 0): 0}


def test_gleason_value_six(tmp_path):
    vote_tree(tmp_path, {1: [[6, 5]]})
    assert grid(gleason(tmp_path), NAME) == {(0, 0): 0, (1, 0): 3}
    assert grid(gleason(tmp_path, six="void"), NAME) == {(1, 0): 3}


def test_gleason_majority_cover_and_ties_of_a_tile(tmp_path):
    """Of 64 pixels: 31 labelled; 32 labelled, tied between G3 and G4."""
    vote_tree(tmp_path, {1: [[0, 0]]})
    path = tmp_path / "Maps1_T" / f"{NAME}_classimg_nonconvex.png"
    pixels = np.zeros((Q, 2 * Q), np.uint8)
    pixels[:4, :Q] = 5
    pixels[0, 0] = 0
    pixels[:4, Q:] = 3
    pixels[2:4, Q:] = 4
    Image.fromarray(pixels).save(path)
    table = gleason(tmp_path)
    assert grid(table, NAME) == {(1, 0): 2} and warned(table, "1 tiles have two classes with equally many pixels")
    assert grid(gleason(tmp_path, cover=0.4), NAME) == {(0, 0): 3, (1, 0): 2}
    assert grid(gleason(tmp_path, cover=0.4, tile_ties="drop"), NAME) == {(0, 0): 3}


def test_gleason_orphans_and_unlabelled_cores(tmp_path):
    vote_tree(tmp_path, {1: [[3, 4]]})
    picture(tmp_path / "Train Imgs" / "slide002_core001.jpg", Q, Q)
    picture(tmp_path / "Test" / "Test_imgs" / "slide002_core009.jpg", Q, Q)
    mask(tmp_path / "Maps2_T" / "slide007_core001_classimg_nonconvex.png", [[3]])
    table = gleason(tmp_path)
    assert len(table) == 2 and warned(table, "1 cores have fewer than 1 maps") and warned(table, "1 maps have no image")
    assert warned(table, "87 have no public maps")
    with pytest.raises(DataError, match="nothing in .* can be used"):
        gleason(tmp_path, min_experts=2)


def test_gleason_broken_trees(tmp_path):
    vote_tree(tmp_path, {1: [[3, 2]]})
    path = tmp_path / "Maps1_T" / f"{NAME}_classimg_nonconvex.png"
    with pytest.raises(DataError, match=rf"{path.name} holds the values 2; a mask has 0, 1, 3, 4, 5, 6 only"):
        gleason(tmp_path)
    mask(path, [[3]])
    with pytest.raises(DataError, match=rf"{path.name} is 8 x 8 px and .*{NAME}.jpg is 16 x 8 px"):
        gleason(tmp_path)
    Image.new("RGB", (2 * Q, Q)).save(path)
    with pytest.raises(DataError, match=rf"{path.name} is a RGB image, not a mask"):
        gleason(tmp_path)
    path.write_bytes(mask(path, [[3, 3]]).read_bytes()[:40])
    with pytest.raises(DataError, match=rf"{path.name} cannot be read"):
        gleason(tmp_path)
    mask(path, [[3, 3]])
    mask(tmp_path / "Maps1_T" / "Maps1_T" / path.name, [[3, 3]])
    with pytest.raises(DataError, match="are one and the same item"):
        gleason(tmp_path)


TRAIN, VAL, TEST = "ZT111_4_A_1_1", "ZT76_39_A_1_1", "ZT80_38_A_7_10"


@pytest.fixture
def cores(tmp_path) -> Path:
    """Three cores of 16 x 24 px with palette masks: benign and grade 4 side by side; one has no mask."""
    root = tmp_path / "dataset_TMA"
    for core in (TRAIN, VAL, TEST, "ZT111_4_A_9_9"):
        picture(root / "TMA_images" / f"{core}.jpg", 2 * Q, 3 * Q)
    for name in (f"Gleason_masks_train/mask_{TRAIN}", f"Gleason_masks_train/mask_{VAL}"):
        mask(root / f"{name}.png", [[0, 2, 4], [0, 2, 4]], "P")
    mask(root / "Gleason_masks_test/Gleason_masks_test_pathologist1" / f"mask1_{TEST}.png", [[1, 1, 1], [1, 1, 1]], "P")
    mask(root / "Gleason_masks_test/Gleason_masks_test_pathologist2" / f"mask2_{TEST}.png", [[3, 3, 3], [3, 3, 3]], "P")
    (root / "Gleason_masks_train" / f"._mask_{TRAIN}.png").write_bytes(b"AppleDouble")
    return root


def arvaniti(root: Path, **options):
    return dataset("gleason-arvaniti", **{"patch": Q, "step": Q // 2, **options}).items(root)


def test_arvaniti_cuts_by_the_authors_rule(cores):
    table = arvaniti(cores.parent)
    assert {(x, y) for x, y in zip(table["x"].tolist(), table["y"].tolist())} <= {
        (x, y) for x in range(0, 17, 4) for y in (0, 4, 8)
    }
    mine = [i for i, g in enumerate(table["group"].tolist()) if g == TRAIN]
    assert {int(table["x"][i]): int(table["label"][i]) for i in mine} == {0: 0, 8: 2}, (
        "no mixed centre, nothing that is to be ignored"
    )
    assert {g: s for g, s in zip(table["group"].tolist(), table["split"].tolist())} == {
        TRAIN: "train",
        VAL: "val",
        TEST: "test",
    }
    assert set(table["slide"].tolist()) == {"ZT111_4_A", "ZT76_39_A", "ZT80_38_A"}
    assert warned(table, "1 cores have no mask") and warned(table, "overlap by half")


def test_arvaniti_second_pathologist_and_bright_patches(cores):
    def test_labels(table):
        return {label for label, s in zip(table["label"].tolist(), table["split"].tolist()) if s == "test"}

    assert test_labels(arvaniti(cores)) == {1} and test_labels(arvaniti(cores, pathologist="2")) == {3}
    picture(cores / "TMA_images" / f"{TEST}.jpg", 2 * Q, 3 * Q, grey=200)
    assert test_labels(arvaniti(cores)) == set()


def test_arvaniti_archives_as_they_unpack(cores):
    for core in (TRAIN, VAL, TEST):
        image = cores / "TMA_images" / f"{core}.jpg"
        (cores / core.rsplit("_", 2)[0]).mkdir()
        image.rename(cores / core.rsplit("_", 2)[0] / image.name)
    (cores / "TMA_images" / "ZT111_4_A_9_9.jpg").unlink()
    (cores / "TMA_images").rmdir()
    assert len(set(arvaniti(cores)["group"].tolist())) == 3


def test_arvaniti_prefers_ready_patches(cores):
    for core, c in ((TRAIN, 0), (VAL, 3)):
        picture(cores / "train_validation_patches_750" / core / f"{core}_patch_12_class_{c}.jpg", Q, Q)
    for who, c in (("patho_1", 1), ("patho_2", 2)):
        picture(cores / "test_patches_750" / who / TEST / f"{TEST}_patch_1_class_{c}.jpg", Q, Q)
    table = arvaniti(cores)
    assert sorted(zip(table["group"].tolist(), table["label"].tolist(), table["split"].tolist())) == [
        (TRAIN, 0, "train"), (VAL, 3, "val"), (TEST, 1, "test")
    ]  # fmt: skip
    picture(cores / "train_validation_patches_750" / VAL / f"{TRAIN}_patch_13_class_0.jpg", Q, Q)
    with pytest.raises(DataError, match=f"lies under {VAL}, and its name says {TRAIN}"):
        arvaniti(cores)


def test_arvaniti_broken_masks(cores):
    path = mask(cores / "Gleason_masks_train" / f"mask_{TRAIN}.png", [[0, 7, 0], [0, 0, 0]], "P")
    with pytest.raises(DataError, match=rf"{path.name} holds the values 7"):
        arvaniti(cores)
    mask(path, [[0, 0, 0]], "P")
    with pytest.raises(DataError, match=rf"{path.name} is \(24, 8\) px"):
        arvaniti(cores)


def slide(
    root: Path, name: str, blocks: dict[str, list[list[int]]], nested: str = "", part: str = "Train", wider: int = 0
) -> None:
    """A slide of 2 x 3 blocks of 16 px and its masks, tiled; `wider` adds columns to the image."""
    side = 16
    top = root / f"{name[:7]}_{part}_image"
    for path, pixels in [
        (top / nested.replace("Train/", "") / f"{name}.tiff", np.full((2 * side, 3 * side + wider, 3), 180, np.uint8)),
        *(
            (
                root / f"{name[:7]}_{part}_annotation" / nested / name / f"{c}_Mask.tif",
                np.kron(np.array(b, np.uint8) * 255, np.ones((side, side), np.uint8)),
            )
            for c, b in blocks.items()
        ),
    ]:
        path.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(
            path, pixels, tile=(16, 16), photometric="rgb" if pixels.ndim == 3 else "minisblack", compression="zlib"
        )


def aggc(root: Path, **options):
    return dataset("aggc", **{"patch": 16, **options}).items(root)


def cells(table, name: str) -> dict[tuple[int, int], str]:
    rows = [i for i, s in enumerate(table["slide"].tolist()) if s == name]
    return {(int(table["x"][i]), int(table["y"][i])): table.classes[int(table["label"][i])] for i in rows}


@pytest.mark.parametrize("nested", ["", "Train/"])
def test_aggc_labels_tiles_by_their_masks(tmp_path, nested):
    """Overlap goes to the higher grade; what is not drawn is unknown; an absent mask is an absent class."""
    root = tmp_path / "AGGC2022_train"
    slide(
        root,
        "Subset1_Train_1",
        {"Normal": [[1, 1, 0], [0, 0, 0]], "G4": [[0, 1, 0], [1, 0, 0]], "Stroma": [[0, 0, 1], [0, 0, 0]]},
        nested,
    )
    table = aggc(tmp_path)
    assert cells(table, "Subset1_Train_1") == {(0, 0): "benign", (16, 0): "G4", (32, 0): "stroma", (0, 16): "G4"}
    assert table.classes == ("benign", "stroma", "G3", "G4", "G5")
    assert set(table["group"].tolist()) == {"Subset1_Train_1"} and set(table["split"].tolist()) == {"train"}
    assert (table["px"] == 16).all() and (table["mpp"] == 0.5).all() and warned(table, "156,130")
    assert cells(aggc(tmp_path, rank=["G5", "G4", "G3", "Stroma", "Normal"]), "Subset1_Train_1")[16, 0] == "benign"
    assert len(aggc(tmp_path, sample=2)) == 2
    wide = cells(aggc(tmp_path, patch=32), "Subset1_Train_1")
    assert wide == {(0, 0): "G4"}, "two blocks of G4, one of benign; half of the next is beyond the border"


def test_aggc_cover_and_ties(tmp_path):
    slide(tmp_path, "Subset2_Train_1", {"G3": [[1, 0, 0], [0, 0, 0]], "G5": [[0, 1, 0], [0, 0, 0]]})
    table = aggc(tmp_path, patch=32)
    assert cells(table, "Subset2_Train_1") == {(0, 0): "G5"} and warned(table, "1 tiles have two classes")
    with pytest.raises(DataError, match="nothing in"):
        aggc(tmp_path, patch=32, tile_ties="drop")
    with pytest.raises(DataError, match="nothing in"):
        aggc(tmp_path, patch=32, cover=0.6)


def test_aggc_one_specimen_on_several_scanners_is_one_group(tmp_path):
    for scanner in ("Philips", "Zeiss"):
        slide(tmp_path, f"Subset3_Train_12_{scanner}", {"G3": [[1, 0, 0], [0, 0, 0]]}, f"Train/{scanner}/")
    slide(tmp_path, "Subset1_Test_4", {"G3": [[1, 0, 0], [0, 0, 0]]}, part="Test")
    table = aggc(tmp_path, subsets=[1, 2, 3])
    got = set(zip(table["slide"].tolist(), table["group"].tolist(), table["centre"].tolist(), table["split"].tolist()))
    assert got == {
        ("Subset3_Train_12_Philips", "Subset3_Train_12", "Philips", "train"),
        ("Subset3_Train_12_Zeiss", "Subset3_Train_12", "Zeiss", "train"),
        ("Subset1_Test_4", "Subset1_Test_4", "", "test"),
    }
    assert len(aggc(tmp_path)) == 1, "subsets 1 and 2 are the paper's"


def test_aggc_damaged_slides_are_known_and_others_named(tmp_path):
    slide(tmp_path, "Subset1_Train_1", {"G3": [[1, 0, 0], [0, 0, 0]]})
    slide(tmp_path, "Subset1_Train_83", {"G3": [[1, 0, 0], [0, 0, 0]]})
    broken = tmp_path / "Subset1_Train_image" / "Subset1_Train_83.tiff"
    broken.write_bytes(b"II*\x00")
    table = aggc(tmp_path)
    assert len(table) == 1 and warned(table, "damaged and left out: Subset1_Train_83")
    with pytest.raises(DataError, match="Subset1_Train_83.tiff is no TIFF that can be read"):
        aggc(tmp_path, skip=[])
    slide(tmp_path, "Subset1_Train_9", {})
    assert warned(aggc(tmp_path), "1 slides have no annotation and were left out, such as Subset1_Train_9")


def test_aggc_image_wider_than_its_mask(tmp_path):
    slide(tmp_path, "Subset1_Train_96", {"G3": [[0, 0, 1], [0, 0, 0]]}, wider=32)
    with pytest.raises(DataError, match=r"G3_Mask.tif is 48 x 32 px and .*Subset1_Train_96.tiff is 80 x 32 px"):
        aggc(tmp_path)
    assert cells(aggc(tmp_path, crop={"Subset1_Train_96": 32}), "Subset1_Train_96") == {(64, 0): "G3"}


def test_aggc_masks_that_were_encoded_anew(tmp_path):
    slide(tmp_path, "Subset1_Train_1", {"G3": [[1, 0, 0], [0, 0, 0]]})
    path = tmp_path / "Subset1_Train_annotation" / "Subset1_Train_1" / "G3_Mask.tif"
    tifffile.imwrite(path, np.full((32, 48), 7, np.uint8), tile=(16, 16))
    with pytest.raises(DataError, match=r"G3_Mask.tif: a mask holds 0 and 255 only"):
        aggc(tmp_path)
    path.rename(path.with_name("Grade3_Mask.tif"))
    with pytest.raises(DataError, match="Grade3_Mask.tif does not match"):
        aggc(tmp_path)


@pytest.mark.parametrize("layout", [{"tile": (32, 32)}, {"rowsperstrip": 5}, {}])
def test_masks_are_read_in_bands_whatever_their_layout(tmp_path, layout):
    from eosin_data.bands import MaskImage

    drawn = np.random.default_rng(0).random((70, 90)) < 0.3
    tifffile.imwrite(tmp_path / "m.tif", drawn.astype(np.uint8) * 255, compression="zlib", **layout)
    found = MaskImage(tmp_path / "m.tif")
    assert (found.width, found.height) == (90, 70)
    for top, bottom in ((0, 70), (16, 48), (33, 34), (64, 70)):
        np.testing.assert_array_equal(found.read(top, bottom), drawn[top:bottom])


def test_masks_packed_by_lzw(tmp_path):
    from eosin_data.bands import MaskImage

    drawn = np.random.default_rng(0).random((70, 90)) < 0.3
    Image.fromarray(drawn.astype(np.uint8) * 255).save(tmp_path / "m.tif", compression="tiff_lzw")
    np.testing.assert_array_equal(MaskImage(tmp_path / "m.tif").read(16, 48), drawn[16:48])


def test_aggc_refuses_the_patches_that_others_cut(tmp_path):
    for name in ("g3", "g4", "g5", "normal", "stroma"):
        picture(tmp_path / "AGGC-2022-Classification" / "train" / name / "1.png", Q, Q)
    with pytest.raises(DataError, match="kind: imagefolder"):
        aggc(tmp_path)


@pytest.fixture
def chimera(tmp_path) -> Path:
    root = tmp_path / "task1"
    for patient, n in (("1003", 2), ("1007", 1), ("1010", 1)):
        for i in range(1, n + 1):
            for name in (f"{patient}_{i}.tif", f"{patient}_{i}_tissue.tif"):
                path = root / "pathology" / "images" / patient / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"tif")
    (root / "clinical_data").mkdir()
    for patient, entry in (
        ("1003", {"BCR": "0.0"}),
        ("1007", [{"BCR": "1.0", "pT_stage": "x"}]),
        ("1010", {"BCR": "x"}),
    ):
        (root / "clinical_data" / f"{patient}.json").write_text(json.dumps(entry))
    return root


def test_chimera_reads_slides_and_their_patients_labels(chimera):
    table = dataset("chimera").items(chimera.parent)
    got = sorted(zip(table["id"].tolist(), table["label"].tolist(), table["group"].tolist()))
    assert got == [("1003_1", 0, "1003"), ("1003_2", 0, "1003"), ("1007_1", 1, "1007")], (
        "'0.0' is no, masks are no slides"
    )
    assert (
        table.classes == ("no BCR", "BCR")
        and warned(table, "left out: 1010")
        and warned(table, "3 slides of the official 190")
    )


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("{}", "1003.json has no entry BCR"),
        ('{"BCR": "maybe"}', "1003.json: BCR is 'maybe'"),
        ('{"BCR": 2}', "1003.json: BCR is 2"),
        ("{", "1003.json is not JSON"),
    ],
)
def test_chimera_broken_records(chimera, entry, says):
    (chimera / "clinical_data" / "1003.json").write_text(entry)
    with pytest.raises(DataError, match=says):
        dataset("chimera").items(chimera)


def test_chimera_broken_trees(chimera):
    wrong = chimera / "pathology" / "images" / "1003" / "1007_9.tif"
    wrong.write_bytes(b"tif")
    with pytest.raises(DataError, match="1007_9.tif: it lies under patient 1003, and its name says 1007"):
        dataset("chimera").items(chimera)
    wrong.unlink()
    (chimera / "clinical_data" / "1003.json").unlink()
    with pytest.raises(DataError, match="1003.json is missing"):
        dataset("chimera").items(chimera)
