"""The s–d model: closed forms, published numbers, exact fields, symmetries, solvers, refusals."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_expit

from latticezoo.simulate.electrons.diagonalize import thermal_state
from latticezoo.simulate.electrons.shell_hopping import ShellHopping
from latticezoo.simulate.systems import create_system, from_parameters, list_systems
from latticezoo.simulate.systems.sd_magnet import SDMagnet
from latticezoo.simulate.unit_vectors import normalized
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.fields import perpendicular
from latticezoo.symmetry.lattices import Lattice, chain, square, triangular
from latticezoo.symmetry.testing import assert_equivariant

TETRAHEDRAL = create_system("sd_tetrahedral")
SKYRMION = create_system("sd_skyrmion")
#: The sheet's ordering vectors, of length π/3 along three directions 120° apart.
WAVES = torch.tensor(
    [[math.cos(a), math.sin(a)] for a in (0, 2 * math.pi / 3, 4 * math.pi / 3)],
    dtype=torch.float64,
) * (math.pi / 3)


def random_spins(lattice: Lattice, batch: int = 1, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, lattice.n_sites, 3)
    return normalized(torch.randn(shape, dtype=torch.float64, generator=generator))


def uniform(lattice: Lattice) -> torch.Tensor:
    return torch.tensor([0.0, 0.0, 1.0]).double().expand(1, lattice.n_sites, 3)


def on_sublattices(lattice: Lattice, directions, period: int, coefficients) -> torch.Tensor:
    """One direction for each value of (a·m + b·n) mod period, or of its digits."""
    cells = torch.from_numpy(np.indices(lattice.shape).reshape(2, -1))
    number = (torch.tensor(coefficients)[:, None] * (cells % 2 if period == 4 else cells)).sum(0)
    return torch.tensor(directions, dtype=torch.float64)[number % period][None]


def tetrahedral(lattice: Lattice) -> torch.Tensor:
    corners = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / math.sqrt(3)
    return on_sublattices(lattice, corners, 4, [2, 1])


def three_sublattices(lattice: Lattice) -> torch.Tensor:
    angles = 2 * np.pi / 3 * np.arange(3)
    return on_sublattices(
        lattice, np.stack([np.cos(angles), np.sin(angles), 0 * angles], 1), 3, [1, 2]
    )


def spiral(lattice: Lattice, up: float = 0.0) -> torch.Tensor:
    phase = lattice.positions @ WAVES[0]
    flat = math.sqrt(1 - up * up)
    return torch.stack([flat * phase.cos(), flat * phase.sin(), up + 0 * phase], -1)[None]


def skyrmions(lattice: Lattice, phi: float, amplitude: float, offset: float) -> torch.Tensor:
    """The triple-Q ansatz (Zhang's dissertation, Eq. 3.21)."""
    phases = lattice.positions @ WAVES.T
    cos, sin = phases.cos(), (phases + phi).sin()
    rows = (
        cos[:, 0] - 0.5 * cos[:, 1] - 0.5 * cos[:, 2],
        math.sqrt(0.75) * (cos[:, 1] - cos[:, 2]),
        amplitude * sin.sum(1) + offset,
    )
    return normalized(torch.stack(rows, -1))[None]


def per_site(system: SDMagnet, spins: torch.Tensor, lattice: Lattice) -> float:
    return (system.energy({"S": spins}, lattice) / lattice.n_sites).item()


# ---- closed forms ------------------------------------------------------------------------------


@pytest.mark.parametrize("theta", [0.0, 0.4, math.pi / 2, 2.2, math.pi])
def test_two_sites(theta):
    """±√(J² + t² ± 2Jt cos(θ/2)); −2.7979327 at J = 2, θ = π/2."""
    system = SDMagnet(J=2.0)
    spins = torch.tensor([[[0.0, 0.0, 1.0], [math.sin(theta), 0.0, math.cos(theta)]]]).double()
    bond = -np.kron([[0.0, 1.0], [1.0, 0.0]], np.eye(2))
    state = thermal_state(torch.from_numpy(bond), 0.0, 2, site_blocks=system.site_blocks(spins))
    roots = [math.sqrt(5 + sign * 4 * math.cos(theta / 2)) for sign in (1, -1)]
    expected = sorted([*roots, *(-root for root in roots)])
    assert state.levels[0].tolist() == pytest.approx(expected, abs=1e-7)
    if theta == math.pi / 2:
        assert state.levels[0, 0].item() == pytest.approx(-2.7979327, abs=5e-8)


@pytest.mark.parametrize("lattice", [square(6), triangular(6)])
@pytest.mark.parametrize("convention", ["pauli", "spin_half"])
def test_ferromagnet_by_a_sum_over_momenta(lattice, convention):
    """Bands ε(k) ∓ g, with g = J on Pauli matrices and J/2 on the spin ½."""
    system = SDMagnet(
        J=0.8,
        convention=convention,
        hopping=(1.0, -0.3),
        chemical_potential=-0.4,
        zeeman=(0.1, 0.0, 0.25),
        temperature=0.15,
        twist=(0.2, 0.5),
    )
    g = 0.8 if convention == "pauli" else 0.4
    bare = ShellHopping(lattice, (1.0, -0.3), (0.2, 0.5)).levels()
    bands = np.stack([bare - g, bare + g])
    omega = 0.15 * log_expit((bands + 0.4) / 0.15).sum()
    occupied = 1 / (1 + np.exp((bands + 0.4) / 0.15))
    spins = uniform(lattice)
    found = system.energy({"S": spins}, lattice).item()
    assert found == pytest.approx(omega - 0.25 * lattice.n_sites, abs=1e-10)
    field = system.forces({"S": spins}, lattice)["S"][0]
    along = g * (occupied[0] - occupied[1]).mean() + 0.25
    expected = torch.tensor([0.1, 0.0, along], dtype=torch.float64)
    assert (field - expected).abs().max() < 1e-12
    seen = system.observables({"S": spins}, lattice)
    assert (seen["density"] - occupied.sum(0).mean()).abs().max() < 1e-12
    assert seen["mu"].item() == -0.4


def test_tetrahedral_order():
    """Energy −2.2517 per site at J = 2 and quarter filling, chirality 4/(3√3), and its gap."""
    lattice, system = triangular(4), replace(TETRAHEDRAL, temperature=0.0, twists=3)
    spins = tetrahedral(lattice)  # with the twists, the levels of 12 × 12
    assert per_site(system, spins, lattice) == pytest.approx(-2.25174, abs=6e-6)
    first = spins[0, :2]
    chirality = first[0] @ torch.linalg.cross(first[1], spins[0, 4])
    assert abs(chirality.item()) == pytest.approx(4 / (3 * math.sqrt(3)), abs=1e-12)
    labels = system.labels({"S": spins}, lattice)
    assert labels["perpendicular_field"].abs().max() < 1e-12
    seen = system.observables({"S": spins}, lattice)
    assert seen["gap"].item() == pytest.approx(1.161, abs=6e-4)
    assert (seen["density"] - 0.5).abs().max() < 1e-12
    # T = 0.05 of the preset changes nothing, and the collinear states lie above.
    warm = replace(TETRAHEDRAL, twists=3)
    assert per_site(warm, spins, lattice) == pytest.approx(-2.25174, abs=6e-6)
    for other in (uniform(lattice), random_spins(lattice)):
        assert per_site(warm, other, lattice) > -2.24


def test_120_degree_order():
    """Half filling, J = 4: below the tetrahedral state by 0.035, with a gap of 4."""
    lattice, system = triangular(6), replace(create_system("sd_120"), twists=2)
    spins = three_sublattices(lattice)
    assert system.labels({"S": spins}, lattice)["perpendicular_field"].abs().max() < 1e-12
    assert per_site(system, spins, lattice) == pytest.approx(-4.49133, abs=1e-4)
    assert per_site(system, tetrahedral(lattice), lattice) == pytest.approx(-4.45628, abs=1e-4)
    gap = system.observables({"S": spins}, lattice)["gap"]
    assert gap.item() == pytest.approx(4.0, abs=1e-9)


def test_neel_order_on_the_square_lattice():
    """±√(ε² + J²): half the bandwidth filled, gap 2J."""
    lattice, system = square(6), create_system("sd_square", temperature=0.0)
    spins = uniform(lattice) * lattice.stagger[:, None]
    bare = ShellHopping(lattice, (1.0,)).levels()
    expected = -np.sqrt(bare**2 + 1).sum()
    found = system.observables({"S": spins}, lattice)
    assert found["energy"].item() == pytest.approx(expected, abs=1e-10)
    assert found["gap"].item() == pytest.approx(2.0, abs=1e-10)
    assert found["mu"].item() == pytest.approx(0.0, abs=1e-10)


def test_susceptibility_peaks_at_the_skyrmions_wave_vector():
    """χ0 along (q, 0) peaks at q = π/3: 0.1994 against 0.1155 at 0 (T = 0.02, 480² momenta)."""
    levels = ShellHopping(triangular(480), SKYRMION.hopping).levels()
    assert levels.min() == pytest.approx(-4.5284, abs=1e-3)
    assert levels.max() == pytest.approx(7.1, abs=1e-9)
    T, mu = 0.02, SKYRMION.chemical_potential
    levels = levels.reshape(480, 480)
    fermi = 1 / (1 + np.exp(np.clip((levels - mu) / T, -500, 500)))
    assert fermi.mean() == pytest.approx(0.1988, abs=5e-5)

    def susceptibility(step: int) -> float:
        """At q·a1 = 2π·2·step/480 and q·a2 half of that."""
        shifted = np.roll(levels, (-2 * step, -step), (0, 1))
        moved = np.roll(fermi, (-2 * step, -step), (0, 1))
        close = np.abs(shifted - levels) < 1e-7
        slope = fermi * (1 - fermi) / T
        ratio = (fermi - moved) / np.where(close, 1, shifted - levels)
        return float(np.where(close, slope, ratio).mean())

    values = {step: susceptibility(step) for step in (0, 10, 20, 30, 36, 38, 40, 42, 44, 60, 90)}
    assert max(values, key=values.__getitem__) == 40  # q = π/3
    assert values[40] == pytest.approx(0.1994, abs=5e-5)
    assert values[0] == pytest.approx(0.1155, abs=5e-5)


@pytest.mark.slow
def test_weak_coupling_follows_the_susceptibility():
    """Ω(spiral) − Ω(ferromagnet) per site near −g² [χ0(Q) − χ0(0)] = −8.4e-4 at g = 0.1."""
    lattice = triangular(12)
    system = replace(SKYRMION, J=0.1, zeeman=(0.0, 0.0, 0.0), temperature=0.002, twists=12)
    wound, straight = (per_site(system, s, lattice) for s in (spiral(lattice), uniform(lattice)))
    assert wound == pytest.approx(-0.241579, abs=3e-5)
    assert straight == pytest.approx(-0.240776, abs=3e-5)
    assert wound - straight == pytest.approx(-8.0e-4, abs=3e-5)


@pytest.mark.slow
def test_skyrmion_energies():
    """n_sk = 2 is lowest without a field, n_sk = 1 at B = 0.005; the spiral is above both."""
    lattice = triangular(12)
    bare = replace(SKYRMION, temperature=0.003, twists=4, zeeman=(0.0, 0.0, 0.0))
    starts = {
        "one": skyrmions(lattice, 0.0, 0.55, 0.42),
        "two": skyrmions(lattice, math.pi / 2, 0.65, 0.06),
    }
    published = {0.0: (-0.281575, -0.281877, -0.280868), 0.005: (-0.282433, -0.282228, -0.281722)}
    for field, expected in published.items():
        system = replace(bare, zeeman=(0.0, 0.0, field))
        spins = torch.cat([*starts.values(), spiral(lattice, 0.0 if field == 0 else 0.29)])
        for _ in range(25):
            H = perpendicular(system.forces({"S": spins}, lattice)["S"], spins)
            spins = normalized(spins + 12.0 * H)
        one, two, cone = (system.energy({"S": spins}, lattice) / lattice.n_sites).tolist()
        assert (one, two, cone) == pytest.approx(expected, abs=2e-4)
        assert (two < one < cone) if field == 0 else (one < two < cone)


# ---- fields are derivatives --------------------------------------------------------------------


def slopes(system, spins, lattice, site, step):
    """−∂E/∂S of one site by central differences, the spin's length not kept, ``[3]``."""
    moved = spins.repeat(6, 1, 1)
    for axis in range(3):
        moved[2 * axis, site, axis] += step
        moved[2 * axis + 1, site, axis] -= step
    energies = system.interaction_energy(moved, lattice) + system.zeeman_energy(moved)
    return -(energies[0::2] - energies[1::2]) / (2 * step)


@settings(max_examples=12)
@given(
    lattice=st.sampled_from([square(3), square(3, 4), triangular(3), triangular(4, 3)]),
    J=st.floats(-3, 3),
    temperature=st.floats(0.05, 1),
    filling=st.floats(0.1, 0.9),
    fixed_mu=st.booleans(),
    convention=st.sampled_from(["pauli", "spin_half"]),
    twists=st.integers(1, 2),
    twist=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    seed=st.integers(0, 1000),
)
def test_fields_are_finite_differences(
    lattice, J, temperature, filling, fixed_mu, convention, twists, twist, seed
):
    """H = −∂Ω/∂S at fixed μ and −∂A/∂S at fixed filling, in all three directions."""
    system = SDMagnet(
        J=J,
        convention=convention,
        temperature=temperature,
        filling=filling,
        chemical_potential=6 * filling - 3 if fixed_mu else None,
        twists=twists,
        twist=twist,
        zeeman=(0.1, -0.2, 0.3),
    )
    spins, site = random_spins(lattice, seed=seed), seed % lattice.n_sites
    total = system.forces({"S": spins}, lattice)["S"]
    assert (total[0, site] - slopes(system, spins, lattice, site, 1e-4)).abs().max() < 1e-6
    bare = system.interaction_field(spins, lattice)
    assert torch.equal(total, bare + bare.new_tensor(system.zeeman))


@pytest.mark.parametrize("changes", [{"chemical_potential": -1.0}, {"filling": 0.3, "twists": 2}])
def test_fields_of_kernel_polynomials_are_finite_differences(changes):
    lattice = triangular(3)
    system = SDMagnet(J=1.3, temperature=0.4, solver="kpm", error=1e-11, **changes)
    spins = random_spins(lattice)
    total = system.forces({"S": spins}, lattice)["S"]
    assert (total[0, 4] - slopes(system, spins, lattice, 4, 1e-4)).abs().max() < 1e-6


@settings(max_examples=10)
@given(
    lattice=st.sampled_from([square(3), triangular(3, 4)]),
    J=st.floats(-4, 4),
    fixed_mu=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_total_torque_vanishes(lattice, J, fixed_mu, seed):
    """Σ S × H = 0: the energy does not change when all spins turn."""
    system = SDMagnet(J=J, chemical_potential=-0.5 if fixed_mu else None, temperature=0.01)
    spins = random_spins(lattice, seed=seed)
    field = system.interaction_field(spins, lattice)
    assert torch.linalg.cross(spins, field).sum(1).abs().max() < 1e-12


# ---- symmetries --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("system", "lattice"),
    [
        (replace(TETRAHEDRAL, filling=0.3), triangular(3)),
        (replace(TETRAHEDRAL, chemical_potential=-1.2, twists=2), triangular(3)),
        (SDMagnet(J=0.7, hopping=(1.0, 0.3), filling=0.4), square(4, 3)),
        (SDMagnet(J=0.7, twist=(0.5, 0.5), twists=2), square(3)),
        (replace(TETRAHEDRAL, solver="kpm", temperature=1.0, error=1e-3), triangular(3)),
    ],
)
def test_every_element_of_the_symmetry_group(system, lattice):
    """Translations, point operations, time reversal (H(−S) = −H(S)) and rotations of all spins."""
    task = system.task(lattice.family)
    spins = random_spins(lattice, 1)
    report = assert_equivariant(system.labels, task, lattice, fields={"S": spins})
    assert report.elements > lattice.n_sites
    rotation, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))
    energies = [system.interaction_energy(s, lattice) for s in (spins, spins @ rotation.T, -spins)]
    assert max(abs((e - energies[0]).item()) for e in energies) < 1e-10


