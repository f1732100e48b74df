"""Features of irreps: layout, selection sectors, products and linear maps of every group."""

import numpy as np
import pytest
import torch

from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.filter_cache import fixed_weights
from latticezoo.symmetry.lattices import chain, diamond, honeycomb, square, triangular
from latticezoo.symmetry.stencils import EquivariantLinear
from latticezoo.zoo.layers import graph, neighbourhood_product
from latticezoo.zoo.layers.circular import circular_convolution
from latticezoo.zoo.layers.enn import Blocks
from latticezoo.zoo.layers.irrep_linear import IrrepLinear
from latticezoo.zoo.layers.irreps import Features, function_values, regular_spec
from latticezoo.zoo.layers.products import FunctionProduct

FAMILIES = ["chain", "square", "triangular", "honeycomb", "diamond"]


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def matrices(features):
    """Representation on the channels, ``[order, C, C]``."""
    group = features.group
    result = np.zeros((group.order, features.channels, features.channels))
    for name in features.copies:
        dim = group.irreps[name].dim
        places = [features.channels_of((name, k)) for k in range(dim)]
        for i in range(dim):
            for j in range(dim):
                values = group.irreps[name].matrices[:, i, j]
                result[:, places[i], places[j]] = values[:, None]
    return torch.from_numpy(result)


def uneven(family):
    """As many copies of the irreps as their number in the table, so that all differ."""
    group = Features(family, "1x").group
    return "+".join(f"{k + 1}x{name}" for k, name in enumerate(group.irreps))


@pytest.mark.parametrize("family", FAMILIES)
def test_layout_has_every_channel_once(family):
    for spec in ("3x", uneven(family)):
        features = Features(family, spec)
        found = [features.channels_of(component).tolist() for component in features.components]
        assert [channel for run in found for channel in run] == list(range(features.channels))
        assert features.layout.channels == features.channels


@pytest.mark.parametrize("family", FAMILIES)
def test_operations_permute_the_values_of_functions(family):
    """The regular representation: (g f)(h) = f(g⁻¹ h)."""
    group = Features(family, "1x").group
    values = function_values(group)
    np.testing.assert_allclose(values @ values.T, np.eye(group.order), atol=1e-14)
    representation = group.representation(regular_spec(group)).matrices
    for g in range(group.order):
        permuted = np.zeros((group.order, group.order))
        permuted[group.product_table[g], np.arange(group.order)] = 1
        np.testing.assert_allclose(values @ representation[g] @ values.T, permuted, atol=1e-13)


@pytest.mark.parametrize("family", FAMILIES)
def test_products_of_functions_hold_all_products_of_irreps(family):
    """The part of type c in the product of functions of types a and b is not zero when it may be.

    Two functions of every irrep are needed, as in a feature with a few copies.
    """
    group = Features(family, "1x").group
    values = function_values(group)
    names = [name for name, irrep in group.irreps.items() for _ in range(irrep.dim**2)]
    generator = np.random.default_rng(0)
    for a in group.irreps:
        for b in group.irreps:
            first, second = (
                values @ np.where(np.array(names) == name, generator.normal(size=group.order), 0)
                for name in (a, b)
            )
            parts = values.T @ (first * second)
            found = {name for name, part in zip(names, parts, strict=True) if abs(part) > 1e-9}
            assert found == set(group.tensor_product(a, b)), (a, b)


