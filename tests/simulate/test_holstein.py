"""The exact Holstein model: published and closed-form numbers, forces, symmetries, refusals."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from latticezoo.simulate.describe import describe
from latticezoo.simulate.forcefield import ForceField
from latticezoo.simulate.systems import (
    create_system,
    from_parameters,
    holstein,
    list_systems,
)
from latticezoo.simulate.systems.holstein import Holstein, preset
from latticezoo.simulate.workers import close_workers
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.lattices import Lattice, chain, square, triangular
from latticezoo.symmetry.testing import assert_equivariant

WEAK = preset("holstein_weak")


def random_Q(lattice, batch=2, seed=0, scale=1.0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, lattice.n_sites, 1)
    return {"Q": scale * torch.randn(shape, dtype=torch.float64, generator=generator)}


def staggered(lattice, Q: float) -> dict[str, torch.Tensor]:
    return {"Q": Q * lattice.stagger[None, :, None]}


# ---- the charge-density wave -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kwargs", "L", "Q", "delta", "energy"),
    [
        ({}, 8, 2.342816, 0.445135, -1.222482),
        ({}, 12, 2.342828, 0.445137, -1.222481),
        ({"k": 1.0}, 12, 2.393494, 0.446785, -1.236500),
    ],
)
def test_charge_density_wave_minimizes_the_exact_energy(kwargs, L, Q, delta, energy):
    system, lattice = replace(WEAK, temperature=0.0, **kwargs), square(L)
    n = lattice.n_sites
    found = minimize_scalar(
        lambda x: system.energy(staggered(lattice, x), lattice).item() / n,
        bracket=(1.5, 2.3, 3.0),
        options={"xtol": 1e-8},
    )
    assert found.x == pytest.approx(Q, abs=1.1e-6)
    assert found.fun == pytest.approx(energy, abs=6e-7)
    fields = staggered(lattice, found.x)
    state = system.electrons(fields, lattice)
    excess = (state.density[0] - 0.5) * lattice.stagger
    assert excess.mean().item() == pytest.approx(delta, abs=6e-7)
    assert excess.std() < 1e-12
    gap = state.levels[0, n // 2] - state.levels[0, n // 2 - 1]
    assert gap.item() == pytest.approx(2 * system.g * found.x, abs=1e-10)
    # (k − 4κ) Q = g δn: the forces vanish.
    assert system.forces(fields, lattice)["Q"].abs().max() < 1e-6
    assert (system.k - 4 * system.kappa) * found.x == pytest.approx(system.g * delta, abs=3e-6)
    assert system.observables(fields, lattice)["order_parameter"].item() == pytest.approx(
        2 * delta, abs=2e-6
    )


def test_wave_in_units_of_g_over_k_and_by_the_gap_equation():
    """The self-consistency over k-space on a fine grid, against the diagonalized wave."""
    k = 2 * np.pi * np.arange(256) / 256
    band = -2 * (np.cos(k)[:, None] + np.cos(k))
    Q = 2.0
    for _ in range(200):
        x = WEAK.g * Q
        Q = WEAK.g / (WEAK.k - 4 * WEAK.kappa) * (x / (2 * np.sqrt(band**2 + x * x))).mean()
    assert pytest.approx(1.56969, abs=6e-6) == Q / WEAK.Q0
    assert pytest.approx(2.342828, abs=6e-7) == Q
    lattice = square(12)
    force = replace(WEAK, temperature=0.0).forces(staggered(lattice, Q), lattice)["Q"]
    assert force.abs().max() < 1e-6


def test_undistorted_metal():
    lattice = square(16)
    system = replace(WEAK, temperature=0.0)
    energy = system.energy(staggered(lattice, 0.0), lattice).item()
    assert energy / lattice.n_sites == pytest.approx(-0.8054419490, abs=1e-10)


# ---- regression values of a rough configuration ------------------------------------------------


@pytest.fixture
def rough():
    """4 × 4, Q_i = sin(1.3 i + 0.5), g = 1.5, eight electrons at T = 0.1."""
    system, lattice = Holstein(g=1.5, k=1.0, kappa=0.0, temperature=0.1), square(4)
    Q = torch.sin(1.3 * torch.arange(16, dtype=torch.float64) + 0.5)[None, :, None]
    return system, lattice, Q


def test_rough_configuration(rough):
    system, lattice, Q = rough
    state = system.electrons({"Q": Q}, lattice)
    expected = [0.70620758, 0.79241642, 0.45125736, 0.17560294]
    assert state.density[0, :4].tolist() == pytest.approx(expected, abs=5e-9)
    assert state.mu.item() == pytest.approx(-0.0165284089, abs=5e-11)
    assert state.band_energy.item() == pytest.approx(-15.5972449, abs=5e-8)
    assert state.free_energy.item() == pytest.approx(-15.7324509, abs=5e-8)
    assert state.density.sum().item() == pytest.approx(8, abs=1e-13)
    energy = system.energy({"Q": Q}, lattice)
    extra = 0.75 * Q.sum() + 0.5 * (Q * Q).sum()
    assert energy.item() == pytest.approx((state.free_energy + extra).item(), abs=1e-12)


def test_force_is_the_slope_of_the_free_energy_not_of_the_mean_energy(rough):
    system, lattice, Q = rough
    step = 1e-4

    def slope(name):
        moved = torch.cat([Q, Q])
        moved[0, 0] += step
        moved[1, 0] -= step
        up, down = getattr(system.electrons({"Q": moved}, lattice), name).tolist()
        return -(up - down) / (2 * step)

    n0 = system.electrons({"Q": Q}, lattice).density[0, 0].item()
    assert system.g * n0 == pytest.approx(1.0593114, abs=5e-8)
    assert slope("free_energy") == pytest.approx(1.0593113, abs=2e-7)
    assert slope("band_energy") == pytest.approx(1.0720127, abs=2e-7)


# ---- forces ------------------------------------------------------------------------------------

systems = st.builds(
    lambda g, k, ratio, T, mu, filling: Holstein(
        g=g, k=k, kappa=0.24 * k * ratio, temperature=T, chemical_potential=mu, filling=filling
    ),
    g=st.floats(0.2, 4),
    k=st.floats(0.5, 2),
    ratio=st.floats(-1, 1),
    T=st.floats(0.05, 1),
    mu=st.one_of(st.none(), st.floats(-2, 2)),
    filling=st.floats(0.1, 0.9),
)
lattices = st.sampled_from([square(4), chain(8)])


@settings(max_examples=25)
@given(system=systems, lattice=lattices, seed=st.integers(0, 2**31))
def test_forces_are_minus_the_gradient_of_the_energy(system, lattice, seed):
    """At fixed electron number A, at fixed μ Ω, on every site by central differences."""
    fields, step = random_Q(lattice, 1, seed), 1e-4
    n = lattice.n_sites
    moves = step * torch.eye(n, dtype=torch.float64)[..., None]
    energies = system.energy({"Q": fields["Q"] + torch.cat([moves, -moves])}, lattice)
    slope = -(energies[:n] - energies[n:]) / (2 * step)
    force = system.forces(fields, lattice)["Q"][0, :, 0]
    assert (force - slope).abs().max() < 1e-6


@settings(max_examples=25)
@given(system=systems, lattice=lattices, seed=st.integers(0, 2**31))
def test_sum_rule_of_the_forces(system, lattice, seed):
    """Σ F = g (N_e − N/2) − (k + zκ) Σ Q, as the electron number is what it is."""
    fields = random_Q(lattice, 3, seed)
    number = system.electrons(fields, lattice).n_electrons
    if system.chemical_potential is None:
        assert (number == system.filling * lattice.n_sites).all()
    total = system.forces(fields, lattice)["Q"].sum((1, 2))
    stiffness = system.k + 2 * lattice.dim * system.kappa
    expected = system.g * (number - lattice.n_sites / 2) - stiffness * fields["Q"].sum((1, 2))
    assert (total - expected).abs().max() < 1e-10


def test_sum_rule_at_half_filling():
    lattice = square(6)
    fields = random_Q(lattice)
    total = WEAK.forces(fields, lattice)["Q"].sum(1)
    expected = -(WEAK.k + 4 * WEAK.kappa) * fields["Q"].sum(1)
    assert (total - expected).abs().max() < 1e-12


# ---- symmetries --------------------------------------------------------------------------------


@pytest.mark.parametrize("lattice", [square(4), square(4, 6), chain(8)], ids=str)
@pytest.mark.parametrize("temperature", [0.1, 0.0])
def test_labels_have_the_full_symmetry_of_the_task(lattice, temperature):
    """All translations × point operations × particle–hole, to rounding."""
    system = replace(WEAK, temperature=temperature)
    for target in ("density", "force"):
        task = system.task(lattice.family, target)
        report = assert_equivariant(system.labels, task, lattice, tolerance=2e-13)
        assert report.exhaustive
        assert report.elements == len(task.symmetry(lattice))


def test_site_permutations_move_the_density_and_keep_the_energy():
    lattice, system = square(4), preset("holstein_strong")
    Q = random_Q(lattice, 1)["Q"]
    reference = system.labels({"Q": Q}, lattice)
    for point in lattice.operations:
        for translation in lattice.translations():
            to = lattice.permutation(point, translation)
            moved = torch.empty_like(Q)
            moved[:, to] = Q
            found = system.labels({"Q": moved}, lattice)
            assert (found["density"][:, to] - reference["density"]).abs().max() < 1e-13
            assert (found["energy"] - reference["energy"]).abs().max() < 1e-12


@settings(max_examples=25)
@given(
    g=st.floats(0.2, 4),
    temperature=st.floats(0.0, 1),
    mu=st.sampled_from([None, 0.0]),
    lattice=lattices,
    seed=st.integers(0, 2**31),
)
def test_particle_hole_symmetry(g, temperature, mu, lattice, seed):
    system = Holstein(g=g, k=1.0, kappa=0.2, temperature=temperature, chemical_potential=mu)
    assert system.has_particle_hole
    Q = random_Q(lattice, 1, seed)["Q"]
    found = system.labels({"Q": torch.cat([Q, -Q])}, lattice)
    assert (found["density"][0] + found["density"][1]).abs().max() < 2e-13
    assert (found["energy"][0] - found["energy"][1]).abs() < 1e-12
    assert (found["force"][0] + found["force"][1]).abs().max() < 1e-12


def test_particle_hole_symmetry_ends_away_from_half_filling():
    lattice = square(4)
    Q = random_Q(lattice, 1)["Q"]
    for system in (replace(WEAK, filling=0.4), replace(WEAK, chemical_potential=0.5)):
        assert not system.has_particle_hole
        assert system.task().flips == ()
        assert system.task().input("Q").odd == ()
        found = system.labels({"Q": torch.cat([Q, -Q])}, lattice)["density"]
        assert (found[0] + found[1]).abs().max() > 0.05
        assert_equivariant(system.labels, system.task(), lattice, tolerance=2e-13)


# ---- the harmonic lattice ----------------------------------------------------------------------


def test_harmonic_lattice_without_coupling():
    """g = 0: plane waves of stiffness K + 2κ Σ cos k_a, and ⟨Q²⟩ = 1.190470 T at κ = 0.18, L = 16.

    The mean square at temperature T is T times the mean inverse stiffness.
    """
    system, lattice = Holstein(g=0.0, k=1.0, kappa=0.18), square(16)
    unit = torch.zeros(1, 256, 1, dtype=torch.float64)
    unit[0, 0] = 1
    response = -system.forces({"Q": unit}, lattice)["Q"].reshape(16, 16)
    stiffness = torch.fft.fft2(response).real
    k = 2 * math.pi * torch.arange(16, dtype=torch.float64) / 16
    expected = 1 + 0.36 * (torch.cos(k)[:, None] + torch.cos(k))
    assert (stiffness - expected).abs().max() < 1e-13
    assert (1 / stiffness).mean().item() == pytest.approx(1.190470, abs=5e-7)

    x, y = lattice.positions.unbind(1)
    wave = torch.cos(k[3] * x - k[5] * y + 0.4)[None, :, None]
    energies = system.energy({"Q": torch.cat([wave, 0 * wave])}, lattice)
    elastic = 0.5 * expected[3, 5] * (wave * wave).sum()
    assert (energies[0] - energies[1]).item() == pytest.approx(elastic.item(), abs=1e-10)
    assert system.elastic_energy({"Q": wave}, lattice).item() == pytest.approx(elastic.item())
    force = system.forces({"Q": wave}, lattice)["Q"]
    assert (force + expected[3, 5] * wave).abs().max() < 1e-12


def test_elastic_energy_of_the_chain():
    lattice = chain(6)
    Q = random_Q(lattice, 2)["Q"]
    system = Holstein(g=1.0, k=1.3, kappa=-0.4)
    bonds = (Q * torch.roll(Q, -1, 1)).sum((1, 2))
    expected = 0.65 * (Q * Q).sum((1, 2)) - 0.4 * bonds
    assert (system.elastic_energy({"Q": Q}, lattice) - expected).abs().max() < 1e-13


# ---- batches, precision, processes -------------------------------------------------------------


def test_bits_of_a_replica_do_not_depend_on_its_company():
    lattice = square(6)
    fields = random_Q(lattice, 5)
    assert WEAK.batch_invariant == (not torch.cuda.is_available())
    whole = WEAK.labels(fields, lattice)
    for row in range(5):
        alone = WEAK.labels({"Q": fields["Q"][row : row + 1].clone()}, lattice)
        assert all(torch.equal(alone[name][0], whole[name][row]) for name in whole)
    try:
        spread = replace(WEAK, workers=2).labels(fields, lattice)
    finally:
        close_workers()
    assert all(torch.equal(spread[name], whole[name]) for name in whole)


def test_workers_are_no_part_of_the_physics():
    many = replace(WEAK, workers=4)
    assert many == WEAK
    assert describe(many) == describe(WEAK)
    assert describe(replace(WEAK, g=1.6)) != describe(WEAK)
    assert replace(WEAK, backend="lapack").batch_invariant
    assert not replace(WEAK, backend="torch").batch_invariant


def test_labels_are_double_precision_and_consistent():
    lattice = square(4)
    fields = random_Q(lattice, 3)
    labels = WEAK.labels({"Q": fields["Q"].float()}, lattice)
    assert {values.dtype for values in labels.values()} == {torch.float64}
    exact = WEAK.labels(fields, lattice)
    assert (labels["density"] - exact["density"]).abs().max() < 1e-6
    assert torch.equal(exact["force"], WEAK.forces(fields, lattice)["Q"])
    assert torch.equal(exact["energy"], WEAK.energy(fields, lattice))
    torch_labels = replace(WEAK, backend="torch").labels(fields, lattice)
    assert all((torch_labels[name] - exact[name]).abs().max() < 1e-12 for name in exact)


def test_observables():
    lattice = square(4)
    fields = random_Q(lattice, 3)
    found = WEAK.observables(fields, lattice)
    assert torch.equal(found["density"] - 0.5, WEAK.labels(fields, lattice)["density"])
    assert (found["order_parameter"] - found["local_order"].mean((1, 2))).abs().max() < 1e-15
    assert found["staggered_displacement"].shape == (3,)
    assert torch.equal(found["energy"], WEAK.energy(fields, lattice))


# ---- learned forces ----------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["density", "force"])
def test_a_perfect_network_gives_the_exact_forces(target):
    lattice = square(4)
    fields = random_Q(lattice, 2)

    def network(fields, lattice):
        return {target: WEAK.labels(fields, lattice)[target].requires_grad_()}

    learned = WEAK.learned(network)
    assert isinstance(learned, ForceField)
    forces, exact = learned.forces(fields, lattice), WEAK.forces(fields, lattice)
    assert torch.equal(forces["Q"], exact["Q"])
    assert not forces["Q"].requires_grad
    density = WEAK.electrons(fields, lattice).density[..., None]
    for force_field in (learned, WEAK):
        read = force_field.density_from_forces(fields, forces, lattice)
        assert (read - density).abs().max() < 1e-13
    single = {"Q": fields["Q"].float()}
    rough = WEAK.learned(lambda f, at: {target: exact["Q"].float()}).forces(single, lattice)
    assert rough["Q"].dtype == torch.float32


def test_network_that_predicts_something_else():
    with pytest.raises(InputError, match="got spin"):
        WEAK.assemble({"spin": torch.zeros(1, 16, 1)}, random_Q(square(4), 1), square(4))
    uncoupled = replace(WEAK, g=0.0)
    fields = random_Q(square(4), 1)
    with pytest.raises(InputError, match="g is 0"):
        uncoupled.density_from_forces(fields, fields, square(4))


# ---- parameters, tasks, names ------------------------------------------------------------------


def test_presets_and_units():
    assert WEAK.lambda_ == pytest.approx(0.2799, abs=5e-5)
    assert WEAK.kappa_ratio == pytest.approx(0.1791, abs=5e-5)
    assert WEAK.damping_ratio == pytest.approx(0.2)
    assert WEAK.tau0 == 1
    assert pytest.approx(1.5 / 1.005) == WEAK.Q0
    assert pytest.approx(1.5) == WEAK.P0
    strong = preset("holstein_strong")
    assert strong.lambda_ == pytest.approx(1.53, abs=2e-3)
    assert strong.damping / strong.mass == pytest.approx(0.2)
    assert strong.tau0 == pytest.approx(math.sqrt(5))
    assert strong.masses == {"Q": 5.0}


def test_systems_by_name():
    assert {"holstein", "holstein_strong", "holstein_weak"} <= set(list_systems())
    assert create_system("holstein_weak") == WEAK
    assert create_system("holstein_weak", temperature=0.05) == replace(WEAK, temperature=0.05)
    made = create_system("holstein", g=1.0, k=1.0, kappa=0.1)
    assert from_parameters({"system": made.name, **made.parameters}) == made
    with pytest.raises(InputError, match="did you mean holstein_weak"):
        create_system("holstein_weka")
    with pytest.raises(InputError, match="did you mean temperature"):
        create_system("holstein_weak", temprature=0.1)
    with pytest.raises(InputError, match=r"missing .* 'kappa'"):
        create_system("holstein", g=1.0, k=1.0)
    with pytest.raises(InputError, match="holstein_strong"):
        holstein.preset("strong")


def test_tasks():
    task = WEAK.task()
    assert (task.name, task.flips, task.conservative) == (
        "holstein_square",
        ("particle_hole",),
        (("density", "Q"),),
    )
    assert task.target("density").odd == ("particle_hole",)
    assert WEAK.task("chain", "force").conservative == (("force", "Q"),)
    assert replace(WEAK, chemical_potential=0.0, filling=0.3).task().flips == ("particle_hole",)
    with pytest.raises(InputError, match="did you mean density"):
        WEAK.task(target="densty")
    with pytest.raises(InputError, match="triangular"):
        WEAK.task("triangular")


# ---- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": -0.1}, "temperature is -0.1; it must be 0 or more"),
        ({"kappa": 0.6}, r"unstable: the chain needs k > 2 \|kappa\| = 1.2"),
        ({"kappa": -0.5025}, "unstable"),
        ({"filling": 0.0}, "filling is 0.0"),
        ({"filling": 1.2}, "filling is 1.2"),
        ({"mass": 0.0}, "mass is 0.0; it must be positive"),
        ({"k": -1.0}, "k is -1.0; it must be positive"),
        ({"damping": -1.0}, "damping is -1.0"),
        ({"g": math.nan}, "g is nan; it must be finite"),
        ({"g": "1.5"}, "g is '1.5'; it must be a number"),
        ({"chemical_potential": math.inf}, "chemical_potential is inf"),
    ],
)
def test_bad_parameters_are_named(changes, message):
    with pytest.raises(InputError, match=message):
        replace(WEAK, **changes)


def test_a_spring_that_is_stable_on_the_chain_alone():
    system = Holstein(g=1.0, k=1.0, kappa=0.3)
    assert system.forces(random_Q(chain(8)), chain(8))["Q"].isfinite().all()
    system.task("chain")
    message = r"unstable: the square needs k > 4 \|kappa\| = 1.2"
    with pytest.raises(InputError, match=message):
        system.forces(random_Q(square(4)), square(4))
    with pytest.raises(InputError, match=message):
        system.task("square")


@pytest.mark.parametrize(
    ("fields", "lattice", "message"),
    [
        ({}, square(4), "field 'Q' is missing; given: none"),
        ({"Q": torch.zeros(2, 9, 1)}, square(4), r"but they have shape \[2, 9, 1\]"),
        ({"Q": torch.full((1, 16, 1), math.nan)}, square(4), "16 NaN or infinite"),
        ({"Q": torch.zeros(1, 9, 1)}, triangular(3), "not on triangular"),
        ({"Q": torch.zeros(1, 8, 1)}, square(2, 4), "too small for nearest-neighbour hopping"),
    ],
)
def test_bad_fields_are_named(fields, lattice, message):
    with pytest.raises(InputError, match=message):
        WEAK.labels(fields, lattice)


def test_staggered_order_needs_even_sides_but_forces_do_not():
    lattice = Lattice("square", (4, 5))
    fields = random_Q(lattice, 1)
    with pytest.raises(InputError, match="odd period"):
        WEAK.observables(fields, lattice)
    assert WEAK.forces(fields, lattice)["Q"].isfinite().all()
