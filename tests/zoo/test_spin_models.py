"""The networks on spins beside lattice_enn: the shared suite, closed forms, refusals."""

from dataclasses import replace

from latticezoo.symmetry.fields import Field
from latticezoo.symmetry.lattices import honeycomb, square, triangular
from latticezoo.symmetry.tasks import Task
from latticezoo.zoo.testing import (
    Case,
    ZooModelTests,
)

SPIN = Field("S", internal="1x1e", odd=("time_reversal",))
FIELD = Field("field", internal="1x1e", odd=("time_reversal",))
DESCRIPTOR = {"bond_radius": 1.5, "pair_radius": 1.5, "widths": [8, 6], "smooth": 0.2}
GRAPH = {"widths": [6, 6], "shells": 1, "range_shells": 2}
CNN = {"channels": 4, "blocks": 1}
SMALL = {"descriptor_mlp": DESCRIPTOR, "gcn": GRAPH, "energy_gnn": GRAPH, "spin_cnn": CNN}
CONSERVATIVE = ("descriptor_mlp", "energy_gnn")


def spins(family):
    """Unit vectors and the perpendicular fields on them."""
    return Task(
        "spins",
        (SPIN,),
        (FIELD,),
        family,
        ("time_reversal",),
        internal="SO3",
        conservative=(("field", "S"),),
        tangent=(("field", "S"),),
    )


OTHERS = (
    replace(spins("square"), tangent=()),
    Task("pair", (Field("S", internal="2x1e"),), (FIELD,), "square", internal="SO3"),
    replace(spins("square"), inputs=(replace(SPIN, odd=()),)),
)


class TestDescriptor(ZooModelTests):
    model = "descriptor_mlp"
    cases = (
        Case(spins("triangular"), (triangular(4),), DESCRIPTOR),
        Case(spins("square"), (square(5), square(3, 4)), {**DESCRIPTOR, "pair_radius": 1.0}),
        Case(spins("honeycomb"), (honeycomb(3),), {**DESCRIPTOR, "bond_radius": 1.8}),
    )
    unsuitable = OTHERS
    too_small = (triangular(2), triangular(6, 2))


class TestGraph(ZooModelTests):
    model = "gcn"
    cases = (
        Case(spins("triangular"), (triangular(4),), GRAPH),
        Case(spins("square"), (square(3, 4), square(3)), {**GRAPH, "aggregation": "sum"}),
        Case(spins("honeycomb"), (honeycomb(3),), {**GRAPH, "residual": False, "shells": 2}),
    )
    unsuitable = OTHERS
    too_small = (triangular(2), triangular(6, 2))


class TestEnergyGraph(ZooModelTests):
    model = "energy_gnn"
    cases = (
        Case(spins("triangular"), (triangular(4),), GRAPH),
        Case(spins("square"), (square(3, 4), square(3)), {**GRAPH, "normalization": "layer"}),
        Case(spins("honeycomb"), (honeycomb(3),), {**GRAPH, "widths": [6], "shells": 3}),
    )
    unsuitable = (*OTHERS, replace(spins("square"), conservative=()))
    too_small = (triangular(2), triangular(6, 2))


class TestConvolutions(ZooModelTests):
    model = "spin_cnn"
    cases = (
        Case(spins("triangular"), (triangular(5), triangular(5, 6)), {**CNN, "hexagonal": True}),
        Case(spins("square"), (square(5), square(7, 5)), CNN),
    )
    unsuitable = (*OTHERS, spins("honeycomb"))
    too_small = (triangular(4), triangular(6, 4))
