"""One sheet of an .xlsx file as rows of text: a zip of XML, and no spreadsheet library."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from xml.etree import ElementTree

from eosin.errors import DataError

MAX_BYTES = 2**26  # of one unpacked part; BRACS.xlsx has some hundred kilobytes


def read_sheet(path: Path, name: str) -> list[list[str]]:
    """The rows of the sheet called `name` (else of the first one), empty cells as "".

    Raises:
        DataError: it is not an .xlsx file, or larger than any such table should be.
    """
    try:
        with zipfile.ZipFile(path) as book:
            shared = [
                "".join(t.text or "" for t in _all(item, "t")) for item in _parts(book, "xl/sharedStrings.xml", "si")
            ]
            titles = [s.get("name", "") for s in _parts(book, "xl/workbook.xml", "sheet")]
            number = titles.index(name) + 1 if name in titles else 1
            return [_row(row, shared) for row in _parts(book, f"xl/worksheets/sheet{number}.xml", "row")]
    except (zipfile.BadZipFile, ElementTree.ParseError, KeyError, IndexError, ValueError, OSError) as error:
        raise DataError(
            f"{path} cannot be read as an Excel table ({error}). Download it again, or take it away."
        ) from error


def _parts(book: zipfile.ZipFile, part: str, tag: str) -> list[ElementTree.Element]:
    if part == "xl/sharedStrings.xml" and part not in book.namelist():
        return []
    if book.getinfo(part).file_size > MAX_BYTES:
        raise ValueError(f"{part} is too large")
    return _all(ElementTree.fromstring(book.read(part)), tag)


def _all(element: ElementTree.Element, tag: str) -> list[ElementTree.Element]:
    return [e for e in element.iter() if e.tag.rpartition("}")[2] == tag]


def _row(row: ElementTree.Element, shared: list[str]) -> list[str]:
    cells: list[str] = []
    for cell in _all(row, "c"):
        letters = re.match("[A-Z]*", cell.get("r", ""))
        at = _column(letters[0]) if letters and letters[0] else len(cells)
        text = "".join(e.text or "" for e in cell.iter() if e.tag.rpartition("}")[2] in ("v", "t"))
        cells += [""] * (at + 1 - len(cells))
        cells[at] = (shared[int(text)] if cell.get("t") == "s" and text else text).strip()
    return cells


def _column(letters: str) -> int:
    """A is 0, Z is 25, AA is 26."""
    number = 0
    for letter in letters:
        number = 26 * number + ord(letter) - 64
    if number > 16_384:
        raise ValueError(f"column {letters} does not exist")
    return number - 1
