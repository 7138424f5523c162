"""A results bundle: records and predictions with their hashes, to carry to another machine and to check there."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import re
import stat
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import record
from .errors import DataError, EosinError
from .files import publish, writing
from .gathered import unsound
from .leaderboard import sound

ENCODING, VERSION = "eosin-bundle", "1"
MANIFEST = "manifest.json"
NAME = r"[A-Za-z0-9_+][A-Za-z0-9._+@-]*@[0-9a-f]{4,64}"
PLACE = re.compile(rf"{NAME}/{NAME}\.json")
LARGEST = {".json": 256 * 2**20, ".npz": 2**30}  # bytes; a bundle that says more is refused unread
# places of the machine that made a record: only their last part goes along
PLACES = (("model", "weights"), ("dataset", "base"), ("dataset", "root"), ("dataset", "table"), ("dataset", "targets"))


@dataclass
class Imported:
    """What became of the records of a bundle: `here` had the same scores already; `conflicts` differ; `refused` with reasons."""

    added: list[str] = field(default_factory=list)
    here: list[str] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


# --- export


def export(
    records: Iterable[Mapping[str, Any]], target: Path, version: str, predictions: bool = True
) -> dict[str, Any]:
    """Write a bundle into a new or empty folder, or into a .zip file; the manifest.

    Args:
        records: as `leaderboard.collect` gives them, with their `path`. version: of eosin.
        predictions: whether the predictions go along; they hold the ids of tiles, which may name patients.

    Raises:
        DataError: nothing to write, a target that is not empty, predictions that should be there and are not.
        StoreError: the target cannot be written.
    """
    rows, lines, zipped = list[dict[str, Any]](), list(records), target.suffix == ".zip"
    with writing(target, "folder or .zip"):
        if target.exists() and (zipped or not target.is_dir() or any(target.iterdir())):
            raise DataError(f"{target} is there already. Name another, or remove it first.")
    if not lines:
        raise DataError("There is nothing to export: no record fits. `bench leaderboard` shows what there is.")
    with writing(target, "folder or .zip"), (_Zip if zipped else _Folder)(target) as write:
        for r in sorted(lines, key=lambda r: str(r["path"])):
            rows.append(_add(write, r, predictions))
        manifest = {
            "encoding-type": ENCODING,
            "encoding-version": VERSION,
            "eosin": version,
            "record-version": record.VERSION,
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "protocols": sorted({r["protocol"] for r in rows}),
            "records": rows,
        }
        write.add(MANIFEST, _text(manifest))
    return manifest


def _add(write: _Folder | _Zip, r: Mapping[str, Any], predictions: bool) -> dict[str, Any]:
    """Write a record and its predictions; the row of the manifest."""
    place, content = Path(*r["path"].parts[-2:]), _portable(r, predictions)
    row = {"path": place.as_posix(), **write.add(place.as_posix(), _text(content))}
    if content["predictions"]:
        beside = record.predictions_path(r["path"])
        if not beside.is_file():
            raise DataError(f"{beside} is not there, and its record names it. Run it again, or add --no-predictions.")
        there = record.predictions_path(place).as_posix()
        row["predictions"] = {"path": there, **write.add(there, _read(beside))}
    return row | {"model": r["model"]["name"], "benchmark": r["benchmark"]["name"], "protocol": r["protocol"]["name"]}


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:  # caught here, for it is not the bundle that fails
        raise DataError(f"Cannot read {path}: {error.strerror}. Mend its rights, or add --no-predictions.") from error


def _portable(r: Mapping[str, Any], predictions: bool) -> dict[str, Any]:
    """The record as it was read, with no folder of this machine in it."""
    content = {k: v for k, v in r.items() if k != "path"}
    for block, key in PLACES:
        value = content[block].get(key)
        if isinstance(value, str) and (value.startswith(("/", "~", "\\\\")) or re.match(r"[A-Za-z]:[\\/]", value)):
            content[block] = {**content[block], key: re.split(r"[\\/]", value.rstrip("\\/"))[-1]}
    return {**content, "predictions": content.get("predictions") if predictions else None}


def _text(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode()


def _said(content: bytes) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


class _Folder:
    """Files below a folder; the manifest is the last of them, so that a bundle without one is not whole."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __enter__(self) -> _Folder:
        return self

    def __exit__(self, *error: Any) -> None:
        """Every file is whole already."""

    def add(self, place: str, content: bytes) -> dict[str, Any]:
        publish(self.target / place, content)
        return _said(content)


