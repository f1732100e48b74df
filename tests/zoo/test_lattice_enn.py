"""The equivariant network: the shared suite on every lattice and kind of field, and the E-FNN."""

import pytest
import torch

from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.fields import Field
from latticezoo.symmetry.lattices import chain, diamond, honeycomb, square, triangular
from latticezoo.symmetry.tasks import Task
from latticezoo.zoo import create_model
from latticezoo.zoo.layers.e_fnn import ExpandedLayer
from latticezoo.zoo.layers.irrep_fields import NeighbourhoodIrreps
from latticezoo.zoo.testing import Case, ZooModelTests, random_fields, scalar_task, vector_task

SHELLS = {"blocks": 1, "shells": 1, "embedding_shells": 1, "readout_shells": 1}
TINY = {"width": 8, **SHELLS}
PRODUCTS = {"body": "products", "features": "2x", "products": 2, **SHELLS}
ENERGY = {**TINY, "output": "energy"}
E_FNN = {"preset": "e_fnn", "embedding_shells": 2, "channels": [6, 4]}


def jahn_teller():
    """Three modes of a plaquette, 2xA1 + B1, and their forces."""
    return Task(
        "jahn_teller",
        (Field("Q", point="2xA1+B1"),),
        (Field("force", point="2xA1+B1"),),
        "square",
        conservative=(("force", "Q"),),
    )


def doublet(family, irrep):
    """A doublet and a scalar go in, others come out, some odd under one of two flips."""
    return Task(
        "doublet",
        (Field("d", point=irrep, odd=("p",)), Field("s", odd=("p", "q"))),
        (Field("n", odd=("q",)), Field("t", point=f"A2+{irrep}", odd=("p",))),
        family,
        ("p", "q"),
    )


class TestLatticeENN(ZooModelTests):
    model = "lattice_enn"
    cases = (
        Case(scalar_task("square", odd=True), (square(4), square(3, 5)), TINY),
        Case(jahn_teller(), (square(4), square(3, 5)), TINY),
        Case(vector_task("square"), (square(3), square(3, 4)), ENERGY),
        Case(scalar_task("chain", odd=True), (chain(5),), ENERGY),
        Case(doublet("triangular", "E2"), (triangular(3), triangular(3, 4)), TINY),
        Case(vector_task("triangular"), (triangular(3),), TINY),
        Case(vector_task("honeycomb"), (honeycomb(3), honeycomb(3, 4)), TINY),
        Case(doublet("honeycomb", "E"), (honeycomb(2),), TINY),
        Case(vector_task("diamond"), (diamond(1),), {**ENERGY, "width": 48}),
        Case(scalar_task("diamond"), (diamond(1),), TINY),
    )
    unsuitable = (
        Task("charges", (Field("c", internal=1),), (Field("h"),), "square", internal="U1"),
        Task("links", (Field("Q"),), (Field("b", support="link"),), "square"),
        Task("complex", (Field("Q", conjugated=("c",)),), (Field("h"),), "square", ("c",)),
    )
    too_small = (square(2),)


class TestProducts(ZooModelTests):
    model = "lattice_enn"
    cases = (
        Case(scalar_task("square", odd=True), (square(4), square(3, 5)), PRODUCTS),
        Case(jahn_teller(), (square(4), square(3, 5)), PRODUCTS),
        Case(scalar_task("chain", odd=True), (chain(5),), {**PRODUCTS, "products": 4}),
        Case(doublet("triangular", "E2"), (triangular(3), triangular(3, 4)), PRODUCTS),
        Case(vector_task("honeycomb"), (honeycomb(3),), {**PRODUCTS, "output": "energy"}),
        Case(vector_task("diamond"), (diamond(1),), PRODUCTS),
    )
    too_small = (square(2),)


class TestPublishedNetwork(ZooModelTests):
    model = "lattice_enn"
    cases = (
        Case(scalar_task("square", odd=True), (square(3), square(3, 5)), E_FNN),
        Case(vector_task("triangular"), (triangular(3),), {**E_FNN, "embedding_shells": 1}),
        Case(
            scalar_task("diamond"),
            (diamond(1),),
            {**E_FNN, "embedding_shells": 1, "output": "energy", "nonlinearity": "smooth"},
        ),
        Case(
            jahn_teller(),
            (square(3),),
            {**E_FNN, "channels": [8], "nonlinearity": "smooth", "squares": True},
        ),
    )
    too_small = (square(2),)


# ---- the published network -----------------------------------------------------------------------


