"""Hamiltonians, exact solvers, dynamics, observers, trajectories.

Names load on first use: importing this package costs nothing.

    >>> from latticezoo.simulate import Langevin, preset, simulate
"""

from latticezoo.symmetry.lazy import lazy_names

_HOMES = {
    "Brownian": "dynamics.brownian",
    "Checkpoint": "checkpoint",
    "Chirality": "spin_observers",
    "CorrelationFunction": "observers",
    "CorrelationLength": "observers",
    "Energy": "observers",
    "ForceField": "forcefield",
    "ForceSpread": "observers",
    "FunctionObserver": "observers",
    "Heisenberg": "systems.heisenberg",
    "Holstein": "systems.holstein",
    "JahnTeller": "systems.jahn_teller",
    "KineticTemperature": "observers",
    "LLG": "dynamics.llg",
    "Langevin": "dynamics.langevin",
    "LearnedForceField": "forcefield",
    "Magnetization": "spin_observers",
    "MeanField": "dynamics.mean_field",
    "OrderParameter": "observers",
    "PeakLength": "spin_observers",
    "PeakOrder": "spin_observers",
    "Ramp": "dynamics.schedule",
    "Result": "run",
    "RollOut": "dynamics.roll_out",
    "SemiclassicalChain": "systems.holstein_chain",
    "State": "state",
    "StructureFactor": "observers",
    "System": "forcefield",
    "TimeAverage": "observers",
    "TopologicalCharge": "spin_observers",
    "Trajectory": "trajectory",
    "create_system": "systems",
    "list_systems": "systems",
    "open_trajectory": "trajectory",
    "normalized": "unit_vectors",
    "preset": "systems.holstein",
    "random_spins": "spin_states",
    "random_start": "initial:random",
    "run_slabs": "slabs",
    "simulate": "run",
    "staggered_start": "initial:staggered",
    "thermal_start": "initial:thermal",
}
__all__ = sorted(_HOMES)
__getattr__ = lazy_names(__name__, _HOMES)
