"""A pile of slides, one in twenty of them broken in some way: the rest is done, the broken are named, a second run mends."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from eosin import cut as counter
from eosin.slides import slides_at
from helpers import TINT, bench, install
from slide_files import pyramid, tissue

pytest.importorskip("openslide")

# how a slide may be broken, and what must be said of it
BREAKS: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda p: p.write_bytes(b""), "0 bytes"),
    "a page of text": (lambda p: p.write_text("<html>404 not found</html>"), "too few for a slide"),
    "cut off": (lambda p: p.write_bytes(p.read_bytes()[:20_000]), "Copy or download it again"),
    "not a slide": (lambda p: p.write_bytes(bytes(50_000)), "Is it a whole slide"),
    "mute about its scale": (lambda p: pyramid(p, tissue(), None), "does not say its mpp"),
    "of a scale that cannot be": (lambda p: pyramid(p, tissue(), 264.6), "which no scan of a slide has"),
    "stretched": (lambda p: pyramid(p, tissue(), 0.25, 0.5), "across and"),
    "head overwritten": (lambda p: p.write_bytes(b"\0" * 64 + p.read_bytes()[64:]), "Copy or download it again"),
    "the list of its pages gone": (lambda p: p.write_bytes(p.read_bytes()[:4] + b"\xff\xff\xff\x7f" + p.read_bytes()[8:]), "Copy"),
}  # fmt: skip


def pile(root: Path, n: int, good: Path) -> dict[str, str]:
    """n slides, every twentieth broken; {name of a broken one: what is to be said of it}."""
    root.mkdir(parents=True)
    for i in range(n):
        shutil.copyfile(good, root / f"s{i:04d}.tiff")
    broken = {}
    for number, i in enumerate(range(7, n, 20)):
        harm, said = list(BREAKS.values())[number % len(BREAKS)]
        harm(root / f"s{i:04d}.tiff")
        broken[f"s{i:04d}.tiff"] = said
    return broken


@pytest.mark.parametrize("n", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_a_pile_of_slides_with_some_broken(n, home, tmp_path, monkeypatch):
    good, root, out = (
        pyramid(tmp_path / "good.tiff", tissue(128, 96, (32, 32, 64, 32))),
        tmp_path / "d" / "pile",
        tmp_path / "out",
    )
    broken = pile(root, n, good)
    args = ("tile", root, "--mpp", "0.5", "--size", "32", "--out", out, "--json")
    done = bench(*args)
    assert done.code == 1 and len(done.json["slides"]) == n - len(broken)
    assert {s["state"] for s in done.json["slides"]} == {"tiled"} and {s["tiles"] for s in done.json["slides"]} == {2}
    reasons = {Path(f["slide"]).name: f["error"] for f in done.json["failed"]}
    assert reasons.keys() == broken.keys()
    for name, said in broken.items():
        assert said in reasons[name] and f"failed: {root / name}: " in done.err
    with open(out / "failed.csv", newline="") as handle:
        table = {Path(r["slide"]).name: r["error"] for r in csv.DictReader(handle)}
    assert table == reasons

    looked: list[str] = []
    find_tiles = counter.cut
    monkeypatch.setattr(
        counter, "cut", lambda slide, tiling: looked.append(slide.path.name) or find_tiles(slide, tiling)
    )
    again = bench(*args)
    assert again.code == 1 and {s["state"] for s in again.json["slides"]} == {"kept"}
    assert set(looked) <= broken.keys(), "what is done is left alone"

    rows = "".join(f"s{i:04d}.tiff,{'ab'[i % 2]},p{i}\n" for i in range(n))
    (root / "tiles.csv").write_text("path,label,group\n" + rows)
    home.mkdir()
    slides = "{kind: slides, options: {mpp: 0.5, size: 32, coordinates: %s, unreadable: %s}}"
    (home / "registry.yaml").write_text(
        f"datasets: {{pile: {slides % (out, 'skip')}, strict: {slides % (out, 'refuse')}}}\n"
        "benchmarks: {pile-knn: {dataset: pile, protocol: g2l-knn@1, metric: accuracy, options: {n_folds: 2, k: 1}}}\n"
    )
    install(monkeypatch, tmp_path / "plugin", "eosin_tint", TINT)
    strict = bench("embed", "-m", "tint", "-d", "strict", "--data", tmp_path / "none")
    assert strict.code == 3, strict
    (tmp_path / "d" / "strict").symlink_to(root)
    strict = bench("embed", "-m", "tint", "-d", "strict", "--data", tmp_path / "d")
    assert strict.code == 1 and f"{len(broken)} of {n} slides cannot be tiled" in strict.err
    assert all(name in strict.err for name in broken)
    run = ("run", "-m", "tint", "-b", "pile-knn", "--data", tmp_path / "d", "--json", "--no-floor")
    first = bench(*run)
    record = json.loads(Path(first.json["records"][0]).read_text())
    assert first.code == 0 and first.json["embedded"] == 2 * (n - len(broken))
    assert record["dataset"]["left_out"] == len(broken)
    assert all(any(f"left out: {name}" in w for w in record["dataset"]["warnings"]) for name in broken)

    looked.clear()
    for name in broken:
        shutil.copyfile(good, root / name)
    mended = bench(*args)
    assert mended.code == 0 and sorted(looked) == sorted(broken) and not (out / "failed.csv").exists()
    states = {Path(s["slide"]).name: s["state"] for s in mended.json["slides"]}
    assert {name for name, state in states.items() if state == "tiled"} == broken.keys()
    assert json.loads(Path(bench(*run).json["records"][0]).read_text())["dataset"]["left_out"] == 0


def test_a_link_to_nothing_is_named(tmp_path):
    root = tmp_path / "pile"
    root.mkdir()
    pyramid(root / "a.tiff", tissue(128, 96, (32, 32, 64, 32)))
    (root / "b.tiff").symlink_to("gone.tiff")
    done = bench("tile", root, "--mpp", "0.5", "--size", "32", "--out", tmp_path / "out", "--json")
    assert done.code == 1 and len(done.json["slides"]) == 1
    assert [Path(f["slide"]).name for f in done.json["failed"]] == ["b.tiff"]


def test_the_largest_file_of_a_dicom_slide_is_found_behind_links(tmp_path):
    for name, size in (("level0", 1000), ("thumb", 10)):
        (tmp_path / f"the-{'content-of-the-' * (size < 100)}{name}").write_bytes(bytes(size))
        (tmp_path / "slide").mkdir(exist_ok=True)
        target = next(tmp_path.glob(f"the-*{name}"))
        (tmp_path / "slide" / f"{name}.dcm").symlink_to(target)
    assert [p.name for p in slides_at(tmp_path / "slide")] == ["level0.dcm"]