@pytest.mark.parametrize("nonlinearity", ["sign_sigmoid", "smooth"])
def test_published_sizes(nonlinearity):
    """Widths, 142,914 weights and 221 biases of the E-FNN (lattice-enn sheet, section 5.1)."""
    task = scalar_task("square", odd=True)
    network = create_model("lattice_enn", task, preset="e_fnn", nonlinearity=nonlinearity).network
    assert sum(shell.size for shell in network.irreps.shells) == 45
    assert network.irreps.copies == {"A1": 9, "A2": 3, "B1": 6, "B2": 5, "E": 11}
    assert [list(layer.widths.values()) for layer in network.layers] == [
        [128, 115, 130, 123, 264],
        [2512, 2576, 2576, 2576, 4128],
        [148, 164, 164, 164, 264],
        [34],
    ]
    sizes = {name: weight.numel() for name, weight in network.named_parameters()}
    assert sum(n for name, n in sizes.items() if name.endswith("bias")) == 221
    assert sum(n for name, n in sizes.items() if not name.endswith("bias")) == 142_914


def test_published_products_of_d4():
    """The list of the sheet, section 5.1 (i), for two copies of every irrep."""
    torch.manual_seed(0)
    group = square(3).site_group
    layer = ExpandedLayer(
        group, dict.fromkeys(group.irreps, 2), dict.fromkeys(group.irreps, 1), None
    )
    a1, a2, b1, b2 = (torch.randn(2, 1, 1) for _ in range(4))
    e = torch.randn(2, 2, 1)
    values = {"A1": a1, "A2": a2, "B1": b1, "B2": b2, "E": e}
    (x, y), (u, v) = e[0, :, 0].tolist(), e[1, :, 0].tolist()
    ones = {name: value[:, 0, 0].tolist() for name, value in values.items() if name != "E"}
    pairs = {
        "A1": [ones[n][0] * ones[n][1] for n in ("A1", "A2", "B1", "B2")] + [x * u + y * v],
        "A2": [p * q for p in ones["A1"] for q in ones["A2"]]
        + [p * q for p in ones["B1"] for q in ones["B2"]]
        + [x * v - y * u],
        "B1": [p * q for p in ones["A1"] for q in ones["B1"]]
        + [p * q for p in ones["A2"] for q in ones["B2"]]
        + [x * u - y * v],
        "B2": [p * q for p in ones["A1"] for q in ones["B2"]]
        + [p * q for p in ones["A2"] for q in ones["B1"]]
        + [x * v + y * u],
    }
    found = {name: list(values[name][:, 0, 0].tolist()) for name in pairs}
    for expansion in layer.expansions:
        if expansion.target in pairs:
            made = layer._product(expansion, values)[:, 0, 0].tolist()
            found[expansion.target] += made
    for name, expected in pairs.items():
        wanted = sorted(abs(value) for value in [*ones[name], *expected])
        assert sorted(map(abs, found[name])) == pytest.approx(wanted, rel=1e-5), name
    turned = {"A1": (x, y), "A2": (-y, x), "B1": (x, -y), "B2": (y, x)}
    for expansion in layer.expansions:
        if expansion.target == "E":
            made = layer._product(expansion, values)[0, :, 0]
            scalar = ones[expansion.first][0]
            expected = torch.tensor(turned[expansion.first]) * scalar
            assert torch.allclose(made, expected) or torch.allclose(made, -expected)


def test_published_activation_is_odd_and_of_unit_length():
    group = square(3).site_group
    layer = ExpandedLayer(group, {"E": 3, "B1": 2}, {"E": 3, "B1": 2}, "sign_sigmoid")
    for name, dim in (("E", 2), ("B1", 1)):
        values = torch.randn(layer.out[name], dim, 7)
        bias = layer.biases[name + "_bias"][:, None]
        squashed = layer._squash(name, values)
        length = values.norm(dim=1)
        torch.testing.assert_close(squashed.norm(dim=1), torch.sigmoid(length + bias))
        torch.testing.assert_close(
            squashed * length[:, None], values * squashed.norm(dim=1)[:, None]
        )
        torch.testing.assert_close(layer._squash(name, -values), -squashed)
        zero = layer._squash(name, torch.zeros(layer.out[name], dim, 1, requires_grad=True))
        (slope,) = torch.autograd.grad(zero.sum(), layer.parameters(), allow_unused=True)[:1]
        assert bool((zero == 0).all())
        assert slope is None or bool(slope.isfinite().all())


