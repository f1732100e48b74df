"""Kernel polynomials: closed forms, exact diagonalization, the theory of their errors."""

import math

import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.special import expit

from latticezoo.simulate.electrons.diagonalize import thermal_state
from latticezoo.simulate.electrons.hopping import hopping_matrix
from latticezoo.simulate.electrons.kpm import (
    chebyshev_moments,
    coefficients,
    expansion_order,
    fermi_order,
    jackson_kernel,
    kpm_thermal_state,
    local_moments,
    trace_moments,
)
from latticezoo.simulate.electrons.operators import Operator, Window, spectral_window
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.lattices import chain, square


def rough_square(L: int, g: float = 1.5, seed: int = 0) -> sparse.csr_array:
    Q = np.random.default_rng(seed).normal(size=L * L)
    return sparse.csr_array(hopping_matrix(square(L)) - sparse.diags_array(g * Q))


def random_hermitian(n: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    h = torch.randn(n, n, dtype=torch.complex128, generator=generator)
    return 0.5 * (h + h.mH)


# ---- moments -----------------------------------------------------------------------------------


def test_moments_of_the_square_lattice():
    """⟨i|H^{2n}|i⟩ = C(2n, n)² closed walks give μ_2n of H/4; L = 10 holds walks of 8 steps."""
    moments = local_moments(
        hopping_matrix(square(10)), 8, Window(-4, 4), sites=torch.tensor([0, 37])
    )
    assert moments.shape == (9, 2)
    assert moments[:, 0].tolist() == pytest.approx(
        [1, 0, -0.5, 0, 0.125, 0, -0.125, 0, 0.0703125], abs=1e-14
    )
    assert (moments[:, 0] - moments[:, 1]).abs().max() < 1e-14
    # The same from the numbers of walks and the power series of T_n.
    powers = [math.comb(n, n // 2) ** 2 / 4**n if n % 2 == 0 else 0.0 for n in range(9)]
    for n in range(9):
        series = np.polynomial.chebyshev.cheb2poly([0] * n + [1])
        assert moments[n, 0].item() == pytest.approx(series @ powers[: n + 1], abs=1e-14)


@pytest.mark.parametrize("order", [0, 1, 2, 7, 10])
def test_moments_of_any_hermitian_matrix(order):
    """⟨v|T_n(x)|v⟩ from the spectrum, for every order the doubling formulas treat differently."""
    h = random_hermitian(15)
    vectors = torch.randn(15, 3, dtype=torch.complex128)
    window = spectral_window(h)
    levels, basis = torch.linalg.eigh(h)
    x = (levels - window.centre) / window.half_width
    weights = (basis.mH @ vectors).abs() ** 2
    expected = torch.cos(torch.arange(order + 1)[:, None] * torch.arccos(x)) @ weights
    found = chebyshev_moments(h, vectors, order, window)
    assert (found - expected).abs().max() < 1e-11


def test_matrices_of_every_kind_and_products_agree():
    h = rough_square(4)
    dense = torch.from_numpy(h.toarray())
    window = spectral_window(h)
    reference = local_moments(h, 12, window)
    operator = Operator(lambda block: dense @ block, 16)
    for same in (dense, h.toarray(), dense.to_sparse_csr(), dense.to_sparse_coo(), operator):
        assert (local_moments(same, 12, window) - reference).abs().max() < 1e-13


def test_stochastic_traces_are_within_their_errors():
    h = rough_square(12)
    window = spectral_window(h)
    exact = local_moments(h, 40, window).mean(1)
    found, error = trace_moments(h, 40, window, n_random=64)
    assert found[0] == 1
    assert error[0] == 0
    assert error[1:].max() < 0.02
    assert ((found - exact)[1:].abs() < 4 * error[1:]).all()
    again, _ = trace_moments(h, 40, window, n_random=64)
    assert torch.equal(found, again)
    other, _ = trace_moments(h, 40, window, n_random=64, seed=1)
    assert not torch.equal(found, other)
    complex_h = random_hermitian(30)
    found, error = trace_moments(complex_h, 20, n_random=256)
    exact = local_moments(complex_h, 20).mean(1)
    assert ((found - exact)[1:].abs() < 4 * error[1:]).all()


# ---- the window --------------------------------------------------------------------------------


def test_windows_hold_the_spectrum():
    for h in (rough_square(6), random_hermitian(20).numpy(), hopping_matrix(chain(9))):
        levels = thermal_state(h, 0.0, mu=0.0).levels[0]
        matrix = Operator.of(h)
        products = Operator(matrix.product, matrix.size, matrix.dtype)
        for window in (spectral_window(h), spectral_window(products)):
            assert window.lower < levels[0]
            assert window.upper > levels[-1]
    # Lanczos comes close, where Gershgorin is generous.
    assert spectral_window(products).half_width == pytest.approx(
        0.5 * float(levels[-1] - levels[0]), rel=0.01
    )


def test_a_window_that_is_too_narrow_is_refused():
    h = rough_square(6)
    with pytest.raises(InputError, match=r"the spectrum reaches at least .* beyond the window"):
        kpm_thermal_state(h, 0.1, 18, window=Window(-4, 4))
    with pytest.raises(InputError, match="beyond the window"):
        chebyshev_moments(h, torch.ones(36, 1), 100, Window(-30, 3))
    with pytest.raises(InputError, match="lower end must lie below"):
        Window(1, 1)


# ---- expansions --------------------------------------------------------------------------------


def test_coefficients_sum_to_the_function():
    window, T = Window(-3, 5), 0.3

    def fermi(energy):
        return expit((0.7 - energy) / T)

    order = expansion_order(fermi, window, 1e-8)
    c = coefficients(fermi, order, window)
    x = np.linspace(-1, 1, 2001)
    series = np.polynomial.chebyshev.chebval(x, c)
    error = np.abs(series - fermi(window.energies(x))).max()
    assert error < 1e-8
    # No more terms than needed: four fewer would miss it.
    shorter = np.polynomial.chebyshev.chebval(x, c[: order - 3])
    assert np.abs(shorter - fermi(window.energies(x))).max() > 1e-9


@pytest.mark.parametrize("temperature", [0.02, 0.1, 0.5])
@pytest.mark.parametrize("error", [1e-3, 1e-6, 1e-9])
def test_automatic_order_follows_from_temperature_and_error(temperature, error):
    """M = ln(C/error)/asinh(πT/a), with C of order a/T, serves every μ."""
    window = Window(-4, 4)
    order = fermi_order(temperature, window, error)
    rate = math.asinh(math.pi * temperature / 4)
    assert math.log(1 / error) / rate * 0.8 < order < math.log(20 / error / rate) / rate
    x = np.linspace(-1, 1, 4001)
    for mu in (-3.9, -1.3, 0.0, 2.6, 6.0):

        def fermi(energy, mu=mu):
            return expit((mu - energy) / temperature)

        series = np.polynomial.chebyshev.chebval(x, coefficients(fermi, order, window))
        assert np.abs(series - fermi(window.energies(x))).max() < error


def density_errors(h, temperature, orders, jackson):
    exact = thermal_state(h, temperature, mu=0.0).density[0]
    return [
        (kpm_thermal_state(h, temperature, mu=0.0, order=m, jackson=jackson).density - exact)
        .abs()
        .max()
        .item()
        for m in orders
    ]


def test_plain_series_converges_exponentially():
    """Error e^{−πTM/a}: the fitted rate agrees with πT/a within five per cent."""
    h, T = rough_square(6), 0.2
    a = spectral_window(h).half_width
    orders = np.arange(40, 400, 10)
    errors = np.array(density_errors(h, T, orders, jackson=False))
    assert errors[0] > 1e-3
    assert errors[-1] < 1e-9
    above = errors > 1e-11  # rounding
    rate = -np.polyfit(orders[above], np.log(errors[above]), 1)[0]
    assert rate == pytest.approx(math.pi * T / a, rel=0.05)


def test_jackson_kernel_converges_with_the_second_power_only():
    """The reason for no kernel at T > 0: doubling the order quarters the error."""
    h, T = rough_square(6), 0.2
    orders = [512, 1024, 2048]
    errors = density_errors(h, T, orders, jackson=True)
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.1)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.1)
    # Five orders of magnitude at equal order.
    assert errors[0] > 1e5 * density_errors(h, T, [512], jackson=False)[0]


def test_jackson_kernel_is_the_positive_one():
    g = jackson_kernel(50)
    assert g[0] == pytest.approx(1)
    assert (np.diff(g) < 0).all()
    x = np.cos(np.linspace(0, np.pi, 4001))
    delta = 1 + 2 * np.polynomial.chebyshev.chebval(x, np.r_[0, g[1:]])
    assert delta.min() > -1e-12


# ---- thermal averages --------------------------------------------------------------------------


@pytest.mark.parametrize("ensemble", [{"n_electrons": 30.5}, {"mu": -0.7}])
@pytest.mark.parametrize("error", [1e-4, 1e-6, 1e-9])
def test_density_and_free_energy_agree_with_diagonalization(ensemble, error):
    h, T = rough_square(8), 0.1
    exact = thermal_state(h, T, **ensemble)
    found = kpm_thermal_state(h, T, error=error, **ensemble)
    assert (found.density - exact.density[0]).abs().max() < error
    assert found.n_electrons == pytest.approx(exact.n_electrons.item(), abs=64 * error)
    assert found.free_energy == pytest.approx(exact.free_energy.item(), abs=64 * error)
    assert found.grand_potential == pytest.approx(exact.grand_potential.item(), abs=64 * error)


def test_thermal_average_of_a_complex_matrix():
    """Spin–orbit, magnetic fields and spirals make h complex."""
    h = random_hermitian(24)
    exact = thermal_state(h, 0.3, 9)
    found = kpm_thermal_state(h, 0.3, 9, error=1e-6)
    assert (found.density - exact.density[0]).abs().max() < 1e-6
    assert found.mu == pytest.approx(exact.mu.item(), abs=1e-5)


def test_bad_input_is_named():
    h = hopping_matrix(square(4))
    with pytest.raises(InputError, match=r"temperature is 0.0; .* need T > 0"):
        kpm_thermal_state(h, 0.0, 8)
    with pytest.raises(InputError, match="17 electrons"):
        kpm_thermal_state(h, 0.1, 17)
    with pytest.raises(InputError, match="beyond order"):
        kpm_thermal_state(h, 1e-8, 8)
    with pytest.raises(InputError, match="error of an expansion is 0"):
        kpm_thermal_state(h, 0.1, 8, error=0)
    with pytest.raises(InputError, match="at least 2 vectors"):
        trace_moments(h, 4, n_random=1)
    with pytest.raises(InputError, match="order of a Chebyshev expansion is -1"):
        chebyshev_moments(h, torch.ones(16, 1), -1)
    with pytest.raises(InputError, match=r"not \[4, 3\]"):
        Operator.of(torch.zeros(4, 3))
    with pytest.raises(InputError, match="NaN"):
        Operator.of(torch.full((3, 3), math.nan))
