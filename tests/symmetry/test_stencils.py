"""Equivariant stencils: dimension, equivariance, equality of the two paths, any lattice size."""

import copy
import itertools
import pickle

import numpy as np
import pytest
import torch

from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.fields import Field
from latticezoo.symmetry.lattices import chain, diamond, honeycomb, square, triangular
from latticezoo.symmetry.neighbourhoods import (
    family_lattice,
    gather,
    neighbour_tables,
    offset_permutations,
    resolve_shells,
)
from latticezoo.symmetry.stencils import EquivariantLinear, stencil_basis
from latticezoo.symmetry.tasks import Task
from latticezoo.symmetry.testing import assert_equivariant, equivariance_error

SHELLS = {"chain": 3, "square": 4, "triangular": 4, "honeycomb": 3, "diamond": 3}

#: Lattice, input, output, shells. Non-square tori keep only some of the point operations.
LAYERS = [
    (chain(8), "2xA1+A2+vector", "A1+2xA2+vector", 3),
    (square(5), "2xA1+A2+B1+2xB2+2xE", "A1+2xA2+B1+B2+3xE", 3),
    (square(4, 6), "A1+B1+E", "A1+A2+B2+2xE", 2),
    (square(5, 7), "2xA1+B1", "vector+pseudovector+A1", 4),
    (square(5), "vector+pseudovector", "A1+E+vector", 3),
    (triangular(5), "A1+A2+B1+B2+E1+E2", "A1+A2+B1+B2+E1+E2", 2),
    (triangular(3, 4), "A1+vector", "A2+E2+pseudovector", 1),
    (honeycomb(4), "A1+A2+E", "A1+A2+2xE", 3),
    (honeycomb(3, 5), "E+vector", "A2+E+vector+pseudovector", 2),
    (diamond(1), "A1+A2+E+T1+T2", "A1+A2+E+T1+T2", 1),
    (diamond(2, 1, 1), "T2+vector", "A1+E+T1+vector+pseudovector", 1),
    (diamond(2), "A1+vector", "T2+vector", 2),
]
layers = pytest.mark.parametrize(
    ("lattice", "into", "out", "shells"),
    LAYERS,
    ids=[f"{lat}-{i}-to-{o}" for lat, i, o, _ in LAYERS],
)


def make(lattice, into, out, shells, seed=0):
    torch.manual_seed(seed)
    layer = EquivariantLinear(lattice.family, into, out, shells).double()
    if layer.bias is not None:
        torch.nn.init.normal_(layer.bias)
    return layer


def values_for(layer, lattice, batch=2):
    generator = torch.Generator().manual_seed(1)
    shape = batch, lattice.n_sites, layer.in_channels
    return torch.randn(shape, dtype=torch.float64, generator=generator)


def character_count(group, shells, into, out):
    """(1/|G|) Σ_g χ_out(g) χ_in(g) χ_perm(g), χ_perm counting the offsets that g leaves alone."""
    images = offset_permutations(group, shells)
    fixed = (images == np.arange(images.shape[1])).sum(1)
    chi_in, chi_out = (
        np.trace(group.representation(spec).matrices, axis1=1, axis2=2) for spec in (into, out)
    )
    return round(float((chi_out * chi_in * fixed).mean()))


@pytest.mark.parametrize("family", SHELLS)
def test_dimension_is_the_character_formula(family):
    """The characters count the equivariant maps, for all pairs of irreps."""
    lattice = family_lattice(family)
    shells = resolve_shells(lattice, SHELLS[family])
    for into, out in itertools.product([*lattice.site_group.irreps, "vector"], repeat=2):
        basis = stencil_basis(family, shells, into, out)
        assert len(basis) == character_count(lattice.site_group, shells, into, out)


@pytest.mark.parametrize("family", SHELLS)
def test_basis_is_orthonormal_and_obeys_its_law(family):
    """W_{gk} = ρ_out(g) W_k ρ_in(g)⁻¹ for every operation and offset."""
    lattice = family_lattice(family)
    group, shells = lattice.site_group, resolve_shells(lattice, SHELLS[family])
    images = offset_permutations(group, shells)
    for into, out in itertools.product([*group.irreps, "pseudovector"], repeat=2):
        basis = stencil_basis(family, shells, into, out)
        overlaps = np.einsum("mkab,nkab->mn", basis, basis)
        assert np.allclose(overlaps, np.eye(len(basis)), atol=1e-12)
        rho_in = group.representation(into).matrices
        rho_out = group.representation(out).matrices
        for g in range(group.order):
            turned = rho_out[g] @ basis @ rho_in[g].T
            assert np.allclose(basis[:, images[g]], turned, atol=1e-12)


def test_known_stencils():
    """One gradient, one Laplacian besides the identity, and no curl of a scalar."""
    gradient = stencil_basis("square", 1, "A1", "vector")
    expected = np.array([[0, 0], [1, 0], [0, 1], [-1, 0], [0, -1]]) / 2
    assert gradient.shape == (1, 5, 2, 1)
    assert np.allclose(gradient[0, :, :, 0], expected)
    scalar = stencil_basis("square", 1, "A1", "A1")[:, :, 0, 0]
    assert np.allclose(scalar, [[1, 0, 0, 0, 0], [0, 0.5, 0.5, 0.5, 0.5]])
    assert len(stencil_basis("square", 3, "A1", "A2")) == 0
    assert len(stencil_basis("square", 4, "A1", "A2")) == 1
    assert len(stencil_basis("square", 0, "vector", "E")) == 1


