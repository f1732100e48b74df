"""Heisenberg magnets: energies bond by bond, fields as derivatives, ground states, symmetry."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from latticezoo.simulate import spin_states
from latticezoo.simulate.dynamics.llg import LLG
from latticezoo.simulate.run import simulate
from latticezoo.simulate.spin_observables import topological_charge
from latticezoo.simulate.systems import create_system, from_parameters
from latticezoo.simulate.systems.heisenberg import Heisenberg
from latticezoo.simulate.systems.spin_system import TARGET, perpendicular
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.lattices import square, triangular
from latticezoo.symmetry.testing import assert_equivariant

ALL = Heisenberg((1.0, -0.4, 0.2), 0.3, (1, 2, 2), 0.5, "interfacial", (0.1, -0.2, 0.3))
LATTICES = [square(5, 6), triangular(6, 5)]
finite = st.floats(-2, 2)


def random_spins(lattice, replicas=2, seed=0):
    return spin_states.random_spins(lattice, replicas, seed=seed).fields["S"]


def bond_by_bond(system, spins, lattice):
    """The energy of the class docstring, every pair visited once from each end."""
    energy = -(spins @ spins.new_tensor(system.zeeman)).sum(1)
    axis = spins.new_tensor(system.axis) / spins.new_tensor(system.axis).norm()
    energy = energy - system.anisotropy * (spins @ axis).square().sum(1)
    for J, shell in zip(system.exchange, lattice.shells(count=3)[1:], strict=False):
        around = spins[:, lattice.neighbours(shell)]
        energy = energy - 0.5 * J * (spins[:, :, None] * around).sum((1, 2, 3))
    shell = lattice.shells(count=1)[1]
    for column, (x, y) in enumerate(shell.vectors):
        D = (-y, x, 0.0) if system.dmi_kind == "interfacial" else (x, y, 0.0)
        other = spins[:, lattice.neighbours(shell)[:, column]]
        product = torch.linalg.cross(spins, other) @ spins.new_tensor(D)
        energy = energy + 0.5 * system.dmi * product.sum(1)
    return energy


@settings(max_examples=25)
@given(
    exchange=st.lists(finite, min_size=0, max_size=3),
    anisotropy=finite,
    axis=st.sampled_from([(0, 0, 1), (1, 2, 2), (-3, 0, 1)]),
    dmi=finite,
    kind=st.sampled_from(["interfacial", "bulk"]),
    zeeman=st.tuples(finite, finite, finite),
    lattice=st.sampled_from(LATTICES),
)
def test_energy_and_fields(exchange, anisotropy, axis, dmi, kind, zeeman, lattice):
    """Energies are the sums over bonds; fields are minus their differences, in every term."""
    system = Heisenberg(exchange, anisotropy, axis, dmi, kind, zeeman)
    spins = random_spins(lattice)
    found = system.energy({"S": spins}, lattice)
    torch.testing.assert_close(found, bond_by_bond(system, spins, lattice), rtol=1e-12, atol=1e-11)
    fields = system.forces({"S": spins}, lattice)["S"]
    step = 1e-5 * torch.randn(spins.shape, generator=torch.Generator().manual_seed(1)).double()

    def energy(values):  # the check of lengths does not let shifted spins pass
        return system.interaction_energy(values, lattice) + system.zeeman_energy(values)

    change = energy(spins + step) - energy(spins - step)
    torch.testing.assert_close(change, -2 * (fields * step).sum((1, 2)), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("lattice", LATTICES, ids=str)
def test_ground_states(lattice):
    """Ferromagnet −zJ/2, and the energies of spirals: −ΣJ cos q·r, with D a sine on top."""
    neighbours = lattice.shells(count=1)[1].size
    up = spin_states.ferromagnet(lattice, axis=(0, 0, 1)).fields
    system = Heisenberg((2.0,), 0.3, zeeman=(0, 0, 0.1))
    per_site = float(system.energy(up, lattice)) / lattice.n_sites
    assert per_site == pytest.approx(-neighbours - 0.3 - 0.1)
    # A cycloid in the plane of z and the wave vector, along the first lattice direction.
    q = 2 * math.pi / lattice.shape[0]
    wave = torch.linalg.solve(torch.from_numpy(lattice.vectors), torch.tensor([q, 0.0]).double())
    along = wave / wave.norm()
    spins = spin_states.spiral(
        lattice, q=wave.tolist(), plane=((0, 0, 1), (*along.tolist(), 0.0))
    ).fields
    bonds = torch.from_numpy(lattice.shells(count=1)[1].vectors)
    cosines, sines = (bonds @ wave).cos().sum(), ((bonds @ along) * (bonds @ wave).sin()).sum()
    chiral = Heisenberg((1.0,), dmi=0.7)
    expected = -0.5 * cosines + 0.5 * 0.7 * sines
    assert float(chiral.energy(spins, lattice)) / lattice.n_sites == pytest.approx(float(expected))


def test_the_triangular_antiferromagnet_orders_at_120_degrees():
    """E/N = −3/2 |J|, no torque; and damped dynamics from a disturbed state finds it."""
    lattice, system = triangular(6), create_system("heisenberg_triangular")
    spins = spin_states.three_sublattice(lattice).fields
    assert float(system.energy(spins, lattice)) / 36 == pytest.approx(-1.5)
    torque = torch.linalg.cross(spins["S"], system.forces(spins, lattice)["S"])
    assert float(torque.abs().max()) < 1e-14
    start = spin_states.three_sublattice(lattice, noise=0.2, seed=1)
    end = simulate(system, LLG(0.1, 0.0, 0.5), start, 300, lattice=lattice, progress=False).state
    assert float(system.energy(end.fields, lattice)) / 36 == pytest.approx(-1.5, abs=1e-4)


def test_a_skyrmion_of_the_preset_is_stable():
    """Relaxed at T = 0 it keeps its charge and all torques die out, below the ferromagnet."""
    lattice, system = square(20), create_system("skyrmion_dmi")
    start = spin_states.skyrmion(lattice, radius=4.0, noise=0.1, seed=2)
    end = simulate(system, LLG(0.1, 0.0, 1.0), start, 600, lattice=lattice, progress=False).state
    spins = end.fields["S"]
    assert float(topological_charge(spins, lattice)) == pytest.approx(-1, abs=1e-9)
    torque = perpendicular(system.forces(end.fields, lattice)["S"], spins)
    assert float(torque.norm(dim=-1).max()) < 1e-3
    ferromagnet = spin_states.ferromagnet(lattice).fields
    assert float(system.energy(end.fields, lattice)) < float(system.energy(ferromagnet, lattice))


# ------------------------------------------------------------------ symmetry


@pytest.mark.parametrize(
    ("family", "lattice"), [("square", square(6)), ("triangular", triangular(6))]
)
def test_pure_exchange_has_the_symmetry_of_the_task(family, lattice):
    """SO(3) × space group × time reversal, and a Zeeman field does not count."""
    system = Heisenberg((1.0, -0.5), zeeman=(0, 0, 1))

    def labels(fields, lattice):
        return {TARGET: system.labels(fields, lattice)[TARGET]}

    fields = {"S": random_spins(lattice)}
    task = system.task(family)
    assert assert_equivariant(labels, task, lattice, fields=fields).error < 1e-12
    assert set(labels(fields, lattice)) == {task.targets[0].name}


@pytest.mark.parametrize(
    ("system", "sentence"),
    [
        (Heisenberg(dmi=0.1), "dmi = 0.1 couples spins to the directions of the lattice"),
        (Heisenberg(anisotropy=0.2), "anisotropy 0.2 singles out the axis (0.0, 0.0, 1.0)"),
    ],
)
def test_the_task_is_refused_where_spins_cannot_turn(system, sentence):
    with pytest.raises(InputError) as caught:
        system.task("square")
    assert sentence in str(caught.value)
    fields = {"S": random_spins(square(6))}
    with pytest.raises(AssertionError):
        assert_equivariant(
            lambda f, lattice: {TARGET: system.labels(f, lattice)[TARGET]},
            Heisenberg().task("square"),
            square(6),
            fields=fields,
        )


@pytest.mark.parametrize("kind", ["interfacial", "bulk"])
@pytest.mark.parametrize("lattice", [square(6), triangular(6)], ids=str)
def test_spins_and_lattice_turn_together(kind, lattice):
    """With D the energy is kept by every rotation of both; mirrors keep the interfacial kind."""
    system, spins = Heisenberg(dmi=0.5, dmi_kind=kind, anisotropy=0.2), random_spins(lattice)
    before = system.energy({"S": spins}, lattice)
    changed = 0
    for point in lattice.operations:
        matrix = torch.tensor(lattice.point_group.matrices[point])
        determinant = float(torch.linalg.det(matrix))
        axial = torch.eye(3, dtype=torch.float64)
        axial[:2, :2] = determinant * matrix  # of a pseudovector
        axial[2, 2] = determinant
        image = torch.empty_like(spins)
        image[:, lattice.permutation(point)] = spins @ axial.T
        kept = torch.allclose(system.energy({"S": image}, lattice), before, atol=1e-10)
        assert kept or (kind == "bulk" and determinant < 0)
        changed += not kept
    assert changed == (0 if kind == "interfacial" else len(lattice.operations) // 2)


# ------------------------------------------------------------------ precision and batches


def test_precision_and_batches():
    """Fields in the precision of the spins, energies in float64; no bit depends on the batch."""
    lattice = triangular(7, 5)
    spins = random_spins(lattice, 3)
    single = ALL.forces({"S": spins.float()}, lattice)["S"]
    assert single.dtype == torch.float32
    double = ALL.forces({"S": spins}, lattice)["S"]
    torch.testing.assert_close(single.double(), double, rtol=0, atol=1e-5)
    assert ALL.energy({"S": spins.float()}, lattice).dtype == torch.float64
    for row in range(3):
        alone = {"S": spins[row : row + 1].clone()}
        assert torch.equal(ALL.forces(alone, lattice)["S"], double[row : row + 1])
        assert torch.equal(
            ALL.energy(alone, lattice), ALL.energy({"S": spins}, lattice)[row : row + 1]
        )


# ------------------------------------------------------------------ parameters


def test_parameters_make_the_same_system():
    assert from_parameters({"system": "heisenberg", **ALL.parameters}) == ALL
    assert from_parameters({"system": "heisenberg", "exchange": [1, 0.5]}) == Heisenberg((1.0, 0.5))
    assert create_system("skyrmion_dmi", dmi=0.3) == replace(create_system("skyrmion_dmi"), dmi=0.3)


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: Heisenberg(exchange=("a",)), "exchange is ('a',)"),
        (lambda: Heisenberg(exchange=(math.nan,)), "exchange is (nan,)"),
        (lambda: Heisenberg(anisotropy=math.inf), "anisotropy is"),
        (lambda: Heisenberg(dmi="strong"), "dmi is"),
        (lambda: Heisenberg(axis=(0, 0, 0)), "has no direction"),
        (lambda: Heisenberg(zeeman=(0, 1)), "zeeman is (0, 1); it must be 3 finite numbers"),
        (lambda: Heisenberg(dmi_kind="blk"), "did you mean bulk?"),
        (lambda: create_system("heisenberg", exchnge=(1.0,)), "did you mean exchange?"),
        (lambda: ALL.energy({"S": 2 * random_spins(square(6))}, square(6)), "has length 2"),
        (lambda: ALL.energy({"S": random_spins(square(4))}, square(4)), "too small"),
        (lambda: ALL.energy({"S": math.nan * random_spins(square(6))}, square(6)), "NaN"),
        (lambda: Heisenberg().task("honeycomb"), "honeycomb"),
        (lambda: Heisenberg().task("square", "force"), "force"),
    ],
)
def test_bad_input(build, sentence):
    with pytest.raises(InputError) as caught:
        build()
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