class _Zip:
    """A zip that is put in place when it is whole."""

    def __init__(self, target: Path) -> None:
        self.target, self.temporary = target, target.with_name(f".{target.name}.{os.getpid()}")

    def __enter__(self) -> _Zip:
        self.target.parent.mkdir(parents=True, exist_ok=True)
        self.book = zipfile.ZipFile(self.temporary, "w", zipfile.ZIP_DEFLATED)
        return self

    def __exit__(self, kind: Any, *error: Any) -> None:
        try:
            self.book.close()  # writes the list of what is in it, so a full disk may show only now
            if kind is None:
                os.replace(self.temporary, self.target)
        finally:
            self.temporary.unlink(missing_ok=True)

    def add(self, place: str, content: bytes) -> dict[str, Any]:
        self.book.writestr(place, content)
        return _said(content)


# --- import


def bring(source: Path, results: Path, catalogue: Any) -> Imported:
    """Check a bundle (a folder or a zip) and copy its sound records into the results; what is there is never replaced.

    A record is refused, and named, when its hash, its place, its contents or its protocol are not right; the others go in.

    Args:
        catalogue: the protocols and benchmarks that are known here.

    Raises:
        DataError: no bundle, one of a later version, or one with names that lead elsewhere.
        StoreError: the results cannot be written; what was copied before stays.
    """
    with _Source(source) as files:
        manifest = _manifest(files)
        found = Imported()
        seen: set[str] = set()
        for row in manifest["records"]:
            place = row["path"]
            try:
                if place in seen:
                    raise ValueError("stands twice in the manifest")
                seen.add(place)
                content = files.read(place, row)
                wanted = _checked(content, place, catalogue)
                beside = _beside(files, row, place, wanted)
            except (ValueError, EosinError) as error:
                found.refused.append(f"{place}: {error}")
                continue
            with writing(results, "folder with --results"):
                _put(results / place, content, beside, wanted, found)
    return found


def _put(target: Path, content: bytes, beside: bytes | None, wanted: dict[str, Any], found: Imported) -> None:
    place = "/".join(target.parts[-2:])
    if target.exists():
        try:
            own = record.read(target)["scores"]
        except ValueError as error:
            return found.conflicts.append(f"{place}: what is here is damaged ({error}); remove it and import again")
        if own == wanted["scores"]:
            return found.here.append(place)
        metric = wanted["benchmark"]["metric"]
        values = [record.value(s.get("mean"), s.get("std")) for s in (own.get(metric) or {}, wanted["scores"][metric])]
        return found.conflicts.append(
            f"{place}: {metric} is {values[0]} here and {values[1]} in the bundle; kept as it is"
        )
    if beside is not None:
        publish(record.predictions_path(target), beside)
    publish(target, content)
    found.added.append(place)


def _manifest(files: _Source) -> dict[str, Any]:
    try:
        manifest = json.loads(files.read(MANIFEST, None))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{files.source} is no bundle: {error}. Make one with `bench export`.") from error
    if not isinstance(manifest, dict) or manifest.get("encoding-type") != ENCODING:
        raise DataError(f"{files.source} is no bundle of eosin. Make one with `bench export`.")
    if manifest.get("encoding-version") != VERSION or manifest.get("record-version") != record.VERSION:
        raise DataError(
            f"{files.source} is a bundle of version {manifest.get('encoding-version')} with records of version "
            f"{manifest.get('record-version')}; this eosin reads {VERSION} and {record.VERSION}. Update eosin."
        )
    rows = manifest.get("records")
    if not isinstance(rows, list) or not all(isinstance(r, dict) and isinstance(r.get("path"), str) for r in rows):
        raise DataError(f"{files.source}: the manifest lists no records. Export the bundle again.")
    strange = [r["path"] for r in rows if not PLACE.fullmatch(r["path"])]
    if strange:
        raise DataError(
            f"{files.source} is not safe to import: {strange[0]!r} is no place of a record. Nothing was copied."
        )
    return manifest


