"""Linear response of forces to displacements: the dynamical matrix of any force field at Q = 0.

Small displacements of the undistorted lattice feel :math:`F = -D Q`. By translation invariance D is
one matrix over the channels of a site for each wave vector,

.. math::
    D_{ab}(q) = -\\sum_r \\frac{\\partial F_a(r)}{\\partial Q_b(0)} e^{-i q \\cdot r} ,

whose eigenvalues are m ω² of the phonons; a negative one is an instability, such as that of the
half-filled square lattice against a charge-density wave at (π, π). For electrons in equilibrium D
is known in closed form, so that a learned force field can be tested wave vector by wave vector.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit
from torch import Tensor

from latticezoo.simulate.dynamics.schedule import check_positive
from latticezoo.simulate.electrons.fermi import RESOLUTION, fill
from latticezoo.simulate.systems.adiabatic import AdiabaticSystem
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.lattices import Lattice

Complex = NDArray[np.complex128]


def dynamical_matrix(
    force_field: Any,
    lattice: Lattice,
    *,
    field: str = "Q",
    channels: int = 1,
    step: float = 1e-3,
) -> Tensor:
    """Dynamical matrix of any force field at the undistorted lattice, from its forces alone.

    One site is displaced by ±h and ±2h and the forces are differentiated by the five-point formula,
    with an error of order h⁴. A network in float32 leaves an error of about 1e-7 of its output over
    h: convert it to float64 first.

    Args:
        force_field: Has ``forces(fields, lattice) -> dict``, invariant under translations.
        lattice: Of one site per cell.
        field: The field to displace.
        channels: Its components C.
        step: h, in units of the field.

    Returns:
        D ``[*shape, C, C]``, complex128, at the wave vectors of
        :func:`~latticezoo.simulate.observables.wave_vectors`. It is real where the forces are
        invariant under r → −r, and Hermitian where they derive from an energy.

    Raises:
        InputError: For several sites per cell, a step that is not positive, or forces that do not
            fit the field.
    """
    check_positive("step", step)
    _check_one_site(lattice)
    weights = {1.0: 8.0, -1.0: -8.0, 2.0: -1.0, -2.0: 1.0}
    displaced = torch.zeros(len(weights), channels, lattice.n_sites, channels, dtype=torch.float64)
    for row, multiple in enumerate(weights):
        for channel in range(channels):
            displaced[row, channel, 0, channel] = multiple * step
    forces = force_field.forces({field: displaced.flatten(0, 1)}, lattice)
    if field not in forces or forces[field].shape != displaced.flatten(0, 1).shape:
        raise InputError(
            f"the force field gives no force on {field!r} of {channels} channels; name the field "
            "and the number of its channels."
        )
    found = forces[field].detach().cpu().double().view(displaced.shape)
    slopes = torch.einsum("w,wbra->rab", torch.tensor(list(weights.values())).double(), found)
    constants = -slopes / (12 * step)
    return torch.fft.fftn(constants.view(*lattice.shape, channels, channels), dim=_axes(lattice))


def exact_dynamical_matrix(system: AdiabaticSystem, lattice: Lattice) -> Tensor:
    r"""Dynamical matrix at Q = 0 of electrons in equilibrium, by second-order perturbation theory.

    .. math::
        D_{ab}(q) = \Phi_{ab}(q) - g^2 \chi_{ab}(q), \qquad
        \chi_{ab}(q) = \frac{1}{N} \sum_{k m n}
            \frac{f_{km} - f_{k+q,n}}{\epsilon_{k+q,n} - \epsilon_{km}}
            \langle km | O_a | k{+}q, n \rangle \langle k{+}q, n | O_b | km \rangle

    with Φ the elastic part and O the operators that the channels of Q couple to. For one orbital
    this is Lindhard's function, and D(q) = k + 2κ (cos q_x + cos q_y) − g² χ(q) in the Holstein
    model. At fixed electron number a uniform displacement moves the chemical potential too: at
    q = 0 the response is :math:`\chi_{ab} - \chi_{a0} \chi_{0b} / \chi_{00}`, where 0 is the
    density, which makes the Holstein model's χ(0) vanish. At fixed chemical potential it stays.

    Args:
        system: Holstein or Jahn–Teller, T > 0.
        lattice: Of one site per cell.

    Returns:
        ``[*shape, C, C]``, complex128, as :func:`dynamical_matrix` gives it.

    Raises:
        InputError: At T = 0, where the degenerate levels of the undistorted lattice have no linear
            response, and for several sites per cell.
    """
    _check_one_site(lattice)
    elastic = _elastic_part(system, lattice)
    hopping = system.hamiltonian(lattice)
    states = system.states_per_site
    # The column of cell 0, as matrices over the states of a site.
    column = np.asarray(hopping[:, :states].todense()).reshape(*lattice.shape, states, states)
    levels, vectors = np.linalg.eigh(np.fft.fftn(column, axes=_axes(lattice)))
    temperature = float(system.temperature)
    if temperature <= RESOLUTION * np.abs(levels).max():
        raise InputError(
            f"temperature is {temperature}; linear response needs T > 0, for the undistorted "
            "lattice has degenerate levels at the chemical potential."
        )
    filling = fill(np.sort(levels, axis=None), temperature, **system.ensemble(lattice))
    operators = np.array([np.eye(states), *system.couplings])  # the density first
    response = _susceptibility(levels - filling.mu, vectors, operators, temperature, lattice)
    if system.chemical_potential is None:
        origin = (0,) * lattice.dim
        compressibility = response[origin][0, 0].real
        if compressibility > 0:
            response[origin] -= (
                np.outer(response[origin][:, 0], response[origin][0]) / compressibility
            )
    return elastic - system.g**2 * torch.from_numpy(response[..., 1:, 1:])


def branches(matrix: Tensor) -> Tensor:
    """Eigenvalues m ω² of the Hermitian part of a dynamical matrix, rising, ``[*shape, C]``."""
    return torch.linalg.eigvalsh(0.5 * (matrix + matrix.mH))


@dataclass(frozen=True)
class ZonePath:
    """Wave vectors of a torus along lines of high symmetry.

    Attributes:
        points: Indices into tables of the shape of the lattice, ``[P]`` for each direction.
        distances: Length of the path up to each point, in inverse bond lengths, ``[P]``.
        corners: Positions of the named points in the path, ``(index, name)``.
    """

    points: tuple[NDArray[np.int64], ...]
    distances: NDArray[np.float64]
    corners: tuple[tuple[int, str], ...]


def zone_path(lattice: Lattice) -> ZonePath:
    """The path Γ – X – M – Γ through the zone of the square lattice: (0,0), (π,0), (π,π), (0,0).

    Raises:
        InputError: For another family, unequal or odd sides.
    """
    sides = set(lattice.shape)
    if lattice.family != "square" or len(sides) > 1 or lattice.shape[0] % 2:
        raise InputError(
            f"the path Γ–X–M–Γ needs a square lattice of equal, even sides, not {lattice}."
        )
    half = lattice.shape[0] // 2
    rise, fall = np.arange(half), np.arange(half, -1, -1)
    level = np.full(half, half)
    x = np.concatenate([rise, level, fall])
    y = np.concatenate([np.zeros(half, np.int64), rise, fall])
    steps = 2 * np.pi / lattice.shape[0] * np.hypot(np.diff(x), np.diff(y))
    distances = np.concatenate([[0.0], np.cumsum(steps)])
    corners = ((0, "Γ"), (half, "X"), (2 * half, "M"), (3 * half, "Γ"))
    return ZonePath((x, y), distances, corners)


# ---- inner parts -------------------------------------------------------------------------------


def _axes(lattice: Lattice) -> tuple[int, ...]:
    return tuple(range(lattice.dim))


def _check_one_site(lattice: Lattice) -> None:
    if lattice.sublattices > 1:
        raise InputError(f"linear response needs one site per cell; {lattice} has more.")


def _elastic_part(system: AdiabaticSystem, lattice: Lattice) -> Tensor:
    """Φ(q), ``[*shape, C, C]``: the elastic energy is quadratic, so its gradient is linear."""
    channels = len(system.couplings)
    unit = torch.zeros(channels, lattice.n_sites, channels, dtype=torch.float64)
    unit[range(channels), 0, range(channels)] = 1.0
    with torch.enable_grad():
        unit.requires_grad_()
        energy = system.elastic_energy({"Q": unit}, lattice).sum()
        (constants,) = torch.autograd.grad(energy, unit)
    constants = constants.permute(1, 2, 0).reshape(*lattice.shape, channels, channels)
    return torch.fft.fftn(constants, dim=_axes(lattice))


def _susceptibility(
    levels: NDArray[np.float64],
    vectors: Complex,
    operators: NDArray[np.float64],
    temperature: float,
    lattice: Lattice,
) -> Complex:
    """χ(q) ``[*shape, O, O]`` of levels ``[*shape, S]`` counted from μ and their vectors."""
    axes, states = _axes(lattice), levels.shape[-1]
    here = levels.reshape(-1, states, 1)
    bras = np.einsum("kim,oij->komj", vectors.reshape(-1, states, states).conj(), operators)
    found = np.empty((lattice.n_cells, len(operators), len(operators)), np.complex128)
    for row, index in enumerate(np.ndindex(*lattice.shape)):
        back = tuple(-n for n in index)
        there = np.roll(levels, back, axes).reshape(-1, 1, states)
        kets = np.roll(vectors, back, axes).reshape(-1, 1, states, states)
        elements = bras @ kets  # [k, operator, m, n]
        weights = _transition(here, there, temperature)[:, None]
        flat = elements.swapaxes(0, 1).reshape(len(operators), -1)
        weighted = (weights * elements).swapaxes(0, 1).reshape(len(operators), -1)
        found[row] = weighted @ flat.conj().T / lattice.n_cells
    return found.reshape(*lattice.shape, len(operators), len(operators))


def _transition(
    one: NDArray[np.float64], other: NDArray[np.float64], temperature: float
) -> NDArray[np.float64]:
    """(f(a) − f(b)) / (b − a) ≥ 0, without cancellation and down to a = b.

    With a the lower level, f(a) − f(b) = f(a) f(−b) (1 − e^{−(b − a)/T}): no difference of two near
    numbers, and every factor between 0 and 1.
    """
    low, high = np.minimum(one, other), np.maximum(one, other)
    gap = (high - low) / temperature
    small = gap < 1e-8
    quotient = np.where(small, 1 - gap / 2, -np.expm1(-gap) / np.where(small, 1.0, gap))
    result: NDArray[np.float64] = (
        expit(-low / temperature) * expit(high / temperature) * quotient / temperature
    )
    return result
