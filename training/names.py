"""Names on the command line: registered names, class names, presets, packaged configurations."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from latticezoo.symmetry.errors import InputError, unknown

if TYPE_CHECKING:
    from latticezoo.datasets.module import LatticeData


def network_path(name: str) -> tuple[str, dict[str, Any]]:
    """Import path and preset of a network given as ``gcn``, ``gcn:paper``, ``GCN`` or its path.

    Returns:
        The path of its class and the options that the name stands for.

    Raises:
        InputError: Unknown name, with the nearest ones.
    """
    from latticezoo.zoo.registry import list_models, model_class

    bare, _, preset = name.partition(":")
    path = _class_path("model", bare, dict.fromkeys(list_models(), model_class))
    return path, {"preset": preset} if preset else {}


def data_path(name: str) -> str:
    """Import path of a data module given as ``holstein``, ``Holstein`` or its path.

    Raises:
        InputError: Unknown name, with the nearest ones.
    """
    from latticezoo.datasets.registry import data_class, list_data

    return _class_path("dataset", name, dict.fromkeys(list_data(), data_class))


def data_record(data: LatticeData) -> dict[str, Any]:
    """Name and options of a data module, from which :func:`open_data` makes it again."""
    from latticezoo.datasets.registry import data_class, list_data

    cls = type(data)
    names = [name for name in list_data() if data_class(name) is cls]
    name = names[0] if names else f"{cls.__module__}.{cls.__qualname__}"
    # Lightning's command line notes how it built the module among its hyperparameters.
    options = {key: value for key, value in data.hparams.items() if not key.startswith("_")}
    return {"name": name, "options": options}


def open_data(name: str, options: Mapping[str, Any]) -> LatticeData:
    """The data module of a registered name or the name of its class.

    Raises:
        InputError: Unknown name or option.
    """
    from latticezoo.datasets.registry import create_data, data_class, list_data

    names = {data_class(known).__name__: known for known in list_data()}
    return create_data(names.get(name, name), **options)


def _class_path(kind: str, name: str, registered: Mapping[str, Callable[[str], type]]) -> str:
    classes = {known: find(known) for known, find in registered.items()}
    paths = {known: f"{cls.__module__}.{cls.__qualname__}" for known, cls in classes.items()}
    by_name = {**paths, **{path.rsplit(".", 1)[1]: path for path in paths.values()}}
    if name in by_name:
        return by_name[name]
    if "." in name:  # a class of the user's own, by its import path
        return name
    raise unknown(kind, name, by_name)


def config_file(name: str) -> Path:
    """The file of a configuration given by a path, or by the name of a packaged one.

    Raises:
        InputError: When there is neither; the packaged names are given.
    """
    if Path(name).is_file():
        return Path(name)
    packaged = {
        entry.name: Path(str(entry))
        for entry in files("latticezoo.training.configs").iterdir()
        if entry.name.endswith(".yaml")
    }
    for candidate in (name, f"{name}.yaml"):
        if candidate in packaged:
            return packaged[candidate]
    raise unknown("configuration file", name, packaged)


def read_config(name: str) -> dict[str, Any]:
    """Read a YAML mapping from a file or a packaged configuration.

    Raises:
        InputError: When it is missing, not YAML, or not a mapping.
    """
    file = config_file(name)
    try:
        values = yaml.safe_load(file.read_text())
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise InputError(f"{file} is not valid YAML: {_problem(error)}{where}.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not a text file.") from error
    if not isinstance(values, dict):
        raise InputError(f"{file} must hold names and values, such as 'model: gcn'.")
    return values


def _problem(error: Exception) -> str:
    return str(getattr(error, "problem", None) or "it cannot be read")


def resolve_config(values: Mapping[str, Any]) -> dict[str, Any]:
    """Put import paths for the short names of network and data in a configuration."""
    resolved = dict(values)
    for key in ("model", "data"):
        given = resolved.get(key)
        if isinstance(given, str):
            given = {"class_path": given}
        if not isinstance(given, Mapping) or not isinstance(given.get("class_path"), str):
            continue
        options = dict(given.get("init_args") or {})
        if key == "model":
            path, preset = network_path(given["class_path"])
            options = {**preset, **options}
        else:
            path = data_path(given["class_path"])
        resolved[key] = {**given, "class_path": path, "init_args": options}
    return resolved


def resolve_arguments(arguments: list[str], scratch: Path) -> list[str]:
    """Put import paths for the names after --model and --data, in --config files too.

    Args:
        arguments: The words after the command.
        scratch: Folder for configurations with the names resolved.

    Returns:
        Words for the parser of Lightning's command line.
    """
    resolved: list[str] = []
    words = iter(arguments)
    for word in words:
        option, equals, value = word.partition("=")
        if option not in ("--model", "--data", "--config", "-c"):
            resolved.append(word)
            continue
        if not equals:
            value = next(words, "")
        if not value or value.startswith("-"):
            example = f"{option} {_EXAMPLES[option]}"
            raise InputError(f"{option} needs a name after it, such as {example}.")
        if option == "--model":
            path, preset = network_path(value)
            resolved.append(f"--model={path}")
            resolved.extend(f"--model.{name}={text}" for name, text in preset.items())
        elif option == "--data":
            resolved.append(f"--data={data_path(value)}")
        else:
            file = scratch / f"{len(resolved)}.json"
            file.write_text(json.dumps(resolve_config(read_config(value))))
            resolved.append(f"--config={file}")
    return resolved


_EXAMPLES = {
    "--model": "gcn",
    "--data": "holstein",
    "--config": "gcn_holstein.yaml",
    "-c": "gcn_holstein.yaml",
}
