"""Hopping by shells of neighbours on a torus with twisted boundaries, without and with a matrix."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.geometry import Shell, cells
from latticezoo.symmetry.lattices import Lattice

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ShellHopping:
    r"""H = −Σ_s t_s Σ_{⟨ij⟩ ∈ shell s} (c†_i c_j + h.c.) with twisted boundaries; hashable.

    Note the minus sign: positive amplitudes put the bottom of the band at k = 0. An electron that
    goes once around the torus along direction d picks up e^{2πiθ_d}: the momenta are
    k_d = 2π (n_d + θ_d) / L_d. The phases sit on the bonds that cross the boundary.

    Attributes:
        lattice: A lattice with one site per cell.
        amplitudes: t of shell 1, 2, ….
        twist: θ_d, in turns; none when empty.

    Raises:
        InputError: When the torus is so small that two bonds join the same two sites, or the
            number of twists is not that of the directions.
    """

    lattice: Lattice
    amplitudes: tuple[float, ...]
    twist: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not self.twist:
            object.__setattr__(self, "twist", (0.0,) * self.lattice.dim)
        if len(self.twist) != self.lattice.dim:
            raise InputError(
                f"a twist of {self.lattice} needs {self.lattice.dim} numbers, "
                f"but {self.twist} was given."
            )
        if self.shells:
            furthest = max(shell.index for shell, _ in self.shells)
            self.lattice.require(
                [shell for shell, _ in self.shells], f"hopping to shell {furthest}"
            )

    @property
    def shells(self) -> tuple[tuple[Shell, float], ...]:
        """The shells with hopping, and −t of each."""
        found = self.lattice.shells(count=len(self.amplitudes))
        pairs = zip(found[1:], self.amplitudes, strict=True)
        return tuple((shell, -float(t)) for shell, t in pairs if t != 0)

    def matrix(self) -> sparse.csr_array:
        """h ``[N, N]``, complex128. Cached: do not write to it."""
        return _matrix(self)

    def levels(self) -> Array:
        """Its levels in closed form, one for each momentum, ``[N]``."""
        shape = np.array(self.lattice.shape)
        momenta = 2 * np.pi * (cells(self.lattice.shape) + np.array(self.twist)) / shape
        levels = np.zeros(len(momenta))
        for shell, amplitude in self.shells:
            offsets = np.array(self.lattice.shifts(shell))
            levels += amplitude * np.cos(momenta @ offsets.T).sum(1)
        return levels

    def tables(self) -> Tables:
        """What a product with vectors gathers. Cached: do not write to them."""
        return _tables(self)


@dataclass(frozen=True)
class Tables:
    """Rows to gather: the sites, followed by copies of sites beyond a twisted boundary.

    Attributes:
        neighbours: For each shell with hopping, rows ``[N, size]``.
        weights: −t of each.
        source: The site that each copy is of, ``[H]``.
        phases: The phase of each copy, ``[H]`` complex128; none of them is 1.
    """

    neighbours: tuple[NDArray[np.int64], ...]
    weights: tuple[float, ...]
    source: NDArray[np.int64]
    phases: NDArray[np.complex128]


def twist_grid(twist: Sequence[float], count: int) -> list[tuple[float, ...]]:
    """The count^dim twists (θ + j)/count of a torus that stand for one ``count`` times as large.

    A configuration repeated ``count`` times along each direction, with the twist θ around the
    large torus, has the levels of all of them together.
    """
    steps = itertools.product(range(count), repeat=len(twist))
    return [
        tuple((theta + step) / count for theta, step in zip(twist, row, strict=True))
        for row in steps
    ]


def _phases(hopping: ShellHopping, windings: NDArray[np.int64]) -> NDArray[np.complex128]:
    """e^{2πiθ·w}, exactly ±1 and ±i where it is, for windings ``[…, dim]``."""
    turns = np.mod(windings @ np.array(hopping.twist), 1.0)
    phases: NDArray[np.complex128] = np.exp(2j * math.pi * turns)
    for turn, exact in ((0.0, 1), (0.25, 1j), (0.5, -1), (0.75, -1j)):
        phases[turns == turn] = exact
    return phases


def _neighbours(
    hopping: ShellHopping, shell: Shell
) -> tuple[NDArray[np.int64], NDArray[np.complex128]]:
    """Sites of a shell about every site and the phases of the bonds to them, ``[N, size]``."""
    lattice = hopping.lattice
    reached = cells(lattice.shape)[:, None] + np.array(lattice.shifts(shell))
    windings = np.floor_divide(reached, np.array(lattice.shape))
    return lattice.neighbours(shell).numpy(), _phases(hopping, windings)


@lru_cache(maxsize=64)
def _matrix(hopping: ShellHopping) -> sparse.csr_array:
    n = hopping.lattice.n_sites
    matrix = sparse.csr_array((n, n), dtype=np.complex128)
    for shell, amplitude in hopping.shells:
        sites, phases = _neighbours(hopping, shell)
        rows = np.repeat(np.arange(n), shell.size)
        entries = (amplitude * phases.ravel(), (rows, sites.ravel()))
        matrix = sparse.csr_array(matrix + sparse.coo_array(entries, shape=(n, n)).tocsr())
    matrix.sort_indices()
    return matrix


@lru_cache(maxsize=64)
def _tables(hopping: ShellHopping) -> Tables:
    n = hopping.lattice.n_sites
    copies: dict[tuple[int, complex], int] = {}
    neighbours = []
    for shell, _ in hopping.shells:
        sites, phases = _neighbours(hopping, shell)
        rows = sites.copy()
        for place in zip(*np.nonzero(phases != 1), strict=True):
            key = (int(sites[place]), complex(phases[place]))
            rows[place] = n + copies.setdefault(key, len(copies))
        neighbours.append(rows)
    return Tables(
        tuple(neighbours),
        tuple(amplitude for _, amplitude in hopping.shells),
        np.array([site for site, _ in copies], dtype=np.int64),
        np.array([phase for _, phase in copies], dtype=np.complex128),
    )
