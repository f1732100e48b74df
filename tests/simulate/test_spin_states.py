"""Starting states of spins: unit length, the order they are named after, refusals, warnings."""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from latticezoo.simulate import spin_states
from latticezoo.simulate.spin_observables import (
    scalar_chirality,
    spin_structure_factor,
    topological_charge,
)
from latticezoo.simulate.unit_vectors import normalized
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.lattices import honeycomb, square, triangular

CELL = triangular(12)
MAKERS = {
    "random": lambda **k: spin_states.random_spins(CELL, **k),
    "ferromagnet": lambda **k: spin_states.ferromagnet(CELL, axis=(1, 1, 0), noise=0.2, **k),
    "spiral": lambda **k: spin_states.spiral(CELL, q=(math.pi / 3, 0), noise=0.2, **k),
    "120": lambda **k: spin_states.three_sublattice(CELL, noise=0.2, **k),
    "tetrahedral": lambda **k: spin_states.tetrahedral(CELL, noise=0.2, **k),
    "lattice": lambda **k: spin_states.skyrmion_lattice(CELL, noise=0.2, spread=0.2, **k),
    "skyrmion": lambda **k: spin_states.skyrmion(CELL, radius=3, noise=0.2, **k),
}


@pytest.mark.parametrize("name", MAKERS)
def test_states_are_unit_vectors_drawn_replica_by_replica(name):
    make = MAKERS[name]
    state = make(replicas=4, seed=3)
    spins = state.fields["S"]
    assert spins.shape == (4, 144, 3)
    assert float((spins.norm(dim=-1) - 1).abs().max()) < 1e-15
    assert list(state.fields) == ["S"]
    assert not state.momenta
    assert torch.equal(make(replicas=(2,), seed=3).fields["S"], spins[2:3])
    assert not torch.equal(make(replicas=4, seed=4).fields["S"], spins)
    assert not torch.equal(spins[0], spins[1])
    single = make(replicas=4, seed=3, dtype=torch.float32).fields["S"]
    assert torch.equal(single, spins.float())


def test_random_spins_are_uniform():
    """Moments of the sphere: ⟨S⟩ = 0, ⟨S^a S^b⟩ = δ/3, ⟨S_z⁴⟩ = 1/5; neighbours independent."""
    spins = spin_states.random_spins(square(200), seed=1).fields["S"][0]
    error = 4 / math.sqrt(len(spins))
    assert float(spins.mean(0).abs().max()) < error
    second = spins.T @ spins / len(spins)
    assert float((second - torch.eye(3) / 3).abs().max()) < error
    assert float((spins**4).mean(0).sub(0.2).abs().max()) < error
    assert abs(float((spins[1:] * spins[:-1]).sum(-1).mean())) < error


def test_orders():
    """Ferromagnet, spiral, cone, 120° order: dot products of neighbours and net spin."""
    up = spin_states.ferromagnet(CELL, axis=(0, 3, 4)).fields["S"]
    assert torch.allclose(up, torch.tensor([0, 0.6, 0.8]).double(), atol=1e-15)

    lattice, q = square(8, 4), math.pi / 4
    cone = spin_states.spiral(lattice, q=(q, 0), plane=((1, 0, 0), (1, 0, 1)), cone=0.6)
    spins = cone.fields["S"].reshape(8, 4, 3)
    assert torch.allclose(spins[:, 0], spins[:, 3])
    assert torch.allclose(spins[..., 1], torch.tensor(-0.6).double())  # x × z = −y
    turn = (spins * spins.roll(-1, 0)).sum(-1)
    assert torch.allclose(turn, torch.tensor(0.36 + 0.64 * math.cos(q)).double())

    order = spin_states.three_sublattice(CELL).fields["S"]
    around = order[:, CELL.neighbours(1)]
    assert torch.allclose((order[:, :, None] * around).sum(-1), torch.tensor(-0.5).double())


