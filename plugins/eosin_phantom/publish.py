"""How a set of the phantom gets to its place: built beside it, stamped, moved in whole."""

from __future__ import annotations

import csv
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

VERSION = 1  # of the tissue: raise it whenever the same seed gives other bytes
STAMP = "phantom.json"


def publish(place: Path, made_from: dict[str, object], build: Callable[[Path], None]) -> None:
    """Have `build` fill a temporary folder beside `place`, then move it there; nothing half made is ever seen.

    `made_from` (set, seed, size, …) is kept as the stamp. Where the same set already stands, nothing is done. Raises
    FileExistsError where another one stands, because a table must not change under those who have read it, and where
    something else is in the way.
    """
    made_from = {"version": VERSION, **made_from}
    if _stands(place, made_from):
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    built = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
    try:
        build(built)
        (built / STAMP).write_text(json.dumps(made_from, sort_keys=True) + "\n", encoding="utf-8")
        built.chmod(0o755)  # mkdtemp makes it private
        _move(built, place, made_from)
    finally:
        shutil.rmtree(built, ignore_errors=True)


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Write a csv table with the same bytes on every platform."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def _stands(place: Path, made_from: dict[str, object]) -> bool:
    stamp = place / STAMP
    if not stamp.exists():
        return False
    found = json.loads(stamp.read_text(encoding="utf-8"))
    if found != made_from:
        raise FileExistsError(
            f"cannot make a phantom of {made_from} in {place}: one of {found} is there; "
            "remove that folder or name another"
        )
    return True


def _move(built: Path, place: Path, made_from: dict[str, object]) -> None:
    try:
        os.rename(built, place)
        return
    except OSError:  # something is there: other sets in their sub-folders, or someone who was faster
        if _stands(place, made_from):
            return
    if clash := sorted(child.name for child in built.iterdir() if (place / child.name).exists()):
        raise FileExistsError(
            f"cannot write {', '.join(clash)} into {place}: what is there is no finished phantom; "
            "remove it or name another folder"
        )
    # Folders first and the stamp last: whoever sees the stamp finds all that it stands for.
    for child in sorted(built.iterdir(), key=lambda c: (c.name == STAMP, not c.is_dir(), c.name)):
        os.rename(child, place / child.name)
