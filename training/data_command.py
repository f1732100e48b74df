"""Make datasets with exact labels, describe or check a dataset file, list what can be made.

  latticezoo data make holstein_square --lattice 40 --seed 1
  latticezoo data make holstein_square --lattice 40 --cluster tcp://HOST:8786
  latticezoo data make holstein_square --help
  latticezoo data info FILE
  latticezoo data check FILE        # trajectories driven by a network beside exact ones
  latticezoo data list

Interrupted or killed, `data make` goes on from the finished parts when it is run again.
"""

from __future__ import annotations

import argparse
import json
import types
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from latticezoo.symmetry.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the sub-commands ``make``, ``info``, ``check`` and ``list``."""
    commands = parser.add_subparsers(dest="action", required=True, metavar="make|info|check|list")
    make = commands.add_parser(
        "make", help="make a dataset by a recipe", allow_abbrev=False, add_help=False
    )
    make.add_argument("-h", "--help", action="store_true")
    make.add_argument("recipe", nargs="?")
    make.add_argument("options", nargs=argparse.REMAINDER)
    info = commands.add_parser("info", help="describe a dataset file", allow_abbrev=False)
    info.add_argument("file", help="HDF5 file of a dataset")
    info.add_argument("--json", action="store_true", help="as JSON, for programs")
    info.add_argument("--seed", type=int, default=0, help="seed of the split that is shown")
    check = commands.add_parser(
        "check", help="compare trajectories driven by a network with exact ones", allow_abbrev=False
    )
    check.add_argument("file", help="HDF5 file of a dataset")
    check.add_argument("--driver", help="network to measure instead of the one that the file names")
    check.add_argument("--times", action="store_true", help="show means at every time")
    check.add_argument("--json", action="store_true", help="as JSON, for programs")
    listing = commands.add_parser("list", help="list recipes and datasets", allow_abbrev=False)
    listing.add_argument("--json", action="store_true", help="as JSON, for programs")


def run(args: argparse.Namespace) -> int:
    """Run the sub-command; give the exit status."""
    if args.action == "make":
        return _make(args)
    if args.action == "check":
        return _check(args)
    return _info(args) if args.action == "info" else _list(args)


# ---- make --------------------------------------------------------------------------------------


def _make(args: argparse.Namespace) -> int:
    from latticezoo.datasets.registry import RECIPES, list_recipes, recipe_class

    if args.recipe is None or args.help:
        if args.recipe is None and not args.help:
            raise InputError(f"data make needs a recipe: {', '.join(list_recipes())}.")
        print("usage: latticezoo data make RECIPE [--OPTION VALUE …]\n\nrecipes:")
        for name in list_recipes():
            print(f"  {name:<18} {RECIPES[name].summary if name in RECIPES else ''}")
        print("\nlatticezoo data make RECIPE --help lists the options of a recipe.")
        return 0
    cls = recipe_class(args.recipe)
    given = vars(_recipe_parser(args.recipe, cls).parse_args(args.options))
    path, workers, cluster, quiet = (
        given.pop(name) for name in ("out", "workers", "cluster", "quiet")
    )

    from latticezoo.datasets.cache import default_path
    from latticezoo.datasets.make import make_dataset
    from latticezoo.datasets.registry import create_recipe

    recipe = create_recipe(args.recipe, **given)
    target = Path(path) if path else default_path(recipe)
    there = target.exists()
    made = make_dataset(recipe, path=target, workers=workers, cluster=cluster, progress=not quiet)
    print(f"{'already there' if there else 'wrote'}:\n  {made}")
    return 0


def _recipe_parser(name: str, cls: type) -> argparse.ArgumentParser:
    """A parser with one option for every field of a recipe, explained by its docstring."""
    from latticezoo.datasets.registry import RECIPES
    from latticezoo.training.cli import Parser

    summary = RECIPES[name].summary if name in RECIPES else (cls.__doc__ or "").split("\n")[0]
    parser = Parser(
        prog=f"latticezoo data make {name}",
        usage=f"latticezoo data make {name} [--OPTION VALUE …] [--out FILE]",
        description=summary,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    texts = _explanations(cls)
    hints = get_type_hints(cls)
    for item in fields(cls):
        text = texts.get(item.name, "")
        if item.default is not MISSING and item.default is not None:
            text = f"{text.rstrip('.')} (default {item.default})."
        parser.add_argument(
            f"--{item.name}",
            type=_reader(hints[item.name]),
            metavar="VALUE",
            help=text.replace("%", "%%"),
        )
    parser.add_argument(
        "--out", metavar="FILE", default=None, help="HDF5 file to write; by default in the cache."
    )
    parser.add_argument(
        "--workers", type=int, default=None, help="Number of processes; by default one a core."
    )
    parser.add_argument(
        "--cluster",
        metavar="ADDRESS",
        default=None,
        help="Dask cluster that does the work: local, tcp://HOST:PORT or a scheduler file.",
    )
    parser.add_argument("--quiet", action="store_true", default=False, help="No progress bar.")
    return parser


def _explanations(cls: type) -> dict[str, str]:
    """What the docstrings of a class and its bases say of each argument."""
    from docstring_parser import parse

    texts: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        for entry in parse(base.__doc__ or "").params:
            texts[entry.arg_name] = " ".join((entry.description or "").replace("`", "").split())
    return texts


def _reader(hint: Any) -> Any:
    """Function that reads the text of an option according to its type hint."""
    union = get_origin(hint) in (Union, types.UnionType)
    kinds = [kind for kind in (get_args(hint) if union else (hint,)) if kind is not type(None)]
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}

    def read(text: str) -> Any:
        for kind in kinds:
            if kind is bool:
                if text.lower() in ("true", "false"):
                    return text.lower() == "true"
                continue
            try:
                return kind(text)
            except ValueError:
                continue
        wanted = " or ".join(names.get(kind, kind.__name__) for kind in kinds)
        raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}")

    return read


# ---- info --------------------------------------------------------------------------------------


def _info(args: argparse.Namespace) -> int:
    facts = describe_file(args.file, args.seed)
    print(json.dumps(facts, indent=2, ensure_ascii=False) if args.json else _readable(facts))
    return 0


def _check(args: argparse.Namespace) -> int:
    from latticezoo.training.data_check import check_file, readable

    facts = check_file(args.file, args.driver)
    print(json.dumps(facts, indent=2) if args.json else readable(facts, args.times))
    return 0


def describe_file(path: str, seed: int = 0) -> dict[str, Any]:
    """Facts about a dataset file, plain values. The file is read whole and checked.

    Args:
        path: The file.
        seed: Seed of the default split that is counted.

    Raises:
        InputError: The file is missing or damaged.
    """
    import torch

    from latticezoo.datasets.labelled import KINDS, LabelledData
    from latticezoo.datasets.split import HELD_OUT, split_by_group

    data = LabelledData.open(path)
    source = data.source
    kinds = {name: int((data.kind == number).sum()) for number, name in enumerate(KINDS)}
    inputs = {field.name: field for field in data.task.inputs}
    columns = []
    for role, table, specs in (
        ("input", data.fields, inputs),
        ("label", data.labels, data.types),
    ):
        for name, values in table.items():
            field = specs[name]
            # Of complex numbers, mean and spread of real and imaginary parts together.
            numbers = torch.view_as_real(values) if values.is_complex() else values
            target = role == "label" and name in data.targets
            columns.append(
                {
                    "name": name,
                    "role": "target" if target else role,
                    "support": field.support,
                    "point": field.point,
                    "internal": field.internal,
                    "odd": list(field.odd),
                    "shape": list(values.shape),
                    "mean": float(numbers.mean()),
                    "std": float(numbers.std(correction=0)),
                    "std_by_kind": {
                        kind: float(numbers[data.kind == number].std(correction=0))
                        for number, kind in enumerate(KINDS)
                        if kinds[kind]
                    },
                }
            )
    splits: Any
    try:
        chosen = split_by_group(
            data.groups, data.strata, val_fraction=HELD_OUT, test_fraction=HELD_OUT, seed=seed
        )
        splits = {
            split: {
                kind: int((data.kind[rows] == number).sum()) for number, kind in enumerate(KINDS)
            }
            for split, rows in chosen.items()
        }
    except InputError as error:
        splits = str(error)
    return {
        "path": str(path),
        "bytes": Path(path).stat().st_size,
        "recipe": source.recipe,
        "system": source.system,
        "parameters": dict(source.parameters),
        "options": dict(source.options),
        "seed": source.seed,
        "task": data.task.name,
        "symmetry": str(data.task.symmetry(data.lattice)),
        "lattice": str(data.lattice),
        "samples": len(data),
        "kinds": kinds,
        "driver": dict(zip(("name", "sha256"), source.driver, strict=True))
        if source.driver
        else None,
        "driven": {
            "trajectories": len(set(data.trajectory[data.driven > 0].tolist())),
            "frames": int((data.driven > 0).sum()),
        },
        "trajectories": len(set(data.trajectory[data.trajectory >= 0].tolist())),
        "columns": columns,
        "splits": splits,
        "split_seed": seed,
        "library_version": source.library_version,
        "created_with": dict(source.created_with),
        "solver_tolerance": source.solver_tolerance,
        "content_hash": data.content_hash,
        "hash_ok": True,  # opening the file checked it
    }


def _readable(facts: dict[str, Any]) -> str:
    parameters = {k: v for k, v in facts["parameters"].items() if v is not None}
    options = {k: v for k, v in facts["options"].items() if v is not None}
    kinds = facts["kinds"]
    lines = [
        f"{facts['path']}  ({facts['bytes'] / 1e6:.2f} MB)",
        f"  recipe    {facts['recipe'] or '(none)'}",
        f"  options   {_pairs(options)}",
        f"  system    {facts['system'] or '(unknown)'}: {_pairs(parameters)}",
        f"  task      {facts['task']} on {facts['lattice']}",
        f"  symmetry  {facts['symmetry']}",
        f"  samples   {facts['samples']}: {kinds['random']} random, {kinds['trajectory']} from "
        f"{facts['trajectories']} trajectories",
    ]
    if facts["driver"]:
        driven, driver = facts["driven"], facts["driver"]
        exact = facts["trajectories"] - driven["trajectories"]
        lines.append(
            f"  driver    {driven['frames']} frames from {driven['trajectories']} trajectories "
            f"driven by {driver['name']}, {kinds['trajectory'] - driven['frames']} from {exact} "
            f"exact ones; its weights have sha256 {driver['sha256']}"
        )
    if isinstance(facts["splits"], str):
        lines.append(f"  split     {facts['splits']}")
    else:
        counts = [
            f"{split} {sum(sizes.values())} ({sizes['random']} + {sizes['trajectory']})"
            for split, sizes in facts["splits"].items()
        ]
        lines.append(f"  split     {', '.join(counts)}; by trajectory, seed {facts['split_seed']}")
    lines.append("")
    head = ("field", "role", "lives on", "type", "odd under", "mean", "std", "std by kind")
    rows = [head, *(_row(column) for column in facts["columns"])]
    widths = [max(len(row[k]) for row in rows) for k in range(len(head))]
    lines += [
        "  "
        + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    lines += [
        "",
        f"  made by version {facts['library_version']} with {_pairs(facts['created_with'])}",
        f"  solver tolerance {facts['solver_tolerance']:g}",
        f"  sha256 {facts['content_hash']} (matches the content)",
    ]
    return "\n".join(lines)


def _row(column: dict[str, Any]) -> tuple[str, ...]:
    internal = "" if column["internal"] is None else f" ⊗ {column['internal']}"
    by_kind = ", ".join(f"{kind} {std:.4g}" for kind, std in column["std_by_kind"].items())
    return (
        column["name"],
        column["role"],
        column["support"],
        f"{column['point']}{internal}",
        ", ".join(column["odd"]) or "-",
        f"{column['mean']:.4g}",
        f"{column['std']:.4g}",
        by_kind,
    )


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


# ---- list --------------------------------------------------------------------------------------


def _list(args: argparse.Namespace) -> int:
    from latticezoo.datasets.registry import DATA, RECIPES, list_data, list_recipes

    tables = {
        "recipes": {n: RECIPES[n].summary if n in RECIPES else "" for n in list_recipes()},
        "datasets": {n: DATA[n].summary if n in DATA else "" for n in list_data()},
    }
    if args.json:
        print(json.dumps(tables, indent=2))
        return 0
    for title, (what, table) in zip(
        ("for `latticezoo data make`", "for `--data`"), tables.items(), strict=True
    ):
        print(f"{what}, {title}:")
        for name, summary in table.items():
            print(f"  {name:<18} {summary}")
    return 0