@pytest.mark.parametrize("sign", [1, -1])
def test_tetrahedral_order(sign):
    """Known answers row 16: S1·(S2×S3) = ±4/(3√3) = ±.769800 on every triangle, no net spin."""
    spins = spin_states.tetrahedral(triangular(6, 4), chirality=sign).fields["S"]
    found = scalar_chirality(spins, triangular(6, 4))
    assert torch.allclose(found, torch.tensor(sign * 4 / (3 * math.sqrt(3))).double())
    assert 4 / (3 * math.sqrt(3)) == pytest.approx(0.769800, abs=1e-6)
    assert float(spins.sum(1).abs().max()) < 1e-12


@pytest.mark.parametrize("side", [12, 24])
@pytest.mark.parametrize(
    ("phase", "magnetization", "charge"),
    [
        (0.0, 0.3, -3),
        (0.0, -0.3, 3),
        (math.pi, 0.3, -3),
        (math.pi / 4, 0.3, -3),
        (math.pi / 6, 0.3, -3),
        (math.pi / 2, 0.0, -6),
        (math.pi / 2, 0.3, -6),
    ],
)
def test_charge_of_the_skyrmion_lattice(side, phase, magnetization, charge):
    """±3 or −6 a cell of 12 × 12; mirrored spins wind the other way."""
    lattice, cells = triangular(side), (side // 12) ** 2
    for winding in (1, -1):
        spins = spin_states.skyrmion_lattice(
            lattice, phase=phase, magnetization=magnetization, winding=winding
        ).fields["S"]
        found = float(topological_charge(spins, lattice))
        assert found == pytest.approx(winding * charge * cells, abs=1e-9)


def test_peaks_of_the_skyrmion_lattice():
    """Six equal peaks at π/3, and moderate disorder keeps the charge."""
    factor = spin_structure_factor(spin_states.skyrmion_lattice(CELL).fields["S"], CELL)[0]
    peaks = [factor[index] for index in ((2, 1), (-2, -1), (-1, 1), (1, -1), (-1, -2), (1, 2))]
    assert torch.allclose(torch.stack(peaks), peaks[0])
    assert float(sum(peaks)) > 0.85 * 144 * (1 - 0.0390)  # the rest: magnetization and harmonics
    disturbed = spin_states.skyrmion_lattice(
        CELL, 3, magnetization=0.5, spread=0.05, noise=0.1, seed=2
    ).fields["S"]
    charge = topological_charge(disturbed, CELL)
    assert torch.allclose(charge, torch.full_like(charge, -3))


@settings(max_examples=20)
@given(
    radius=st.floats(2, 6),
    relative_width=st.floats(0.2, 0.6),
    winding=st.sampled_from([1, -1]),
    background=st.sampled_from([1, -1]),
    helicity=st.floats(-math.pi, math.pi),
    centre=st.tuples(st.floats(-30, 30), st.floats(-30, 30)),
    lattice=st.sampled_from([square(25, 28), triangular(26, 29)]),
)
def test_a_skyrmion_has_charge_one(
    radius, relative_width, winding, background, helicity, centre, lattice
):
    """−w times the sign of the background, wherever it sits on the torus."""
    spins = spin_states.skyrmion(
        lattice,
        radius=radius,
        width=relative_width * radius,
        winding=winding,
        background=background,
        helicity=helicity,
        centre=centre,
    ).fields["S"]
    charge = float(topological_charge(spins, lattice))
    assert charge == pytest.approx(-winding * background, abs=1e-9)
    assert float((spins[..., 2] * background).max()) > 0.9


def test_a_narrow_wall_does_not_overflow():
    spins = spin_states.skyrmion(square(40), radius=8.1, width=1e-3).fields["S"][0].numpy()
    assert np.isfinite(spins).all()
    assert set(np.unique(spins[:, 2].round(6))) == {-1.0, 1.0}


# ------------------------------------------------------------------ warnings and bad input


@pytest.mark.parametrize(
    ("make", "advice"),
    [
        (lambda: spin_states.skyrmion_lattice(triangular(16)), "multiples of 12 hold it"),
        (lambda: spin_states.skyrmion_lattice(triangular(12, 18)), "multiples of 12 hold it"),
        (lambda: spin_states.three_sublattice(triangular(9, 8)), "multiples of 3 hold it"),
        (lambda: spin_states.tetrahedral(triangular(5)), "multiples of 2 hold it"),
        (lambda: spin_states.spiral(square(6), q=(math.pi / 4, 0)), "multiples of 8 hold it"),
        (lambda: spin_states.spiral(square(6), q=(1.0, 0.0)), "no side below 200 holds it"),
    ],
)
def test_a_seam_is_warned_of(make, advice, caplog):
    with caplog.at_level(logging.WARNING):
        state = make()
    assert advice in caplog.text
    assert float((state.fields["S"].norm(dim=-1) - 1).abs().max()) < 1e-15


def test_states_that_fit_are_made_in_silence(caplog):
    spin_states.skyrmion_lattice(triangular(24, 12))
    spin_states.three_sublattice(triangular(3, 6))
    spin_states.tetrahedral(triangular(4, 6))
    spin_states.spiral(triangular(12), q=(1.0472, 0.0))  # π/3 as one writes it
    assert not caplog.text


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: spin_states.skyrmion_lattice(CELL, phase=0.0, magnetization=0.0),
            "leaves 3 of 144 spins without a direction; give a magnetization other than 0",
        ),
        (lambda: spin_states.skyrmion_lattice(square(12)), "not on square(12, 12)"),
        (lambda: spin_states.skyrmion_lattice(CELL, wave_number=0.0), "wave_number is 0.0"),
        (lambda: spin_states.skyrmion_lattice(CELL, winding=2), "winding is 2; it must be 1 or -1"),
        (lambda: spin_states.skyrmion_lattice(CELL, phase=math.nan), "3 finite numbers"),
        (lambda: spin_states.skyrmion_lattice(CELL, spread=-1.0), "spread is -1.0"),
        (lambda: spin_states.tetrahedral(square(4)), "not on square(4, 4)"),
        (lambda: spin_states.tetrahedral(CELL, chirality=0), "chirality is 0"),
        (lambda: spin_states.three_sublattice(square(6)), "the 120° order lives on the triangular"),
        (lambda: spin_states.ferromagnet(CELL, axis=(0, 0, 0)), "has no direction"),
        (lambda: spin_states.ferromagnet(CELL, axis=(0, 1)), "axis is (0, 1)"),
        (lambda: spin_states.ferromagnet(CELL, noise=-0.1), "noise is -0.1"),
        (lambda: spin_states.spiral(CELL, q=(1.0,)), "q is (1.0,); it must be 2 finite numbers"),
        (lambda: spin_states.spiral(CELL, q=(0, 0), cone=2), "cone is 2"),
        (
            lambda: spin_states.spiral(CELL, q=(0, 0), plane=((1, 0, 0), (2, 0, 0))),
            "must not be parallel",
        ),
        (lambda: spin_states.skyrmion(CELL, radius=0.0), "radius is 0.0"),
        (lambda: spin_states.skyrmion(honeycomb(6), radius=2.0), "not honeycomb(6, 6)"),
        (lambda: spin_states.skyrmion(CELL, radius=2.0, background=0), "background is 0"),
        (lambda: spin_states.random_spins(CELL, 0), "replicas is 0"),
    ],
)
def test_bad_input(make, sentence):
    with pytest.raises(InputError) as caught:
        make()
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_vectors_of_any_length_become_spins_when_asked():
    vectors = torch.tensor([[[3.0, 0.0, 4.0], [0.0, -1e-3, 0.0]]], dtype=torch.float64)
    torch.testing.assert_close(
        normalized(vectors), torch.tensor([[[0.6, 0.0, 0.8], [0.0, -1.0, 0.0]]]).double()
    )
    with pytest.raises(InputError, match="no direction"):
        normalized(torch.zeros(1, 1, 3))
