"""What people see: progress, tables and sentences. Facts go to stdout, everything else to stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from typing import Any

SHOW_AFTER = 2.0  # seconds; shorter work needs no bar
PLAIN_EVERY = 30.0  # seconds between lines where there is no terminal


class Console:
    """One command's output.

    Args:
        as_json: stdout carries one JSON object and nothing else. quiet: no progress, no remarks.
    """

    def __init__(self, as_json: bool = False, quiet: bool = False) -> None:
        self.as_json, self.quiet, self.out = as_json, quiet, sys.stdout
        self.live = sys.stderr.isatty() and not quiet
        self.what, self.began, self.said = "", 0.0, 0.0
        self.bar: Any = None
        self.row: Any = None

    def say(self, text: str) -> None:
        """A remark for the user."""
        if not self.quiet:
            self._above(text)

    def warn(self, text: str) -> None:
        self._above(f"warning: {text}")

    def _above(self, text: str) -> None:
        if self.bar is not None:
            self.bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, file=sys.stderr, flush=True)

    def fact(self, value: Any, text: str = "") -> None:
        """The command's answer: JSON when asked for, else the text."""
        if self.as_json:
            print(json.dumps(value, ensure_ascii=False, allow_nan=False, default=str), file=self.out)
        elif text:
            print(text)

    def watch(self, what: str, done: int, total: int, note: str = "") -> None:
        """Progress of one piece of work; a bar with rate and time left on a terminal, a line now and then elsewhere."""
        now = time.monotonic()
        if what != self.what:
            self.finish()
            self.what, self.began, self.said = what, now, now
            if total == 0 and what.startswith("repairing"):
                self.warn(what)
        if self.quiet or total <= 0 or now - self.began < SHOW_AFTER and done < total:
            return
        if self.live:
            self._draw(what, done, total, note)
        elif now - self.said > PLAIN_EVERY:
            self.said = now
            rate = done / max(now - self.began, 1e-9)
            print(
                f"{what}: {done} of {total}, {rate:.1f}/s, {(total - done) / max(rate, 1e-9):.0f} s left{', ' * bool(note)}{note}",
                file=sys.stderr,
                flush=True,
            )

    def _draw(self, what: str, done: int, total: int, note: str = "") -> None:
        if self.bar is None:
            if done >= total:
                return
            from rich.console import Console as RichConsole
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
            )
            self.bar = Progress(*columns, console=RichConsole(stderr=True), transient=True)
            self.bar.start()
            self.row = self.bar.add_task(what, total=total, rate="")
        rate = done / max(time.monotonic() - self.began, 1e-9)
        self.bar.update(self.row, completed=done, total=total, description=what, rate=f"{rate:.1f}/s {note}")

    def finish(self) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None
        self.what = ""

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
        """A table on stdout: boxed on a terminal, aligned columns elsewhere. Numbers (by their look) stand right."""
        right = [bool(rows) and all(_numeric(r[i]) for r in rows) for i in range(len(columns))]
        if sys.stdout.isatty():
            from rich.console import Console as RichConsole
            from rich.table import Table
            from rich.text import Text

            table = Table(title=title or None, title_justify="left", header_style="bold")
            for name, r in zip(columns, right, strict=True):
                table.add_column(name, justify="right" if r else "left", overflow="fold")
            for row in rows:
                table.add_row(*(Text(str(v)) for v in row))
            RichConsole().print(table)
            return
        widths = [max(len(str(v)) for v in [name, *(r[i] for r in rows)]) for i, name in enumerate(columns)]
        if title:
            print(title)
        for line in [list(columns), ["-" * w for w in widths], *rows]:
            cells = [str(v).rjust(w) if r else str(v).ljust(w) for v, w, r in zip(line, widths, right, strict=True)]
            print("  ".join(cells).rstrip())


def _numeric(text: Any) -> bool:
    head = (
        str(text).split("±")[0].split("[")[0].rstrip("*+% ").strip().replace(",", "").lstrip("-+").replace(".", "", 1)
    )
    return head.isdigit() or str(text) in ("", "–", "-")
