# `just` runs the tests and the linters; `just --list` shows the rest.

default: test lint

# the tests that take seconds; `just test --slow` runs all
test *args:
    python -m pytest {{args}}

# style and types; changes nothing
lint:
    ruff check
    ruff format --check
    mypy

# mend what a machine can mend
fix:
    ruff check --fix
    ruff format

# write docs/commands.md again after a change to a command
docs:
    EOSIN_DOCS=update python -m pytest tests/test_docs_commands.py

# what the continuous integration runs: a fresh environment, the README's two commands, all tests, lint, types
ci:
    .ci/run
