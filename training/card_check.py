"""Whether a model card is complete: what must be measured, and what a page must say.

The measurements of a card, ``metrics.json``, follow a JSON schema that comes with the library
(``metrics_schema.json``). A card that lacks one is neither written nor published; the error lists
all that is missing.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from latticezoo.symmetry.errors import InputError

#: The page, the measurements, and the pictures beside config.json and the tensors.
PAGE, METRICS = "README.md", "metrics.json"
PICTURES = ("parity.png", "errors.png", "rollout.png")
#: What the Hugging Face hub shows of a model beside its page.
_METADATA = ("license", "library_name", "tags", "datasets", "model-index")


@cache
def schema() -> dict[str, Any]:
    """The JSON schema of ``metrics.json``."""
    found: dict[str, Any] = json.loads(
        (files("latticezoo.training") / "metrics_schema.json").read_text()
    )
    return found


def missing(metrics: Mapping[str, Any]) -> list[str]:
    """What a card lacks, or has in another form than the schema wants; empty when complete.

    Args:
        metrics: The contents of ``metrics.json``.
    """
    from jsonschema import Draft202012Validator

    found = []
    for error in Draft202012Validator(schema()).iter_errors(_without_nan(metrics)):
        place = ".".join(map(str, error.absolute_path))
        if error.validator == "anyOf":
            position = int(error.absolute_schema_path[1])
            found.append(schema()["allOf"][position]["description"])
        elif error.validator == "required":
            name = re.findall(r"'([^']+)' is a required", error.message)[0]
            found.append(f"{place}.{name}" if place else name)
        else:
            found.append(f"{place} as the schema wants it ({error.message.splitlines()[0]})")
    return sorted(set(found))


def _without_nan(values: Any) -> Any:
    """The same values with None, which is no number, where a number is NaN or infinite."""
    if isinstance(values, Mapping):
        return {key: _without_nan(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [_without_nan(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values


def read_metrics(folder: Path) -> dict[str, Any]:
    """``metrics.json`` of a card.

    Raises:
        InputError: It is not there, or is no JSON table.
    """
    try:
        found = json.loads((folder / METRICS).read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{folder / METRICS} is missing or damaged.") from error
    if not isinstance(found, dict):
        raise InputError(f"{folder / METRICS} is missing or damaged.")
    return found


def check_card(folder: Path) -> dict[str, bytes]:
    """Make sure that a card is complete and that its weights do what they did.

    Args:
        folder: The card.

    Returns:
        Its files as they were checked, by name.

    Raises:
        InputError: Files are missing, hashes or golden outputs differ, measurements are missing
            (all are listed), or a heading of the page has nothing under it.
    """
    from latticezoo.zoo.pretrained import check_golden
    from latticezoo.zoo.sources import CONFIG, GOLDEN, LOCAL, WEIGHTS, Card

    check_golden(f"{LOCAL}{folder}")
    metrics = read_metrics(folder)
    lacking = missing(metrics)
    pictures = [name for name in PICTURES if name != "rollout.png" or "rollout" in metrics]
    lacking += [name for name in (PAGE, *pictures) if not (folder / name).is_file()]
    if lacking:
        raise InputError(
            f"the card {folder.name} is not complete; it lacks: {'; '.join(lacking)}. "
            f"latticezoo card {folder} measures what can be measured."
        )
    card = Card(folder)
    # config.json comes last: whoever sees it finds everything else in its place.
    names = (PAGE, METRICS, *pictures, WEIGHTS, GOLDEN, CONFIG)
    contents = {name: card.read(name) for name in names}
    faults = page_faults(contents[PAGE].decode())
    if faults:
        raise InputError(f"the page of the card {folder.name} is not complete: {faults[0]}.")
    return contents


def page_faults(page: str) -> list[str]:
    """What a README.md lacks: keys of its metadata, or text under a heading."""
    match = re.match(r"---\n(.*?)\n---\n(.*)", page, re.DOTALL)
    try:
        metadata = yaml.safe_load(match[1]) if match else None
    except yaml.YAMLError:
        metadata = None
    if not match or not isinstance(metadata, dict):
        return ["it does not begin with metadata between two lines of ---"]
    faults = [f"its metadata lack {key}" for key in _METADATA if not metadata.get(key)]
    heading, level, filled, fenced = "", 0, True, False
    for line in [*match[2].splitlines(), "# "]:
        fenced ^= line.startswith("```")
        found = None if fenced else re.match(r"(#+) (.*)", line)
        if not found:
            filled |= bool(line.strip())
            continue
        # A heading may be followed at once by one of a lower level.
        if not filled and len(found[1]) <= level:
            faults.append(f"nothing stands under the heading {heading!r}")
        heading, level, filled = found[2], len(found[1]), False
    return faults
