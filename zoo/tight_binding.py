"""A network that learns the electrons' Hamiltonian: blocks of a polynomial of it are the output."""

from __future__ import annotations

import itertools
import math
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.lattices import Lattice, Shell
from latticezoo.symmetry.neighbourhoods import ExactBuffers, family_lattice
from latticezoo.symmetry.projections import irrep_copies
from latticezoo.symmetry.stencils import EquivariantLinear, stencil_basis
from latticezoo.symmetry.tasks import Task
from latticezoo.zoo.base import ZooModel
from latticezoo.zoo.layers.irrep_fields import check_site_field
from latticezoo.zoo.layers.matrix_functions import site_blocks
from latticezoo.zoo.registry import register

#: Share of the interval (−1, 1) that the levels may fill.
_FILLED = 0.995
#: Sharpness of the bound on the potential of a site.
_SHARPNESS = 8
#: Weights are kept as this share of what they stand for, so that the learning rates of networks
#: with many thousand weights suit these few.
_UNIT = 0.1
#: Momenta along each direction at which the bandwidth of the hopping is looked for.
_MOMENTA = 12


@register("tight_binding")
class TightBinding(ZooModel):
    r"""Tight-binding network: a learned Hamiltonian, and a learned function of it.

    Every site has orbitals of given irreps of the site group. The fields on and around it make a
    symmetric matrix of its orbitals, the potential V, by an equivariant linear map; amplitudes t,
    one equivariant matrix per offset, connect it with its neighbours. With

    .. math::
        h_{ij} = V_i[Q]\, \delta_{ij} + t_{j-i}, \qquad
        D_i = \Big[ \sum_{n=0}^{M} c_n T_n(h) \Big]_{ii}

    the targets are equivariant linear maps of the blocks D. All of V, t and c are learned from the
    targets alone. Electrons in equilibrium are such a function of their Hamiltonian, the Fermi
    function, so where the field couples linearly to the electrons these few weights can be exact up
    to the highest order and the range; and what was learned can be read: hopping amplitudes,
    couplings, the occupation of a level. Highest order and range are those of the kernel polynomial
    method: a gap Δ in a band of half width W asks for orders of some 3 W/Δ and more.

    Spectra are bounded by construction, hopping and potential share the interval (−1, 1), and
    stronger potentials saturate, so that the polynomial cannot run away outside of the training
    data.

    The price is time: 10 ms a site on a large lattice with the default order and range, where
    ``lattice_enn`` takes 13 µs (``benchmarks/jahn_teller_force.py``), and a diagonalization where
    the torus is smaller than the neighbourhood (``2 reach + 1`` sites). Paths around such a torus
    count, as they do for the electrons. So it is no faster than an exact solver on small tori: it
    is for electrons whose Hamiltonian is not known, for forces that local networks cannot learn,
    and as a reference.

    Presets:
        ``compact``: order 128, paths within 12 bond lengths, nearest-neighbour hopping; 142 weights
        on the Jahn–Teller model.
        ``fast``: order 32, 6 bond lengths.

    Args:
        task: What to learn.
        preset: ``"compact"`` or ``"fast"``.
        orbitals: Irreps of the orbitals of a site, such as ``"A1+B1"``. None: the trivial one, and
            one of every other irrep that an input or target has.
        order: Highest order M of the polynomial, 2 or more.
        reach: Bond lengths within which paths stay.
        shells: Shells of neighbours that electrons hop to.
        potential_shells: Shells around a site whose fields make its potential; 0: the site alone.
        **training: Learning rate, optimizer (L-BFGS by default), schedule, ``conserve``: see
            :class:`~latticezoo.zoo.base.ZooModel`.

    Raises:
        InputError: When the task has other fields than real ones on sites, or a lattice with
            several sites in a cell, no orbitals give a target, or an option is wrong.
    """

    presets: ClassVar = {
        "compact": {
            "orbitals": None,
            "order": 128,
            "reach": 12,
            "shells": 1,
            "potential_shells": 0,
            "conserve": True,
            "optimizer": "lbfgs",
            "learning_rate": 1.0,
            "schedule": "constant",
            "gradient_clip": 0.0,
        },
        "fast": {"order": 32, "reach": 6},
    }

    def __init__(
        self,
        task: Task | dict[str, Any],
        *,
        preset: str = "compact",
        orbitals: str | None = None,
        order: int | None = None,
        reach: int | None = None,
        shells: int | None = None,
        potential_shells: int | None = None,
        **training: Any,
    ) -> None:
        super().__init__(
            task,
            preset=preset,
            architecture={
                "orbitals": orbitals,
                "order": order,
                "reach": reach,
                "shells": shells,
                "potential_shells": potential_shells,
            },
            **training,
        )
        options = self.options
        for name, least in (("order", 2), ("reach", 1), ("shells", 1), ("potential_shells", 0)):
            if options[name] < least:
                raise InputError(f"{name} must be {least} or more, not {options[name]}.")
        for field in (*self.task.inputs, *self.task.targets):
            check_site_field(self, field)
        if self._family.sublattices > 1:
            raise self.refuse(
                f"cells of the {self.task.family} lattice hold several sites; it serves lattices "
                "with one, such as square and triangular."
            )
        spec = options["orbitals"] or self._default_orbitals()
        self.matrices = SymmetricMatrices(self.task.family, spec)
        self.hopping = Hopping(self.task.family, spec, options["shells"])
        inputs = "+".join(field.point for field in self.task.inputs)
        targets = "+".join(field.point for field in self.task.targets)
        self.potential = EquivariantLinear(
            self.task.family, inputs, self.matrices.spec, options["potential_shells"]
        )
        self.readout = EquivariantLinear(self.task.family, self.matrices.spec, targets, 0)
        reached = {key.rsplit("_", 1)[-1] for key in self.readout.weights}
        blocks = self._family.site_group.representation(targets).blocks
        for number, (_, name, _) in enumerate(blocks):
            if str(number) not in reached:
                raise self.refuse(
                    f"no product of two of the orbitals {spec} is a target of type {name}; give "
                    "other orbitals."
                )
        self.balance = nn.Parameter(torch.tensor(0.5 * _UNIT))
        self.coefficients = nn.Parameter(torch.empty(options["order"] + 1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weak potentials, and the occupation of a half-filled band, smoothed (Jackson).

        The blocks of this function are a density that rises where the potential is low, so a field
        lowers its potential, and a target rises with the density of its type. From here the other
        weights are found; from random ones training ends where potentials saturate.
        """
        with torch.no_grad():
            # A field couples to the matrix of its own type, the first trivial one to the density.
            _pair_copies(self.potential, -0.08 * _UNIT)
            _pair_copies(self.readout, 5.0 * _UNIT)
            M = self.options["order"]
            n = torch.arange(M + 1, dtype=torch.float64)
            angle = math.pi / (M + 2)
            damping = (
                (M + 2 - n) * torch.cos(n * angle) + torch.sin(n * angle) / math.tan(angle)
            ) / (M + 2)
            # −sign(x)/2 = −(2/π) Σ over odd n of (−1)^((n−1)/2) T_n(x)/n; weights are c_n times n.
            step = -(2 / math.pi) * torch.sin(n * math.pi / 2)
            self.coefficients.copy_(_UNIT * step * damping)

    def _default_orbitals(self) -> str:
        group = self._family.site_group
        names = [group.trivial]
        for field in (*self.task.inputs, *self.task.targets):
            names += [name for _, name, _ in group.representation(field.point).blocks]
        return "+".join(dict.fromkeys(names))

    def predict(self, fields: dict[str, Tensor], lattice: Lattice) -> dict[str, Tensor]:
        """Standardized targets."""
        given = torch.cat([fields[field.name] for field in self.task.inputs], -1)
        share = _FILLED * torch.sigmoid(self.balance / _UNIT)
        potential = self.matrices.assemble(self.potential(given, lattice) / _UNIT)
        potential = bounded(potential, _FILLED - share)
        M = self.options["order"]
        n = torch.arange(M + 1, dtype=given.dtype, device=given.device).clamp(min=1)
        blocks = site_blocks(
            potential,
            share * self.hopping(),
            self.hopping.offsets,
            lattice,
            self.coefficients / (_UNIT * n),
            self.reach,
        )
        found = self.readout(self.matrices.components(blocks), lattice) / _UNIT
        widths = [field.channels(lattice) for field in self.task.targets]
        return {
            field.name: values
            for field, values in zip(self.task.targets, found.split(widths, -1), strict=True)
        }

    def _images(self) -> list[frozenset[str]]:
        """In training the inputs alone: their images teach nothing new and cost as much."""
        images = super()._images()
        return images[:1] if self.training else images

    @property
    def reach(self) -> int:
        """Bond lengths within which paths stay: no closed path of M hops comes farther than M/2."""
        farthest = math.floor(self.options["order"] / 2 * self.hopping.radius)
        return max(1, min(self.options["reach"], farthest))

    @property
    def receptive_radius(self) -> float:
        """The range of the paths, and that of the potential; on a small torus all of it is seen."""
        return self.reach + self.potential.radius

    @property
    def required_shells(self) -> tuple[Shell, ...]:
        """Neighbours that must be different sites on any lattice it runs on."""
        count = max(self.options["shells"], self.options["potential_shells"])
        return self._family.shells(count=count)


def _pair_copies(layer: EquivariantLinear, size: float) -> None:
    """Let every block of the output follow the input of its own type, copy by copy."""
    group = family_lattice(layer.family).site_group
    incoming = group.representation(layer.in_spec).blocks
    outgoing = group.representation(layer.out_spec).blocks
    for key, weight in layer.weights.items():
        source, target = (int(number) for number in key.split("_to_"))
        weight.zero_()
        # By what they hold: Cartesian components have a name of their own.
        if group.decompose(incoming[source][1]) == group.decompose(outgoing[target][1]):
            copies = torch.arange(min(weight.shape[1:]))
            weight[0, copies, copies] = size


def bounded(matrices: Tensor, largest: Tensor) -> Tensor:
    """Symmetric matrices with their Frobenius norm, a bound of their levels, kept below a limit.

    Matrices well below the limit are left alone: V (1 + (|V|/v)^8)^(−1/8).
    """
    square = matrices.square().sum((-2, -1), keepdim=True) / largest**2
    half = _SHARPNESS / 2
    return matrices * (1 + square**half) ** (-1 / _SHARPNESS)


class SymmetricMatrices(ExactBuffers):
    """Symmetric matrices of the orbitals of a site, as channels of irreps.

    Args:
        family: Lattice family.
        orbitals: Irreps of the orbitals.

    Attributes:
        spec: Irreps of the symmetric matrices, such as ``"2xA1+B1"``.
    """

    def __init__(self, family: str, orbitals: str) -> None:
        super().__init__()
        group = family_lattice(family).site_group
        rotations = group.representation(orbitals).matrices
        d = rotations.shape[-1]
        pairs = list(itertools.combinations_with_replacement(range(d), 2))
        basis = np.zeros((len(pairs), d, d))
        for row, (a, b) in enumerate(pairs):
            basis[row, a, b] = basis[row, b, a] = 1.0 if a == b else math.sqrt(0.5)
        turned = np.einsum("gac,pcd,gbd->gpab", rotations, basis, rotations)
        action = np.einsum("gpab,qab->gqp", turned, basis)
        parts, names = [], []
        for name in group.irreps:
            copies = irrep_copies(group, action, name)
            if name == group.trivial:
                copies = _identity_first(copies, basis)
            if len(copies):
                names.append(f"{len(copies)}x{name}")
                parts.append(copies.reshape(-1, len(pairs)))
        self.spec = "+".join(names)
        self.register_constant("basis", np.einsum("cp,pab->cab", np.concatenate(parts), basis))

    def assemble(self, components: Tensor) -> Tensor:
        """Channels ``[…, C]`` to matrices ``[…, d, d]``."""
        return torch.einsum("...c,cab->...ab", components, self.get_buffer("basis"))

    def components(self, matrices: Tensor) -> Tensor:
        """Matrices ``[…, d, d]`` to channels ``[…, C]``."""
        return torch.einsum("...ab,cab->...c", matrices, self.get_buffer("basis"))


def _identity_first(copies: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Another basis ``[m, 1, P]`` of the invariant matrices, with the unit matrix as its first."""
    one = np.einsum("paa->p", basis)
    one /= np.linalg.norm(one)
    flat = copies[:, 0]
    _, _, rows = np.linalg.svd(flat - np.outer(flat @ one, one))
    found = [one]
    for row in rows[: len(flat) - 1]:
        found.append(row * np.sign(row[np.argmax(np.abs(row) > 1e-6)]))
    return np.array(found)[:, None]


class Hopping(ExactBuffers):
    """Equivariant hopping amplitudes that make a symmetric matrix of bandwidth [−1, 1] or less.

    Args:
        family: Lattice family, one site per cell.
        orbitals: Irreps of the orbitals of a site.
        shells: Shells of neighbours.

    Attributes:
        offsets: Displacements in whole cells.
        radius: The longest in bond lengths.
    """

    def __init__(self, family: str, orbitals: str, shells: int) -> None:
        super().__init__()
        lattice = family_lattice(family)
        chosen = lattice.shells(count=shells)[1:]
        self.radius = max(shell.radius for shell in chosen)
        self.offsets = [tuple(shift) for shell in chosen for shift in lattice.shifts(shell)]
        found = stencil_basis(lattice, chosen, orbitals, orbitals)
        back = [self.offsets.index(tuple(-step for step in offset)) for offset in self.offsets]
        mixed = (found + found[:, back].transpose(0, 1, 3, 2)) / 2
        flat = mixed.reshape(len(mixed), -1)
        _, sizes, rows = np.linalg.svd(flat, full_matrices=False)
        basis = rows[sizes > 1e-9].reshape(-1, *mixed.shape[1:])
        self.register_constant("basis", basis)
        momenta = np.stack(
            np.meshgrid(*[np.arange(_MOMENTA) * 2 * np.pi / _MOMENTA] * lattice.dim, indexing="ij"),
            -1,
        ).reshape(-1, lattice.dim)
        phases = momenta @ np.array(self.offsets).T
        self.register_constant("cosine", np.cos(phases))
        self.register_constant("sine", np.sin(phases))
        # The same amplitude for every orbital, and a little of everything else.
        alike = np.einsum("mkaa->m", basis)
        start = -alike / np.linalg.norm(alike)
        self.weights = nn.Parameter(torch.tensor(start, dtype=torch.get_default_dtype()))
        with torch.no_grad():
            self.weights.add_(0.1 * torch.randn(len(basis))).mul_(_UNIT)

    def forward(self) -> Tensor:
        """Amplitudes ⟨i|t|i + δ⟩ ``[K, d, d]``."""
        found = torch.einsum("m,mkab->kab", self.weights, self.get_buffer("basis"))
        real = torch.einsum("qk,kab->qab", self.get_buffer("cosine"), found)
        imaginary = torch.einsum("qk,kab->qab", self.get_buffer("sine"), found)
        whole = torch.cat([torch.cat([real, -imaginary], 2), torch.cat([imaginary, real], 2)], 1)
        with torch.no_grad():
            largest = spectral_bound(whole).argmax()
        return found / spectral_bound(whole[largest])


def spectral_bound(matrices: Tensor) -> Tensor:
    """Bounds of the levels of symmetric matrices ``[…, n, n]`` from above: (Tr A^16)^(1/16).

    Smooth where levels meet, which a largest level is not.
    """
    scale = matrices.square().sum((-2, -1)).detach().clamp_min(1e-30).sqrt()
    power = matrices / scale[..., None, None]
    for _ in range(3):
        power = power @ power
    return power.square().sum((-2, -1)) ** (1 / 16) * scale