@pytest.mark.parametrize("parities", [1, 2, 4])
@pytest.mark.parametrize("family", FAMILIES)
def test_products_are_equivariant(family, parities):
    out = Features(family, uneven(family))
    group, after = out.group, matrices(out)
    layer = FunctionProduct(2, out, parities)
    values = list(torch.randn(parities, 1, 5, 2 * group.order))
    found = layer(values)
    assert [part.shape for part in found] == [(1, 5, out.channels)] * parities
    for g in range(group.order):
        turned = [torch.empty_like(value).unflatten(-1, (-1, 2)) for value in values]
        for image, value in zip(turned, values, strict=True):
            image[:, :, group.product_table[g].tolist()] = value.unflatten(-1, (-1, 2))
        for image, part in zip(layer([v.flatten(2) for v in turned]), found, strict=True):
            torch.testing.assert_close(image, part @ after[g].T, rtol=0, atol=1e-12)
    for flip in range(parities.bit_length() - 1):  # the two-element symmetries
        signs = [-1.0 if p >> flip & 1 else 1.0 for p in range(parities)]
        changed = layer([sign * value for sign, value in zip(signs, values, strict=True)])
        for sign, image, part in zip(signs, changed, found, strict=True):
            torch.testing.assert_close(image, sign * part, rtol=0, atol=1e-12)


