"""Starting states of gauge links: thermal link spins, rotors at rest or with random fields."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import eigvalsh
from scipy.special import log_expit

from latticezoo.simulate.electrons.diagonalize import one_thread
from latticezoo.simulate.electrons.link_fermions import LinkGeometry, hopping_matrix
from latticezoo.simulate.gauge_sampling import GaugeSampler
from latticezoo.simulate.noise import generator
from latticezoo.simulate.state import State
from latticezoo.simulate.systems.link_electrons import link_geometry
from latticezoo.simulate.systems.quantum_link import QuantumLink
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.internal import internal_group
from latticezoo.symmetry.lattices import Lattice, square

Array = NDArray[Any]


def link_rotors(
    lattice: Lattice, replicas: int, group: str = "SU2", beta: float | None = None, seed: int = 0
) -> State:
    """Links with electric fields of zero: Gauss's law holds without charges.

    Args:
        lattice: The square torus.
        replicas: Their number.
        group: ``U1`` or ``SU2``.
        beta: Links of the pure gauge theory at this β after 50 sweeps; Haar-random ones by default.
        seed: Seed of the run.

    Returns:
        ``U`` ``[R, N, D, …]`` and ``E`` ``[R, N, D]`` or ``[R, N, D, 3]``.

    Raises:
        InputError: For another group, or a β that is none.
    """
    if group == "Z2":
        raise InputError("Z2 links have no electric field; rotors are of the group U1 or SU2.")
    sampler = GaugeSampler(group, beta or 0.0, seed=seed)
    links = sampler.start(lattice, range(replicas))
    if beta:
        links = sampler.run(links, lattice, 50).links
    adjoint = (3,) if internal_group(group).element_shape else ()
    electric = torch.zeros(*links.shape[:3], *adjoint, dtype=torch.float64)
    return State({"U": links, "E": electric}, seed=seed)


def signs(lattice: Lattice, replicas: int, beta: float = 0.0, seed: int = 0) -> State:
    """Z2 links from the pure gauge theory at β, ``U`` ``[R, N, D]``; random ones by default.

    Raises:
        InputError: β is not a finite number of 0 or more.
    """
    links = GaugeSampler("Z2", beta, seed=seed).start(lattice, range(replicas))
    return State({"U": links}, seed=seed)


def random_link_spins(lattice: Lattice, replicas: int, length: float = 1.0, seed: int = 0) -> State:
    """Link spins on the equator: E = 0, random phases.

    Args:
        lattice: The square torus.
        replicas: Their number.
        length: S.
        seed: Seed of the run.
    """
    state = link_rotors(lattice, replicas, "U1", seed=seed)
    return State({**state.fields, "U": length * state.fields["U"]}, seed=seed)


def thermal_link_spins(
    system: QuantumLink,
    lattice: Lattice,
    temperature: float,
    replicas: Sequence[int] = (0,),
    sweeps: int = 20,
    seed: int = 0,
    block: int | None = None,
) -> State:
    """Link spins with div E = 0 from exp(−H/T), by Metropolis moves with exact energies.

    Two kinds of moves, after which the measure dE dφ of every link stays as it is: φ_l → φ_l + δ,
    and ±ε added to the E of the four links round a plaquette, which keeps div E. Every proposal
    costs the levels of the fermions. Step sizes are tuned towards an acceptance of one half in the
    first half of the sweeps and fixed after.

    Diagonalizations take hours on more than some 250 sites. With ``block`` a thermal state of
    block × block sites is repeated over the lattice and stirred, because dynamics would keep its
    period: phases by normal numbers of 0.3, E by the curl of normal numbers of S/10 on the
    plaquettes, which leaves div E = 0. That is a state of some higher energy, not a thermal one.

    Args:
        system: The model; its fermions are in equilibrium at their own temperature.
        lattice: The square torus.
        temperature: T > 0 of the spins.
        replicas: Replica numbers.
        sweeps: One sweep proposes every phase and every plaquette once.
        seed: Seed of the run.
        block: Side of the torus that a thermal state is made on, a divisor of both sides; None for
            the lattice itself.

    Returns:
        ``U`` ``[R, N, D]`` complex128 and ``E`` ``[R, N, D]`` float64.

    Raises:
        InputError: T is not positive, there are no sweeps, or blocks do not fit.
    """
    if block is not None:
        if block < 2 or any(side % block for side in lattice.shape):
            raise InputError(
                f"block is {block}; it must be a whole number from 2 that divides both sides of "
                f"{lattice}."
            )
        small = thermal_link_spins(system, square(block), temperature, replicas, sweeps, seed)
        return _stirred(small, block, lattice, system.length)
    if not (temperature > 0 and math.isfinite(temperature)):
        raise InputError(f"temperature is {temperature}; thermal link spins need a positive one.")
    if sweeps < 1:
        raise InputError(f"sweeps is {sweeps}; it must be at least 1.")
    walks = []
    with one_thread():
        for replica in replicas:
            draw = generator(seed, replica, stream="thermal link spins")
            walk = _Walk.start(system, lattice, temperature, draw)
            for sweep in range(sweeps):
                walk.sweep(tune=2 * sweep < sweeps)
            walks.append(walk)
    electric = torch.from_numpy(np.stack([walk.electric for walk in walks]))
    phase = torch.from_numpy(np.stack([walk.phase for walk in walks]))
    modulus = torch.sqrt((system.length**2 - electric**2).clamp(min=0))
    fields = {"U": torch.polar(modulus, phase), "E": electric}
    return State(fields, replicas=tuple(replicas), seed=seed)


def _stirred(small: State, block: int, lattice: Lattice, length: float) -> State:
    """Copies of a state side by side, stirred until they differ."""
    copies = [side // block for side in lattice.shape]
    phases, fields = [], []
    for row, replica in enumerate(small.replicas):
        draw = generator(small.seed, replica, stream="stirred link spins")
        phase, electric = (
            np.tile(values[row].numpy().reshape(block, block, 2), (*copies, 1))
            for values in (small.fields["U"].angle(), small.fields["E"])
        )
        curl = 0.1 * length * draw.standard_normal(lattice.shape)
        extra = (curl - np.roll(curl, 1, 1), np.roll(curl, 1, 0) - curl)
        electric = electric + np.stack(extra, -1)
        # div E = 0 holds for multiples too: shrink until the longest fits.
        electric *= min(1.0, 0.98 * length / np.abs(electric).max())
        phases.append(phase + 0.3 * draw.standard_normal(phase.shape))
        fields.append(electric)
    angles, heights = (
        torch.from_numpy(np.stack(parts)).flatten(1, 2) for parts in (phases, fields)
    )
    links = torch.polar(torch.sqrt(length**2 - heights**2), angles)
    return State({"U": links, "E": heights}, replicas=small.replicas, seed=small.seed)


@dataclass
class _Walk:
    """One Metropolis walk of E ``[N, 2]`` and φ ``[N, 2]``."""

    system: QuantumLink
    geometry: LinkGeometry
    temperature: float
    draw: np.random.Generator
    phase: Array
    electric: Array
    energy: float
    phase_step: float = 1.0
    electric_step: float = 0.3

    @classmethod
    def start(
        cls, system: QuantumLink, lattice: Lattice, temperature: float, draw: np.random.Generator
    ) -> _Walk:
        shape = (lattice.n_sites, 2)
        walk = cls(
            system,
            link_geometry(lattice, system.t, system.antiperiodic),
            temperature,
            draw,
            draw.uniform(-math.pi, math.pi, shape),
            np.zeros(shape),
            0.0,
        )
        walk.energy = walk.total(walk.phase, walk.electric)
        return walk

    def total(self, phase: Array, electric: Array) -> float:
        """H with fermions in equilibrium."""
        system, targets = self.system, self.geometry.targets
        links = np.sqrt(system.length**2 - electric**2) * np.exp(1j * phase)
        right, up = targets.T
        loops = links[:, 0] * links[right, 1] * (links[up, 0] * links[:, 1]).conj()
        energy = 0.5 * system.g2 * (electric**2).sum() - 2 * system.J * loops.real.sum()
        if system.t == 0:
            return float(energy)
        h = hopping_matrix(links, None, self.geometry)
        levels = eigvalsh(h, overwrite_a=True, check_finite=False)
        if system.temperature == 0:
            return float(energy + levels[levels < 0].sum())
        return float(energy + system.temperature * log_expit(levels / system.temperature).sum())

    def sweep(self, tune: bool) -> None:
        """Propose every phase, then every plaquette."""
        sites = len(self.phase)
        taken = 0
        for link in range(2 * sites):
            phase = self.phase.copy()
            phase.flat[link] += self.phase_step * self.draw.uniform(-1, 1)
            taken += self._accept(phase, self.electric)
        if tune:
            self.phase_step = min(self.phase_step * _factor(taken / (2 * sites)), math.pi)
        taken = 0
        right, up = self.geometry.targets.T
        for site in range(sites):
            electric = self.electric.copy()
            change = self.electric_step * self.draw.uniform(-1, 1)
            electric[site, 0] += change
            electric[right[site], 1] += change
            electric[up[site], 0] -= change
            electric[site, 1] -= change
            inside = bool((np.abs(electric) < self.system.length).all())
            taken += inside and self._accept(self.phase, electric)
        if tune:
            self.electric_step = min(
                self.electric_step * _factor(taken / sites), self.system.length
            )

    def _accept(self, phase: Array, electric: Array) -> bool:
        energy = self.total(phase, electric)
        limit = -self.temperature * math.log(1 - self.draw.random())
        if energy - self.energy > limit:
            return False
        self.phase, self.electric, self.energy = phase, electric, energy
        return True


def _factor(acceptance: float) -> float:
    """Longer steps where more than half is accepted."""
    return 0.6 + 0.8 * acceptance