def test_twists_that_break_the_symmetry_have_no_task():
    assert SDMagnet(J=1.0, twist=(0.5, 0.5)).keeps_symmetry("square")
    assert SDMagnet(J=1.0, twists=3).keeps_symmetry("triangular")
    # On the triangular lattice a rotation carries (½, ½) into (½, 0).
    for twist, family in (
        ((0.5, 0.5), "triangular"),
        ((0.3, 0.0), "square"),
        ((0.3, 0.3), "square"),
    ):
        with pytest.raises(InputError, match="breaks point operations"):
            SDMagnet(J=1.0, twist=twist).task(family)


def test_zeeman_field_acts_on_the_spins_alone():
    lattice = square(3)
    spins = random_spins(lattice)
    bare, system = SDMagnet(J=1.0), SDMagnet(J=1.0, zeeman=(0.0, 0.3, 0.1))
    for name, values in bare.labels({"S": spins}, lattice).items():
        assert torch.equal(system.labels({"S": spins}, lattice)[name], values)
    shift = system.energy({"S": spins}, lattice) - bare.energy({"S": spins}, lattice)
    expected = -(0.3 * spins[..., 1] + 0.1 * spins[..., 2]).sum(1)
    assert (shift - expected).abs().max() < 1e-12


# ---- solvers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sd_tetrahedral", "sd_skyrmion", "sd_square"])
@pytest.mark.parametrize("fixed_mu", [True, False])
def test_kernel_polynomials_are_within_a_millionth(name, fixed_mu):
    system = create_system(name, temperature=0.2)
    if fixed_mu and system.chemical_potential is None:
        system = replace(system, chemical_potential=-1.0)
    elif not fixed_mu:
        system = replace(system, chemical_potential=None)
    lattice = square(6) if name == "sd_square" else triangular(6)
    fields = {"S": random_spins(lattice, 2)}
    exact = system.labels(fields, lattice)
    found = replace(system, solver="kpm", error=1e-6).labels(fields, lattice)
    for quantity in ("perpendicular_field", "energy"):
        size = lattice.n_sites if quantity == "energy" else 1
        assert (found[quantity] - exact[quantity]).abs().max() < 1e-6 * size
    assert (found["chemical_potential"] - exact["chemical_potential"]).abs().max() < 1e-5
    seen = replace(system, solver="kpm").observables(fields, lattice)
    reference = system.observables(fields, lattice)
    for quantity, values in seen.items():
        assert (values - reference[quantity]).abs().max() < 1e-4, quantity
    assert "gap" not in seen


