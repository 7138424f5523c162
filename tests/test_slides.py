"""Slides: their scale, regions at a physical scale, tiles of whole datasets, and one row an item below the store."""

from __future__ import annotations

import json
import pickle
import time
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest
from PIL import Image

from eosin import slides as slides_module
from eosin.cards import DatasetCard
from eosin.dataset import Dataset
from eosin.errors import DataError, MissingError, UsageError
from eosin.index import open_index
from eosin.pool import pool
from eosin.slides import Slide, Slides, slide_tiles
from eosin.table import Table
from eosin.tiles import OPEN_SLIDES, BrokenTile, Reader
from helpers import TINT, bench, install
from slide_files import coordinates, pyramid, tissue

PICTURE = tissue()
SMALL = {"mpp": 0.5, "size": 32}


@pytest.fixture
def slide(tmp_path):
    return Slide(pyramid(tmp_path / "a.tiff", PICTURE))


def test_a_slide_says_its_size_levels_and_scale(slide):
    assert (slide.width, slide.height, slide.downsamples) == (256, 192, (1.0, 2.0, 4.0))
    assert slide.mpp == pytest.approx(0.5, rel=1e-4)


def test_what_is_given_counts_over_the_file_and_a_fallback_below_it(tmp_path):
    path, mute = pyramid(tmp_path / "a.tiff", PICTURE), pyramid(tmp_path / "b.tiff", PICTURE, None)
    assert Slide(path, 0.25, 9.0).mpp == 0.25
    assert Slide(path, None, 9.0).mpp == pytest.approx(0.5, rel=1e-4)
    assert Slide(mute, None, 9.0).mpp == 9.0


@pytest.mark.parametrize(
    ("scale", "words"),
    [
        ((None, None), "does not say its mpp"),
        ((264.58, None), "264.58 um per pixel, which no"),
        ((0.5, 0.6), "0.5 um per pixel across and 0.6 down"),
    ],
)
def test_a_slide_without_a_usable_scale_says_what_to_do(tmp_path, scale, words):
    mute = Slide(pyramid(tmp_path / "b.tiff", PICTURE, *scale))
    with pytest.raises(DataError, match=f"b.tiff .*{words}.*--slide-mpp.*--mpp"):
        _ = mute.mpp


def test_pixels_at_level_0_are_those_of_the_file(slide):
    np.testing.assert_array_equal(np.asarray(slide.read(70, 40, 32, 24, 32)), PICTURE[40:64, 70:102])


def test_a_level_that_fits_is_read_as_it_is(slide):
    np.testing.assert_array_equal(np.asarray(slide.read(64, 32, 64, 64, 16)), PICTURE[32:96:4, 64:128:4])


