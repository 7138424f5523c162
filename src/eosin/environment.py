"""What a number was made with: versions, device, plugins, commit."""

from __future__ import annotations

import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

LIBRARIES = ("eosin", "torch", "timm", "numpy", "scipy", "scikit-learn", "pandas", "h5py", "pillow", "huggingface-hub")


def versions() -> dict[str, str]:
    """Installed versions, read without importing anything."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def commit() -> dict[str, Any] | None:
    """The commit of a source checkout and whether it was changed; None for an installed package."""
    top = Path(__file__).parents[2]
    if not (top / ".git").exists():
        return None
    try:
        return {"commit": _git(top, "rev-parse", "HEAD"), "dirty": bool(_git(top, "status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _git(top: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(top), *words], capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()


def device_name(device: str) -> str:
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    return platform.processor() or platform.machine()


def environment(plugins: dict[str, str]) -> dict[str, Any]:
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "versions": versions(),
        "plugins": plugins,
        "source": commit(),
    }


def peak_memory_mb() -> float | None:
    """The most memory that this process has held, in MB."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(most / (2**20 if sys.platform == "darwin" else 2**10), 1)