def test_random_vectors_give_fields_with_errors():
    lattice = triangular(6)
    system = replace(SKYRMION, temperature=0.3)
    spins = random_spins(lattice)
    exact = system.interaction_field(spins, lattice)
    sampled = replace(system, solver="kpm", n_random=32, spacing=2)
    electrons = sampled.electrons(spins, lattice)
    errors = 0.5 * electrons.charge_spin_error[..., 1:]
    assert ((sampled.interaction_field(spins, lattice) - exact).abs() < 5 * errors).all()
    assert errors.max() < 0.01
    off = electrons.energy - system.interaction_energy(spins, lattice)
    assert off.abs().item() < 5 * electrons.energy_error.item()


def test_bits_do_not_depend_on_the_batch():
    lattice = triangular(4)
    spins = random_spins(lattice, 3)
    for options in ({}, {"twists": 2}, {"solver": "kpm", "temperature": 0.5}):
        system = replace(TETRAHEDRAL, backend="lapack", **options)
        assert system.batch_invariant
        whole = system.labels({"S": spins}, lattice)
        for row in range(3):
            alone = system.labels({"S": spins[row : row + 1]}, lattice)
            for name, values in whole.items():
                assert torch.equal(values[row], alone[name][0])


# ---- parameters and refusals -------------------------------------------------------------------


