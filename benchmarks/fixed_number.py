"""What a fixed number of electrons does to the density, and what a network makes of it.

    python benchmarks/fixed_number.py      # about a minute: exact quenches of set B on 24 x 24

On exact states: the root-mean-square change of n between half filling, where the chemical
potential depends on all sites, and a potential fixed at zero, where n is local: about what a local
network must miss at half filling. And the error of the shipped network with its search for the
potential, at the exact potential and at zero, with the number of evaluations that the search took.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import torch
from hardware import hardware

from latticezoo.datasets.holstein_module import Holstein
from latticezoo.zoo import load_pretrained
from latticezoo.zoo.conservation import solve

KINDS = {"random": 0, "quench": 1}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--preset", default="holstein_strong")
    add("--lattice", default="24")
    add("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    data = Holstein(
        lattice=given.lattice,
        preset=given.preset,
        random=20,
        trajectories=3,
        frames=10,
        seed=1_000_001,
    ).data
    system = Holstein(lattice=given.lattice, preset=given.preset).system
    Q, exact, lattice = data.fields["Q"], data.labels["density"], data.lattice
    potential = data.labels["chemical_potential"]
    local = replace(system, chemical_potential=0.0).labels({"Q": Q}, lattice)["density"]
    name = f"lattice_enn.{given.preset}"
    network = load_pretrained(name)
    counts, searched = [], []
    with torch.no_grad():
        for sample in Q:
            calls: list[int] = []

            def evaluate(fields, calls=calls):
                calls.append(1)
                return network.at_potential(fields, lattice, torch.zeros(1))

            found = solve(evaluate, {"Q": sample[None].float()}, network.conserved)
            searched.append(found.outputs["density"])
            counts.append(len(calls))
        at_exact = network.at_potential({"Q": Q}, lattice, potential)["density"]
        at_zero = network.at_potential({"Q": Q}, lattice, torch.zeros(len(Q)))["density"]
    rows = {
        "n at potential zero, exact": local,
        f"{name}, potential zero": at_zero,
        f"{name}, exact potential": at_exact,
        f"{name}, potential searched": torch.cat(searched),
    }
    result = {
        "what": "rms difference from the exact n at half filling",
        "system": given.preset,
        "lattice": str(lattice),
        "states": {kind: int((data.kind == k).sum()) for kind, k in KINDS.items()},
        "rms": {
            label: {
                kind: round(float((values - exact)[data.kind == k].square().mean().sqrt()), 5)
                for kind, k in KINDS.items()
            }
            for label, values in rows.items()
        },
        "evaluations": {
            kind: sum(n for n, s in zip(counts, data.kind, strict=True) if s == k)
            / int((data.kind == k).sum())
            for kind, k in KINDS.items()
        },
        "hardware": hardware(),
    }
    given.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["rms"], indent=1), result["evaluations"])


if __name__ == "__main__":
    main()