def test_between_levels_the_nearest_finer_is_made_smaller(tmp_path):
    """Levels of one colour each tell which was read."""
    levels = [np.full((192 // k, 256 // k, 3), c, np.uint8) for k, c in ((1, 10), (2, 20), (4, 30))]
    slide = Slide(pyramid(tmp_path / "a.tiff", levels))
    for px, colour in ((64, 10), (63, 10), (40, 10), (33, 10), (32, 20), (31, 20), (17, 20), (16, 30), (5, 30)):
        image = slide.read(0, 0, 64, 64, px)
        assert image.size == (px, px)
        assert np.unique(np.asarray(image)).tolist() == [colour], px


def test_making_smaller_is_exact_in_scale_and_antialiased(tmp_path):
    ramp = np.broadcast_to(np.arange(256, dtype=np.uint8)[None, :, None], (192, 256, 3))
    slide = Slide(pyramid(tmp_path / "a.tiff", [np.ascontiguousarray(ramp)]))
    got = np.asarray(slide.read(50, 0, 100, 100, 40))[20, 2:-2, 0].astype(float)
    np.testing.assert_allclose(got, 50 + 2.5 * (np.arange(2, 38) + 0.5) - 0.5, atol=0.6)
    checks = np.indices((192, 256)).sum(0) % 2 * 255
    slide = Slide(pyramid(tmp_path / "b.tiff", [np.repeat(checks[..., None], 3, 2).astype(np.uint8)]))
    assert np.ptp(np.asarray(slide.read(0, 0, 96, 96, 24))[2:-2, 2:-2]) < 10, "a fine pattern becomes grey"


def test_a_level_of_an_odd_size_keeps_the_scale(tmp_path):
    """Downsamples are seldom whole: an edge at 200 of 250 px is at 80 of 100, from a level of 255 / 127 as well."""
    at = 200 * 127 / 255
    half = (255 * np.clip(np.arange(127) + 1 - at, 0, 1)).round().astype(np.uint8)
    levels = [np.where(np.arange(255) < 200, 0, 255).astype(np.uint8), half]
    slide = Slide(pyramid(tmp_path / "a.tiff", [np.tile(v[None, :, None], (len(v), 1, 3)) for v in levels]))
    assert slide.level(250, 100) == 1
    assert np.asarray(slide.read(0, 0, 250, 250, 100))[50, :, 0].sum() / 255 == pytest.approx(20, abs=0.05)


def test_nothing_is_enlarged(slide):
    image = slide.read(64, 32, 16, 16, 224)
    np.testing.assert_array_equal(np.asarray(image), PICTURE[32:48, 64:80])


@pytest.mark.parametrize("box", [(-1, 0, 8, 8), (0, 185, 8, 8), (250, 0, 8, 8), (0, 0, 0, 8)])
def test_a_box_that_leaves_the_slide_is_refused(slide, box):
    with pytest.raises(DataError, match="leaves the slide of 256x192"):
        slide.read(*box, 8)


def test_what_is_no_slide_says_why(tmp_path):
    (tmp_path / "broken.svs").write_bytes(b"II*\0" + bytes(500))
    (tmp_path / "one.dcm").write_bytes(bytes(128) + b"DICM" + bytes(50))
    for name, words in {
        "broken.svs": "504 bytes, too few",
        "one.dcm": "all instances of its series",
        "gone.svs": "no such file",
    }.items():
        with pytest.raises(DataError, match=f"{name}.*{words}"):
            Slide(tmp_path / name)


def test_without_openslide_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "openslide", None)
    with pytest.raises(MissingError, match=r"pip install 'eosin\[slides\]'"):
        Slide(tmp_path / "a.svs")


def test_blocks_are_the_level_in_pieces(slide):
    for level, reduce, side in ((0, 1, 50), (1, 1, 1000), (0, 3, 40), (0, 16, 2048)):
        whole = Image.fromarray(PICTURE[:: 2**level, :: 2**level])
        expected = np.asarray(whole.reduce(reduce) if reduce > 1 else whole)
        got = np.zeros_like(expected)
        for left, top, pixels in slide.blocks(level, reduce, side):
            got[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
        np.testing.assert_array_equal(got, expected)


def regions(n=12, **columns):
    x = [(i * 16) % 200 for i in range(n)]
    boxes = {"x": x, "y": [8] * n, "w": [32] * n, "h": [32] * n, "px": [16] * n}
    return Table({"id": [f"t{i}" for i in range(n)], "source": ["a.tiff"] * n, **boxes, **columns})


def test_the_reader_reads_regions_from_threads_and_elsewhere(slide, monkeypatch):
    reader, opened = Reader(slide.path.parent, regions()), []
    monkeypatch.setattr("eosin.tiles.Slide", lambda p: opened.append(p) or Slide(p))
    expected = [PICTURE[8:40:2, x : x + 32 : 2] for x in regions()["x"]]
    with ThreadPoolExecutor(8) as pool_:
        for image, truth in zip(pool_.map(reader.read, range(12)), expected, strict=True):
            np.testing.assert_array_equal(np.asarray(image), truth)
    assert len(opened) == 1, "one open slide serves all threads"
    again = pickle.loads(pickle.dumps(reader))  # noqa: S301
    np.testing.assert_array_equal(np.asarray(again.read(3)), expected[3])


def test_the_reader_keeps_few_slides_open(tmp_path):
    n = OPEN_SLIDES + 3
    for i in range(n):
        pyramid(tmp_path / f"{i}.tiff", tissue(seed=i))
    table = regions(n)
    table.columns["source"] = np.array([f"{i}.tiff" for i in range(n)])
    reader = Reader(tmp_path, table)
    for i in [*range(n), *range(n)]:
        reader.read(i)
        assert len(reader.slides) <= OPEN_SLIDES


def test_a_damaged_place_breaks_its_tile_and_no_other(tmp_path):
    import tifffile

    path = tmp_path / "a.tiff"
    with tifffile.TiffWriter(path) as file:
        file.write(
            PICTURE,
            photometric="rgb",
            tile=(64, 64),
            compression="zlib",
            metadata=None,
            resolution=(2e4, 2e4),
            resolutionunit=3,
        )
    with tifffile.TiffFile(path) as file:
        start, size = file.pages[0].dataoffsets[0], file.pages[0].databytecounts[0]
    raw = bytearray(path.read_bytes())
    raw[start : start + size] = b"\xff" * size
    path.write_bytes(raw)
    reader = Reader(tmp_path, regions())
    with pytest.raises(BrokenTile, match="^t0: a.tiff is damaged at 0,8"):
        reader.read(0)
    np.testing.assert_array_equal(np.asarray(reader.read(5)), np.asarray(Slide(path).read(80, 8, 32, 32, 16)))


def items(root, n=3, **columns):
    for i in range(n):
        pyramid(root / f"{i}.tiff", tissue(box=(64, 32, 64 + 32 * i, 64), seed=i))
    given = {
        "label": [i % 2 for i in range(n)],
        "group": [f"p{i}" for i in range(n)],
        "slide": [f"s{i}" for i in range(n)],
    }
    return Table(
        {"id": [f"i{i}" for i in range(n)], "source": [f"{i}.tiff" for i in range(n)], **given, **columns},
        classes=("a", "b"),
    )


def test_tiles_of_slides(tmp_path):
    table = slide_tiles(tmp_path, items(tmp_path), SMALL)
    assert len(table) == 4 + 6 + 8
    first = {n: table[n][0] for n in ("id", "item", "source", "x", "y", "w", "h", "px", "label", "group", "slide")}
    assert first == {
        "id": "i0@64,32",
        "item": "i0",
        "source": "0.tiff",
        "x": 64,
        "y": 32,
        "w": 32,
        "h": 32,
        "px": 32,
        "label": 0,
        "group": "p0",
        "slide": "s0",
    }
    np.testing.assert_allclose(table["mpp"], 0.5, rtol=1e-4)
    assert len(slide_tiles(tmp_path, items(tmp_path), {**SMALL, "limit": 3})) == 9


def test_every_slide_that_cannot_be_tiled_is_named(tmp_path):
    table = items(tmp_path)
    (tmp_path / "0.tiff").write_bytes(b"nothing")
    pyramid(tmp_path / "2.tiff", PICTURE, None)
    with pytest.raises(
        DataError, match=r"(?s)2 of 3 slides.*i0: 0.tiff cannot be opened.*i2: 2.tiff does not say its mpp"
    ):
        slide_tiles(tmp_path, table, SMALL)
    with pytest.raises(UsageError, match="no option sise. Its options: mpp, size"):
        slide_tiles(tmp_path, table, {"sise": 3})


def test_the_items_scale_serves_where_a_slide_is_mute(tmp_path):
    table = items(tmp_path, 1, mpp=[0.5])
    pyramid(tmp_path / "0.tiff", tissue(), None)
    assert slide_tiles(tmp_path, table, SMALL)["w"].tolist()[0] == 32
    assert slide_tiles(tmp_path, table, {**SMALL, "slide_mpp": 0.25})["w"].tolist()[0] == 64


def test_a_slide_of_glass_has_no_tile_and_a_warning(tmp_path):
    table = items(tmp_path)
    pyramid(tmp_path / "1.tiff", tissue(box=(0, 0, 0, 0)))
    tiles = slide_tiles(tmp_path, table, SMALL)
    assert set(tiles["item"].tolist()) == {"i0", "i2"} and "i1" in tiles.warnings[0]


def test_coordinates_of_others_place_the_tiles(tmp_path):
    table = items(tmp_path)
    folder = tmp_path / "elsewhere"
    for i in range(3):
        coordinates(
            folder / "patches" / f"{i}_patches.h5",
            [[i, 0], [40, 50]],
            attrs={"patch_size": 24, "patch_size_level0": 48},
        )
    tiles = slide_tiles(tmp_path, table, {"coordinates": "elsewhere"})
    assert tiles["id"].tolist()[:3] == ["i0@0,0", "i0@40,50", "i1@1,0"]
    assert tiles["w"].tolist() == [48] * 6 and tiles["px"].tolist() == [24] * 6
    np.testing.assert_allclose(tiles["mpp"], 1.0, rtol=1e-4)
    finer = slide_tiles(tmp_path, table, {"coordinates": "elsewhere", "mpp": 0.5, "size": 32, "rescale": True})
    assert finer["id"].tolist()[1] == "i0@48,58" and set(finer["w"].tolist()) == {32}
    assert slide_tiles(tmp_path, table, {"coordinates": "elsewhere", "mpp": 0.5})["w"].tolist() == [48] * 6
    (folder / "patches" / "2_patches.h5").unlink()
    with pytest.raises(
        DataError, match="i2: .*has no coordinates of this slide .2.h5 or 2_patches.h5.. Make them: bench tile"
    ):
        slide_tiles(tmp_path, table, {"coordinates": "elsewhere"})


def test_slides_of_two_scales_get_tiles_of_one_and_a_word_where_none_is_so_fine(tmp_path):
    table = items(tmp_path, 2)
    pyramid(tmp_path / "1.tiff", tissue(), 1.0)
    tiles = slide_tiles(tmp_path, table, {"mpp": 0.5, "size": 64})
    assert sorted(set(zip(tiles["item"].tolist(), tiles["w"].tolist(), strict=True))) == [("i0", 64), ("i1", 32)]
    assert "differ in scale, 0.5 to 1 um" in tiles.warnings[0]


def own(root, options=SMALL, **fields):
    if not (root / "tiles.csv").exists():
        rows = "".join(f"{i}.tiff,{'ab'[i % 2]},p{i}\n" for i in range(3))
        (root / "tiles.csv").write_text("path,label,group\n" + rows)
    return Slides(DatasetCard("sl", kind="slides", options=options, **fields))


@pytest.fixture
def look(tmp_path):
    root = tmp_path / "data" / "sl"
    items(root)
    own(root)
    time.sleep(0.1)  # an index does not trust what has just been written
    return lambda **kw: open_index(own(root, **kw), tmp_path / "data", tmp_path / "indexes")


def test_an_index_keeps_items_and_tiles(look, monkeypatch):
    first = look()
    assert first.levels and len(first.items) == 3 and len(first.table) == 18
    assert first.path.read_text().startswith("id,source,label") and (first.path.parent / "tiles.csv").is_file()
    monkeypatch.setattr(slides_module, "cut", lambda *a: pytest.fail("a slide was tiled again"))
    second = look()
    assert (second.tiles, second.rows) == (first.tiles, first.rows)
    for name in first.table.columns:
        np.testing.assert_array_equal(second.table[name], first.table[name])
    assert second.items.classes == ("a", "b")


def test_another_tiling_or_slide_is_another_address(look, tmp_path):
    one, other, fewer = look(), look(options={"mpp": 1.0, "size": 16}), look(options={**SMALL, "limit": 2})
    assert len({one.tiles, other.tiles, fewer.tiles}) == 3
    pyramid(tmp_path / "data" / "sl" / "1.tiff", tissue(seed=9))
    assert look().tiles != one.tiles


def test_a_changed_coordinate_file_is_seen(look, tmp_path):
    folder = tmp_path / "data" / "sl" / "xy"
    attrs = {"patch_size": 32, "patch_size_level0": 32}
    for i in range(3):
        coordinates(folder / f"{i}.h5", [[64, 32]], attrs=attrs)
    options = {"coordinates": "xy"}
    assert len(look(options=options).table) == 3
    (folder / "1.h5").unlink()
    coordinates(folder / "1.h5", [[64, 32], [96, 32]], attrs=attrs)
    assert len(look(options=options).table) == 4
    time.sleep(0.1)
    look(options=options)
    with h5py.File(folder / "2.h5", "r+") as file:  # in its place, which the folder's own time does not tell
        file["coords"][...] = [[60, 30]]
    assert "2.tiff@60,30" in look(options=options).table["id"]


def test_features_of_other_tools_are_found_by_slide_and_place_and_pooled(look, tmp_path):
    """TRIDENT's feature files, one a slide: `features` and `coords`."""
    from eosin.cards import ModelCard
    from eosin.precomputed import Precomputed

    index = look()
    for i in range(3):
        mine = np.flatnonzero(index.table["item"] == f"{i}.tiff")[::-1]
        xy = np.stack([index.table["x"][mine], index.table["y"][mine]], axis=1)
        coordinates(tmp_path / "made" / f"{i}.h5", xy, features=np.stack([mine, mine * 2], axis=1).astype(np.float32))
    X = Precomputed(ModelCard("made", kind="precomputed", arch=str(tmp_path / "made"))).rows(index)
    np.testing.assert_array_equal(X[:, 0], np.arange(len(index.table)))
    pooled, _ = pool(X, np.ones(len(X), bool), index)
    assert pooled[0].tolist() == [X[index.table["item"] == "0.tiff"][:, k].mean() for k in (0, 1)]


def test_tiles_of_nobody_are_refused(tmp_path):
    class Odd(Dataset):
        def items(self, root):
            return items(tmp_path)

        def tiles(self, root, table):
            return Table({"id": ["t"], "item": ["i9"], "source": ["0.tiff"]})

    with pytest.raises(DataError, match="items that are not there: i9"):
        open_index(Odd("odd"), tmp_path, tmp_path / "i", tmp_path)


def test_pooling_is_the_mean_of_an_items_good_tiles(look):
    index = look()
    rng = np.random.default_rng(0)
    X = (rng.normal(size=(len(index.table), 5)) * 10.0 ** rng.integers(-3, 6, (len(index.table), 1))).astype(np.float32)
    keep = np.ones(len(X), bool)
    keep[[0, 5]] = False
    keep[index.table["item"] == "2.tiff"] = False
    pooled, has = pool(X, keep, index)
    assert has.tolist() == [True, True, False] and pooled.dtype == np.float32
    for i, item in enumerate(index.items["id"][:2]):
        rows = keep & (index.table["item"] == item)
        np.testing.assert_array_equal(pooled[i], X[rows].astype(np.float64).mean(0).astype(np.float32))
    assert np.isnan(pooled[2]).all()


def test_slides_are_tiled_embedded_pooled_and_scored_once(tmp_path, monkeypatch):
    """From the store the item rows are the means of the tile rows; the same tiles serve a second benchmark."""
    from eosin.benchmark import Need
    from eosin.embed import Engine
    from eosin.places import Places
    from eosin.plan import Planner
    from eosin.plugins import Catalogue
    from eosin.run import Runner

    root = tmp_path / "data" / "sl"
    items(root, 8)
    rows = "".join(f"{i}.tiff,{'ab'[i % 2]},p{i}\n" for i in range(8))
    (root / "tiles.csv").write_text("path,label,group\n" + rows)
    pyramid(root / "7.tiff", tissue(box=(0, 0, 0, 0)))
    knn = "{dataset: sl, protocol: g2l-knn@1, metric: accuracy, options: {n_folds: 2, k: %d}}"
    registry = tmp_path / "my.yaml"
    registry.write_text(
        "datasets: {sl: {kind: slides, options: {mpp: 0.5, size: 32}}}\n"
        f"benchmarks: {{sl-knn: {knn % 1}, sl-knn3: {knn % 3}}}\n"
    )
    install(monkeypatch, tmp_path / "plugin", "eosin_tint", TINT)
    monkeypatch.setenv("TINT_SLEEP", "0")
    args = ("run", "--model", "tint", "--registry", registry, "--data", tmp_path / "data", "--json", "--no-floor")
    done = bench(*args, "--benchmark", "sl-knn")
    assert done.code == 0, done
    record = json.loads(open(done.json["records"][0]).read())
    tiles = record["dataset"]["tiles"]
    assert tiles == done.json["embedded"] > 30
    assert (record["dataset"]["rows"], record["dataset"]["left_out"]) == (7, 1)
    assert "7.tiff" in record["dataset"]["warnings"][0]
    again = bench(*args, "--benchmark", "sl-knn3").json
    assert (again["embedded"], again["reused"]) == (0, tiles)

    places = Places.of(data=str(tmp_path / "data"), registries=(str(registry),))
    catalogue = Catalogue(places.registries)
    job = Planner(catalogue, places).job(catalogue.model("tint"), Need("sl"))
    runner = Runner(places, Engine(), {})
    emb = runner.rows.embeddings(job, Need("sl", readout="cls"), "label")
    X, _ = runner.rows._load(job, "cls")
    assert emb.id.tolist() == [f"{i}.tiff" for i in range(7)] and emb.classes == ("a", "b")
    for row, item in zip(emb.X, emb.id, strict=True):
        np.testing.assert_allclose(row, X[job.index.table["item"] == item].astype(np.float64).mean(0), rtol=1e-6)


@pytest.mark.real
def test_real_slides_are_pooled(shared, tmp_path):
    """CMU-1 at 0.5 um: a table of two slides with what each needs, embedded and pooled."""
    wsi = shared("realdata", "wsi")
    table = Table({"id": ["cmu", "crop"], "source": ["CMU-1-Small-Region.svs", "CropBreastSlide.tiff"]})
    with pytest.raises(DataError, match="1 of 2 slides cannot be tiled:\n  crop: CropBreastSlide.tiff says 264.58"):
        slide_tiles(wsi, table, {"mpp": 0.5, "size": 256})
    table.columns["mpp"] = np.array([np.nan, 0.5])
    tiles = slide_tiles(wsi, table, {"mpp": 0.5, "size": 256, "limit": 8})
    assert tiles["item"].tolist() == ["cmu"] * 8 + ["crop"] * 8
    assert set(tiles["w"].tolist()) == {257, 256}
    image = Reader(wsi, tiles).read(0)
    assert image.size == (256, 256)
    whole = np.asarray(
        Slide(wsi / "CMU-1-Small-Region.svs").region(0, int(tiles["x"][0]), int(tiles["y"][0]), 257, 257)
    )
    assert abs(np.asarray(image).mean() - whole.mean()) < 1
    (tmp_path / "wsi").symlink_to(wsi)
    (tmp_path / "tiles.csv").write_text(
        "path,mpp\n" + "".join(f"wsi/{s},{m}\n" for s, m in zip(table["source"], ("", 0.5), strict=True))
    )
    dataset = Slides(DatasetCard("real", options={"mpp": 0.5, "size": 256}))
    index = open_index(dataset, tmp_path, tmp_path / "i", tmp_path)
    X = np.stack(
        [np.asarray(Reader(tmp_path, index.table).read(i)).reshape(-1, 3).mean(0) for i in range(len(index.table))]
    )
    pooled, has = pool(X, np.ones(len(X), bool), index)
    assert has.all() and pooled.shape == (2, 3) and (pooled > 100).all()