def test_squares_of_small_values_are_quadratic():
    layer = FunctionProduct(2, Features("square", "2x"), 2)
    values = [1e-4 * value for value in torch.randn(2, 1, 4, 16)]

    def even(factor):
        plus, minus = layer([factor * v for v in values]), layer([-factor * v for v in values])
        return torch.stack([(a + b) / 2 for a, b in zip(plus, minus, strict=True)])

    torch.testing.assert_close(even(3.0), 9 * even(1.0), rtol=1e-6, atol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_products_keep_the_size_of_values(family):
    torch.manual_seed(0)
    out = Features(family, "40xregular")
    layer = FunctionProduct(6, out, 2)
    values = torch.randn(2, 1, 400, 6 * out.group.order)
    for part in layer(list(values)):
        assert 0.3 < float(part.detach().square().mean()) < 2.5


@pytest.mark.parametrize(
    ("lattice", "shells"),
    [(chain(5), 2), (square(5), 2), (triangular(5), 1), (honeycomb(4), 2), (diamond(1), 1)],
    ids=str,
)
def test_linear_map_spans_the_same_maps_as_the_stencil(lattice, shells):
    """Its filter is a combination of stencils, and it has as many weights as there are."""
    features = Features(lattice.family, "2x")
    layer = IrrepLinear(features.layout, features.layout, shells, parities=2)
    stencil = EquivariantLinear(lattice, features.spec, features.spec, shells, bias=False)
    count = sum(weight.numel() for weight in layer.parameters())
    assert count == 2 * sum(weight.numel() for weight in stencil.parameters())
    # Carry the channels of the stencil's layout, copy by copy, into ours.
    order = []
    for number, name, dim in lattice.site_group.representation(features.spec).blocks:
        places = np.array([features.channels_of((name, k)) for k in range(dim)])
        order += places.T.reshape(number * dim).tolist()
    dense = layer.filter()[0].permute(1, 2, 0)
    dense = dense[:, order][:, :, order].flatten()
    columns = []
    for weight in stencil.weights.values():
        for index in range(weight.numel()):
            with torch.no_grad():
                for other in stencil.weights.values():
                    other.zero_()
                weight.view(-1)[index] = 1
                columns.append(stencil.filter().flatten().clone())
    basis = torch.stack(columns)
    rest = dense - basis.T @ torch.linalg.lstsq(basis.T, dense[:, None]).solution[:, 0]
    assert float(rest.detach().abs().max()) < 1e-12


PATHS = [(chain(5), 2), (square(5, 6), 1), (square(6, 5), 2), (square(7, 9), 8)]
PATHS += [(triangular(5, 4), 1), (honeycomb(4), 2), (diamond(1), 1)]


@pytest.mark.parametrize(("lattice", "shells"), PATHS, ids=str)
@pytest.mark.parametrize(("into", "out"), [("4x", "4x"), ("1x", "5x"), ("5x", "1x"), ("9x", "7x")])
def test_all_ways_to_apply_a_linear_map_agree(lattice, shells, into, out):
    """Convolution, gather, slices of the torus: with derivatives up to the second."""
    into, out = Features(lattice.family, into), Features(lattice.family, out)
    layer = IrrepLinear(into.layout, out.layout, shells, parities=2).eval()
    values = [torch.randn(3, lattice.n_sites, into.channels).requires_grad_() for _ in range(2)]
    table = lattice.neighbourhood(layer.product.shells)

    def reference(parity):
        return torch.einsum("bnki,oki->bno", values[parity][:, table], layer.filter()[parity])

    parameters = [*values, *layer.parameters()]
    results = []
    for found in (layer(values, lattice), [reference(0), reference(1)]):
        total = sum((part**2 * torch.cos(part)).sum() for part in found)
        slopes = torch.autograd.grad(total, parameters, create_graph=True)
        curvature = sum((slope**2).sum() for slope in slopes)
        results.append((*found, *slopes, *torch.autograd.grad(curvature, parameters)))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    with torch.no_grad():
        for _ in range(2):  # the second time from the cache
            for found, expected in zip(layer(values, lattice), results[1], strict=False):
                torch.testing.assert_close(found, expected)


def test_circular_convolutions_have_all_derivatives():
    values, kernel = torch.randn(2, 4, 5, 2).requires_grad_(), torch.randn(3, 2, 3, 1)
    pair = values, kernel.requires_grad_()
    assert torch.autograd.gradcheck(circular_convolution, pair, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(circular_convolution, pair)
    many = torch.randn(3, 2, 4, 5, 2)
    together = torch.func.vmap(lambda value: circular_convolution(value, kernel))(many)
    alone = torch.stack([circular_convolution(value, kernel) for value in many])
    torch.testing.assert_close(together, alone)


def test_the_same_values_everywhere_are_given_once():
    lattice, features = square(4, 5), Features("square", "2x")
    layer = IrrepLinear(features.layout, features.layout, 2)
    value = torch.randn(1, 1, features.channels)
    (found,) = layer([value], lattice)
    assert found.shape == value.shape
    (expected,) = layer([value.expand(2, lattice.n_sites, -1)], lattice)
    torch.testing.assert_close(found.expand_as(expected), expected)


def test_a_filter_is_kept_until_the_weights_change():
    lattice, features = square(5), Features("square", "2x")
    layer = IrrepLinear(features.layout, features.layout, 2).eval()
    values = [torch.randn(1, 25, features.channels)]
    with torch.no_grad():
        before = layer(values, lattice)[0]
        assert layer.matrices()[0].data_ptr() == layer.matrices()[0].data_ptr()
        for weight in layer.parameters():
            weight.mul_(2)
        torch.testing.assert_close(layer(values, lattice)[0], 2 * before)
    assert layer.matrices()[0].requires_grad
    with fixed_weights():  # as for forces from an energy
        assert not layer.matrices()[0].requires_grad


@pytest.mark.parametrize(
    "lattice", [honeycomb(4), square(9, 7), triangular(5, 6), chain(8)], ids=str
)
def test_inference_in_parts_gives_the_same(lattice, monkeypatch):
    features = Features(lattice.family, "3x")
    for kept in ([0, 1, 2, 3], [1, 2], [3]):
        network = Blocks(features, 3, 2, 2, 4, kept).eval()
        values = list(torch.randn(4, 3, lattice.n_sites, features.channels))
        values[0] = values[0][:1, :1]
        expected = network(values, lattice)
        assert len(expected) == len(kept)
        for tile in (1, 7, 70, 1000):
            monkeypatch.setattr(graph, "TILE", tile)
            monkeypatch.setattr(neighbourhood_product, "SITES", tile)
            with torch.no_grad():
                found = network([value.clone() for value in values], lattice)
            for part, other in zip(found, expected, strict=True):
                torch.testing.assert_close(part, other.detach())


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("4xA1+vector", "features are made of irreps of D4"),
        ("4xA3", "did you mean"),
        ("four", "unknown irrep"),
        ("4*A1", "no representation"),
    ],
)
def test_wrong_features_are_refused(spec, sentence):
    with pytest.raises(InputError, match=sentence):
        Features("square", spec)
