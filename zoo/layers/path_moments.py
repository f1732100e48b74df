r"""Chebyshev moments of the hopping matrix of gauge links: sums over all closed paths.

With h the hopping matrix of the links, :math:`h_{i,i+\mu} = U_{i,\mu}` and its adjoint, and s a
bound of its spectrum, the moments are

.. math::
    m^{(n)}_i = [T_n(h/s)]_{ii} \quad (n\ \mathrm{even}), \qquad
    k^{(n)}_{ij} = U_{ij}\, [T_n(h/s)]_{ji} \quad (n\ \mathrm{odd}).

A power :math:`h^n` sums over all paths of n steps, each with the product of its links. Local
transformations act on h as :math:`g h g^\dagger`, so both (for SU(2) their traces) are exact
invariants. They hold every closed path of up to n + 1 links through the site or link, those around
a small torus included. On links the real part is even and the imaginary part odd under charge
conjugation, and under a change of the direction in which the link is traversed.

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
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.lattices import Lattice

#: λ, what is added to the eigenvalues of correlation matrices.
_FLOOR = 1e-3
#: Sites of the largest torus whose moments come from products of matrices: measured with gradients
#: on one thread, for real and complex links of one colour and for SU(2); on a GPU 1024 for all.
_MATRIX_SITES = {(1, False): 576, (1, True): 200, (2, True): 500}
_MATRIX_SITES_GPU = 1024
#: Numbers that a gradient may keep, 2 GB of complex64: with more, columns are built a second time.
_KEPT = 1 << 28
#: Numbers of all columns that are built at a time.
_CACHED = 1 << 15


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

    On a torus of some hundred sites that paths can cover, by products of matrices. On any other,
    columns of T_n(h/s) are built by its three-term recursion, each on the part of the torus that
    closed paths can reach, at most ``highest + 2`` sites across, some sites at a time: so time
    grows as the number of sites × ``highest``³, and memory as that of sites. Gradients of large
    tori build the columns a second time in place of keeping them: a third more time.

    Args:
        links: Z2 (real) or U(1) (complex) links ``[batch, sites, 2]`` of a square lattice, or SU(2)
            links ``[batch, sites, 2, 2, 2]``.
        lattice: Where they live; at least three sites along each side.
        highest: Highest order n.
        bound: s, a bound of the spectrum of h: 4 times the largest modulus of a link.

    Returns:
        Moments of the sites ``[batch, sites, len(site_orders(highest))]``, real, and of the links
        ``[batch, sites, 2, len(link_orders(highest))]``: complex for U(1), else real; of SU(2) the
        traces over two.
    """
    given = links if links.dim() == 5 else links[..., None, None]
    covered = all(size <= highest + 2 for size in lattice.shape)
    limit = (
        _MATRIX_SITES_GPU if links.is_cuda else _MATRIX_SITES[given.shape[-1], links.is_complex()]
    )
    build = _by_matrices if covered and lattice.n_sites <= limit else _by_windows
    sites, ends = build(given, lattice, highest, 1 / bound)
    none = links.real.flatten(2)[..., :0]
    found = torch.stack(sites, -1) if sites else none
    along = torch.stack(ends, -1)
    return found, along.real if links.dim() == 5 else along


Moments = tuple[list[Tensor], list[Tensor]]


