"""The licence of everything that eosin installs, as the distributions themselves say: a markdown table.

python scripts/licences.py [EXTRA …]
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import PackageNotFoundError, distribution


def wanted(name: str, extras: set[str]) -> list[str]:
    """The names of what a distribution requires, without what other platforms and extras do."""
    found = []
    for line in distribution(name).requires or []:
        need, _, condition = line.partition(";")
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", condition)
        if (extra and extra[1] not in extras) or re.search(r"win32|Windows|python_version <|darwin", condition):
            continue
        found.append(re.match(r"[\w.-]+", need.strip())[0])
    return found


def licence(name: str) -> str:
    meta = distribution(name).metadata
    short = [c.rpartition(" :: ")[2] for c in meta.get_all("Classifier", []) if c.startswith("License ::")]
    text = meta.get("License-Expression") or ", ".join(short) or (meta.get("License") or "not said").strip()
    return text.splitlines()[0][:80]


def main() -> None:
    seen: dict[str, str] = {}
    todo = wanted("eosin", set(sys.argv[1:]))
    direct = {n.lower().replace("_", "-") for n in todo}
    while todo:
        name = todo.pop().lower().replace("_", "-")
        if name in seen or name == "eosin":
            continue
        try:
            seen[name] = licence(name)
            todo += wanted(name, set())
        except PackageNotFoundError:
            continue  # of another platform
    print("| package | licence |\n|---|---|")
    for name in sorted(direct & seen.keys()):
        print(f"| {name} | {seen[name]} |")
    others = sorted({licence for name, licence in seen.items() if name not in direct})
    print(f"\nBelow these {len(seen.keys() - direct)} more: {'; '.join(others)}.")


if __name__ == "__main__":
    main()
