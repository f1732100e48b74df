"""Errors of learned Jahn–Teller forces as a share of the rms force, on exact states of their own.

    python benchmarks/jahn_teller_force.py     # some five minutes: exact quenches on 16 x 16

Fresh quenches and random states, none of them seen in training: held out whole. The force is the
total one, F/g; near the ordered state it is small, so shares are larger than those of the orbital
density. Random states of 24 x 24 show what the size of the training torus does to the weights. The
time of one evaluation on 32 x 32, at a known chemical potential, is processor time of one core.
JSON beside it.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from hardware import hardware

from latticezoo.datasets.jahn_teller_module import JahnTeller
from latticezoo.symmetry import square
from latticezoo.zoo import list_pretrained, load_pretrained

PRESET = "jahn_teller_half_filled"
KINDS = {"random": 0, "quench": 1}
SEED = 1_000_003


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--models", default="", help="comma-separated; all pretrained ones by default")
    add("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    names = given.models.split(",") if given.models else list_pretrained(f"*.{PRESET}")
    sets = {
        "16": {"random": 10, "trajectories": 4, "frames": 10},
        "24": {"random": 6, "trajectories": 0, "frames": 1},
    }
    networks = {name: load_pretrained(name) for name in names}
    rows: dict[str, dict[str, dict[str, float]]] = {name: {} for name in names}
    states: dict[str, dict[str, int]] = {}
    forces: dict[str, dict[str, float]] = {}
    for lattice, counts in sets.items():
        data = JahnTeller(lattice=lattice, preset=PRESET, seed=SEED, workers=1, **counts)
        samples, system = data.data, data.system
        exact = samples.labels["scaled_force"]
        chosen = {kind: samples.kind == number for kind, number in KINDS.items()}
        chosen = {kind: where for kind, where in chosen.items() if bool(where.any())}
        states[lattice] = {kind: int(where.sum()) for kind, where in chosen.items()}
        forces[lattice] = {kind: _rms(exact[where]) for kind, where in chosen.items()}
        for name, network in networks.items():
            start = time.process_time()
            found = []
            with torch.no_grad():
                for sample in samples.fields["Q"]:
                    fields = {"Q": sample[None]}
                    outputs = {k: v.double() for k, v in network(fields, samples.lattice).items()}
                    found.append(system.assemble(outputs, fields, samples.lattice)["Q"] / system.g)
            error = torch.cat(found) - exact
            rows[name][lattice] = {
                **{
                    kind: _rms(error[where]) / forces[lattice][kind]
                    for kind, where in chosen.items()
                },
                "seconds_a_state": (time.process_time() - start) / len(exact),
            }
            print(name, lattice, rows[name][lattice], flush=True)
    lattice = square(32)
    Q = torch.randn(1, lattice.n_sites, 3, generator=torch.Generator().manual_seed(0))
    microseconds = {}
    for name, network in networks.items():
        with torch.set_grad_enabled(hasattr(network, "energy")):
            start = time.process_time()
            if network.conserved:
                network.at_potential({"Q": Q}, lattice, torch.zeros(1))
            else:
                network({"Q": Q}, lattice)
        microseconds[name] = 1e6 * (time.process_time() - start) / lattice.n_sites
    result = {
        "what": "rms error of F/g as a share of its rms",
        "system": PRESET,
        "seed": SEED,
        "states": states,
        "rms_force": forces,
        "parameters": {
            name: sum(weight.numel() for weight in network.parameters())
            for name, network in networks.items()
        },
        "share": rows,
        "microseconds_a_site_at_known_potential": microseconds,
        "hardware": hardware(),
    }
    given.out.write_text(json.dumps(result, indent=1) + "\n")


def _rms(values: torch.Tensor) -> float:
    return float(values.square().mean().sqrt())


if __name__ == "__main__":
    main()
