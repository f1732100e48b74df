r"""Pair exchange: the linear part of a network on vectors, and where its training starts.

The fields that electrons exert on spins are to leading order an exchange between pairs,
:math:`H_i = \sum_j J(r_{ij}) S_j` (for weak coupling the interaction of Ruderman, Kittel, Kasuya
and Yosida), over more shells than stacked layers see cheaply. A network has it beside its layers,
as a map where the field comes out itself and as an energy,
:math:`-\frac12 \sum_{ij} J(r_{ij})\, S_i \cdot S_j`, where that does. Fields are linear in its
constants, so least squares finds them before training begins.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from latticezoo.symmetry.fields import perpendicular
from latticezoo.symmetry.lattices import Lattice
from latticezoo.symmetry.stencils import EquivariantLinear

#: Ridge parameter as a share of the mean square of the features.
STRENGTH = 1e-6


def pair_energy(layer: EquivariantLinear, values: Tensor, degree: int, lattice: Lattice) -> Tensor:
    r"""Local energies :math:`-\frac12 v_i \cdot (J v)_i`, ``[B, N, 1]``.

    Args:
        layer: J, which acts on every component alike.
        values: Components in the batch, ``[B (2l + 1), N, P]``.
        degree: l.
        lattice: Where.
    """
    products = values * layer(values, lattice)
    return -0.5 * products.unflatten(0, (-1, 2 * degree + 1)).sum((1, 3))[..., None]


def fit_exchange(
    layer: EquivariantLinear,
    samples: Iterable[tuple[Tensor, Tensor, Tensor, Lattice]],
) -> None:
    """Set the weights of J by least squares; without samples they stay.

    Args:
        layer: One input and one output channel; its weights are overwritten.
        samples: Vectors, fields and directions ``[B, N, 3]``: of the fields and of J times the
            vectors only the part perpendicular to the directions counts.
    """
    (weight,) = layer.weights.values()
    count = len(weight)
    gram = torch.zeros(count, count, dtype=torch.float64)
    moment = torch.zeros(count, 1, dtype=torch.float64)
    with torch.no_grad():
        before, seen = weight.clone(), False
        for vectors, fields, directions, lattice in samples:
            seen = True
            columns = []
            for number in range(count):
                weight.zero_()
                weight[number] = 1
                found = layer(vectors.movedim(-1, 1).flatten(0, 1)[..., None], lattice)
                turned = found[..., 0].unflatten(0, (-1, 3)).movedim(1, -1)
                columns.append(perpendicular(turned, directions).double().flatten())
            table = torch.stack(columns, -1).cpu()
            gram += table.mT @ table
            moment += table.mT @ perpendicular(fields, directions).double().reshape(-1, 1).cpu()
        if not seen:
            weight.copy_(before)
            return
        gram += STRENGTH * gram.diagonal().mean() * torch.eye(count, dtype=gram.dtype)
        weight.copy_(torch.linalg.solve(gram, moment).reshape(weight.shape))
