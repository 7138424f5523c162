"""The twins of EVA's sets: miniatures that their own loaders read, each class on both sides of the split."""

from __future__ import annotations

import numpy as np
import pytest

from eosin.plugins import Catalogue
from eosin.tiles import Reader
from helpers import bench

# rows of each split; QUICK ones are made in a second or two
TWINS = {
    "bach": {"train": 31, "val": 17}, "crc": {"train": 54, "val": 27}, "mhist": {"train": 24, "val": 12},
    "pcam": {"train": 32, "val": 16, "test": 16}, "consep": {"train": 32, "val": 16}, "monusac": {"train": 12, "val": 6},
}  # fmt: skip
QUICK = ("mhist", "monusac", "pcam")


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in TWINS])
def test_a_twin_is_read_like_the_original(name, tmp_path):
    done = bench("data", "phantom", name, "--out", tmp_path / "twins", "--json").json
    assert done["absent"] == []
    dataset, root = Catalogue().datasets.get(name, ""), tmp_path / "twins" / name
    table = dataset.items(root)
    split = table["split"].tolist()
    assert {s: split.count(s) for s in dict.fromkeys(split)} == TWINS[name]
    assert not any("copy" in w or "no items" in w for w in table.warnings)
    reader = Reader(root, table)
    seen: dict[str, set[int]] = {s: set() for s in split}
    for i, s in enumerate(split):
        size = reader.read(i).size
        if "mask" in table:
            mask = dataset.mask(root, table, i)
            assert mask.shape == size[::-1]
            seen[s] |= set(np.unique(mask).tolist())
        else:
            seen[s].add(int(table["label"][i]))
    everything = set(range(len(table.classes)))
    assert seen["val"] == everything and seen["train"] == everything - ({5} if name == "monusac" else set())


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    made = []
    for out in "ab":
        assert bench("data", "phantom", "monusac", "--out", tmp_path / out).code == 0
        made.append({p.relative_to(tmp_path / out): p.read_bytes() for p in (tmp_path / out).rglob("*") if p.is_file()})
    assert made[0] == made[1] and len(made[0]) == 3 * 18 + 1


@pytest.mark.slow
def test_consep_and_pcam_do_not_say_when_they_were_made(tmp_path):
    for out in "ab":
        for name in ("consep", "pcam"):
            assert bench("data", "phantom", name, "--out", tmp_path / out).code == 0
    for path in (p for p in (tmp_path / "a").rglob("*") if p.is_file()):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()
