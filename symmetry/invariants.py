"""Invariant descriptors of the surroundings of a site (S. Zhang, dissertation, section 7.2).

A field on the shells about a site is decomposed into irreps, f_r^Γ (:mod:`projections`); numbers
that no operation changes are then built from them:

* the power |f_r|² (Eq. 7.13), which loses directions and relative signs,
* the relation of every copy to one reference per irrep type, f_ref = Σ_r w_r f_r / Σ_r w_r,
* the reference bispectrum, all cubic invariants of the references, which ties the types together.

Counting. With m_Γ copies of irreps of dimension d_Γ (Σ m_Γ d_Γ = L M numbers about a site):

================  ==================================================  ========  ==============
level             features                                            Holstein  rank there
================  ==================================================  ========  ==============
"paper"           1 per one-dimensional copy, 2 per larger copy             45  44 of 45
"ref-bispectrum"  … and the reference bispectrum                            48  45 of 45
"full"            … and up to d_Γ − 1 more per copy of dimension d_Γ        59  45 of 45
================  ==================================================  ========  ==============

(Holstein: scalar field, square lattice, eight shells. Rank is that of the Jacobian at a generic
field: features that miss a rank have a spurious continuous symmetry. On the paper's level all E
copies can turn together.) A Jacobian of full rank leaves discrete ambiguities: at "ref-bispectrum"
the E copies can still be mirrored, all together, across their reference. "full" removes this by
the components of each copy along further directions u^Γ made of the references: for E of D4 the
one vector (f_r × f_ref) a2; generally the first independent ones among the symmetric covariants
of degree up to three, in the order of the group's irreps.

What is complete. For D1, D3, D4, D6 "ref-bispectrum" has full rank once two irreps or shells give
the references something to be tied to. An irrep of dimension 3 (T1, T2 of Td) has two features at
"ref-bispectrum" for three numbers, so its direction about the reference stays open: only "full"
has full rank there. "full" separates fields wherever the references and their covariants do not
vanish; where they do (a perfectly ordered state), fewer numbers are seen at every level.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from latticezoo.symmetry.errors import InputError, unknown
from latticezoo.symmetry.lattices import Lattice, Shell
from latticezoo.symmetry.neighbourhoods import (
    ExactBuffers,
    check_size,
    family_lattice,
    gather,
    in_frames,
    neighbour_tables,
)
from latticezoo.symmetry.projections import (
    IrrepCopies,
    Projection,
    projection,
)
from latticezoo.symmetry.references import (
    Product,
    reference_bispectrum,
    reference_directions,
)

__all__ = [
    "LEVELS",
    "Descriptor",
    "IrrepCopies",
    "Projection",
    "generalised_power_spectrum",
    "power_spectrum",
    "projection",
    "reference_bispectrum",
]

Level = Literal["paper", "ref-bispectrum", "full"]
LEVELS: tuple[Level, ...] = ("paper", "ref-bispectrum", "full")


def power_spectrum(copies: Tensor) -> Tensor:
    """|f_r|² of every copy (Eq. 7.13).

    Args:
        copies: Coefficients of one irrep ``[..., m, d]``.

    Returns:
        ``[..., m]``.
    """
    return copies.square().sum(-1)


def generalised_power_spectrum(copies: Tensor) -> Tensor:
    """f_r · f_r' of every pair of copies r ≤ r' (Eq. 7.24).

    Args:
        copies: Coefficients of one irrep ``[..., m, d]``.

    Returns:
        ``[..., m (m + 1) / 2]``.
    """
    first, second = torch.triu_indices(copies.shape[-2], copies.shape[-2], device=copies.device)
    return (copies[..., first, :] * copies[..., second, :]).sum(-1)


class Descriptor(ExactBuffers):
    """Invariant features of the surroundings of every site.

    Smooth form, default, with a small scale e (twice differentiable everywhere):

        trivial irrep:     f
        one-dimensional:   f · â,   â = f_ref / √(f_ref² + e²)
        larger:            √(|f|² + e²) − e   and   f · â,   â = f_ref / √(|f_ref|² + e²)
        bispectrum and further directions: products of the â

    The form of the paper (``smooth=None``), which jumps where a coefficient vanishes:

        one-dimensional:   f · sign(f_ref)
        larger:            |f|²   and   f · f_ref / (|f| |f_ref|)
        bispectrum and further directions: products of the f_ref

    (The text prints one complex number |f|² exp(iφ) for both; for one-dimensional irreps it is
    read as the signed amplitude.) Features are not standardized.

    Args:
        family: Lattice family, such as ``"square"``, or a lattice of it.
        field_spec: Representation of the field at a site, such as ``"2xA1+B1"`` or ``"vector"``.
        shells: The neighbourhood; a number stands for the site and that many shells around it.
        level: ``"paper"``, ``"ref-bispectrum"`` or ``"full"``: see the module.
        smooth: The scale e in units of the field, 0.05–0.1 of its typical size; None for the form
            of the paper.
        reference_range: R₀ of the weights w_r = exp(−R_r / R₀) in the references; None for equal
            weights.
        group: Name of a subgroup of the site group, such as ``"C4"``, where the problem has less
            symmetry than the lattice; its irreps then name the field. The sublattices of honeycomb
            and diamond stay equivalent.

    Attributes:
        projection: The decomposition into irreps.
        feature_names: One text per feature.

    Raises:
        InputError: For an unknown family, representation, level or group, or a scale or range that
            is not positive.

    Example:
        >>> Descriptor("square", "A1", 8).n_features
        48
    """

    _rows: Tensor

    def __init__(
        self,
        family: str | Lattice,
        field_spec: str = "A1",
        shells: Sequence[Shell] | int = 8,
        level: str = "ref-bispectrum",
        *,
        smooth: float | None = 0.1,
        reference_range: float | None = None,
        group: str | None = None,
    ) -> None:
        super().__init__()
        if level not in LEVELS:
            raise unknown("descriptor level", level, LEVELS)
        for what, number in (("smooth", smooth), ("reference_range", reference_range)):
            if number is not None and not 0 < number < math.inf:
                raise InputError(f"{what} must be a positive number or None, not {number}.")
        self.family = family_lattice(family).family
        self.field_spec, self.level, self.smooth = field_spec, level, smooth
        self.projection = projection(family, shells, field_spec, group)
        self.shells = self.projection.shells
        field = self.projection.group.representation(field_spec)
        self.in_channels, self._blocks = field.dim, field.blocks

        references = [_reference_rows(i, reference_range) for i in self.projection.irreps]
        self.register_constant("_rows", np.concatenate([self.projection.matrix, *references]).T)
        names = [irrep.name for irrep in self.projection.irreps]
        group_ = self.projection.group
        self._bispectrum: tuple[Product, ...] = ()
        self._directions: dict[str, tuple[Product, ...]] = {}
        if level != "paper":
            self._bispectrum = reference_bispectrum(group_, names)
        if level == "full":
            self._directions = {
                irrep.name: reference_directions(group_, irrep.name, names)
                for irrep in self.projection.irreps
                if irrep.dim > 1
            }
        for number, product in enumerate(self._all_products()):
            self.register_constant(f"_product_{number}", product.tensor)
        self.feature_names = tuple(self._names())

    @property
    def n_features(self) -> int:
        """Number of features."""
        return len(self.feature_names)

    @property
    def radius(self) -> float:
        """Distance in bond lengths beyond which nothing is seen."""
        return max(shell.radius for shell in self.shells)

    def extra_repr(self) -> str:
        """Family, field, level and sizes."""
        return (
            f"{self.family}, {self.field_spec}, level={self.level!r}, smooth={self.smooth}, "
            f"sites={sum(shell.size for shell in self.shells)}, features={self.n_features}"
        )

    def coefficients(self, values: Tensor, lattice: Lattice) -> dict[str, Tensor]:
        """Irrep coefficients f_r^Γ of the surroundings of every site.

        Args:
            values: ``[batch, sites, M]``.
            lattice: Any torus of the family that holds the neighbourhood.

        Returns:
            Per irrep ``[batch, sites, m, d]``; under an operation they move with the site and turn
            by D^Γ, in the frame of each sublattice.
        """
        return self._decompose(values, lattice)[0]

    def forward(self, values: Tensor, lattice: Lattice) -> Tensor:
        """Compute the features.

        Args:
            values: ``[batch, sites, M]``.
            lattice: Any torus of the family that holds the neighbourhood.

        Returns:
            ``[batch, sites, n_features]``.

        Raises:
            InputError: For another family, a wrong shape, or a torus on which the neighbourhood
                touches itself.
        """
        copies, references = self._decompose(values, lattice)
        units = references
        if self.smooth is not None:
            scale = self.smooth**2
            units = {
                name: reference * torch.rsqrt(power_spectrum(reference) + scale).unsqueeze(-1)
                for name, reference in references.items()
            }
        features, numbers = [], itertools.count()
        for irrep in self.projection.irreps:
            f = copies[irrep.name]
            features += self._relations(irrep, f, units[irrep.name])
            for product in self._directions.get(irrep.name, ()):
                direction = self._evaluate(next(numbers), product, units)
                features.append((f @ direction.unsqueeze(-1)).squeeze(-1))
        for product in self._bispectrum:
            features.append(self._evaluate(next(numbers), product, units).unsqueeze(-1))
        return torch.cat(features, dim=-1)

    # ---- parts -------------------------------------------------------------------------------

    def _decompose(
        self, values: Tensor, lattice: Lattice
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Copies ``[batch, sites, m, d]`` and references ``[batch, sites, d]`` by irrep."""
        if lattice.family != self.family:
            raise InputError(f"this descriptor serves the {self.family} lattice, not {lattice}.")
        if values.dim() != 3 or values.shape[1:] != (lattice.n_sites, self.in_channels):
            raise InputError(
                f"a descriptor of {self.field_spec!r} on {lattice} needs values of shape [batch, "
                f"{lattice.n_sites}, {self.in_channels}], but they have shape "
                f"{list(values.shape)}."
            )
        check_size(lattice, self.shells, f"a descriptor of {len(self.shells)} shells")
        tables = neighbour_tables(lattice, self.shells, values.device)
        around = gather(in_frames(values, lattice, self._blocks), tables)
        found = around @ self._rows
        irreps = self.projection.irreps
        sizes = [irrep.multiplicity * irrep.dim for irrep in irreps]
        parts = torch.split(found, sizes + [irrep.dim for irrep in irreps], dim=-1)
        copies = {
            irrep.name: part.unflatten(-1, (irrep.multiplicity, irrep.dim))
            for irrep, part in zip(irreps, parts[: len(irreps)], strict=True)
        }
        references = {
            irrep.name: part for irrep, part in zip(irreps, parts[len(irreps) :], strict=True)
        }
        return copies, references

    def _relations(self, irrep: IrrepCopies, f: Tensor, reference: Tensor) -> list[Tensor]:
        """Features of the copies of one irrep ``[..., m]``: size, and relation to the reference."""
        if irrep.name == self.projection.group.trivial:
            return [f.squeeze(-1)]
        if irrep.dim == 1:
            sign = reference if self.smooth is not None else torch.sign(reference)
            return [f.squeeze(-1) * sign]
        along = (f @ reference.unsqueeze(-1)).squeeze(-1)
        power = power_spectrum(f)
        if self.smooth is not None:
            return [torch.sqrt(power + self.smooth**2) - self.smooth, along]
        squares = power * power_spectrum(reference).unsqueeze(-1)
        positive = squares > 0  # the cosine with a zero vector counts as zero
        cosine = along * torch.rsqrt(torch.where(positive, squares, 1.0))
        return [power, torch.where(positive, cosine, 0.0)]

    def _evaluate(self, number: int, product: Product, units: dict[str, Tensor]) -> Tensor:
        """Value of a product of references, ``[batch, sites]`` or ``[batch, sites, d]``."""
        *others, last = product.irreps
        result = torch.tensordot(units[last], getattr(self, f"_product_{number}"), ([-1], [-1]))
        for name in reversed(others):
            factor = units[name]
            shape = (*factor.shape[:2], *(1,) * (result.dim() - 3), factor.shape[-1])
            result = (result * factor.reshape(shape)).sum(-1)
        return result

    def _all_products(self) -> list[Product]:
        directions = [
            product
            for irrep in self.projection.irreps
            for product in self._directions.get(irrep.name, ())
        ]
        return [*directions, *self._bispectrum]

    def _names(self) -> list[str]:
        names = []
        for irrep in self.projection.irreps:
            if irrep.name == self.projection.group.trivial:
                kinds = ["value"]
            elif irrep.dim == 1:
                kinds = ["along the reference"]
            else:
                kinds = ["size", "along the reference"]
            for product in self._directions.get(irrep.name, ()):
                kinds.append("along " + " ".join(product.irreps))
            places = [
                f"{irrep.name}[{copy}] of shell {shell}, channel {channel}"
                for copy, (shell, channel) in enumerate(
                    zip(irrep.shells, irrep.channels, strict=True)
                )
            ]
            names += [f"{place}: {kind}" for kind in kinds for place in places]
        return names + ["reference " + " ".join(product.irreps) for product in self._bispectrum]


def _reference_rows(irrep: IrrepCopies, reference_range: float | None) -> np.ndarray:
    """Coefficients of the weighted mean of all copies, ``[d, L·M]``."""
    weights = np.ones(irrep.multiplicity)
    if reference_range is not None:
        weights = np.exp(-irrep.radii / reference_range)
    return np.tensordot(weights / weights.sum(), irrep.rows, axes=1)
