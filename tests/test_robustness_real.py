"""Real tissue: five sections of one lesion in five stains, patches around their landmarks, as a tiny PLISM."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import bench

SCRIPT = Path(__file__).parents[1] / "scripts" / "registered_patches.py"


def cut(shared, out, *more):
    top = shared("realdata", "multistain_lung_lesion3")
    folders = (top / "images_scale5pc", top / "landmarks_scale50pc")
    return subprocess.run(
        [sys.executable, SCRIPT, *folders, out, "--scale", "0.1", *more], capture_output=True, text=True, timeout=60
    )


@pytest.mark.real
def test_one_lesion_in_five_stains(shared, tmp_path):
    done = cut(shared, tmp_path, "--side", "48")
    assert done.returncode == 0 and "69 places on 5 sections" in done.stdout
    done = bench("run", "-m", "color-stats", "-b", "patches-plism", "--registry", tmp_path / "registry.yaml", "--json")
    record = json.loads(Path(done.json["records"][0]).read_text())
    details, scores = record["details"], record["scores"]
    assert details["n_tiles"] == 69 and details["slides"] == ["CD31-3", "Cc10-5", "He", "Ki67-7", "proSPC-4"]
    assert len(details["pairs"]["a"]) == 10 and set(details["pairs"]["group"]) == {"inter_staining"}
    assert 0.8 < scores["cosine"]["mean"] < 1 and scores["top10"]["mean"] < 0.2, "colours alone find no place again"
    assert scores["cosine_both"]["mean"] is None, "one scanner"


@pytest.mark.real
def test_patches_that_leave_a_section(shared, tmp_path):
    done = cut(shared, tmp_path, "--side", "700")
    assert done.returncode != 0 and "Give a smaller --side" in done.stderr
