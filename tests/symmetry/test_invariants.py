"""Descriptors: feature counts, invariance, completeness, derivatives."""

import pytest
import torch

from latticezoo.symmetry.elements import SymmetryGroup
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.fields import Field, transform
from latticezoo.symmetry.invariants import (
    LEVELS,
    Descriptor,
    generalised_power_spectrum,
    power_spectrum,
    projection,
)
from latticezoo.symmetry.lattices import (
    Lattice,
    chain,
    diamond,
    honeycomb,
    square,
    triangular,
)
from latticezoo.symmetry.point_groups import point_group
from latticezoo.symmetry.tasks import Task
from latticezoo.symmetry.testing import assert_equivariant

JAHN_TELLER = "2xA1+B1"


def shells_of(family, cutoff):
    return Lattice(family, (1,) * Lattice.dimension(family)).shells(cutoff=cutoff)


def random_field(descriptor, lattice, batch=1, seed=3):
    generator = torch.Generator().manual_seed(seed)
    shape = batch, lattice.n_sites, descriptor.in_channels
    return torch.randn(shape, dtype=torch.float64, generator=generator)


# ---- features ------------------------------------------------------------------------------------


@pytest.mark.parametrize("smooth", [0.1, None])
def test_feature_counts(smooth):
    counts = [Descriptor("square", "A1", 8, level, smooth=smooth).n_features for level in LEVELS]
    assert counts == [45, 48, 59]
    shells = shells_of("square", 7.0)
    counts = [Descriptor("square", JAHN_TELLER, shells, level).n_features for level in LEVELS]
    assert counts == [447, 450, 561]
    for level in LEVELS:
        descriptor = Descriptor("diamond", "A1+E", 2, level, smooth=smooth)
        lattice = diamond(2)
        features = descriptor.double()(random_field(descriptor, lattice), lattice)
        assert features.shape[-1] == descriptor.n_features == len(set(descriptor.feature_names))


INVARIANCE = [
    (chain(9), "A1", 4),
    (chain(7), "vector", 2),
    (square(7), "A1", 8),
    (square(5, 6), "A1", 4),
    (square(5), "vector", 3),
    (square(5), JAHN_TELLER, 4),
    (square(5), "E+pseudovector", 2),
    (triangular(5), "A1", 3),
    (triangular(4), "vector", 1),
    (triangular(4, 5), "B1+E2", 1),
    (honeycomb(4), "A1", 4),
    (honeycomb(4), "vector", 3),
    (honeycomb(3, 4), "A2+E", 2),
    (diamond(2), "A1", 2),
    (diamond(1), "vector", 1),
    (diamond(1), "A1+T1+pseudovector", 1),
]


FORMS = [(*case, 0.1) for case in INVARIANCE]
FORMS += [(*case, None) for case in INVARIANCE if case[0].n_sites < 40]


@pytest.mark.parametrize(
    ("lattice", "field", "shells", "smooth"), FORMS, ids=[f"{f[0]}-{f[1]}-{f[3]}" for f in FORMS]
)
def test_features_are_invariant(lattice, field, shells, smooth):
    """Every feature, at the fullest level, is a scalar field under every element."""
    descriptor = Descriptor(lattice.family, field, shells, "full", smooth=smooth).double()
    targets = tuple(Field(f"f{n}") for n in range(descriptor.n_features))
    task = Task("descriptor", (Field("Q", point=field),), targets, lattice.family)

    def model(fields, where):
        features = descriptor(fields["Q"], where)
        return {f"f{n}": features[..., n : n + 1] for n in range(descriptor.n_features)}

    values = {"Q": random_field(descriptor, lattice, batch=1)}
    assert_equivariant(model, task, lattice, fields=values, tolerance=1e-12)


def test_features_of_a_chiral_problem():
    """With C4 alone the features are blind to rotations, and tell mirror images apart."""
    lattice = square(5)
    descriptor = Descriptor("square", "A", 4, "full", group="C4").double()
    values = random_field(descriptor, lattice)
    before, changed = descriptor(values, lattice), 0
    rotations = {lattice.site_group.index(m) for m in point_group("C4").matrices}
    for element in SymmetryGroup(lattice).finite():
        moved = descriptor(transform(Field("Q"), values, element), lattice)
        expected = torch.empty_like(before)
        expected[:, element.permutation] = before
        error = float((moved - expected).abs().max())
        if element.point in rotations:
            assert error < 1e-12
        else:
            changed += error > 1e-3
    assert changed == 4 * lattice.n_sites


