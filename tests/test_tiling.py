"""Tiling: tissue and glass, the grid, files of coordinates, and the command that writes them."""

from __future__ import annotations

import colorsys
import json

import h5py
import numpy as np
import pytest
from PIL import Image

from eosin.coordinates import find, read
from eosin.errors import DataError, UsageError
from eosin.slides import Slide
from eosin.tiling import RULES, Tiling, cut, fit, mask_level, otsu, saturation
from helpers import bench
from slide_files import coordinates, pyramid, tissue

SMALL = Tiling(0.5, 32)


@pytest.fixture
def slide(tmp_path):
    """256 x 192 px at 0.5 um, tissue at x, y, w, h = 64, 32, 128, 96."""
    return Slide(pyramid(tmp_path / "a.tiff", tissue()))


def golden_cases(shared, case):
    expected = json.loads((shared("golden", case) / "expected.json").read_text())
    return expected, shared("realdata", "wsi") / expected["file"]["name"]


@pytest.mark.real
@pytest.mark.parametrize("case", ["eva-wsi-01", "eva-wsi-02"])
def test_evas_rule_draws_evas_tiles_in_evas_order(shared, case):
    expected, path = golden_cases(shared, case)
    slide = Slide(path, expected["mpp_used"])
    inked: dict[int, int] = {}
    for text, truth in expected["cases"].items():
        asked = dict(part.split("=") for part in text.split(","))
        tiling = Tiling(float(asked["mpp"]), int(asked["width"]), rule="eva", limit=int(asked["max_samples"]))
        if asked.get("shuffle") == "False":
            tiling = Tiling(**{**vars(tiling), "seed": -1})
        if "overlap" in asked:  # eva counts it in level-0 pixels
            stride = (tiling.edge(slide.mpp) - int(asked["overlap"])) * slide.mpp / tiling.mpp
            tiling = Tiling(**{**vars(tiling), "stride": round(stride)})
        if "error" in truth:
            with pytest.raises(DataError, match="too few to tell tissue"):
                cut(slide, tiling)
            continue
        found = cut(slide, tiling)
        assert found.xy.tolist() == truth["x_y"], text
        level = found.about["mask"]["level"]
        assert level == truth["mask_level"]
        if level not in inked:
            inked[level] = sum(int((saturation(p) > 20).sum()) for *_, p in slide.blocks(level))
        assert inked[level] == truth["mask_foreground_pixels"]


def test_saturation_is_that_of_hsv():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (40, 40, 3)).astype(np.uint8)
    pixels[0, 0], pixels[0, 1], pixels[0, 2] = (0, 0, 0), (255, 255, 255), (255, 0, 0)
    truth = [[round(255 * colorsys.rgb_to_hsv(*(int(v) / 255 for v in p))[1]) for p in row] for row in pixels]
    assert np.abs(saturation(pixels).astype(int) - truth).max() <= 1
    assert saturation(pixels)[0, :3].tolist() == [0, 0, 255]


def test_otsu_separates_best():
    rng = np.random.default_rng(1)
    values = np.concatenate([rng.normal(30, 9, 5000), rng.normal(120, 25, 2000)]).clip(0, 255).astype(int)
    counts = np.bincount(values, minlength=256)

    def between(t):
        low, high = values[values <= t], values[values > t]
        return len(low) * len(high) * (low.mean() - high.mean()) ** 2 if len(low) and len(high) else 0.0

    assert otsu(counts) == max(range(255), key=between)
    assert otsu(np.eye(256)[7] * 100) in range(256), "one value has no two classes"


def test_tiles_lie_on_tissue_in_the_order_of_the_grid(slide):
    found = cut(slide, SMALL)
    truth = [[x, y] for x in range(64, 192, 32) for y in range(32, 128, 32)]
    assert found.xy.tolist() == truth and (found.edge, found.px) == (32, 32)
    assert found.share.min() > 0.9 and found.mpp == pytest.approx(0.5, rel=1e-4)
    assert found.about["mask"]["above"] in range(12, 41) and found.about["tiling"]["rule"] == "otsu"


@pytest.mark.parametrize("rule", RULES)
def test_a_share_is_counted_as_it_is_defined(tmp_path, rule):
    """A tile half on tissue has half the share, whatever pieces the slide is read in."""
    slide = Slide(pyramid(tmp_path / "a.tiff", tissue(box=(64, 32, 112, 80))))
    kept = {s: cut(slide, Tiling(0.5, 32, rule=rule, share=s)).xy.tolist() for s in (0.0, 0.2, 0.4, 0.6, 1.0)}
    whole, half, corner = [64, 32], [160, 32], [160, 96]
    assert all(whole in kept[s] for s in kept)
    assert half in kept[0.4] and half not in kept[0.6]
    assert corner in kept[0.2] and corner not in kept[0.4]
    assert len(kept[0.0]) == 8 * 6
    blocks = slide.blocks
    slide.blocks = lambda level, reduce: blocks(level, reduce, 2 * reduce + 7)
    again = cut(slide, Tiling(0.5, 32, rule=rule, share=0.4))
    assert again.xy.tolist() == kept[0.4]


