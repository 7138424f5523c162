"""The phantom: the same bytes from the same seed, and a truth that is true."""

import csv
import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from eosin_phantom import make, png, publish, stain
from eosin_phantom.field import field, mixture
from eosin_phantom.genes import Expression
from eosin_phantom.parts import Patient
from eosin_phantom.shapes import generator
from eosin_phantom.sheet import contact_sheet
from eosin_phantom.tissue import PAINTERS


def table(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def tree(root):
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A tiny phantom with all four sets."""
    root = tmp_path_factory.mktemp("data") / "phantom"
    make.make(root, size="tiny")
    make.pairs(root, n=6)
    make.slides(root, n=2, size=640)
    make.nuclei(root, n=5)
    return root


# ---- bytes


def test_equal_seeds_give_equal_trees(root, tmp_path):
    again = tmp_path / "phantom"
    make.nuclei(again, n=5)  # in another order, before there are tiles
    make.slides(again, n=2, size=640)
    make.pairs(again, n=6)
    make.make(again, size="tiny")
    assert tree(again) == tree(root)


def test_another_seed_gives_other_tissue(root, tmp_path):
    make.make(tmp_path / "other", seed=1, size="tiny")
    ours, other = tree(root), tree(tmp_path / "other")
    tiles = [name for name in other if name.endswith(".png")]
    assert len(tiles) == 120 and not [name for name in tiles if ours[name] == other[name]]


def test_the_bytes_are_those_of_this_version(root):
    """Where this fails, equal seeds no longer give what they gave: raise publish.VERSION along with the digest."""
    names = ["tiles.csv", "genes.csv", *(t["path"] for t in table(root / "tiles.csv") if t["centre"] == "north")]
    digest = hashlib.sha256(b"".join((root / name).read_bytes() for name in names)).hexdigest()
    assert (publish.VERSION, digest[:16]) == (1, "8e3836720d0f6ca1")


# ---- truth


def test_tiles_lie_in_slides_in_patients_in_centres_and_patients_in_splits(root):
    tiles = table(root / "tiles.csv")
    assert list(tiles[0]) == ["path", "label", "split", "group", "slide", "centre", "mpp", "nuclei"]
    assert {t["label"] for t in tiles} == set(PAINTERS) and {t["centre"] for t in tiles} == set(stain.CENTRES)
    for inner, outer in (("slide", "group"), ("group", "centre"), ("group", "split")):
        assert len({t[inner] for t in tiles}) == len({(t[inner], t[outer]) for t in tiles})
    for centre in stain.CENTRES:
        splits = {t["group"]: t["split"] for t in tiles if t["centre"] == centre}
        assert sorted(splits.values()) == ["test", "train", "train", "train", "val"]
    assert {pixels(root / t["path"]).shape for t in tiles} == {(make.TILE, make.TILE, 3)}
    assert {float(t["mpp"]) for t in tiles} == {0.5}


def test_the_count_of_a_tile_is_what_its_tissue_shows(root):
    mean = {
        tissue: np.mean([int(t["nuclei"]) for t in table(root / "tiles.csv") if t["label"] == tissue])
        for tissue in PAINTERS
    }
    assert max(mean, key=mean.get) == "lymphocytes" and min(mean, key=mean.get) == "fat"


def test_genes_follow_nuclei_and_the_last_four_do_not(tmp_path):
    """Over many draws of one tissue, so that nothing else can explain it."""
    genes = Expression(0)
    few, many = (
        np.array([genes.counts(generator(i), {"tumour": np.ones((2, 2))}, n) for i in range(400)]) for n in (10, 60)
    )
    moved = np.abs(np.log(many.mean(0) / few.mean(0)))
    assert moved[-4:].max() < 0.25 and np.sum(moved[:-4] > 0.25) >= 8


def test_genes_are_counts_for_every_tile_in_order(root):
    genes, tiles = table(root / "genes.csv"), table(root / "tiles.csv")
    assert [g["path"] for g in genes] == [t["path"] for t in tiles]
    assert list(genes[0])[1:] == [f"gene_{g:02d}" for g in range(20)]
    assert min(int(g[name]) for g in genes for name in list(g)[1:]) >= 0


def test_every_nucleus_is_one_piece_and_counted(root):
    rows = table(root / "nuclei" / "nuclei.csv")
    assert len(rows) == 5
    for row in rows:
        mask, image = (pixels(root / "nuclei" / row[key]) for key in ("mask", "path"))
        assert mask.shape == image.shape[:2] == (192, 192) and image.dtype == np.uint8
        assert np.array_equal(np.unique(mask), np.arange(int(row["nuclei"]) + 1))
        for box, number in zip(ndimage.find_objects(mask.astype(int)), range(1, mask.max() + 1), strict=True):
            assert ndimage.label(mask[box] == number)[1] == 1
        assert image[mask > 0].mean() < image[mask == 0].mean()  # nuclei are where the picture is dark


def test_a_mixture_never_exceeds_the_whole_and_its_tissue_has_most_of_it():
    for i in range(60):
        weights = mixture(generator(0, i), "gland", 64)
        assert min(w.min() for w in weights.values()) >= 0.0 and sum(weights.values()).max() <= 1.0 + 1e-12
        assert weights["gland"].mean() > 0.5 and max(weights, key=lambda t: weights[t].mean()) == "gland"


# ---- laboratories and scanners


def spread(folder):
    """Mean absolute difference, in grey levels, of each picture from its tissue under the first stain and scanner."""
    rows = table(folder / "pairs" / "pairs.csv")
    first = {row["tile"]: pixels(folder / "pairs" / row["path"]).astype(int) for row in reversed(rows)}
    return np.mean([np.abs(pixels(folder / "pairs" / r["path"]) - first[r["tile"]]).mean() for r in rows])


def test_pairs_are_two_stains_by_three_scanners_of_one_tissue(root):
    rows = table(root / "pairs" / "pairs.csv")
    assert list(rows[0]) == ["path", "tile", "stain", "scanner", "slide"]
    assert len(rows) == 36 and len({(r["tile"], r["slide"]) for r in rows}) == 36
    assert len({r["stain"] for r in rows}) == 2 and len({r["scanner"] for r in rows}) == 3
    same, other = [], []
    dark = {(r["tile"], r["slide"]): pixels(root / "pairs" / r["path"]).mean(axis=2) for r in rows}
    for (tile, slide), picture in dark.items():
        for (tile2, slide2), picture2 in dark.items():
            if slide < slide2:
                (same if tile == tile2 else other).append(np.corrcoef(picture.ravel(), picture2.ravel())[0, 1])
    assert min(same) > 0.8 > max(other)


def test_strength_nought_makes_all_alike_and_more_drives_them_apart(tmp_path):
    apart = []
    for strength in (0.0, 0.5, 1.0, 2.0):
        make.pairs(tmp_path / str(strength), strength=strength, n=2)
        apart.append(spread(tmp_path / str(strength)))
    assert apart[0] == 0.0 and apart[1] > 1.0 and np.all(np.diff(apart) > 1.0)


@pytest.mark.parametrize("strength", [0.0, 1.0, 4.0])
@pytest.mark.parametrize("centre", stain.CENTRES)
def test_every_centre_gives_a_picture_at_any_strength(centre, strength):
    piece = field(generator(0), {"gland": np.ones((48, 64))}, Patient())
    name, scanner = stain.CENTRES[centre]
    picture = stain.scan(stain.dye(piece, name, strength), scanner, generator(1), strength)
    assert picture.shape == (48, 64, 3) and picture.dtype == np.uint8 and picture.std() > 5


# ---- slides


def test_openslide_opens_the_slides_at_their_scale(root):
    openslide = pytest.importorskip("openslide", exc_type=ImportError)
    rows = table(root / "slides" / "slides.csv")
    assert list(rows[0]) == ["path", "slide", "label", "group", "centre", "mpp"]
    assert [r["label"] for r in rows] == ["tumour", "normal"]
    for row in rows:
        with openslide.OpenSlide(root / "slides" / row["path"]) as slide:
            assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(float(row["mpp"]))
            assert float(slide.properties["openslide.mpp-y"]) == pytest.approx(float(row["mpp"]))
            assert slide.level_dimensions == ((640, 640), (320, 320), (160, 160))
            whole = np.asarray(slide.read_region((0, 0), 0, (640, 640)).convert("RGB")).astype(float)
            small = np.asarray(slide.read_region((0, 0), 2, (160, 160)).convert("RGB")).astype(float)
        assert np.abs(whole.reshape(160, 4, 160, 4, 3).mean(axis=(1, 3)) - small).max() <= 1.5
        assert 0.2 < np.mean(whole.min(axis=2) < 215) < 0.9  # tissue, and glass about it


# ---- how it gets to its place


def test_made_twice_is_made_once_and_another_seed_is_refused(root):
    before = {p: p.stat().st_mtime_ns for p in root.rglob("*")}
    make.make(root, size="tiny")
    for other in ({"seed": 1, "size": "tiny"}, {"size": "small"}, {"size": "tiny", "strength": 0.5}):
        with pytest.raises(FileExistsError, match="remove that folder or name another"):
            make.make(root, **other)
    assert {p: p.stat().st_mtime_ns for p in root.rglob("*")} == before


def test_what_is_not_a_phantom_is_not_touched(tmp_path):
    mine = tmp_path / "phantom" / "tiles" / "mine.png"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(FileExistsError, match="tiles into .* no finished phantom"):
        make.make(tmp_path / "phantom", size="tiny")
    assert list(tree(tmp_path)) == ["phantom/tiles/mine.png"]


def test_what_cannot_be_made_is_said_so(tmp_path):
    with pytest.raises(ValueError, match="tiny, small, large"):
        make.make(tmp_path / "phantom", size="huge")
    with pytest.raises(ValueError, match="strength -1"):
        make.pairs(tmp_path / "phantom", strength=-1)


def test_what_fails_half_way_leaves_nothing(tmp_path):
    def build(folder):
        (folder / "tiles.csv").write_text("path\n")
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        publish.publish(tmp_path / "phantom", {"set": "tiles"}, build)
    assert list(tmp_path.iterdir()) == []


def test_who_comes_second_leaves_what_stands(tmp_path):
    def slow(folder):
        publish.publish(tmp_path / "phantom", {"set": "tiles"}, lambda f: (f / "tiles.csv").write_text("first"))
        (folder / "tiles.csv").write_text("second")

    publish.publish(tmp_path / "phantom", {"set": "tiles"}, slow)
    assert (tmp_path / "phantom" / "tiles.csv").read_text() == "first"
    assert [p.name for p in tmp_path.iterdir()] == ["phantom"]


# ---- files


@pytest.mark.parametrize("shape", [(1, 1, 3), (7, 5, 3), (200, 300, 3)])
def test_png_of_colour_reads_back(shape, tmp_path):
    picture = generator(0).integers(0, 256, shape, dtype=np.uint8)
    png.save(tmp_path / "a.png", picture)
    assert np.array_equal(pixels(tmp_path / "a.png"), picture)


def test_png_of_numbers_reads_back_and_nothing_else_is_written(tmp_path):
    numbers = generator(0).integers(0, 65536, (31, 40), dtype=np.uint16)
    png.save(tmp_path / "a.png", numbers)
    assert np.array_equal(pixels(tmp_path / "a.png"), numbers)
    with pytest.raises(ValueError, match="float64"):
        png.save(tmp_path / "b.png", np.zeros((4, 4)))


def test_the_contact_sheet_shows_a_phantom_and_says_what_is_missing(root, tmp_path):
    contact_sheet(root, tmp_path / "sheet.png")
    assert min(pixels(tmp_path / "sheet.png").shape) > 800 and (tmp_path / "sheet.png").stat().st_size < 600_000
    with pytest.raises(FileNotFoundError, match=r"tiles\.csv.*make\(\)"):
        contact_sheet(tmp_path / "nowhere", tmp_path / "other.png")


def test_nothing_heavy_is_imported_before_it_is_needed():
    code = "import sys, eosin_phantom.make as m; print(*{'scipy', 'PIL', 'tifffile', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=_path())
    assert done.stdout.split() == []


def _path():
    return {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