def test_coefficients_turn_by_the_irreps():
    lattice = honeycomb(4)
    descriptor = Descriptor("honeycomb", "A1+vector", 2).double()
    values = random_field(descriptor, lattice)
    before = descriptor.coefficients(values, lattice)
    for element in list(SymmetryGroup(lattice).finite())[:: lattice.n_translations]:
        moved = transform(Field("Q", point="A1+vector"), values, element)
        after = descriptor.coefficients(moved, lattice)
        for name, copies in before.items():
            for copy in range(copies.shape[2]):
                field = Field("f", point=name)
                expected = transform(field, copies[:, :, copy], element)
                assert torch.allclose(after[name][:, :, copy], expected, atol=1e-12)


def jacobian_rank(descriptor, lattice, values=None):
    values = random_field(descriptor, lattice) if values is None else values
    features = torch.autograd.functional.jacobian(lambda v: descriptor(v, lattice)[0, 0], values)
    singular = torch.linalg.svdvals(features.reshape(descriptor.n_features, -1))
    return int((singular > 1e-9 * singular[0]).sum())


@pytest.mark.parametrize("smooth", [0.1, None])
def test_rank_of_the_jacobian_for_holstein(smooth):
    """44 of 45 on the paper's level (one spurious rotation), 45 with the bispectrum."""
    ranks = [
        jacobian_rank(Descriptor("square", "A1", 8, level, smooth=smooth).double(), square(9))
        for level in LEVELS
    ]
    assert ranks == [44, 45, 45]


@pytest.mark.parametrize(
    ("lattice", "field", "shells", "ranks"),
    [
        (square(5), JAHN_TELLER, 3, [38, 39, 39]),
        (triangular(7), "A1", 4, [29, 31, 31]),
        (honeycomb(5), "vector", 3, [25, 26, 26]),
        (chain(7), "A1", 3, [7, 7, 7]),
        (diamond(2), "A1", 1, [3, 4, 5]),
        (diamond(2), "A1", 2, [11, 16, 17]),
    ],
    ids=str,
)
def test_rank_of_the_jacobian_elsewhere(lattice, field, shells, ranks):
    """ "full" is complete in the small for irreps of every dimension."""
    found = [
        jacobian_rank(Descriptor(lattice.family, field, shells, level).double(), lattice)
        for level in LEVELS
    ]
    assert found == ranks
    assert found[-1] == len(projection(lattice, shells, field).matrix)


@pytest.mark.parametrize("smooth", [0.1, None])
def test_full_level_sees_the_mirrored_copies(smooth):
    """All E copies mirrored at their reference: another field, told apart by "full" alone."""
    lattice = square(7)
    descriptors = [Descriptor("square", "A1", 8, lv, smooth=smooth).double() for lv in LEVELS]
    values = random_field(descriptors[0], lattice)
    basis = torch.from_numpy(descriptors[0].projection.matrix)
    around = lattice.neighbourhood(descriptors[0].shells)[0]
    coefficients = basis @ values[0, around, 0]
    e = coefficients[-22:].reshape(11, 2)
    axis = e.mean(0) / e.mean(0).norm()
    coefficients[-22:] = (2 * torch.outer(e @ axis, axis) - e).reshape(-1)
    mirrored = values.clone()
    mirrored[0, around, 0] = basis.T @ coefficients
    changes = [float((d(mirrored, lattice) - d(values, lattice))[0, 0].norm()) for d in descriptors]
    assert changes[0] < 1e-12
    assert changes[1] < 1e-12
    assert changes[2] > 0.1


def test_smooth_form_approaches_the_raw_form():
    lattice = square(7)
    raw = Descriptor("square", "A1", 8, "paper", smooth=None).double()
    smooth = Descriptor("square", "A1", 8, "paper", smooth=1e-6).double()
    values = random_field(raw, lattice)
    a, b = raw(values, lattice), smooth(values, lattice)
    ones = 9 + 3 + 6 + 5
    assert torch.allclose(a[..., :ones], b[..., :ones], atol=1e-5)
    power, cosine = a[..., ones : ones + 11], a[..., ones + 11 :]
    assert torch.allclose(power.sqrt(), b[..., ones : ones + 11], atol=1e-5)
    assert torch.allclose(power.sqrt() * cosine, b[..., ones + 11 :], atol=1e-5)
    assert float(cosine.abs().max()) <= 1 + 1e-12


