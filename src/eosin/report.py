"""`bench report`: one HTML file with everything in it. Words, numbers and figures; nothing is loaded from outside."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from .drawing import svg
from .figures import Figure
from .gathered import Gathered
from .payload import payload

PARTS = ("html", "css", "js")


def report(
    found: Gathered,
    drawn: Sequence[Figure],
    title: str,
    version: str,
    suites: Mapping[str, Sequence[str]] | None = None,
    left: Sequence[str] = (),
    commands: Mapping[str, Mapping[str, Any]] | None = None,
    made: str = "",
    models: Collection[str] | None = None,
) -> str:
    """The whole page.

    Args:
        found: what it shows. drawn: its figures. title: the heading. version: of eosin.
        suites: name -> benchmarks, to choose from. left: what was left out and why.
        commands: benchmark -> the options that it has by itself, so that a command names only the others.
        made: a date, or "" for none, so that equal records give equal bytes.
        models: the names that `--model` takes here; None: all of them.
    """
    page, css, js = (Path(__file__).with_name(f"report.{part}").read_text(encoding="utf-8") for part in PARTS)
    data = payload(found, suites or {}, commands or {}, models)
    sections = ["leaderboard", *(["figures"] if drawn else []), "benchmarks", "models", "environment"]
    sections += ["left-out"] if left else []
    measured = sum(c.record is not None for c in found.cells)
    counts = [
        f"{len({m.name for m in found.models})} models",
        f"{len({c.benchmark for c in found.columns})} benchmarks",
        f"{measured:,} records",
        *([f"{len(found.cells) - measured:,} published"] if measured < len(found.cells) else []),
        f"eosin {version}",
        *([made] if made else []),
    ]
    policy = (
        f"default-src 'none'; style-src 'sha256-{_hash(css)}'; script-src 'sha256-{_hash(js)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    parts = {
        "policy": policy,
        "version": html.escape(version),
        "title": html.escape(title),
        "summary": html.escape(" · ".join(counts)),
        "nav": "".join(f'<a href="#{s}">{s.replace("-", " ").capitalize()}</a>' for s in sections),
        "figures": _figures(drawn),
        "left": _left(left),
        "css": css,
        "js": js,
        "data": embedded(data),
    }
    head, *rest = page.split("@")
    out = [head]
    for i, piece in enumerate(rest):
        out.append(parts[piece] if i % 2 == 0 else piece)
    return "".join(out)


def embedded(data: Any) -> str:
    """JSON that may stand inside a script element: no letter of it can end the element."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text.encode("utf-8", "replace").decode()


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _figures(drawn: Sequence[Figure]) -> str:
    if not drawn:
        return ""
    out = ['<section id="figures" aria-labelledby="h-figures"><h2 id="h-figures">Figures</h2><div class="figures">']
    for figure in drawn:
        title, kind = html.escape(figure.title), ' class="wide"' if figure.wide else ""
        picture = svg(figure.sheet, figure.title, alone=False)
        out.append(
            f'<figure{kind}><h3>{title}</h3><div class="scroll" role="region" aria-label="{title}" tabindex="0">'
            f"{picture}</div><figcaption>{html.escape(figure.caption)}</figcaption></figure>"
        )
    return "".join([*out, "</div></section>"])


def _left(left: Sequence[str]) -> str:
    if not left:
        return ""
    items = "".join(f"<li>{html.escape(text)}</li>" for text in left)
    return f'<section id="left-out"><h2>Left out</h2><ul>{items}</ul></section>'