def _by_matrices(links: Tensor, lattice: Lattice, highest: int, scale: Tensor | float) -> Moments:
    """Moments of sites ``[batch, sites]`` and links ``[batch, sites, 2]``, of links with colours.

    They need T_n to half the highest order: T_2n = 2 T_n² − 1, T_2n+1 = 2 T_n+1 T_n − T_1.
    """
    batch, count, colours = len(links), lattice.n_sites, links.shape[-1]
    start = torch.arange(count, device=links.device)
    target = lattice.link_target.to(links.device)
    h = links.new_zeros(batch, count, colours, count, colours)
    for way in (0, 1):  # indexed axes come first
        hop = scale * links[:, :, way].movedim(1, 0)
        h[:, start, :, target[:, way]] = hop
        h[:, target[:, way], :, start] = hop.mH
    size = count * colours
    h = h.view(batch, size, size)
    twice, last = 2 * h, h
    before = torch.eye(size, dtype=h.dtype, device=h.device).expand_as(h)
    first = scale * (links.real.square() + links.imag.square() if links.is_complex() else links**2)
    first = first.sum((-1, -2)) / colours  # of T_1
    sites: list[Tensor] = []
    ends: list[Tensor] = []
    for order in range(1, (highest + 1) // 2 + 1):  # last is T_order
        if order > 1:
            before, last = last, torch.baddbmm(before, twice, last, beta=-1)
            if 2 * order - 1 in link_orders(highest):  # T is Hermitian: sums along rows
                here, there = (x.view(batch, count, colours, size) for x in (before, last))
                carried = [
                    _times(links[:, :, way], there.index_select(1, target[:, way]))
                    for way in (0, 1)
                ]
                sums = [torch.linalg.vecdot(here.flatten(2), x.flatten(2)) for x in carried]
                ends.append(2 / colours * torch.stack(sums, -1) - first)
        if 2 * order in site_orders(highest):
            square = last.real.square() + last.imag.square() if last.is_complex() else last.square()
            sites.append(2 * square.sum(-1).view(batch, count, colours).mean(-1) - 1)
    return sites, ends


def _times(one: Tensor, two: Tensor) -> Tensor:
    """Products of matrices on the last axes, for one colour without the matrix product."""
    return one * two if one.shape[-1] == 1 else one @ two


def _by_windows(links: Tensor, lattice: Lattice, highest: int, scale: Tensor | float) -> Moments:
    """What :func:`_by_matrices` gives, by the recursion of columns on windows of the torus."""
    index = _windows(lattice, (highest + 2) // 2).to(links.device)
    # Some columns at a time, as many as stay in the cache of a processor.
    columns = max(1, _CACHED // index[..., 0].numel())
    sites: list[list[Tensor]] = []
    ends: list[list[Tensor]] = []
    # Each of the four terms of a step keeps a column.
    graph = 4 * highest * index.numel() * len(links) * links.shape[-1] ** 2
    again = links.requires_grad and torch.is_grad_enabled() and graph > _KEPT

    def build(some: Tensor, part: Tensor) -> Moments:
        if again:
            found = checkpoint(_columns, some, part, highest, scale, use_reentrant=False)
            return cast("Moments", found)
        return _columns(some, part, highest, scale)

    for some in links.split(max(1, columns // lattice.n_sites)):
        parts = [build(some, part) for part in index.split(columns, -1)]
        for kept, place in ((sites, 0), (ends, 1)):
            kept.append(
                [torch.cat(same, 1) for same in zip(*(p[place] for p in parts), strict=True)]
            )
    together = [[torch.cat(same) for same in zip(*kept, strict=True)] for kept in (sites, ends)]
    return together[0], together[1]


def _columns(links: Tensor, index: Tensor, highest: int, scale: Tensor | float) -> Moments:
    """Moments of the sites whose windows are given, ``[w1, w2, n]``."""
    colours = links.shape[-1]
    # From here on [width, height, batch, sites(, colours)]: shifts move whole blocks of memory.
    ahead = [(2 * scale * links[:, :, way])[:, index].movedim(0, 2) for way in (0, 1)]
    behind = [torch.roll(hop.mH, 1, way).resolve_conj() for way, hop in enumerate(ahead)]
    if colours == 1:
        ahead, behind = ([hop[..., 0, 0] for hop in hops] for hops in (ahead, behind))

    def add(total: Tensor, hop: Tensor, column: Tensor) -> Tensor:
        return torch.addcmul(total, hop, column) if colours == 1 else total + hop @ column

    def step(column: Tensor, total: Tensor) -> Tensor:
        """2 h times the columns, and a total that is added."""
        for way in (0, 1):
            total = add(total, ahead[way], torch.roll(column, -1, way))
            total = add(total, behind[way], torch.roll(column, 1, way))
        return total

    before = torch.zeros_like(ahead[0])
    before[0, 0] = 1.0 if colours == 1 else torch.eye(colours, dtype=before.dtype)
    column = 0.5 * step(before, torch.zeros_like(before))
    own = links[:, index[0, 0]]
    sites, ends = [], []
    for order in range(2, highest + 1):
        before, column = column, step(column, -before)
        if order in link_orders(highest):
            there = torch.stack([column[1, 0], column[0, 1]], 2)
            there = there[..., None, None] if colours == 1 else there
            ends.append((own * there.mT).sum((-1, -2)) / colours)
        elif order in site_orders(highest):
            here = column[0, 0].real if column.is_complex() else column[0, 0]
            sites.append(here if colours == 1 else here.diagonal(dim1=-2, dim2=-1).mean(-1))
    return sites, ends


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
    """Decorrelated moments on a torus.

    Attributes:
        sites: ``[batch, sites, n]``.
        links: Real parts ``[batch, sites, 2, m]``.
        currents: Imaginary parts ``[batch, sites, 2, m]``, without divergence; None for Z2.
    """

    sites: Tensor
    links: Tensor
    currents: Tensor | None


class PathMoments(nn.Module):
    r"""Moments up to an order, decorrelated by the training data.

    Neighbouring orders hold nearly the same loops: their correlation matrices have eigenvalues from
    many to less than 1e-6 of one, and what fermions at low temperature depend on is spread over the
    small ones, where gradient descent would come last. So with means :math:`\bar m`, spreads
    :math:`\sigma` and correlations C of the training data, what goes in is

    .. math:: (C + \lambda)^{-1/2} \, (m - \bar m) / \sigma, \qquad \lambda = 10^{-3}.

    Odd moments have no mean.

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
            self.register_buffer(f"{name}_map", torch.eye(size))

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
        """Steps from a site, or the start of a link, to the farthest link of a closed path."""
        return self.highest // 2

    def forward(self, links: Tensor, lattice: Lattice) -> StandardMoments:
        """Decorrelated moments of links laid out as for :func:`path_moments`."""
        sites, ends, currents = self._moments(links, lattice)
        return StandardMoments(
            sites=self._standard("site", sites),
            links=self._standard("link", ends),
            currents=None if currents is None else self._standard("current", currents),
        )

    def plain_sites(self, links: Tensor, lattice: Lattice) -> Tensor:
        """Moments of the sites as :func:`path_moments` gives them, ``[batch, sites, n]``."""
        return self._moments(links, lattice)[0]

    def site_weights(self, plain: Tensor) -> Tensor:
        """Weights ``[n, m]`` of decorrelated moments whose sums differ by a constant from those of
        the plain ones with weights ``plain``.
        """
        return torch.linalg.solve(self.get_buffer("site_map").double(), plain.double())

    def _standard(self, name: str, values: Tensor) -> Tensor:
        return (values - self.get_buffer(f"{name}_mean")) @ self.get_buffer(f"{name}_map")

    def calibrate(self, batches: Sequence[tuple[Tensor, Lattice]]) -> None:
        """Take bound, means, spreads and correlations from links and their lattices.

        Raises:
            InputError: When there are none.
        """
        largest = max((float(links.abs().max()) for links, _ in batches), default=0.0)
        if not largest:
            raise InputError("there are no links to standardize the moments with.")
        self.get_buffer("bound").fill_(4 * largest)
        count = 0
        sums: dict[str, tuple[Tensor, Tensor]] = {}
        for links, lattice in batches:
            count += links.shape[0] * lattice.n_sites
            moments = zip(("site", "link", "current"), self._moments(links, lattice), strict=True)
            for name, values in moments:
                if values is not None:
                    flat = values.double().flatten(0, -2)
                    share = links.shape[0] * lattice.n_sites / len(flat)
                    found = (share * flat.sum(0), share * flat.mT @ flat)
                    before = sums.get(name)
                    sums[name] = (
                        found if before is None else (before[0] + found[0], before[1] + found[1])
                    )
        for name, (total, products) in sums.items():
            mean, square = total / count, products / count
            if name == "current":  # odd: a mean would break the symmetry
                mean = torch.zeros_like(mean)
            self.get_buffer(f"{name}_mean").copy_(mean)
            covariance = square - mean[:, None] * mean
            self.get_buffer(f"{name}_map").copy_(_decorrelation(covariance))

    def _moments(self, links: Tensor, lattice: Lattice) -> tuple[Tensor, Tensor, Tensor | None]:
        sites, ends = path_moments(links, lattice, self.highest, self.get_buffer("bound"))
        if not ends.is_complex():
            return sites, ends, None
        return sites, ends.real, ends.imag


def _decorrelation(covariance: Tensor) -> Tensor:
    """The matrix σ⁻¹ (C + λ)^(−1/2), for rows from the left."""
    spread = covariance.diagonal().clamp(min=0).sqrt()
    # What never changes is left alone, whatever rounding says of its spread.
    spread = torch.where(spread < 1e-5, 1.0, spread)
    values, vectors = torch.linalg.eigh(covariance / spread / spread[:, None])
    root = (values.clamp(min=0) + _FLOOR).rsqrt()
    return (vectors * root) @ vectors.mT / spread[:, None]