def test_strides_scales_and_borders(slide):
    overlapping = cut(slide, Tiling(0.5, 32, stride=16, share=0.99)).xy
    assert sorted(set(overlapping[:, 0].tolist())) == list(range(64, 161, 16))
    coarse = cut(slide, Tiling(1.0, 32, share=0.0))
    assert coarse.edge == 64 and coarse.mpp == pytest.approx(1.0, rel=1e-4)
    large = cut(slide, Tiling(0.5, 100, share=0.0))
    assert large.xy.tolist() == [[0, 0], [100, 0]], "incomplete tiles at the border are left out"
    fine = cut(slide, Tiling(0.25, 64))
    assert (fine.edge, fine.px) == (32, 64) and fine.mpp == pytest.approx(0.5, rel=1e-4), "nothing is enlarged"


def test_a_smaller_limit_is_a_prefix_of_a_larger_one(slide):
    ten, five = (cut(slide, Tiling(0.5, 32, limit=n)).xy.tolist() for n in (10, 5))
    assert ten[:5] == five and len(ten) == 10
    assert sorted(cut(slide, Tiling(0.5, 32, limit=99)).xy.tolist()) == cut(slide, SMALL).xy.tolist()
    assert cut(slide, Tiling(0.5, 32, limit=5, seed=1)).xy.tolist() != five
    assert cut(slide, Tiling(0.5, 32, limit=5, seed=-1)).xy.tolist() == cut(slide, SMALL).xy.tolist()[:5]


def test_glass_alone_tissue_alone_and_ink(tmp_path):
    glass = Slide(pyramid(tmp_path / "g.tiff", tissue(box=(0, 0, 0, 0))))
    assert len(cut(glass, SMALL).xy) == 0
    full = tissue(box=(0, 0, 256, 192))
    full[:, 128:] = (230, 160, 205)  # pale tissue is tissue, though Otsu alone would part it from the dark
    assert len(cut(Slide(pyramid(tmp_path / "f.tiff", full)), SMALL).xy) == 48
    inked = tissue(box=(0, 0, 0, 0))
    inked[:64, :64] = (25, 2, 4)
    assert len(cut(Slide(pyramid(tmp_path / "i.tiff", inked)), SMALL).xy) == 0


def test_the_mask_is_read_at_a_coarse_level(slide):
    assert mask_level(slide, Tiling(0.5, 64)) == (2, 1) and mask_level(slide, Tiling(0.5, 128)) == (2, 2)
    assert mask_level(slide, Tiling(0.5, 12, rule="eva")) == (2, 1)
    assert mask_level(slide, Tiling(0.5, 11, rule="eva")) == (1, 1)
    with pytest.raises(DataError, match="too few to tell tissue"):
        mask_level(slide, Tiling(0.5, 2, rule="eva"))


@pytest.mark.parametrize(
    "wrong", [{"rule": "guess"}, {"mpp": 0}, {"size": 0}, {"share": 2}, {"limit": -1}, {"mpp": float("nan")}]
)
def test_a_tiling_that_cannot_be_is_refused(wrong):
    with pytest.raises(UsageError):
        Tiling(**wrong)


# --- coordinates of others


def test_trident_clam_and_the_sampler(slide, tmp_path):
    xy = [[0, 0], [96, 64]]
    trident = coordinates(
        tmp_path / "t.h5", xy, attrs={"patch_size": 32, "patch_size_level0": 64, "overlap": 0, "name": "a"}
    )
    clam = coordinates(tmp_path / "c.h5", xy, attrs={"patch_size": 16, "patch_level": 1})
    as_attributes = coordinates(
        tmp_path / "s.h5", xy, "tile_coords", file_attrs={"tile_size": 48, "overlap": 0, "total_tiles": 2}
    )
    as_datasets = coordinates(tmp_path / "d.h5", xy, "tile_coords", tile_size=48, overlap=0, total_tiles=2)
    vendored = coordinates(tmp_path / "v.h5", xy, file_attrs={"tile_size": 48})
    for path, edge, px in (
        (trident, 64, 32),
        (clam, 32, 16),
        (as_attributes, 48, 48),
        (as_datasets, 48, 48),
        (vendored, 48, 48),
    ):
        found = fit(slide, read(path), SMALL)
        assert (found.xy.tolist(), found.edge, found.px) == (xy, edge, px), path.name
        assert found.mpp == pytest.approx(0.5 * edge / px, rel=1e-4)
    empty = read(coordinates(tmp_path / "e.h5", np.empty((0, 2)), attrs={"patch_size_level0": 64}))
    assert empty.xy.shape == (0, 2)


