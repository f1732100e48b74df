"""What does not fit together, from Python and from the command line: one plain sentence each."""

from dataclasses import replace

import pytest
import torch

from latticezoo.symmetry.elements import Element, SymmetryGroup
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.fields import Field, transform
from latticezoo.symmetry.invariants import Descriptor
from latticezoo.symmetry.lattices import square, triangular
from latticezoo.symmetry.stencils import EquivariantLinear, stencil_basis
from latticezoo.symmetry.tasks import Task
from latticezoo.zoo import create_model
from latticezoo.zoo.group_average import symmetrize

SCALAR = Task("scalar_triangular", (Field("Q"),), (Field("y"),), "triangular")
LINKS = Task("bonds", (Field("Q"),), (Field("t", support="link"),), "square")
SPINS = Task("spins", (Field("S", internal="1x1e"),), (Field("h"),), "square", internal="SO3")
CHARGES = Task("charges", (Field("c", internal=1),), (Field("h"),), "square", internal="U1")


def sentence(error):
    text = str(error.value)
    assert "\n" not in text
    assert text.endswith(".")
    return text


# ---- a field type that the network cannot carry ------------------------------------------------


@pytest.mark.parametrize("name", ["gcn", "energy_gnn", "descriptor_mlp", "lattice_enn"])
@pytest.mark.parametrize(
    ("task", "field", "what"),
    [
        (LINKS, "t", "lives on the link support"),
        (SPINS, "S", "has internal type '1x1e'"),
        (CHARGES, "c", "has internal type 1"),
    ],
    ids=["links", "spins", "charges"],
)
def test_a_network_names_the_field_that_it_cannot_carry(name, task, field, what):
    if name == "lattice_enn" and task is SPINS:
        task = replace(task, internal=None)  # with it, the network carries spins
    for ensemble in (1, 2):
        with pytest.raises(InputError) as error:
            create_model(name, task, ensemble=ensemble)
        text = sentence(error)
        assert text.startswith(f"{name} cannot serve the task '{task.name}': ")
        if name != "energy_gnn":  # which says first that these derive from no energy
            assert f"'{field}' {what}" in text


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("spin_cnn", "it maps unit vectors to fields perpendicular to them alone."),
        ("gcn", "it carries real scalar site fields only, but 'S' has internal type '1x1e'."),
        ("energy_gnn", "it carries real site fields without internal type, but 'S' has internal"),
        ("descriptor_mlp", "it carries real site fields without internal type, but 'S' has inter"),
    ],
)
def test_networks_on_spins_serve_perpendicular_fields_of_the_same_parity_alone(name, reason):
    spin, field = Field("S", internal="1x1e", odd=("time_reversal",)), Field("H", internal="1x1e")
    pair = (("H", "S"),)
    flips = ("time_reversal",)
    task = Task("even", (spin,), (field,), "square", flips, "SO3", None, pair, pair)
    with pytest.raises(InputError) as error:
        create_model(name, task)
    assert sentence(error).startswith(f"{name} cannot serve the task 'even': {reason}")
    served = replace(task, targets=(replace(field, odd=flips),))
    assert create_model(name, served).task == served


JAHN_TELLER = ["--data", "jahn_teller", "--data.lattice", "6"]


@pytest.mark.parametrize(
    "words",
    [
        ["fit", "--model", "gcn", *JAHN_TELLER, "--trainer.max_epochs", "1"],
        ["fit", "--model", "gcn", *JAHN_TELLER, "--ensemble", "2"],
        ["compare", "--models", "lattice_enn,gcn", *JAHN_TELLER, "--epochs", "1"],
    ],
    ids=["fit", "ensemble", "compare"],
)
def test_the_command_line_says_so_before_any_work(refused, words):
    assert refused(*words) == (
        "gcn cannot serve the task 'jahn_teller_square': it carries real scalar site fields only, "
        "but 'Q' has point type '2xA1+B1'."
    )


def test_models_tells_the_reason_beside_each_preset(command):
    status, out, _ = command("models", "gcn", "--data", "jahn_teller")
    assert status == 0
    assert "it carries real scalar site fields only" in out


# ---- a neighbourhood that is not closed under the group ----------------------------------------


def cut(lattice, number=1):
    """A shell with its last offset taken away."""
    shell = lattice.shells(count=number)[number]
    return replace(shell, offsets=shell.offsets[:-1])


@pytest.mark.parametrize(
    "build",
    [
        lambda shells: EquivariantLinear("square", "A1", "A1", shells=shells),
        lambda shells: stencil_basis("square", shells, "A1", "E"),
        lambda shells: Descriptor("square", "A1", shells=shells),
    ],
    ids=["linear", "basis", "descriptor"],
)
def test_an_open_neighbourhood_is_refused_with_the_offset_that_is_missing(build):
    with pytest.raises(InputError) as error:
        build([cut(square(8))])
    text = sentence(error)
    assert "D4 does not map shell 1 onto itself" in text
    assert "to (0, -1), which is not in it" in text
    build([square(8).shells(count=1)[1]])


# ---- a torus that an operation does not map onto itself ----------------------------------------


def test_operations_that_the_sides_of_the_torus_break_are_named():
    lattice, values = triangular(4, 6), torch.randn(1, 24, 1)
    names = lattice.point_group.element_names
    assert [names[point] for point in lattice.operations] == ["E", "C2"]
    expected = "C2'(0°) of D6 does not map triangular(4, 6) onto itself; on sides of these lengths"
    mirror = names.index("C2'(0°)")
    for act in (
        lambda: lattice.permutation(mirror),
        lambda: transform(Field("Q"), values, Element(lattice, mirror)),
        lambda: SymmetryGroup(lattice, point_operations=(0, mirror)),
    ):
        with pytest.raises(InputError) as error:
            act()
        assert sentence(error) == f"{expected} only E, C2 do."
    for number in (12, -1):
        with pytest.raises(InputError, match=f"there is no point operation {number} of triang"):
            SymmetryGroup(lattice, point_operations=(0, number))


def test_networks_and_averages_keep_to_the_operations_of_the_torus():
    network = create_model("gcn", SCALAR, widths=[4, 4])
    assert len(symmetrize(network, "D6").operations(triangular(4, 6))) == 2
    assert len(symmetrize(network, "D6").operations(triangular(4, 4))) == 12
    with pytest.raises(InputError, match="is no element of D6"):
        symmetrize(network, "D4")
    with pytest.raises(InputError, match="acts in 3 dimensions"):
        symmetrize(network, "Td")
