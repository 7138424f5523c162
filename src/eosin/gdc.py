"""`bench data manifest`: which slides of TCGA to download, as a manifest for the GDC client.

The list of files comes from the user (the portal's manifest, or what the files endpoint gives, as JSON or TSV) or from
the endpoint itself. Diagnostic slides (DX) of primary tumours are kept; frozen sections only when asked for.
"""

from __future__ import annotations

import csv
import hashlib
import http.client
import io
import json
import re
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import DataError, MissingError, UsageError

HOST = "https://api.gdc.cancer.gov"
PAGE = 2000
TIMEOUT = 60  # seconds
FIELDS = "file_id,file_name,md5sum,file_size,state,cases.project.project_id"
COLUMNS = ("id", "filename", "md5", "size", "state")
# what the manifest, the endpoint's JSON and its TSV call a thing
WORDS = {
    "id": ("file_id", "id"),
    "filename": ("file_name", "filename"),
    "md5": ("md5sum", "md5"),
    "size": ("file_size", "size"),
    "state": ("state",),
    "project": ("cases.0.project.project_id", "project_id"),
}
# H0-mini's 6,093 slides, in the list of coordinates that its authors published for Phikon, are of these cohorts
SIXTEEN = (
    *("BLCA", "BRCA", "COAD", "ESCA", "KICH", "KIRC", "KIRP", "LIHC"),
    *("LUAD", "LUSC", "OV", "PAAD", "PRAD", "READ", "STAD", "UCEC"),
)
PATIENT = re.compile(r"TCGA-[A-Z0-9]{2}-[A-Z0-9]{4}(?![A-Z0-9])")
NAME = re.compile(
    r"(?P<patient>TCGA-[A-Z0-9]{2}-[A-Z0-9]{4})-(?P<sample>\d\d)[A-Z]-\d\d-(?P<kind>DX|TS|BS|MS)(?P<number>[0-9A-Z]+)\..*SVS"
)


@dataclass(frozen=True)
class Slide:
    """A row of a manifest; `project` is empty where the list does not say."""

    id: str
    filename: str
    md5: str
    size: int
    state: str
    project: str = ""

    @property
    def name(self) -> re.Match[str] | None:
        """The parts of its barcode; None for what is no slide of TCGA."""
        return NAME.fullmatch(self.filename.upper())

    @property
    def patient(self) -> str:
        return self.name["patient"] if self.name else ""


def projects(name: str) -> list[str]:
    """`tcga-brca` to [TCGA-BRCA]; `tcga-16` to the sixteen of H0-mini."""
    if name.lower() == "tcga-16":
        return [f"TCGA-{cohort}" for cohort in SIXTEEN]
    if not re.fullmatch(r"TCGA-[A-Z]{2,4}", name.upper()):
        raise UsageError(
            f"{name} is no project of TCGA. Write it as tcga-brca or tcga-prad; tcga-16 is H0-mini's sixteen."
        )
    return [name.upper()]


