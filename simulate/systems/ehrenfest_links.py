"""Fermions on gauge links out of equilibrium: the force field of Ehrenfest dynamics."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from latticezoo.simulate.electrons.link_fermions import hopping_matrix, link_correlator
from latticezoo.simulate.forcefield import Fields
from latticezoo.simulate.systems.gauge_fermions import GaugeFermions
from latticezoo.simulate.systems.link_electrons import link_geometry
from latticezoo.simulate.systems.quantum_link import QuantumLink
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.lattices import Lattice


@dataclass(frozen=True)
class EhrenfestLinks:
    """Forces of a density matrix of the fermions that is part of the state.

    The field ``rho`` holds ρ_ab = ⟨ψ_b†ψ_a⟩, ``[R, N, N]``, with colours ``[R, N, 2, N, 2]``; its
    "force" is its time derivative −i[h(U), ρ]. Nothing is diagonalized.

    Attributes:
        system: The model.
    """

    system: GaugeFermions | QuantumLink

    @property
    def colours(self) -> int:
        """Fermion states of a site."""
        return self.system.colours if isinstance(self.system, GaugeFermions) else 1

    def start(self, fields: Fields, lattice: Lattice) -> dict[str, Tensor]:
        """The fields with the equilibrium ρ of their links.

        Raises:
            InputError: As the system's own check.
        """
        system = self.system
        system.check(fields, lattice)
        if isinstance(system, GaugeFermions):
            rho = system.electrons(fields, lattice).density_matrix
        else:
            rho = system.electrons(fields["U"], lattice).density_matrix
        return {**fields, "rho": self.shaped(rho.to(torch.complex128), lattice)}

    def shaped(self, matrix: Tensor, lattice: Lattice) -> Tensor:
        """``[R, M, M]`` as ``[R, N, N]`` or ``[R, N, 2, N, 2]``."""
        sites, colours = lattice.n_sites, self.colours
        return matrix if colours == 1 else matrix.reshape(-1, sites, colours, sites, colours)

    def flat(self, rho: Tensor) -> Tensor:
        """Inverse of :meth:`shaped`."""
        return rho if self.colours == 1 else rho.flatten(3, 4).flatten(1, 2)

    def hamiltonian(self, fields: Fields, lattice: Lattice) -> Tensor:
        """h(U) ``[R, M, M]``, complex128."""
        system, links = self.system, fields["U"]
        geometry = link_geometry(lattice, system.t, system.antiperiodic)
        potential: Tensor | None = None
        if isinstance(system, GaugeFermions):
            signs = system.sublattice(fields, lattice)
            potential = None if signs is None else system.mass * signs
        values = links.detach().cpu().resolve_conj().numpy()
        made = [
            hopping_matrix(row, None if potential is None else potential[n].cpu().numpy(), geometry)
            for n, row in enumerate(values)
        ]
        return torch.from_numpy(np.stack(made).astype(np.complex128)).to(links.device)

    def correlator(self, matrix: Tensor, lattice: Lattice) -> Tensor:
        """K_l of density matrices ``[R, M, M]``."""
        geometry = link_geometry(lattice, self.system.t, self.system.antiperiodic)
        rows = matrix.cpu().numpy()
        return torch.from_numpy(np.stack([link_correlator(row, geometry) for row in rows])).to(
            matrix.device
        )

    def link_forces(self, fields: Fields, matrix: Tensor, lattice: Lattice) -> dict[str, Tensor]:
        """Forces on the links for a density matrix ``[R, M, M]``, as the system's."""
        system, found = self.system, self.correlator(matrix, lattice)
        if isinstance(system, QuantumLink):
            known = system.known_forces(fields, lattice)
            return {**known, "U": known["U"] + system.fermion_field(found)}
        force = system.fermion_force(found, fields)
        return {"E": force + system.plaquette_force(fields, lattice)}

    def forces(self, fields: Fields, lattice: Lattice) -> dict[str, Tensor]:
        """Forces on the links, and ``rho``: −i[h, ρ].

        Raises:
            InputError: When the density matrix is missing.
        """
        if "rho" not in fields:
            raise InputError("field 'rho' is missing; start() adds that of equilibrium.")
        rho = self.flat(fields["rho"])
        h = self.hamiltonian(fields, lattice)
        rate = -1j * (h @ rho - rho @ h)
        return {**self.link_forces(fields, rho, lattice), "rho": self.shaped(rate, lattice)}

    def energy(self, fields: Fields, lattice: Lattice) -> Tensor:
        """Tr(hρ) and the energy of the links alone, ``[R]`` float64; conserved with E² in it."""
        h = self.hamiltonian(fields, lattice)
        fermions = torch.einsum("rij,rji->r", h, self.flat(fields["rho"])).real
        system = self.system
        if isinstance(system, QuantumLink):
            return fermions + system.link_energy(fields, lattice)
        return fermions + system.plaquette_energy(fields, lattice)