def test_reference_weights():
    """f_ref = Σ w f / Σ w with w = exp(−R / R₀)."""
    lattice = square(7)
    descriptor = Descriptor("square", "A1", 8, "paper", reference_range=1.5).double()
    values = random_field(descriptor, lattice)
    f = descriptor.coefficients(values, lattice)["B1"][..., 0]
    radii = torch.from_numpy(descriptor.projection.irrep("B1").radii)
    weights = torch.exp(-radii / 1.5)
    reference = (f * weights).sum(-1, keepdim=True) / weights.sum()
    expected = f * reference / torch.sqrt(reference**2 + 0.01)
    features = descriptor(values, lattice)
    names = [n for n, name in enumerate(descriptor.feature_names) if name.startswith("B1")]
    assert torch.allclose(features[..., names], expected, atol=1e-12)


def test_power_spectra():
    lattice = square(7)
    descriptor = Descriptor("square", "A1", 8).double()
    values = random_field(descriptor, lattice)
    copies = descriptor.coefficients(values, lattice)
    total = sum(power_spectrum(f).sum(-1) for f in copies.values())
    around = lattice.neighbourhood(descriptor.shells)
    assert torch.allclose(total, values[:, around, 0].square().sum(-1))
    pairs = generalised_power_spectrum(copies["E"])
    assert pairs.shape[-1] == 11 * 12 // 2
    assert torch.allclose(pairs[..., :11], (copies["E"][:, :, :1] * copies["E"]).sum(-1))


DERIVATIVES = [
    (square(5), JAHN_TELLER, 2, "ref-bispectrum"),
    (triangular(3), "A1", 1, "full"),
    (honeycomb(3), "vector", 1, "full"),
    (diamond(1), "A1", 1, "full"),
]


@pytest.mark.parametrize(
    ("lattice", "field", "shells", "level"),
    DERIVATIVES,
    ids=[f"{d[0]}-{d[1]}" for d in DERIVATIVES],
)
def test_derivatives(lattice, field, shells, level):
    """First and second derivatives equal finite differences, and so does a force."""
    descriptor = Descriptor(lattice.family, field, shells, level).double()
    values = random_field(descriptor, lattice).requires_grad_()
    weight = torch.randn(descriptor.n_features, dtype=torch.float64)

    def energy(v):
        return torch.tanh(descriptor(v, lattice) @ weight).sum()

    assert torch.autograd.gradcheck(energy, values)
    assert torch.autograd.gradgradcheck(energy, values)
    (force,) = torch.autograd.grad(energy(values), values)
    step = torch.zeros_like(values)
    step[0, 1, 0] = 1e-5
    with torch.no_grad():
        slope = (energy(values + step) - energy(values - step)) / 2e-5
    assert float(slope) == pytest.approx(float(force[0, 1, 0]), rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("smooth", [0.1, None])
def test_zero_field_has_finite_features_and_gradients(smooth):
    """In perfect order the coefficients other than A1 vanish; nothing may become NaN there."""
    lattice = square(8)
    descriptor = Descriptor("square", "A1", 8, "full", smooth=smooth).double()
    for values in (torch.zeros(64).double(), lattice.stagger):
        values = values.reshape(1, 64, 1).clone().requires_grad_()
        features = descriptor(values, lattice)
        (gradient,) = torch.autograd.grad(features.sum(), values)
        assert features.isfinite().all()
        assert gradient.isfinite().all()


def test_features_do_not_depend_on_the_size_of_the_torus():
    descriptor = Descriptor("triangular", "A1", 3).double()
    values = random_field(descriptor, triangular(5, 6))
    large = values.reshape(1, 5, 6, 1).repeat(1, 2, 2, 1).reshape(1, 120, 1)
    found = descriptor(large, triangular(10, 12)).reshape(1, 10, 12, -1)[:, :5, :6]
    assert torch.allclose(found.flatten(1, 2), descriptor(values, triangular(5, 6)), atol=1e-13)
    assert not descriptor.state_dict()


def test_bad_input_is_one_sentence():
    descriptor = Descriptor("square", "A1", 8)
    with pytest.raises(InputError, match=r"lattice square\(6, 6\) is too small for a descriptor"):
        descriptor(torch.zeros(1, 36, 1), square(6))
    with pytest.raises(InputError, match="serves the square lattice"):
        descriptor(torch.zeros(1, 81, 1), triangular(9))
    with pytest.raises(InputError, match=r"needs values of shape"):
        descriptor(torch.zeros(1, 81, 2), square(9))
    with pytest.raises(InputError, match="did you mean ref-bispectrum"):
        Descriptor("square", "A1", 8, "bispectrum")
    with pytest.raises(InputError, match="smooth must be a positive number"):
        Descriptor("square", "A1", 8, smooth=0.0)
    with pytest.raises(InputError, match="reference_range must be"):
        Descriptor("square", "A1", 8, reference_range=-1.0)