def test_tile_coords_come_before_coords(tmp_path):
    path = coordinates(
        tmp_path / "s.h5", [[1, 2]], "tile_coords", file_attrs={"tile_size": 9}, coords=np.array([[7, 7]])
    )
    assert read(path).xy.tolist() == [[1, 2]]


def test_a_file_that_does_not_say_how_large_tiles_are_is_refused(tmp_path):
    with pytest.raises(DataError, match="does not say how large a tile is.*patch_size_level0"):
        read(coordinates(tmp_path / "a.h5", [[0, 0]], attrs={"patch_size": 256}))
    with pytest.raises(DataError, match="holds features, neither"):
        read(coordinates(tmp_path / "b.h5", [[0.0]], "features"))
    with pytest.raises(DataError, match=r"shape \(2, 3\), not \(n, 2\)"):
        read(coordinates(tmp_path / "c.h5", np.zeros((2, 3)), attrs={"patch_size_level0": 2}))
    (tmp_path / "d.h5").write_bytes(b"no")
    with pytest.raises(DataError, match="d.h5 cannot be read"):
        read(tmp_path / "d.h5")


def test_tiles_off_the_slide_belong_to_another(slide, tmp_path):
    path = coordinates(tmp_path / "a.h5", [[0, 0], [250, 0]], attrs={"patch_size_level0": 32})
    with pytest.raises(DataError, match="leave the slide of 256x192. Do the coordinates belong to it"):
        fit(slide, read(path), SMALL)


def test_a_20x_slide_gets_tiles_of_the_same_tissue(tmp_path):
    """256 level-0 pixels a tile on every slide are twice the tissue at 20x: asked for a scale, tiles shrink about their centres."""
    path = coordinates(tmp_path / "a.h5", [[64, 32]], "tile_coords", file_attrs={"tile_size": 64})
    tiling = Tiling(0.25, 64)
    for mpp, edge, corner in ((0.25, 64, [64, 32]), (0.5, 32, [80, 48])):
        slide = Slide(pyramid(tmp_path / f"{mpp}.tiff", tissue(), mpp))
        found = fit(slide, read(path), tiling, rescale=True)
        assert (found.edge, found.xy.tolist()) == (edge, [corner])
        assert found.edge * slide.mpp == pytest.approx(16, rel=1e-4)


def test_file_names_are_found_in_any_case(tmp_path):
    coordinates(tmp_path / "patches" / "TCGA-AB.0F1E_patches.h5", [[0, 0]], attrs={"patch_size_level0": 1})
    assert find(tmp_path, "TCGA-AB.0f1e").xy.tolist() == [[0, 0]]


# --- bench tile


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "slides"
    pyramid(root / "one.tiff", tissue())
    pyramid(root / "deep" / "two.tiff", tissue(seed=1))
    (root / ".hidden.tiff").write_bytes(b"")
    (root / "notes.txt").write_text("x")
    return root


def tile(folder, out, *more):
    return bench("tile", folder, "--mpp", "0.5", "--size", "32", "--out", out, "--json", *more)


