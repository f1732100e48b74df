"""Which networks there are, by name.

Members of the library stand in a table, so that they can be listed without importing torch; the
decorator binds a class to its name, and adds networks that live outside the library::

    @register("my_network")
    class MyNetwork(ZooModel): ...

    create_model("my_network", task, width=32)
"""

from __future__ import annotations

import fnmatch
import importlib
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from latticezoo.symmetry.errors import InputError, unknown

if TYPE_CHECKING:
    from latticezoo.symmetry.tasks import Task
    from latticezoo.zoo.base import ZooModel

    _Class = TypeVar("_Class", bound=type[ZooModel])


class Member(NamedTuple):
    """Where a network of the library is defined, and what it is in a few words."""

    module: str
    class_name: str
    summary: str


#: Networks of the library by registry name.
MEMBERS: dict[str, Member] = {
    "autoregression": Member(
        "latticezoo.zoo.autoregression",
        "Autoregression",
        "the next frame of a series as a linear combination of the last ones",
    ),
    "descriptor_mlp": Member(
        "latticezoo.zoo.descriptor_mlp",
        "DescriptorMLP",
        "symmetry-invariant features of the surroundings, then a multilayer perceptron",
    ),
    "echo_state": Member(
        "latticezoo.zoo.echo_state",
        "EchoState",
        "series of site fields or numbers: a random reservoir, a linear read-out fit in one pass",
    ),
    "energy_gnn": Member(
        "latticezoo.zoo.energy_gnn",
        "EnergyGNN",
        "messages between nearest neighbours, local energies, forces by differentiation",
    ),
    "gauge_gnn": Member(
        "latticezoo.zoo.gauge_gnn",
        "GaugeGNN",
        "matrices carried along links and multiplied into loops (Z2, U(1), SU(2))",
    ),
    "gcn": Member(
        "latticezoo.zoo.gcn",
        "GCN",
        "graph convolutions over nearest neighbours, direct output",
    ),
    "gru": Member("latticezoo.zoo.recurrent", "GRU", "gated recurrent units on a time series"),
    "lattice_enn": Member(
        "latticezoo.zoo.lattice_enn",
        "LatticeENN",
        "irreps of the site group as features, any field on any lattice, direct or by energy",
    ),
    "link_cnn": Member(
        "latticezoo.zoo.link_cnn",
        "LinkCNN",
        "plain convolutions on raw gauge links; learns gauge invariance from turned examples",
    ),
    "lstm": Member("latticezoo.zoo.recurrent", "LSTM", "long short-term memory on a time series"),
    "spin_cnn": Member(
        "latticezoo.zoo.spin_cnn",
        "SpinCNN",
        "plain convolutions on spins; learns the symmetry from turned examples",
    ),
    "steerable_cnn": Member(
        "latticezoo.zoo.steerable_cnn",
        "SteerableCNN",
        "escnn's steerable convolutions on the square lattice (extra escnn), direct or by energy",
    ),
    "tight_binding": Member(
        "latticezoo.zoo.tight_binding",
        "TightBinding",
        "a learned Hamiltonian of electrons and a learned function of it; real fields on sites",
    ),
    "transformer": Member(
        "latticezoo.zoo.transformer",
        "Transformer",
        "self-attention over the past of a time series; odd, with cached keys in roll-outs",
    ),
    "wilson_gnn": Member(
        "latticezoo.zoo.wilson_gnn",
        "WilsonGNN",
        "messages between sites, links and plaquettes of gauge-invariant loops (Z2, U(1))",
    ),
}

_registered: dict[str, type[ZooModel]] = {}


def register(name: str) -> Callable[[_Class], _Class]:
    """Class decorator: make a network available under a snake_case name.

    Raises:
        InputError: When another class has the name, or it is not snake_case.
    """
    if not (name.isidentifier() and name == name.lower()):
        raise InputError(f"model name {name!r} must be in snake_case, such as 'my_network'.")

    def decorate(cls: _Class) -> _Class:
        member, other = MEMBERS.get(name), _registered.get(name)
        taken = member is not None and (cls.__module__, cls.__name__) != member[:2]
        if taken or (other is not None and other.__qualname__ != cls.__qualname__):
            raise InputError(f"model name {name!r} is taken; choose another.")
        cls.registry_name = name
        _registered[name] = cls
        return cls

    return decorate


def list_models(pattern: str = "*") -> list[str]:
    """Names of all networks that match a pattern with ``*`` and ``?``, sorted."""
    return sorted(fnmatch.filter({*MEMBERS, *_registered}, pattern))


def model_class(name: str) -> type[ZooModel]:
    """The class of a network.

    Args:
        name: Registry name (``"gcn"``) or class name (``"GCN"``).

    Raises:
        InputError: For an unknown name, with the nearest known ones.
    """
    if name in _registered:
        return _registered[name]
    for key, member in MEMBERS.items():
        if name in (key, member.class_name):
            return getattr(importlib.import_module(member.module), member.class_name)
    for cls in _registered.values():
        if cls.__name__ == name:
            return cls
    raise unknown("model", name, list_models())


def option_names(cls: type[ZooModel]) -> list[str]:
    """Names of all options of a network, those of training included."""
    names: list[str] = []
    for base in cls.__mro__:
        own = vars(base).get("__init__")
        if own is None or not hasattr(base, "presets"):
            continue
        parameters = inspect.signature(own).parameters.values()
        names += [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    return sorted(set(names) - {"architecture"})


def _check_numbers(cls: type[ZooModel], options: dict[str, Any]) -> None:
    """Refuse words where an option wants a number; YAML reads ``nan`` as a word, too."""
    kinds: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        own = vars(base).get("__init__")
        kinds |= getattr(own, "__annotations__", {})
    for option, value in options.items():
        kind = set(str(kinds.get(option, "")).replace(" ", "").split("|")) - {"None"}
        if isinstance(value, str) and kind and kind <= {"int", "float"}:
            wanted = "a number" if "float" in kind else "a whole number"
            raise InputError(f"{option} of {cls.registry_name} is {value!r}; it must be {wanted}.")


def create_model(
    name: str, task: Task | dict[str, Any], *, ensemble: int = 1, **options: Any
) -> ZooModel:
    """Build a network for a task.

    Args:
        name: Registry or class name.
        task: What it shall learn, or that as plain values.
        ensemble: Number of networks with different weights whose mean and spread are wanted; more
            than one gives an :class:`~latticezoo.zoo.ensemble.Ensemble`.
        **options: The network's own options and those of training; ``preset`` chooses a set of
            values for all that are not given.

    Returns:
        The network, in train mode, with random weights.

    Raises:
        InputError: For an unknown model, preset or option, a word for a number, or a task that the
            model cannot serve.
    """
    cls = model_class(name)
    known = option_names(cls)
    for option in options:
        if option not in known:
            raise unknown(f"option of {cls.registry_name}", option, [*known, "ensemble"])
    _check_numbers(cls, options)
    if ensemble == 1:
        return cls(task, **options)
    from latticezoo.zoo.ensemble import Ensemble, check_count

    check_count(ensemble)
    return Ensemble([cls(task, **options) for _ in range(ensemble)])
