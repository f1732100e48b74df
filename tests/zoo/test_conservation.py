"""The fixed number of particles: a uniform shift in the place of the chemical potential."""

import dataclasses

import pytest
import torch

from latticezoo.simulate.systems import create_system
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.lattices import square
from latticezoo.symmetry.tasks import Task
from latticezoo.symmetry.testing import assert_equivariant
from latticezoo.zoo import create_model
from latticezoo.zoo.conservation import compensated, shifted, solve

TARGETS = [
    ("holstein_weak", "density"),
    ("holstein_strong", "density"),
    ("holstein_strong", "force"),
    ("jahn_teller_half_filled", "scaled_force"),
    ("jahn_teller_doped", "scaled_force"),
    ("jahn_teller_doped", "orbital"),
]


def exact(system, target):
    """States, labels at the fixed number, and the solver at fixed potential zero."""
    lattice = square(8)
    local = dataclasses.replace(system, chemical_potential=0.0)
    size = 0.4 * system.Q0
    generator = torch.Generator().manual_seed(1)
    channels = len(system.start_weights)
    Q = size * torch.randn(3, 64, channels, dtype=torch.float64, generator=generator)

    def evaluate(fields):
        return {target: local.labels(fields, lattice)[target]}

    return {"Q": Q}, system.labels({"Q": Q}, lattice), evaluate


@pytest.mark.parametrize(("name", "target"), TARGETS)
def test_a_uniform_shift_is_a_chemical_potential(name, target):
    system = create_system(name)
    fields, labels, evaluate = exact(system, target)
    rule, potential = system.task(target=target).conserved, labels["chemical_potential"]
    found = compensated(evaluate(shifted(fields, rule, potential)), rule, potential)
    torch.testing.assert_close(found[target], labels[target], rtol=0, atol=1e-11)


@pytest.mark.parametrize(("name", "target"), TARGETS)
def test_the_search_finds_the_number_of_particles(name, target):
    system = create_system(name)
    fields, labels, evaluate = exact(system, target)
    rule = system.task(target=target).conserved
    found = solve(evaluate, fields, rule)
    channel = rule.target_channel
    density = found.outputs[target] + rule.slope * fields["Q"]
    excess = density[..., channel].mean(1) - rule.mean
    assert float(excess.abs().max()) < 1e-12
    size = labels[target].abs().max()
    assert float((found.outputs[target] - labels[target]).abs().max() / size) < 5e-3


def _uniform(lattice):
    return {"Q": torch.zeros(1, lattice.n_sites, 1)}, lattice


def test_a_network_keeps_number_symmetry_and_independence_of_the_batch():
    task = create_system("holstein_strong").task()
    torch.manual_seed(3)
    network = create_model("lattice_enn", task, width=8, blocks=1).double().eval()
    assert network.conserved is not None
    with torch.no_grad():
        rising = network.at_potential(*_uniform(square(4)), torch.ones(1))["density"].mean()
        for projection in network.network.projections.values():
            projection.weight.mul_(rising.sign())  # more electrons at a higher potential
    lattice = square(4, 6)
    Q = 6 * torch.randn(4, 24, 1, dtype=torch.float64) + 1
    with torch.no_grad():
        together = network({"Q": Q}, lattice)["density"]
        alone = torch.cat([network({"Q": q}, lattice)["density"] for q in Q.split(1)])
        plain = network.at_potential({"Q": Q}, lattice, torch.zeros(4))["density"]
    assert float(plain.mean(1).abs().max()) > 1e-3  # there is something to correct
    assert float(together.mean(1).abs().max()) < 1e-12
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)
    assert_equivariant(network, task, lattice, tolerance=1e-10)


def test_a_small_uniform_displacement_moves_no_electrons():
    """Below the tolerance of the search too: the response at q = 0 is that of fixed number."""
    system = create_system("holstein_weak")
    fields, _, evaluate = exact(system, "density")
    rule = system.task().conserved
    flat = {"Q": torch.full_like(fields["Q"], 1e-6)}
    assert float(evaluate(flat)["density"].mean()) > 1e-9
    assert float(solve(evaluate, flat, rule).outputs["density"].abs().max()) < 1e-14


def test_a_system_at_fixed_potential_asks_for_no_number():
    network = create_model("lattice_enn", create_system("holstein_strong").task(), width=8)
    system = create_system("holstein_strong", chemical_potential=0.5)
    lattice, Q = square(6), 4 * torch.randn(2, 36, 1)
    forces = system.learned(network).forces({"Q": Q}, lattice)
    found = network.at_potential({"Q": Q}, lattice, torch.full((2,), 0.5))
    torch.testing.assert_close(forces, system.assemble(found, {"Q": Q}, lattice))


def test_training_takes_the_potential_from_the_data():
    task = create_system("holstein_strong").task()
    network = create_model("lattice_enn", task, width=8, blocks=1)
    lattice, Q = square(4), torch.randn(2, 16, 1)
    batch = {"fields": {"Q": Q}, "lattice": lattice, "chemical_potential": torch.tensor([0.7, 0.0])}
    found = network.training_outputs(batch)["density"]
    expected = network.at_potential({"Q": Q}, lattice, torch.tensor([0.7, 0.0]))["density"]
    assert torch.equal(found, expected)
    shift = 0.7 / 3.5
    zero = torch.zeros(1)
    moved = network.at_potential({"Q": Q[:1] + shift}, lattice, zero)["density"]
    torch.testing.assert_close(found[:1], moved)


def test_the_members_of_an_ensemble_train_at_the_potential_of_the_data_too(monkeypatch):
    """One evaluation a member and step: no search, which would hide the potential of the data."""
    task = create_system("holstein_strong").task()
    ensemble = create_model("lattice_enn", task, width=8, blocks=1, ensemble=2)
    lattice, Q = square(4), torch.randn(2, 16, 1)
    mu, targets = torch.tensor([0.7, 0.0]), {"density": torch.randn(2, 16, 1)}
    batch = {"fields": {"Q": Q}, "targets": targets, "lattice": lattice, "chemical_potential": mu}
    monkeypatch.setattr("latticezoo.zoo.base.solve", None)
    monkeypatch.setattr(ensemble, "log", lambda *args, **options: None)
    members = [m.loss(m.at_potential({"Q": Q}, lattice, mu), batch) for m in ensemble._each]
    assert torch.equal(ensemble.training_step(batch, 0), torch.stack(members).sum())


def test_what_cannot_conserve_says_so():
    task = create_system("holstein_strong").task()
    free = dataclasses.replace(task, conserved=None)
    assert create_model("gcn", free, conserve=True).conserved is None
    network = create_model("energy_gnn", task, conserve=True)
    with pytest.raises(InputError, match="no derivatives of the learned energy"):
        network({"Q": torch.zeros(1, 16, 1)}, square(4))
    assert not create_model("lattice_enn", task, output="energy").options["conserve"]


def test_a_task_keeps_its_rule():
    task = create_system("jahn_teller_doped").task()
    again = Task.from_dict(task.to_dict())
    assert again.conserved == task.conserved
    assert task == dataclasses.replace(task, conserved=None)
    assert create_system("holstein_strong", chemical_potential=0.0).task().conserved is None
