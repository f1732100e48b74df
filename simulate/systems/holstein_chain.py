r"""The semiclassical Holstein chain after an interaction quench: chaos of a collective order.

Spinless fermions at half filling on a ring of N sites, coupled to classical oscillators. Time in
units of ħ/t, Q and P in their natural units Q₀ and P₀:

.. math::
    i\dot\psi_i = -\psi_{i-1} - \psi_{i+1} - 4\lambda Q_i \psi_i, \qquad
    \dot Q_i = r P_i, \qquad \dot P_i = r (n_i - \tfrac12 - Q_i)

for every occupied orbital ψ, with the density :math:`n_i = \sum_m |\psi_{m,i}|^2`. This is the von
Neumann equation of the density matrix ρ = ψ†ψ, at half its size. Equations, parameters and
the protocol: H. Jang, G.-W. Chern, arXiv:2601.19080, and the public code that names it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from latticezoo.simulate.dynamics.schedule import check_positive
from latticezoo.simulate.noise import normal
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.fields import Field
from latticezoo.symmetry.lattices import Lattice

#: A translation by one site: it exchanges the sublattices and so changes the sign of their order.
SUBLATTICE_FLIP = "sublattice_flip"
#: The order parameters, and the names under which they go.
ORDERS = ("delta_n", "delta_Q")
Microstate = dict[str, Tensor]


@dataclass(frozen=True)
class SemiclassicalChain:
    """Parameters, starting states, energy and order of the chain.

    Microscopic states are mappings: ``orbitals`` ``[R, M, N]`` complex128, scaled by the root of
    their occupation, ``Q`` and ``P`` ``[R, N]`` float64.

    Args:
        sites: N, even.
        coupling: λ = g²/(k·4t).
        ratio: r = Ω/t, phonon frequency over hopping.

    Raises:
        InputError: A parameter is outside its range.
    """

    sites: int = 32
    coupling: float = 0.67
    ratio: float = 0.5

    name: ClassVar[str] = "semiclassical_chain"

    def __post_init__(self) -> None:
        if not isinstance(self.sites, int) or self.sites < 4 or self.sites % 2:
            raise InputError(f"the chain has {self.sites!r} sites; it needs an even number, 4 up.")
        check_positive("coupling", self.coupling, zero=True)
        check_positive("ratio", self.ratio)

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters by name, plain values."""
        return asdict(self)

    @property
    def lattice(self) -> Lattice:
        """The ring."""
        return Lattice("chain", (self.sites,))

    # ---- states --------------------------------------------------------------------------------

    def sea(self) -> Tensor:
        """Occupied orbitals ``[M, N]`` of the bare chain at T → 0, scaled by their occupation.

        Where N is a multiple of 4 the two zero modes are each half filled.
        """
        grid = np.arange(self.sites)
        momenta = 2 * math.pi * np.fft.fftfreq(self.sites)
        energies = -2 * np.cos(momenta)
        occupation = np.where(np.abs(energies) < 1e-9, 0.5, np.where(energies < 0, 1.0, 0.0))
        waves = np.exp(1j * momenta[:, None] * grid) / math.sqrt(self.sites)
        scaled = np.sqrt(occupation)[:, None] * waves
        return torch.from_numpy(scaled[occupation > 0])

    def start(self, replicas: Sequence[int], *, seed: int = 0, noise: float = 1e-4) -> Microstate:
        """The state right after the quench 0 → λ: the bare Fermi sea, and a lattice almost at rest.

        Args:
            replicas: The R replica numbers; row r depends on (seed, replicas[r]) alone.
            seed: Seed of the noise.
            noise: Standard deviation of Q and P.
        """
        drawn = np.stack(
            [normal(seed, number, 0, (2, self.sites), "chain start") for number in replicas]
        )
        lattice = torch.from_numpy(noise * drawn)
        return {
            "orbitals": self.sea().repeat(len(replicas), 1, 1),
            "Q": lattice[:, 0].clone(),
            "P": lattice[:, 1].clone(),
        }

    # ---- what is measured ----------------------------------------------------------------------

    @staticmethod
    def density(state: Mapping[str, Tensor]) -> Tensor:
        """Density n ``[R, N]``."""
        return state["orbitals"].abs().square().sum(1)

    @staticmethod
    def density_matrix(state: Mapping[str, Tensor]) -> Tensor:
        r"""Density matrix :math:`\rho_{ij} = \sum_m \psi_{m,i} \psi_{m,j}^*`, ``[R, N, N]``."""
        orbitals = state["orbitals"]
        return orbitals.transpose(1, 2) @ orbitals.conj()

    def energy(self, state: Mapping[str, Tensor]) -> Tensor:
        r"""Conserved energy per site ``[R]`` in units of t.

        .. math::
            e = \frac1N \Big[ -2 \sum_i \mathrm{Re} \rho_{i,i+1}
            - 4\lambda \sum_i (n_i - \tfrac12) Q_i + 2\lambda \sum_i (Q_i^2 + P_i^2) \Big]
        """
        orbitals, Q, P = state["orbitals"], state["Q"], state["P"]
        bonds = (orbitals * orbitals.roll(-1, -1).conj()).real.sum((1, 2))
        coupled = ((self.density(state) - 0.5) * Q).sum(1)
        elastic = (Q.square() + P.square()).sum(1)
        return (-2 * bonds + self.coupling * (2 * elastic - 4 * coupled)) / self.sites

    def orders(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        r"""Order parameters ``[R]``: :math:`\delta_x = \frac1N \sum_i (-1)^i x_i`, i from 1."""
        sign = -self.lattice.stagger.to(state["Q"])
        return {
            "delta_n": (sign * self.density(state)).mean(1),
            "delta_Q": (sign * state["Q"]).mean(1),
        }

    # ---- fields --------------------------------------------------------------------------------

    @staticmethod
    def order_field(name: str) -> Field:
        """The type of an order parameter: one number, odd under an exchange of the sublattices."""
        return Field(name, support="global", odd=(SUBLATTICE_FLIP,))
