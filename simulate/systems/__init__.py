"""The exact systems by name: one file a Hamiltonian."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from latticezoo.simulate.forcefield import System
from latticezoo.simulate.systems import (
    classical,
    gauge_fermions,
    heisenberg,
    holstein,
    jahn_teller,
    quantum_link,
    sd_magnet,
)
from latticezoo.simulate.systems.classical import Gradients, Springs
from latticezoo.simulate.systems.gauge_fermions import GaugeFermions
from latticezoo.simulate.systems.heisenberg import Heisenberg
from latticezoo.simulate.systems.holstein import Holstein
from latticezoo.simulate.systems.jahn_teller import JahnTeller
from latticezoo.simulate.systems.quantum_link import QuantumLink
from latticezoo.simulate.systems.sd_magnet import SDMagnet
from latticezoo.simulate.systems.wilson_loops import WilsonLoops
from latticezoo.symmetry.errors import InputError, unknown

#: The classes by the name of the Hamiltonian.
system_registry: dict[str, type[System]] = {
    "holstein": Holstein,
    "jahn_teller": JahnTeller,
    "sd_magnet": SDMagnet,
    "springs": Springs,
    "gradients": Gradients,
    "heisenberg": Heisenberg,
    "gauge_fermions": GaugeFermions,
    "quantum_link": QuantumLink,
    "wilson_loops": WilsonLoops,
}

#: Named parameter sets of all systems.
PRESETS: dict[str, System] = {
    **holstein.PRESETS,
    **jahn_teller.PRESETS,
    **sd_magnet.PRESETS,
    **classical.PRESETS,
    **heisenberg.PRESETS,
    **gauge_fermions.PRESETS,
    **quantum_link.PRESETS,
}


def create_system(name: str, **parameters: Any) -> System:
    """Make a system by name.

    Args:
        name: A preset, such as ``holstein_weak``, whose parameters may be overridden; or a
            Hamiltonian, such as ``holstein``, with all its required parameters.
        **parameters: Physical parameters.

    Raises:
        InputError: For an unknown name or parameter (with the nearest ones), a missing one, or a
            value that the system does not accept.
    """
    if name not in PRESETS and name not in system_registry:
        raise unknown("system", name, [*PRESETS, *system_registry])
    kind: Any = type(PRESETS[name]) if name in PRESETS else system_registry[name]
    accepted = [entry.name for entry in fields(kind)]
    for parameter in parameters:
        if parameter not in accepted:
            raise unknown(f"parameter of {name}", parameter, accepted)
    if name in PRESETS:
        preset: Any = PRESETS[name]
        return replace(preset, **parameters)
    try:
        return kind(**parameters)
    except TypeError as error:
        raise InputError(f"system {name!r} cannot be made: {error}.") from error


def list_systems() -> list[str]:
    """Names that :func:`create_system` accepts."""
    return sorted([*PRESETS, *system_registry])


def from_parameters(values: Mapping[str, Any]) -> System:
    """Inverse of ``{"system": system.name, **system.parameters}``."""
    plain = dict(values)
    return create_system(plain.pop("system"), **plain)