def listed(path: Path) -> list[Slide]:
    """The files of a list: a manifest, or the files endpoint's answer as JSON or TSV.

    Raises:
        UsageError: there is no such file. DataError: it is none of these, or a row lacks what the GDC client needs.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(f"--files {path} cannot be read ({error.strerror}). Give the portal's manifest.") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is no text. Give the portal's manifest, or the files endpoint's JSON or TSV."
        ) from error
    if text.lstrip()[:1] not in ("{", "["):
        try:
            return [_slide(row, path) for row in csv.DictReader(io.StringIO(text), delimiter="\t", strict=True)]
        except csv.Error as error:
            raise DataError(f"{path}: {error}. Close every quote, or give the portal's manifest as it came.") from error
    try:
        found = json.loads(text)
        return [_slide(row, path) for row in (found if isinstance(found, list) else found["data"]["hits"])]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is JSON without data.hits, where the files endpoint lists files. Save its answer whole."
        ) from error


def fetched(wanted: list[str], frozen: bool) -> list[Slide]:
    """The slides of projects, asked of the GDC's files endpoint, page by page.

    Raises:
        MissingError: it does not answer.
    """
    kinds = ["Diagnostic Slide"] + ["Tissue Slide"] * frozen
    asked = {
        "cases.project.project_id": wanted,
        "data_type": ["Slide Image"],
        "experimental_strategy": kinds,
        "access": ["open"],
    }
    content = [{"op": "in", "content": {"field": k, "value": v}} for k, v in asked.items()]
    question = {"filters": {"op": "and", "content": content}, "fields": FIELDS, "format": "JSON", "size": PAGE}
    slides: list[Slide] = []
    while True:
        data = _ask({**question, "sort": "file_id", "from": len(slides)})
        slides += [_slide(row, HOST) for row in data["hits"]]
        if not data["hits"] or len(slides) >= data["pagination"]["total"]:
            return slides


def _ask(question: dict[str, Any]) -> dict[str, Any]:
    headers = {"Content-Type": "application/json", "User-Agent": "eosin"}
    request = urllib.request.Request(f"{HOST}/files", json.dumps(question).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            data = json.load(answer)["data"]
            return {"hits": list(data["hits"]), "pagination": {"total": int(data["pagination"]["total"])}}
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
        raise MissingError(
            f"{HOST} gives no list of files ({error}). Try again later, or make a manifest on portal.gdc.cancer.gov "
            "(Repository: Slide Image, Diagnostic Slide) and give it with --files FILE."
        ) from error


def _slide(row: Any, source: Path | str) -> Slide:
    """A row of any of the lists."""
    if not isinstance(row, dict):
        raise DataError(f"{source} lists {row!r}, which is no file. Give what the portal or the files endpoint wrote.")
    flat = {**row, "project_id": row.get("project_id") or _project(row.get("cases"))}
    found = {word: next((flat[k] for k in keys if flat.get(k)), "") for word, keys in WORDS.items()}
    label = found["filename"] or found["id"] or "a row"
    lacking = [word for word in ("id", "filename", "md5", "size") if not found[word]]
    if lacking or not str(found["size"]).isdigit():
        raise DataError(
            f"{source}: {label} has no {' or '.join(lacking) or 'size in bytes'}; "
            f"the list needs the columns {', '.join(COLUMNS)}, or the endpoint's fields {FIELDS}."
        )
    state = str(found["state"] or "released")
    return Slide(
        str(found["id"]), str(found["filename"]), str(found["md5"]), int(found["size"]), state, str(found["project"])
    )


def _project(cases: Any) -> str:
    try:
        return str(cases[0]["project"]["project_id"])
    except (KeyError, IndexError, TypeError):
        return ""


def patients(lines: Iterable[str], source: str) -> set[str]:
    """The patients whose barcodes, or slides' or samples' barcodes, are in some text.

    Raises:
        UsageError: there are none.
    """
    found = {code for line in lines for code in PATIENT.findall(line.upper())}
    if not found:
        raise UsageError(
            f"--exclude {source} names no patient of TCGA (TCGA-3C-AALI …). Give a list of their barcodes."
        )
    return found


def sieve(
    slides: Iterable[Slide], wanted: list[str], left_out: set[str], frozen: bool = False
) -> tuple[list[Slide], dict[str, int]]:
    """The slides that may be drawn, each once, and how many were left out for which reason."""
    kept: dict[str, Slide] = {}
    reasons: Counter[str] = Counter()
    for slide in slides:
        reason = _reason(slide, wanted, left_out, frozen) or ("listed twice" if slide.id in kept else "")
        if reason:
            reasons[reason] += 1
        else:
            kept[slide.id] = slide
    return list(kept.values()), dict(reasons)


def _reason(slide: Slide, wanted: list[str], left_out: set[str], frozen: bool) -> str:
    name = slide.name
    if name is None:
        return "no slide of TCGA"
    if slide.project and slide.project.upper() not in wanted:
        return "of another project"
    if name["kind"] != "DX" and not frozen:
        return "frozen section"
    if name["sample"] != "01":
        return "not of a primary tumour"
    return "of a patient left out" if slide.patient in left_out else ""


def draw(slides: list[Slide], count: int, seed: int) -> list[Slide]:
    """At most `count` slides (0: all), sorted by name: one of each patient before any gives a second.

    A patient's slides come in the order of their names, diagnostic before frozen (DX1 first). The order of patients is
    that of a hash of seed and barcode: it does not depend on who else is listed.
    """
    of_patient: dict[str, list[Slide]] = {}
    for slide in sorted(slides, key=_order):
        of_patient.setdefault(slide.patient, []).append(slide)
    turns = [(turn, _shuffled(seed, who), s) for who, some in of_patient.items() for turn, s in enumerate(some)]
    drawn = [slide for *_, slide in sorted(turns, key=lambda t: t[:2])]
    return sorted(drawn[: count or None], key=lambda s: s.filename)


def _order(slide: Slide) -> tuple[bool, str]:
    return slide.name is None or slide.name["kind"] != "DX", slide.filename.upper()


def _shuffled(seed: int, patient: str) -> bytes:
    return hashlib.blake2b(f"{seed} {patient}".encode(), digest_size=16).digest()


def manifest(slides: Iterable[Slide]) -> str:
    """The text of a manifest: tab-separated id, filename, md5, size, state."""
    return "".join("\t".join(row) + "\n" for row in _rows(slides))


def _rows(slides: Iterable[Slide]) -> Iterator[tuple[str, ...]]:
    yield COLUMNS
    for s in slides:
        yield s.id, s.filename, s.md5, str(s.size), s.state
