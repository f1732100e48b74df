"""Exact electrons: closed forms, derivatives of the free energy, the filling of levels."""

import logging
import math

import numpy as np
import pytest
import scipy.optimize
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from latticezoo.simulate.electrons import diagonalize
from latticezoo.simulate.electrons.diagonalize import thermal_state
from latticezoo.simulate.electrons.fermi import fill
from latticezoo.simulate.electrons.hopping import hopping_matrix
from latticezoo.simulate.workers import close_workers
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.lattices import chain, square


def random_hermitian(batch: int, n: int, seed: int = 0, kind=torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    h = torch.randn(batch, n, n, dtype=kind, generator=generator)
    return 0.5 * (h + h.mH)


# ---- closed forms ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("L", "ground", "warm"),
    [(8, -0.7910533906, -0.7908445073), (16, -0.8054419490, -0.8041015669)],
)
def test_half_filled_square_lattice_at_zero_and_finite_temperature(L, ground, warm):
    h, n = hopping_matrix(square(L)), L * L
    cold = thermal_state(h, 0.0, n / 2)
    k = 2 * np.pi * np.arange(L) / L
    band = -2 * (np.cos(k)[:, None] + np.cos(k))
    assert cold.band_energy.item() / n == pytest.approx(-0.5 * np.abs(band).mean(), abs=1e-13)
    assert cold.band_energy.item() / n == pytest.approx(ground, abs=1e-10)
    # The 2L − 2 levels at the Fermi energy are filled by one half each: a uniform density.
    assert cold.density.sub(0.5).abs().max() < 1e-13
    hot = thermal_state(h, 0.1, n / 2)
    assert hot.band_energy.item() / n == pytest.approx(warm, abs=1e-10)
    assert abs(hot.mu.item()) < 1e-13


def dimer(g: float, Q1: float, Q2: float, t: float = 1.0) -> torch.Tensor:
    """One open bond between two sites with displacements."""
    return torch.tensor([[[-g * Q1, -t], [-t, -g * Q2]]], dtype=torch.float64)


def dimer_energy(Q: float, g: float, K: float, temperature: float) -> float:
    """Free energy of H at Q1 = −Q2 = Q, the constant (g/2)(Q1 + Q2) being zero."""
    return thermal_state(dimer(g, Q, -Q), temperature, 1).free_energy.item() + K * Q * Q


def test_dimer_ground_state():
    g, K = 2.0, 1.0
    for Q in (0.0, 0.3, 0.9):
        assert dimer_energy(Q, g, K, 0.0) == pytest.approx(
            -math.sqrt(1 + g * g * Q * Q) + K * Q * Q, abs=1e-13
        )
    best = math.sqrt(g * g / (4 * K * K) - 1 / (g * g))
    assert best == pytest.approx(0.8660254, abs=1e-7)
    assert dimer_energy(best, g, K, 0.0) == pytest.approx(-1.25, abs=1e-13)
    found = scipy.optimize.minimize_scalar(
        lambda Q: dimer_energy(Q, g, K, 0.0), bounds=(0.2, 2), method="bounded"
    )
    assert found.x == pytest.approx(best, abs=1e-5)
    n1, n2 = thermal_state(dimer(g, best, -best), 0.0, 1).density[0].tolist()
    # The forces F = g (n − ½) − K Q vanish there.
    assert g * (n1 - 0.5) - K * best == pytest.approx(0, abs=1e-13)
    assert g * (n2 - 0.5) + K * best == pytest.approx(0, abs=1e-13)


def test_warm_dimer():
    T, Q, g, K = 0.2, 0.5, 2.0, 1.0
    n1, n2 = thermal_state(dimer(g, Q, -Q), T, 1).density[0].tolist()
    D = math.sqrt(1 + g * g * Q * Q)
    assert n1 - n2 == pytest.approx(g * Q / D * math.tanh(D / (2 * T)), abs=1e-13)
    assert n1 - n2 == pytest.approx(0.7059067, abs=1e-7)
    force = g * (n1 - 0.5) - K * Q
    assert force == pytest.approx(0.2059067, abs=1e-7)
    step = 1e-4
    up = thermal_state(dimer(g, Q + step, -Q), T, 1).free_energy.item()
    down = thermal_state(dimer(g, Q - step, -Q), T, 1).free_energy.item()
    # dA/dQ1 + g/2 + K Q1 is minus the force on site 1.
    assert force == pytest.approx(-(up - down) / (2 * step) - g / 2 - K * Q, abs=1e-6)


