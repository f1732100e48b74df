"""The exact Jahn–Teller model: published and closed-form numbers, forces, symmetries, refusals."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from latticezoo.simulate.dynamics.langevin import Langevin
from latticezoo.simulate.forcefield import ForceField
from latticezoo.simulate.initial import random
from latticezoo.simulate.observables import correlation_function, structure_factor
from latticezoo.simulate.observers import CorrelationFunction, OrderParameter, StructureFactor
from latticezoo.simulate.run import simulate
from latticezoo.simulate.systems import create_system, from_parameters, list_systems
from latticezoo.simulate.systems.jahn_teller import BREATHING, QX, QZ, JahnTeller
from latticezoo.simulate.workers import close_workers
from latticezoo.symmetry.elements import Element
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.fields import transform
from latticezoo.symmetry.lattices import Lattice, chain, square
from latticezoo.symmetry.testing import assert_equivariant

HALF = create_system("jahn_teller_half_filled")
DOPED = create_system("jahn_teller_doped")
#: As published: the coupling of Q^A to n, so that its rest position is η = g/(βk) = 0.54.
PUBLISHED = replace(HALF, reference_density=0.0)


def random_Q(lattice, batch=2, seed=0, scale=1.0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, lattice.n_sites, 3)
    return {"Q": scale * torch.randn(shape, dtype=torch.float64, generator=generator)}


def pattern(lattice, breathing=0.0, z=0.0, x=0.0) -> dict[str, torch.Tensor]:
    """One configuration from the three modes, numbers or one value a site."""
    modes = [torch.as_tensor(m, dtype=torch.float64) for m in (breathing, z, x)]
    return {"Q": torch.stack([m.expand(lattice.n_sites) for m in modes], -1)[None]}


def relaxed(system, fields, lattice) -> dict[str, torch.Tensor]:
    """The self-consistent state of the symmetry of the start: Q = (g/stiffness)(n − n0, τ)."""
    stiffness = torch.tensor([system.beta * system.k, system.k, system.k], dtype=torch.float64)
    for _ in range(100):
        force = system.forces(fields, lattice)["Q"]
        if force.abs().max() < 1e-10:
            return fields
        fields = {"Q": fields["Q"] + force / stiffness}
    raise AssertionError("the self-consistency did not converge")


# ---- ordered states ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("L", "delta"), [(8, 0.50206), (10, 0.28708), (12, 0.44341), (16, 0.42117)]
)
def test_c_type_order(L, delta):
    """Staggered Q^x, Q^z = 0, Q^A = η: all forces vanish at ⟨τ⟩ = (K/λ) Q^E (Eqs. 7.56, 7.69)."""
    lattice = square(L)
    eta = PUBLISHED.rest_position
    assert eta == pytest.approx(0.54, abs=1e-15)

    def force(x: float) -> float:
        fields = pattern(lattice, eta, 0.0, x * lattice.stagger)
        return (PUBLISHED.forces(fields, lattice)["Q"][0, :, QX] * lattice.stagger).mean().item()

    found = brentq(force, 0.15, 0.8, xtol=1e-12)
    assert found == pytest.approx(delta, abs=6e-6)
    fields = pattern(lattice, eta, 0.0, found * lattice.stagger)
    assert PUBLISHED.forces(fields, lattice)["Q"].abs().max() < 1e-11
    seen = PUBLISHED.observables(fields, lattice)
    assert (seen["density"] - 1).abs().max() < 1e-12
    tau = (seen["orbital"][0, :, QX] * lattice.stagger).mean().item()
    assert tau == pytest.approx(PUBLISHED.k / PUBLISHED.g * found, abs=1e-11)
    # φ is 2δ in the perfect state (Eq. 7.70), S(π, π) = δ², C(r) = (−1)^r.
    assert seen["order_parameter"].item() == pytest.approx(2 * found, abs=1e-12)
    assert seen["staggered_displacement"][0].tolist() == pytest.approx([0, 0, found], abs=1e-12)
    Qx = fields["Q"][..., QX:]
    factor = structure_factor(Qx, lattice)
    assert factor[0, L // 2, L // 2].item() == pytest.approx(found**2, abs=1e-12)
    assert factor.sum().item() == pytest.approx(found**2, abs=1e-12)
    correlation = correlation_function(Qx, lattice, connected=False)[0]
    assert (correlation - (-1.0) ** torch.arange(L // 2 + 1)).abs().max() < 1e-12


def test_c_type_order_in_k_space():
    """δ = 0.40661, ⟨τ^x⟩ = 0.37649 and gap 0.880 of the infinite lattice, by 4 × 4 blocks h(k)."""
    k = 2 * np.pi * (np.arange(96) + 0.5) / 96
    kx, ky = (a.ravel() for a in np.meshgrid(k, k))
    mixed = 1 / math.sqrt(3)
    tx, ty = (np.array([[1, s * mixed], [s * mixed, 1 / 3]]) for s in (-1, 1))
    hop = -2 * (np.cos(kx)[:, None, None] * tx + np.cos(ky)[:, None, None] * ty)
    h = np.zeros((len(kx), 4, 4))
    h[:, :2, :2], h[:, 2:, 2:] = hop, -hop  # at k and k + (π, π)

    def response(x: float) -> tuple[float, float]:
        h[:, :2, 2:] = h[:, 2:, :2] = -HALF.g * x * np.array([[0, 1], [1, 0]])
        levels, vectors = np.linalg.eigh(h)
        occupation = 1 / (1 + np.exp(np.clip(levels / HALF.temperature, -500, 500)))
        tau = vectors[:, 0] * vectors[:, 3] + vectors[:, 1] * vectors[:, 2]
        gap = levels[levels > 0].min() - levels[levels < 0].max()
        return (tau * occupation).sum() / len(kx), gap

    delta = brentq(lambda x: HALF.g * response(x)[0] - HALF.k * x, 0.2, 0.8)
    tau, gap = response(delta)
    assert delta == pytest.approx(0.40661, abs=2e-5)
    assert tau == pytest.approx(0.37649, abs=2e-5)
    assert gap == pytest.approx(0.880, abs=1e-3)


@pytest.mark.parametrize(
    ("L", "c_type", "uniform", "stripe", "wave"),
    [
        (8, -1.939835, -1.903193, -1.919601, -1.914925),
        (12, -1.950864, -1.923062, -1.934669, -1.933718),
    ],
)
def test_energies_of_four_phases(L, c_type, uniform, stripe, wave):
    """Per site: C-type, uniform Q^x, stripes along x, and staggered Q^A with Q^z."""
    lattice = square(L)
    columns = (-1.0) ** lattice.positions[:, 0]
    eta, stagger = PUBLISHED.rest_position, lattice.stagger
    starts = {
        c_type: pattern(lattice, eta, 0.0, 0.4 * stagger),
        uniform: pattern(lattice, eta, 0.0, 0.4),
        stripe: pattern(lattice, eta, 0.0, 0.4 * columns),
        wave: pattern(lattice, eta + 0.13 * stagger, -0.2 * stagger),
    }
    states = {energy: relaxed(PUBLISHED, start, lattice) for energy, start in starts.items()}
    for energy, fields in states.items():
        found = PUBLISHED.energy(fields, lattice).item() / lattice.n_sites
        assert found == pytest.approx(energy, abs=6e-7)
    if L == 12:
        levels = PUBLISHED.electrons(states[c_type], lattice).levels[0]
        assert (levels[L * L] - levels[L * L - 1]).item() == pytest.approx(0.9617, abs=6e-5)
        seen = PUBLISHED.observables(states[wave], lattice)
        amplitudes = seen["staggered_displacement"][0].abs().tolist()
        assert amplitudes == pytest.approx([0.130, 0.225, 0.0], abs=5e-4)
        assert (seen["density"] - 1).abs().mean().item() == pytest.approx(0.241, abs=5e-4)


def test_warm_order_is_cold_electronically():
    """δ hardly depends on T up to 0.05: the gap is 0.96."""
    lattice = square(12)
    cold, warm = (
        relaxed(
            replace(HALF, temperature=T), pattern(lattice, 0, 0, 0.4 * lattice.stagger), lattice
        )
        for T in (0.01, 0.05)
    )
    assert (cold["Q"] - warm["Q"]).abs().max() < 2e-4


# ---- regression values of a rough configuration ------------------------------------------------


@pytest.mark.parametrize(
    ("system", "n", "tau_x", "tau_z", "band", "mu"),
    [
        (
            HALF,
            [1.16795011, 1.07741332, 1.07555048],
            [0.28963368, 0.55390646, 0.25326365],
            [0.25791264, -0.31612121, -0.20149872],
            -36.355505,
            -0.636818,
        ),
        (DOPED, [1.13099422, 1.05952415, 1.04636468], None, None, None, -0.671777),
    ],
)
def test_rough_configuration(system, n, tau_x, tau_z, band, mu):
    """Densities, band energy and μ on 4 × 4 at T = 0.1, all modes different at all sites."""
    system, lattice = replace(system, temperature=0.1), square(4)
    i = torch.arange(16, dtype=torch.float64)
    breathing = 0.5 + 0.2 * torch.cos(0.7 * i)
    fields = pattern(lattice, breathing, 0.5 * torch.cos(2.1 * i + 0.2), torch.sin(1.3 * i + 0.5))
    state = system.electrons(fields, lattice)
    found = system.orbital(state)[0, :3]
    assert (found[:, BREATHING] + 1).tolist() == pytest.approx(n, abs=6e-9)
    if tau_x is not None:
        assert found[:, QX].tolist() == pytest.approx(tau_x, abs=6e-9)
        assert found[:, QZ].tolist() == pytest.approx(tau_z, abs=6e-9)
        assert state.band_energy.item() == pytest.approx(band, abs=6e-7)
    assert state.mu.item() == pytest.approx(mu, abs=6e-7)
    assert state.density.sum().item() == pytest.approx(32 * system.filling, abs=1e-12)


# ---- closed forms ------------------------------------------------------------------------------


def test_isolated_site_has_no_preferred_angle():
    """One electron, t = 0: E = −λ|Q^E| + K Q²/2 for every angle, −0.32 at Q* = λ/K for λ = 0.8."""
    lattice = square(3)
    system = JahnTeller(g=0.8, k=1.0, t=0.0, temperature=0.0)
    angle = torch.linspace(0.1, 6, 9, dtype=torch.float64)
    for radius in (0.3, 0.8, 1.4):
        fields = pattern(lattice, 0.0, radius * torch.cos(angle), radius * torch.sin(angle))
        energy = system.energy(fields, lattice).item() / 9
        assert energy == pytest.approx(-0.8 * radius + 0.5 * radius**2, abs=1e-13)
        force = system.forces(fields, lattice)["Q"][0]
        expected = (0.8 - radius) * torch.stack([angle.cos(), angle.sin()], -1)
        assert (force[:, QZ:] - expected).abs().max() < 1e-13
        assert force[:, BREATHING].abs().max() < 1e-13
    fields = pattern(lattice, 0.0, system.Q0)
    assert system.energy(fields, lattice).item() / 9 == pytest.approx(-0.32, abs=1e-13)


def test_bandwidth():
    """The levels of the hopping fill [−4, 4]: W = 8."""
    levels = HALF.electrons(pattern(square(12)), square(12)).levels
    assert levels.min().item() == pytest.approx(-4, abs=1e-12)
    assert levels.max().item() == pytest.approx(4, abs=1e-12)


systems = st.builds(
    lambda g, k, beta, T, mu, filling, n0: JahnTeller(
        g=g,
        k=k,
        beta=beta,
        temperature=T,
        chemical_potential=mu,
        filling=filling,
        reference_density=n0,
    ),
    g=st.floats(0.2, 3),
    k=st.floats(0.5, 2),
    beta=st.floats(0.5, 3),
    T=st.floats(0.05, 1),
    mu=st.one_of(st.none(), st.floats(-2, 2)),
    filling=st.floats(0.1, 0.9),
    n0=st.sampled_from([0.0, 1.0, 0.7]),
)


@settings(max_examples=12)
@given(system=systems, seed=st.integers(0, 2**31))
def test_forces_are_minus_the_gradient_of_the_energy(system, seed):
    """At fixed electron number A, at fixed μ Ω: every mode of some sites by central differences."""
    lattice, step = square(4), 1e-4
    fields = random_Q(lattice, 1, seed)
    moves = step * torch.eye(48, dtype=torch.float64).reshape(48, 16, 3)
    energies = system.energy({"Q": fields["Q"] + torch.cat([moves, -moves])}, lattice)
    slope = -(energies[:48] - energies[48:]).reshape(16, 3) / (2 * step)
    assert (system.forces(fields, lattice)["Q"][0] - slope).abs().max() < 1e-6


@settings(max_examples=20)
@given(system=systems, seed=st.integers(0, 2**31))
def test_sum_rule_and_bounds(system, seed):
    """Σ F^A = g (N_e − n0 N) − βk Σ Q^A, and |⟨τ⟩| ≤ min(n, 2 − n)."""
    lattice = square(4)
    fields = random_Q(lattice, 2, seed)
    state = system.electrons(fields, lattice)
    if system.chemical_potential is None:
        assert (state.n_electrons == system.filling * 32).all()
    total = system.forces(fields, lattice)["Q"][..., BREATHING].sum(1)
    excess = state.n_electrons - 16 * system.reference_density
    expected = system.g * excess - system.beta * system.k * fields["Q"][..., BREATHING].sum(1)
    assert (total - expected).abs().max() < 1e-10
    n = state.density.unflatten(1, (16, 2)).sum(-1)
    tau = system.orbital(state)[..., QZ:].norm(dim=-1)
    assert (tau <= torch.minimum(n, 2 - n) + 1e-12).all()


# ---- symmetries --------------------------------------------------------------------------------


@pytest.mark.parametrize("lattice", [square(4), square(4, 6)], ids=str)
@pytest.mark.parametrize("system", [HALF, DOPED, replace(HALF, temperature=0.2)])
def test_labels_have_the_full_symmetry_of_the_task(system, lattice):
    """Translations × D4 (its half on 4 × 6) × particle–hole at half filling, to rounding."""
    task, other = system.task(), system.task(target="orbital")
    task = replace(task, targets=task.targets + other.targets)
    report = assert_equivariant(system.labels, task, lattice, tolerance=1e-12)
    assert report.exhaustive
    point = 8 if lattice.shape == (4, 4) else 4
    flips = 2 if system.filling == 0.5 else 1
    assert report.elements == len(task.symmetry(lattice)) == lattice.n_sites * point * flips


def test_a_rotation_changes_the_sign_of_qx_alone():
    """C4: n and τ^z move with the sites, τ^x moves and changes sign; the energy stays."""
    lattice = square(4)
    fields = random_Q(lattice, 1)
    C4 = lattice.point_group.element_names.index("C4")
    to = lattice.permutation(C4)
    moved = torch.empty_like(fields["Q"])
    moved[:, to] = fields["Q"] * torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64)
    assert torch.equal(moved, transform(HALF.fields[0], fields["Q"], Element(lattice, C4)))
    before, after = HALF.labels(fields, lattice), HALF.labels({"Q": moved}, lattice)
    found, expected = after["orbital"][:, to], before["orbital"]
    assert (found[..., :QX] - expected[..., :QX]).abs().max() < 1e-13
    assert (found[..., QX] + expected[..., QX]).abs().max() < 1e-13
    assert (after["energy"] - before["energy"]).abs().max() < 1e-12
    # Without the sign it is another configuration.
    wrong = {"Q": moved * torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64)}
    assert (HALF.labels(wrong, lattice)["energy"] - before["energy"]).abs().max() > 0.01


@settings(max_examples=15)
@given(
    temperature=st.floats(0.0, 1),
    mu=st.sampled_from([None, 0.0]),
    lattice=st.sampled_from([square(4), square(4, 6)]),
    seed=st.integers(0, 2**31),
)
def test_particle_hole_symmetry(temperature, mu, lattice, seed):
    """n(−Q) = 2 − n(Q), τ(−Q) = −τ(Q), F(−Q) = −F(Q), E(−Q) = E(Q)."""
    system = replace(HALF, temperature=temperature, chemical_potential=mu)
    assert system.has_particle_hole
    Q = random_Q(lattice, 1, seed)["Q"]
    found = system.labels({"Q": torch.cat([Q, -Q])}, lattice)
    for name in ("orbital", "scaled_force"):
        assert found[name].sum(0).abs().max() < 1e-12
    assert (found["energy"][0] - found["energy"][1]).abs() < 1e-11


def test_particle_hole_symmetry_ends():
    """Away from half filling, with another origin of Q^A, and on odd sides."""
    lattice = square(4)
    Q = random_Q(lattice, 1)["Q"]
    for system in (DOPED, PUBLISHED, replace(HALF, chemical_potential=0.5)):
        assert not system.has_particle_hole
        assert system.task().flips == ()
        assert system.task().input("Q").odd == system.task().target("scaled_force").odd == ()
        found = system.labels({"Q": torch.cat([Q, -Q])}, lattice)["scaled_force"]
        assert found.sum(0).abs().max() > 1e-3
    Q = random_Q(square(5), 1)["Q"]
    found = HALF.labels({"Q": torch.cat([Q, -Q])}, square(5))["scaled_force"]
    assert found.sum(0).abs().max() > 1e-3


def test_origin_of_the_breathing_mode():
    """n0 = 1 is n0 = 0 seen from η = g/(βk): equal forces, energies apart by a constant."""
    lattice = square(4)
    fields = random_Q(lattice, 3)
    shift = torch.tensor([PUBLISHED.rest_position, 0, 0], dtype=torch.float64)
    there = {"Q": fields["Q"] + shift}
    force, other = HALF.forces(fields, lattice)["Q"], PUBLISHED.forces(there, lattice)["Q"]
    assert (force - other).abs().max() < 1e-12
    apart = HALF.energy(fields, lattice) - PUBLISHED.energy(there, lattice)
    expected = 16 * HALF.g**2 / (2 * HALF.beta * HALF.k)
    assert (apart - expected).abs().max() < 1e-11


@pytest.mark.parametrize("system", [HALF, DOPED])
def test_electrons_of_fixed_number_do_not_feel_uniform_breathing(system):
    lattice = square(4)
    fields = random_Q(lattice, 1)
    shifted = {"Q": fields["Q"] + torch.tensor([0.7, 0, 0], dtype=torch.float64)}
    before, after = system.electrons(fields, lattice), system.electrons(shifted, lattice)
    assert (after.site_density - before.site_density).abs().max() < 1e-12
    assert (after.mu - before.mu + 0.7 * system.g).abs().max() < 1e-12


def test_sign_of_the_hopping_is_a_convention():
    lattice = square(4)
    fields = random_Q(lattice, 1)
    found, expected = (replace(HALF, t=t).labels(fields, lattice)["orbital"] for t in (-1.0, 1.0))
    assert (found - expected).abs().max() < 1e-13


# ---- batches, precision, processes -------------------------------------------------------------


def test_bits_of_a_replica_do_not_depend_on_its_company():
    lattice = square(4)
    fields = random_Q(lattice, 4)
    whole = HALF.labels(fields, lattice)
    for row in range(4):
        alone = HALF.labels({"Q": fields["Q"][row : row + 1].clone()}, lattice)
        assert all(torch.equal(alone[name][0], whole[name][row]) for name in whole)
    try:
        spread = replace(HALF, workers=2).labels(fields, lattice)
    finally:
        close_workers()
    assert all(torch.equal(spread[name], whole[name]) for name in whole)
    assert HALF.batch_invariant == (not torch.cuda.is_available())


def test_labels_are_double_precision_and_consistent():
    lattice = square(4)
    fields = random_Q(lattice, 3)
    exact = HALF.labels(fields, lattice)
    assert {values.dtype for values in exact.values()} == {torch.float64}
    force = HALF.forces(fields, lattice)["Q"]
    assert (HALF.g * exact["scaled_force"] - force).abs().max() < 1e-14
    assert torch.equal(exact["energy"], HALF.energy(fields, lattice))
    rough = HALF.labels({"Q": fields["Q"].float()}, lattice)
    assert rough["orbital"].dtype == torch.float64
    assert (rough["orbital"] - exact["orbital"]).abs().max() < 1e-5
    torch_labels = replace(HALF, backend="torch").labels(fields, lattice)
    assert all((torch_labels[name] - exact[name]).abs().max() < 1e-11 for name in exact)
    elastic = HALF.elastic_energy(fields, lattice)
    A, z, x = fields["Q"].unbind(-1)
    expected = 0.5 * HALF.k * (2 * A * A + z * z + x * x).sum(1)
    assert (elastic - expected).abs().max() < 1e-12


# ---- learned forces ----------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["scaled_force", "orbital"])
@pytest.mark.parametrize("system", [HALF, DOPED, PUBLISHED])
def test_a_perfect_network_gives_the_exact_forces(system, target):
    lattice = square(4)
    fields = random_Q(lattice, 2)

    def network(fields, lattice):
        return {target: system.labels(fields, lattice)[target].requires_grad_()}

    learned = system.learned(network)
    assert isinstance(learned, ForceField)
    forces, exact = learned.forces(fields, lattice), system.forces(fields, lattice)
    assert (forces["Q"] - exact["Q"]).abs().max() < 1e-14
    assert not forces["Q"].requires_grad
    orbital = system.labels(fields, lattice)["orbital"]
    read = system.orbital_from_forces(fields, forces, lattice)
    assert (read - orbital).abs().max() < 1e-13
    density = system.observables(fields, lattice)["density"]
    for force_field in (learned, system):
        read = force_field.density_from_forces(fields, forces, lattice)
        assert (read - density).abs().max() < 1e-13


def test_network_that_predicts_something_else():
    with pytest.raises(InputError, match="got density"):
        HALF.assemble({"density": torch.zeros(1, 16, 1)}, random_Q(square(4), 1), square(4))


# ---- dynamics ----------------------------------------------------------------------------------


def quench(system, L, replicas, time, dt=0.1, seed=1):
    """Langevin dynamics from disorder at the temperature of the electrons, observed each tau0."""
    lattice, unit = square(L), system.Q0
    dynamics = Langevin(dt * system.tau0, system.temperature, system.damping, system.mass)
    start = random(lattice, replicas, amplitude=(0.5 * unit, unit, unit), seed=seed)
    every = round(1 / dt)
    observers = (
        OrderParameter(every, source="Q"),
        StructureFactor(every, source="Q[2]"),
        CorrelationFunction(every, source="Q[2]", local=False, connected=False),
    )
    return simulate(
        system,
        dynamics,
        start,
        round(time / dt),
        lattice=lattice,
        observers=observers,
        progress=False,
    )


def test_energy_is_conserved_without_a_bath():
    """Velocity Verlet at γ = 0: the error of the total energy falls like dt²."""
    lattice = square(4)
    start = random(lattice, 1, amplitude=(0.2, 0.4, 0.4), seed=3)
    errors = []
    for dt in (0.1, 0.05):
        dynamics = Langevin(dt * HALF.tau0, 0.0, 0.0, HALF.mass)
        result = simulate(
            HALF, dynamics, start, round(6 / dt), lattice=lattice, progress=False
        ).state
        kinetic = result.momenta["Q"].square().sum().item() / (2 * HALF.mass)
        total = HALF.energy(result.fields, lattice).item() + kinetic
        assert kinetic > 0.1
        errors.append(abs(total - HALF.energy(start.fields, lattice).item()))
    assert errors[0] < 0.02
    assert errors[1] < 0.4 * errors[0]


def test_quench_reaches_c_type_order():
    """8 × 8, half filling, T = 0.01: staggered Q^x grows, nothing else orders."""
    result = quench(HALF, 8, (4,), 20.0)
    order = np.abs(result.observers["order_parameter"].values[:, 0])
    assert order[0].max() < 0.1
    assert order[-1, QX] > 0.45
    assert order[-1, [BREATHING, QZ]].max() < 0.05
    factor = result.observers["structure_factor"].values[-1, 0]
    assert factor.argmax() == np.ravel_multi_index((4, 4), (8, 8))
    assert factor[4, 4] > 0.9 * factor.sum()
    correlation = result.observers["correlation_function"].values[-1, 0]
    assert (correlation * (-1.0) ** np.arange(5) > 0.85).all()


@pytest.mark.slow
@pytest.mark.parametrize(("system", "least"), [(HALF, 0.6), (DOPED, 0.3)])
def test_quenches_at_both_fillings(system, least):
    """12 × 12: mean φ of 0.6–0.8 λ/K at half filling after 30 tau0, less and slower when doped.

    The rms forces along the trajectory are those of the sheet: 0.11–0.15, 0.05–0.08 and 0.06–0.09
    in units of λ for Q^A, Q^z and Q^x.
    """
    result = quench(system, 12, 2, 30.0, dt=0.05)
    phi = 2 * np.abs(result.observers["order_parameter"].values[..., QX]) / system.Q0
    assert phi[0].max() < 0.3
    assert phi[-5:].mean() > least
    rms = result.state.forces["Q"].square().mean((0, 1)).sqrt() / system.g
    assert (rms > torch.tensor([0.09, 0.04, 0.05])).all()
    assert (rms < torch.tensor([0.16, 0.09, 0.10])).all()


def test_channels_of_a_field_are_named_to_observers():
    lattice = square(4)
    dynamics = Langevin(0.1, 0.01, 0.25)
    with pytest.raises(InputError, match=r"'Q\[3\]'.* channels 0 to 2"):
        simulate(
            HALF,
            dynamics,
            random_Q(lattice, 1),
            1,
            lattice=lattice,
            observers=(OrderParameter(source="Q[3]"),),
            progress=False,
        )


def test_random_start_of_several_channels():
    lattice = square(4)
    state = random(lattice, 2, amplitude=(0.1, 0.0, 2.0), seed=3)
    top = state.fields["Q"].abs().amax((0, 1))
    assert state.fields["Q"].shape == (2, 16, 3)
    assert (top <= torch.tensor([0.1, 0.0, 2.0])).all()
    assert top[0] > 0.05
    assert top[2] > 1
    same = random(lattice, 2, amplitude=0.1, channels=3, seed=3).fields["Q"]
    assert torch.equal(same[..., 0], state.fields["Q"][..., 0])
    with pytest.raises(InputError, match="2 amplitudes are given for 3 channels"):
        random(lattice, amplitude=(1.0, 2.0), channels=3)
    with pytest.raises(InputError, match="amplitude"):
        random(lattice, amplitude=(1.0, -2.0))


# ---- parameters, tasks, names ------------------------------------------------------------------


def test_presets_and_units():
    assert HALF.lambda_ == pytest.approx(1.35)
    assert HALF.k == pytest.approx(1.157407, abs=5e-7)
    assert pytest.approx(1.08) == HALF.Q0
    assert HALF.tau0 == 1
    assert HALF.damping_ratio == pytest.approx(0.25)
    assert HALF.rest_position == 0
    assert HALF.masses == {"Q": HALF.k}
    assert replace(HALF, filling=0.49) == DOPED
    assert (HALF.beta, HALF.temperature, HALF.filling) == (2.0, 0.01, 0.5)


def test_systems_by_name():
    assert {"jahn_teller", "jahn_teller_half_filled", "jahn_teller_doped"} <= set(list_systems())
    made = create_system("jahn_teller", g=1.0, k=1.5, filling=0.3)
    assert from_parameters({"system": made.name, **made.parameters}) == made
    with pytest.raises(InputError, match="did you mean jahn_teller_doped"):
        create_system("jahn_teller_dopd")
    with pytest.raises(InputError, match="did you mean beta"):
        create_system("jahn_teller_doped", betta=1.0)


def test_tasks():
    task = HALF.task()
    assert (task.name, task.flips) == ("jahn_teller_square", ("particle_hole",))
    assert task.conservative == (("scaled_force", "Q"),)
    assert task.input("Q").point == task.target("scaled_force").point == "2xA1+B1"
    assert HALF.task(target="orbital").conservative == (("orbital", "Q"),)
    with pytest.raises(InputError, match="did you mean scaled_force"):
        HALF.task(target="scaled_forces")
    with pytest.raises(InputError, match="triangular"):
        HALF.task("triangular")


# ---- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": -0.1}, "temperature is -0.1; it must be 0 or more"),
        ({"filling": 1.0}, "filling is 1.0; it must lie between 0 and 1"),
        ({"beta": 0.0}, "beta is 0.0; it must be positive"),
        ({"g": -1.25}, "g is -1.25; it must be positive"),
        ({"k": 0.0}, "k is 0.0; it must be positive"),
        ({"mass": -1.0}, "mass is -1.0; it must be positive"),
        ({"damping": -1.0}, "damping is -1.0"),
        ({"k": math.nan}, "k is nan; it must be finite"),
        ({"reference_density": "one"}, "JahnTeller parameter reference_density is 'one'"),
    ],
)
def test_bad_parameters_are_named(changes, message):
    with pytest.raises(InputError, match=message):
        replace(HALF, **changes)


@pytest.mark.parametrize(
    ("fields", "lattice", "message"),
    [
        ({}, square(4), "field 'Q' is missing; given: none"),
        ({"Q": torch.zeros(2, 16, 1)}, square(4), r"\[batch, 16, 3\], but they have shape"),
        ({"Q": torch.full((1, 16, 3), math.nan)}, square(4), "48 NaN or infinite"),
        ({"Q": torch.zeros(1, 8, 3)}, chain(8), r"lives on square lattices, not on chain"),
        ({"Q": torch.zeros(1, 8, 3)}, square(2, 4), "too small for nearest-neighbour hopping"),
    ],
)
def test_bad_fields_are_named(fields, lattice, message):
    with pytest.raises(InputError, match=message):
        HALF.labels(fields, lattice)


def test_orbital_order_needs_even_sides_but_forces_do_not():
    lattice = Lattice("square", (4, 5))
    fields = random_Q(lattice, 1)
    with pytest.raises(InputError, match="odd period"):
        HALF.observables(fields, lattice)
    assert HALF.forces(fields, lattice)["Q"].isfinite().all()
