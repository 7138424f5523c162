"""Damaged files of every kind, changed where that leads to other code (Atheris): what is read must end in an error of ours.

    pip install atheris
    python scripts/fuzz.py [KIND …] [--seconds 60] [--corpus FOLDER]

Kinds, valid files and the guards on memory, processes and pickles are those of tests/test_fuzz.py. Each kind runs in a process
of its own. The corpus keeps every file that reached something new, for the next run; a file that broke something is
`<corpus>/<kind>/broke-…`: add its bytes to CASES there.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

TESTS = Path(__file__).parents[1] / "tests"
PACKAGES = ["eosin", "eosin_models"]


def look(kind: str, folder: Path, seconds: int) -> None:
    """Fuzz one kind until the time is over or something breaks; never returns."""
    import atheris

    sys.path.insert(0, str(TESTS))
    with atheris.instrument_imports(include=PACKAGES):
        import test_fuzz

    warnings.simplefilter("ignore")
    work = Path(tempfile.mkdtemp())
    seed = test_fuzz.KINDS[kind][1]
    (folder / "seed").write_bytes(seed if isinstance(seed, bytes) else seed(work))
    limits = [f"-max_total_time={seconds}", "-timeout=20", "-rss_limit_mb=0", f"-artifact_prefix={folder}/broke-"]
    atheris.Setup(
        [sys.argv[0], *limits, "-print_final_stats=1", str(folder)],
        lambda content: test_fuzz.meet(kind, content, work) and None,
    )
    atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--corpus", type=Path, default=Path(tempfile.gettempdir()) / "eosin-corpus")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    o = parser.parse_args()
    if o.here:
        look(o.kinds[0], o.corpus, o.seconds)
    sys.path.insert(0, str(TESTS))
    import test_fuzz

    broken = 0
    for kind in o.kinds or list(test_fuzz.KINDS):
        folder = o.corpus / kind.replace(" ", "-")
        folder.mkdir(parents=True, exist_ok=True)
        words = [sys.executable, __file__, kind, "--here", "--seconds", str(o.seconds), "--corpus", str(folder)]
        done = subprocess.run(words, capture_output=True, text=True)
        runs = next((x.split()[-1] for x in done.stderr.splitlines() if "number_of_executed_units" in x), "?")
        found = sorted(folder.glob("broke-*"))
        print(f"{kind:<16} {runs:>8} files, {len(list(folder.iterdir()))} kept, {len(found)} broke", flush=True)
        if done.returncode:
            print(done.stderr[-3000:])
        broken += bool(found) or bool(done.returncode)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
