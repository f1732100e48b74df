r"""Chebyshev moments of the hopping matrix of Abelian links: sums over all closed paths.

With h the hopping matrix of the links, :math:`h_{i,i+\mu} = U_{i,\mu}` and its adjoint, and s a
bound of its spectrum, the moments are

.. math::
    m^{(n)}_i = [T_n(h/s)]_{ii} \quad (n\ \mathrm{even}), \qquad
    k^{(n)}_{ij} = U_{ij}\, [T_n(h/s)]_{ji} \quad (n\ \mathrm{odd}).

A power :math:`h^n` sums over all paths of n steps, each with the product of its links. Local
transformations act on h as :math:`g h g^\dagger`, so both are exact invariants, and they hold every
closed path of up to n + 1 links through the site or link, those around a small torus included. On
links the real part is even and the imaginary part odd under charge conjugation, and under a change
of the direction in which the link is traversed.

The occupation of fermions is a function of h, so site densities and link correlators are linear in
these moments: with the coefficients of the Fermi function this is the kernel polynomial method
(Weiße et al., Rev. Mod. Phys. 78, 275 (2006)). A network that sees them learns how to sum that
series, and what lies beyond its last order.

The imaginary part of :math:`k^{(n)}` is a current without sources, :math:`\partial \mathrm{Tr}
P(h)/\partial A_{ij}` of a polynomial P, up to a factor.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor, nn

from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.lattices import Lattice


def link_orders(highest: int) -> range:
    """Orders of the moments of links, 3, 5, …; the first knows no more than the moduli of links."""
    return range(3, highest + 1, 2)


def site_orders(highest: int) -> range:
    """Orders of the moments of sites, 4, 6, …; the second knows no more than the moduli."""
    return range(4, highest + 1, 2)


def path_moments(
    links: Tensor, lattice: Lattice, highest: int, bound: Tensor | float = 4.0
) -> tuple[Tensor, Tensor]:
    """Moments of all sites and links.

    Columns of T_n(h/s) are built by its three-term recursion, each on the part of the torus that
    closed paths can reach, at most ``highest + 2`` sites across. So time grows as the number of
    sites × ``highest``³, with no matrix products; on a smaller torus as sites² × ``highest``.

    Args:
        links: Z2 (real) or U(1) (complex) links ``[batch, sites, 2]`` of a square lattice.
        lattice: Where they live; at least three sites along each side.
        highest: Highest order n.
        bound: s, a bound of the spectrum of h: 4 times the largest modulus of a link.

    Returns:
        Moments of the sites ``[batch, sites, len(site_orders(highest))]``, real, and of the links
        ``[batch, sites, 2, len(link_orders(highest))]``, of the type of the links.
    """
    index = _windows(lattice, (highest + 2) // 2).to(links.device)
    # From here on [width, height, batch, sites]: shifts move whole blocks of memory.
    ahead = [(2 / bound * links[..., way])[:, index].movedim(0, 2) for way in (0, 1)]
    behind = [torch.roll(ahead[way].conj().resolve_conj(), 1, way) for way in (0, 1)]

    def step(column: Tensor, total: Tensor) -> Tensor:
        """2 h/s times the columns, and a total that is added."""
        for way in (0, 1):
            total = torch.addcmul(total, ahead[way], torch.roll(column, -1, way))
            total = torch.addcmul(total, behind[way], torch.roll(column, 1, way))
        return total

    before = torch.zeros_like(ahead[0])
    before[0, 0] = 1.0
    column = 0.5 * step(before, torch.zeros_like(before))
    sites, ends = [], []
    for order in range(2, highest + 1):
        before, column = column, step(column, -before)
        if order in link_orders(highest):
            ends.append(torch.stack([column[1, 0], column[0, 1]], -1))
        elif order in site_orders(highest):
            sites.append(column[0, 0].real if column.is_complex() else column[0, 0])
    none = links[..., 0, None][..., :0]
    return (
        torch.stack(sites, -1) if sites else (none.real if none.is_complex() else none),
        links[..., None] * torch.stack(ends, -1) if ends else links[..., None][..., :0],
    )


@lru_cache(maxsize=32)
def _windows(lattice: Lattice, reach: int) -> Tensor:
    """Sites at a displacement from every site, ``[w1, w2, N]``, by displacement modulo the window.

    A window is the torus, or ``2 reach + 1`` sites across where that is smaller. A path that leaves
    such a window enters it from the other side, too late to come back to the start.
    """
    place = torch.arange(lattice.n_sites).view(lattice.shape)
    for axis, size in enumerate(lattice.shape):
        across = min(size, 2 * reach + 1)
        shift = [(step + reach) % across - reach for step in range(across)]
        place = torch.stack([torch.roll(place, -step, axis - 2) for step in shift], axis)
    return place.flatten(2)


class StandardMoments(NamedTuple):
    """Standardized moments on a torus.

    Attributes:
        sites: ``[batch, sites, n]``.
        links: Real parts ``[batch, sites, 2, m]``.
        currents: Imaginary parts ``[batch, sites, 2, m]``, without divergence; None for Z2.
    """

    sites: Tensor
    links: Tensor
    currents: Tensor | None


class PathMoments(nn.Module):
    """Moments up to an order, by their mean and spread in the training data.

    Args:
        highest: Highest order, 3 or more.

    Raises:
        InputError: For a lower order.
    """

    def __init__(self, highest: int) -> None:
        super().__init__()
        if highest < 3:
            raise InputError(
                f"path_moments must be 0 or an order of 3 or more, not {highest}: lower orders "
                "enclose nothing."
            )
        self.highest = highest
        self.register_buffer("bound", torch.tensor(4.0))
        sizes = {"site": self.site_count, "link": self.link_count, "current": self.link_count}
        for name, size in sizes.items():
            self.register_buffer(f"{name}_mean", torch.zeros(size))
            self.register_buffer(f"{name}_scale", torch.ones(size))

    @property
    def site_count(self) -> int:
        """Moments of a site."""
        return len(site_orders(self.highest))

    @property
    def link_count(self) -> int:
        """Moments of a link."""
        return len(link_orders(self.highest))

    @property
    def reach(self) -> int:
        """Steps from a site to the farthest link of a closed path, on a torus of any size."""
        return (self.highest + 1) // 2

    def forward(self, links: Tensor, lattice: Lattice) -> StandardMoments:
        """Standardized moments of links laid out as for :func:`path_moments`."""
        sites, ends, currents = self._moments(links, lattice)
        return StandardMoments(
            sites=self._standard("site", sites),
            links=self._standard("link", ends),
            currents=None if currents is None else self._standard("current", currents),
        )

    def _standard(self, name: str, values: Tensor) -> Tensor:
        return (values - self._of(name, "mean")) / self._of(name)

    def calibrate(self, batches: Sequence[tuple[Tensor, Lattice]]) -> None:
        """Take bound, means and spreads from links and their lattices.

        Raises:
            InputError: When there are none.
        """
        largest = max((float(links.abs().max()) for links, _ in batches), default=0.0)
        if not largest:
            raise InputError("there are no links to standardize the moments with.")
        self.get_buffer("bound").fill_(4 * largest)
        count = 0
        sums: dict[str, Tensor] = {}
        for links, lattice in batches:
            weight = links.shape[0] * lattice.n_sites
            count += weight
            moments = zip(("site", "link", "current"), self._moments(links, lattice), strict=True)
            for name, values in moments:
                if values is not None:
                    flat = values.double().flatten(0, -2)
                    found = weight * torch.stack([flat.mean(0), flat.square().mean(0)])
                    sums[name] = sums[name] + found if name in sums else found
        for name, total in sums.items():
            mean, square = total / count
            if name == "current":  # odd: a mean would break the symmetry
                mean = torch.zeros_like(mean)
            spread = (square - mean.square()).clamp(min=0).sqrt()
            self._of(name, "mean").copy_(mean)
            # What never changes is left alone, whatever rounding says of its spread.
            self._of(name).copy_(torch.where(spread < 1e-5, 1.0, spread))

    def _of(self, name: str, what: str = "scale") -> Tensor:
        return self.get_buffer(f"{name}_{what}")

    def _moments(self, links: Tensor, lattice: Lattice) -> tuple[Tensor, Tensor, Tensor | None]:
        sites, ends = path_moments(links, lattice, self.highest, self.get_buffer("bound"))
        if not ends.is_complex():
            return sites, ends, None
        return sites, ends.real, ends.imag
