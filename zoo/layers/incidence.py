"""Sites, links and plaquettes of the square torus, and what they hand to one another.

Values on any of the three are ``[batch, L1, L2, 2, C]``. On links the axis of two is the direction,
x and y. On sites and plaquettes it tells x and y apart as well: a reflection through the diagonal
exchanges the two, as it exchanges the links. A plaquette is named after its lower left site.

Even values are numbers that do not depend on how a link or a plaquette is traversed. Odd ones
change their sign when it is traversed backwards: on links they are currents, on plaquettes they
circulate counter-clockwise, and a reflection of the lattice turns them round. What goes between
the two is a lattice curl.
"""

from __future__ import annotations

import torch
from torch import Tensor


def _ahead(values: Tensor, axis: int) -> Tensor:
    """The value one cell further along an axis (0 for x, 1 for y)."""
    return torch.roll(values, -1, 1 + axis)


def _behind(values: Tensor, axis: int) -> Tensor:
    return torch.roll(values, 1, 1 + axis)


def plaquettes_to_links(values: Tensor) -> Tensor:
    """Sums over the two plaquettes of a link, of their component along the link."""
    along_x, along_y = values.unbind(3)
    return torch.stack([along_x + _behind(along_x, 1), along_y + _behind(along_y, 0)], dim=3)


def links_to_plaquettes(values: Tensor) -> Tensor:
    """For each direction the sum over the two links of a plaquette that run along it."""
    x, y = values.unbind(3)
    return torch.stack([x + _ahead(x, 1), y + _ahead(y, 0)], dim=3)


def sites_to_links(values: Tensor) -> Tensor:
    """Sums over the two ends of a link, of their component along the link."""
    x, y = values.unbind(3)
    return torch.stack([x + _ahead(x, 0), y + _ahead(y, 1)], dim=3)


def links_to_sites(values: Tensor) -> Tensor:
    """For each direction the sum over the two links along it that end at a site."""
    x, y = values.unbind(3)
    return torch.stack([x + _behind(x, 0), y + _behind(y, 1)], dim=3)


def plaquettes_to_sites(values: Tensor) -> Tensor:
    """Sums over the four plaquettes at a site."""
    pair = values + _behind(values, 0)
    return pair + _behind(pair, 1)


def curl_to_links(values: Tensor) -> Tensor:
    """Currents of circulations: the plaquette to the left of a link minus that to its right.

    The divergence of what comes out is zero at every site, up to rounding, when both components
    of the circulation are equal.
    """
    along_x, along_y = values.unbind(3)
    return torch.stack([along_x - _behind(along_x, 1), _behind(along_y, 0) - along_y], dim=3)


def curl_to_plaquettes(values: Tensor) -> Tensor:
    """Circulations of currents round a plaquette, for each direction of its links."""
    x, y = values.unbind(3)
    return torch.stack([x - _ahead(x, 1), _ahead(y, 0) - y], dim=3)


def divergence(values: Tensor) -> Tensor:
    """What flows out of a site along the links minus what flows in, ``[batch, L1, L2, C]``."""
    x, y = values.unbind(3)
    return x - _behind(x, 0) + y - _behind(y, 1)
