"""What Lightning's argument parser objects to, in one sentence with the nearest names."""

from __future__ import annotations

import re

from latticezoo.symmetry.errors import unknown


def readable(command: str, message: str) -> str:
    """Shorten an error of the argument parser to one sentence.

    Args:
        command: The command whose arguments were parsed.
        message: What the parser says, on many lines.

    Returns:
        The sentence, with the nearest names where a name is unknown.
    """
    lines = [line.strip(" -") for line in message.splitlines() if line.strip()]
    key = _last(r'Parser key "([\w.]+)"', message)
    refused = _last(r"Option '([^']+)' is not accepted", message)
    holder = _last(r"Problem with given class_path '([\w.]+)'", message)
    if refused:
        return str(unknown(f"option of {_short(holder) or command}", refused, _options(holder)))
    wrong = re.findall(r"Expected an? (.+?)\. Got value: (.+)", message)
    if wrong:
        kind, value = wrong[0]
        choices = re.fullmatch(r"typing\.Literal\[(.+)\]", kind)
        kind = f"one of {choices[1]}" if choices else re.sub(r"<class '([\w.]+)'>", r"\1", kind)
        owner = f" of {_short(holder)}" if holder and key else ""
        return f"{key or 'an option'}{owner} is {value!r}, but it must be of the kind {kind}."
    refused_value = _last(r"Given value: (.+)", message)
    nested = re.search(r"NestedArg\(key='\w+', val=(.+)\)", refused_value or "")
    refused_value = nested[1].strip("'\"") if nested else refused_value
    if key and refused_value:
        kinds = dict.fromkeys(re.findall(r"Expected an? <class '([\w.]+)'>", message))
        kinds.pop("NoneType", None)
        wanted = f"it must be of the kind {' or '.join(kinds)}" if kinds else "it is not accepted"
        return f"{key} is {refused_value!r}, but {wanted}; latticezoo {command} --help tells more."
    missing = re.search(r"following arguments are required: ([\w.]+)", message)
    if missing:
        name = missing[1].removeprefix(f"{command}.")
        example = {"model": " gcn", "data": " holstein"}.get(name, "")
        return f"{command} needs --{name}{example}; latticezoo {command} --help tells more."
    foreign = _last(r"does not accept option '([^']+)'", message)
    if foreign:
        known = ["model", "data", "trainer", "seed_everything", "out", "ensemble", "ckpt_path"]
        known += ["budget", "patience"] if command == "fit" else []
        return str(unknown(f"option of {command}", foreign.split(".")[0], known))
    unrecognized = _last(r"unrecognized arguments: (\S+)", message)
    if unrecognized:
        return f"unknown argument {unrecognized!r}; latticezoo {command} --help lists all."
    import_error = _last(r"(?:Unexpected import error|No module named) (.+)", message)
    if import_error:
        return f"cannot import {import_error}; give a registered name or an import path."
    text = " ".join(lines[:2] if key and len(lines) > 1 else lines[:1])
    return f"{command}: {text.rstrip('.')}."


def _last(pattern: str, text: str) -> str | None:
    found = re.findall(pattern, text)
    return found[-1] if found else None


def _short(path: str | None) -> str | None:
    return path.rsplit(".", 1)[1] if path and "." in path else path


def _options(class_path: str | None) -> list[str]:
    """Names of the options of a class, its bases included."""
    import importlib
    import inspect

    if not class_path:
        return ["model", "data", "trainer"]
    module, _, name = class_path.rpartition(".")
    cls = getattr(importlib.import_module(module), name)
    names = {
        parameter.name
        for base in cls.__mro__
        if "__init__" in vars(base) and base.__module__.startswith(module.split(".")[0])
        for parameter in inspect.signature(base).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    return sorted(names - {"task"})
