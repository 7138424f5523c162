"""`bench`: the counter. Each command is a few lines that call the verbs; heavy imports wait inside them."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .errors import EosinError, UsageError

if TYPE_CHECKING:
    from .console import Console
    from .places import Places
    from .plugins import Catalogue

# command -> (module, one line for --help), so that --help imports nothing
COMMANDS = {
    "run": ("work", "Score models on benchmarks; embed what is missing, reuse the rest."),
    "embed": ("work", "Embed datasets and store the rows, without scoring."),
    "score": ("work", "Apply a protocol to embeddings made elsewhere."),
    "list": ("look", "List models, datasets, protocols, benchmarks, suites, recipes or views."),
    "show": ("look", "Show one model, dataset, protocol, benchmark or suite."),
    "data": ("materials", "Say where data come from, index and check them."),
    "tile": ("cut", "Find tissue on slides, lay a grid over it, write coordinates and a picture a slide."),
    "store": ("shelves", "Look into, measure, check, tidy and export the stored embeddings."),
    "distill": ("teach", "Make a student of a teacher: the result is a model like any other."),
    "leaderboard": ("board", "Print the table of all records, beside what was published."),
    "compare": ("contest", "Compare models: differences, p values, ranks, CKA, leakage, specification curves."),
    "report": ("press", "Write one HTML file: leaderboard, folds, intervals and figures; it works offline."),
    "export": ("press", "Write records and predictions as a bundle that another machine can check."),
    "import": ("press", "Check a bundle and copy its records into the results."),
    "plugins": ("look", "List the installed plugins, also those that fail."),
    "new": ("materials", "Write a new plugin distribution, with a test, ready to publish."),
    "doctor": ("look", "Check this installation: PASS, WARN or FAIL, each with a fix."),
}


class Bench(click.Group):
    """A group that imports a command's module when the command is used, and plugins when none of ours fits."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS, *sorted(self._foreign())]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name in COMMANDS:
            module = import_module(f".{COMMANDS[name][0]}", __package__)
            return module.COMMANDS[name]
        return self._foreign(asked=True).get(name)

    def _foreign(self, asked: bool = False) -> dict[str, click.Command]:
        """Commands of plugins. Ours cannot be replaced. A list loads strangers' plugins only, a name `asked` for all."""
        if not hasattr(self, "_found"):
            from importlib.metadata import entry_points

            if not asked and all(e.dist is not None and e.dist.name == "eosin" for e in entry_points(group="eosin")):
                return {}
            from .plugins import Catalogue

            self._found: dict[str, click.Command] = Catalogue().commands()
        return self._found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        foreign = [(n, c.get_short_help_str()) for n, c in sorted(self._foreign().items())]
        with formatter.section("Commands"):
            formatter.write_dl([(n, text) for n, (_, text) in COMMANDS.items()] + foreign)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError:
            from .errors import unknown

            raise click.UsageError(
                str(unknown("command", args[0], self.list_commands(ctx), "bench --help")), ctx
            ) from None

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:  # ours end with a next step; anything else is a fault, of ours or of a plugin
            if "--debug" in sys.argv:
                raise
            fail(error)


def fail(error: Exception) -> None:
    """An error as people see it, and the process ends with its code."""
    from .errors import said

    print(f"error: {said(error)}", file=sys.stderr)
    sys.exit((error.exit_code or 2) if isinstance(error, EosinError) else 1)  # nothing that ends a command is a success


@click.group(cls=Bench, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="eosin", prog_name="bench")
def main() -> None:
    """eosin: score foundation models for H&E tissue.

    \b
    bench run --model efficientnet-lite0 --suite phantom
    bench run --model my-model --benchmark idc-knn --data /my/data
    bench leaderboard
    """


def common(command: Callable[..., Any]) -> Callable[..., Any]:
    """--json, --debug and the places, the same on every command that knows them."""
    for option in (
        click.option("--debug", is_flag=True, help="Show tracebacks."),
        click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout and nothing else."),
        click.option(
            "--registry",
            "registries",
            multiple=True,
            type=click.Path(dir_okay=False),
            help="A registry.yaml of yours; may be given again.",
        ),
        click.option(
            "--results", type=click.Path(file_okay=False), help="Where records go (default: EOSIN_HOME/results)."
        ),
        click.option(
            "--store", type=click.Path(file_okay=False), help="Where embeddings lie (default: EOSIN_HOME/embeddings)."
        ),
        click.option(
            "--data", type=click.Path(), help="Where datasets lie, one folder each (default: EOSIN_HOME/data)."
        ),
    ):
        command = option(command)
    return command


def merged(command: click.Command) -> click.Command:
    """The command, reading several results folders: --results may be given again."""
    for option in command.params:
        if option.name == "results":
            option.multiple = True
            option.default = ()
            option.help = "A folder of records; may be given again (default: EOSIN_HOME/results)."
    return command


def as_recorded(context: click.Context, option: click.Parameter, names: tuple[str, ...]) -> tuple[str, ...]:
    """Names of models as records have them, whichever way they are written."""
    from .card import recorded

    return tuple(map(recorded, names))


def folders_of(results: tuple[str, ...]) -> list[Path]:
    """The folders that --results names, each of which must be there."""
    folders = [Path(f).expanduser().absolute() for f in results]
    for folder in folders:
        if not folder.is_dir():
            raise UsageError(
                f"--results {folder}: there is no such folder. Name one that `bench run` wrote records to."
            )
    return folders


def pairs(ctx: Any, param: Any, values: tuple[str, ...]) -> dict[str, str]:
    """`--option k=15` as a mapping."""
    out = {}
    for text in values:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError(f"--option {text}: write name=value, as in --option k=15.")
        out[name.strip()] = value.strip()
    return out


class Desk:
    """What nearly every command needs: places, catalogue, console."""

    def __init__(self, options: dict[str, Any]) -> None:
        from .console import Console
        from .places import Places

        self.debug = options.get("debug", False)
        self.console: Console = Console(options.get("as_json", False), options.get("quiet", False))
        if self.console.as_json:  # what a plugin prints is not the answer
            click.get_current_context().with_resource(contextlib.redirect_stdout(sys.stderr))
        self.places: Places = Places.of(
            options.get("data"), options.get("store"), options.get("results"), options.get("registries", ())
        )
        self._catalogue: Catalogue | None = None

    @property
    def catalogue(self) -> Catalogue:
        if self._catalogue is None:
            from .plugins import Catalogue

            self._catalogue = Catalogue(self.places.registries)
        return self._catalogue


if __name__ == "__main__":
    main()
