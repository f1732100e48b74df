"""Clebsch–Gordan products at a site, taken as products of functions on the site group."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from latticezoo.zoo.layers.irrep_linear import IrrepLinear
from latticezoo.zoo.layers.irreps import Features, function_layout


class FunctionProduct(nn.Module):
    r"""A learned linear and quadratic map at every site, from functions on the group to irreps.

    .. math::
        y_p = L_p\, u_p + \sum_{q \oplus r = p} W_{qr}\, (u_q u_r)

    for every parity p, u_p being functions on the site group that are multiplied value by value,
    and L and W linear maps to irreps that commute with the group.

    A product of two functions holds all Clebsch–Gordan products of their irreps, and every
    quadratic equivariant map is a combination of squares of functions that linear maps make: with
    the linear map before it, which makes u, nothing is left out, and a product costs one
    multiplication a channel.

    Before, u is divided by √(1 + mean square of all values at the site), which no symmetry
    changes: small values pass unchanged, large ones are bounded, so that products stay of order
    one however deep the network; smooth everywhere.

    Args:
        copies: Number of functions of each parity.
        out: Type of the output.
        parities: Number of parities.
        gain: Size of the initial weights: inputs of unit variance give outputs of about this
            standard deviation.
        kept: Parities that are computed, rising; all by default.

    Shapes, for every parity:
        - input ``[batch, sites, copies · order]``, or ``[1, 1, …]`` for the same values everywhere
        - output ``[batch, sites, C_out]``
    """

    def __init__(
        self,
        copies: int,
        out: Features,
        parities: int,
        gain: float = 1.0,
        kept: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.kept = tuple(range(parities) if kept is None else kept)
        self.layout = function_layout(out.family, copies)
        self._order = out.group.order
        self._pairs = [
            [(q, q ^ parity) for q in range(parities) if q <= q ^ parity] for parity in self.kept
        ]
        self.mixing = nn.ModuleList(
            IrrepLinear(
                function_layout(out.family, copies * (1 + len(pairs))),
                out.layout,
                0,
                gain=gain,
            )
            for pairs in self._pairs
        )

    def forward(self, values: Sequence[Tensor]) -> list[Tensor]:
        """Apply the map; shapes as above."""
        parts, matrices = self._expanded(values), self._matrices()
        return [part @ matrix for part, matrix in zip(parts, matrices, strict=True)]

    def add(self, values: Sequence[Tensor], targets: Sequence[Tensor]) -> None:
        """Add the result to given rows ``[S, C_out]``, without gradients.

        Args:
            values: ``[S, C]`` for every parity.
            targets: What it is added to, for the parities kept.
        """
        parts, matrices = self._expanded(values), self._matrices()
        for target, part, matrix in zip(targets, parts, matrices, strict=True):
            target.addmm_(part, matrix)

    def _matrices(self) -> list[Tensor]:
        """From values and products side by side to irreps, for the parities kept."""
        found = []
        for mixing, pairs in zip(self.mixing, self._pairs, strict=True):
            assert isinstance(mixing, IrrepLinear)
            # The map takes all functions as copies; here one kind of product follows the other.
            split = mixing.matrices()[0].unflatten(0, (self._order, 1 + len(pairs), -1))
            found.append(split.transpose(0, 1).flatten(0, 2))
        return found

    def _expanded(self, values: Sequence[Tensor]) -> list[Tensor]:
        """Values and products side by side, for the parities kept."""
        size = values[0].square().mean(-1, keepdim=True)
        for value in values[1:]:
            size = size + value.square().mean(-1, keepdim=True)
        factor = torch.rsqrt(1.0 + size / len(values))
        scaled = [value * factor for value in values]
        return [
            torch.cat([scaled[parity], *(scaled[q] * scaled[r] for q, r in pairs)], dim=-1)
            for parity, pairs in zip(self.kept, self._pairs, strict=True)
        ]
