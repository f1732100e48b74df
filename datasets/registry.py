"""Names of recipes (what makes a dataset file) and of data modules (what feeds a network).

Those of the library stand in tables, so that they can be listed without importing torch; the
decorators bind a class to its name, and add recipes and data modules that live outside the library.
"""

from __future__ import annotations

import fnmatch
import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

from latticezoo.symmetry.errors import InputError, unknown

if TYPE_CHECKING:
    from latticezoo.datasets.labelled import LabelledData, Source
    from latticezoo.datasets.module import LatticeData
    from latticezoo.symmetry.lattices import Lattice
    from latticezoo.symmetry.tasks import Task


class Member(NamedTuple):
    """Where a recipe or a data module of the library is defined, and what it is."""

    module: str
    class_name: str
    summary: str


#: Recipes of the library.
RECIPES: dict[str, Member] = {
    "holstein_square": Member(
        "latticezoo.datasets.holstein",
        "HolsteinSquare",
        "Holstein model on the square lattice: random configurations and exact quenches",
    ),
    "holstein_chain": Member(
        "latticezoo.datasets.holstein",
        "HolsteinChain",
        "Holstein model on the chain: random configurations and exact quenches",
    ),
    "cdw_growth": Member(
        "latticezoo.datasets.cdw_growth",
        "CDWGrowthRuns",
        "local order of the Holstein model along quenches, frame by frame",
    ),
    "chaotic_holstein": Member(
        "latticezoo.datasets.chaotic_holstein",
        "ChaoticHolsteinRuns",
        "order parameters of the semiclassical Holstein chain after interaction quenches",
    ),
    "jahn_teller_square": Member(
        "latticezoo.datasets.jahn_teller",
        "JahnTellerSquare",
        "Jahn–Teller model on the square lattice: random configurations and exact quenches",
    ),
    "sd_magnet": Member(
        "latticezoo.datasets.magnets",
        "ItinerantMagnet",
        "s–d model of itinerant magnets: random spins, disturbed order, exact spin dynamics",
    ),
    "gauge_fermions": Member(
        "latticezoo.datasets.gauge_links",
        "FermionsOnLinks",
        "fermions on Z2, U(1) or SU(2) links: random and Boltzmann backgrounds, exact labels",
    ),
    "quantum_link": Member(
        "latticezoo.datasets.quantum_links",
        "LinkSpinRuns",
        "U(1) quantum link model: microcanonical runs of link spins from thermal starts",
    ),
    "wilson_loops": Member(
        "latticezoo.datasets.gauge_links",
        "LoopsOfLinks",
        "traced square loops of Z2, U(1) or SU(2) links: random and Boltzmann backgrounds",
    ),
    "synthetic": Member(
        "latticezoo.datasets.synthetic",
        "Synthetic",
        "classical models in closed form on any lattice: scalars, and displacements",
    ),
}
#: Data modules of the library.
DATA: dict[str, Member] = {
    "holstein": Member(
        "latticezoo.datasets.holstein_module",
        "Holstein",
        "Holstein model, made on demand by the recipes holstein_square and holstein_chain",
    ),
    "cdw_growth": Member(
        "latticezoo.datasets.cdw_growth",
        "CDWGrowth",
        "time series of charge-density-wave order while domains grow",
    ),
    "chaotic_holstein": Member(
        "latticezoo.datasets.chaotic_holstein",
        "ChaoticHolstein",
        "time series of an order parameter of the semiclassical Holstein chain",
    ),
    "jahn_teller": Member(
        "latticezoo.datasets.jahn_teller_module",
        "JahnTeller",
        "Jahn–Teller model, made on demand by the recipe jahn_teller_square",
    ),
    "sd_magnet": Member(
        "latticezoo.datasets.magnets_module",
        "ItinerantMagnets",
        "s–d model of itinerant magnets, made on demand by the recipe sd_magnet",
    ),
    "gauge_fermions": Member(
        "latticezoo.datasets.gauge_module",
        "GaugeFermionsData",
        "fermions on gauge links, made on demand by the recipe gauge_fermions",
    ),
    "quantum_link": Member(
        "latticezoo.datasets.quantum_links",
        "QuantumLinkData",
        "U(1) quantum link model, made on demand by the recipe quantum_link",
    ),
    "wilson_loops": Member(
        "latticezoo.datasets.gauge_module",
        "WilsonLoopsData",
        "traced loops of gauge links, made on demand by the recipe wilson_loops",
    ),
    "synthetic": Member(
        "latticezoo.datasets.synthetic",
        "SyntheticData",
        "classical models in closed form on any lattice, made in seconds",
    ),
    "from_file": Member("latticezoo.datasets.module", "FromFile", "any dataset file"),
}

_recipes: dict[str, type[Recipe]] = {}
_data: dict[str, type[LatticeData]] = {}
R = TypeVar("R", bound="type[Recipe]")
D = TypeVar("D", bound="type[LatticeData]")


