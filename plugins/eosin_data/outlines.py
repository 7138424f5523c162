"""Outlines of an Aperio annotation file: Annotations/Annotation/{Attributes/Attribute, Regions/Region/Vertices/Vertex}."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from eosin.errors import DataError

MAX_BYTES = 2**26  # those of MoNuSAC have a few megabytes at most
FARTHEST = 1e6  # px


class _Plain(ElementTree.TreeBuilder):
    """Refuses a document type: nothing else can define entities, which may grow without bound or name other files."""

    def doctype(self, name: str, pubid: Any, system: Any) -> None:
        raise ValueError("it has a DOCTYPE, which annotations do not need and which is not read, to be safe")


def read_outlines(path: Path) -> list[tuple[str, np.ndarray]]:
    """(name of the class, corners (n, 2) as x and y in px) of every region, in the order of the file.

    The class of an annotation is the `Name` of its first attribute, "" where it has none.

    Raises:
        DataError: naming the file, when it is damaged, too large, or has a document type.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES >> 20} MB")
        root = ElementTree.parse(path, ElementTree.XMLParser(target=_Plain())).getroot()
        return [
            (_name(annotation), _corners(region))
            for annotation in root.iter("Annotation")
            for region in annotation.iterfind("*/Region")
        ]
    except (ElementTree.ParseError, ValueError, OSError, LookupError) as error:
        raise DataError(f"{path} cannot be read as outlines ({error}). Download it again.") from error


def _name(annotation: ElementTree.Element) -> str:
    first = annotation.find("*/Attribute")
    return "" if first is None else first.get("Name", "")


def _corners(region: ElementTree.Element) -> np.ndarray:
    corners = np.array([(v.attrib["X"], v.attrib["Y"]) for v in region.iterfind("Vertices/Vertex")], np.float64)
    corners = corners.reshape(-1, 2)
    if not (np.abs(corners) < FARTHEST).all():
        raise ValueError("a vertex is no finite number of pixels")
    return corners
