"""The command line: ``latticezoo COMMAND …``.

Commands load on demand, so that help and mistakes answer at once. Whatever goes wrong on the user's
side ends in one sentence on standard error and a status: 2 for bad input, 1 for files and memory,
130 for Ctrl-C. ``LATTICEZOO_DEBUG=1`` shows the traceback.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from latticezoo.symmetry.errors import InputError, unknown

_LIGHTNING = ("fit", "validate", "test", "predict")
#: Command: (module with ``add_arguments`` and ``run``, what it does).
_COMMANDS: dict[str, tuple[str, str]] = {
    "fit": ("fit", "train a network on a dataset"),
    "validate": ("fit", "measure a trained network on the validation split"),
    "test": ("fit", "measure a trained network on the test split"),
    "predict": ("fit", "write the predictions of a trained network"),
    "compare": ("compare", "train several networks on equal terms and print the leaderboard"),
    "data": ("data_command", "make exact datasets, or describe a dataset file"),
    "simulate": ("simulate_command", "run dynamics with a network or an exact solver"),
    "models": ("models_command", "list networks, their presets and pretrained weights"),
    "card": ("cards", "turn a finished run into a model card with weights"),
    "leaderboard": ("board", "one HTML page with all model cards, to sort and to read"),
    "export": ("export_command", "write a network as a program that needs PyTorch alone"),
    "publish": ("publish", "send a model card to a folder, a URL or the Hugging Face hub"),
}
_INTERRUPTED = (
    "interrupted: every file written so far is whole, and the same command goes on from there."
)


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are :class:`InputError` with the nearest names."""

    def error(self, message: str) -> NoReturn:
        """Raise the error instead of printing the usage and leaving."""
        choice = re.match(r"argument (\S+): invalid choice: '(.*?)' \(choose from (.*)\)", message)
        if choice:
            names = [name.strip(" '\"") for name in choice[3].split(",")]
            raise unknown(choice[1].strip("-"), choice[2], names)
        unrecognized = re.match(r"unrecognized arguments: (\S+)", message)
        if unrecognized:
            raise unknown("argument", unrecognized[1].split("=")[0], self._option_names())
        raise InputError(f"{self.prog}: {message}; {self.prog} --help tells more.")

    def parse_with_dots(self, arguments: Sequence[str], heads: Sequence[str]) -> argparse.Namespace:
        """Parse, and collect words such as ``--data.lattice 24`` under ``dotted``.

        Args:
            arguments: The words.
            heads: Accepted first parts, such as ``("data",)``.

        Returns:
            The parsed arguments, with ``dotted = {"data": {"lattice": 24}}`` when there are heads.
        """
        dotted: dict[str, Any] = {head: {} for head in heads}
        plain: list[str] = []
        words = iter(arguments)
        for word in words:
            match = re.match(r"--([a-z_]+)\.([\w.]+)(=.*)?$", word)
            if not match or match[1] not in dotted:
                plain.append(word)
                continue
            value = match[3][1:] if match[3] else next(words, None)
            if value is None:
                raise InputError(f"{word} needs a value after it.")
            *path, last = match[2].split(".")
            place = dotted[match[1]]
            for part in path:
                place = place.setdefault(part, {})
            place[last] = _value(value)
        parsed = self.parse_args(plain)
        if heads:
            parsed.dotted = dotted
        return parsed

    def _option_names(self) -> list[str]:
        return [name for action in self._actions for name in action.option_strings]


def _value(text: str) -> Any:
    """Read a value as YAML does, and 1e-3, which YAML 1.1 takes for text, as a number."""
    import yaml

    try:
        return (
            float(text)
            if re.fullmatch(r"[-+]?\d+(\.\d*)?e[-+]?\d+", text)
            else yaml.safe_load(text)
        )
    except yaml.YAMLError:
        return text


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: The words after ``latticezoo``; those of the process by default.

    Returns:
        The exit status.
    """
    return guarded(_dispatch, list(sys.argv[1:] if argv is None else argv))


def guarded(run: Callable[[list[str]], int], arguments: list[str]) -> int:
    """Call a command; turn errors on the user's side into a sentence and a status.

    Args:
        run: Takes the words, gives the status.
        arguments: The words.

    Returns:
        The exit status.
    """
    try:
        return run(arguments)
    except SystemExit as leave:  # --help of the parsers, or SIGTERM in Lightning
        if type(leave).__name__ == "SIGTERMException":
            print(f"latticezoo: {_INTERRUPTED}", file=sys.stderr)
            return 143
        return leave.code if isinstance(leave.code, int) else 0
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except BaseException as error:
        explained = _explain(error)
        if explained is None or os.environ.get("LATTICEZOO_DEBUG"):
            raise
        status, sentence = explained
        sys.stdout.flush()
        print(f"latticezoo: {sentence}", file=sys.stderr)
        return status


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if arguments[0] in ("-V", "--version"):
        from importlib.metadata import version

        print(f"lattice-zoo {version('lattice-zoo')}")
        return 0
    command, rest = arguments[0], arguments[1:]
    if command not in _COMMANDS:
        raise unknown("command", command, _COMMANDS)
    module = importlib.import_module(f"latticezoo.training.{_COMMANDS[command][0]}")
    if command in _LIGHTNING:
        status: int | None = module.run(command, rest)
    else:
        status = _run_plain(module, command, rest)
    return status or 0


def _run_plain(module: Any, command: str, arguments: list[str]) -> int | None:
    parser = Parser(
        prog=f"latticezoo {command}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_arguments(parser)
    run: Callable[[argparse.Namespace], int | None] = module.run
    # A module may take dotted options beside those it declares.
    heads = module.dotted_heads() if hasattr(module, "dotted_heads") else ()
    return run(parser.parse_with_dots(arguments, heads))


def _overview() -> str:
    width = max(map(len, _COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, (_, text) in _COMMANDS.items()]
    return "\n".join(
        [
            "usage: latticezoo COMMAND …",
            "",
            "Exact data, symmetry-exact networks and large dynamics for lattice models.",
            "",
            "commands:",
            *lines,
            "",
            "latticezoo COMMAND --help explains a command; latticezoo --version tells the version.",
        ]
    )


def _explain(error: BaseException) -> tuple[int, str] | None:
    """Status and sentence of an error on the user's side; None for a fault of the library."""
    # A parser that builds a network wraps what the network objects to.
    inner: BaseException | None = error
    while inner is not None and not isinstance(inner, InputError):
        inner = inner.__cause__
    error = inner or error
    text = " ".join(str(error).split())
    if isinstance(error, InputError):
        return 2, text
    if isinstance(error, KeyboardInterrupt):
        # What was interrupted may say itself how to go on, and by which signal it was.
        return 128 + getattr(error, "signal", 2), text or _INTERRUPTED
    full = getattr(error, "errno", None) == errno.ENOSPC or re.search(
        r"No space left on device|errno = 28|PytorchStreamWriter failed writing", text
    )
    if full and isinstance(error, OSError | RuntimeError):
        name = getattr(error, "filename", None)
        where = f" while writing {name}" if name else ""
        return 1, f"the disk is full{where}; no half-written file was left."
    if isinstance(error, OSError):
        reason = error.strerror or text
        return 1, f"{reason}: {error.filename}." if error.filename else f"{reason}."
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return 1, "out of memory; a smaller batch or lattice needs less."
    return None


if __name__ == "__main__":
    sys.exit(main())