@dataclass(frozen=True)
class Unit:
    """A piece of work that one process does in one go; its result is one part file.

    Attributes:
        name: Different for every unit of a recipe; names the part file.
        cost: Exact solutions it takes, for the progress bar.
        first: Number of its first random configuration, or of its trajectory.
        count: Number of samples it gives.
    """

    name: str
    cost: int
    first: int
    count: int


@dataclass(frozen=True, kw_only=True)
class Recipe(ABC):
    """How to make a dataset: a frozen dataclass whose fields are the options.

    Options are plain values (numbers, text, None), so that a file can hold them. A unit's result
    must depend on the recipe and the unit alone: not on other units, nor on the process.
    """

    name: ClassVar[str] = ""
    #: Raised when the same options come to make other labels, so that old files are not taken.
    revision: ClassVar[int] = 1

    @property
    @abstractmethod
    def geometry(self) -> Lattice:
        """The lattice of the samples."""

    @property
    @abstractmethod
    def task(self) -> Task:
        """The task that the data serve."""

    @abstractmethod
    def source(self) -> Source:
        """System, parameters, options: what the file says about itself."""

    @abstractmethod
    def units(self) -> tuple[Unit, ...]:
        """The work, in the order of the samples in the file."""

    @abstractmethod
    def run(self, unit: Unit, report: Callable[[int], None]) -> LabelledData:
        """Do one unit.

        Args:
            unit: One of :meth:`units`.
            report: Call it with the number of exact solutions done since the last call.
        """

    def seconds_per_solve(self) -> float:
        """Rough time of one exact solution on one core, to decide whether processes are worth it.

        The default is dense diagonalization with all eigenvectors.
        """
        return 1e-3 + 1.5e-10 * self.geometry.n_sites**3

    def options(self) -> dict[str, Any]:
        """All options as plain values: ``create_recipe(name, **options)`` gives it again."""
        return {item.name: getattr(self, item.name) for item in fields(self)}

    @property
    def samples(self) -> int:
        """Number of samples of the whole dataset."""
        return sum(unit.count for unit in self.units())

    @property
    def size(self) -> int:
        """Rough size of the dataset in bytes."""
        columns = len(self.task.inputs) + len(self.task.targets) + 1
        return 8 * self.samples * self.geometry.n_sites * columns


def recipe(name: str) -> Callable[[R], R]:
    """Class decorator: register a recipe under a name in snake_case."""

    def register(cls: R) -> R:
        cls.name = name
        _recipes[name] = cls
        return cls

    return register


def register_data(name: str) -> Callable[[D], D]:
    """Class decorator: register a data module under a name in snake_case."""

    def register(cls: D) -> D:
        _data[name] = cls
        return cls

    return register


def recipe_class(name: str) -> type[Recipe]:
    """The recipe of that name.

    Raises:
        InputError: There is none; the nearest names are given.
    """
    if name in _recipes:
        return _recipes[name]
    if name not in RECIPES:
        raise unknown("recipe", name, list_recipes())
    member = RECIPES[name]
    return getattr(importlib.import_module(member.module), member.class_name)


def create_recipe(name: str, **options: Any) -> Recipe:
    """A recipe with options.

    Raises:
        InputError: The recipe or an option is unknown, or an option is outside its range.
    """
    cls = recipe_class(name)
    known = [item.name for item in fields(cls)]
    for option in options:
        if option not in known:
            raise unknown(f"option of {name}", option, known)
    return cls(**options)


def list_recipes(pattern: str = "*") -> list[str]:
    """Names of the recipes that match a pattern such as ``"holstein*"``."""
    return sorted(fnmatch.filter({*RECIPES, *_recipes}, pattern))


def create_data(name: str, **options: Any) -> LatticeData:
    """A data module by name, such as ``create_data("holstein", lattice=12)``.

    Raises:
        InputError: The name or an option is unknown, or an option is outside its range.
    """
    cls = data_class(name)
    known = cls.option_names()
    for option in options:
        if option not in known:
            raise unknown(f"option of {name}", option, known)
    return cls(**options)


def data_class(name: str) -> type[LatticeData]:
    """The class of the data module of that name.

    Raises:
        InputError: There is none; the nearest names are given.
    """
    if name in _data:
        return _data[name]
    if name not in DATA:
        raise unknown("dataset", name, list_data())
    member = DATA[name]
    return getattr(importlib.import_module(member.module), member.class_name)


def list_data(pattern: str = "*") -> list[str]:
    """Names of the data modules that match a pattern."""
    return sorted(fnmatch.filter({*DATA, *_data}, pattern))


def check_count(name: str, value: object, least: int = 0) -> None:
    """Check a whole number.

    Raises:
        InputError: It is none, or below ``least``.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"{name} is {value!r}; it must be a whole number of at least {least}.")