def test_the_command_writes_coordinates_and_pictures(folder, tmp_path):
    done = tile(folder, tmp_path / "out")
    assert done.code == 0 and done.json["tiles"] == 24 and done.json["failed"] == []
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["one.h5", "one.png", "two.h5", "two.png"]
    with h5py.File(tmp_path / "out" / "one.h5") as file:
        assert file["coords"].shape == (12, 2) and file["share"].shape == (12,)
        attrs = dict(file["coords"].attrs)
        assert (attrs["patch_size"], attrs["patch_size_level0"], attrs["overlap"], attrs["level0_width"]) == (
            32,
            32,
            0,
            256,
        )
        assert file.attrs["fingerprint"] == Slide(folder / "one.tiff").fingerprint
        about = json.loads(file.attrs["about"])
        assert about["tiling"]["rule"] == "otsu" and about["mask"]["share"] == 0.2
    with Image.open(tmp_path / "out" / "one.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    assert pixels.shape == (192, 256, 3)
    assert tuple(pixels[32, 64]) == (10, 30, 180), "a tile's outline"
    assert pixels[5, 5].sum() < 600, "glass is shaded"
    np.testing.assert_allclose(pixels[48, 80], (200, 90, 150), atol=7)


def test_what_is_done_is_kept_and_what_changed_is_not(folder, tmp_path):
    out = tmp_path / "out"
    tile(folder, out)
    before = (out / "one.h5").stat().st_mtime_ns
    assert [s["state"] for s in tile(folder, out).json["slides"]] == ["kept", "kept"]
    assert (out / "one.h5").stat().st_mtime_ns == before
    pyramid(folder / "one.tiff", tissue(seed=5))
    (out / "two.h5").write_bytes((out / "two.h5").read_bytes()[:300])
    assert [s["state"] for s in tile(folder, out).json["slides"]] == ["tiled", "tiled"]
    (out / "two.png").unlink()
    assert [s["state"] for s in tile(folder, out).json["slides"]] == ["kept", "kept"] and (out / "two.png").exists()


def test_other_options_do_not_overwrite_unasked(folder, tmp_path):
    tile(folder, tmp_path / "out")
    refused = tile(folder, tmp_path / "out", "--stride", "16")
    assert refused.code == 1 and "stride 0, now 16" in refused.json["failed"][0]["error"]
    again = tile(folder, tmp_path / "out", "--stride", "16", "--again")
    assert again.code == 0 and again.json["tiles"] > 24


def test_a_bad_slide_is_reported_and_the_others_go_on(folder, tmp_path):
    (folder / "broken.svs").write_bytes(b"II*\0" + bytes(99))
    pyramid(folder / "mute.tiff", tissue(), None)
    done = tile(folder, tmp_path / "out")
    assert done.code == 1 and done.json["tiles"] == 24
    assert [f["error"].split(" ")[0] for f in done.json["failed"]] == ["broken.svs", "mute.tiff"]
    assert "--slide-mpp" in done.err and "--mpp" in done.err
    assert tile(folder / "mute.tiff", tmp_path / "out", "--slide-mpp", "0.5").json["tiles"] == 12


def test_two_slides_of_one_name_are_refused(folder, tmp_path):
    pyramid(folder / "deep" / "one.tiff", tissue())
    done = tile(folder, tmp_path / "out")
    assert done.code == 1 and len(done.json["failed"]) == 2 and "called one" in done.err and done.json["tiles"] == 12


def test_no_slide_is_a_usage_error_and_no_place_an_error(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    assert (
        "There is no slide at" in (done := bench("tile", tmp_path / "empty", "--out", tmp_path / "o")).err
        and done.code == 2
    )
    (tmp_path / "file").write_text("")
    blocked = tile(folder, tmp_path / "file" / "out")
    assert blocked.code == 1 and "Cannot write" in blocked.err


def test_positions_of_others_are_taken_over(folder, tmp_path):
    for name in ("one", "two"):
        coordinates(
            tmp_path / "trident" / "patches" / f"{name}_patches.h5",
            [[64, 32]],
            attrs={"patch_size": 16, "patch_size_level0": 32},
        )
    done = tile(folder, tmp_path / "out", "--coordinates", tmp_path / "trident")
    assert done.code == 0 and done.json["tiles"] == 2
    found = read(tmp_path / "out" / "two.h5")
    assert (found.xy.tolist(), found.edge, found.px) == ([[64, 32]], 32, 16)


def test_what_the_command_wrote_serves_a_dataset(folder, tmp_path):
    from eosin.slides import slide_tiles
    from eosin.table import Table

    tile(folder, tmp_path / "out", "--limit", "5")
    items = Table({"id": ["1", "2"], "source": ["one.tiff", "deep/two.tiff"]})
    tiles = slide_tiles(folder, items, {"coordinates": str(tmp_path / "out")})
    assert len(tiles) == 10 and set(tiles["px"].tolist()) == {32}
    pyramid(folder / "one.tiff", tissue(seed=3))
    with pytest.raises(DataError, match="1: the coordinates of one.tiff were made of another file .*Tile it again"):
        slide_tiles(folder, items, {"coordinates": str(tmp_path / "out")})


@pytest.mark.real
def test_real_slides(shared, tmp_path):
    done = bench(
        "tile", shared("realdata", "wsi"), "--mpp", "0.5", "--size", "256", "--out", tmp_path / "out", "--json"
    )
    assert done.code == 1
    assert [(s["slide"].rsplit("/", 1)[1], s["tiles"]) for s in done.json["slides"]] == [("CMU-1-Small-Region.svs", 42)]
    errors = {f["slide"].rsplit("/", 1)[1]: f["error"] for f in done.json["failed"]}
    assert set(errors) == {"CropBreastSlide.tiff", "broken.svs", "small_wsi_level.dcm"}
    assert "264.58" in errors["CropBreastSlide.tiff"] and "series" in errors["small_wsi_level.dcm"]
    crop = shared("realdata", "wsi", "CropBreastSlide.tiff")
    done = bench("tile", crop, "--mpp", "0.5", "--slide-mpp", "0.5", "--out", tmp_path / "out", "--json")
    assert done.code == 0 and done.json["tiles"] == 35, "all of it is tissue"
