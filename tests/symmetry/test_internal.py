"""Compact groups: laws of composition, representations, Haar measure, Wigner matrices."""

import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.internal import SO3, SU2, U1, Z2, CompactGroup, internal_group, kind_dim
from latticezoo.symmetry.rotations import wigner_matrix

GROUPS: list[CompactGroup] = [SO3(), U1(), Z2(), SU2()]
TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-12}
#: Every kind of values of every group, with the leading axes left free.
KINDS = [
    (SO3(), "1x1e"),
    (SO3(), "1x1o"),
    (SO3(), "2x0e+1x2e"),
    (SO3(), "1x3o + 2x1o + 0e"),
    (U1(), 0),
    (U1(), 1),
    (U1(), -1),
    (U1(), 3),
    (U1(), -2),
    (U1(), "link"),
    (U1(), "loop"),
    (Z2(), 0),
    (Z2(), 1),
    (Z2(), "loop"),
    (SU2(), "fundamental"),
    (SU2(), "adjoint"),
    (SU2(), "link"),
    (SU2(), "loop"),
]
every_group = pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
every_kind = pytest.mark.parametrize(("group", "kind"), KINDS, ids=str)
both_precisions = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def values_of(group: CompactGroup, kind, leading, generator, dtype) -> Tensor:
    """Normal numbers with the components of a kind; complex unless the kind is a real one."""
    shape = [4 if size is None else size for size in group.component_shape(kind)]
    is_real = group.name in ("SO3", "Z2") or kind == "adjoint"
    kind_type = dtype if is_real else dtype.to_complex()
    return torch.randn([*leading, *shape], generator=generator, dtype=kind_type)


