"""Messages between sites, links and plaquettes, with even and odd features kept apart."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latticezoo.zoo.layers import incidence
from latticezoo.zoo.layers.energy_graph import fan_in_linear


@dataclass(frozen=True)
class LoopFeatures:
    """Features ``[batch, L1, L2, 2, C]`` in the layout of :mod:`~latticezoo.zoo.layers.incidence`.

    Attributes:
        links: Even ones on links.
        plaquettes: Even ones on plaquettes.
        sites: Even ones on sites.
        currents: Odd ones on links, or None.
        circulations: Odd ones on plaquettes, or None.
    """

    links: Tensor
    plaquettes: Tensor
    sites: Tensor
    currents: Tensor | None = None
    circulations: Tensor | None = None

    def unit_size(self) -> LoopFeatures:
        """All of them in units of their size: see :func:`unit_size`."""
        return LoopFeatures(
            links=unit_size(self.links),
            plaquettes=unit_size(self.plaquettes),
            sites=unit_size(self.sites),
            currents=None if self.currents is None else unit_size(self.currents),
            circulations=None if self.circulations is None else unit_size(self.circulations),
        )


def unit_size(values: Tensor) -> Tensor:
    """Features over the root of their mean square, which no symmetry changes."""
    return values * torch.rsqrt(values.square().mean(-1, keepdim=True) + 0.1)


def own_and_other(linear: nn.Linear, values: Tensor) -> Tensor:
    """A linear map of the own component of ``[…, 2, C]`` and the other one, joined to 2C numbers.

    The two swapped copies are one product with a matrix of twice the size, whose blocks are tied:
    no values are moved, which took longer than the product.
    """
    own, other = linear.weight.chunk(2, dim=1)
    weight = torch.cat([torch.cat([own, other], 1), torch.cat([other, own], 1)])
    bias = None if linear.bias is None else linear.bias.repeat(2)
    return F.linear(values.flatten(-2), weight, bias).unflatten(-1, (2, -1))


class Inputs(nn.Module):
    """A linear map with a constant, also of no channels at all.

    Args:
        into: Channels that go in, 0 or more.
        out: Channels that come out.
    """

    def __init__(self, into: int, out: int) -> None:
        super().__init__()
        self.constant = nn.Parameter(0.5 * torch.randn(out))
        self.linear = fan_in_linear(into, out, 1.0, bias=False) if into else None

    def forward(self, values: Tensor) -> Tensor:
        """Map ``[…, into]`` to ``[…, out]``."""
        if self.linear is None:
            return self.constant.expand(*values.shape[:-1], -1)
        return self.linear(values) + self.constant


class Mixing(nn.Module):
    """From what a place has gathered to a change of its features.

    .. math:: e' = W [σ(u), a b], \\qquad o' = V (c \\, T u)

    with u the even and (a, b, c) the odd sums: products of two odd features are even, of an even
    and an odd one odd. Without odd channels the products are of even sums.

    Args:
        even: Even channels that come out.
        odd: Odd channels that come out; 0 for none.
        even_out: Whether the even change is wanted.
        odd_out: Whether the odd change is wanted.
    """

    def __init__(self, even: int, odd: int, even_out: bool = True, odd_out: bool = True) -> None:
        super().__init__()
        self.odd = odd
        if even_out:
            self.even_change = fan_in_linear(even + odd, even, 1.0)
        if odd and odd_out:
            self.gate = fan_in_linear(even, odd, 1.0)
            self.odd_change = fan_in_linear(odd, odd, 1.0, bias=False)

    @property
    def odd_sums(self) -> int:
        """Odd channels that go in."""
        return self.odd * (2 * hasattr(self, "even_change") + hasattr(self, "gate"))

    def forward(self, even: Tensor, odd: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """Changes of the even and the odd features, None where they are not wanted."""
        shown = F.silu(even)
        even_change = odd_change = None
        parts = [] if odd is None else list(odd.split(self.odd, dim=-1))
        if hasattr(self, "even_change"):
            if parts:
                product = parts.pop(0) * parts.pop(0)
                even_change = self.even_change(torch.cat([shown, product], dim=-1))
            else:
                even_change = self.even_change(shown)
        if hasattr(self, "gate"):
            odd_change = self.odd_change(parts.pop(0) * self.gate(shown))
        return even_change, odd_change


class LinkUpdate(nn.Module):
    """What links learn from themselves, their two plaquettes and their two ends.

    Args:
        even: Even channels.
        odd: Odd channels, or 0.
        even_out: Whether the even features change.
        odd_out: Whether the odd ones do.
    """

    def __init__(self, even: int, odd: int, even_out: bool = True, odd_out: bool = True) -> None:
        super().__init__()
        self.mixing = Mixing(even, odd, even_out, odd_out)
        self.own = fan_in_linear(even, even, 1.0)
        self.plaquettes = fan_in_linear(2 * even, even, 0.7, bias=False)
        self.sites = fan_in_linear(2 * even, even, 0.7, bias=False)
        if odd:
            sums = self.mixing.odd_sums
            self.own_odd = fan_in_linear(odd, sums, 1.0, bias=False)
            self.circulations = fan_in_linear(2 * odd, sums, 0.7, bias=False)

    def forward(self, unit: LoopFeatures) -> tuple[Tensor | None, Tensor | None]:
        """Changes ``[batch, L1, L2, 2, C]`` of the features on links, of features of unit size."""
        even = (
            self.own(unit.links)
            + incidence.plaquettes_to_links(own_and_other(self.plaquettes, unit.plaquettes))
            + incidence.sites_to_links(own_and_other(self.sites, unit.sites))
        )
        if unit.currents is None or unit.circulations is None:
            return self.mixing(even, None)
        circulations = own_and_other(self.circulations, unit.circulations)
        odd = self.own_odd(unit.currents) + incidence.curl_to_links(circulations)
        return self.mixing(even, odd)


class PlaceUpdate(nn.Module):
    """What sites or plaquettes learn from themselves and from their four links.

    Args:
        even: Even channels.
        odd: Odd channels, or 0.
    """

    def __init__(self, even: int, odd: int) -> None:
        super().__init__()
        self.mixing = Mixing(even, odd)
        self.even = fan_in_linear(4 * even, even, 1.0)
        if odd:
            self.odd = fan_in_linear(4 * odd, self.mixing.odd_sums, 1.0, bias=False)

    def forward(
        self, own: Tensor, links: Tensor, own_odd: Tensor | None, links_odd: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        """Changes of the features, of such of unit size; ``links`` are sums over the links."""
        even = own_and_other(self.even, torch.cat([own, links], dim=-1))
        if own_odd is None or links_odd is None:
            return self.mixing(even, None)
        odd = torch.cat([own_odd, links_odd], dim=-1)
        return self.mixing(even, own_and_other(self.odd, odd))


class LoopBlock(nn.Module):
    """One round: links gather from plaquettes and sites, these from links; all with a residual.

    Args:
        even: Even channels.
        odd: Odd channels, or 0 where the group has no odd loops.
    """

    def __init__(self, even: int, odd: int) -> None:
        super().__init__()
        self.links = LinkUpdate(even, odd)
        self.plaquettes = PlaceUpdate(even, odd)
        self.sites = PlaceUpdate(even, 0)

    def forward(self, given: LoopFeatures) -> LoopFeatures:
        """Features after the round."""
        unit = given.unit_size()
        even, odd = self.links(unit)
        given = replace(
            given,
            links=given.links + even,
            currents=None if odd is None else given.currents + odd,
        )
        links = unit_size(given.links)
        currents = None if odd is None else unit_size(_there(given.currents))
        even, odd = self.plaquettes(
            unit.plaquettes,
            0.7 * incidence.links_to_plaquettes(links),
            unit.circulations,
            None if currents is None else 0.7 * incidence.curl_to_plaquettes(currents),
        )
        change, _ = self.sites(unit.sites, 0.7 * incidence.links_to_sites(links), None, None)
        return replace(
            given,
            plaquettes=given.plaquettes + even,
            circulations=None if odd is None else _there(given.circulations) + odd,
            sites=given.sites + change,
        )


def _there(values: Tensor | None) -> Tensor:
    assert values is not None
    return values