def test_input_irreps_are_scaled_by_their_largest_modulus():
    task = scalar_task("square")
    network = create_model("lattice_enn", task, **E_FNN)
    lattice = square(5)
    batches = [{"fields": random_fields(task, lattice, seed=s), "lattice": lattice} for s in (0, 1)]
    network.calibrate(batches)
    irreps = network.network.irreps
    largest = 0.0
    for batch in batches:
        fields = {name: value.float() for name, value in batch["fields"].items()}
        found = irreps(irreps.columns(fields, lattice))
        sizes = torch.stack([value.square().sum(1).max().sqrt() for value in found.values()])
        largest = torch.maximum(torch.as_tensor(largest), sizes)
    torch.testing.assert_close(largest, torch.ones(4))


@pytest.mark.parametrize("lattice", [square(7), diamond(1), triangular(3)], ids=str)
def test_neighbourhood_irreps_keep_the_length(lattice):
    shells = {"square": 8, "diamond": 1, "triangular": 1}[lattice.family]
    irreps = NeighbourhoodIrreps(lattice.family, (Field("u", point="vector"),), shells).double()
    values = {"u": random_fields(vector_task(lattice.family), lattice)["u"]}
    columns = irreps.columns(values, lattice)
    total = sum(part.square().sum((0, 1)) for part in irreps(columns).values())
    torch.testing.assert_close(total, columns.square().sum(1))


# ---- the general network -------------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["compact", "accurate", "products", "e_fnn"])
@pytest.mark.parametrize("task", [scalar_task("square", odd=True), jahn_teller()], ids=str)
def test_presets_build_and_run(preset, task):
    network = create_model("lattice_enn", task, preset=preset).eval()
    lattice = square(8)
    with torch.no_grad():
        found = network(random_fields(task, lattice, batch=1), lattice)
    assert found["force"].shape == (1, 64, task.target("force").channels(lattice))
    count = sum(weight.numel() for weight in network.parameters())
    if preset == "compact":
        assert 5_000 < count < 40_000


def test_parities_replace_the_second_evaluation(monkeypatch):
    network = create_model("lattice_enn", scalar_task("square", odd=True), **TINY)
    sizes = []
    inner = network.network.forward
    monkeypatch.setattr(
        network.network, "forward", lambda f, where: (sizes.append(len(f["Q"])), inner(f, where))[1]
    )
    network(random_fields(network.task, square(4), batch=3), square(4))
    assert sizes == [3]


def test_energy_exists_where_it_should():
    task = scalar_task("square")
    assert not hasattr(create_model("lattice_enn", task, **TINY), "energy")
    network = create_model("lattice_enn", task, **ENERGY)
    assert network.energy(random_fields(task, square(4)), square(4)).shape == (2,)
    wider = create_model("lattice_enn", task, **TINY)
    assert network.receptive_radius == 2 * wider.receptive_radius == 6


def test_training_follows_evaluation_in_inference_mode():
    """Tables that are made first in inference mode must serve training later."""
    network = create_model("lattice_enn", scalar_task("square"), **TINY)
    lattice = square(11, 9)
    fields = random_fields(network.task, lattice, dtype=torch.float32)
    with torch.inference_mode():
        network(fields, lattice)
    network(fields, lattice)["force"].square().mean().backward()


def test_uneven_features():
    task = jahn_teller()
    options = {**PRODUCTS, "features": "5xA1+2xB1+3xE"}
    network = create_model("lattice_enn", task, **options).double()
    from latticezoo.symmetry.testing import assert_equivariant

    assert_equivariant(network, task, square(3, 4), tolerance=1e-12)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"body": "product"}, "did you mean products"),
        ({"output": "forces"}, "unknown output 'forces'"),
        ({"preset": "e_fnn", "nonlinearity": "relu"}, "unknown nonlinearity 'relu'"),
        ({"blocks": -1}, "blocks must be 1 or more, not -1"),
        ({"width": 0}, "width must be 1 or more, not 0"),
        ({"activation": "step"}, "unknown activation 'step'"),
        ({"products": 0}, "products must be 1 or more, not 0"),
        ({"channels": [4, 0]}, "channels must be positive"),
        ({**PRODUCTS, "features": "4xA1+2xF"}, "unknown irrep of D4 'F'"),
        (
            {**PRODUCTS, "features": "4xA1", "readout_shells": 0},
            "no equivariant map leads from features '4xA1'",
        ),
    ],
)
def test_wrong_options_are_refused_in_one_sentence(options, sentence):
    with pytest.raises(InputError, match=sentence):
        create_model("lattice_enn", vector_task("square"), **options)


def test_an_energy_is_refused_where_there_is_none():
    with pytest.raises(InputError, match=r"cannot serve the task 'doublet'.*no energy"):
        create_model("lattice_enn", doublet("square", "E"), **ENERGY)
