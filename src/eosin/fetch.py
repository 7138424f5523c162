"""`bench data fetch`: download what is open, go on where it stopped, check it, unpack it safely, put it in place whole.

A dataset that may be fetched has a method `downloads()` that gives (address, file name, checksum) of each archive, the
checksum as `md5:…`, `sha256:…` or "". Everything happens in `<data>/<name>.downloads`; the folder `<data>/<name>` appears
at the end, complete. What needs a form or an account has no such method: its card says where to go.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import os
import shutil
import stat
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from .dataset import Dataset
from .errors import DataError, MissingError, UsageError

Watch = Callable[[str, int, int], None]  # what, MB done, MB in all (0: unknown)
PIECE = 2**20
MB = 10**6
PATIENCE = 5  # attempts in a row that bring nothing
TIMEOUT = 60  # seconds without a byte


def fetch(dataset: Dataset, data: Path, watch: Watch = lambda what, done, total: None, wait: float = 2.0) -> Path:
    """Download and unpack a dataset into `<data>/<name>`; a second call goes on where the first was interrupted.

    Args:
        wait: seconds before a connection that broke is tried again, doubled each time.

    Raises:
        MissingError: it cannot be fetched without a form or an account, or the server does not answer.
        UsageError: the folder is there already. DataError: a checksum differs, an archive is damaged or unsafe.
    """
    place = data / dataset.name
    downloads = getattr(dataset, "downloads", None)
    if downloads is None:
        raise dataset.missing(f"{place}, and it cannot be fetched without you")
    if place.exists():
        raise UsageError(
            f"{place} is there already. `bench data check {dataset.name}` says whether it is whole; move it away to fetch it anew."
        )
    work = data / f"{dataset.name}.downloads"
    tree = work / "tree"
    tree.mkdir(parents=True, exist_ok=True)
    for address, name, checksum in downloads():
        if PurePosixPath(name).name != name or name in ("", ".", "..", "tree"):
            raise DataError(f"{dataset.name}: {address} offers a file called {name!r}, which is no plain name.")
        unpacked = work / f"{name}.unpacked"
        if unpacked.exists():
            continue
        archive = download(address, work / name, checksum, watch, wait)
        watch(f"unpacking {name}", 0, 0)
        unpack(archive, tree)
        unpacked.touch()
        archive.unlink()
    os.rename(tree, place)
    shutil.rmtree(work)
    return place


def download(address: str, path: Path, checksum: str, watch: Watch, wait: float) -> Path:
    """A file from an http(s) address; `<path>.part` is what is there of it until it is whole and its checksum agrees."""
    if path.exists():
        return path
    if not address.startswith(("http://", "https://")):
        raise DataError(f"{address} is no http address.")
    part, idle = path.with_name(path.name + ".part"), 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            if _go_on(address, part, lambda done, total: watch(f"fetching {path.name} (MB)", done // MB, total // MB)):
                break
            problem: Exception | str = "the connection ended early"
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code not in (408, 429):
                raise MissingError(
                    f"{address} answers {error.code} {error.reason}. Has it moved? `bench data where` names the page."
                ) from error
            problem = error
        except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
            problem = error
        idle = 0 if part.exists() and part.stat().st_size > before else idle + 1
        if idle >= PATIENCE:
            raise MissingError(
                f"{address} cannot be reached ({problem}). What came so far is kept in {part}; the same command goes on from there."
            )
        time.sleep(wait * 2**idle)
    _verify(part, checksum)
    os.replace(part, path)
    return path


def _go_on(address: str, part: Path, watch: Callable[[int, int], None]) -> bool:
    """Fetch what is lacking of a file; whether it is whole now."""
    mark = part.with_name(part.name + ".etag")
    have = part.stat().st_size if part.exists() else 0
    known = mark.read_text("utf-8") if have and mark.exists() else ""
    headers = {"User-Agent": "eosin", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if known:
            headers["If-Range"] = known
    try:
        answer = urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        if error.headers.get("Content-Range", "") == f"bytes */{have}":
            return True  # nothing is lacking
        part.unlink()
        return False
    with answer:
        resumed = answer.status == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        if answer.status == 206 and not resumed:
            part.unlink()
            return False
        start = have if resumed else 0
        mark.write_text(_strong(answer.headers.get("ETag", "")), "utf-8")
        length = answer.headers.get("Content-Length")
        total = start + int(length) if length else 0
        with open(part, "ab" if resumed else "wb") as file:
            while piece := answer.read(PIECE):
                file.write(piece)
                start += len(piece)
                watch(start, total)
    return not total or start == total


def _strong(etag: str) -> str:
    return "" if etag.startswith("W/") else etag


def _verify(part: Path, checksum: str) -> None:
    kind, _, wanted = checksum.partition(":")
    if not wanted:
        return
    with open(part, "rb") as file:
        found = hashlib.file_digest(file, kind).hexdigest()
    if found != wanted.lower():
        part.unlink()
        raise DataError(
            f"{part.stem} has the {kind} {found}, not {wanted}: it was damaged on the way, or changed. It was removed; try again."
        )


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a tar or zip archive, or one file of gzip, into a folder; a file that is none of these is copied there.

    Raises:
        DataError: the archive is damaged, or a member would land outside of the folder.
    """
    try:
        if zipfile.is_zipfile(archive):
            _unzip(archive, folder)
        elif tarfile.is_tarfile(archive):
            if not hasattr(tarfile, "data_filter"):
                raise DataError("This Python cannot unpack tar archives safely. Update it (3.11.4 or later).")
            with tarfile.open(archive) as tar:
                tar.extractall(folder, filter="data")
        elif archive.suffix == ".gz":
            with gzip.open(archive) as packed, open(folder / archive.stem, "wb") as file:
                shutil.copyfileobj(packed, file, PIECE)
        else:
            shutil.copyfile(archive, folder / archive.name)
    except tarfile.FilterError as error:
        raise DataError(f"{archive} is not safe to unpack: {error}. Nothing was put in place.") from error
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError) as error:
        raise DataError(f"{archive} cannot be unpacked ({error}). Remove it and fetch it again.") from error


def _unzip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as book:
        for member in book.infolist():
            name: Any = PurePosixPath(member.filename.replace("\\", "/"))
            link = stat.S_ISLNK(member.external_attr >> 16)
            if name.is_absolute() or ".." in name.parts or ":" in member.filename or link:
                raise DataError(
                    f"{archive} is not safe to unpack: {member.filename!r} leads elsewhere. Nothing was put in place."
                )
        book.extractall(folder)