@pytest.mark.parametrize(("Q1", "Q2"), [(0.7, -0.2), (-1.1, 0.4), (0.3, 0.3)])
def test_two_site_density_at_zero_temperature(Q1, Q2):
    g, t = 1.5, 1.0
    x = g * (Q1 - Q2)
    expected = 0.5 * (1 + x / math.sqrt(x * x + 4 * t * t))
    assert thermal_state(dimer(g, Q1, Q2, t), 0.0, 1).density[0, 0].item() == pytest.approx(
        expected, abs=1e-14
    )


def test_open_chain_levels():
    n = 7
    h = -torch.diag(torch.ones(n - 1, dtype=torch.float64), 1)
    levels = thermal_state(h + h.T, 0.3, 3).levels[0]
    expected = -2 * np.cos(np.pi * np.arange(1, n + 1) / (n + 1))
    assert np.abs(levels.numpy() - expected).max() < 1e-14


# ---- filling -----------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    levels=st.lists(st.floats(-6, 6), min_size=2, max_size=12),
    filling=st.floats(0.02, 0.98),
    temperature=st.sampled_from([1e-7, 1e-3, 0.05, 1.0, 50.0]),
)
def test_electron_number_and_thermodynamics_of_any_levels(levels, filling, temperature):
    ordered = np.sort(np.array(levels))
    number = filling * len(ordered)
    found = fill(ordered, temperature, number)
    # The last bit of μ shifts (ε − μ)/T by 1e-15/T, for each of up to 12 levels.
    rounding = 1e-12 + 4e-15 / temperature
    assert found.occupations.sum() == pytest.approx(number, abs=rounding)
    assert found.n_electrons == number
    assert found.occupations == pytest.approx(expit((found.mu - ordered) / temperature), abs=1e-12)
    # A = ⟨H⟩ − T S, and Ω = A − μ N.
    assert found.free_energy == pytest.approx(
        found.band_energy - temperature * found.entropy, abs=6 * rounding, rel=1e-12
    )
    assert found.grand_potential == pytest.approx(
        found.free_energy - found.mu * number, abs=6 * rounding, rel=1e-12
    )
    # The same μ, given, gives the same state.
    again = fill(ordered, temperature, mu=found.mu)
    assert np.array_equal(again.occupations, found.occupations)


def test_chemical_potential_deep_in_a_gap():
    """Populations e^{−gap/2T} underflow, yet μ − middle = ½ T ln(2) for 2 levels below, 1 above."""
    for temperature in (1e-2, 1e-3, 1e-5, 1e-7):
        found = fill(np.array([-3.0, -3.0, 5.0]), temperature, 2)
        assert found.mu == pytest.approx(1 + 0.5 * temperature * math.log(2), abs=1e-15)
        assert found.occupations == pytest.approx([1, 1, 0], abs=1e-15)
    assert fill(np.array([-3.0, -3.0, 5.0]), 0.0, 2).mu == 1.0


def test_degenerate_and_fractional_fillings_reach_their_limit_at_zero_temperature():
    levels = np.array([-2.0, 0.0, 0.0, 0.0, 0.0, 1.0])
    for number in (0.4, 2.0, 3.0, 3.7, 5.25):
        limit = fill(levels, 0.0, number)
        near = fill(levels, 1e-4, number)
        assert near.occupations == pytest.approx(limit.occupations, abs=1e-12)
        assert near.mu == pytest.approx(limit.mu, abs=5e-4)
        assert near.free_energy == pytest.approx(limit.free_energy, abs=1e-3)
        assert limit.occupations.sum() == pytest.approx(number, abs=1e-14)
    # 2 electrons: the second shares the four levels at zero.
    assert fill(levels, 0.0, 2.0).occupations == pytest.approx([1, 0.25, 0.25, 0.25, 0.25, 0])
    # A level at a given μ is half filled, split by rounding or not.
    split = levels + 1e-15 * np.arange(6)
    assert fill(split, 0.0, mu=0.0).occupations == pytest.approx([1, 0.5, 0.5, 0.5, 0.5, 0])
    assert fill(split, 0.0, 3.0).occupations == pytest.approx([1, 0.5, 0.5, 0.5, 0.5, 0])


