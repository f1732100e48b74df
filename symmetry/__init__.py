"""The symmetry core: groups, lattices, field types, equivariant maps, and the check of them all.

Names load on first use: importing this package loads neither torch nor e3nn.

    >>> from latticezoo.symmetry import assert_equivariant, point_group, square
    >>> print(point_group("D4"))  # doctest: +SKIP
"""

from latticezoo.symmetry.lazy import lazy_names

_HOMES = {
    "C": "point_groups",
    "CompactGroup": "compact",
    "D": "point_groups",
    "Descriptor": "invariants",
    "Element": "elements",
    "EquivariantLinear": "stencils",
    "Field": "fields",
    "FiniteGroup": "groups",
    "InputError": "errors",
    "Lattice": "lattices",
    "O": "point_groups",
    "Oh": "point_groups",
    "SO3": "internal",
    "SU2": "internal",
    "Shell": "geometry",
    "SymmetryGroup": "elements",
    "Task": "tasks",
    "Td": "point_groups",
    "U1": "internal",
    "Z2": "internal",
    "assert_equivariant": "testing",
    "chain": "lattices",
    "diamond": "lattices",
    "equivariance_error": "testing",
    "honeycomb": "lattices",
    "internal_group": "internal",
    "plaquettes": "gauge",
    "point_group": "point_groups",
    "polyakov_loop": "gauge",
    "projection": "projections",
    "square": "lattices",
    "stencil_basis": "stencils",
    "transform": "fields",
    "triangular": "lattices",
    "wilson_loop": "gauge",
}
__all__ = sorted(_HOMES)
__getattr__ = lazy_names(__name__, _HOMES)
