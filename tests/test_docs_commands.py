"""Every command and option is documented, and every command line in the documentation can be typed.

`EOSIN_DOCS=update pytest tests/test_docs_commands.py` writes docs/commands.md again.
"""

from __future__ import annotations

import inspect
import os
import re
import shlex
from pathlib import Path

import click
import pytest

from eosin import cli

TOP = Path(__file__).parents[1]
COMMANDS = TOP / "docs" / "commands.md"
PAGES = sorted([*TOP.glob("docs/**/*.md"), *TOP.glob("*.md")])


def leaves() -> dict[str, click.Command]:
    """Every command of ours by its whole name, those of groups too."""
    context, found = click.Context(cli.main), {}
    for name in cli.COMMANDS:
        command = cli.main.get_command(context, name)
        assert command is not None
        below = {f"{name} {n}": c for n, c in command.commands.items()} if isinstance(command, click.Group) else {}
        found |= below or {name: command}
    return found


def option_row(option: click.Parameter) -> str:
    names = ", ".join(f"`{o}`" for o in sorted(option.opts, key=len, reverse=True))
    allowed = f" ({', '.join(option.type.choices)})" if isinstance(option.type, click.Choice) else ""
    plain = (
        isinstance(option.default, (str, int))
        and not isinstance(option.default, bool)
        and option.default not in ("", 0)
    )
    default = f" Default: {option.default}." if plain else ""
    return f"| {names} | {(getattr(option, 'help', '') or 'as listed').rstrip('.')}{allowed}.{default} |"


def commands_page() -> str:
    """docs/commands.md, from the commands themselves; the same under every version of click."""
    commands = leaves()
    options = {n: [option_row(p) for p in c.params if isinstance(p, click.Option)] for n, c in commands.items()}
    common = [row for row in options["list"] if all(row in rows for rows in options.values())]
    lines = [
        "# Commands",
        "",
        "`bench` and `eosin` are the same command. Written by `EOSIN_DOCS=update pytest tests/test_docs_commands.py`.",
        "",
        "Every command takes these:",
        "",
        *("| option | is |", "|---|---|", *common),
    ]
    for name, command in commands.items():
        arguments = "".join(
            f" {p.name.upper()}" if p.required else f" [{p.name.upper()}]"
            for p in command.params
            if isinstance(p, click.Argument)
        )
        lines += ["", f"## `bench {name}{arguments}`", "", inspect.cleandoc(command.help or "")]
        choices = [
            (p.name, p.type.choices)
            for p in command.params
            if isinstance(p, click.Argument) and isinstance(p.type, click.Choice)
        ]
        lines += [text for n, values in choices for text in ("", f"{n.upper()}: {', '.join(values)}.")]
        own = [row for row in options[name] if row not in common]
        if own:
            lines += ["", "| option | is |", "|---|---|", *own]
    return "\n".join(lines) + "\n"


def test_every_command_and_option_is_documented():
    if os.environ.get("EOSIN_DOCS") == "update":
        COMMANDS.write_text(commands_page(), encoding="utf-8")
    assert COMMANDS.read_text() == commands_page(), "run EOSIN_DOCS=update pytest tests/test_docs_commands.py"


def command_lines(page: Path) -> list[tuple[str, bool]]:
    """Every `bench …` of a page: whole lines (after `&&` too), and mentions in code spans, which need not be complete."""
    text = page.read_text()
    written = re.findall(r"^(?:    )?((?:[^\n`]*&& )?bench [^\n]+)$", text, re.M)
    whole = [part.strip() for line in written for part in line.split("&&") if part.strip().startswith("bench ")]
    return [(line, True) for line in whole] + [(span, False) for span in re.findall(r"`(bench [^`\n]+)`", text)]


def parse(line: str, whole: bool = True) -> None:
    """Click reads the line without running it: names, options, choices and (of a whole line) what is required."""
    words = shlex.split(line, comments=True)[1:]
    command: click.Command = cli.main
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(click.Context(command), words[0])
        assert found is not None, f"{line}: no command {words[0]}"
        command, words = found, words[1:]
    if isinstance(command, click.Group) or "--help" in words:
        return
    try:
        command.make_context(line, words)
    except click.MissingParameter:
        if whole:
            raise


LINES = sorted({found for page in PAGES for found in command_lines(page) if page.name != "commands.md"})


@pytest.mark.parametrize(("line", "whole"), LINES)
def test_every_command_line_in_the_docs_parses(line, whole):
    parse(line, whole)


def test_lines_are_found_and_a_wrong_one_is_caught():
    assert len(LINES) > 20 and ("bench run --model efficientnet-lite0 --suite phantom", True) in LINES
    with pytest.raises(click.MissingParameter):
        parse("bench embed --model color-stats")
    with pytest.raises(click.UsageError):
        parse("bench run --modle color-stats")