def test_wide_range_of_temperatures_is_continuous():
    levels = np.linalg.eigvalsh(random_hermitian(1, 30, 5)[0].numpy())
    mus = [fill(levels, T, 11).mu for T in (0.0, 1e-12, 1e-9, 1e-6, 1e-4)]
    assert np.ptp(mus[:4]) < 1e-5
    assert abs(mus[4] - mus[0]) < 1e-3
    hot = fill(levels, 1e6, 11)
    assert hot.occupations == pytest.approx(11 / 30, abs=1e-5)


# ---- derivatives -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [torch.float64, torch.complex128])
@pytest.mark.parametrize("ensemble", [{"n_electrons": 5.0}, {"mu": 0.3}])
def test_density_matrix_is_the_derivative_of_the_free_energy(kind, ensemble):
    h = random_hermitian(1, 12, 1, kind)
    change = random_hermitian(1, 12, 2, kind)
    state = thermal_state(h, 0.2, density_matrix=True, **ensemble)
    rho = state.density_matrix[0]
    assert (rho.diagonal().real - state.density[0]).abs().max() < 1e-14
    assert (rho - rho.mH).abs().max() < 1e-14
    assert torch.trace(rho @ h[0]).real == pytest.approx(state.band_energy.item(), abs=1e-12)
    potential = "free_energy" if "n_electrons" in ensemble else "grand_potential"
    step = 1e-4
    up, down = (
        getattr(thermal_state(h + s * step * change, 0.2, **ensemble), potential).item()
        for s in (1, -1)
    )
    slope = torch.trace(rho @ change[0]).real.item()
    assert (up - down) / (2 * step) == pytest.approx(slope, abs=1e-6)


# ---- batches, processes, devices ---------------------------------------------------------------


@pytest.fixture(scope="module")
def batch():
    generator = torch.Generator().manual_seed(3)
    return torch.randn(7, 36, dtype=torch.float64, generator=generator)


def same_bits(one, other, rows=slice(None)):
    return all(
        torch.equal(getattr(one, name), getattr(other, name)[rows])
        for name in ("mu", "density", "free_energy", "grand_potential", "band_energy", "levels")
    )


def test_bits_do_not_depend_on_the_batch_or_the_number_of_workers(batch):
    h = hopping_matrix(square(6))
    whole = thermal_state(h, 0.1, 18, diagonal=batch)
    for row in range(len(batch)):
        alone = thermal_state(h, 0.1, 18, diagonal=batch[row : row + 1])
        assert same_bits(alone, whole, slice(row, row + 1))
    order = torch.tensor([4, 0, 6, 2])
    assert same_bits(thermal_state(h, 0.1, 18, diagonal=batch[order]), whole, order)
    try:
        for workers in (2, 3):
            assert same_bits(thermal_state(h, 0.1, 18, diagonal=batch, workers=workers), whole)
        # Whole matrices and another ensemble go through the same pool.
        dense = torch.from_numpy(h.toarray()) + torch.diag_embed(batch)
        assert same_bits(
            thermal_state(dense, 0.1, mu=0.2, workers=2), thermal_state(dense, 0.1, mu=0.2)
        )
    finally:
        close_workers()


