"""Dynamics of gauge links: conservation, orders, reversibility, thermal averages, refusals."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from latticezoo.simulate.dynamics.kinetic_monte_carlo import KineticMonteCarlo
from latticezoo.simulate.dynamics.link_dynamics import EhrenfestRotors, LinkRotors, LinkSpins
from latticezoo.simulate.gauge_sampling import mean_plaquette
from latticezoo.simulate.link_observables import (
    charge,
    divergence,
    electric_energy,
    gauss_violation,
    loop_means,
)
from latticezoo.simulate.link_states import link_rotors, signs, thermal_link_spins
from latticezoo.simulate.run import simulate
from latticezoo.simulate.state import State
from latticezoo.simulate.systems.ehrenfest_links import EhrenfestLinks
from latticezoo.simulate.systems.gauge_fermions import GaugeFermions
from latticezoo.simulate.systems.quantum_link import QuantumLink
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.gauge import transform_links
from latticezoo.symmetry.internal import SU2
from latticezoo.symmetry.lattices import square

LINK = QuantumLink(g2=0.7, J=0.3, temperature=0.1)
ROTOR_G2 = 0.8


def divergence_free(lattice, seed=0, amplitude=0.25):
    """Link spins with E = curl of random numbers on the plaquettes, random phases."""
    generator = torch.Generator().manual_seed(seed)
    curl = amplitude * torch.randn(1, *lattice.shape, generator=generator).double()
    field = torch.stack([curl - curl.roll(1, 2), curl.roll(1, 1) - curl], -1)
    electric = field.reshape(1, -1, 2)
    electric = electric / max(1.0, float(electric.abs().max()) / 0.9)
    phase = 2 * math.pi * torch.rand(electric.shape, generator=generator).double()
    return {"U": torch.polar(torch.sqrt(1 - electric**2), phase), "E": electric}


def run(driver, dynamics, fields, steps, lattice):
    result = simulate(driver, dynamics, State(fields), steps, lattice=lattice, progress=False)
    return dict(result.state.fields)


def rotor(group, kappa=0.6, temperature=0.1, **options):
    return GaugeFermions(group, kappa=kappa, temperature=temperature, **options)


def total_energy(driver, fields, lattice):
    return float(driver.energy(fields, lattice) + electric_energy(fields["E"], ROTOR_G2))


@pytest.mark.parametrize("ehrenfest", [False, True])
@pytest.mark.parametrize(
    ("lattice", "dt", "steps"),
    [(square(2), 0.01, 40), pytest.param(square(4), 0.01, 1000, marks=pytest.mark.slow)],
)
def test_link_spins_conserve_energy_gauss_and_length(ehrenfest, lattice, dt, steps):
    driver = EhrenfestLinks(LINK) if ehrenfest else LINK
    fields = divergence_free(lattice)
    fields = driver.start(fields, lattice) if ehrenfest else fields
    end = run(driver, LinkSpins(dt), fields, steps, lattice)
    assert abs(float(driver.energy(end, lattice) - driver.energy(fields, lattice))) < 1e-8
    assert float(gauss_violation(end["E"], end["U"], lattice, end.get("rho"))) < 1e-12
    length = torch.sqrt(end["U"].abs() ** 2 + end["E"] ** 2)
    assert float((length - 1).abs().max()) < 1e-9
    assert float((end["E"] - fields["E"]).abs().max()) > 0.02
    if not ehrenfest:
        density = LINK.observables(end, lattice)["density"]
        torch.testing.assert_close(density, torch.full_like(density, 0.5), atol=1e-12, rtol=0)


@pytest.mark.parametrize("ehrenfest", [False, True])
def test_link_spins_are_of_fifth_order(ehrenfest):
    lattice = square(2, 3)
    driver = EhrenfestLinks(LINK) if ehrenfest else LINK
    fields = divergence_free(lattice, amplitude=0.15)
    fields = driver.start(fields, lattice) if ehrenfest else fields
    ends = [run(driver, LinkSpins(0.4 / n), fields, n, lattice)["E"] for n in (8, 16, 32)]
    errors = [float((a - b).norm()) for a, b in pairwise(ends)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(5, abs=0.3)


def test_link_spins_get_their_length_back_away_from_the_poles():
    lattice = square(2)
    fields = divergence_free(lattice)
    far = fields["U"].abs() > 0.2
    assert bool(far.any())
    bent = {**fields, "U": torch.where(far, (1 + 3e-7) * fields["U"], fields["U"])}
    for length, expected in ((1.0, 1e-15), (None, 1e-8)):
        end = run(LINK, LinkSpins(0.01, length=length), bent, 1, lattice)
        off = float((torch.sqrt(end["U"].abs() ** 2 + end["E"] ** 2) - 1).abs().max())
        assert (off < expected) if length else (off > expected)
    with pytest.raises(InputError, match=r"length is 0"):
        LinkSpins(0.01, length=0)


def test_a_lone_link_spin_precesses_about_the_axis_of_its_electric_field():
    # H = g² E²/2: φ turns at the rate g² E.
    system, lattice = QuantumLink(g2=0.8, J=0.0, t=0.0), square(2)
    fields = divergence_free(lattice)
    end = run(system, LinkSpins(0.02), fields, 100, lattice)
    expected = fields["U"] * torch.exp(1j * 0.8 * 2.0 * fields["E"])
    torch.testing.assert_close(end["U"], expected, atol=1e-8, rtol=0)
    torch.testing.assert_close(end["E"], fields["E"])


@pytest.mark.parametrize("group", ["U1", "SU2"])
@pytest.mark.parametrize("ehrenfest", [False, True])
def test_rotors_keep_gauss_and_their_group(group, ehrenfest):
    lattice, system = square(2), rotor(group)
    driver = EhrenfestLinks(system) if ehrenfest else system
    fields = dict(link_rotors(lattice, 1, group, seed=3).fields)
    fields = driver.start(fields, lattice) if ehrenfest else fields
    dt, steps = 0.04, 25
    dynamics = (
        EhrenfestRotors(driver, lattice, dt, ROTOR_G2) if ehrenfest else LinkRotors(dt, ROTOR_G2)
    )
    end = run(driver, dynamics, fields, steps, lattice)
    assert float(gauss_violation(end["E"], end["U"], lattice, end.get("rho"))) < 1e-12
    assert system.gauge_group.violation(end["U"]) < 1e-13
    drift = total_energy(driver, end, lattice) - total_energy(driver, fields, lattice)
    assert abs(drift) < 2e-3
    assert float(end["E"].abs().mean()) > 0.05
    # Backwards, by −E: the leapfrog is reversible.
    if not ehrenfest:
        back = run(driver, dynamics, {**end, "E": -end["E"]}, steps, lattice)
        torch.testing.assert_close(back["U"], fields["U"], atol=1e-9, rtol=0)


@pytest.mark.parametrize("ehrenfest", [False, True])
def test_rotors_are_of_second_order(ehrenfest):
    lattice, system = square(2, 2), rotor("SU2", temperature=0.2)
    driver = EhrenfestLinks(system) if ehrenfest else system
    fields = dict(link_rotors(lattice, 1, seed=1).fields)
    fields = driver.start(fields, lattice) if ehrenfest else fields
    ends = []
    for n in (8, 16, 32):
        dynamics = (
            EhrenfestRotors(driver, lattice, 0.8 / n, ROTOR_G2)
            if ehrenfest
            else LinkRotors(0.8 / n, ROTOR_G2)
        )
        ends.append(run(driver, dynamics, fields, n, lattice)["E"])
    errors = [float((a - b).norm()) for a, b in pairwise(ends)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.2)


def test_the_split_of_ehrenfest_rotors_follows_the_equations_of_motion():
    # Against Runge–Kutta on the same equations, with ρ far from equilibrium.
    from latticezoo.simulate.dynamics.runge_kutta import rk4_step

    lattice, system = square(2, 2), rotor("SU2")
    driver = EhrenfestLinks(system)
    fields = dict(link_rotors(lattice, 1, seed=2).fields)
    other = dict(link_rotors(lattice, 1, seed=7).fields)
    fields["rho"] = driver.start(other, lattice)["rho"]

    def rate(values):
        found = driver.forces(values, lattice)
        turn = 1j * ROTOR_G2 * SU2.matrix(values["E"]) @ values["U"]
        return {"U": turn, "E": found["E"], "rho": found["rho"]}

    exact = fields
    for _ in range(20):
        exact = rk4_step(rate, exact, 0.02)
    errors = []
    for n in (10, 20):
        found = run(driver, EhrenfestRotors(driver, lattice, 0.4 / n, ROTOR_G2), fields, n, lattice)
        errors.append(max(float((found[name] - exact[name]).abs().max()) for name in exact))
    assert errors[1] < 1e-3
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.2)


def test_gauss_charges_are_covariant():
    lattice, system = square(3, 4), rotor("SU2")
    driver = EhrenfestLinks(system)
    fields = dict(link_rotors(lattice, 1, seed=2).fields)
    generator = torch.Generator().manual_seed(0)
    fields["E"] = torch.randn(fields["E"].shape, generator=generator).double()
    fields = driver.start(fields, lattice)
    turns = SU2().random(lattice.n_sites, generator=generator, dtype=torch.float64)
    rotation = SU2.rotation(turns)
    moved = {
        "U": transform_links(fields["U"], turns, lattice),
        "E": torch.einsum("nab,rndb->rnda", rotation, fields["E"]),
        "rho": torch.einsum("nab,rnbmc,mdc->rnamd", turns, fields["rho"], turns.conj()),
    }
    for read in (lambda f: divergence(f["E"], f["U"], lattice), lambda f: charge(f["rho"])):
        turned = torch.einsum("nab,rnb->rna", rotation, read(fields))
        torch.testing.assert_close(read(moved), turned, atol=1e-12, rtol=0)
    # In equilibrium at half filling the colours are in balance.
    assert float(charge(fields["rho"]).abs().max()) < 1e-12


@pytest.mark.parametrize("rates", ["glauber", "metropolis"])
def test_kinetic_monte_carlo_reaches_the_exact_plaquette(rates):
    # Pure Z2 gauge theory at β = κ/T.
    lattice, system = square(2, 3), GaugeFermions("Z2", t=0.0, kappa=0.6)
    start = signs(lattice, 12, beta=0.6)
    dynamics = KineticMonteCarlo(dt=1.0, temperature=1.0, rates=rates)
    samples, state = [], start
    for _ in range(12):
        state = simulate(system, dynamics, state, 2, lattice=lattice, progress=False).state
        samples.append(loop_means(state.fields["U"], lattice).numpy())
    means = np.array(samples)[4:].mean(0)
    error = means.std(ddof=1) / math.sqrt(len(means))
    assert abs(means.mean() - mean_plaquette("Z2", 0.6, 6)) < 4 * error
    assert error < 0.15
    assert state.time == 24.0


def test_kinetic_monte_carlo_with_fermions_samples_all_configurations():
    # exp(−Ω/T) over the 2^8 configurations of the smallest torus, both at the same temperature.
    lattice, system = square(2, 2), GaugeFermions("Z2", temperature=0.5)
    every = 1.0 - 2.0 * ((torch.arange(256)[:, None] >> torch.arange(8)) & 1).double()
    every = every.reshape(256, 4, 2)
    energy = system.energy({"U": every}, lattice)
    exact = float((torch.softmax(-energy / 0.5, 0) * energy).sum())
    dynamics = KineticMonteCarlo(dt=3.0, temperature=0.5)
    result = simulate(system, dynamics, signs(lattice, 30), 2, lattice=lattice, progress=False)
    found = system.energy(result.state.fields, lattice)
    error = float(found.std()) / math.sqrt(30)
    assert abs(float(found.mean()) - exact) < 4 * error
    assert abs(float(energy.mean()) - exact) > 4 * error


def test_kinetic_monte_carlo_of_a_replica_is_its_own():
    lattice, system = square(2, 3), GaugeFermions("Z2", temperature=0.5)
    start = signs(lattice, 3, seed=4)
    dynamics = KineticMonteCarlo(dt=0.5, temperature=0.3)
    whole = simulate(system, dynamics, start, 4, lattice=lattice, progress=False).state
    alone = simulate(system, dynamics, start.select([2]), 4, lattice=lattice, progress=False).state
    assert torch.equal(whole.fields["U"][2:], alone.fields["U"])
    half = simulate(system, dynamics, start, 2, lattice=lattice, progress=False).state
    rest = simulate(system, dynamics, half, 2, lattice=lattice, progress=False).state
    assert torch.equal(rest.fields["U"], whole.fields["U"])
    cold = KineticMonteCarlo(dt=20.0, temperature=0.0, rates="metropolis")
    settled = simulate(system, cold, start, 1, lattice=lattice, progress=False).state
    assert bool((settled.forces["U"] <= 1e-9).all())
    before, after = (system.energy(state.fields, lattice) for state in (start, settled))
    assert bool((after <= before).all())


def test_thermal_link_spins_meet_the_free_limit():
    # Without plaquettes and fermions: exp(−g²E²/2T) restricted to div E = 0 and |E| ≤ S.
    system, lattice = QuantumLink(g2=1.0, J=0.0, t=0.0), square(2, 3)
    state = thermal_link_spins(system, lattice, 0.02, range(16), sweeps=40)
    electric = state.fields["E"]
    assert float(divergence(electric, state.fields["U"], lattice).abs().max()) < 1e-13
    # V − 1 free plaquette fields, far below the bound: equipartition of (g²/2) Σ E².
    energy = electric_energy(electric, 1.0)
    expected = 0.5 * (lattice.n_sites - 1) * 0.02
    assert abs(float(energy.mean()) - expected) < 4 * float(energy.std()) / math.sqrt(16)
    system.check(state.fields, lattice)


def test_blocks_of_thermal_link_spins_are_stirred():
    lattice, stirred = square(6, 4), {"sweeps": 2, "seed": 5, "block": 2}
    state = thermal_link_spins(LINK, lattice, 0.5, range(2), **stirred)
    U, E = state.fields["U"], state.fields["E"]
    assert float(divergence(E, U, lattice).abs().max()) < 1e-14
    torch.testing.assert_close(U.abs() ** 2 + E**2, torch.ones_like(E), rtol=0, atol=1e-14)
    torus = E.unflatten(1, lattice.shape)
    assert float((torus - torus.roll(2, 1)).abs().max()) > 0.1  # no longer periodic
    alone = thermal_link_spins(LINK, lattice, 0.5, (1,), **stirred)
    assert torch.equal(alone.fields["U"], U[1:])
    small = thermal_link_spins(LINK, square(2), 0.5, range(2), sweeps=2, seed=5)
    turned = (U.unflatten(1, lattice.shape) / U.abs().unflatten(1, lattice.shape))[:, :2, :2]
    angles = (turned * small.fields["U"].unflatten(1, (2, 2)).conj()).angle()
    assert 0.1 < float(angles.square().mean().sqrt()) < 0.5
    for block in (0, 3):
        with pytest.raises(InputError, match=rf"block is {block}; .* divides both sides"):
            thermal_link_spins(LINK, lattice, 0.5, block=block)


def test_thermal_link_spins_are_warmer_at_higher_temperature():
    lattice, system = square(2, 2), QuantumLink()
    energies = []
    for temperature in (0.05, 3.0):
        state = thermal_link_spins(system, lattice, temperature, range(4), sweeps=12)
        energies.append(float(system.energy(state.fields, lattice).mean()))
    assert energies[0] < energies[1] - 1
    again = thermal_link_spins(system, lattice, 3.0, (3,), sweeps=12)
    assert torch.equal(again.fields["E"], state.fields["E"][3:])


def test_refusals():
    lattice = square(2)
    fields = divergence_free(lattice)
    z2, u1 = (GaugeFermions(group, t=0.0) for group in ("Z2", "U1"))
    with pytest.raises(InputError, match="links move with their electric fields"):
        run(z2, LinkRotors(0.1, 1.0), dict(signs(lattice, 1).fields), 1, lattice)
    with pytest.raises(InputError, match="need a force on 'U'"):
        run(u1, LinkSpins(0.1), dict(link_rotors(lattice, 1, "U1").fields), 1, lattice)
    with pytest.raises(InputError, match="dt is -1"):
        LinkRotors(-1.0, 1.0)
    with pytest.raises(InputError, match="unknown rates"):
        KineticMonteCarlo(1.0, 1.0, rates="kawasaki")
    with pytest.raises(InputError, match="±1 everywhere"):
        run(LINK, KineticMonteCarlo(1.0, 1.0), fields, 1, lattice)
    with pytest.raises(InputError, match="Z2 links have no electric field"):
        link_rotors(lattice, 1, "Z2")
    with pytest.raises(InputError, match="need a positive one"):
        thermal_link_spins(LINK, lattice, 0.0)
    with pytest.raises(InputError, match="field 'rho' is missing"):
        EhrenfestLinks(LINK).forces(fields, lattice)
