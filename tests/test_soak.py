"""The soak script finds what it looks for; CI runs it for five minutes, two hours are run by hand."""

from __future__ import annotations

import random
import sys
from pathlib import Path

SCRIPTS = Path(__file__).parents[1] / "scripts"
sys.path.insert(0, str(SCRIPTS))

import simulate_scale  # noqa: E402
import soak  # noqa: E402


def test_what_differs_is_left_or_lacks_is_found(tmp_path):
    for name in ("used", "fresh"):
        for top in ("embeddings", "results"):
            (tmp_path / name / top).mkdir(parents=True)
        (tmp_path / name / "embeddings" / "part.h5").write_bytes(b"same")
        (tmp_path / name / "results" / "r.json").write_text(
            f'{{"mean": 1, "seconds": {len(name)}, "at": "{tmp_path / name}"}}'
        )
    states = [soak.state(tmp_path / name) for name in ("used", "fresh")]
    assert list(soak.differences(*states)) == [], "seconds and places may differ"
    (tmp_path / "used" / "embeddings" / "part.h5").write_bytes(b"else")
    (tmp_path / "used" / "embeddings" / "x.claim").touch()
    (tmp_path / "used" / "results" / "r.json").unlink()
    found = list(soak.differences(soak.state(tmp_path / "used"), states[1]))
    assert [f.split(" ", 1)[1] for f in found] == ["is left over", "is missing", "differs from a fresh run's"]


def test_a_command_that_ends_badly_is_a_finding(tmp_path):
    hard = soak.Soak(tmp_path, random.Random(0))
    hard.expect(0, "", (0,), "fine")
    assert not hard.findings
    hard.expect(3, "said why", (0, 1), "this")
    hard.expect(0, "Traceback (most recent call last)", (0,), "that")
    assert len(hard.findings) == 2 and "said why" in hard.findings[0]


def test_a_simulated_thousand_workers_finish_whatever_fails():
    address = simulate_scale.Address(Path("x"), 20_000_000, {})
    calm = simulate_scale.simulate(address, 200, 50, 0, 0)
    rough = simulate_scale.simulate(address, 200, 50, 0.2, 0)
    assert calm["blocks"] == rough["blocks"] == len(address.blocks) == calm["attempts"]
    assert rough["attempts"] == len(address.blocks) + rough["failures"] and calm["hours"] < rough["hours"]