@layers
def test_layer_is_equivariant_under_the_whole_group(lattice, into, out, shells):
    """Every translation and point operation that the torus allows."""
    layer = make(lattice, into, out, shells)
    task = Task("map", (Field("x", point=into),), (Field("y", point=out),), lattice.family)
    report = assert_equivariant(
        lambda fields, where: {"y": layer(fields["x"], where)}, task, lattice, tolerance=1e-12
    )
    assert report.exhaustive
    assert report.elements == lattice.n_translations * len(lattice.operations)


@pytest.mark.parametrize(("lattice", "into", "out", "shells"), [LAYERS[1], LAYERS[5]], ids=str)
def test_layer_is_equivariant_in_single_precision(lattice, into, out, shells):
    layer = make(lattice, into, out, shells).float()
    task = Task("map", (Field("x", point=into),), (Field("y", point=out),), lattice.family)
    assert_equivariant(
        lambda fields, where: {"y": layer(fields["x"], where)}, task, lattice, dtype=torch.float32
    )


def test_the_check_sees_a_layer_that_is_not_equivariant():
    """Cartesian components of the second sublattice, used without their frame."""
    lattice = honeycomb(3)
    layer = make(lattice, "A1", "E", 1)
    task = Task("map", (Field("x"),), (Field("y", point="vector"),), "honeycomb")
    report = equivariance_error(lambda f, where: {"y": layer(f["x"], where)}, task, lattice)
    assert report.error > 0.1


@pytest.mark.parametrize(
    ("lattice", "shells"),
    [(chain(9), 4), (square(5), 1), (square(5), 2), (square(7, 8), 8), (triangular(5, 6), 3)],
    ids=str,
)
def test_dense_path_equals_gather_path(lattice, shells):
    layer = make(lattice, "3xA1+A2+vector", "2xA1+A2+2xvector", shells)
    values = values_for(layer, lattice, batch=3).requires_grad_()
    results = {}
    for path in ("dense", "gather"):
        layer.path = path
        found = layer(values, lattice)
        gradients = torch.autograd.grad(found.sin().sum(), [values, *layer.parameters()])
        with torch.no_grad():
            assert torch.allclose(layer(values, lattice), found, atol=1e-12, rtol=0)
        results[path] = [found.detach(), *gradients]
    for dense, generic in zip(*results.values(), strict=True):
        assert torch.allclose(dense, generic, atol=1e-12 * float(generic.abs().max() + 1), rtol=0)


def test_gather_in_chunks_equals_gather_at_once():
    lattice = honeycomb(48)
    layer = make(lattice, "32xA1", "3xA1+E", 3)
    values = values_for(layer, lattice)
    whole = layer(values, lattice).detach()
    with torch.no_grad():
        assert torch.allclose(layer(values, lattice), whole, atol=1e-12, rtol=0)


def test_path_is_chosen_by_size():
    wide = {shells: EquivariantLinear("square", "64xA1", "8xA1", shells) for shells in (1, 2, 3, 8)}
    chosen = {shells: layer._is_dense(square(12)) for shells, layer in wide.items()}
    assert chosen == {1: False, 2: True, 3: False, 8: True}
    assert not EquivariantLinear("square", "A1", "8xA1", 8)._is_dense(square(12))
    assert not EquivariantLinear("honeycomb", "64xA1", "8xA1", 3)._is_dense(honeycomb(12))
    layer = EquivariantLinear("honeycomb", "A1", "A1", 1)
    layer.path = "dense"
    with pytest.raises(InputError, match="path 'gather'"):
        layer(torch.zeros(1, 32, 1), honeycomb(4))


@layers
def test_same_weights_on_another_lattice(lattice, into, out, shells):
    """A pattern repeated on a torus of twice the size gives the repeated result."""
    layer = make(lattice, into, out, shells)
    values = values_for(layer, lattice)
    double = type(lattice)(lattice.family, tuple(2 * size for size in lattice.shape))

    def repeat(field):
        torus = field.unflatten(1, (*lattice.shape, lattice.sublattices))
        return torus.repeat(1, *(2,) * lattice.dim, 1, 1).flatten(1, -2)

    assert torch.allclose(
        layer(repeat(values), double), repeat(layer(values, lattice)), atol=1e-12, rtol=0
    )
    assert set(layer.state_dict()) == {name for name, _ in layer.named_parameters()}


def test_batch_equals_batches_of_one():
    lattice = triangular(6)
    layer = make(lattice, "16xA1+2xE1", "4xE2+A1", 2)
    values = values_for(layer, lattice, batch=4)
    single = torch.cat([layer(one[None], lattice) for one in values])
    assert torch.allclose(layer(values, lattice), single, atol=1e-12, rtol=0)


