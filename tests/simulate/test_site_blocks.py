"""Electrons with several states on a site: blocks against whole matrices, orbital hopping."""

import numpy as np
import pytest
import torch

from latticezoo.simulate.electrons.diagonalize import thermal_state
from latticezoo.simulate.electrons.hopping import hopping_matrix, orbital_hopping
from latticezoo.simulate.workers import close_workers
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.lattices import chain, square, triangular


def random_hermitian(*shape: int, seed: int = 0, kind=torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    h = torch.randn(*shape, dtype=kind, generator=generator)
    return 0.5 * (h + h.mH)


@pytest.mark.parametrize("backend", ["lapack", "torch"])
@pytest.mark.parametrize(
    ("hopping", "local"),
    [
        (torch.float64, torch.float64),
        (torch.float64, torch.complex128),
        (torch.complex128, torch.float64),
    ],
)
@pytest.mark.parametrize("filling", [{"n_electrons": 6.3}, {"mu": 0.2}])
def test_site_blocks_are_blocks_of_the_whole(backend, hopping, local, filling):
    """Levels, energies and ρ on the sites are those of h with the blocks written into it."""
    sites, states = 5, 3
    h = random_hermitian(15, 15, kind=hopping)
    blocks = random_hermitian(2, sites, states, states, seed=1, kind=local)
    whole = torch.stack([h + torch.block_diag(*row) for row in blocks])
    expected = thermal_state(whole, 0.3, density_matrix=True, backend="lapack", **filling)
    found = thermal_state(
        h, 0.3, site_blocks=blocks, density_matrix=True, backend=backend, **filling
    )
    for name in ("mu", "levels", "density", "free_energy", "grand_potential", "density_matrix"):
        assert (getattr(found, name) - getattr(expected, name)).abs().max() < 1e-12
    for site in range(sites):
        part = slice(site * states, (site + 1) * states)
        difference = found.site_density[:, site] - expected.density_matrix[:, part, part]
        assert difference.abs().max() < 1e-13
    assert expected.site_density is None


def test_bits_of_site_blocks_do_not_depend_on_company_or_workers():
    h = hopping_matrix(square(4))
    blocks = random_hermitian(3, 8, 2, 2)
    together = thermal_state(h, 0.1, 8, site_blocks=blocks)
    try:
        spread = thermal_state(h, 0.1, 8, site_blocks=blocks, workers=2)
    finally:
        close_workers()
    for row in range(3):
        alone = thermal_state(h, 0.1, 8, site_blocks=blocks[row : row + 1].clone())
        assert torch.equal(alone.site_density[0], together.site_density[row])
        assert torch.equal(spread.site_density[row], together.site_density[row])


@pytest.mark.parametrize("lattice", [chain(5), square(4), square(3, 5), triangular(4)], ids=str)
def test_one_orbital_hops_like_a_site(lattice):
    amplitudes = (((0.7,),),) * lattice.directions
    difference = orbital_hopping(lattice, amplitudes) - hopping_matrix(lattice, 0.7)
    assert abs(difference).max() == 0


def test_bands_of_two_orbitals():
    """h(k) = −2 Σ_γ t^γ cos k_γ for symmetric t^γ; for others t e^{ik} and its adjoint."""
    tx, ty = ((1.0, 0.3), (-0.2, 0.5)), ((0.4, 0.1), (0.1, -0.6))
    lattice = square(3, 4)
    found = np.linalg.eigvalsh(orbital_hopping(lattice, (tx, ty)).toarray())
    expected = []
    for kx in 2 * np.pi * np.arange(3) / 3:
        for ky in 2 * np.pi * np.arange(4) / 4:
            forward = np.exp(1j * kx) * np.array(tx) + np.exp(1j * ky) * np.array(ty)
            expected.extend(np.linalg.eigvalsh(-(forward + forward.conj().T)))
    assert np.abs(found - np.sort(expected)).max() < 1e-13


def test_bad_site_blocks_are_named():
    h = torch.eye(6, dtype=torch.float64)
    with pytest.raises(InputError, match=r"shapes \[1, 4, 2, 2\] and \[6, 6\]"):
        thermal_state(h, 0.1, 2, site_blocks=torch.zeros(1, 4, 2, 2))
    with pytest.raises(InputError, match=r"shapes \[3, 2, 2\]"):
        thermal_state(h, 0.1, 2, site_blocks=torch.zeros(3, 2, 2))
    with pytest.raises(InputError, match=r"shapes .* and \[1, 6, 6\]"):
        thermal_state(h[None], 0.1, 2, site_blocks=torch.zeros(1, 3, 2, 2))
    with pytest.raises(InputError, match="not both"):
        thermal_state(h, 0.1, 2, site_blocks=torch.zeros(1, 3, 2, 2), diagonal=torch.zeros(1, 6))
    with pytest.raises(InputError, match="NaN or infinite"):
        thermal_state(h, 0.1, 2, site_blocks=torch.full((1, 3, 2, 2), torch.nan))
    with pytest.raises(InputError, match="too small for nearest-neighbour hopping"):
        orbital_hopping(square(2), (((1.0,),),) * 2)
