"""A table as people read it, in Markdown, LaTeX, HTML and CSV. Names may come from anywhere: each format escapes them."""

from __future__ import annotations

import csv
import functools
import html as markup
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

MISSING = "–"
STYLE = (
    "table{border-collapse:collapse;font:14px system-ui,sans-serif;color:CanvasText;background:Canvas}"
    "th,td{padding:.25em .7em;text-align:right;border-bottom:1px solid color-mix(in srgb,CanvasText 20%,Canvas)}"
    "th:first-child,td:first-child{text-align:left}th.section{text-align:left;font-style:italic}"
    ":root{color-scheme:light dark}.notes{font:12px system-ui,sans-serif}"
)


@dataclass
class Cell:
    """One cell: what it shows, whether it is `best` or `second` of its column, its footnotes; the numbers behind it.

    `below` stands under `text` where there is room: a measured number under a printed one.
    """

    text: str = MISSING
    mark: str = ""
    notes: tuple[int, ...] = ()
    below: str = ""
    number: float | None = None
    std: float | None = None


@dataclass
class Table:
    """Heads, rows of cells, headings before some rows, and footnotes, counted from 1."""

    head: list[str]
    rows: list[list[Cell]] = field(default_factory=list)
    sections: dict[int, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    title: str = ""

    def note(self, text: str) -> int:
        """The number of a footnote; the same text is one footnote."""
        if text not in self.notes:
            self.notes.append(text)
        return self.notes.index(text) + 1


def clean(text: Any) -> str:
    """Text without control characters, line ends and marks that turn the direction of writing."""
    text = str(text)
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)


def plain(table: Table) -> tuple[list[str], list[list[str]]]:
    """Columns and rows for a terminal: `*` at the best of a column, `+` at the second."""
    rows = []
    for i, row in enumerate(table.rows):
        if i in table.sections:
            rows.append([clean(table.sections[i]), *[""] * (len(row) - 1)])
        rows.append([clean(_plain_cell(c)) for c in row])
    return [clean(h) for h in table.head], rows


def _plain_cell(cell: Cell) -> str:
    mark = {"best": " *", "second": " +"}.get(cell.mark, "")
    return cell.text + mark + "".join(f" [{i}]" for i in cell.notes) + (f" / {cell.below}" if cell.below else "")


def footnotes(table: Table) -> list[str]:
    return [f"[{i}] {clean(text)}" for i, text in enumerate(table.notes, 1)]


def markdown(table: Table) -> str:
    """A table as GitHub renders it: best bold, second underlined."""
    body = []
    for i, row in enumerate(table.rows):
        if i in table.sections:
            body.append(_md_line([f"*{_md(table.sections[i])}*", *[""] * (len(row) - 1)]))
        body.append(_md_line([_md_cell(c) for c in row]))
    top = [_md_line([_md(h) for h in table.head]), _md_line(["---"] * len(table.head))]
    title = [f"**{_md(table.title)}**", ""] if table.title else []
    notes = [f"{_md(n)}  " for n in footnotes(table)]
    return "\n".join([*title, *top, *body, *([""] if notes else []), *notes]) + "\n"


def _md_line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _md_cell(cell: Cell) -> str:
    text = _md(cell.text)
    text = {"best": f"**{text}**", "second": f"<ins>{text}</ins>"}.get(cell.mark, text)
    notes = "".join(f"<sup>{i}</sup>" for i in cell.notes)
    return text + notes + (f"<br>{_md(cell.below)}" if cell.below else "")


def _md(text: Any) -> str:
    text = clean(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*\[\]|~#!$])", r"\\\1", text)
    return re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", text)


def html(table: Table) -> str:
    """A whole page with nothing loaded from elsewhere."""
    title = markup.escape(clean(table.title or "Leaderboard"))
    head = "".join(f"<th>{_html(h)}</th>" for h in table.head)
    body = []
    for i, row in enumerate(table.rows):
        if i in table.sections:
            body.append(f'<tr><th class="section" colspan="{len(row)}">{_html(table.sections[i])}</th></tr>')
        body.append("<tr>" + "".join(f"<td>{_html_cell(c)}</td>" for c in row) + "</tr>")
    notes = "".join(f"<li>{_html(n)}</li>" for n in table.notes)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style></head>\n'
        f"<body><h1>{title}</h1>\n<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n"
        + "\n".join(body)
        + "\n</tbody>\n</table>\n"
        + (f'<ol class="notes">{notes}</ol>\n' if notes else "")
        + "</body></html>\n"
    )


