"""What exact dynamics of gauge links keep: energy, Gauss's law, the group; and their order in dt.

    python benchmarks/gauge_dynamics.py

4 × 4 sites, 1000 steps of 0.01/t, from random links: link spins with E = curl of random numbers on
the plaquettes (J = 0.3, g² = 0.7), rotors at rest (κ = 0.6, g² = 0.8), fermions at T = 0.02 or
0.1 in equilibrium (adiabatic) or out of it (Ehrenfest). JSON: largest deviations over the run, and
the order log2 of the ratio of errors when the step is halved twice (E at t = 0.8, T = 0.2).
"""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from hardware import hardware

from latticezoo.simulate.dynamics.link_dynamics import EhrenfestRotors, LinkRotors, LinkSpins
from latticezoo.simulate.link_observables import electric_energy, gauss_violation
from latticezoo.simulate.link_states import link_rotors
from latticezoo.simulate.run import simulate
from latticezoo.simulate.state import State
from latticezoo.simulate.systems.ehrenfest_links import EhrenfestLinks
from latticezoo.simulate.systems.gauge_fermions import GaugeFermions
from latticezoo.simulate.systems.quantum_link import QuantumLink
from latticezoo.symmetry.internal import internal_group
from latticezoo.symmetry.lattices import Lattice, square

GROUPS = ("quantum link", "U1", "SU2")
G2, PIECES = 0.8, 20
Fields = dict[str, torch.Tensor]


def link_spins(lattice: Lattice, seed: int = 0) -> Fields:
    """Link spins with div E = 0 and random phases."""
    generator = torch.Generator().manual_seed(seed)
    curl = 0.25 * torch.randn(1, *lattice.shape, generator=generator).double()
    electric = torch.stack([curl - curl.roll(1, 2), curl.roll(1, 1) - curl], -1).reshape(1, -1, 2)
    electric = electric / max(1.0, float(electric.abs().max()) / 0.9)
    phase = 2 * math.pi * torch.rand(electric.shape, generator=generator).double()
    return {"U": torch.polar(torch.sqrt(1 - electric**2), phase), "E": electric}


def case(group: str, ehrenfest: bool, lattice: Lattice, temperature: float) -> tuple[Any, Fields]:
    """What drives a run, and where it begins."""
    system: Any
    if group == "quantum link":
        system = QuantumLink(g2=0.7, J=0.3, temperature=temperature)
        fields = link_spins(lattice)
    else:
        system = GaugeFermions(group, kappa=0.6, temperature=temperature)
        fields = dict(link_rotors(lattice, 1, group, seed=1).fields)
    if not ehrenfest:
        return system, fields
    driver = EhrenfestLinks(system)
    return driver, driver.start(fields, lattice)


def dynamics(group: str, driver: Any, lattice: Lattice, dt: float) -> Any:
    """The integrator."""
    if group == "quantum link":
        return LinkSpins(dt, length=1.0)
    if isinstance(driver, EhrenfestLinks):
        return EhrenfestRotors(driver, lattice, dt, G2)
    return LinkRotors(dt, G2)


def advance(driver: Any, integrator: Any, fields: Fields, steps: int, lattice: Lattice) -> Fields:
    """Fields after some steps."""
    state = State(fields)
    result = simulate(driver, integrator, state, steps, lattice=lattice, progress=False)
    return dict(result.state.fields)


def energy(group: str, driver: Any, fields: Fields, lattice: Lattice) -> float:
    """The conserved energy."""
    rotors = 0.0 if group == "quantum link" else float(electric_energy(fields["E"], G2))
    return float(driver.energy(fields, lattice)) + rotors


def kept(
    group: str, ehrenfest: bool, lattice: Lattice, temperature: float, dt: float, steps: int
) -> dict[str, float]:
    """Largest deviations over a run."""
    driver, fields = case(group, ehrenfest, lattice, temperature)
    integrator, start = dynamics(group, driver, lattice, dt), energy(group, driver, fields, lattice)
    drift = gauss = broken = 0.0
    for _ in range(PIECES):
        fields = advance(driver, integrator, fields, steps // PIECES, lattice)
        drift = max(drift, abs(energy(group, driver, fields, lattice) - start))
        found = gauss_violation(fields["E"], fields["U"], lattice, fields.get("rho"))
        gauss = max(gauss, float(found))
        if group == "quantum link":
            length = torch.sqrt(fields["U"].abs() ** 2 + fields["E"] ** 2)
            broken = max(broken, float((length - 1).abs().max()))
        else:
            broken = max(broken, internal_group(group).violation(fields["U"]))
    return {"energy_drift": drift, "gauss_violation": gauss, "group_violation": broken}


def order(group: str, ehrenfest: bool) -> float:
    """Order of the integrator by step halving on 2 × 3 sites."""
    lattice = square(2, 3) if group == "quantum link" else square(2, 2)
    driver, fields = case(group, ehrenfest, lattice, 0.2)
    ends = [
        advance(driver, dynamics(group, driver, lattice, 0.8 / n), fields, n, lattice)["E"]
        for n in (16, 32, 64)
    ]
    errors = [float((a - b).norm()) for a, b in pairwise(ends)]
    return math.log2(errors[0] / errors[1])


def main() -> None:
    """Measure, print, and write the JSON beside this file."""
    torch.set_num_threads(1)
    lattice, dt, steps = square(4), 0.01, 1000
    rows = []
    for group, temperature in (("quantum link", 0.1), *((name, 0.02) for name in GROUPS)):
        for ehrenfest in (True, False):
            row: dict[str, Any] = {
                "links": group,
                "fermions": "ehrenfest" if ehrenfest else "adiabatic",
                "temperature": temperature,
                **kept(group, ehrenfest, lattice, temperature, dt, steps),
                "order": order(group, ehrenfest),
            }
            rows.append(row)
            print(row)
    found = {
        "lattice": str(lattice),
        "dt": dt,
        "steps": steps,
        "rows": rows,
        "hardware": hardware(),
    }
    out = Path(__file__).with_suffix(".json")
    out.write_text(json.dumps(found, indent=2) + "\n")
    print(f"wrote {out}")


if __name__ == "__main__":
    main()
