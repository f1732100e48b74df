"""List the networks with their presets, and the pretrained weights that come with the library.

latticezoo models                       list all
latticezoo models "*gcn*"               list those whose name matches
latticezoo models --check               check hashes and golden outputs of the pretrained weights
latticezoo models --check local-dir:cards/gcn.mine        those of a folder
latticezoo models --check hf-hub:user/name@revision       those of a repository on the hub
latticezoo models --data jahn_teller    sizes for the task of another dataset
latticezoo models --page gcn.holstein_weak                print the card of pretrained weights
"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from latticezoo.symmetry.errors import InputError, unknown

if TYPE_CHECKING:
    from latticezoo.symmetry.tasks import Task


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "pattern",
        nargs="?",
        default="*",
        help="names to list (default all); with --check a source too",
    )
    parser.add_argument("--page", action="store_true", help="print the card of pretrained weights")
    parser.add_argument("--check", action="store_true", help="check the pretrained weights")
    parser.add_argument(
        "--data",
        help="dataset whose task decides the sizes (default: holstein, or one that a network can "
        "serve)",
    )
    parser.add_argument("--json", action="store_true", help="as JSON, for programs")


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    if arguments.check:
        return _check(arguments.pattern)
    if arguments.page:
        return _page(arguments.pattern)
    facts = describe_models(arguments.pattern, arguments.data)
    if arguments.json:
        print(json.dumps(facts, indent=2, ensure_ascii=False))
        return 0
    print(f"networks (sizes for the task {facts['task']}, or for another where that is named):")
    for name, entry in facts["models"].items():
        print(f"  {name}: {entry['summary']}")
        for preset, size in entry["presets"].items():
            print(f"    {name}:{preset:<12} {size}")
    print("\npretrained, for load_pretrained and latticezoo simulate --model:")
    for name in facts["pretrained"] or ["(none)"]:
        print(f"  {name}")
    return 0


def describe_models(pattern: str, data: str | None = None) -> dict[str, Any]:
    """Networks, presets with their sizes, and pretrained names, plain values.

    Args:
        pattern: Names to list, with ``*`` and ``?``.
        data: Dataset whose task decides the sizes. By default that of holstein, or for a network
            that cannot serve it the first that it can.

    Raises:
        InputError: For an unknown dataset, or a pattern that nothing matches.
    """
    from latticezoo.datasets.registry import list_data
    from latticezoo.training.names import open_data
    from latticezoo.zoo.registry import MEMBERS, list_models, model_class
    from latticezoo.zoo.sources import list_pretrained

    task = open_data(data or "holstein", {}).task
    left = [] if data else [name for name in list_data() if name not in ("holstein", "from_file")]
    others = [open_data(name, {}).task for name in left]
    models: dict[str, Any] = {}
    for name in list_models(pattern):
        summary = MEMBERS[name].summary if name in MEMBERS else ""
        presets = {
            preset: _size(name, preset, [task, *others]) for preset in model_class(name).presets
        }
        models[name] = {"summary": summary, "presets": presets}
    pretrained = list_pretrained(pattern)
    if not models and not pretrained:
        known = ", ".join([*list_models(), *list_pretrained()])
        raise InputError(f"no network matches {pattern!r}; known: {known}.")
    return {"task": task.name, "models": models, "pretrained": pretrained}


def _size(name: str, preset: str, tasks: list[Task]) -> str:
    """Number of parameters for the first task that a network can serve."""
    import torch

    from latticezoo.zoo.registry import create_model

    refusal = ""
    for number, task in enumerate(tasks):
        try:
            with torch.device("meta"):  # count without drawing millions of random weights
                network = create_model(name, task, preset=preset)
        except InputError as error:
            refusal = refusal or f"({error})"
            continue
        # A layer that computes while it is built; escnn's say so in another way from the second on.
        except (NotImplementedError, RuntimeError, TypeError):
            network = create_model(name, task, preset=preset)
        size = sum(weight.numel() for weight in network.parameters() if weight.requires_grad)
        return f"{size:,} parameters{f' ({task.name})' if number else ''}"
    return refusal


def _page(name: str) -> int:
    """Print the page of a card.

    Raises:
        InputError: There is no such card.
    """
    from latticezoo.training.card_check import PAGE
    from latticezoo.zoo.sources import card_folder, list_pretrained

    if name not in list_pretrained():
        raise unknown("pretrained model", name, list_pretrained())
    print((card_folder(name) / PAGE).read_text(encoding="utf-8"))
    return 0


def _check(pattern: str) -> int:
    from latticezoo.zoo.pretrained import check_golden
    from latticezoo.zoo.sources import is_source, list_pretrained

    names = [pattern] if is_source(pattern) else list_pretrained(pattern)
    if not names:
        raise unknown("pretrained model", pattern, list_pretrained())
    failures = 0
    for name in names:
        try:
            deviation = check_golden(name)
            print(f"{name}: hashes right, golden outputs within {deviation:.1e}")
        except InputError as error:
            failures += 1
            print(f"{name}: {error}")
    noun = "pretrained network" + "s" * (len(names) > 1)
    if failures:
        raise InputError(f"{failures} of {len(names)} {noun} failed the check.")
    print(f"{len(names)} {noun} checked")
    return 0
