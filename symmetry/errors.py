"""Errors that a user can mend: each says in one sentence what was given and what is accepted."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Bad input. The message is one plain sentence that names the value and what is accepted."""


def unknown(kind: str, name: object, known: Iterable[str]) -> InputError:
    """Build the error for a name that is not known.

    Args:
        kind: What was looked up, such as ``"model"``.
        name: What was asked for.
        known: Every accepted name.

    Returns:
        The error, with the nearest accepted names, or all of them when none is near.
    """
    names = sorted(known)
    near = difflib.get_close_matches(str(name), names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(names) or 'none'}."
    return InputError(f"unknown {kind} {str(name)!r}; {hint}")
