"""The house rules that a machine can hold: floors, light imports, confined libraries, built-ins that could move out."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parents[1]
CORE = TOP / "src" / "eosin"
PLUGINS = TOP / "plugins"
FLOORS = [
    {
        "errors",
        "files",
        "card",
        "cards",
        "record",
        "places",
        "environment",
        "registry",
        "table",
        "arrays",
        "columns",
        "__init__",
    },
    {
        "hookspecs",
        "extractor",
        "dataset",
        "benchmark",
        "recipe",
        "views",
        "tiles",
        "pixels",
        "manifest",
        "folders",
        "slides",
        "tiling",
        "coordinates",
        "overview",
    },
    {
        "metrics",
        "cka",
        "similarity",
        "joint",
        "augment",
        "probes",
        "logistic",
        "descent",
        "folds",
        "stats",
        "paired",
        "intervals",
        "measure",
    },
    {
        "store",
        "claims",
        "crew",
        "tally",
        "outputs",
        "forward",
        "index",
        "sources",
        "pool",
        "embed",
        "doors",
        "plugins",
        "precomputed",
        "distill",
        "trainset",
        "processes",
        "checkpoint",
        "watchtower",
        "graduate",
    },
    {
        "plan",
        "rows",
        "takeout",
        "run",
        "cluster",
        "score",
        "lesson",
        "leaderboard",
        "compare",
        "alike",
        "leakage",
        "curve",
        "spread",
        "gathered",
        "drawing",
        "axes",
        "figures",
        "charts",
        "report",
        "payload",
        "bundle",
        "modelindex",
        "published",
        "standing",
        "tables",
        "reproduce",
        "verdicts",
        "checkup",
        "template",
        "fetch",
        "gdc",
    },
    {"console", "cli", "work", "hands", "look", "materials", "shelves", "cut", "teach", "board", "press", "contest"},
]
FLOOR = {name: i for i, names in enumerate(FLOORS) for name in names}
# a library, and the files of the core that may import it
CONFINED = {
    "h5py": {"store", "folders", "tiles", "precomputed", "coordinates"},
    "sklearn": FLOORS[2],
    "pandas": {"leaderboard"},
    "click": FLOORS[5] | {"plugins"},
    "rich": {"console"},
    "timm": set(),
    "transformers": set(),
    "huggingface_hub": {"checkup"},
    "pluggy": {"hookspecs", "plugins"},
    "ray": {"cluster"},
}
NETWORKS = {
    "chunked",
    "heads",
    "objectives",
    "student",
    "attention",
    "decoders",
    "projector",
    "towers",
}  # files of torch modules, which only build() imports; the test of looking holds that
HEAVY = {
    "ray",
    "torch",
    "torchvision",
    "timm",
    "sklearn",
    "scipy",
    "pandas",
    "h5py",
    "transformers",
    "huggingface_hub",
    "PIL",
}


def imports(path: Path, top_only: bool = False) -> set[str]:
    """Absolute names that a file imports; `.x` for its own package."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_only else ast.walk(tree)
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            found |= {base} if node.module else {base + a.name for a in node.names}
    return found


def typing_only(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    guarded = [n for n in tree.body if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.unparse(n.test)]
    return {
        "." * n.level + (n.module or a.name)
        for g in guarded
        for n in ast.walk(g)
        if isinstance(n, ast.ImportFrom)
        for a in n.names
    }


@pytest.mark.parametrize("path", sorted(CORE.glob("*.py")), ids=lambda p: p.stem)
def test_a_file_imports_from_its_own_floor_or_below(path):
    assert path.stem in FLOOR, f"{path.stem} stands on no floor: add it to FLOORS"
    if path.stem == "__init__":
        return
    for name in imports(path) - typing_only(path):
        if name.startswith("."):
            other = name.lstrip(".").split(".")[0]
            assert other == "" or FLOOR[other] <= FLOOR[path.stem], f"{path.stem} imports {other} from a floor above"
        else:
            library = name.split(".")[0]
            assert library not in CONFINED or path.stem in CONFINED[library], f"{path.stem} imports {library}"
            assert not library.startswith("eosin_"), f"the core names the plugin {library}"


@pytest.mark.parametrize(
    "path", sorted([*CORE.glob("*.py"), *PLUGINS.rglob("*.py")]), ids=lambda p: f"{p.parent.name}/{p.stem}"
)
def test_nothing_heavy_at_the_top_of_a_file(path):
    if path.stem in NETWORKS:
        return
    tops = {n.split(".")[0] for n in imports(path, top_only=True)}
    assert not tops & HEAVY


@pytest.mark.parametrize("path", sorted(PLUGINS.rglob("*.py")), ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_a_plugin_could_move_out(path):
    """It names no other plugin and nothing of the core above floor 2 (readers of the counter excepted: none)."""
    own = path.relative_to(PLUGINS).parts[0]
    for name in imports(path):
        library, _, rest = name.partition(".")
        assert not library.startswith("eosin_") or library == own, f"{path} names the plugin {library}"
        if library == "eosin" and rest:
            assert FLOOR[rest.split(".")[0]] <= 2, f"{path} imports eosin.{rest} from above floor 2"


def run(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *args], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    "command", ["--help", "list models", "list benchmarks", "list protocols", "list suites", "plugins", "run --help"]
)
def test_looking_loads_nothing_heavy(command):
    probe = (
        "import sys; from eosin.cli import main\n"
        f"try: main({command.split()!r})\nexcept SystemExit: pass\n"
        f"print(sorted({sorted(HEAVY)!r} & sys.modules.keys()) if False else [m for m in {sorted(HEAVY)!r} if m in sys.modules], file=sys.stderr)"
    )
    done = run("-c", probe)
    assert done.stderr.strip().endswith("[]"), done.stderr
    assert done.stdout


def test_importing_eosin_loads_no_third_party():
    done = run("-c", "import sys, eosin; print([m for m in ('numpy', 'click', 'pluggy', 'torch') if m in sys.modules])")
    assert done.stdout.strip() == "[]"


def test_files_are_short():
    sizes = sorted(len(p.read_text().splitlines()) for p in [*CORE.glob("*.py"), *PLUGINS.rglob("*.py")])
    assert sizes[len(sizes) // 2] < 150 and sizes[-1] <= 400


def test_the_public_face_is_sorted_and_complete():
    import eosin

    assert eosin.__all__ == sorted(eosin.__all__)
    for name in eosin.__all__:
        assert getattr(eosin, name) is not None
    with pytest.raises(AttributeError, match="offers"):
        eosin.nothing  # noqa: B018