def assert_close(found: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    assert found.dtype == expected.dtype
    torch.testing.assert_close(found, expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


# ---- the group ---------------------------------------------------------------------------------


@every_group
@both_precisions
@given(shape=st.lists(st.integers(1, 3), max_size=3), seed=st.integers(0, 2**32))
@settings(max_examples=15, deadline=None)
def test_group_axioms(group, dtype, shape, seed):
    generator = seeded(seed)
    a, b, c = (group.random(*shape, generator=generator, dtype=dtype) for _ in range(3))
    unit = group.identity(*shape, dtype=dtype)
    assert a.shape == unit.shape == (*shape, *group.element_shape)
    assert a.dtype == unit.dtype == (dtype.to_complex() if group.is_complex else dtype)
    for product in (a, unit, group.compose(a, b), group.inverse(a)):
        assert group.violation(product) < TOLERANCE[dtype]
        group.require(product)
    left = group.compose(group.compose(a, b), c)
    assert_close(left, group.compose(a, group.compose(b, c)), dtype)
    assert_close(group.compose(a, unit), a, dtype)
    assert_close(group.compose(unit, a), a, dtype)
    assert_close(group.compose(a, group.inverse(a)), unit, dtype)
    assert_close(group.compose(group.inverse(a), a), unit, dtype)
    inverse_of_product = group.inverse(group.compose(a, b))
    assert_close(inverse_of_product, group.compose(group.inverse(b), group.inverse(a)), dtype)


@every_group
def test_distance_is_invariant(group):
    """|ca − cb| = |ac − bc| = |a − b|: the measure of distance knows no preferred element."""
    a, b, c = group.random(3, 20, generator=seeded(0), dtype=torch.float64)
    distance = group.distance(a, b)
    assert distance.shape == (20,)
    assert not distance.is_complex()
    from_left = group.distance(group.compose(c, a), group.compose(c, b))
    from_right = group.distance(group.compose(a, c), group.compose(b, c))
    assert_close(from_left, distance, torch.float64)
    assert_close(from_right, distance, torch.float64)
    assert group.distance(a, a).max() == 0


@every_group
def test_seed_means_the_same_elements_in_both_precisions(group):
    double = group.random(3, 2, generator=seeded(7), dtype=torch.float64)
    single = group.random(3, 2, generator=seeded(7), dtype=torch.float32)
    assert torch.equal(double.to(single.dtype), single)
    again = group.random(3, 2, generator=seeded(7), dtype=torch.float64)
    assert torch.equal(double, again)
    assert not torch.equal(double, group.random(3, 2, generator=seeded(9), dtype=torch.float64))
    assert torch.equal(single, group.random(3, 2, generator=seeded(7), dtype=torch.complex64))
    assert group.random().shape == group.element_shape


@every_group
def test_names(group):
    assert internal_group(group.name) == group
    assert internal_group(group) is group
    assert len({*GROUPS, internal_group(group.name)}) == 4


# ---- representations ---------------------------------------------------------------------------


@every_kind
@both_precisions
@given(
    leading=st.lists(st.integers(1, 3), max_size=2),
    local=st.booleans(),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=12, deadline=None)
def test_action_is_a_representation(group, kind, dtype, leading, local, seed):
    """act(ab) = act(a) act(b), act(1) = 1, act(a⁻¹) undoes act(a); linear; for a global element
    and for one element per value."""
    generator = seeded(seed)
    values = values_of(group, kind, leading, generator, dtype)
    shape = leading if local else []
    a, b = (group.random(*shape, generator=generator, dtype=dtype) for _ in range(2))
    moved = group.act(a, values, kind)
    assert moved.shape == values.shape
    together = group.act(group.compose(a, b), values, kind)
    assert_close(together, group.act(a, group.act(b, values, kind), kind), dtype)
    assert_close(group.act(group.identity(*shape, dtype=dtype), values, kind), values, dtype)
    assert_close(group.act(group.inverse(a), moved, kind), values, dtype)
    assert_close(group.act(a, 2 * values, kind), 2 * moved, dtype)


@every_kind
def test_action_preserves_norms(group, kind):
    """All representations are unitary."""
    generator = seeded(3)
    values = values_of(group, kind, [50], generator, torch.float64)
    moved = group.act(group.random(50, generator=generator, dtype=torch.float64), values, kind)
    axes = tuple(range(1, values.dim()))
    before, after = (v.abs().square().sum(axes) for v in (values, moved))
    assert_close(after, before, torch.float64)


@every_kind
def test_action_batched_over_elements(group, kind):
    """Elements with more leading axes than the values spread the values over them."""
    generator = seeded(4)
    values = values_of(group, kind, [6], generator, torch.float64)
    elements = group.random(5, 1, generator=generator, dtype=torch.float64)
    moved = group.act(elements, values, kind)
    assert moved.shape == (5, *values.shape)
    for element, one in zip(elements[:, 0], moved, strict=True):
        assert_close(one, group.act(element, values, kind), torch.float64)


def test_invariant_values_stay():
    values = torch.randn(3, 4)
    for group in GROUPS:
        assert group.act(group.random(dtype=torch.float32), values, None) is values


def test_u1_charges_are_powers():
    g = U1().random(5, generator=seeded(0), dtype=torch.float64)
    values = torch.randn(5, 3, generator=seeded(1), dtype=torch.complex128)
    expected = {1: g, 2: g * g, -1: g.conj(), -3: (g * g * g).conj()}
    for charge, factor in expected.items():
        assert_close(U1().act(g, values, charge), factor[:, None] * values, torch.float64)


def test_su2_adjoint_is_conjugation_of_the_algebra():
    """E = E^a σ^a/2 goes to U E U†, the same as R(U) on the components E^a."""
    pauli = torch.tensor(
        [[[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]], dtype=torch.complex128
    )
    g = SU2().random(20, generator=seeded(0), dtype=torch.float64)
    field = torch.randn(20, 3, generator=seeded(1), dtype=torch.float64)
    matrix = torch.einsum("na,aij->nij", field.to(torch.complex128), pauli / 2)
    assert_close(SU2.matrix(field), matrix, torch.float64)
    assert_close(SU2.components(matrix), field, torch.float64)
    moved = SU2().act(g, field, "adjoint")
    assert_close(SU2.matrix(moved), g @ matrix @ g.mH, torch.float64)
    assert_close(SU2.matrix(moved), SU2().act(g, matrix, "loop"), torch.float64)
    # The map onto rotations is a homomorphism, two to one, and onto the rotations SO3 draws.
    h = SU2().random(20, generator=seeded(2), dtype=torch.float64)
    assert_close(SU2.rotation(g @ h), SU2.rotation(g) @ SU2.rotation(h), torch.float64)
    assert torch.equal(SU2.rotation(-g), SU2.rotation(g))
    assert SO3().violation(SU2.rotation(g)) < 1e-12
    rotations = SO3().random(20, generator=seeded(0), dtype=torch.float64)
    assert_close(SU2.rotation(g), rotations, torch.float64)


def test_su2_components_project():
    """Of any matrix, the components are those of its traceless Hermitian part."""
    matrix = torch.randn(20, 2, 2, generator=seeded(0), dtype=torch.complex128)
    hermitian = (matrix + matrix.mH) / 2
    trace = hermitian.diagonal(dim1=-2, dim2=-1).sum(-1)
    part = hermitian - trace[:, None, None] / 2 * torch.eye(2)
    assert_close(SU2.matrix(SU2.components(matrix)), part, torch.float64)


# ---- SO(3) and e3nn ----------------------------------------------------------------------------


@pytest.fixture
def double_default():
    """e3nn builds its generators in torch's default precision."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@both_precisions
@pytest.mark.parametrize("kind", ["1x1e", "1x1o", "1o"])
def test_spins_rotate_as_cartesian_vectors(kind, dtype):
    """S = (S_x, S_y, S_z) goes to R S; a quarter turn about z takes x̂ to ŷ."""
    rotation = SO3().random(30, generator=seeded(0), dtype=dtype)
    spins = torch.randn(30, 3, generator=seeded(1), dtype=dtype)
    expected = torch.einsum("nij,nj->ni", rotation, spins)
    assert_close(SO3().act(rotation, spins, kind), expected, dtype)
    quarter = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]], dtype=dtype)
    x, y = torch.eye(3, dtype=dtype)[:2]
    assert torch.equal(SO3().act(quarter, x, kind), y)


@pytest.mark.usefixtures("double_default")
def test_wigner_matrices_are_those_of_e3nn():
    from e3nn import o3

    rotation = SO3().random(40, generator=seeded(0))
    vectors = torch.randn(40, 3, generator=seeded(1))
    turned = torch.einsum("nij,nj->ni", rotation, vectors)
    for degree in range(5):
        matrix = wigner_matrix(degree, rotation)
        assert matrix.shape == (40, 2 * degree + 1, 2 * degree + 1)
        # e3nn goes over Euler angles, whose arccos costs half the digits where it is steep.
        reference = o3.Irrep(degree, 1).D_from_matrix(rotation)
        torch.testing.assert_close(matrix, reference, rtol=0, atol=1e-7)
        # The sharp test: its spherical harmonics, polynomials in the vector, must turn with D.
        harmonics = o3.spherical_harmonics(degree, vectors, normalize=False)
        expected = o3.spherical_harmonics(degree, turned, normalize=False)
        found = torch.einsum("nij,nj->ni", matrix, harmonics)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12 * expected.abs().max())


@pytest.mark.usefixtures("double_default")
@pytest.mark.parametrize("kind", ["1x1e", "2x0e+1x2e", "1x3o + 2x1o + 0e", "2x2e+1x1o"])
def test_irreps_strings_mean_what_e3nn_means(kind):
    """Same layout of channels as e3nn: terms in order, copies before components."""
    from e3nn import o3

    irreps = o3.Irreps(kind)
    assert kind_dim(kind) == irreps.dim
    rotation = SO3().random(10, generator=seeded(2))
    values = torch.randn(10, irreps.dim, generator=seeded(3))
    expected = torch.einsum("nij,nj->ni", irreps.D_from_matrix(rotation), values)
    torch.testing.assert_close(SO3().act(rotation, values, kind), expected, rtol=0, atol=1e-7)


@both_precisions
def test_small_rotations_keep_their_digits(dtype):
    """D² of a turn by ε differs from 1 by an angle of 2ε, in float32 for ε = 1e-4 as well."""
    epsilon = 1e-4
    c, s = math.cos(epsilon), math.sin(epsilon)
    rotation = torch.tensor([[c, -s, 0], [s, c, 0], [0, 0, 1]], dtype=dtype)
    change = wigner_matrix(2, rotation) - torch.eye(5, dtype=dtype)
    # Turns about an axis: D² has phases exp(±iε), exp(±2iε), 1, so ‖D² − 1‖² = 2(ε² + 4ε²).
    exact = math.sqrt(4 * (1 - math.cos(epsilon)) + 4 * (1 - math.cos(2 * epsilon)))
    tolerance = {torch.float32: 5e-3, torch.float64: 1e-10}[dtype]
    assert float(change.norm()) == pytest.approx(exact, rel=tolerance)


def test_wigner_matrix_is_differentiable():
    rotation = SO3().random(generator=seeded(0), dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda r: wigner_matrix(3, r), (rotation,))


def test_import_is_light():
    """e3nn takes over a second to import, so it waits until an irrep beyond l = 1 is turned."""
    code = (
        "import sys, torch; from latticezoo.symmetry.internal import SO3; g = SO3();"
        "g.act(g.random(), torch.ones(3), '1x1e'); assert 'e3nn' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- Haar measure ------------------------------------------------------------------------------

SAMPLES, BLOCKS = 65536, 64


def moments(samples: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over the first axis and its standard error from blocked means."""
    blocks = samples.unflatten(0, (BLOCKS, -1)).mean(1)
    return blocks.mean(0), blocks.std(0) / math.sqrt(BLOCKS)


def assert_moment(samples: Tensor, exact: Tensor | float, largest_error: float = 0.01) -> None:
    """The mean lies within four standard errors, themselves below ``largest_error``."""
    if samples.is_complex():
        assert_moment(samples.imag, 0.0, largest_error)
        samples = samples.real
    mean, error = moments(samples)
    assert error.max() < largest_error
    assert ((mean - exact).abs() <= 4 * error + 1e-12).all()


def delta_products(size: int) -> Tensor:
    """δ_ik δ_jl over (i, j, k, l)."""
    unit = torch.eye(size, dtype=torch.float64)
    return torch.einsum("ik,jl->ijkl", unit, unit)


def test_haar_u1_and_z2():
    """⟨g^q⟩ = 0 for every q ≠ 0; ⟨s⟩ = 0."""
    g = U1().random(SAMPLES, generator=seeded(0), dtype=torch.float64)
    for charge in (1, 2, 3, 4, 7):
        assert_moment(g**charge, 0.0)
    signs = Z2().random(SAMPLES, generator=seeded(0), dtype=torch.float64)
    assert_moment(signs, 0.0)
    assert set(signs.unique().tolist()) == {-1.0, 1.0}


def test_haar_so3():
    """⟨R⟩ = 0, ⟨R_ij R_kl⟩ = δ_ik δ_jl/3; ⟨χ₁ⁿ⟩ = 0, 1, 1, 3, the copies of the trivial irrep
    in n vectors; ⟨χ₂⟩ = 0."""
    r = SO3().random(SAMPLES, generator=seeded(1), dtype=torch.float64)
    assert_moment(r, 0.0)
    assert_moment(torch.einsum("nij,nkl->nijkl", r, r), delta_products(3) / 3)
    character = r.diagonal(dim1=-2, dim2=-1).sum(-1)
    for power, copies in ((1, 0.0), (2, 1.0), (3, 1.0), (4, 3.0)):
        assert_moment(character**power, copies, largest_error=0.05)
    assert_moment(wigner_matrix(2, r).diagonal(dim1=-2, dim2=-1).sum(-1), 0.0)


def test_haar_su2():
    """⟨U⟩ = 0, ⟨U_ij U*_kl⟩ = δ_ik δ_jl/2, ⟨|Tr U|²⟩ = 1, ⟨(Tr U)⁴⟩ = 2."""
    u = SU2().random(SAMPLES, generator=seeded(2), dtype=torch.float64)
    assert_moment(u, 0.0)
    assert_moment(torch.einsum("nij,nkl->nijkl", u, u.conj()), delta_products(2) / 2)
    trace = u.diagonal(dim1=-2, dim2=-1).sum(-1)
    assert_moment(trace.abs() ** 2, 1.0)
    assert_moment(trace.real**4, 2.0, largest_error=0.02)


@every_group
def test_haar_is_invariant(group):
    """The distance to a fixed element has the distribution of the distance to the identity."""
    g = group.random(SAMPLES, generator=seeded(3), dtype=torch.float64)
    h = group.random(generator=seeded(4), dtype=torch.float64)
    to_unit = group.distance(g, group.identity(dtype=torch.float64)) ** 2
    for moved in (group.compose(h, g), group.compose(g, h)):
        shifted = group.distance(moved, group.identity(dtype=torch.float64)) ** 2
        mean, error = moments(torch.stack([shifted - to_unit, shifted**2 - to_unit**2], dim=1))
        assert (mean.abs() <= 4 * error + 1e-12).all()


# ---- bad input ---------------------------------------------------------------------------------


def test_violation_has_the_size_of_the_fault():
    assert U1().violation(torch.tensor([1.0 + 0j, 1.5j])) == pytest.approx(0.5)
    assert Z2().violation(torch.tensor([1.0, -0.75])) == pytest.approx(0.25)
    assert Z2().violation(torch.tensor([1j])) == pytest.approx(math.sqrt(2))
    assert SO3().violation(-torch.eye(3)) == pytest.approx(2)  # orthogonal, but a reflection
    assert SO3().violation(1.1 * torch.eye(3, dtype=torch.float64)) == pytest.approx(1.1**3 - 1)
    phase = 1j * torch.eye(2, dtype=torch.complex64)  # unitary, but of determinant −1
    assert SU2().violation(phase) == pytest.approx(2)
    for group in GROUPS:
        broken = group.identity(3)
        broken[1] = math.nan
        assert group.violation(broken) == math.inf
        assert group.violation(group.identity(0)) == 0


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda: internal_group("S03"), r"unknown internal group 'S03'; did you mean SO3\?"),
        (lambda: SO3().act(SO3().random(), torch.ones(3), "fundamental"), "'fundamental'.*1x1e"),
        (lambda: SO3().act(SO3().random(), torch.ones(3), "1x"), "'1x'.*1x1e"),
        (lambda: SO3().act(SO3().random(), torch.ones(3), 1), "unknown kind of values 1"),
        (lambda: SO3().act(SO3().random(), torch.ones(4), "1x1e"), r"\[3\].*\[4\]"),
        (lambda: U1().act(U1().random(), torch.ones(4) + 0j, "1x1e"), "'1x1e' for U1.*charge"),
        (lambda: U1().act(U1().random(), torch.ones(4) + 0j, True), "True for U1"),
        (lambda: U1().act(U1().random(), torch.ones(4), 2), "must be complex, not torch.float32"),
        (lambda: U1().act(U1().random(3), torch.ones(4, 2) + 0j, 1), r"\[3\] do not fit.*\[4, 2\]"),
        (lambda: Z2().act(Z2().random(), torch.ones(4), 2), "2 for Z2.*0 or 1"),
        (lambda: SU2().act(SU2().random(), torch.ones(3), "fundamental"), r"\[2\].*\[3\]"),
        (lambda: SU2().act(SU2().random(), torch.ones(2), "fundamental"), "must be complex"),
        (lambda: SU2().act(SU2().random(), torch.ones(2), 1), "1 for SU2.*'fundamental'"),
        (
            lambda: SU2().act(SO3().random(), torch.ones(2) + 0j, "fundamental"),
            r"\[2, 2\].*\[3, 3\]",
        ),
        (lambda: SU2().act(torch.ones(()), torch.ones(2) + 0j, "fundamental"), r"\[2, 2\]"),
        (lambda: SU2().random(dtype=torch.float16), "float32 or float64, not torch.float16"),
        (lambda: kind_dim("vector"), "unknown kind of values 'vector'"),
        (lambda: U1().require(torch.tensor([2.0 + 0j]), "links"), "links are not in .* U1.*1, but"),
        (lambda: Z2().require(torch.tensor([1, 1])), "not torch.int64"),
    ],
)
def test_bad_input_is_told_in_one_sentence(action, message):
    with pytest.raises(InputError, match=message) as caught:
        action()
    assert "\n" not in str(caught.value)


def test_kind_dim():
    dims = {None: 1, 0: 1, -2: 1, "fundamental": 2, "adjoint": 3, "link": 4, "loop": 4}
    dims |= {"1x1e": 3, "2x0e+1x2e": 7, "4x3o": 28}
    assert {kind: kind_dim(kind) for kind in dims} == dims
    with pytest.raises(InputError, match="unknown kind"):
        kind_dim(True)
