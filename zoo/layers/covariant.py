"""Layers on gauge-covariant features of flags: transport, products into loops, gates."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latticezoo.zoo.layers.energy_graph import fan_in_linear
from latticezoo.zoo.layers.flags import EXCHANGED, MIRRORED, Matrices, Surroundings, multiply


class MatrixLinear(nn.Module):
    """Real combinations of matrices; the identity and the adjoints are among them.

    A real combination of H, H† and the identity is any combination of the numbers, with a
    constant, and any other of the charged parts.

    Args:
        into: Channels that go in.
        out: Numbers that come out.
        charged: Charged channels that come out; 0 for none.
        factor: Change of the size of values.
    """

    def __init__(self, into: int, out: int, charged: int, factor: float = 1.0) -> None:
        super().__init__()
        self.numbers = fan_in_linear(into, out, factor) if out else None
        self.charged = fan_in_linear(into, charged, factor, bias=False) if charged else None

    def forward(self, values: Matrices) -> Matrices:
        """Map ``into`` channels to ``out``."""
        if self.charged is None or values.charged is None:
            return Matrices(self.of_numbers(values.numbers), None)
        return Matrices(self.of_numbers(values.numbers), self.charged(values.charged))

    def of_numbers(self, numbers: Tensor) -> Tensor:
        """The numbers alone."""
        return numbers[..., :0] if self.numbers is None else self.numbers(numbers)


def rescaled(values: Matrices) -> Matrices:
    """Features over the root of their mean square at a site, which is invariant."""
    square = values.numbers.square().mean((2, 3, 4), keepdim=True)
    if values.charged is not None:
        square = square + values.charged.square().sum(2, keepdim=True).mean((3, 4), keepdim=True)
    factor = torch.rsqrt(square + 0.1)
    return values.map(lambda part: part * factor)


def joined(*values: Matrices) -> Matrices:
    """Channels side by side."""
    charged = [part.charged for part in values if part.charged is not None]
    numbers = torch.cat([part.numbers for part in values], -1)
    return Matrices(numbers, torch.cat(charged, -1) if charged else None)


class CovariantLayer(nn.Module):
    r"""One round of transport, products and gates, alike in the frame of every flag.

    .. math::
        G &= [X, X_\mathrm{mirrored}, X_\mathrm{exchanged}, T_{+1} X, T_{-1} X, T_{+2} X, T_{-2} X]
        \\ P &= (A G)(B G), \qquad n = [\sigma(C G_0), P_0] \\
        H_0' &= H_0 + W n, \qquad H_c' = H_c + (V P_c + D G_c) \, 2\,\mathrm{sigmoid}(K n)

    with X the rescaled features, T the values of neighbours carried along the link to them, and 0
    and c for the numbers and the charged part. A, B, C, D, V, W, K are real. With ``carry`` also
    the features of the parallel link at e2, carried around the plaquette, are among G: a link
    feature V = H U goes to U_b V U_b†.

    Args:
        channels: Channels of the features.
        products: Pairs that are multiplied.
        hidden: Numbers that go through the nonlinearity.
        has_charge: Whether matrices have a charged part.
        carry: Whether link features are carried around plaquettes.
        normalize: Whether features are rescaled before they are multiplied.
    """

    def __init__(
        self,
        channels: int,
        products: int,
        hidden: int,
        has_charge: bool,
        carry: bool,
        normalize: bool,
        charged_out: bool = True,
    ) -> None:
        super().__init__()
        self.products, self.hidden = products, hidden
        self.carry, self.normalize = carry, normalize
        moved = channels if has_charge and charged_out else 0
        pairs = 2 * products
        extra = 1 if carry else 0
        own_factor, near_factor = 0.8, 0.6
        charged = pairs + moved if has_charge else 0
        self.own = MatrixLinear((3 + extra) * channels, pairs + hidden, charged, own_factor)
        self.near = MatrixLinear(4 * channels, pairs + hidden, charged, near_factor)
        self.numbers = fan_in_linear(hidden + products, channels, 0.7)
        self.has_charge = bool(moved)
        if moved:
            self.charged = fan_in_linear(products, channels, 0.7, bias=False)
            self.gate = fan_in_linear(hidden + products, channels, 0.3)
        self.register_buffer("_mirrored", torch.tensor(MIRRORED), persistent=False)
        self.register_buffer("_exchanged", torch.tensor(EXCHANGED), persistent=False)

    def _others(self) -> tuple[Tensor, Tensor]:
        """Where the mirrored and the exchanged flags of each are."""
        return self.get_buffer("_mirrored"), self.get_buffer("_exchanged")

    def forward(self, given: Matrices, around: Surroundings) -> Matrices:
        """Features after the round."""
        values = rescaled(given) if self.normalize else given
        near = around.neighbours(values)
        own = [values, *map(values.flags, self._others())]
        if self.carry:
            channels = values.numbers.shape[-1]
            ahead = near.map(lambda part: part[..., 2 * channels : 3 * channels])
            own.append(multiply(ahead, around.leaf.adjoint))
        first, second = self.own(joined(*own)), self.near(near)
        numbers = first.numbers + second.numbers
        a, b, shown = numbers.split([self.products, self.products, self.hidden], dim=-1)
        if first.charged is None or second.charged is None:
            product = Matrices(a * b, None)
            moved = None
        else:
            charged = first.charged + second.charged
            one, two = charged[..., : self.products], charged[..., self.products :]
            two, moved = two[..., : self.products], two[..., self.products :]
            product = multiply(Matrices(a, one), Matrices(b, two))
        seen = torch.cat([F.silu(shown), product.numbers], -1)
        found = given.numbers + self.numbers(seen)
        if not self.has_charge:
            return Matrices(found, given.charged)
        assert given.charged is not None
        assert moved is not None
        gate = 2 * torch.sigmoid(self.gate(seen))
        return Matrices(found, given.charged + gate * (self.charged(product.charged) + moved))
