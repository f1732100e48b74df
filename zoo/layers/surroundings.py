r"""What a reservoir at a site is told of the fields around it, so that lattice symmetry holds.

Three couplings of a site field φ to a hidden state h that no operation about the site may change:

* ``orbits``: the mean of φ over each orbit of the site group, one per shell; all sites of an orbit
  share one weight (a symmetric coupling as in C. Dinh, Y. Fan, G.-W. Chern, arXiv:2412.11982). For
  eight shells of the square lattice these are 9 numbers of 45 sites. What is lost is all but the
  trivial irrep: whether a wall runs along x or along y looks the same.
* ``invariants``: also, for every copy f_r^Γ of another irrep, φ_0 p/(1 + p) with p = |f_r^Γ|²/k
  (k sites in the shell). p is the same in all orientations and even under φ → −φ; times the value
  φ_0 at the site it is odd as the rest. It is bounded by |φ_0|: features that grow like φ³ would
  run away when predictions are fed back. On the square lattice 9 + 25 numbers.
* ``average``: the values of all sites as they are, seen from every image under the site group; the
  features of the images are averaged. It loses nothing, and costs as many reservoirs as the group
  has elements.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from latticezoo.symmetry.errors import unknown
from latticezoo.symmetry.lattices import Lattice, Shell
from latticezoo.symmetry.neighbourhoods import (
    ExactBuffers,
    check_size,
    gather,
    neighbour_tables,
    offset_permutations,
)
from latticezoo.symmetry.projections import IrrepCopies, projection

COUPLINGS = ("orbits", "invariants", "average")


class Surroundings(ExactBuffers):
    """Inputs of the reservoirs at all sites, from a scalar field.

    Args:
        family: Lattice family.
        shells: The neighbourhood; a number stands for the site and that many shells around it.
        coupling: ``"orbits"``, ``"invariants"`` or ``"average"``.

    Attributes:
        shells: The neighbourhood.
        images: Number of reservoirs at each site: 1, or the order of the site group.
        inputs: Numbers that each of them is given.

    Raises:
        InputError: For an unknown family or coupling.
    """

    def __init__(
        self, family: str, shells: Sequence[Shell] | int = 8, coupling: str = "orbits"
    ) -> None:
        super().__init__()
        if coupling not in COUPLINGS:
            raise unknown("coupling of a reservoir", coupling, COUPLINGS)
        found = projection(family, shells, "A1")
        self.shells, self.coupling = found.shells, coupling
        sizes = {shell.index: shell.size for shell in self.shells}
        trivial = found.irrep(found.group.trivial)
        self.images, self.inputs = 1, trivial.multiplicity
        self._rest: tuple[IrrepCopies, ...] = ()
        if coupling == "average":
            permutations = offset_permutations(found.group, self.shells)
            self.images, self.inputs = permutations.shape
            self.register_buffer("_images", torch.from_numpy(permutations), persistent=False)
            return
        self.register_constant("_means", _per_site(trivial, sizes)[:, 0].T)
        if coupling == "invariants":
            self._rest = tuple(irrep for irrep in found.irreps if irrep is not trivial)
            for number, irrep in enumerate(self._rest):
                self.register_constant(
                    f"_rows_{number}", _per_site(irrep, sizes).reshape(-1, irrep.rows.shape[-1]).T
                )
            self.inputs += sum(irrep.multiplicity for irrep in self._rest)

    @property
    def radius(self) -> float:
        """Distance in bond lengths beyond which nothing is seen."""
        return max(shell.radius for shell in self.shells)

    def forward(self, values: Tensor, lattice: Lattice) -> Tensor:
        """Inputs of the reservoirs.

        Args:
            values: ``[batch, sites, 1]``.
            lattice: Any torus of the family that holds the neighbourhood.

        Returns:
            ``[batch, sites, images, inputs]``. A point operation moves them with the sites, and
            permutes the images.

        Raises:
            InputError: On a torus on which the neighbourhood touches itself.
        """
        check_size(lattice, self.shells, f"a reservoir that sees {len(self.shells)} shells")
        around = gather(values, neighbour_tables(lattice, self.shells, values.device))
        if self.coupling == "average":
            return around[..., self.get_buffer("_images")]
        parts = [around @ self.get_buffer("_means")]
        for number, irrep in enumerate(self._rest):
            copies = (around @ self.get_buffer(f"_rows_{number}")).unflatten(
                -1, (irrep.multiplicity, irrep.dim)
            )
            power = copies.square().sum(-1)
            parts.append(values * (power / (1 + power)))
        return torch.cat(parts, -1).unsqueeze(-2)


def _per_site(irrep: IrrepCopies, sizes: dict[int, int]) -> np.ndarray:
    """Rows ``[m, d, K]`` divided by √k of their shell: |row · φ|² is then a mean over its sites.

    For the trivial irrep, row · φ itself is the mean.
    """
    norms = np.sqrt([sizes[shell] for shell in irrep.shells])
    return irrep.rows / norms[:, None, None]
