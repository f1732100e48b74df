"""How local the exact labels are: the error that no network of finite range can go below.

    python benchmarks/locality.py --recipe jahn_teller_square --lattice 16 --radii 2,4,6
    python benchmarks/locality.py --recipe sd_magnet --option preset=sd_skyrmion --radii 3,5

Two random states that agree on all sites within a radius of one site and nowhere else have labels
there that differ by δ. A function of the sites within the radius cannot give both: its best value
is the mean, and its root-mean-square error at least rms(δ)/√2. That is the floor, here as a share
of the rms label (of the rms total force where the system has one). It is measured at fixed
filling, and at the chemical potential of the first state, which is what a network sees that
searches it. Sites are drawn independently, without the ordered backgrounds of the training data.
Writes JSON with the hardware, one entry a command.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hardware import hardware

from latticezoo.datasets.registry import create_recipe
from latticezoo.simulate.files import atomic_write


def distances(lattice: Any) -> np.ndarray:
    """Distance of every site from site 0 around the torus, ``[N]``."""
    positions = lattice.positions.numpy()
    periods = np.array(lattice.shape)[:, None] * lattice.vectors
    steps = np.stack(np.meshgrid(*[[-1, 0, 1]] * lattice.dim), -1).reshape(-1, lattice.dim)
    images = (positions - positions[0])[:, None] + steps @ periods
    return np.linalg.norm(images, axis=-1).min(1)


def measure(recipe: Any, target: str, radius: float, pairs: int) -> dict[str, float]:
    """Floors of one radius."""
    lattice, system = recipe.geometry, recipe.system
    name = recipe.task.inputs[0].name
    inside = torch.from_numpy(distances(lattice) <= radius + 1e-6)[:, None]
    changes: dict[str, list[torch.Tensor]] = {"fixed_filling": [], "fixed_potential": []}
    sizes = []
    for pair in range(pairs):
        one, other = (torch.as_tensor(recipe.configuration(2 * pair + k)) for k in (0, 1))
        one, other = one.reshape(1, lattice.n_sites, -1), other.reshape(1, lattice.n_sites, -1)
        both = torch.cat([one, torch.where(inside, one, other)])
        found = system.labels({name: both}, lattice)
        changes["fixed_filling"].append(found[target][0, 0] - found[target][1, 0])
        sizes.append(found.get("scaled_force", found[target])[0])
        held = replace(system, chemical_potential=float(found["chemical_potential"][0]))
        found = held.labels({name: both}, lattice)
        changes["fixed_potential"].append(found[target][0, 0] - found[target][1, 0])
    rms = float(torch.cat(sizes).square().mean().sqrt())
    result = {"radius": radius, "sites_inside": int(inside.sum()), "rms": rms}
    for ensemble, rows in changes.items():
        squares = torch.stack(rows).square().mean(1)
        floor = float((squares.mean() / 2).sqrt())
        result[f"floor_{ensemble}"] = floor
        result[f"share_{ensemble}"] = floor / rms
        # Of a mean of squares, by the delta method.
        error = float(squares.std() / squares.mean() / len(rows) ** 0.5 / 2)
        result[f"share_{ensemble}_error"] = error * floor / rms
    return result


def _plain(value: str) -> Any:
    """A number where the text is one."""
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(value)
    return value


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--recipe", default="jahn_teller_square")
    add("--lattice", default="16")
    add("--option", action="append", default=[], metavar="NAME=VALUE", help="of the recipe")
    add("--target", help="label (default: the network's usual target)")
    add("--radii", default="2,4,6", help="in bond lengths")
    add("--pairs", type=int, default=40)
    add("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    options: dict[str, Any] = dict(entry.split("=", 1) for entry in given.option)
    plain = {name: _plain(value) for name, value in options.items()}
    recipe = create_recipe(given.recipe, lattice=given.lattice, trajectories=0, random=1, **plain)
    shares = ("staggered_fraction", "ordered_share")
    free = {entry.name: 0.0 for entry in fields(recipe) if entry.name in shares}
    recipe = replace(recipe, **free)
    target = given.target or ("orbital" if "orbital" in recipe.types() else recipe.targets[0])
    began = time.perf_counter()
    rows = [
        measure(recipe, target, float(radius), given.pairs) for radius in given.radii.split(",")
    ]
    entry = {
        "recipe": given.recipe,
        "lattice": str(recipe.geometry),
        "options": plain,
        "system": {"system": recipe.system.name, **recipe.system.parameters},
        "target": target,
        "pairs": given.pairs,
        "rows": rows,
        "seconds": round(time.perf_counter() - began, 1),
        "hardware": hardware(),
    }
    entries = json.loads(given.out.read_text())["entries"] if given.out.exists() else []
    same = ("recipe", "lattice", "options", "target")
    entries = [old for old in entries if any(old[key] != entry[key] for key in same)]
    with atomic_write(given.out) as temporary:
        temporary.write_text(json.dumps({"benchmark": "locality", "entries": [*entries, entry]}))
    for row in rows:
        print(
            f"radius {row['radius']:g} ({row['sites_inside']} sites): floor "
            f"{100 * row['share_fixed_potential']:.1f} ± "
            f"{100 * row['share_fixed_potential_error']:.1f} % at fixed μ, "
            f"{100 * row['share_fixed_filling']:.1f} % at fixed filling, of rms {row['rms']:.4g}"
        )
    print(given.out)


if __name__ == "__main__":
    main()
