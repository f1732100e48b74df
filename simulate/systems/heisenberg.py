"""Classical Heisenberg magnets: exchange, anisotropy, Dzyaloshinskii–Moriya interaction, field."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import torch
from torch import Tensor

from latticezoo.simulate.dynamics.llg import BLOCK
from latticezoo.simulate.forcefield import Fields
from latticezoo.simulate.systems.spin_system import TARGET, SpinSystem, Vector
from latticezoo.symmetry.errors import InputError, unknown
from latticezoo.symmetry.lattices import Lattice
from latticezoo.symmetry.tasks import Task

DMI_KINDS = ("interfacial", "bulk")


@dataclass(frozen=True)
class Heisenberg(SpinSystem):
    r"""Unit vectors on the square or the triangular lattice with an energy in closed form.

    .. math::
        E = -\sum_s J_s \sum_{\langle ij \rangle_s} S_i \cdot S_j
            - K \sum_i (S_i \cdot n)^2
            + \sum_{\langle ij \rangle} D_{ij} \cdot (S_i \times S_j)
            - B \cdot \sum_i S_i

    Every pair counts once; J > 0 is ferromagnetic and K > 0 makes n an easy axis. With the unit
    vector :math:`\hat r_{ij}` from i to its nearest neighbour j, the Dzyaloshinskii–Moriya vector
    is :math:`D_{ij} = D\, \hat z \times \hat r_{ij}` ("interfacial": cycloids and Néel skyrmions)
    or :math:`D_{ij} = D\, \hat r_{ij}` ("bulk": helices and Bloch skyrmions). The fields

    .. math::
        H_i = \sum_j J_{ij} S_j + 2 K (S_i \cdot n)\, n + \sum_j D_{ij} \times S_j + B

    are computed in the precision of the spins, energies in float64.

    Attributes:
        exchange: J of the shells of neighbours, nearest first.
        anisotropy: K.
        axis: The direction n, of any length.
        dmi: D.
        dmi_kind: ``interfacial`` or ``bulk``.
        zeeman: The external field B.

    Raises:
        InputError: A parameter is not a finite number, an axis has no direction, or a kind is not
            known.
    """

    exchange: tuple[float, ...] = (1.0,)
    anisotropy: float = 0.0
    axis: Vector = (0.0, 0.0, 1.0)
    dmi: float = 0.0
    dmi_kind: str = "interfacial"
    zeeman: Vector = (0.0, 0.0, 0.0)

    name: ClassVar[str] = "heisenberg"
    energy_unit: ClassVar[str] = "the exchange J"
    #: Elementary operations site by site: the same bits in every batch.
    batch_invariant: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("exchange", "axis", "zeeman"):
            count = None if name == "exchange" else 3
            object.__setattr__(self, name, _numbers(name, getattr(self, name), count))
        for name in ("anisotropy", "dmi"):
            (value,) = _numbers(name, [getattr(self, name)], 1)
            object.__setattr__(self, name, value)
        if not any(self.axis):
            raise InputError("axis is (0, 0, 0), which has no direction; give another vector.")
        if self.dmi_kind not in DMI_KINDS:
            raise unknown("kind of Dzyaloshinskii–Moriya interaction", self.dmi_kind, DMI_KINDS)

    # ---- energy and fields ---------------------------------------------------------------------

    def interaction_energy(self, spins: Tensor, lattice: Lattice) -> Tensor:
        """Energy ``[B]`` without the Zeeman term."""
        # Pair terms are bilinear: every pair stands in the fields of both its spins.
        pairs = -0.5 * (spins * self.pair_field(spins, lattice)).sum((1, 2))
        if self.anisotropy == 0:
            return pairs
        return pairs - self.anisotropy * self._along(spins).square().sum((1, 2))

    def interaction_field(self, spins: Tensor, lattice: Lattice) -> Tensor:
        """Fields ``[B, N, 3]`` without the Zeeman term, in the precision of the spins."""
        field = self.pair_field(spins, lattice)
        if self.anisotropy != 0:
            easy = spins.new_tensor(self.easy_axis)
            field = field + (2 * self.anisotropy) * self._along(spins) * easy
        return field

    def energy(self, fields: Fields, lattice: Lattice) -> Tensor:
        """Energy ``[B]``, Zeeman term included, float64."""
        self.check(fields, lattice)
        # Row by row, each from memory of its own: the order of a batched sum depends on the batch.
        rows = [row[None].clone() for row in fields["S"].double()]
        return torch.cat(
            [self.interaction_energy(row, lattice) + self.zeeman_energy(row) for row in rows]
        )

    def forces(self, fields: Fields, lattice: Lattice) -> dict[str, Tensor]:
        """Effective fields −∂E/∂S ``[B, N, 3]``, Zeeman term included, as precise as the spins."""
        self.check(fields, lattice)
        field = self.interaction_field(fields["S"], lattice)
        return {"S": field + field.new_tensor(self.zeeman) if any(self.zeeman) else field}

    def pair_field(self, spins: Tensor, lattice: Lattice) -> Tensor:
        """Fields ``[B, N, 3]`` of exchange and Dzyaloshinskii–Moriya interaction.

        The torus is copied with a rim as wide as the couplings reach, so that neighbours are slices
        of it, and summed up in blocks of rows that stay in the cache.
        """
        shifts, bonds, rim = _neighbours(lattice, max(len(self.exchange), 1))
        torus = spins.reshape(len(spins), *lattice.shape, 3)
        result = torch.zeros_like(torus)
        padded = _with_rim(torus, rim)
        rows, columns = lattice.shape
        block = max(1, BLOCK // (len(spins) * columns)) if spins.device.type == "cpu" else rows

        def neighbour(offset: Sequence[int], start: int, end: int) -> Tensor:
            first, second = rim + offset[0], rim + offset[1]
            return padded[:, first + start : first + end, second : second + columns]

        for start in range(0, rows, block):
            end = min(start + block, rows)
            target = result[:, start:end]
            for coupling, offsets in zip(self.exchange, shifts, strict=False):
                if coupling != 0:
                    total = neighbour(offsets[0], start, end) + neighbour(offsets[1], start, end)
                    for offset in offsets[2:]:
                        total += neighbour(offset, start, end)
                    target += total if coupling == 1 else total.mul_(coupling)
            if self.dmi != 0:
                half = len(bonds) // 2  # the other half lies opposite, with −D
                for offset, bond in zip(shifts[0][:half], bonds[:half], strict=True):
                    ahead = neighbour(offset, start, end)
                    behind = neighbour([-n for n in offset], start, end)
                    _add_cross(target, self.dm_vector(bond), ahead - behind)
        return result.reshape(spins.shape)

    def dm_vector(self, bond: Sequence[float]) -> tuple[float, float]:
        """In-plane components of D_ij for a bond along a unit vector; the third is zero."""
        along, up = float(bond[0]), float(bond[1])
        if self.dmi_kind == "bulk":
            return (self.dmi * along, self.dmi * up)
        return (-self.dmi * up, self.dmi * along)

    @property
    def easy_axis(self) -> Vector:
        """The axis n, of length 1."""
        length = math.hypot(*self.axis)
        return (self.axis[0] / length, self.axis[1] / length, self.axis[2] / length)

    def _along(self, spins: Tensor) -> Tensor:
        """S·n, ``[B, N, 1]``."""
        x, y, z = self.easy_axis
        return x * spins[..., :1] + y * spins[..., 1:2] + z * spins[..., 2:]

    # ---- learning ------------------------------------------------------------------------------

    def task(self, family: str = "square", target: str = TARGET) -> Task:
        """The map from spins to perpendicular fields, without the Zeeman term.

        Raises:
            InputError: For an unknown target or family, or where anisotropy or
                Dzyaloshinskii–Moriya interaction leave less symmetry than the task has.
        """
        if self.dmi != 0:
            raise InputError(
                f"the Dzyaloshinskii–Moriya interaction dmi = {self.dmi:g} couples spins to the "
                "directions of the lattice, so that only common rotations of both are a symmetry; "
                "the task needs independent rotations of the spins (dmi = 0)."
            )
        if self.anisotropy != 0:
            raise InputError(
                f"the anisotropy {self.anisotropy:g} singles out the axis {self.axis}, so that "
                "only rotations about it are a symmetry; the task needs all rotations of the "
                "spins (anisotropy = 0)."
            )
        return super().task(family, target)


def _numbers(name: str, values: Any, count: int | None) -> tuple[float, ...]:
    """Finite numbers as a tuple, so many of them."""
    given = [values] if isinstance(values, int | float) else list(values)
    number = all(isinstance(v, int | float) and not isinstance(v, bool) for v in given)
    if not number or not all(math.isfinite(v) for v in given) or count not in (None, len(given)):
        shape = {None: "a finite number for each shell of neighbours", 1: "a finite number"}
        kind = shape.get(count, f"{count} finite numbers")
        raise InputError(f"{name} is {values!r}; it must be {kind}.")
    return tuple(float(v) for v in given)


@lru_cache(maxsize=64)
def _neighbours(
    lattice: Lattice, count: int
) -> tuple[tuple[tuple[tuple[int, ...], ...], ...], tuple[tuple[float, ...], ...], int]:
    """Offsets of so many shells in cells, the unit vectors of the first, and how far they reach."""
    shells = lattice.shells(count=count)[1:]
    lattice.require(shells, f"{count} shells of coupled neighbours")
    shifts = tuple(lattice.shifts(shell) for shell in shells)
    reach = max(abs(n) for offsets in shifts for offset in offsets for n in offset)
    return shifts, shells[0].offsets, reach


def _with_rim(torus: Tensor, rim: int) -> Tensor:
    """A torus ``[B, rows, columns, C]`` continued periodically by a rim on every side."""
    wide = torch.cat([torus[:, :, -rim:], torus, torus[:, :, :rim]], dim=2)
    return torch.cat([wide[:, -rim:], wide, wide[:, :rim]], dim=1)


def _add_cross(target: Tensor, vector: tuple[float, float], values: Tensor) -> None:
    """Add D × v for D in the plane to the target, in place."""
    x, y, z = values.unbind(-1)
    first, second = vector
    if second != 0:
        target[..., 0] += second * z
        target[..., 2] -= second * x
    if first != 0:
        target[..., 1] -= first * z
        target[..., 2] += first * y


#: A ferromagnet; an antiferromagnet, whose three sublattices order at 120° on the triangular
#: lattice; and a chiral magnet on the square lattice, helices of 2π/arctan(D/J) = 13.6 sites
#: without field, skyrmions in the field B = ½ D²/J, in the middle of the window of 0.2 to 0.8 D²/J
#: in which they have the lowest energy (Bogdanov and Hubert, J. Magn. Magn. Mater. 138, 255
#: (1994), in the continuum). Relaxed at these parameters: skyrmion lattice −2.1503 a site (two on
#: 16 × 28), helix −2.1366 (17 sites), ferromagnet −2.1250.
PRESETS: dict[str, Heisenberg] = {
    "heisenberg_square": Heisenberg(),
    "heisenberg_triangular": Heisenberg(exchange=(-1.0,)),
    "skyrmion_dmi": Heisenberg(dmi=0.5, zeeman=(0.0, 0.0, 0.125)),
}
