"""Kernel polynomials for spins on a lattice: products, exact traces, random vectors, refusals."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import sparse

from latticezoo.simulate.electrons.diagonalize import averaged_state
from latticezoo.simulate.electrons.operators import Operator, Window, spectral_window
from latticezoo.simulate.electrons.shell_hopping import ShellHopping, twist_grid
from latticezoo.simulate.electrons.spin_kpm import charge_spin, spin_state, strict_window
from latticezoo.simulate.electrons.spin_products import spin_operator
from latticezoo.simulate.workers import close_workers
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.lattices import Lattice, chain, square, triangular

LATTICE = triangular(6)
AMPLITUDES = (1.0, 0.0, -0.85)
ENSEMBLES = [{"mu": -3.5}, {"n_electrons": 20.5}]


def random_blocks(lattice: Lattice, batch: int = 2, seed: int = 0, size: float = 0.4):
    """Hermitian blocks, charge and spin parts."""
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, lattice.n_sites, 2, 2)
    blocks = torch.randn(shape, dtype=torch.complex128, generator=generator)
    return size * 0.5 * (blocks + blocks.mH)


def whole_matrix(hopping: ShellHopping, blocks: torch.Tensor) -> np.ndarray:
    """h of one configuration, state (i, spin) in row 2i + spin."""
    matrix = sparse.kron(hopping.matrix(), np.eye(2)).toarray().astype(complex)
    for site, block in enumerate(blocks.numpy()):
        matrix[2 * site : 2 * site + 2, 2 * site : 2 * site + 2] += block
    return matrix


def by_diagonalization(hoppings, blocks, temperature, ensemble, **options):
    matrices = [sparse.csr_array(sparse.kron(h.matrix(), np.eye(2))) for h in hoppings]
    return averaged_state(matrices, temperature, **ensemble, site_blocks=blocks, **options)


# ---- hopping -----------------------------------------------------------------------------------


lattices = st.sampled_from([square(5), square(5, 6), triangular(5), triangular(6, 5), chain(7)])
numbers = st.floats(-1.5, 1.5, allow_nan=False)
turns = st.one_of(st.sampled_from([0.0, 0.5, 0.25, 1.0]), st.floats(-1, 1, allow_nan=False))


@settings(max_examples=30, deadline=None)
@example(square(5), [1e-310, 1.0], [0.0, 0.0])
@example(square(5), [0.0], [0.0, 0.0])
@given(lattices, st.lists(numbers, min_size=1, max_size=2), st.lists(turns, min_size=2, max_size=2))
def test_products_matrix_and_closed_form_agree(lattice, amplitudes, twist):
    hopping = ShellHopping(lattice, tuple(amplitudes), tuple(twist[: lattice.dim]))
    bare = hopping.matrix().toarray()
    assert np.abs(bare - bare.conj().T).max() < 1e-14
    assert np.abs(np.linalg.eigvalsh(bare) - np.sort(hopping.levels())).max() < 1e-12
    blocks = random_blocks(lattice)[0]
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(2 * lattice.n_sites, 3, dtype=torch.complex128, generator=generator)
    expected = torch.from_numpy(whole_matrix(hopping, blocks)) @ vectors
    assert (spin_operator(hopping, blocks).product(vectors) - expected).abs().max() < 1e-12


def test_bottom_of_the_band_is_at_zero_momentum():
    """The minus sign: ε(k) = −2t Σ cos."""
    hopping = ShellHopping(triangular(12), AMPLITUDES)
    assert hopping.levels()[0] == pytest.approx(-6 + 6 * 0.85)
    assert ShellHopping(square(8), (1.0,)).levels()[0] == -4


@pytest.mark.parametrize("twist", [(0.0, 0.0), (0.5, 0.0), (0.3, 0.9)])
def test_twists_are_the_momenta_of_a_larger_torus(twist):
    small, large = triangular(4, 6), triangular(12, 18)
    levels = [ShellHopping(small, (1.0, 0.4), t).levels() for t in twist_grid(twist, 3)]
    whole = ShellHopping(large, (1.0, 0.4), twist).levels()
    assert np.abs(np.sort(np.concatenate(levels)) - np.sort(whole)).max() < 1e-12


def test_a_torus_too_small_for_a_shell_is_refused():
    with pytest.raises(InputError, match=r"triangular\(4, 4\) is too small for hopping to .* 3"):
        ShellHopping(triangular(4), AMPLITUDES)
    with pytest.raises(InputError, match="needs 2 numbers"):
        ShellHopping(square(4), (1.0,), (0.5,))


def test_complex_sparse_matrices_are_operators():
    hopping = ShellHopping(LATTICE, AMPLITUDES, (0.1, 0.2))
    blocks = random_blocks(LATTICE)[0]
    whole = whole_matrix(hopping, blocks)
    operator = Operator.of(sparse.csr_array(whole))
    vectors = torch.randn(72, 3, dtype=torch.complex128)
    expected = spin_operator(hopping, blocks).product(vectors)
    assert (operator.product(vectors) - expected).abs().max() < 1e-12
    levels, window = np.linalg.eigvalsh(whole), spectral_window(sparse.csr_array(whole))
    assert window.lower < levels[0] < levels[-1] < window.upper


# ---- averages over twists by diagonalization ---------------------------------------------------


@pytest.mark.parametrize("ensemble", ENSEMBLES)
@pytest.mark.parametrize("temperature", [0.0, 0.1])
def test_twist_average_is_the_repeated_configuration(ensemble, temperature):
    """One chemical potential for all twists makes them one large torus, exactly."""
    small, large = square(4, 3), square(8, 6)
    blocks = random_blocks(small)
    repeated = blocks.reshape(2, 4, 3, 2, 2).repeat(1, 2, 2, 1, 1).reshape(2, 48, 2, 2)
    if "mu" not in ensemble:
        ensemble = {"n_electrons": 7.25}
    twist = (0.2, 0.5)
    few = [ShellHopping(small, (1.0,), t) for t in twist_grid(twist, 2)]
    found = by_diagonalization(few, blocks, temperature, ensemble)
    if "mu" not in ensemble:
        ensemble = {"n_electrons": 29.0}
    whole = by_diagonalization(
        [ShellHopping(large, (1.0,), twist)], repeated, temperature, ensemble
    )
    assert (found.levels - whole.levels).abs().max() < 1e-12
    assert (found.mu - whole.mu).abs().max() < 1e-11
    for name in ("free_energy", "grand_potential", "band_energy", "entropy", "n_electrons"):
        assert (4 * getattr(found, name) - getattr(whole, name)).abs().max() < 1e-10
    tiled = found.site_density.reshape(2, 4, 3, 2, 2).repeat(1, 2, 2, 1, 1).reshape(2, 48, 2, 2)
    assert (tiled - whole.site_density).abs().max() < 1e-10
    diagonal = found.site_density.diagonal(dim1=2, dim2=3).real.flatten(1)
    assert (found.density - diagonal).abs().max() < 1e-14


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_average_does_not_depend_on_batch_workers_or_solver(ensemble):
    blocks = random_blocks(LATTICE, 3)
    hoppings = [ShellHopping(LATTICE, AMPLITUDES, t) for t in twist_grid((0, 0), 2)]
    found = by_diagonalization(hoppings, blocks, 0.1, ensemble)
    alone = by_diagonalization(hoppings, blocks[1:2], 0.1, ensemble)
    shared = by_diagonalization(hoppings, blocks, 0.1, ensemble, workers=2)
    close_workers()
    torch_state = by_diagonalization(hoppings, blocks, 0.1, ensemble, backend="torch")
    for name in ("mu", "free_energy", "site_density", "levels"):
        assert torch.equal(getattr(found, name)[1], getattr(alone, name)[0])
        assert torch.equal(getattr(found, name), getattr(shared, name))
        assert (getattr(found, name) - getattr(torch_state, name)).abs().max() < 1e-11


# ---- exact traces ------------------------------------------------------------------------------


@pytest.mark.parametrize("ensemble", ENSEMBLES)
@pytest.mark.parametrize("error", [1e-3, 1e-6, 1e-9])
@pytest.mark.parametrize("twists", [1, 2])
def test_agrees_with_diagonalization_to_the_requested_error(ensemble, error, twists):
    blocks = random_blocks(LATTICE)
    hoppings = [ShellHopping(LATTICE, AMPLITUDES, t) for t in twist_grid((0, 0.3), twists)]
    exact = by_diagonalization(hoppings, blocks, 0.2, ensemble)
    found = spin_state(hoppings, blocks, 0.2, **ensemble, error=error)
    # Tr(σρ) is off by the errors of both eigenvalues of a block.
    assert (found.charge_spin - charge_spin(exact.site_density)).abs().max() < 2 * error
    fixed = "mu" in ensemble
    energies = ("grand_potential" if fixed else "free_energy"), "n_electrons"
    for name in energies:
        deviation = (getattr(found, name) - getattr(exact, name)).abs().max()
        assert deviation < 2 * error * LATTICE.n_sites
    # No more terms than needed: with a third fewer, the error is passed.
    fewer = spin_state(hoppings, blocks, 0.2, **ensemble, order=found.order * 2 // 3)
    assert (fewer.charge_spin - charge_spin(exact.site_density)).abs().max() > 0.1 * error


@pytest.mark.parametrize("order", [0, 1, 2, 3, 8])
def test_short_series_of_every_parity(order):
    """Σ c_n T_n(x) from the spectrum, for the orders that the doubling treats differently."""
    lattice, T, mu = square(3), 0.5, 0.3
    hopping, blocks = ShellHopping(lattice, (1.0,)), random_blocks(square(3), 1)
    found = spin_state([hopping], blocks, T, mu=mu, order=order)
    levels, vectors = np.linalg.eigh(whole_matrix(hopping, blocks[0]))
    x = (levels - found.window.centre) / found.window.half_width
    # As many nodes as the library takes: aliasing is part of a short series.
    count = max(2 * (order + 1), 16)
    nodes = np.cos(np.pi * (np.arange(count) + 0.5) / count)
    fermi = 1 / (1 + np.exp((found.window.energies(nodes) - mu) / T))
    c = [(2 - (n == 0)) * np.mean(fermi * np.cos(n * np.arccos(nodes))) for n in range(order + 1)]
    rho = (vectors * np.polynomial.chebyshev.chebval(x, c)) @ vectors.conj().T
    own = rho.reshape(9, 2, 9, 2)[np.arange(9), :, np.arange(9)]
    assert (charge_spin(torch.from_numpy(own)) - found.charge_spin[0]).abs().max() < 1e-13


def test_without_hopping_every_site_is_alone():
    lattice = square(3)
    blocks = random_blocks(lattice)
    found = spin_state([ShellHopping(lattice, (0.0,))], blocks, 0.3, mu=0.1)
    levels, vectors = torch.linalg.eigh(blocks)
    occupied = torch.sigmoid((0.1 - levels) / 0.3)
    rho = vectors @ torch.diag_embed(occupied).to(vectors) @ vectors.mH
    assert (found.charge_spin - charge_spin(rho)).abs().max() < 2e-6


def test_bits_do_not_depend_on_batch_or_workers():
    blocks = random_blocks(LATTICE, 3)
    hopping = [ShellHopping(LATTICE, AMPLITUDES, (0.1, 0.0))]
    options = {"window": strict_window(hopping, -2.0, 2.0), "error": 1e-3}
    try:
        for probes in ({}, {"n_random": 3, "spacing": 2}):
            found = spin_state(hopping, blocks, 0.5, 20.0, **options, **probes)
            alone = spin_state(hopping, blocks[1:2], 0.5, 20.0, **options, **probes)
            shared = spin_state(hopping, blocks, 0.5, 20.0, workers=2, **options, **probes)
            for name in ("mu", "free_energy", "charge_spin"):
                assert torch.equal(getattr(found, name)[1], getattr(alone, name)[0])
                assert torch.equal(getattr(found, name), getattr(shared, name))
    finally:
        close_workers()


# ---- random vectors ----------------------------------------------------------------------------


@pytest.mark.parametrize("ensemble", ENSEMBLES)
@pytest.mark.parametrize(("count", "spacing"), [(48, 1), (24, 2)])
def test_random_vectors_are_within_their_errors(ensemble, count, spacing):
    blocks = random_blocks(LATTICE)
    hoppings = [ShellHopping(LATTICE, AMPLITUDES, (0.2, 0.1))]
    exact = by_diagonalization(hoppings, blocks, 0.3, ensemble)
    options = {"n_random": count, "spacing": spacing, **ensemble}
    found = spin_state(hoppings, blocks, 0.3, **options)
    deviation = (found.charge_spin - charge_spin(exact.site_density)) / found.charge_spin_error
    assert deviation.abs().max() < 5
    # The errors are neither too large nor too small; the sites are not independent.
    assert 0.7 < deviation.square().mean().sqrt() < 1.3
    name = "grand_potential" if "mu" in ensemble else "free_energy"
    off = (getattr(found, name) - getattr(exact, name)) / found.energy_error
    assert off.abs().max() < 5
    assert (found.energy_error > 0).all()
    assert torch.equal(spin_state(hoppings, blocks, 0.3, **options).charge_spin, found.charge_spin)
    other = spin_state(hoppings, blocks, 0.3, seed=1, **options)
    assert not torch.equal(other.charge_spin, found.charge_spin)


def test_estimates_turn_with_the_spins():
    """Both spins have the same phases: a rotation of all spins turns the estimate exactly."""
    generator = torch.Generator().manual_seed(3)
    unitary, _ = torch.linalg.qr(torch.randn(2, 2, dtype=torch.complex128, generator=generator))
    pauli = torch.tensor([[[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]])
    pauli = pauli.to(torch.complex128)
    rotation = 0.5 * torch.einsum("aij,jk,bkl,il->ab", pauli, unitary, pauli, unitary.conj()).real
    assert (rotation @ rotation.T - torch.eye(3)).abs().max() < 1e-12
    blocks, hopping = random_blocks(LATTICE), [ShellHopping(LATTICE, AMPLITUDES)]
    options = {"temperature": 0.3, "n_electrons": 20.0, "n_random": 2, "error": 1e-8}
    options["window"] = strict_window(hopping, -2.0, 2.0)
    found = spin_state(hopping, blocks, **options)
    turned = spin_state(hopping, unitary @ blocks @ unitary.mH, **options)
    assert (turned.charge_spin[..., 0] - found.charge_spin[..., 0]).abs().max() < 1e-12
    expected = found.charge_spin[..., 1:] @ rotation.T
    assert (turned.charge_spin[..., 1:] - expected).abs().max() < 1e-12


def test_spacing_lowers_the_noise_until_the_traces_are_exact():
    blocks = random_blocks(LATTICE)
    hoppings = [ShellHopping(LATTICE, AMPLITUDES)]
    options = {"n_electrons": 20.0, "error": 1e-3}
    exact = spin_state(hoppings, blocks, 0.3, **options)
    errors = []
    for spacing in (1, 2, 3, 6):
        found = spin_state(hoppings, blocks, 0.3, n_random=24, spacing=spacing, **options)
        noise = (found.charge_spin - exact.charge_spin)[..., 1:]
        errors.append(noise.square().mean().sqrt().item())
    assert errors[0] > 1.5 * errors[1] > 2 * errors[2]
    assert errors[3] < 1e-12
    # One repeat gives no error bar.
    single = spin_state(hoppings, blocks, 0.3, n_random=1, **options)
    assert single.charge_spin_error.isnan().all()


# ---- refusals ----------------------------------------------------------------------------------


def test_a_window_that_leaves_out_part_of_the_spectrum_is_refused():
    blocks, hopping = random_blocks(LATTICE), [ShellHopping(LATTICE, AMPLITUDES)]
    with pytest.raises(InputError, match=r"the spectrum reaches at least .* beyond the window"):
        spin_state(hopping, blocks, 0.2, mu=0.0, window=Window(-3, 5))
    # A window narrower than the bound but wide enough for the spectrum is accepted.
    levels = np.linalg.eigvalsh(whole_matrix(hopping[0], blocks[0]))
    snug = Window(levels[0] - 0.01, levels[-1] + 0.01)
    assert strict_window(hopping, -2, 2).lower < snug.lower
    found = spin_state(hopping, blocks[:1], 0.2, mu=0.0, window=snug)
    exact = by_diagonalization(hopping, blocks[:1], 0.2, {"mu": 0.0})
    assert (found.charge_spin - charge_spin(exact.site_density)).abs().max() < 2e-6


def test_bad_input_is_named():
    blocks, hopping = random_blocks(LATTICE), [ShellHopping(LATTICE, AMPLITUDES)]
    with pytest.raises(InputError, match=r"temperature is 0.0; .* need T > 0"):
        spin_state(hopping, blocks, 0.0, mu=0.0)
    with pytest.raises(InputError, match="temperature is -1"):
        spin_state(hopping, blocks, -1.0, mu=0.0)
    with pytest.raises(InputError, match="not both"):
        spin_state(hopping, blocks, 0.1)
    with pytest.raises(InputError, match="73 electrons"):
        spin_state(hopping, blocks, 0.1, 73)
    with pytest.raises(InputError, match=r"\[batch, 36, 2, 2\], not \[2, 35, 2, 2\]"):
        spin_state(hopping, blocks[:, 1:], 0.1, mu=0.0)
    with pytest.raises(InputError, match="NaN"):
        spin_state(hopping, blocks * float("nan"), 0.1, mu=0.0)
    with pytest.raises(InputError, match="spacing is 4, which does not divide"):
        spin_state(hopping, blocks, 0.1, mu=0.0, n_random=2, spacing=4)
    with pytest.raises(InputError, match="n_random is 0"):
        spin_state(hopping, blocks, 0.1, mu=0.0, n_random=0)
    with pytest.raises(InputError, match="workers is 0"):
        spin_state(hopping, blocks, 0.1, mu=0.0, workers=0)
    with pytest.raises(InputError, match="at least one hopping"):
        spin_state([], blocks, 0.1, mu=0.0)
    with pytest.raises(InputError, match="at least one Hamiltonian"):
        averaged_state([], 0.1, mu=0.0, site_blocks=blocks)
