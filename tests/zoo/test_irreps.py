"""Features of irreps: layout, selection sectors, products and linear maps of every group."""

import numpy as np
import pytest
import torch

from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.lattices import chain, diamond, honeycomb, square, triangular
from latticezoo.symmetry.stencils import EquivariantLinear
from latticezoo.zoo.layers.enn import Blocks
from latticezoo.zoo.layers.irrep_linear import IrrepLinear
from latticezoo.zoo.layers.irreps import Features, selection_sectors, square_routes
from latticezoo.zoo.layers.products import SquareProduct

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


def test_sectors_of_the_square_lattice_are_those_of_its_axis_mirrors():
    sectors = selection_sectors(Features("square", "1x").group)
    expected = [{("A1", 0), ("B1", 0)}, {("A2", 0), ("B2", 0)}, {("E", 0)}, {("E", 1)}]
    assert [set(sector) for sector in sectors] == expected
    assert [len(selection_sectors(Features(f, "1x").group)) for f in FAMILIES] == [2, 4, 4, 2, 4]


@pytest.mark.parametrize("family", FAMILIES)
def test_routes_are_all_quadratic_maps(family):
    """As many as the symmetric square holds copies of each irrep, by characters."""
    features = Features(family, "1x")
    group = features.group
    matrices_ = matrices(features).numpy()
    trace = np.trace(matrices_, axis1=1, axis2=2)
    squared = np.trace(matrices_ @ matrices_, axis1=1, axis2=2)
    expected = group.decompose((trace**2 + squared) / 2)
    routes = square_routes(features, 1, list(group.irreps))
    found = {name: sum(r.irrep == name for r in routes) for name in group.irreps}
    assert {name: count for name, count in found.items() if count} == expected


@pytest.mark.parametrize("parities", [1, 2, 4])
@pytest.mark.parametrize("family", FAMILIES)
def test_products_are_equivariant(family, parities):
    features, out = Features(family, "2x"), Features(family, uneven(family))
    layer = SquareProduct(features, out, parities)
    values = torch.randn(parities, features.channels, 5)
    found = layer(values)
    assert found.shape == (parities, 5, out.channels)
    before, after = matrices(features), matrices(out)
    for g in range(features.group.order):
        expected = found @ after[g].T
        torch.testing.assert_close(layer(before[g] @ values), expected, rtol=0, atol=1e-12)
    for flip in range(1, parities):  # the two-element symmetries: parities with that bit change
        signs = torch.tensor([-1.0 if p & flip & -flip else 1.0 for p in range(parities)])
        signs = signs[:, None, None]
        torch.testing.assert_close(layer(signs * values), signs * found, rtol=0, atol=1e-12)


def test_products_without_their_linear_part_are_quadratic():
    layer = SquareProduct(Features("square", "2x"), Features("square", "2x"), 2)
    values = torch.randn(2, 12, 4)
    odd = (layer(values) - layer(-values)) / 2
    even = (layer(values) + layer(-values)) / 2
    torch.testing.assert_close((layer(3 * values) + layer(-3 * values)) / 2, 9 * even)
    torch.testing.assert_close((layer(3 * values) - layer(-3 * values)) / 2, 3 * odd)


@pytest.mark.parametrize("family", FAMILIES)
def test_products_of_unit_variance_have_unit_variance(family):
    """Over the sites; squares have a mean besides."""
    torch.manual_seed(0)
    layer = SquareProduct(Features(family, "6x"), Features(family, "200x"), 2)
    found = layer(torch.randn(2, 6 * layer.width, 500)).detach()
    for parity in range(2):
        for component in layer.out.components:
            values = found[parity][:, layer.out.channels_of(component)]
            assert 0.75 < float(values.var(0).mean()) < 1.3, component


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
    dense = layer.filter()[0].view(-1, features.channels, features.channels)
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


@pytest.mark.parametrize("spec", ["4x", "5xA1+2xB1+3xE", "2xA2+4xA1+4xE"])
def test_both_orders_of_the_axes_agree(spec):
    lattice, features = square(5, 6), Features("square", spec)
    layer = IrrepLinear(features.layout, Features("square", "3x").layout, 2, parities=2)
    values = torch.randn(2, 3, lattice.n_sites, features.channels)
    torch.testing.assert_close(
        layer.across(values, lattice), layer(values, lattice).flatten(1, 2).transpose(1, 2)
    )


def test_inference_by_tiles_gives_the_same(monkeypatch):
    from latticezoo.zoo.layers import graph

    lattice, features = honeycomb(4), Features("honeycomb", "3xA1+2xE+2xA2")
    for kept in ([0, 1, 2, 3], [1, 2], [3]):
        network = Blocks(features, Features("honeycomb", "2x"), 2, 2, 4, kept)
        values = torch.randn(4, 3, lattice.n_sites, features.channels)
        expected = network(values, lattice).detach()
        assert len(expected) == len(kept)
        for tile in (7, 1000):
            monkeypatch.setattr(graph, "TILE", tile)
            with torch.no_grad():
                torch.testing.assert_close(network(values, lattice), expected)


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
