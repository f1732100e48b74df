"""Base of networks that can give a local energy, with targets as its derivatives."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from latticezoo.symmetry.lattices import Lattice
from latticezoo.zoo.base import ZooModel
from latticezoo.zoo.layers.energies import Energy, conservative_targets, physical_energy


class EnergyModel(ZooModel):
    """A network whose targets are, or with ``output="energy"`` can be, derivatives of an energy.

    A subclass implements :meth:`energy_function`, and calls :meth:`derived_targets` in its
    ``predict`` where it has an energy.
    """

    def energy_function(self, lattice: Lattice) -> Energy:
        """Standardized energies ``[batch]`` of standardized fields ``[batch, sites, C]``."""
        raise NotImplementedError

    def derived_targets(self, fields: Mapping[str, Tensor], lattice: Lattice) -> dict[str, Tensor]:
        """Standardized targets ``[batch, sites, C]``: minus the derivatives of the energy."""
        return conservative_targets(self, self.energy_function(lattice), fields)

    @property
    def energy(self) -> Callable[[Mapping[str, Tensor], Lattice], Tensor]:
        """``energy(fields, lattice)``, ``[batch]``, of fields ``[batch, sites, C]``.

        The targets are minus its derivatives; in units of target times input, up to a constant.
        Networks with another ``output`` than ``"energy"`` do not have it.

        Raises:
            AttributeError: When some output is direct.
        """
        output = self.options.get("output", "energy")
        if output != "energy":
            raise AttributeError(f"a {self.registry_name} with {output} output has no energy")
        return self._energy

    def _energy(self, fields: Mapping[str, Tensor], lattice: Lattice) -> Tensor:
        return physical_energy(self, self.energy_function(lattice), fields, lattice)
