"""Fields transform as representations: composition, inverse, and known special cases."""

import itertools
import math

import numpy as np
import pytest
import torch

from latticezoo.symmetry.elements import Element, SymmetryGroup
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.fields import Field, transform
from latticezoo.symmetry.internal import internal_group
from latticezoo.symmetry.lattices import chain, diamond, honeycomb, square, triangular
from latticezoo.symmetry.tasks import Task
from latticezoo.symmetry.testing import random_values

SITE_FIELDS = [
    (chain(6), Field("Q", point="A1+A2")),
    (square(4), Field("Q", point="2xA1+B1+E")),
    (square(3, 4), Field("u", point="vector")),
    (triangular(4), Field("u", point="E1+E2+pseudovector")),
    (honeycomb(3), Field("Q", point="A2+E")),
    (honeycomb(3), Field("u", point="vector")),
    (diamond(1), Field("Q", point="A2+E+T1")),
    (diamond(1), Field("u", point="vector+pseudovector")),
]
LINK_FIELDS = [
    (lattice, Field("j", "link", oriented=oriented))
    for lattice in (chain(5), square(3, 4), square(4), triangular(4))
    for oriented in (True, False)
]
GAUGE = ["Z2", "U1", "SU2"]


def compose(a: Element, b: Element) -> tuple[int, torch.Tensor]:
    """The point element and site permutation of "first b, then a"."""
    product = int(a.lattice.point_group.product_table[a.point, b.point])
    return product, a.permutation[b.permutation]


def finite_elements(lattice, count=None):
    elements = SymmetryGroup(lattice, flips=("particle_hole",)).finite()
    return list(itertools.islice(elements, count))


def find(elements, point, permutation):
    for element in elements:
        if element.point == point and torch.equal(element.permutation, permutation):
            return element
    raise AssertionError("the group is not closed")