def test_parameters_go_around_as_plain_values():
    assert {"sd_magnet", "sd_tetrahedral", "sd_120", "sd_skyrmion"} < set(list_systems())
    for name in ("sd_skyrmion", "sd_120"):
        system = create_system(name, workers=2)
        text = json.dumps({"system": system.name, **system.parameters})
        assert from_parameters(json.loads(text)) == system
        assert hash(from_parameters(json.loads(text))) == hash(system)
    assert create_system("sd_skyrmion", J=1.0, convention="spin_half").coupling == 0.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": -0.1}, "temperature is -0.1; it must be 0 or more"),
        ({"temperature": 0.0, "solver": "kpm"}, "temperature is 0; .* need T > 0"),
        ({"convention": "paul"}, r"convention of the coupling 'paul'.*pauli"),
        ({"solver": "diagonalise"}, "solver of the s–d model 'diagonalise'.*diagonalize"),
        ({"J": math.nan}, "J is nan; it must be a finite number"),
        ({"J": "2"}, "J is '2'"),
        ({"filling": 1.0}, "filling is 1.0; it must lie between 0 and 1"),
        ({"hopping": ()}, r"hopping is \(\); it must be at least one number"),
        ({"hopping": 1.0}, "hopping is 1.0; it must be a list"),
        ({"hopping": (1.0, math.inf)}, "hopping is inf"),
        ({"zeeman": (0.0, 1.0)}, "zeeman is .* 3 numbers"),
        ({"twist": (0.5,)}, "twist is .* 2 numbers"),
        ({"twists": 0}, "twists is 0; it must be a whole number"),
        ({"error": 0.0}, "error is 0.0; it must be positive"),
        ({"n_random": 0}, "n_random is 0"),
        ({"spacing": 1.5}, "spacing is 1.5; it must be a whole number of at least 1"),
        ({"seed": -1}, "seed is -1; it must be a whole number of at least 0"),
        ({"chemical_potential": math.inf}, "chemical_potential is inf"),
    ],
)
def test_bad_parameters_are_named(changes, message):
    with pytest.raises(InputError, match=message):
        replace(TETRAHEDRAL, **changes)


@pytest.mark.parametrize(
    ("system", "spins", "lattice", "message"),
    [
        (TETRAHEDRAL, torch.full((1, 9, 3), math.nan), triangular(3), "27 NaN or infinite"),
        (TETRAHEDRAL, 1.1 * uniform(triangular(3)), triangular(3), "a spin has length 1.1"),
        (TETRAHEDRAL, torch.zeros(1, 9, 3), triangular(3), "a spin has length 0"),
        (TETRAHEDRAL, uniform(chain(9)), chain(9), "lives on square and triangular"),
        (TETRAHEDRAL, uniform(triangular(2)), triangular(2), "too small for hopping"),
        (SKYRMION, uniform(triangular(4)), triangular(4), "too small for .* shell 3.* 5 cells"),
        (TETRAHEDRAL, uniform(square(3))[..., :2], square(3), r"\[batch, 9, 3\]"),
    ],
)
def test_bad_fields_are_named(system, spins, lattice, message):
    with pytest.raises(InputError, match=message):
        system.labels({"S": spins}, lattice)
