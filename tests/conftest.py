"""What every test shares: a home of its own, the shared folder, and whether slow tests run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="also run tests marked slow")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--slow"):
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="slow; run with --slow"))


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """EOSIN_HOME in the test's own folder: no test sees another's, or the user's."""
    folder = tmp_path / "home"
    monkeypatch.setenv("EOSIN_HOME", str(folder))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return folder


@pytest.fixture(scope="session")
def shared():
    """shared("golden", "cka-01"): a path in the shared folder; the test is skipped where it is absent."""
    top = Path(os.environ.get("EOSIN_SHARED") or Path(__file__).parents[2] / "shared")

    def find(*parts: str) -> Path:
        path = top.joinpath(*parts)
        if not path.exists():
            pytest.skip(f"{'/'.join(parts)} is not here (EOSIN_SHARED)")
        return path.resolve()

    return find