def test_dense_sparse_and_numpy_input_agree(batch):
    h = hopping_matrix(square(6))
    sparse = thermal_state(h, 0.1, 18, diagonal=batch)
    assert same_bits(thermal_state(h.toarray(), 0.1, 18, diagonal=batch), sparse)
    dense = torch.from_numpy(h.toarray()) + torch.diag_embed(batch)
    assert same_bits(thermal_state(dense, 0.1, 18), sparse)
    assert same_bits(thermal_state(dense[2], 0.1, 18), sparse, slice(2, 3))
    assert torch.equal(dense, torch.from_numpy(h.toarray()) + torch.diag_embed(batch))


@pytest.mark.parametrize("kind", [torch.float64, torch.complex128])
def test_batched_torch_solver_agrees_with_lapack(kind):
    h = random_hermitian(4, 20, 4, kind)
    options = {"temperature": 0.1, "n_electrons": 7.5, "density_matrix": True}
    one, other = (thermal_state(h, backend=name, **options) for name in ("lapack", "torch"))
    for name in ("mu", "density", "free_energy", "entropy", "levels", "density_matrix"):
        assert (getattr(one, name) - getattr(other, name)).abs().max() < 1e-12, name
    sparse = hopping_matrix(chain(8))
    diagonal = torch.arange(16, dtype=torch.float64).reshape(2, 8) / 10
    one, other = (
        thermal_state(sparse, 0.1, 4, diagonal=diagonal, backend=name)
        for name in ("lapack", "torch")
    )
    assert (one.density - other.density).abs().max() < 1e-12


def test_unsound_eigenvectors_are_found_and_replaced(monkeypatch, caplog):
    """A batched solver that returns vectors which are not orthonormal, or NaN, is not believed."""
    h = random_hermitian(3, 8, 6)
    good = thermal_state(h, 0.1, 4, backend="lapack")
    exact = torch.linalg.eigh

    def broken(matrices):
        levels, vectors = exact(matrices)
        vectors[1, :, 2] = vectors[1, :, 3]
        vectors[2, 0, 0] = torch.nan
        return levels, vectors

    monkeypatch.setattr(diagonalize.torch.linalg, "eigh", broken)
    with caplog.at_level(logging.WARNING):
        found = thermal_state(h, 0.1, 4, backend="torch")
    assert "2 of 3" in caplog.text
    assert (found.density - good.density).abs().max() < 1e-12

    def failing(matrices):
        raise torch.linalg.LinAlgError("no convergence")

    monkeypatch.setattr(diagonalize.torch.linalg, "eigh", failing)
    found = thermal_state(h, 0.1, 4, backend="torch")
    assert (found.density - good.density).abs().max() < 1e-12
    assert (found.levels - good.levels).abs().max() < 1e-12


# ---- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -0.1, "n_electrons": 2}, "temperature is -0.1"),
        ({"temperature": math.nan, "n_electrons": 2}, "temperature is nan"),
        ({"temperature": 0.1}, "either the number of electrons or the chemical potential"),
        ({"temperature": 0.1, "n_electrons": 2, "mu": 0.0}, "not both"),
        ({"temperature": 0.1, "n_electrons": 4}, "4 electrons"),
        ({"temperature": 0.1, "n_electrons": 0}, "0 electrons"),
        ({"temperature": 0.1, "mu": math.inf}, "chemical potential is inf"),
        ({"temperature": 0.1, "mu": 0.0, "workers": 0}, "workers is 0"),
        ({"temperature": 0.1, "mu": 0.0, "backend": "torhc"}, "did you mean torch"),
        ({"temperature": 0.1, "mu": 0.0, "diagonal": torch.zeros(2, 3)}, r"\[2, 3\]"),
    ],
)
def test_bad_input_is_named(options, message):
    with pytest.raises(InputError, match=message):
        thermal_state(torch.eye(4), **options)


def test_bad_matrices_are_named():
    with pytest.raises(InputError, match="NaN"):
        thermal_state(torch.full((4, 4), math.nan), 0.1, 2)
    with pytest.raises(InputError, match=r"not \[4, 3\]"):
        thermal_state(torch.zeros(4, 3), 0.1, 2)
    with pytest.raises(InputError, match="too small for nearest-neighbour hopping"):
        hopping_matrix(square(2, 4))
