"""Fermions on gauge links: closed forms, symmetry, forces by finite differences, refusals."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from latticezoo.simulate.electrons.link_fermions import fermi_poles
from latticezoo.simulate.systems import create_system, from_parameters
from latticezoo.simulate.systems.gauge_fermions import TARGETS, GaugeFermions
from latticezoo.simulate.systems.quantum_link import TARGETS as LINK_TARGETS
from latticezoo.simulate.systems.quantum_link import QuantumLink
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.gauge import plaquettes, polyakov_loop, transform_links
from latticezoo.symmetry.internal import SU2
from latticezoo.symmetry.lattices import Lattice, square, triangular
from latticezoo.symmetry.testing import assert_equivariant, random_inputs

GROUPS = ("Z2", "U1", "SU2")
# Largest deviation of an energy per site from an equal one, as the rounding of a diagonalization.
EQUAL = 1e-12


def random_links(system, lattice: Lattice, batch: int = 1, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, lattice.n_sites, lattice.directions)
    return system.gauge_group.random(*shape, generator=generator, dtype=torch.float64)


def flat(lattice: Lattice) -> torch.Tensor:
    return torch.ones(1, lattice.n_sites, 2, dtype=torch.float64)


def full_flux(lattice: Lattice) -> torch.Tensor:
    """W = −1 everywhere: the links along y change sign on every other column."""
    links = flat(lattice).unflatten(1, lattice.shape).clone()
    links[:, 1::2, :, 1] = -1
    return links.flatten(1, 2)


def band(size: int, flux: bool, shift: float = 0.0) -> np.ndarray:
    """Levels of a torus with zero or full flux in closed form; ``shift`` 0.5 is antiperiodic."""
    n = np.arange(size)
    x, y = 2 * np.pi * (n + shift)[:, None] / size, 2 * np.pi * n[None] / size
    if not flux:
        return (-2 * (np.cos(x) + np.cos(y))).ravel()
    root = 2 * np.sqrt(np.cos(x) ** 2 + np.cos(y) ** 2)[: size // 2]
    return np.concatenate([root, -root]).ravel()


@pytest.mark.parametrize("flux", [False, True])
@pytest.mark.parametrize("temperature", [0.0, 0.1])
def test_energies_of_the_uniform_fluxes_are_those_of_their_bands(flux, temperature):
    # Antiperiodic around one side: no level at zero, so that T = 0 is allowed.
    lattice = square(8)
    system = GaugeFermions("Z2", temperature=temperature, antiperiodic=(True, False))
    links = full_flux(lattice) if flux else flat(lattice)
    found = system.observables({"U": links}, lattice)
    levels = band(8, flux, 0.5)
    torch.testing.assert_close(found["levels"][0].numpy(), np.sort(levels), atol=1e-12, rtol=0)
    if temperature:
        expected = -temperature * np.log1p(np.exp(-levels / temperature)).sum()
    else:
        expected = levels[levels < 0].sum()
    assert float(found["energy"]) == pytest.approx(expected, abs=1e-11)


def test_the_flux_of_pi_wins():
    n = 4000
    zero = -16 / math.pi**2 / 2
    levels = band(n, True, 0.5)
    pi = levels[levels < 0].mean() / 2
    assert zero == pytest.approx(-0.8105695, abs=1e-7)
    assert pi == pytest.approx(-0.9581, abs=5e-5)
    system, lattice = GaugeFermions("Z2", temperature=0.0, antiperiodic=(True, False)), square(24)
    for links, limit in ((flat(lattice), zero), (full_flux(lattice), pi)):
        found = system.energy({"U": links}, lattice) / lattice.n_sites
        assert float(found) == pytest.approx(limit, abs=3e-3)


def test_half_filled_square_at_finite_temperature():
    for size, expected in ((8, -0.7908445073), (16, -0.8041015669)):
        lattice = square(size)
        found = GaugeFermions("U1", temperature=0.1).observables(
            {"U": flat(lattice).to(torch.complex128)}, lattice
        )
        assert float(found["band_energy"]) / size**2 == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize(
    ("group", "mean", "spread"), [("Z2", -0.871, 0.011), ("U1", -0.871, 0.006)]
)
def test_random_links_have_a_narrow_spread_of_energies(group, mean, spread):
    lattice, system = square(8), GaugeFermions(group, temperature=0.001)
    energy = system.energy({"U": random_links(system, lattice, 60)}, lattice) / lattice.n_sites
    assert float(energy.mean()) == pytest.approx(mean, abs=4 * spread / math.sqrt(60) + 5e-4)
    assert float(energy.std()) == pytest.approx(spread, rel=0.4)


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("mass", [0.0, 0.5])
def test_labels_keep_the_full_symmetry(group, mass):
    system = GaugeFermions(group, temperature=0.1, mass=mass)
    task = system.task("square", ",".join(TARGETS[group]))
    lattice = square(4) if mass == 0 else square(2, 4)
    report = assert_equivariant(system.labels, task, lattice, batch=1, n_random=6, tolerance=1e-12)
    assert report.elements > 60 if mass == 0 else report.elements > 30


def test_labels_of_the_quantum_link_model_keep_the_full_symmetry():
    system = QuantumLink(temperature=0.1)
    task = system.task("square", ",".join(LINK_TARGETS))
    assert_equivariant(system.labels, task, square(4), batch=1, n_random=6, tolerance=1e-12)


def test_antiperiodic_boundaries_are_a_polyakov_sector():
    # Invariant labels do not see where the boundary lies: the task keeps all translations.
    system = GaugeFermions("U1", temperature=0.1, antiperiodic=(True, True))
    assert_equivariant(system.labels, system.task("square", "bond,current"), square(4), batch=1)
    lattice = square(4, 6)
    links = random_links(system, lattice)
    moved = links.unflatten(1, lattice.shape).clone()
    moved[:, 1, :, 0] *= -1
    moved[:, :, 3, 1] *= -1
    moved = moved.flatten(1, 2)
    plain = replace(system, antiperiodic=(False, False))
    left, right = (
        s.labels({"U": u}, lattice, ("bond", "current"))
        for s, u in ((system, links), (plain, moved))
    )
    for name in left:
        torch.testing.assert_close(left[name], right[name], atol=1e-12, rtol=0)


@pytest.mark.parametrize("group", GROUPS)
def test_energies_are_invariant_under_local_transformations(group):
    system = GaugeFermions(group, temperature=0.05, kappa=0.4)
    lattice = square(4, 5)
    links = random_links(system, lattice, 3)
    elements = system.gauge_group.random(
        lattice.n_sites, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    moved = transform_links(links, elements, lattice)
    change = system.energy({"U": moved}, lattice) - system.energy({"U": links}, lattice)
    assert float(change.abs().max()) / lattice.n_sites < EQUAL


@pytest.mark.parametrize("temperature", [0.2, 0.02])
def test_flip_costs_equal_a_second_diagonalization(temperature):
    system = GaugeFermions("Z2", temperature=temperature, kappa=0.3, chemical_potential=0.1)
    for lattice in (square(4), square(2, 3)):
        links = random_links(system, lattice)
        force = system.forces({"U": links}, lattice)["U"]
        base = system.energy({"U": links}, lattice)
        for site in range(lattice.n_sites):
            for way in range(2):
                flipped = links.clone()
                flipped[0, site, way] *= -1
                cost = system.energy({"U": flipped}, lattice) - base
                assert float(-force[0, site, way]) == pytest.approx(float(cost), abs=1e-11)


def test_poles_of_the_fermi_function_sum_to_it():
    y, residues = fermi_poles(500.0)
    x = np.linspace(-500, 500, 777)
    found = 0.5 - (2 * x[:, None] / (x[:, None] ** 2 + y**2)) @ residues
    np.testing.assert_allclose(found, 0.5 - 0.5 * np.tanh(x / 2), atol=2e-13)
    assert len(y) < 100


@pytest.mark.parametrize("group", ["U1", "SU2"])
def test_forces_equal_finite_differences(group):
    system = GaugeFermions(group, temperature=0.1, kappa=0.7, mass=0.3, chemical_potential=0.2)
    lattice = square(2, 4)
    links = random_links(system, lattice)
    force = system.forces({"U": links}, lattice)["E"]
    step = 1e-4
    for site, way in ((0, 0), (3, 1), (7, 0), (5, 1)):
        for component in range(1 if group == "U1" else 3):
            energies = []
            for sign in (1, -1):
                turn = system.gauge_group.identity(1, lattice.n_sites, 2, dtype=torch.float64)
                if group == "U1":
                    turn[0, site, way] = complex(math.cos(step), sign * math.sin(step))
                else:
                    axis = torch.eye(3, dtype=torch.float64)[component]
                    turn[0, site, way] = torch.linalg.matrix_exp(
                        1j * sign * step * SU2.matrix(axis)
                    )
                moved = system.gauge_group.compose(turn, links)
                energies.append(float(system.energy({"U": moved}, lattice)))
            slope = (energies[0] - energies[1]) / (2 * step)
            found = force[0, site, way] if group == "U1" else force[0, site, way, component]
            assert float(found) == pytest.approx(-slope, abs=1e-7)


def test_the_field_on_link_spins_equals_finite_differences():
    system, lattice = QuantumLink(J=0.4, temperature=0.1, length=1.3), square(2, 4)
    fields = link_spins(lattice, 1.3)
    forces = system.forces(fields, lattice)
    step = 1e-5
    for site, way in ((0, 0), (5, 1)):
        for name, shift in (("U", step), ("U", 1j * step), ("E", step)):
            found = forces[name][0, site, way]
            found = found.imag if isinstance(shift, complex) else torch.real(found)
            energies = []
            for sign in (1, -1):
                moved = {key: value.clone() for key, value in fields.items()}
                moved[name][0, site, way] += sign * shift
                # The derivative is taken without the constraint on the length.
                electrons = system.electrons(moved["U"], lattice).energy
                energies.append(float(electrons + system.link_energy(moved, lattice)))
            slope = (energies[0] - energies[1]) / (2 * step)
            assert float(found) == pytest.approx(-slope, abs=1e-7)


def link_spins(lattice: Lattice, length: float = 1.0, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (1, lattice.n_sites, 2)
    electric = length * (2 * torch.rand(shape, generator=generator).double() - 1)
    phase = 2 * math.pi * torch.rand(shape, generator=generator).double()
    return {"U": torch.polar(torch.sqrt(length**2 - electric**2), phase), "E": electric}


@pytest.mark.parametrize("group", GROUPS)
def test_sum_rules(group):
    system, lattice = GaugeFermions(group, temperature=0.3, mass=0.4), square(4)
    fields = {"U": random_links(system, lattice, 2)}
    labels, seen = system.labels(fields, lattice), system.observables(fields, lattice)
    sign = lattice.stagger[None, :, None]
    bonds = -2 * labels["bond"].sum((1, 2)) + 0.4 * (sign * labels["density"]).sum((1, 2))
    torch.testing.assert_close(bonds, seen["band_energy"])
    torch.testing.assert_close(labels["energy_density"].sum((1, 2)), seen["band_energy"])
    torch.testing.assert_close(labels["energy"], seen["band_energy"] - 0.3 * seen["entropy"])
    # Particle–hole symmetry at μ = 0.
    total = labels["density"].sum((1, 2))
    torch.testing.assert_close(total, torch.full_like(total, 8.0 * system.colours))
    spectrum = labels["local_density_of_states"].sum(-1) * (9 / 63)
    assert float((spectrum / system.colours - 1).abs().max()) < 0.06  # Lorentzian tails


def test_plaquettes_alone_do_not_fix_the_labels():
    system, lattice = GaugeFermions("Z2"), square(6)
    links = random_links(system, lattice)
    other = links.unflatten(1, lattice.shape).clone()
    other[:, 0, :, 0] *= -1
    other = other.flatten(1, 2)
    torch.testing.assert_close(plaquettes(links, lattice), plaquettes(other, lattice))
    assert not torch.equal(polyakov_loop(links, lattice, 1), polyakov_loop(other, lattice, 1))
    first, second = (system.labels({"U": u}, lattice, ("bond",))["bond"] for u in (links, other))
    assert float((first - second).std()) > 1e-3


def test_currents_have_no_sources():
    system, lattice = GaugeFermions("U1", temperature=0.1), square(4, 5)
    current = system.labels({"U": random_links(system, lattice)}, lattice, ("current",))["current"]
    inflow = torch.zeros(1, lattice.n_sites, dtype=torch.float64)
    for way in range(2):
        inflow = inflow.index_add(1, lattice.link_target[:, way], current[..., way])
    torch.testing.assert_close(inflow, current.sum(2), atol=1e-13, rtol=0)


def test_processes_change_no_bit():
    lattice = square(4)
    for group in GROUPS:
        system = create_system(f"{group.lower()}_fermions")
        fields = {"U": random_links(system, lattice, 3)}
        one = system.labels(fields, lattice)
        two = replace(system, workers=2).labels(fields, lattice)
        assert all(torch.equal(one[name], two[name]) for name in one)
        alone = system.labels({"U": fields["U"][1:2]}, lattice)
        assert all(torch.equal(one[name][1:2], alone[name]) for name in one)


def test_predictions_become_the_forces():
    lattice = square(4)
    for group, target in (
        ("Z2", "flip_cost"),
        ("U1", "current"),
        ("U1", "force"),
        ("SU2", "force"),
    ):
        system = GaugeFermions(group, kappa=0.5, temperature=0.1)
        fields = {"U": random_links(system, lattice)}
        learned = system.learned(partial(system.labels, names=(target,)))
        (found,), (exact,) = (s.forces(fields, lattice).values() for s in (learned, system))
        torch.testing.assert_close(found, exact)
    system, fields = QuantumLink(temperature=0.1), link_spins(lattice)
    learned = system.learned(system.labels).forces(fields, lattice)
    for name, force in system.forces(fields, lattice).items():
        torch.testing.assert_close(learned[name], force)


def test_parameters_make_the_system_again():
    for system in (GaugeFermions("SU2", kappa=0.2, antiperiodic=(True, True)), QuantumLink(g2=0.5)):
        assert from_parameters({"system": system.name, **system.parameters}) == system


def test_refusals():
    lattice = square(4)
    z2, u1 = GaugeFermions("Z2"), GaugeFermions("U1")
    ones = flat(lattice)
    with pytest.raises(InputError, match="antiperiodic boundaries around that one side"):
        GaugeFermions("Z2", temperature=0.0).energy({"U": ones}, lattice)
    with pytest.raises(InputError, match=r"square\(3, 4\) has an odd side"):
        GaugeFermions("Z2", mass=0.1).energy({"U": flat(square(3, 4))}, square(3, 4))
    with pytest.raises(InputError, match=r"largest deviation is 0\.1"):
        z2.energy({"U": 1.1 * ones}, lattice)
    with pytest.raises(InputError, match=r"not in the group U1: the largest deviation is 0\.2"):
        u1.energy({"U": 1.2 * ones.to(torch.complex128)}, lattice)
    with pytest.raises(InputError, match="laid out for Z2, not for U1"):
        u1.energy({"U": ones}, lattice)
    with pytest.raises(InputError, match="needs values of shape"):
        z2.energy({"U": ones[..., :1]}, lattice)
    with pytest.raises(InputError, match="flip costs need a temperature above 0"):
        GaugeFermions("Z2", temperature=0.0).labels({"U": ones}, lattice, ("flip_cost",))
    with pytest.raises(InputError, match="did you mean bond"):
        z2.task("square", "bnod")
    with pytest.raises(InputError, match="exchanges the sides"):
        GaugeFermions("Z2", antiperiodic=(True, False)).task()
    with pytest.raises(InputError, match="lives on square lattices"):
        z2.energy({"U": torch.ones(1, 9, 3)}, triangular(3))
    with pytest.raises(InputError, match="unknown gauge group 'SU3'"):
        GaugeFermions("SU3")
    spins = link_spins(lattice)
    with pytest.raises(InputError, match=r"electric field reaches 1\.5, beyond the length S = 1"):
        QuantumLink().energy({**spins, "E": torch.full_like(spins["E"], 1.5)}, lattice)
    with pytest.raises(InputError, match="lengths that deviate from S = 1"):
        QuantumLink().energy({**spins, "E": 0.5 * spins["E"]}, lattice)
    inputs = random_inputs(u1.task("square"), square(2))
    with pytest.raises(InputError, match="sublattice"):
        replace(u1, mass=0.1).labels({**inputs, "sublattice": torch.ones(1, 4)}, square(2))