def test_initial_outputs_have_unit_variance():
    torch.manual_seed(0)
    lattice = square(12)
    layer = EquivariantLinear("square", "16xA1+8xB1+8xE", "64xA1+64xA2+64xE", 4)
    with torch.no_grad():
        found = layer(torch.randn(8, lattice.n_sites, layer.in_channels), lattice)
    for block in found.split([64, 64, 128], dim=-1):
        assert 0.8 < float(block.var()) < 1.25


def test_bias_lives_on_the_trivial_irrep_only():
    layer = EquivariantLinear("square", "A1", "2xA1+B1+E", 2)
    torch.nn.init.ones_(layer.bias)
    zero = layer(torch.zeros(1, 25, 1), square(5))
    assert layer.bias.shape == (2,)
    assert torch.equal(zero[0, 0], torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0]))
    assert EquivariantLinear("square", "A1", "E", 1).bias is None
    assert EquivariantLinear("square", "A1", "A1", 1, bias=False).bias is None


def test_kept_filter_follows_the_weights():
    """In evaluation mode the expanded filter is kept, and renewed when the weights change."""
    lattice = square(6)
    layer = make(lattice, "16xA1", "A1+E", 2).eval()
    values = values_for(layer, lattice)
    with torch.no_grad():
        before = layer(values, lattice)
        assert torch.equal(layer(values, lattice), before)
        for weight in layer.weights.values():
            weight.mul_(2)
        layer.bias.mul_(2)
        assert torch.allclose(layer(values, lattice), 2 * before)
        other = make(lattice, "16xA1", "A1+E", 2, seed=5)
        layer.load_state_dict(other.state_dict())
        assert torch.allclose(layer(values, lattice), other(values, lattice))
        assert layer.float()(values.float(), lattice).dtype == torch.float32
    twin = pickle.loads(pickle.dumps(copy.deepcopy(layer)))
    assert torch.equal(twin(values.float(), lattice), layer(values.float(), lattice))
    with torch.inference_mode():
        layer(values.float(), lattice)
    inputs = values.float().requires_grad_()
    layer.requires_grad_(False)
    (gradient,) = torch.autograd.grad(layer(inputs, lattice).sum(), inputs)
    assert gradient.abs().max() > 0


def test_built_in_float32_then_double_is_exact():
    """The coefficients √3/2 of the triangular lattice come back from the float64 original."""
    torch.manual_seed(0)
    lattice = triangular(4)
    layer = EquivariantLinear("triangular", "E1", "E2", 1).float().double()
    task = Task("m", (Field("x", point="E1"),), (Field("y", point="E2"),), "triangular")
    assert_equivariant(lambda f, where: {"y": layer(f["x"], where)}, task, lattice, tolerance=1e-13)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
@pytest.mark.parametrize("lattice", [square(3), honeycomb(3), diamond(1)], ids=str)
def test_gather_and_its_derivatives(lattice):
    shells = lattice.shells(count=1)
    tables = neighbour_tables(lattice, shells, torch.device("cpu"))
    values = torch.randn(2, lattice.n_sites, 2, dtype=torch.float64, requires_grad=True)
    found = gather(values, tables)
    plain = values[:, lattice.neighbourhood(shells)].flatten(2)
    assert torch.equal(found, plain)
    weight = torch.randn_like(plain)
    ours, stock = (torch.autograd.grad((x * weight).sum(), values)[0] for x in (found, plain))
    assert torch.allclose(ours, stock, atol=1e-13)
    few = values.detach()[:1, :, :1].requires_grad_()
    assert torch.autograd.gradcheck(lambda v: gather(v, tables).sin(), few, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(
        lambda v: gather(v, tables).sin(), few, check_fwd_over_rev=True
    )
    slope = torch.func.grad(lambda v: gather(v[None], tables).sin().sum())
    one_by_one = torch.stack([slope(one) for one in values])
    assert torch.allclose(torch.func.vmap(slope)(values), one_by_one)


def test_bad_input_is_one_sentence():
    layer = EquivariantLinear("square", "A1", "A1", 3)
    with pytest.raises(InputError, match=r"square\(4, 4\) is too small"):
        layer(torch.zeros(1, 16, 1), square(4))
    with pytest.raises(InputError, match="serves the square lattice"):
        layer(torch.zeros(1, 25, 1), triangular(5))
    with pytest.raises(InputError, match=r"values of shape \[batch, 25, 1\]"):
        layer(torch.zeros(1, 25, 2), square(5))
    with pytest.raises(InputError, match="no equivariant linear map leads from 'A1' to 'A2'"):
        EquivariantLinear("square", "A1", "A2", 1)
    with pytest.raises(InputError, match="did you mean"):
        EquivariantLinear("squaer", "A1", "A1", 1)
    with pytest.raises(InputError, match="square"):
        stencil_basis("square", triangular(3).shells(count=1), "A1", "A1")
    with pytest.raises(InputError, match="empty"):
        stencil_basis("square", [], "A1", "A1")
    with pytest.raises(InputError, match="twice"):
        stencil_basis("square", [*square(3).shells(count=1)] * 2, "A1", "A1")
