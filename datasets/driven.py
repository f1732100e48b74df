"""Options of a recipe whose trajectories a network may drive; their labels stay exact."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import torch

from latticezoo.datasets.driver import Driver, weights_sha256
from latticezoo.datasets.labelled import LabelledData
from latticezoo.datasets.registry import Recipe, check_count
from latticezoo.simulate.state import State
from latticezoo.simulate.systems.adiabatic import AdiabaticSystem
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.lattices import Lattice

#: Options that stand in a file only where trajectories are driven by a network.
DRIVER_OPTIONS = ("driver", "driver_sha256", "exact_trajectories")
#: Side of the lattice on which the starts of a driver are checked.
_SMALL = 12


@dataclass(frozen=True, kw_only=True)
class DrivenRecipe(Recipe):
    """Trajectories of an adiabatic model, driven by exact forces or by a network.

    Args:
        driver: Network whose forces drive the trajectories: pretrained name, checkpoint, run
            folder or card folder. Without one the forces are exact.
        exact_trajectories: Of driven trajectories, the first so many are driven by exact forces,
            to compare the two populations.
        driver_sha256: SHA-256 of the driver's weights: found out when it is not given, checked
            when it is.

    Raises:
        InputError: The driver is none for the recipe.
    """

    lattice: int | str
    trajectories: int
    driver: str | None = None
    exact_trajectories: int = 0
    driver_sha256: str | None = None

    #: All targets that a file holds labels for; the first is that of the file's task.
    targets: ClassVar[tuple[str, ...]]

    @property
    @abstractmethod
    def system(self) -> AdiabaticSystem:
        """The exact system."""

    @abstractmethod
    def initial_state(self, number: int) -> State:
        """Start of one trajectory: a function of seed and number."""

    def check_driver(self) -> None:
        """Load the driver, check it, and fill in the hash of its weights.

        Raises:
            InputError: The options do not fit together, or the driver is none for the recipe.
        """
        check_count("exact_trajectories", self.exact_trajectories)
        if not self.driver:
            object.__setattr__(self, "driver", None)
            for name in ("exact_trajectories", "driver_sha256"):
                if getattr(self, name):
                    raise InputError(
                        f"{name} is {getattr(self, name)!r}, but no driver is given; without one "
                        "all trajectories are exact."
                    )
            return
        if self.exact_trajectories >= self.trajectories:
            raise InputError(
                f"exact_trajectories is {self.exact_trajectories} of {self.trajectories} "
                f"trajectories, so the driver {self.driver!r} would drive none."
            )
        found = self.opened_driver.sha256
        if self.driver_sha256 not in (None, found):
            raise InputError(
                f"the weights of the driver {self.driver!r} have the sha256 {found[:12]}…, not "
                f"{self.driver_sha256[:12]}… as asked for; they were changed since."
            )
        object.__setattr__(self, "driver_sha256", found)
        self.opened_driver.check_starts(*self._sample_starts())

    def _sample_starts(self) -> tuple[dict[str, torch.Tensor], Lattice]:
        """A few starting states on a small lattice that the driver fits on."""
        lattice = self.geometry
        small = Lattice(lattice.family, tuple(min(size, _SMALL) for size in lattice.shape))
        try:
            small.require(self.opened_driver.network.required_shells)
        except InputError:
            small = lattice
        recipe = replace(
            self, lattice=str(small), driver=None, driver_sha256=None, exact_trajectories=0
        )
        states = [recipe.initial_state(number).fields["Q"] for number in range(4)]
        return {"Q": torch.cat(states)}, small

    @cached_property
    def opened_driver(self) -> Driver:
        """The network that drives.

        Raises:
            InputError: There is none of that name, or it does not serve this system.
        """
        assert self.driver is not None
        return Driver.open(self.driver, self.system, self.geometry, self.targets)

    def is_driven(self, number: int) -> bool:
        """Whether a network, not the exact solver, drives the trajectory of that number."""
        return self.driver is not None and number >= self.exact_trajectories

    def options(self) -> dict[str, Any]:
        """All options; those of the driver only where there is one.

        Data without a driver thus keep the identity they had before there were drivers.
        """
        options = super().options()
        dropped = () if self.driver else DRIVER_OPTIONS
        return {name: value for name, value in options.items() if name not in dropped}


def pinned(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a data module, with the hashes of what they name by file.

    Weights and files may change behind their names; a run must be told apart by what they held.
    Options of a driver are left out where there is none.

    Args:
        options: As given to the module.

    Raises:
        InputError: There is no driver of that name, or the file is missing or damaged.
    """
    from latticezoo.zoo.loading import load_network

    found = dict(options)
    if not found.get("driver"):
        for name in DRIVER_OPTIONS:
            found.pop(name, None)
    elif not found.get("driver_sha256"):
        found["driver_sha256"] = weights_sha256(load_network(found["driver"], what="driver"))
    if "content_hash" in found and not found["content_hash"]:
        found["content_hash"] = LabelledData.open(found["path"]).content_hash
    return found
