"""`bench new`: what it writes is a whole distribution whose own tests pass; bad names and full folders are refused."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from eosin.cli import main
from eosin.doors import entries, modules
from eosin.errors import StoreError, UsageError
from eosin.template import write

KINDS = ("model", "benchmark")


def own_tests(folder: Path) -> subprocess.CompletedProcess[str]:
    """The distribution's pytest, as after `pip install -e`: its folder on the path, nothing of ours in sight."""
    env = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(folder), str(folder)]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("what", KINDS)
def test_the_distribution_passes_its_own_tests(what, tmp_path):
    done = CliRunner().invoke(main, ["new", what, "my-thing", "--out", str(tmp_path / "new"), "--json"])
    assert done.exit_code == 0, done.output
    answer = json.loads(done.stdout)
    assert answer["files"] == ["README.md", "eosin_my_thing.py", "pyproject.toml", "tests/test_eosin_my_thing.py"]
    tested = own_tests(Path(answer["path"]))
    assert tested.returncode == 0 and "2 passed" in tested.stdout, tested.stdout + tested.stderr


@pytest.mark.parametrize("what", KINDS)
def test_the_entry_point_leads_to_a_hook(what, tmp_path, monkeypatch):
    folder = write(what, f"door-{what}", tmp_path / "new")
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    ((name, module),) = project["entry-points"]["eosin"].items()
    assert project["name"] == f"eosin-door-{what}" and name == module == f"eosin_door_{what}"
    monkeypatch.syspath_prepend(str(folder))
    plugin = __import__(module)
    (thing,) = getattr(plugin, f"provide_{what}s")()
    assert thing.card.name == f"door-{what}"
    sys.modules.pop(module)


def test_a_stranger_finds_the_new_plugin(tmp_path, monkeypatch):
    """Installed (a dist-info with its entry point, on the path), it is in the catalogue."""
    folder = write("model", "found", tmp_path / "new")
    info = folder / "eosin_found-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: eosin-found\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("[eosin]\neosin_found = eosin_found\n")
    monkeypatch.syspath_prepend(str(folder))
    done = CliRunner().invoke(main, ["show", "found", "--json"])
    assert done.exit_code == 0 and json.loads(done.stdout)["dim"] == 768, done.output
    sys.modules.pop("eosin_found")


@pytest.mark.parametrize("name", ["", "My-Model", "9lives", "-x", "a b", "a/b", "a@1", "ünder"])
def test_a_name_that_cannot_be_one_is_refused(name, tmp_path):
    with pytest.raises(UsageError, match="cannot name a plugin"):
        write("model", name, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    mine = tmp_path / "notes.txt"
    mine.write_text("mine")
    done = CliRunner().invoke(main, ["new", "model", "x", "--out", str(tmp_path)])
    assert done.exit_code == 2
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"] and mine.read_text() == "mine"
    with pytest.raises(UsageError, match="not empty"):
        write("model", "x", mine)


def test_the_default_folder_carries_the_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["new", "benchmark", "x"])
    assert done.exit_code == 0 and (tmp_path / "eosin-x" / "eosin_x.py").is_file()
    assert "bench data where x" in done.stdout


@pytest.mark.parametrize("module", sorted({e.module for e in entries() if e.dist and e.dist.name == "eosin"}))
def test_a_name_whose_module_is_taken_is_refused(module, tmp_path):
    name = module.removeprefix("eosin_").replace("_", "-")
    with pytest.raises(UsageError, match=f"module {module}, which eosin has .*Choose another name"):
        write("model", name, tmp_path / "new")
    assert modules()[module] == "eosin" and not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("what", "name", "whose"),
    [
        ("model", "color-stats", "a model"),
        ("benchmark", "idc-knn", "a benchmark"),
        ("benchmark", "idc", "a dataset"),
        ("benchmark", "g2l-knn", "a protocol"),
    ],
)
def test_a_name_that_something_has_is_refused(what, name, whose, tmp_path):
    done = CliRunner().invoke(main, ["new", what, name, "--out", str(tmp_path / "new")])
    assert done.exit_code == 2 and f"There is {whose} called '{name}' already" in done.stderr
    assert not (tmp_path / "new").exists()


def test_a_place_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    done = CliRunner().invoke(main, ["new", "model", "x", "--out", str(tmp_path / "file" / "x")])
    assert done.exit_code == 1 and "Cannot write" in done.stderr and "--out" in done.stderr

    def full(*args, **more):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(StoreError, match="No space left on device. Name another --out"):
        write("model", "x", tmp_path / "new")
