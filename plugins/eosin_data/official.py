"""What loaders share: walking a download, and saying how it differs from the official one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import eosin
from eosin.dataset import IMAGES, files_below, folders_below, indent
from eosin.errors import CardError, DataError


class Tree:
    """One download while it is read. What was looked at is watched; what is odd and accepted becomes a warning."""

    def __init__(self, dataset: eosin.Dataset, root: Path) -> None:
        self.dataset, self.root = dataset, root
        self.watched: dict[str, None] = {str(root): None}
        self.warnings: list[str] = []

    def folders(self, folder: Path) -> list[Path]:
        """The sub-folders, sorted, without hidden ones."""
        self.watched[str(folder)] = None
        return folders_below(folder)

    def files(self, folder: Path, suffixes: tuple[str, ...] = IMAGES) -> list[Path]:
        """The files with such endings, sorted, without hidden ones (macOS leaves a `._x.png` beside each x.png)."""
        self.watched[str(folder)] = None
        return list(files_below(folder, suffixes))

    def watch(self, file: Path) -> Path:
        """A file that is no source of tiles and yet decides something: a table, a mask."""
        self.watched[str(file)] = None
        return file

    def below(self, top: Path | None = None, depth: int = 3) -> Iterator[Path]:
        """`top` (default: the root) and the folders below it, nearest first; symbolic links are not followed."""
        level = [top or self.root]
        for step in range(depth + 1):
            yield from level
            if step < depth:
                level = [f for folder in level for f in self.folders(folder) if not f.is_symlink()]

    def find(self, wanted: Callable[[Path], bool], depth: int = 3) -> Path:
        """The nearest folder that is wanted, so that people may name the unzipped folder or its parent.

        Raises:
            DataError: there is none; the text shows the tree that was expected.
        """
        if not self.root.is_dir():
            raise self.fail(f"{self.root} is a file. Name the folder that was unpacked.")
        for folder in self.below(depth=depth):
            if wanted(folder):
                return folder
        raise self.fail(
            f"{self.root} does not hold the official layout. Expected there:\n{indent(self.dataset.card.tree)}\n"
            f"`bench data where {self.dataset.name}` says how to get it."
        )

    def nearest(self, wanted: Callable[[Path], bool], name: str = "", depth: int = 3) -> Path | None:
        """The nearest folder that is wanted, rather one called `name`; others are copies, each named in a warning."""
        found = [f for f in self.below(depth=depth) if wanted(f)] if self.root.is_dir() else []
        best = min(found, key=lambda f: name not in f.relative_to(self.root).parts, default=None) if name else None
        best = best or next(iter(found), None)
        self.warnings += [f"{self.relative(f)} is a second copy and was passed over" for f in found if f != best]
        return best

    def relative(self, file: Path) -> str:
        return file.relative_to(self.root).as_posix()

    def fail(self, text: str) -> DataError:
        return DataError(f"{self.dataset.name}: {text}")

    def odd(self, file: Path, form: str) -> DataError:
        return self.fail(f"{file} does not match {form}. Move it away, or copy it again.")

    def disagree(self, file: Path, one: str, other: str) -> DataError:
        return self.fail(f"{file}: {one}, and {other}. One is wrong; correct or remove it.")

    def note(self, number: int, text: str) -> None:
        """A warning that starts with a number, unless the number is 0."""
        if number:
            self.warnings.append(f"{number:,} {text}")

    def compare(self, found: int, official: int, what: str) -> None:
        """More than the official number is an error: the folder holds a copy. Fewer is a warning."""
        if found > official:
            raise self.fail(
                f"{found:,} {what}, more than the official {official:,}: {self.root} holds a copy. Keep one of them."
            )
        if found < official:
            self.warnings.append(f"{found:,} {what} of the official {official:,}: a subset or a partial download")

    def compare_md5(self, file: Path, md5: str) -> None:
        """A warning when a small file is not the official one, byte for byte."""
        if hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest() != md5:
            self.warnings.append(f"{self.relative(file)} is not the official file, whose md5 is {md5}")

    def once(self, seen: dict[Any, Path], key: Any, file: Path) -> None:
        """Remember a file by what it is; DataError naming both when it is there already."""
        if key in seen:
            raise self.fail(f"{file} and {seen[key]} are one and the same item. Remove one of them.")
        seen[key] = file

    def table(self, rows: Iterable[Mapping[str, Any]], classes: tuple[str, ...], **counts: int) -> eosin.Table:
        """The rows as a table: the card's mpp where a row has none, a warning for each class without rows."""
        return self.finish(eosin.Table.of(rows, classes=classes), **counts)

    def finish(self, table: eosin.Table, **counts: int) -> eosin.Table:
        """The table with what was seen on the way; DataError when it is empty."""
        table.warnings, table.watched = self.warnings, tuple(self.watched)
        table.counts = {k: int(v) for k, v in counts.items()}
        if not len(table):
            raise self.fail(
                f"nothing in {self.root} can be used. {' '.join(w + '.' for w in self.warnings)} "
                f"`bench data where {self.dataset.name}` describes what is expected."
            )
        if self.dataset.card.mpp:
            table.columns["mpp"] = np.where(np.isfinite(table["mpp"]), table["mpp"], self.dataset.card.mpp)
        if table.known("label") is not None:  # where pixels have labels, tiles have none
            present = set(table["label"].tolist())
            table.warnings += [f"class {c} has no items" for i, c in enumerate(table.classes) if i not in present]
        return table


def options_of(dataset: eosin.Dataset, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The card's options over the loader's defaults.

    A default that is a tuple of texts lists what is allowed, the default first.

    Raises:
        CardError: an option that the loader does not have, or a value that it does not take.
    """
    given = dataset.card.options
    wrong = [k for k in given if k not in defaults]
    if wrong:
        raise CardError(f"dataset {dataset.name}: no option {', '.join(wrong)}. Its options: {', '.join(defaults)}.")
    out = {}
    for key, default in defaults.items():
        choice = isinstance(default, tuple) and bool(default) and all(isinstance(d, str) for d in default)
        value = given.get(key, default[0] if choice else default)
        if choice and value not in default:
            raise CardError(f"dataset {dataset.name}: option {key} is {' or '.join(default)}, not {value!r}.")
        out[key] = value
    return out
