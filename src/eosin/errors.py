"""What can go wrong, as a tree; every message ends with the next step, every class knows its exit code.

EosinError              1   something failed; what was computed before it is kept
├── UsageError          2   the request cannot be understood: unknown name, option or value
│   ├── CardError           a card or registry file says something it may not
│   └── NameTaken           two things claim one name
├── MissingError        3   the user must fetch something: data, weights, an accepted licence
├── DataError           1   the data are there and wrong: broken tile, duplicate id, one class only
├── ModelError          1   the model does not do what its card says
├── StoreError          1   the embeddings cannot be written or read
├── PluginError         1   somebody's plugin failed
└── NotApplicable       0   the model has no such readout: said, not failed
"""


class EosinError(Exception):
    """Root of all errors that a user can mend; shown without a traceback."""

    exit_code = 1


class UsageError(EosinError):
    exit_code = 2


class CardError(UsageError):
    pass


class NameTaken(UsageError):
    pass


class MissingError(EosinError):
    exit_code = 3


class DataError(EosinError):
    pass


class ModelError(EosinError):
    pass


class StoreError(EosinError):
    pass


class PluginError(EosinError):
    pass


class NotApplicable(EosinError):
    exit_code = 0


def said(error: BaseException) -> str:
    """What people are told of an error: our own speak for themselves, a stranger's are named."""
    if isinstance(error, EosinError):
        return str(error)
    if isinstance(error, PermissionError) and error.filename:
        return f"{error.filename}: {error.strerror}. Change its permissions, or name another place."
    return f"{stranger(error)}. Run with --debug for the traceback."


def stranger(error: BaseException) -> str:
    """A stranger's error by its class and its words, without a full stop, so that a sentence can go on behind it."""
    try:
        text = str(error).strip().removesuffix(".")
    except Exception:  # an error that cannot even say what it is
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def unknown(word: str, name: str, known, listing: str = "") -> UsageError:
    """The error for a name that does not exist, with the nearest names that do.

    Args:
        word: what was asked for ("model").
        name: the name that was given.
        known: the names that exist.
        listing: a command that lists them all.
    """
    import difflib

    near = difflib.get_close_matches(name.lower(), sorted(known), n=3, cutoff=0.5)
    step = f"Did you mean {' or '.join(near)}?" if near else ""
    if not near and len(known) <= 12:
        step = f"Known: {', '.join(sorted(known)) or 'none'}."
    if listing:
        step += f" `{listing}` shows them all."
    return UsageError(f"There is no {word} called {name!r}. {step.strip()}")