def _checked(content: bytes, place: str, catalogue: Any) -> dict[str, Any]:
    """The record; ValueError says what is not right with it."""
    found = sound(record.parse(content, Path(place)), Path(place))
    problem = unsound(found)
    if problem:
        raise ValueError(problem)
    model, benchmark = found["model"], found["benchmark"]
    own = f"{model['name']}@{model['fingerprint']}/{benchmark['name']}@{benchmark['fingerprint']}.json"
    if own != place:
        raise ValueError(f"it says that its place is {own}")
    for metric, s in found["scores"].items():
        values = s["values"]
        if s["low"] is not None and s["high"] is not None and s["low"] > s["high"]:
            raise ValueError(f"the interval of {metric} goes from {s['low']} down to {s['high']}")
        if values and None not in values and s["mean"] is not None:
            mean = sum(values) / len(values)
            if abs(mean - s["mean"]) > 1e-6 * max(1, abs(mean)):
                raise ValueError(f"the mean of {metric} is {s['mean']}, and its values have {mean}")
    _known(found["protocol"], catalogue)
    return found


def _known(protocol: Mapping[str, Any], catalogue: Any) -> None:
    name = protocol["name"]
    if name in catalogue.protocols.things:
        catalogue.protocol(name).card.complete(protocol.get("options") or {})
    elif name not in {b.card.protocol for b in catalogue.benchmarks.things.values()}:
        raise ValueError(f"no protocol {name} is known here. Install the plugin that provides it, and import again")


def _beside(files: _Source, row: Mapping[str, Any], place: str, wanted: Mapping[str, Any]) -> bytes | None:
    """The predictions of a record; ValueError when it names some and they are not right."""
    said = row.get("predictions")
    if not wanted.get("predictions"):
        return None
    path = record.predictions_path(Path(place)).as_posix()
    if not isinstance(said, dict) or said.get("path") != path:
        raise ValueError("it names predictions, and the bundle has none of it")
    return files.read(path, said)


class _Source:
    """The files of a bundle, read one at a time; a zip is never unpacked as it says."""

    def __init__(self, source: Path) -> None:
        self.source = source
        self.book: zipfile.ZipFile | None = None

    def __enter__(self) -> _Source:
        try:
            if self.source.is_dir():
                return self
            if not self.source.exists():
                raise DataError(f"There is nothing at {self.source}. Give the folder or zip that `bench export` wrote.")
            self.book = zipfile.ZipFile(self.source)
        except (OSError, zipfile.BadZipFile) as error:
            raise DataError(f"{self.source} is neither a folder nor a sound zip ({error}). Fetch it again.") from error
        for member in self.book.infolist():
            name = member.filename
            if name.startswith(("/", "\\")) or ".." in re.split(r"[\\/]", name) or ":" in name or stat.S_ISLNK(member.external_attr >> 16):  # fmt: skip
                self.book.close()
                raise DataError(f"{self.source} is not safe to import: {name!r} leads elsewhere. Nothing was copied.")
        return self

    def __exit__(self, *error: Any) -> None:
        if self.book is not None:
            self.book.close()

    def read(self, place: str, said: Mapping[str, Any] | None) -> bytes:
        """A file's bytes; ValueError when it is not there, or is not what the manifest says of it."""
        told = said.get("bytes") if said is not None else None
        limit = min(LARGEST[Path(place).suffix], told if isinstance(told, int) else 2**62)
        try:
            content = self._bytes(place, limit)
        except (OSError, KeyError, zipfile.BadZipFile, EOFError, RuntimeError, NotImplementedError) as error:
            raise ValueError(f"{place} cannot be read ({error})") from error
        if len(content) > limit:
            raise ValueError(
                f"{place} has more than {limit:,} bytes: more than the manifest says, or than a record has"
            )
        if said is not None and _said(content) != {k: said.get(k) for k in ("sha256", "bytes")}:
            raise ValueError(f"{place} is damaged: its hash is not the one in the manifest")
        return content

    def _bytes(self, place: str, limit: int) -> bytes:
        if self.book is not None:
            with self.book.open(place) as handle:
                return handle.read(limit + 1)
        path = self.source / place
        if path.resolve() != self.source.resolve() / place:
            raise ValueError(f"{place} is a link that leads elsewhere")
        with path.open("rb") as handle:
            return handle.read(limit + 1)
