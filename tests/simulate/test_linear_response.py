"""Dynamical matrices: perturbation theory against the exact solver, closed forms, autograd."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from harmonic_lattice import HarmonicLattice, Network

from latticezoo.simulate import create_system
from latticezoo.simulate.linear_response import (
    branches,
    dynamical_matrix,
    exact_dynamical_matrix,
    zone_path,
)
from latticezoo.simulate.observables import wave_vectors
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.lattices import Lattice, chain, honeycomb, square

WEAK = create_system("holstein_weak")
STRONG = create_system("holstein_strong")


@pytest.mark.parametrize(
    ("system", "lattice"),
    [
        (WEAK, square(6)),
        (WEAK, square(5, 8)),
        (STRONG, square(6)),
        (WEAK, chain(10)),
        (replace(WEAK, filling=0.3), square(6)),
        (replace(WEAK, chemical_potential=0.0), square(6)),
        (replace(WEAK, chemical_potential=-0.7, temperature=0.3), square(6)),
        (replace(WEAK, temperature=0.02), square(6)),
    ],
    ids=lambda value: str(value) if isinstance(value, Lattice) else "",
)
def test_perturbation_theory_agrees_with_the_exact_solver(system, lattice):
    """All wave vectors, q = 0 included, at fixed number and at fixed chemical potential."""
    exact = exact_dynamical_matrix(system, lattice)
    step = 2e-3 * system.temperature / system.g  # small on the scale of the Fermi function
    found = dynamical_matrix(system, lattice, step=step)
    assert exact.shape == (*lattice.shape, 1, 1)
    assert (found - exact).abs().max() < 1e-6


@pytest.mark.parametrize("name", ["jahn_teller_half_filled", "jahn_teller_doped"])
def test_perturbation_theory_of_the_jahn_teller_model(name):
    """Three modes: a matrix for each wave vector, fixed electron number at q = 0."""
    system = create_system(name, temperature=0.1)
    exact = exact_dynamical_matrix(system, square(4))
    found = dynamical_matrix(system, square(4), channels=3, step=2e-4)
    assert exact.shape == (4, 4, 3, 3)
    assert (found - exact).abs().max() < 1e-6
    assert (exact - exact.mH).abs().max() < 1e-12
    # The breathing mode does not feel the electrons when it is uniform: only μ moves.
    assert exact[0, 0, 0].real.tolist() == pytest.approx([system.beta * system.k, 0, 0], abs=1e-12)


def test_uniform_displacement_at_fixed_number_and_fixed_potential():
    """χ(0) = 0 at fixed number; at fixed μ it is the compressibility (1/N) Σ f(1 − f)/T."""
    lattice = square(8)
    elastic = WEAK.k + 4 * WEAK.kappa
    fixed = exact_dynamical_matrix(WEAK, lattice)[0, 0, 0, 0]
    assert fixed.real.item() == pytest.approx(elastic, abs=1e-12)
    open_system = replace(WEAK, chemical_potential=0.0)
    free = exact_dynamical_matrix(open_system, lattice)[0, 0, 0, 0]
    q = wave_vectors(lattice)
    f = torch.sigmoid(2 * q.cos().sum(-1) / WEAK.temperature)
    compressibility = (f * (1 - f)).mean() / WEAK.temperature
    assert free.real.item() == pytest.approx(float(elastic - WEAK.g**2 * compressibility))


def test_wave_of_the_checkerboard():
    """At (π, π) nesting gives χ = (1/N) Σ tanh(ε/2T)/(2ε), by hand; it is the lowest mode."""
    lattice = square(12)
    energies = -2 * wave_vectors(lattice).cos().sum(-1).flatten()
    scaled = energies / (2 * WEAK.temperature)
    flat = energies.abs() < 1e-9
    quotient = torch.where(flat, 1.0, scaled.tanh() / torch.where(flat, 1.0, scaled))
    chi = (quotient / (4 * WEAK.temperature)).mean()
    matrix = exact_dynamical_matrix(WEAK, lattice)[..., 0, 0].real
    expected = WEAK.k - 4 * WEAK.kappa - WEAK.g**2 * float(chi)
    assert matrix[6, 6].item() == pytest.approx(expected, abs=1e-12)
    assert matrix.min() == matrix[6, 6] < 0
    assert (matrix - matrix.T).abs().max() < 1e-12


def test_harmonic_lattice():
    lattice = square(6, 4)
    found = dynamical_matrix(HarmonicLattice(1.3, 0.2), lattice)
    expected = 1.3 + 0.4 * wave_vectors(lattice).cos().sum(-1)
    assert (found[..., 0, 0] - expected).abs().max() < 1e-12
    assert (branches(found)[..., 0] - expected).abs().max() < 1e-12


def test_finite_differences_agree_with_autograd():
    """A network without inversion symmetry: D(q) is complex, and transposed rows must not pass."""
    network, lattice = Network(torch.float64), square(6)
    field = torch.zeros(1, 36, 1, dtype=torch.float64)

    def forces(values):
        return network.forces({"Q": values}, lattice)["Q"]

    jacobian = torch.autograd.functional.jacobian(forces, field)[0, :, 0, 0, :, 0]
    expected = torch.fft.fftn(-jacobian[:, 0].reshape(6, 6))
    found = dynamical_matrix(network, lattice)[..., 0, 0]
    assert expected.imag.abs().max() > 1e-3
    assert (found - expected).abs().max() < 1e-9


def test_path_through_the_zone():
    path = zone_path(square(8))
    q = wave_vectors(square(8))[path.points].abs()
    named = {name: q[index].tolist() for index, name in path.corners[:3]}
    assert named == {"Γ": [0, 0], "X": [np.pi, 0], "M": [np.pi, np.pi]}
    assert path.corners[3] == (12, "Γ")
    assert q[-1].tolist() == [0, 0]
    assert path.distances[-1] == pytest.approx((2 + 2**0.5) * np.pi)
    assert len(q) == len(path.distances) == 13


def test_bad_input():
    with pytest.raises(InputError, match="temperature is 0"):
        exact_dynamical_matrix(replace(WEAK, temperature=0.0), square(6))
    with pytest.raises(InputError, match="one site per cell"):
        dynamical_matrix(WEAK, honeycomb(4))
    with pytest.raises(InputError, match="step is 0"):
        dynamical_matrix(WEAK, square(4), step=0)
    with pytest.raises(InputError, match="no force on 'X'"):
        dynamical_matrix(HarmonicLatticeX(), square(4), field="X")
    for lattice in (chain(8), square(5), square(4, 6)):
        with pytest.raises(InputError, match="Γ–X–M–Γ"):
            zone_path(lattice)


class HarmonicLatticeX(HarmonicLattice):
    """Forces on a field of another name than was displaced."""

    def forces(self, fields, lattice):
        return super().forces({"Q": fields["X"]}, lattice)
