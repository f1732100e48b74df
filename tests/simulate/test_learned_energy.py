"""Potentials of learned force fields: their slopes are the forces; undamped runs keep them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from latticezoo.simulate import Energy, Langevin, create_system, initial, simulate
from latticezoo.simulate.observers import FunctionObserver
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.lattices import square
from latticezoo.zoo import create_model


def learned(name, target, model="energy_gnn"):
    system = create_system(name)
    torch.manual_seed(3)
    network = create_model(model, system.task(target=target), widths=[6, 6])
    return system.learned(network.double().eval())


@pytest.mark.parametrize(
    ("name", "target"), [("holstein_weak", "density"), ("holstein_strong", "force")]
)
def test_forces_are_slopes_of_the_learned_potential(name, target):
    field, lattice = learned(name, target), square(6)
    Q = initial.random(lattice, 2, amplitude=1.5, seed=4).fields["Q"]
    forces = field.forces({"Q": Q}, lattice)["Q"]
    assert field.energy({"Q": Q}, lattice).dtype == torch.float64
    for site in (0, 17):
        values = []
        for step in (1e-4, -1e-4):
            moved = Q.clone()
            moved[:, site, 0] += step
            values.append(field.energy({"Q": moved}, lattice))
        slope = (values[0] - values[1]) / 2e-4
        assert (slope + forces[:, site, 0]).abs().max() < 1e-7


def test_direct_networks_have_no_energy():
    field = learned("holstein_weak", "density", model="gcn")
    assert not hasattr(field, "energy")
    with pytest.raises(InputError, match="has no energy"):
        run_undamped(field, square(6), 0.1, 1)
    assert hasattr(learned("holstein_weak", "density"), "energy")


def run_undamped(field, lattice, dt, steps, observers=None):
    def kinetic(snapshot):
        return snapshot.state.momenta["Q"].square().sum((1, 2)) / 2

    start = initial.thermal(lattice, 2, temperature=0.3, seed=1)
    result = simulate(
        field,
        Langevin(dt, 0.0, 0.0),
        start,
        steps,
        lattice=lattice,
        observers=[Energy(), FunctionObserver(1, "kinetic", kinetic)],
        progress=False,
    )
    samples = result.observers
    return samples["energy"].values + samples["kinetic"].values


@pytest.mark.parametrize("kind", ["exact", "learned"])
def test_undamped_runs_keep_the_total_energy_to_second_order(kind):
    """Exact electrons on 8×8, and a network's own potential: error ~ dt², no drift."""
    exact = create_system("holstein_weak")
    field = exact if kind == "exact" else learned("holstein_weak", "density")
    lattice, errors = square(8), []
    for dt in (0.1, 0.05):
        total = run_undamped(field, lattice, dt, round(20 / dt)) / lattice.n_sites
        errors.append(np.abs(total - total[0]).max())
        half = len(total) // 2
        assert np.abs(total[half:].mean(0) - total[:half].mean(0)).max() < 0.5 * errors[-1]
    assert errors[0] < 3e-3
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.25)