@pytest.mark.parametrize(("lattice", "field"), SITE_FIELDS + LINK_FIELDS, ids=str)
def test_transform_is_a_homomorphism(lattice, field):
    """Acting with b and then with a equals acting with the product ab."""
    values = random_values(field, lattice)
    elements = finite_elements(lattice, len(lattice.operations) * lattice.n_translations)
    step = max(1, len(elements) // 24)
    for a, b in itertools.product(elements[:: step + 1], elements[::step]):
        once = transform(field, values, find(elements, *compose(a, b)))
        twice = transform(field, transform(field, values, b), a)
        assert torch.allclose(once, twice, atol=1e-12)


@pytest.mark.parametrize(("lattice", "field"), SITE_FIELDS, ids=str)
def test_transform_preserves_the_norm(lattice, field):
    values = random_values(field, lattice)
    for element in finite_elements(lattice)[:: lattice.n_translations]:
        moved = transform(field, values, element)
        assert moved.norm() == pytest.approx(float(values.norm()))


@pytest.mark.parametrize("lattice", [honeycomb(3), diamond(1), square(4), triangular(4)], ids=str)
def test_site_positions_are_a_vector_field(lattice):
    """The bond-weighted displacement Σ_k w(i, k) δ_k of a scalar w is carried like a vector."""
    scalar, vector = Field("w"), Field("u", point="vector")
    values = random_values(scalar, lattice)
    shell = lattice.shells(count=1)[1]
    frames = torch.tensor(lattice.point_group.matrices[list(lattice.frames)])
    offsets = torch.einsum("sij,kj->ski", frames, torch.from_numpy(shell.vectors))
    offsets = offsets.repeat(lattice.n_cells, 1, 1)

    def gradient(w):
        return torch.einsum("bnk,nki->bni", w[:, lattice.neighbours(shell), 0], offsets)

    for element in finite_elements(lattice)[:: lattice.n_translations // 2]:
        if element.flips:
            continue
        moved = gradient(transform(scalar, values, element))
        assert torch.allclose(moved, transform(vector, gradient(values), element), atol=1e-12)


def test_a_lattice_gradient_is_an_oriented_link_field():
    for lattice in (chain(5), square(3, 4), square(4), triangular(4)):
        scalar, link = Field("w"), Field("j", "link", oriented=True)
        values = random_values(scalar, lattice)

        def gradient(w, lattice=lattice):
            return w[:, lattice.link_target, 0] - w

        for element in finite_elements(lattice):
            if not element.flips:
                moved = gradient(transform(scalar, values, element))
                expected = transform(link, gradient(values), element)
                assert torch.allclose(moved, expected, atol=1e-13)


@pytest.mark.parametrize("name", GAUGE)
@pytest.mark.parametrize("lattice", [square(3, 4), square(4)], ids=str)
def test_plaquettes_of_moved_links_are_moved_plaquettes(name, lattice):
    """Up to the gauge frame: the trace of the loop, which a reflection conjugates."""
    from latticezoo.symmetry.gauge import plaquettes, trace

    link = Field("U", "link", internal="link")
    loop = Field("P", "plaquette", conjugated=())
    links = random_values(link, lattice, gauge=name)
    for element in finite_elements(lattice)[:: lattice.n_translations - 1]:
        if element.flips:
            continue
        moved = trace(plaquettes(transform(link, links, element), lattice))
        straight = transform(loop, trace(plaquettes(links, lattice)), element)
        if np.linalg.det(lattice.point_group.matrices[element.point]) < 0:
            straight = straight.conj()
        assert torch.allclose(moved, straight, atol=1e-12)


@pytest.mark.parametrize("name", GAUGE)
def test_local_transformations_compose(name):
    lattice, group = square(3, 4), internal_group(name)
    link = Field("U", "link", internal="link")
    matter = Field("psi", internal="fundamental" if name == "SU2" else 1)
    g, h = (group.random(lattice.n_sites, dtype=torch.float64) for _ in range(2))
    elements = [Element(lattice, gauge=x, gauge_group=group) for x in (g, h, group.compose(g, h))]
    for field in (link, matter):
        values = random_values(field, lattice, gauge=name)
        twice = transform(field, transform(field, values, elements[1]), elements[0])
        assert torch.allclose(twice, transform(field, values, elements[2]), atol=1e-12)


def test_rotation_of_spins_keeps_their_products():
    lattice, group = triangular(3), internal_group("SO3")
    spin = Field("S", internal="1x1e", odd=("time_reversal",))
    values = random_values(spin, lattice)
    element = Element(
        lattice,
        flips=frozenset({"time_reversal"}),
        internal=group.random(dtype=torch.float64),
        internal_group=group,
    )
    moved = transform(spin, values, element)
    assert not torch.allclose(moved, values)
    gram = values @ values.mT
    assert torch.allclose(moved @ moved.mT, gram, atol=1e-12)


def test_flips_change_the_sign_of_odd_fields_only():
    lattice = square(4)
    element = Element(lattice, flips=frozenset({"particle_hole"}))
    odd, even = Field("Q", odd=("particle_hole",)), Field("E")
    values = random_values(even, lattice)
    assert torch.equal(transform(odd, values, element), -values)
    assert torch.equal(transform(even, values, element), values)


def test_group_order_is_the_product_of_its_factors():
    group = SymmetryGroup(square(4, 6), flips=("particle_hole",))
    assert len(group) == 24 * 4 * 2 == len(list(group.finite()))
    assert str(group) == "24 translations × 4 of D4 × particle_hole"
    assert len(SymmetryGroup(diamond(1))) == 4 * 48


def test_samples_of_the_gauge_group_differ_from_site_to_site():
    group = SymmetryGroup(square(4), gauge="U1")
    (element,) = group.sample(1, torch.Generator().manual_seed(0))
    assert element.gauge.shape == (16,)
    assert len(set(element.gauge.angle().tolist())) == 16
    assert math.isclose(float(element.gauge.abs().max()), 1.0, rel_tol=1e-12)


def test_tasks_survive_the_way_through_plain_values():
    task = Task(
        "t",
        (Field("Q", odd=("particle_hole",)), Field("S", internal="1x1e")),
        (Field("n", odd=("particle_hole",)),),
        "square",
        flips=("particle_hole",),
        internal="SO3",
        conservative=(("n", "Q"),),
    )
    assert Task.from_dict(task.to_dict()) == task


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Field("Q", "sites"), "unknown field support 'sites'; did you mean site"),
        (lambda: Field("Q", "link", point="E"), "only 'A1' is served"),
        (lambda: Task("t", (), (Field("n"),), "square"), "at least one input"),
        (lambda: Task("t", (Field("n"),) * 2, (Field("n"),), "square"), "twice"),
        (lambda: Task("t", (Field("Q"),), (Field("n"),), "sqare"), "did you mean square"),
        (
            lambda: Task("t", (Field("Q"),), (Field("n"),), "square", conservative=(("n", "P"),)),
            "unknown input field 'P'",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_inputs_of_a_task_are_checked():
    task, lattice = Task("t", (Field("Q"),), (Field("n"),), "square"), square(4)
    good = torch.zeros(2, 16, 1)
    task.check({"Q": good}, lattice)
    with pytest.raises(InputError, match="'Q' is missing; given: P"):
        task.check({"P": good}, lattice)
    with pytest.raises(
        InputError, match=r"shape \[batch, 16, 1\], but they have shape \[2, 9, 1\]"
    ):
        task.check({"Q": good[:, :9]}, lattice)
    with pytest.raises(InputError, match="holds 2 NaN"):
        task.check({"Q": good.index_fill(1, torch.tensor([3]), float("nan"))}, lattice)
    with pytest.raises(InputError, match="lives on square lattices, not triangular"):
        task.check({"Q": good}, triangular(4))


def test_an_electric_field_turns_in_the_frame_at_the_start_of_its_link():
    """Gauss's law is covariant: E_l^a goes as the adjoint of the link's first site."""
    lattice, group = square(3, 4), internal_group("SU2")
    field = Field("E", "link", internal="adjoint", oriented=True)
    values = random_values(field, lattice)
    assert values.shape == (2, 12, 2, 3)
    g = group.random(lattice.n_sites, dtype=torch.float64)
    moved = transform(field, values, Element(lattice, gauge=g, gauge_group=group))
    for site in range(lattice.n_sites):
        expected = group.act(g[site], values[:, site], "adjoint")
        assert torch.allclose(moved[:, site], expected, atol=1e-13)
    shift = Element(lattice, translation=(1, 0))
    assert torch.allclose(transform(field, values, shift).norm(), values.norm())
    turned = Element(lattice, point=lattice.point_group.index(-torch.eye(2).numpy()))
    with pytest.raises(InputError, match="reversing it needs the link"):
        transform(field, values, turned)


def test_loops_that_start_at_a_site_turn_in_its_frame():
    from latticezoo.symmetry.gauge import plaquettes

    lattice, group = square(3, 4), internal_group("SU2")
    link, loop = Field("U", "link", internal="link"), Field("P", "plaquette", internal="loop")
    links = random_values(link, lattice, gauge="SU2")
    g = group.random(lattice.n_sites, dtype=torch.float64)
    element = Element(lattice, gauge=g, gauge_group=group)
    moved = plaquettes(transform(link, links, element), lattice)
    expected = transform(loop, plaquettes(links, lattice), element)
    assert torch.allclose(moved, expected, atol=1e-13)
