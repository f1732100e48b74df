r"""Networks whose features are functions on the site group (the regular representation).

A function f(g) on a finite group holds every irrep as often as its dimension, so these features are
a direct sum of all irreps in another basis, one number for every group element. In that basis every
pointwise nonlinearity is equivariant, since the group only permutes the numbers, and an equivariant
stencil is a convolution over the group, whose filter is a mere look-up in the free weights
(T. Cohen and M. Welling, arXiv:1602.07576; M. Weiler and G. Cesa, arXiv:1911.08251).

With ρ the representation of a field v, and k the offsets of a neighbourhood:

.. math::
    \text{lift:}\quad & f_c(g)_i = \sum_{k} w_{ck} \cdot \rho(g)^{-1} v_{i + g k} \\
    \text{convolution:}\quad & f'_c(g)_i = \sum_{b,h,k} w_{cb}(h, k)\, f_b(g h)_{i + g k} \\
    \text{projection:}\quad & v'_i = \sum_{c,g,k} \rho(g)\, w_{ck}\, f_c(g)_{i + g k}

Two-element symmetries of a task are carried as parities, as in
:mod:`~latticezoo.zoo.layers.irreps`: linear maps keep them, and the nonlinearity acts on the sums
and differences of the parts, which the symmetry exchanges.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from latticezoo.symmetry.fields import Field
from latticezoo.symmetry.lattices import Lattice
from latticezoo.symmetry.neighbourhoods import ExactBuffers, family_lattice, offset_permutations
from latticezoo.zoo.layers.activations import activation
from latticezoo.zoo.layers.graph import tiles
from latticezoo.zoo.layers.irrep_fields import FieldGroup, fields_by_parity
from latticezoo.zoo.layers.neighbourhood_product import NeighbourhoodProduct, is_uniform

#: Initial steepnesses of the saturating copies of an input, in units of its inverse scale: from
#: nearly linear over the whole range to one that tells the two sides of zero apart.
STEEPNESSES = (0.3, 0.7, 1.6, 3.7, 8.7, 20.0)


#: Initial gains: small changes by the blocks, and outputs near zero. With gains of one the first
#: gradients are some 300 times larger than the later ones, and Adam's mean square remembers them
#: for thousands of steps.
_CHANGE, _OUTPUT = 0.3, 0.03


class GroupConvolution(nn.Module):
    """Equivariant linear map between functions on the site group, one for each parity.

    Args:
        family: Lattice family.
        into: Number of functions that go in, for each parity.
        out: Number that comes out.
        shells: Number of shells around the site.
        parities: Number of parities.
        gain: Size of the initial weights: independent inputs of unit variance give outputs of this
            standard deviation.

    Shapes, for every parity:
        - input ``[batch, sites, into · order]``
        - output ``[batch, sites, out · order]``
    """

    def __init__(
        self, family: str, into: int, out: int, shells: int, parities: int, gain: float = 1.0
    ) -> None:
        super().__init__()
        group = family_lattice(family).site_group
        self.product = NeighbourhoodProduct(family, shells, into * group.order, out * group.order)
        width = self.product.width
        self.parities, self.into, self.out, self.order = parities, into, out, group.order
        turned = offset_permutations(group, self.product.shells)[group.inverse]
        # Row (g, k', h') of the filter is the weight at h = g⁻¹h' and k = g⁻¹k'.
        relative = group.product_table[group.inverse]
        index = relative[:, None, :] * width + turned[:, :, None]
        self.register_buffer("_index", torch.tensor(index.reshape(-1)), persistent=False)
        fan_in = into * group.order * width
        self.weight = _weights(parities, out, into, group.order * width, fan_in=fan_in, gain=gain)

    def filter(self) -> Tensor:
        """The dense filter ``[parities, out · order, offsets, into · order]``.

        It is divided by the number of parities, for :class:`GroupActivation`.
        """
        weight = self.weight / self.parities
        found = weight.flatten(0, 2).index_select(1, self.get_buffer("_index"))
        split = found.view(self.parities, self.out, self.into, self.order, -1, self.order)
        return split.permute(0, 1, 3, 4, 2, 5).flatten(4).flatten(1, 2)

    def forward(self, values: Sequence[Tensor], lattice: Lattice) -> list[Tensor]:
        """Apply the map; shapes as above."""
        return self.product(values, self.filter, [self.weight], lattice)


class _FieldMap(ExactBuffers):
    """What lift and projection share: weights for one representation, and its matrices."""

    def __init__(
        self,
        family: str,
        spec: str,
        copies: int,
        functions: int,
        product: NeighbourhoodProduct,
        fan_in: int,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.product = product
        group, width = family_lattice(family).site_group, self.product.width
        self.functions, self.copies, self.order = functions, copies, group.order
        representation = group.representation(spec)
        self.dim = representation.dim
        turned = offset_permutations(group, self.product.shells)[group.inverse]
        self.register_buffer("_index", torch.tensor(turned.reshape(-1)), persistent=False)
        self.register_constant("_matrices", representation.matrices)
        fan_in *= width
        self.weight = _weights(functions, copies, self.dim, width, fan_in=fan_in, gain=gain)

    def turned(self) -> Tensor:
        """ρ(g) w at the offset g⁻¹k, ``[functions, copies, order, dim, offsets]``."""
        found = self.weight.index_select(3, self.get_buffer("_index"))
        split = found.unflatten(3, (self.order, -1))  # [functions, copies, dim, order, K]
        return torch.einsum("gab,fcbgk->fcgak", self._matrices, split)


class Lift(_FieldMap):
    """Equivariant linear map from fields of one parity to functions on the site group.

    Args:
        family: Lattice family.
        spec: Representation of the fields side by side.
        copies: Number of copies of them.
        functions: Number of functions.
        shells: Number of shells around the site.

    Shapes:
        - input ``[batch, sites, copies · dim]``
        - output ``[batch, sites, functions · order]``
    """

    def __init__(self, family: str, spec: str, copies: int, functions: int, shells: int) -> None:
        group = family_lattice(family).site_group
        width = copies * group.representation(spec).dim
        product = NeighbourhoodProduct(family, shells, width, functions * group.order)
        super().__init__(family, spec, copies, functions, product, width)

    def filter(self) -> Tensor:
        """The dense filter ``[1, functions · order, offsets, copies · dim]``."""
        return self.turned().permute(0, 2, 4, 1, 3).flatten(3).flatten(0, 1)[None]

    def forward(self, values: Tensor, lattice: Lattice) -> Tensor:
        """Apply the map; shapes as above."""
        return self.product([values], self.filter, [self.weight], lattice)[0]


class Projection(_FieldMap):
    """Equivariant linear map from functions on the site group to fields of one parity.

    Args:
        family: Lattice family.
        spec: Representation of the fields side by side.
        functions: Number of functions.
        shells: Number of shells around the site.
        parities: Number of parities.

    Shapes:
        - input ``[batch, sites, functions · order]``
        - output ``[batch, sites, dim]``
    """

    def __init__(self, family: str, spec: str, functions: int, shells: int, parities: int) -> None:
        group = family_lattice(family).site_group
        order, dim = group.order, group.representation(spec).dim
        product = NeighbourhoodProduct(family, shells, functions * order, dim)
        super().__init__(family, spec, 1, functions, product, functions * order * dim, _OUTPUT)
        self.parities = parities

    def filter(self) -> Tensor:
        """The dense filter ``[1, dim, offsets, functions · order]``.

        It is divided by the number of parities, for :class:`GroupActivation`.
        """
        found = self.turned()[:, 0] / self.parities
        return found.permute(2, 3, 0, 1).flatten(2)[None]

    def forward(self, values: Tensor, lattice: Lattice) -> Tensor:
        """Apply the map; shapes as above."""
        return self.product([values], self.filter, [self.weight], lattice)[0]


class GroupActivation(nn.Module):
    """Pointwise nonlinearity on functions of the site group and the two-element symmetries.

    The parts of all parities are first turned into values at the elements of the two-element
    symmetries (sums and differences), where those symmetries only permute, and then back; the
    division by the number of parities that belongs to it is left to the linear map that follows.

    Args:
        functions: Number of functions, for each parity.
        order: Order of the site group.
        parities: Number of parities.
        name: Nonlinearity: silu, relu, gelu, softplus or tanh.

    Shapes, for every parity:
        - input ``[batch, sites, functions · order]``, or ``[1, 1, …]``
        - output ``[batch, sites, functions · order]``
    """

    def __init__(self, functions: int, order: int, parities: int, name: str) -> None:
        super().__init__()
        self.order, self.parities = order, parities
        self.apply_to, self.overwrite = activation(name), activation(name, in_place=True)
        self.bias = nn.Parameter(torch.zeros(functions))

    def forward(self, values: Sequence[Tensor]) -> list[Tensor]:
        """Apply the nonlinearity."""
        bias = self.bias.repeat_interleave(self.order)
        # A constant is even under every symmetry.
        parts = [values[0] + bias, *values[1:]]
        return _sums([self.apply_to(part) for part in _sums(parts)])

    def overwriting(self, values: list[Tensor]) -> list[Tensor]:
        """The same without gradients; the values given are overwritten."""
        values[0].add_(self.bias.repeat_interleave(self.order))
        return _exchange([self.overwrite(part) for part in _exchange(values)])


class RegularNetwork(nn.Module):
    r"""Fields to fields through functions on the site group, every parity carried along.

    .. math::
        x^{(0)} = \mathrm{lift}(v), \qquad
        x^{(l+1)} = x^{(l)} + C_l\, \phi(x^{(l)} + b_l), \qquad
        v' = \mathrm{project}(x^{(L)} + \phi(x^{(L)} + b_L))

    The lift sees saturating copies :math:`s v / \sqrt{1 + s^2 v^2}` of each input v with several
    learned steepnesses s: where electrons follow the sign of a large field, polynomials and single
    kinks have to be stacked many layers deep to make a step. The projection has a linear part, so
    that these copies reach the output directly and the blocks learn what is left.

    Args:
        inputs: Site fields.
        outputs: Site fields.
        family: Lattice family.
        flips: Names of the two-element symmetries.
        functions: Number of functions, for each parity.
        blocks: Number of group convolutions.
        embedding_shells: Shells around a site that the lift sees.
        shells: Shells that a convolution sees.
        readout_shells: Shells that the projection sees.
        nonlinearity: Name of φ.
    """

    def __init__(
        self,
        inputs: tuple[Field, ...],
        outputs: tuple[Field, ...],
        family: str,
        flips: Sequence[str],
        *,
        functions: int,
        blocks: int,
        embedding_shells: int,
        shells: int,
        readout_shells: int,
        nonlinearity: str,
    ) -> None:
        super().__init__()
        self.order, self.parities = family_lattice(family).site_group.order, 2 ** len(flips)
        self.functions = functions
        self._inputs = fields_by_parity(family, inputs, flips)
        self._outputs = fields_by_parity(family, outputs, flips)
        self.saturation = Saturation()
        copies = len(STEEPNESSES)
        self.lifts = nn.ModuleDict(
            {
                str(parity): Lift(family, group.spec, copies, functions, embedding_shells)
                for parity, group in self._inputs.items()
            }
        )
        self.convolutions = nn.ModuleList(
            GroupConvolution(family, functions, functions, shells, self.parities, _CHANGE)
            for _ in range(blocks)
        )
        self.activations = nn.ModuleList(
            GroupActivation(functions, self.order, self.parities, nonlinearity)
            for _ in range(blocks + 1)
        )
        self.projections = nn.ModuleDict(
            {
                str(parity): Projection(
                    family, group.spec, functions, readout_shells, self.parities
                )
                for parity, group in self._outputs.items()
            }
        )

    @property
    def radius(self) -> float:
        """Distance in bond lengths beyond which nothing is seen."""
        maps = [next(iter(self.lifts.values())), *self.convolutions]
        maps.append(next(iter(self.projections.values())))
        return float(sum(m.product.radius for m in maps))

    def forward(self, fields: Mapping[str, Tensor], lattice: Lattice) -> dict[str, Tensor]:
        """Outputs by name, ``[batch, sites, C]``."""
        values = self._lifted(fields, lattice)
        if torch.is_grad_enabled() or torch.is_autocast_enabled(values[0].device.type):
            for convolution, act in zip(self.convolutions, self.activations, strict=False):
                update = convolution(act(values), lattice)
                values = [value + u for value, u in zip(values, update, strict=True)]
            last = self.activations[-1](values)
            # The projection divides by the number of parities.
            values = [a + self.parities * v for a, v in zip(last, values, strict=True)]
        else:
            values = self._inferred(values, lattice)
        result: dict[str, Tensor] = {}
        for parity, group in self._outputs.items():
            found = self.projections[str(parity)](values[parity], lattice)
            result |= group.split(found, lattice)
        return result

    def _lifted(self, fields: Mapping[str, Tensor], lattice: Lattice) -> list[Tensor]:
        reference = next(iter(fields.values()))
        nothing = reference.new_zeros(1, 1, self.functions * self.order)
        parts = [nothing] * self.parities
        for parity, group in self._inputs.items():
            copies = self.saturation(group.join(fields, lattice), group)
            parts[parity] = self.lifts[str(parity)](copies, lattice)
        return parts

    def _inferred(self, values: Sequence[Tensor], lattice: Lattice) -> list[Tensor]:
        """All blocks and the last activation, without gradients, in place."""
        batch, sites = max(len(value) for value in values), lattice.n_sites
        values = [v.repeat(batch, sites, 1) if is_uniform(v, lattice) else v for v in values]
        for convolution, act in zip(self.convolutions, self.activations, strict=False):
            assert isinstance(convolution, GroupConvolution)
            assert isinstance(act, GroupActivation)
            convolution.product.sweep(
                values,
                values,
                lattice,
                convolution.filter,
                [convolution.weight],
                act.overwriting,
                _add,
            )
        last = self.activations[-1]
        assert isinstance(last, GroupActivation)
        rows = [value.view(-1, value.shape[-1]) for value in values]
        for tile in tiles(batch * sites):
            parts = [row[tile] for row in rows]
            linear = [part * self.parities for part in parts]
            for row, part, found in zip(rows, linear, last.overwriting(parts), strict=True):
                torch.add(part, found, out=row[tile])
        return values


def _add(parts: Sequence[Tensor], targets: Sequence[Tensor]) -> None:
    for part, target in zip(parts, targets, strict=True):
        target.add_(part)


class Saturation(nn.Module):
    r"""Saturating copies of a field: :math:`s v / \sqrt{1 + s^2 |v|^2}`.

    The length is that of each copy of each irrep, so that the map is equivariant and odd. It is
    smooth everywhere, and bounded: no input lies outside what the next layer knows.

    Shapes:
        - input ``[batch, sites, C]``
        - output ``[batch, sites, copies · C]``
    """

    def __init__(self) -> None:
        super().__init__()
        self.log_steepness = nn.Parameter(torch.tensor(STEEPNESSES).log())

    def forward(self, values: Tensor, group: FieldGroup) -> Tensor:
        """All copies side by side."""
        squares = values.square()
        if any(dim > 1 for _, _, dim in group.blocks):
            parts = squares.split([n * dim for n, _, dim in group.blocks], dim=-1)
            dims = [dim for _, _, dim in group.blocks]
            squares = torch.cat([_lengths(*pair) for pair in zip(parts, dims, strict=True)], dim=-1)
        steep = self.log_steepness.exp()[:, None]
        scaled = steep * torch.rsqrt(1 + steep.square() * squares[..., None, :])
        return (values[..., None, :] * scaled).flatten(-2)


def _lengths(squares: Tensor, dim: int) -> Tensor:
    """Square length of each vector of ``dim`` components, repeated for each of them."""
    vectors = squares.unflatten(-1, (-1, dim))
    return vectors.sum(-1, keepdim=True).expand_as(vectors).flatten(-2)


def _sums(parts: Sequence[Tensor]) -> list[Tensor]:
    """Sums of parts with all characters of the two-element symmetries (a Hadamard transform)."""
    found, step = list(parts), 1
    while step < len(found):
        for first in range(len(found)):
            if not first & step:
                a, b = found[first], found[first + step]
                found[first], found[first + step] = a + b, a - b
        step *= 2
    return found


def _exchange(parts: list[Tensor]) -> list[Tensor]:
    """The same; the parts given are overwritten."""
    parts, step = list(parts), 1
    while step < len(parts):
        for first in range(len(parts)):
            if not first & step:
                difference = parts[first] - parts[first + step]
                parts[first].add_(parts[first + step])
                parts[first + step] = difference
        step *= 2
    return parts


def _weights(*shape: int, fan_in: int, gain: float = 1.0) -> nn.Parameter:
    size = gain / math.sqrt(fan_in)
    return nn.Parameter(torch.randn(shape, dtype=torch.get_default_dtype()) * size)