def _html_cell(cell: Cell) -> str:
    text = _html(cell.text)
    text = {"best": f"<b>{text}</b>", "second": f"<u>{text}</u>"}.get(cell.mark, text)
    notes = "".join(f"<sup>{i}</sup>" for i in cell.notes)
    return text + notes + (f"<br>{_html(cell.below)}" if cell.below else "")


def _html(text: Any) -> str:
    return markup.escape(clean(text), quote=True)


LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_", "%": r"\%",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "[": "{[}", "]": "{]}", "*": "{*}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}", "±": r"$\pm$", "–": "--", "−": "$-$",
    "×": r"$\times$", "≥": r"$\geq$", "’": "'", "…": r"\ldots{}",
}  # fmt: skip


def latex(table: Table) -> str:
    """A tabular for `booktabs`: best bold, second underlined. What Latin-1 has no letter for stands as its code."""
    lines = [r"% \usepackage[T1]{fontenc} \usepackage{booktabs}"]
    lines += [f"% {clean(table.title)}"] if table.title else []
    lines += [rf"\begin{{tabular}}{{l{'r' * (len(table.head) - 1)}}}", r"\toprule"]
    lines += [" & ".join(_latex(h) for h in table.head) + r" \\", r"\midrule"]
    for i, row in enumerate(table.rows):
        if i in table.sections:
            lines += [r"\midrule"] * (i > 0)
            lines += [rf"\multicolumn{{{len(row)}}}{{l}}{{\textit{{{_latex(table.sections[i])}}}}} \\"]
        lines.append(" & ".join(_latex_cell(c) for c in row) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [rf"\par{{\footnotesize {_latex(n)}}}" for n in footnotes(table)]
    return "\n".join(lines) + "\n"


def _latex_cell(cell: Cell) -> str:
    text = _latex(cell.text)
    text = {"best": rf"\textbf{{{text}}}", "second": rf"\underline{{{text}}}"}.get(cell.mark, text)
    notes = rf"\textsuperscript{{{','.join(map(str, cell.notes))}}}" if cell.notes else ""
    return text + notes + (f" / {_latex(cell.below)}" if cell.below else "")


def _latex(text: Any) -> str:
    return "".join(LATEX.get(c) or (c if ord(c) < 256 else rf"\texttt{{U+{ord(c):04X}}}") for c in clean(text))


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """CSV that spreadsheets do not execute: text that would be a formula gets an apostrophe; numbers keep every digit."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([_harmless(c) for c in columns])
    writer.writerows([_harmless(v) if v.__class__ is str else v for v in row] for row in rows)
    return out.getvalue()


@functools.lru_cache(4096)
def _harmless(text: str) -> str:
    """Text as a CSV cell that is no formula; numbers never come here."""
    text = clean(text)
    return f"'{text}" if text.lstrip().startswith(("=", "+", "-", "@")) else text


def numbers(table: Table) -> tuple[list[str], list[list[Any]]]:
    """The table for programs: the number behind each cell with every digit, and its deviation where a column has some."""
    spread = [any(r[i].std is not None for r in table.rows) for i in range(len(table.head))]
    columns = [c for h, s in zip(table.head, spread, strict=True) for c in ([h, f"{h} std"] if s else [h])]
    rows: list[list[Any]] = []
    for row in table.rows:
        values: list[Any] = []
        for cell, s in zip(row, spread, strict=True):
            words = None if cell.text == MISSING else cell.text
            values += [cell.number if cell.number is not None else words, *([cell.std] if s else [])]
        rows.append(values)
    return columns, rows
