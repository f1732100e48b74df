"""The s–d model of itinerant magnets: electrons that see a classical spin on every site."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from latticezoo.simulate.electrons.diagonalize import averaged_state, bits_are_replicas_own
from latticezoo.simulate.electrons.operators import Window
from latticezoo.simulate.electrons.shell_hopping import ShellHopping, twist_grid
from latticezoo.simulate.electrons.spin_kpm import (
    charge_spin,
    check_probes,
    check_whole,
    spin_state,
    strict_window,
)
from latticezoo.simulate.forcefield import Fields
from latticezoo.simulate.systems.spin_system import (
    TARGET,
    SpinSystem,
    Vector,
)
from latticezoo.simulate.unit_vectors import UNIT_LENGTH
from latticezoo.symmetry.errors import InputError, unknown
from latticezoo.symmetry.fields import perpendicular
from latticezoo.symmetry.geometry import linear_map, unit_cell
from latticezoo.symmetry.lattices import Lattice
from latticezoo.symmetry.point_groups import point_group
from latticezoo.symmetry.tasks import Task

_log = logging.getLogger(__name__)

CONVENTIONS = ("pauli", "spin_half")
SOLVERS = ("diagonalize", "kpm")


class Electrons(NamedTuple):
    """Electrons in equilibrium at given spins; float64.

    Attributes:
        energy: What the fields derive from ``[B]``: Ω at fixed μ, A at fixed filling.
        charge_spin: (n, s^x, s^y, s^z) = ⟨c†_i σ_a c_i⟩ ``[B, N, 4]``.
        mu: Chemical potential ``[B]``.
        levels: Levels in rising order ``[B, 2N]``, of all twists; None from kernel polynomials.
        energy_error: Standard error of the energy ``[B]`` for random vectors, else None.
        charge_spin_error: Standard errors ``[B, N, 4]`` for random vectors, else None.
    """

    energy: Tensor
    charge_spin: Tensor
    mu: Tensor
    levels: Tensor | None
    energy_error: Tensor | None
    charge_spin_error: Tensor | None


@dataclass(frozen=True)
class SDMagnet(SpinSystem):
    r"""Free electrons coupled to unit vectors S_i on the square or triangular lattice.

    .. math::
        H = -\sum_s t_s \sum_{\langle ij \rangle \in s} \sum_\alpha
              (c_{i\alpha}^\dagger c_{j\alpha} + \mathrm{h.c.})
            - g \sum_i S_i \cdot (c_{i\alpha}^\dagger \boldsymbol\sigma_{\alpha\beta} c_{i\beta})
            - B \cdot \sum_i S_i

    (Zhang's dissertation, Eq. 3.4.) **The hopping carries a minus sign**: with the plus sign that
    is printed there, the susceptibility of the skyrmion parameter set has no peak at its wave
    vector π/3. **The size of the coupling** is a matter of convention: with ``convention="pauli"``
    J multiplies Pauli matrices, g = J; with ``"spin_half"`` it multiplies the electron spin σ/2,
    g = J/2. Papers differ and often do not say. For the skyrmion set only g = 0.5 gives the
    published ground states (J = 1 with spin ½); at g = 1 the spiral wins. The sign of J does not
    matter to the electrons: S → −S is time reversal.

    The spins are slow: electrons are in equilibrium at every S. The fields

    .. math::
        H_i = g\,\langle c_i^\dagger \boldsymbol\sigma c_i \rangle + B

    are −∂/∂S_i of the grand potential Ω at fixed μ, of the free energy A = Ω + μ N_e at fixed
    filling (Hellmann–Feynman); the mean ⟨H⟩ has other derivatives unless T = 0. Energies are those
    of the whole configuration.

    **Boundaries.** With ``twists = n`` the lattice stands for a torus n times as large in each
    direction on which the spins repeat: its levels are those of n^dim twisted boundaries, filled
    together to *one* chemical potential also at fixed filling, and all results are means over the
    twists. ``twist`` is the phase in turns (0.5 is antiperiodic) around that large torus. A single
    momentum gives wrong energies on small tori: at 12×12 the order of spiral and skyrmion lattice
    can reverse.

    **Solvers.** ``diagonalize``: exact, cost N³. ``kpm``: Chebyshev expansion at T > 0 whose order
    follows from T and ``error``. Every state of the lattice is a start vector, cost N²/T: at 1e-6
    on one thread, the skyrmion set crosses diagonalization near 37 × 37 at T = 0.05 and near
    20 × 20 at T = 0.2 (``benchmarks/spin_kpm.py``). Or ``n_random`` random vectors, cost N/T, for
    estimates with a standard error (see
    :func:`~latticezoo.simulate.electrons.spin_kpm.spin_state`). With a fixed seed the estimates are
    functions of S, but not exactly derivatives of each other.

    Attributes:
        J: Coupling, in the unit of ``convention``.
        hopping: t of neighbour shell 1, 2, …; zeros leave out a shell.
        convention: ``pauli`` or ``spin_half``.
        temperature: Temperature of the electrons, T ≥ 0 (k_B = 1); T > 0 for ``kpm``.
        filling: Electrons per site and spin, in (0, 1), fixed at every configuration.
        chemical_potential: When given, it is fixed at every configuration instead of the filling.
        zeeman: Field B on the classical spins; the electrons do not see it.
        twist: Phase around the large torus in turns, one number for each direction.
        twists: n.
        solver: ``diagonalize`` or ``kpm``.
        error: Largest truncation error of a field, and of the energy per site, that ``kpm`` makes.
        n_random: Number of random vectors for each spin and class of sites; None for exact traces.
        spacing: Distance, along the axes, of the sites that share a random vector.
        seed: Of the random vectors.
        workers: Processes that share a batch on the CPU.
        backend: Where to diagonalize: see
            :func:`~latticezoo.simulate.electrons.diagonalize.thermal_state`.

    Raises:
        InputError: For parameters outside their range.
    """

    J: float
    hopping: tuple[float, ...] = (1.0,)
    convention: str = "pauli"
    temperature: float = 0.05
    filling: float = 0.5
    chemical_potential: float | None = None
    zeeman: Vector = (0.0, 0.0, 0.0)
    twist: tuple[float, ...] = (0.0, 0.0)
    twists: int = 1
    solver: str = "diagonalize"
    error: float = 1e-6
    n_random: int | None = None
    spacing: int = 1
    seed: int = 0
    workers: int = field(default=1, compare=False, repr=False)
    backend: str = field(default="auto", compare=False, repr=False)

    name: ClassVar[str] = "sd_magnet"

    def __post_init__(self) -> None:
        for name, least, exact in (("hopping", 1, None), ("zeeman", 3, 3), ("twist", 2, 2)):
            object.__setattr__(self, name, _numbers(name, getattr(self, name), least, exact))
        for name in ("J", "temperature", "filling", "error", "chemical_potential"):
            value = getattr(self, name)
            if not (value is None and name == "chemical_potential"):
                _number(name, value)
        if self.temperature < 0:
            raise InputError(f"temperature is {self.temperature}; it must be 0 or more.")
        if not 0 < self.filling < 1:
            raise InputError(
                f"filling is {self.filling}; it must lie between 0 and 1, both excluded."
            )
        if self.error <= 0:
            raise InputError(f"error is {self.error}; it must be positive.")
        if self.convention not in CONVENTIONS:
            raise unknown("convention of the coupling", self.convention, CONVENTIONS)
        if self.solver not in SOLVERS:
            raise unknown("solver of the s–d model", self.solver, SOLVERS)
        if self.solver == "kpm" and self.temperature == 0:
            raise InputError(
                "temperature is 0; Chebyshev expansions need T > 0, solver 'diagonalize' does not."
            )
        for name, least in (("twists", 1), ("workers", 1), ("seed", 0)):
            check_whole(name, getattr(self, name), least)
        check_probes(self.n_random, self.spacing)

    # ---- parameters ----------------------------------------------------------------------------

    @property
    def coupling(self) -> float:
        """g, what multiplies Pauli matrices."""
        return self.J if self.convention == "pauli" else 0.5 * self.J

    @property
    def batch_invariant(self) -> bool:
        """Whether a replica's bits are sure not to depend on the batch; not on a GPU."""
        return bits_are_replicas_own("auto" if self.solver == "kpm" else self.backend)

    def describe(self) -> dict[str, Any]:
        """What tells two runs apart: the physics, not the number of processes."""
        return {"class": type(self).__name__, "backend": self.backend, **self.parameters}

    # ---- electrons -----------------------------------------------------------------------------

    def hoppings(self, lattice: Lattice) -> tuple[ShellHopping, ...]:
        """The hopping of each twist.

        Raises:
            InputError: On a torus too small for the shells.
        """
        grid = twist_grid(self.twist, self.twists)
        return tuple(ShellHopping(lattice, self.hopping, twist) for twist in grid)

    def site_blocks(self, spins: Tensor) -> Tensor:
        """−g S·σ, ``[…, 2, 2]`` complex128, for spins ``[…, 3]``."""
        x, y, z = (-self.coupling * spins.double()).unbind(-1)
        zero = torch.zeros_like(z)
        up = torch.stack((torch.complex(z, zero), torch.complex(x, -y)), -1)
        down = torch.stack((torch.complex(x, y), torch.complex(-z, zero)), -1)
        return torch.stack((up, down), -2)

    def electrons(self, spins: Tensor, lattice: Lattice) -> Electrons:
        """Thermal averages of the electrons at given unit vectors ``[B, N, 3]``."""
        blocks = self.site_blocks(spins)
        hoppings = self.hoppings(lattice)
        fixed_mu = self.chemical_potential is not None
        number = None if fixed_mu else 2 * lattice.n_sites * self.filling
        if self.solver == "kpm":
            found = spin_state(
                hoppings,
                blocks,
                self.temperature,
                number,
                self.chemical_potential,
                window=_window(hoppings, abs(self.coupling) * (1 + UNIT_LENGTH)),
                error=self.error / (2 * max(1.0, abs(self.coupling))),
                n_random=self.n_random,
                spacing=self.spacing,
                seed=self.seed,
                workers=self.workers,
            )
            energy = found.grand_potential if fixed_mu else found.free_energy
            errors = found.energy_error, found.charge_spin_error
            return Electrons(energy, found.charge_spin, found.mu, None, *errors)
        state = averaged_state(
            [_with_spin(hopping) for hopping in hoppings],
            self.temperature,
            number,
            self.chemical_potential,
            site_blocks=blocks,
            workers=self.workers,
            backend=self.backend,
        )
        assert state.site_density is not None
        energy = state.grand_potential if fixed_mu else state.free_energy
        found_spins = charge_spin(state.site_density)
        return Electrons(energy, found_spins, state.mu, state.levels, None, None)

    def interaction_energy(self, spins: Tensor, lattice: Lattice) -> Tensor:
        """Ω at fixed μ, A at fixed filling, of the whole configuration, ``[B]`` float64."""
        return self.electrons(spins, lattice).energy

    def interaction_field(self, spins: Tensor, lattice: Lattice) -> Tensor:
        """g ⟨c† σ c⟩ = −∂Ω/∂S (−∂A/∂S at fixed filling), ``[B, N, 3]`` float64."""
        return self.coupling * self.electrons(spins, lattice).charge_spin[..., 1:]

    def labels(self, fields: Fields, lattice: Lattice) -> dict[str, Tensor]:
        """Everything a network can be trained on, from one solution; without the Zeeman term.

        Returns:
            ``perpendicular_field`` ``[B, N, 3]``, ``energy`` ``[B]``, ``chemical_potential``
            ``[B]``, float64.
        """
        self.check(fields, lattice)
        spins = fields["S"].double()
        found = self.electrons(spins, lattice)
        return {
            TARGET: perpendicular(self.coupling * found.charge_spin[..., 1:], spins),
            "energy": found.energy,
            "chemical_potential": found.mu,
        }

    def observables(self, fields: Fields, lattice: Lattice) -> dict[str, Tensor]:
        """Densities and thermodynamics, from one solution.

        Returns:
            ``energy`` ``[B]``, Zeeman term included; ``magnetization`` ``[B, 3]`` of the classical
            spins; ``density`` ``[B, N, 1]`` and ``electron_spin`` ⟨c†σc⟩/2 ``[B, N, 3]``; ``mu``
            ``[B]``; and, by diagonalization, ``gap`` ``[B]``: from the highest level below μ to the
            lowest above it, infinite for an empty or full band.
        """
        self.check(fields, lattice)
        spins = fields["S"].double()
        found = self.electrons(spins, lattice)
        seen = {
            "energy": found.energy + self.zeeman_energy(spins),
            "magnetization": spins.mean(1),
            "density": found.charge_spin[..., :1],
            "electron_spin": 0.5 * found.charge_spin[..., 1:],
            "mu": found.mu,
        }
        if found.levels is not None:
            seen["gap"] = _gap(found.levels, found.mu)
        return seen

    # ---- learning ------------------------------------------------------------------------------

    def task(self, family: str = "square", target: str = TARGET) -> Task:
        """The map from spins to perpendicular fields, see :meth:`SpinSystem.task`.

        Raises:
            InputError: For an unknown target or family, and for twists that break its symmetry.
        """
        task = super().task(family, target)
        if not self.keeps_symmetry(family):
            raise InputError(
                f"twist {self.twist} breaks point operations or time reversal of the {family} "
                "lattice, which networks keep; give twist (0, 0)."
            )
        return task

    def keeps_symmetry(self, family: str) -> bool:
        """Whether the twists are carried into each other by the point group of a lattice family.

        It includes the inversion, which on twists is also time reversal.
        """
        grid = np.array(twist_grid(self.twist, self.twists))
        for point in range(point_group(unit_cell(family).site_group).order):
            turned = grid @ np.rint(linear_map(family, point)).T
            distance = turned[:, None] - grid
            if np.abs(distance - np.rint(distance)).max(-1).min(-1).max() > 1e-9:
                return False
        return True


@lru_cache(maxsize=64)
def _with_spin(hopping: ShellHopping) -> sparse.csr_array:
    """``[2N, 2N]``; state (i, spin) is row 2i + spin."""
    return sparse.csr_array(sparse.kron(hopping.matrix(), sparse.eye_array(2)))


@lru_cache(maxsize=64)
def _window(hoppings: tuple[ShellHopping, ...], radius: float) -> Window:
    """One window for all spins: results must not depend on what else is in the batch."""
    return strict_window(hoppings, -radius, radius)


def _gap(levels: Tensor, mu: Tensor) -> Tensor:
    at = mu[:, None]
    below = levels.where(levels <= at, -math.inf).amax(1)
    above = levels.where(levels > at, math.inf).amin(1)
    return above - below


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"{name} is {value!r}; it must be a finite number.")
    return float(value)


