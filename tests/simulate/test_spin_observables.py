"""Observables of spins against counts and closed forms, and the observers that sample them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from latticezoo.simulate import spin_states
from latticezoo.simulate.dynamics.llg import LLG
from latticezoo.simulate.observables import wave_vectors
from latticezoo.simulate.run import simulate
from latticezoo.simulate.spin_observables import (
    effective_receptive_field,
    peak_length,
    peak_order,
    scalar_chirality,
    six_peaks,
    solid_angles,
    spin_structure_factor,
    topological_charge,
    torque_error,
    winding,
)
from latticezoo.simulate.spin_observers import (
    SPIN_OBSERVERS,
    Chirality,
    Magnetization,
    PeakLength,
    PeakOrder,
    TopologicalCharge,
)
from latticezoo.simulate.systems.heisenberg import Heisenberg
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.internal import internal_group
from latticezoo.symmetry.lattices import honeycomb, square, triangular

LATTICES = [square(6, 8), triangular(7, 6)]


def random_spins(lattice, replicas=2, seed=0):
    return spin_states.random_spins(lattice, replicas, seed=seed).fields["S"]


def rotation(seed):
    generator = torch.Generator().manual_seed(seed)
    return internal_group("SO3").random(generator=generator, dtype=torch.float64)


# ------------------------------------------------------------------ texture


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), lattice=st.sampled_from(LATTICES))
def test_charge_and_winding_are_whole_numbers(seed, lattice):
    """On any configuration; rotations keep the charge, time reversal flips its sign."""
    spins = random_spins(lattice, seed=seed)
    charge = topological_charge(spins, lattice)
    assert torch.allclose(charge, charge.round(), atol=1e-9)
    assert torch.allclose(topological_charge(spins @ rotation(seed).mT, lattice), charge, atol=1e-9)
    assert torch.allclose(topological_charge(-spins, lattice), -charge, atol=1e-9)
    assert solid_angles(spins, lattice).abs().max() <= 2 * math.pi
    turns = winding(spins, lattice)
    assert set(turns.unique().tolist()) <= {-1.0, 0.0, 1.0}
    assert torch.equal(turns.sum((1, 2)), torch.zeros(2).double())


def test_solid_angle_of_an_octant():
    """x, y, z span π/2 and have chirality 1; exchanged, −π/2 and −1."""
    lattice = square(3)
    spins = spin_states.ferromagnet(lattice).fields["S"].clone()
    x, y, z = torch.eye(3, dtype=torch.float64)
    spins[0, 0], spins[0, 3], spins[0, 1] = x, y, z  # the site, and its neighbours along a1 and a2
    assert float(solid_angles(spins, lattice)[0, 0, 0]) == pytest.approx(math.pi / 2)
    assert float(scalar_chirality(spins, lattice)[0, 0, 0]) == pytest.approx(1)
    spins[0, 3], spins[0, 1] = z, y
    assert float(solid_angles(spins, lattice)[0, 0, 0]) == pytest.approx(-math.pi / 2)
    assert float(scalar_chirality(spins, lattice)[0, 0, 0]) == pytest.approx(-1)


@pytest.mark.parametrize("lattice", LATTICES, ids=str)
def test_triangles_turn_counter_clockwise(lattice):
    """Corners by their positions: both triangles of a cell have positive area, and tile it."""
    from latticezoo.simulate.spin_observables import _triangles

    rows, columns = lattice.shape
    places = torch.zeros(1, lattice.n_sites, 3, dtype=torch.float64)
    places[0, :, :2] = lattice.positions
    inner = (torch.arange(rows - 1)[:, None] * columns + torch.arange(columns - 1)).flatten()
    cell = float(np.linalg.det(lattice.vectors))
    for a, b, c in _triangles(places, lattice):
        area = 0.5 * torch.linalg.cross(b - a, c - a)[0, inner, 2]
        assert torch.allclose(area, torch.tensor(cell / 2).double())


@pytest.mark.parametrize("sense", [1, -1])
@pytest.mark.parametrize("lattice", [square(24), triangular(24)], ids=str)
def test_winding_of_a_skyrmion(lattice, sense):
    """The triangles near the core add up to w; so do those of no other closed path."""
    middle = (lattice.positions[0] + lattice.positions[-1]) / 2
    spins = spin_states.skyrmion(
        lattice, radius=5.0, winding=sense, helicity=0.7, centre=middle.tolist()
    ).fields["S"]
    turns = winding(spins, lattice)[0]
    distance = (lattice.positions - middle).norm(dim=-1)
    assert float(turns[distance < 4].sum()) == sense
    assert float(turns[(distance > 4) & (distance < 8)].abs().sum()) == 0


# ------------------------------------------------------------------ wave vectors


@pytest.mark.parametrize("lattice", LATTICES, ids=str)
def test_structure_factor(lattice):
    """It sums to N on any configuration; a spiral has N/2 at ±q, random spins 1 on average."""
    factor = spin_structure_factor(random_spins(lattice, 3), lattice)
    sums = factor.sum((1, 2))
    assert torch.allclose(sums, torch.full_like(sums, lattice.n_sites))
    spread = factor.flatten(1)[:, 1:].mean()
    assert float(spread) == pytest.approx(1, abs=0.05)
    q = torch.linalg.solve(torch.from_numpy(lattice.vectors), wave_vectors(lattice)[1, 2])
    wave = spin_structure_factor(spin_states.spiral(lattice, q=q.tolist()).fields["S"], lattice)
    assert float(wave[0, 1, 2]) == pytest.approx(lattice.n_sites / 2)
    assert float(wave[0, -1, -2]) == pytest.approx(lattice.n_sites / 2)


def by_definition(factor, lattice, peaks):
    """Distances of every wave vector to every peak, over many reciprocal vectors."""
    inverse = torch.linalg.inv(torch.from_numpy(lattice.vectors))
    waves = wave_vectors(lattice).reshape(-1, 2) @ inverse.T
    reciprocal = 2 * math.pi * inverse.T
    images = torch.cartesian_prod(torch.arange(-3, 4), torch.arange(-3, 4)).double() @ reciprocal
    all_of = waves[:, None, None] - torch.tensor(peaks).double()[:, None] + images
    return all_of.norm(dim=-1).amin(-1)  # [N, P]


@pytest.mark.parametrize("lattice", [triangular(12), triangular(18, 20), square(16)], ids=str)
def test_peak_order_and_length(lattice):
    """Against the sums over wave vectors and reciprocal vectors, written out."""
    peaks = six_peaks(1.1)
    factor = spin_structure_factor(random_spins(lattice, 3), lattice)
    away = by_definition(factor, lattice, peaks)
    flat = factor.flatten(1)
    order = torch.stack([flat[:, away[:, p] <= 0.4].mean(1) for p in range(6)]).mean(0)
    assert torch.allclose(peak_order(factor, lattice, peaks, 0.4), order)
    nearest = away.amin(1)[1:]
    inverse = (flat[:, 1:] * nearest).sum(1) / flat[:, 1:].sum(1)
    assert torch.allclose(peak_length(factor, lattice, peaks), 1 / inverse)


def test_peaks_of_ordered_states():
    """The ansatz of the skyrmion lattice: S(Q)/N = .1448 at each of six peaks; L of a spiral."""
    lattice = triangular(24)
    factor = spin_structure_factor(spin_states.skyrmion_lattice(lattice).fields["S"], lattice)
    assert float(peak_order(factor, lattice, six_peaks())) / 576 == pytest.approx(0.1448, abs=1e-4)
    wave = spin_states.spiral(lattice, q=(math.pi / 3, 0)).fields["S"]
    ordered = peak_length(spin_structure_factor(wave, lattice), lattice, six_peaks())
    assert float(ordered) > 1e10
    with pytest.raises(InputError, match="take a larger window, or sides that hold the order"):
        peak_order(factor, triangular(24), six_peaks(1.2), 0.05)
    with pytest.raises(InputError, match="wave vectors of 2 components"):
        peak_length(factor, lattice, [(1.0,)])


# ------------------------------------------------------------------ predicted fields


def test_torque_error():
    """Lengths subtract, angles are those of the torques, and vanishing fields have none."""
    spins, lattice = random_spins(square(5)), square(5)
    H = Heisenberg((1.0, 0.3)).forces({"S": spins}, lattice)["S"]
    exact = H - (H * spins).sum(-1, keepdim=True) * spins
    sideways = torch.linalg.cross(spins, exact)
    predicted = 1.1 * (math.cos(0.3) * exact + math.sin(0.3) * sideways)
    error = torque_error(predicted, exact)
    assert torch.allclose(error.magnitude, 0.1 * exact.norm(dim=-1))
    assert torch.allclose(error.angle, torch.tensor(0.3).double())
    torques = torque_error(torch.linalg.cross(spins, predicted), torch.linalg.cross(spins, exact))
    assert torch.allclose(torques.magnitude, error.magnitude)
    assert torch.allclose(torques.angle, error.angle)
    assert torque_error(0 * predicted, exact).angle.isnan().all()
    with pytest.raises(InputError, match="do not fit"):
        torque_error(predicted[:, :3], exact)


@pytest.mark.parametrize("lattice", [square(7, 8), triangular(8, 7)], ids=str)
def test_effective_receptive_field_of_pair_exchange(lattice):
    """Field H_i = Σ J_r S_j: the sum over components is 3 |J_r| at distance r, elsewhere zero."""
    system = Heisenberg((1.0, -0.5))

    def model(fields, lattice):
        return {"perpendicular_field": system.interaction_field(fields["S"], lattice)}

    with torch.no_grad():
        found = effective_receptive_field(
            model, {"S": random_spins(lattice)}, lattice, sites=(0, 11, 30)
        )
    expected = torch.zeros(lattice.n_sites, dtype=torch.float64)
    expected[lattice.neighbours(1)[0]] = 3.0
    expected[lattice.neighbours(2)[0]] = 1.5
    assert torch.allclose(found.flatten(), expected)
    with pytest.raises(InputError, match="at least one"):
        effective_receptive_field(model, {"S": random_spins(lattice)}, lattice, sites=())


# ------------------------------------------------------------------ observers


def test_observers():
    """Samples along a run, by name, replica by replica; a skyrmion lattice keeps its charge."""
    lattice = triangular(12)
    start = spin_states.skyrmion_lattice(lattice, 2, noise=0.1, seed=1)
    observers = [kind(2) for kind in SPIN_OBSERVERS.values()]
    result = simulate(
        Heisenberg((0.1,)),
        LLG(0.1, 0.0, 0.1),
        start,
        4,
        lattice=lattice,
        observers=observers,
        progress=False,
    )
    assert set(result.observers) == set(SPIN_OBSERVERS)
    shapes = {name: series.values.shape for name, series in result.observers.items()}
    assert shapes["magnetization"] == (3, 2, 3)
    assert shapes["chirality"] == (3, 2, 2)
    assert shapes["peak_order"] == shapes["peak_length"] == shapes["topological_charge"] == (3, 2)
    assert result.observers["topological_charge"].values == pytest.approx(-3, abs=1e-9)
    spins = result.state.fields["S"]
    last = result.observers["magnetization"].values[-1]
    assert last == pytest.approx(spins.mean(1).numpy())


def test_observers_take_their_options():
    kinds = {Magnetization, TopologicalCharge, Chirality, PeakOrder, PeakLength}
    assert set(SPIN_OBSERVERS.values()) == kinds
    lattice = square(8)
    start = spin_states.spiral(lattice, q=(math.pi / 2, 0))
    observer = PeakOrder(peaks=((math.pi / 2, 0), (-math.pi / 2, 0)))
    result = simulate(
        Heisenberg(),
        LLG(0.1, 0.0, 0.1),
        start,
        1,
        lattice=lattice,
        observers=[observer],
        progress=False,
    )
    assert result.observers["peak_order"].values[0] == pytest.approx(32)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: topological_charge(torch.zeros(1, 72, 3), honeycomb(6)), "not honeycomb(6, 6)"),
        (lambda: scalar_chirality(torch.zeros(1, 9, 2), square(3)), "give [batch, 9, 3]"),
        (lambda: six_peaks(-1.0), "wave_number is -1.0"),
        (lambda: PeakOrder(wave_number=0.0), "wave_number is 0.0"),
        (lambda: PeakOrder(peaks=(1.0, 2.0)), "must be lists of numbers"),
    ],
)
def test_bad_input(call, sentence):
    with pytest.raises(InputError) as caught:
        call()
    assert sentence in str(caught.value)
