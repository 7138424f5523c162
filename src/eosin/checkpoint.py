"""A training run on disk: one file that is whole or not there, read without executing anything."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from .errors import DataError, ModelError, StoreError
from .files import free_space

NAME = "checkpoint.pt"


def there(out: Path) -> bool:
    return (out / NAME).is_file()


def save(out: Path, state: Any) -> None:
    """Write module, moving average, optimiser, step and losses.

    Raises:
        StoreError: no room, or the folder may not be written; the checkpoint before is kept.
    """
    import torch

    content = {
        "module": state.module.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "scaler": state.scaler.state_dict(),
        "average": None if state.average is None else state.average.state_dict(),
        "step": state.step,
        "history": state.history,
        "seconds": state.seconds,
        "finished": state.finished,
        "broken": state.broken,
    }
    path, beside = out / NAME, out / f".{NAME}.{os.getpid()}"
    try:
        out.mkdir(parents=True, exist_ok=True)
        for left in out.glob(f".{NAME}.*"):  # of runs that were killed while they wrote
            left.unlink()
        with open(beside, "wb") as handle:
            torch.save(content, handle)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(beside, path)
    except (OSError, RuntimeError) as error:  # torch says RuntimeError when a disk is full
        kept = "The one before is kept" if path.is_file() else "There was none before"
        raise StoreError(
            f"The checkpoint {path} cannot be written: {error}. {free_space(out)} {kept}; make room, then --resume."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()


def read(out: Path, device: str = "cpu") -> dict[str, Any]:
    """What `save` wrote.

    Raises:
        DataError: damaged, or not ours.
    """
    import torch

    try:
        return torch.load(out / NAME, map_location=device, weights_only=True)
    except Exception as error:  # zip, pickle and torch each have errors of their own
        raise DataError(
            f"{out / NAME} cannot be read ({type(error).__name__}). Remove it to start anew, or name another --out."
        ) from error


def load(out: Path, state: Any, device: str) -> None:
    """Put a checkpoint into a state made with the same settings.

    Raises:
        ModelError: another student, recipe or teacher.
    """
    content = read(out, device)
    try:
        state.module.load_state_dict(content["module"])
        state.optimizer.load_state_dict(content["optimizer"])
        state.scaler.load_state_dict(content["scaler"])
        if state.average is not None:
            state.average.load_state_dict(content["average"])
    except (KeyError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{out / NAME} belongs to another run: {str(error).splitlines()[0]}. Use the same recipe, teacher, student and "
            "options, or name another --out."
        ) from error
    for name in ("step", "history", "seconds", "finished"):
        setattr(state, name, content[name])
    state.broken = content.get("broken", {})  # runs that began with an older eosin have none