def _numbers(name: str, values: Any, least: int, exact: int | None) -> tuple[float, ...]:
    wanted = f"{exact} numbers" if exact else "at least one number"
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise InputError(f"{name} is {values!r}; it must be a list of {wanted}.")
    if len(values) < least or (exact and len(values) > exact):
        raise InputError(f"{name} is {tuple(values)!r}; it must be {wanted}.")
    return tuple(_number(name, value) for value in values)


#: Parameter sets. All of them state their coupling in Pauli matrices, and T = 0.05 is low enough
#: for the order and high enough for the fields to be local.
#:
#: * ``sd_tetrahedral``: quarter filling, J = 2 (Martin and Batista, Phys. Rev. Lett. 101, 156402
#:   (2008)): the four spins of a 2 × 2 cell point along the diagonals of a tetrahedron, gap 1.161,
#:   energy −2.25174 per site on 12 × 12, −2.25160 on the infinite lattice. Sides must be even.
#: * ``sd_120``: half filling, J = 4, at which the 120° state has a gap of 4 and lies 0.035 per site
#:   below the tetrahedral one (at J = 2 it has no gap and lies 0.011 below it). Sides must be
#:   multiples of 3.
#: * ``sd_skyrmion``: hopping t1 = 1, t3 = −0.85, μ = −3.5 (Zhang's dissertation, section 3.2), with
#:   coupling g = 0.5, that is J = 1 on the electron spin ½, and B = 0.005. Sides must be multiples
#:   of 12. Compare energies at T ≤ 0.01 and on tori of at least 48 (12 with ``twists=4``).
#: * ``sd_square``: half filling on the square lattice, J = 1: the Néel state with gap 2. Sides must
#:   be even.
PRESETS: dict[str, SDMagnet] = {
    "sd_tetrahedral": SDMagnet(J=2.0, filling=0.25),
    "sd_120": SDMagnet(J=4.0, filling=0.5),
    "sd_skyrmion": SDMagnet(
        J=0.5, hopping=(1.0, 0.0, -0.85), chemical_potential=-3.5, zeeman=(0.0, 0.0, 0.005)
    ),
    "sd_square": SDMagnet(J=1.0, filling=0.5),
}

#: The sides of a torus that hold the order of a parameter set are multiples of these.
ORDER_PERIODS = {"sd_tetrahedral": 2, "sd_120": 3, "sd_skyrmion": 12, "sd_square": 2}


def warn_of_misfit(preset: str, lattice: Lattice) -> None:
    """Warn where a torus cannot hold the order of a parameter set, and say which sides can."""
    period = ORDER_PERIODS.get(preset, 1)
    if any(side % period for side in lattice.shape):
        _log.warning(
            "the order of %s does not fit %s and cannot form without defects there; sides that are "
            "multiples of %d hold it.",
            preset,
            lattice,
            period,
        )
