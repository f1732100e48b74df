"""Lattice gauge geometry: covariance under local transformations, closed forms, topology."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.gauge import (
    check_links,
    gauge_group,
    parallel_transport,
    plaquettes,
    polyakov_loop,
    rectangle,
    staples,
    trace,
    transform_links,
    transform_sites,
    wilson_line,
    wilson_loop,
)
from latticezoo.symmetry.internal import SO3, SU2, U1, Z2, CompactGroup
from latticezoo.symmetry.lattices import Lattice, chain, honeycomb, square, triangular

GROUPS: list[CompactGroup] = [Z2(), U1(), SU2()]
TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-12}
LOOPS = [
    (),
    (1, -1),
    (2, 1, 1, -2, -1, -1),
    rectangle(2, 1),
    rectangle(2, 3),
    (1, 2, 2, -1, -2, -2),
]
every_group = pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
both_precisions = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
both_shapes = pytest.mark.parametrize("lattice", [square(4, 6), square(5, 3)], ids=str)
seeds = st.integers(0, 2**32)


@pytest.fixture(autouse=True)
def one_thread():
    """Arrays here are small: two torch threads that share busy cores take ten times longer."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_links(group, lattice, seed=0, batch=3, dtype=torch.float64) -> Tensor:
    shape = (batch, lattice.n_sites, lattice.directions)
    return group.random(*shape, generator=seeded(seed), dtype=dtype)


def random_local(group, lattice, seed=1, batch=3, dtype=torch.float64) -> Tensor:
    """A different element at every site of every configuration."""
    return group.random(batch, lattice.n_sites, generator=seeded(seed), dtype=dtype)


def assert_close(found: Tensor, expected: Tensor) -> None:
    tolerance = TOLERANCE[found.real.dtype]
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def walk(links: Tensor, lattice: Lattice, path, site: int) -> tuple[Tensor, int]:
    """The line from one site and its end, link by link from the table of link ends."""
    group, ends = gauge_group(links), lattice.link_target
    line = group.identity(links.shape[0], dtype=links.dtype)
    for step in path:
        mu = abs(step) - 1
        if step > 0:
            link, site = links[:, site, mu], int(ends[site, mu])
        else:
            site = int((ends[:, mu] == site).nonzero())
            link = group.inverse(links[:, site, mu])
        line = group.compose(line, link)
    return line, site


# ---- lines against a walk link by link ---------------------------------------------------------


@every_group
@pytest.mark.parametrize(
    "lattice", [chain(5), square(4, 6), square(5, 3), square(2, 1), triangular(3, 4)], ids=str
)
@given(data=st.data(), seed=seeds)
@settings(max_examples=10, deadline=None)
def test_line_is_the_ordered_product_of_its_links(group, lattice, data, seed):
    steps = [sign * (mu + 1) for mu in range(lattice.directions) for sign in (1, -1)]
    path = data.draw(st.lists(st.sampled_from(steps), max_size=9))
    links = random_links(group, lattice, seed, batch=2)
    lines = wilson_line(links, lattice, path)
    assert lines.shape == (2, lattice.n_sites, *group.element_shape)
    assert lines.dtype == links.dtype
    assert not lines.is_conj()
    for site in range(lattice.n_sites):
        assert_close(lines[:, site], walk(links, lattice, path, site)[0])


@every_group
@pytest.mark.parametrize("length", [1, 2, 3, 7, 8, 13])
def test_straight_lines_of_any_length(group, length):
    """Runs are joined by doubling; also when they wind round the torus."""
    lattice = square(5, 3)
    links = random_links(group, lattice)
    for direction in (1, -1, 2, -2):
        lines = wilson_line(links, lattice, (direction,) * length)
        for site in range(lattice.n_sites):
            assert_close(lines[:, site], walk(links, lattice, (direction,) * length, site)[0])


@both_shapes
@every_group
def test_plaquette_formula(group, lattice):
    """W_i = U_{i,x} U_{i+x,y} U_{i+y,x}† U_{i,y}†, x along the first index of the torus."""
    links = random_links(group, lattice)
    target = lattice.link_target
    x, y = target[:, 0], target[:, 1]
    first = group.compose(links[:, :, 0], links[:, x, 1])
    second = group.compose(group.inverse(links[:, y, 0]), group.inverse(links[:, :, 1]))
    assert_close(plaquettes(links, lattice), group.compose(first, second))
    positions = lattice.positions
    assert torch.equal(positions[x[0]] - positions[0], torch.tensor([1.0, 0.0]).double())


@every_group
def test_reversed_path_gives_the_adjoint_loop(group):
    lattice = square(4, 6)
    links = random_links(group, lattice)
    path = rectangle(2, 3)
    back = tuple(-step for step in reversed(path))
    found = wilson_loop(links, lattice, back)
    assert_close(found, group.inverse(wilson_loop(links, lattice, path)))


# ---- local transformations ---------------------------------------------------------------------


@both_shapes
@every_group
@both_precisions
@given(seed=seeds, shared=st.booleans())
@settings(max_examples=6, deadline=None)
def test_loops_are_covariant_and_their_traces_invariant(group, lattice, dtype, seed, shared):
    """Under a random element at every site, W_i → g_i W_i g_i†: plaquettes, Wilson loops,
    Polyakov loops; with one transformation for the batch and with one per configuration."""
    links = random_links(group, lattice, seed, dtype=dtype)
    g = random_local(group, lattice, seed + 1, dtype=dtype)
    g = g[0] if shared else g
    transformed = transform_links(links, g, lattice)
    assert transformed.dtype == links.dtype
    assert group.violation(transformed) < TOLERANCE[dtype]
    for loop in (
        lambda u: plaquettes(u, lattice),
        lambda u: wilson_loop(u, lattice, rectangle(3, 2)),
        lambda u: wilson_loop(u, lattice, (1, 2, 1, -2, -2, -1, 2, -1)),
        lambda u: polyakov_loop(u, lattice, 1),
        lambda u: polyakov_loop(u, lattice, 2),
    ):
        before, after = loop(links), loop(transformed)
        assert_close(after, transform_sites(before, g, lattice, "loop", group))
        assert_close(trace(after), trace(before))
        assert trace(after).shape == (3, lattice.n_sites)


@both_shapes
@every_group
@both_precisions
def test_links_and_lines_transform_at_their_two_ends(group, lattice, dtype):
    links = random_links(group, lattice, dtype=dtype)
    g = random_local(group, lattice, dtype=dtype)
    transformed = transform_links(links, g, lattice)
    for site in range(lattice.n_sites):
        for mu in range(2):
            end = lattice.link_target[site, mu]
            expected = group.transport(g[:, site], links[:, site, mu], g[:, end])
            assert_close(transformed[:, site, mu], expected)
    path = (1, 1, 2, -1)
    before, after = (wilson_line(u, lattice, path) for u in (links, transformed))
    ends = torch.tensor([walk(links, lattice, path, i)[1] for i in range(lattice.n_sites)])
    assert_close(after, group.transport(g, before, g[:, ends]))


@every_group
def test_local_transformations_form_a_group(group):
    lattice = square(5, 3)
    links = random_links(group, lattice)
    g, h = random_local(group, lattice, 1), random_local(group, lattice, 2)
    both = transform_links(links, group.compose(g, h), lattice)
    assert_close(both, transform_links(transform_links(links, h, lattice), g, lattice))
    back = transform_links(transform_links(links, g, lattice), group.inverse(g), lattice)
    assert_close(back, links)


KINDS = [
    (Z2(), 0),
    (Z2(), 1),
    (U1(), 1),
    (U1(), -2),
    (U1(), "loop"),
    (SU2(), "fundamental"),
    (SU2(), "adjoint"),
    (SU2(), "loop"),
]


@both_shapes
@both_precisions
@pytest.mark.parametrize(("group", "kind"), KINDS, ids=str)
@given(
    path=st.lists(st.sampled_from([1, -1, 2, -2]), max_size=8),
    copies=st.sampled_from([[], [2], [2, 3]]),
    seed=seeds,
)
@settings(max_examples=6, deadline=None)
def test_parallel_transport_is_equivariant(group, kind, lattice, dtype, path, copies, seed):
    """f(gU, gψ) = g f(U, ψ) with a random g at every site."""
    components = [4 if size is None else size for size in group.component_shape(kind)]
    is_real = group.name == "Z2" or kind == "adjoint"
    psi = torch.randn(
        [3, lattice.n_sites, *copies, *components],
        generator=seeded(seed),
        dtype=dtype if is_real else dtype.to_complex(),
    )
    links = random_links(group, lattice, seed + 1, dtype=dtype)
    g = random_local(group, lattice, seed + 2, dtype=dtype)
    carried = parallel_transport(psi, links, lattice, path, kind)
    assert carried.shape == psi.shape
    assert carried.dtype == psi.dtype
    found = parallel_transport(
        transform_sites(psi, g, lattice, kind, group),
        transform_links(links, g, lattice),
        lattice,
        path,
        kind,
    )
    assert_close(found, transform_sites(carried, g, lattice, kind, group))


@pytest.mark.parametrize(("group", "kind"), KINDS, ids=str)
def test_parallel_transport_moves_the_value_at_the_end(group, kind):
    """With unit links it is a shift; there and back is the identity."""
    lattice, path = square(4, 6), (1, 2, 2)
    components = [4 if size is None else size for size in group.component_shape(kind)]
    is_real = group.name == "Z2" or kind == "adjoint"
    psi = torch.randn(
        [2, lattice.n_sites, *components],
        generator=seeded(0),
        dtype=torch.float64 if is_real else torch.complex128,
    )
    unit = group.identity(2, lattice.n_sites, 2, dtype=torch.float64)
    ends = torch.tensor([walk(unit, lattice, path, i)[1] for i in range(lattice.n_sites)])
    assert_close(parallel_transport(psi, unit, lattice, path, kind), psi[:, ends])
    links = random_links(group, lattice, batch=2)
    there = parallel_transport(psi, links, lattice, path, kind)
    back = parallel_transport(there, links, lattice, [-step for step in path[::-1]], kind)
    assert_close(back, psi)


def test_hopping_energy_is_gauge_invariant():
    """Σ_l ψ_i† U_ij ψ_j of SU(2) fermions, the coupling that transport is made for."""
    lattice, group = square(4, 6), SU2()
    links, g = random_links(group, lattice), random_local(group, lattice)
    psi = torch.randn(3, lattice.n_sites, 2, generator=seeded(5), dtype=torch.complex128)

    def hopping(values: Tensor, background: Tensor) -> Tensor:
        carried = [
            parallel_transport(values, background, lattice, [mu], "fundamental") for mu in (1, 2)
        ]
        return sum((values.conj() * there).sum((1, 2)) for there in carried)

    moved = hopping(
        transform_sites(psi, g, lattice, "fundamental", group), transform_links(links, g, lattice)
    )
    assert_close(moved, hopping(psi, links))


# ---- closed forms ------------------------------------------------------------------------------


@both_shapes
@every_group
@both_precisions
def test_pure_gauge_has_unit_loops(group, lattice, dtype):
    """Links g_i g_j† carry no flux: every contractible loop is 1, every winding one too."""
    unit = group.identity(3, lattice.n_sites, 2, dtype=dtype)
    links = transform_links(unit, random_local(group, lattice, dtype=dtype), lattice)
    one = group.identity(3, lattice.n_sites, dtype=dtype)
    for path in LOOPS:
        assert_close(wilson_loop(links, lattice, path), one)
    for direction in (1, 2, -1, -2):
        assert_close(polyakov_loop(links, lattice, direction), one)


@pytest.mark.parametrize("lattice", [chain(7), square(4, 6), triangular(4, 6)], ids=str)
@every_group
def test_polyakov_loops_of_unit_and_twisted_links(group, lattice):
    """Unit links give 1; a twist h on one cut gives the conjugacy class of h round it."""
    links = group.identity(2, lattice.n_sites, lattice.directions, dtype=torch.float64)
    one = group.identity(2, lattice.n_sites, dtype=torch.float64)
    for direction in range(1, lattice.directions + 1):
        assert torch.equal(polyakov_loop(links, lattice, direction), one)
    twist = group.random(generator=seeded(3), dtype=torch.float64)
    cut = lattice.positions @ torch.linalg.inv(torch.from_numpy(lattice.vectors))
    links[:, cut[:, 0].round() == lattice.shape[0] - 1, 0] = twist
    expected = twist.expand_as(one)
    assert_close(polyakov_loop(links, lattice, 1), expected)
    assert_close(polyakov_loop(links, lattice, -1), group.inverse(expected))
    if lattice.family == "square":
        assert_close(polyakov_loop(links, lattice, 2), one)
        assert_close(plaquettes(links, lattice), one)


@every_group
def test_polyakov_traces_are_equal_along_their_line(group):
    lattice = square(5, 3)
    links = random_links(group, lattice)
    along_x = trace(polyakov_loop(links, lattice, 1)).reshape(3, 5, 3)
    along_y = trace(polyakov_loop(links, lattice, 2)).reshape(3, 5, 3)
    assert_close(along_x, along_x[:, :1].expand(3, 5, 3))
    assert_close(along_y, along_y[:, :, :1].expand(3, 5, 3))
    assert (along_x[:, 0, 0] - along_x[:, 0, 1]).abs().max() > 0.1  # lines differ


def test_polyakov_loop_along_the_third_triangular_direction():
    """(−1, 1) closes after lcm(L₁, L₂) steps."""
    lattice = triangular(4, 6)
    links = random_links(U1(), lattice)
    assert_close(polyakov_loop(links, lattice, 3), wilson_line(links, lattice, (3,) * 12))


@given(first=st.integers(1, 6), second=st.integers(1, 6), seed=seeds)
@settings(max_examples=20, deadline=None)
@pytest.mark.parametrize("group", [Z2(), U1()], ids=str)
def test_abelian_plaquettes_multiply_to_one(group, first, second, seed):
    """Every link bounds two plaquettes in opposite senses, so no flux leaves the torus."""
    lattice = square(first, second)
    loops = plaquettes(random_links(group, lattice, seed), lattice)
    assert_close(loops.prod(1), torch.ones(3, dtype=loops.dtype))


@given(
    width=st.integers(0, 4),
    height=st.integers(0, 4),
    group=st.sampled_from([Z2(), U1()]),
    seed=seeds,
)
@settings(max_examples=20, deadline=None)
def test_abelian_rectangle_is_the_product_of_its_plaquettes(width, height, group, seed):
    """Stokes."""
    lattice = square(4, 6)
    links = random_links(group, lattice, seed)
    inside = plaquettes(links, lattice).reshape(3, 4, 6)
    product = torch.ones_like(inside)
    for x in range(width):
        for y in range(height):
            product = product * torch.roll(inside, (-x, -y), (1, 2))
    assert_close(wilson_loop(links, lattice, rectangle(width, height)), product.reshape(3, 24))


@pytest.mark.parametrize("flux", [1, 3])
def test_uniform_flux_on_the_torus(flux):
    """Links of a uniform field of whole total flux: every plaquette is exp(2πi n/N), counter-
    clockwise positive, a rectangle of area A its A-th power."""
    lattice = square(4, 6)
    field = 2 * math.pi * flux / lattice.n_sites
    x, y = (part.reshape(4, 6) for part in lattice.positions.T)
    angle_y = field * x  # Landau gauge A_y = Bx, with the jump at the seam made good by A_x
    angle_x = torch.where(x == 3, -field * 4 * y, 0.0)
    angles = torch.stack([angle_x.reshape(-1), angle_y.reshape(-1)], dim=-1)
    links = torch.polar(torch.ones_like(angles), angles)[None]
    exact = torch.full((1, 24), complex(math.cos(field), math.sin(field)), dtype=torch.complex128)
    assert_close(plaquettes(links, lattice), exact)
    assert_close(wilson_loop(links, lattice, rectangle(2, 3)), exact**6)


def test_smallest_tori():
    """On 2 × 1 and 1 × 1 a plaquette meets the same link twice."""
    for group in GROUPS:
        links = random_links(group, square(2, 1))
        x, y = links[:, :, 0], links[:, :, 1]
        beside = y[:, [1, 0]]
        up = group.compose(x, group.compose(beside, group.inverse(x)))
        found = plaquettes(links, square(2, 1))
        assert_close(found, group.compose(up, group.inverse(y)))
        if group.name != "SU2":  # the link along x drops out
            assert_close(found, beside * group.inverse(y))
        assert_close(polyakov_loop(links, square(2, 1), 2), y)
        links = random_links(group, square(1))
        x, y = links[:, :, 0], links[:, :, 1]
        commutator = group.compose(
            group.compose(x, y), group.compose(group.inverse(x), group.inverse(y))
        )
        assert_close(plaquettes(links, square(1)), commutator)
        assert_close(polyakov_loop(links, square(1), 1), x)


def test_quantum_links_reverse_by_the_conjugate():
    """U = S⁺ has any modulus; W_p = S⁺₁ S⁺₂ S⁻₃ S⁻₄ uses the conjugate, not the inverse."""
    lattice = square(4, 6)
    links = torch.randn(2, 24, 2, generator=seeded(0), dtype=torch.complex128)
    x, y = lattice.link_target.T
    one, two = links[:, :, 0], links[:, x, 1]
    three, four = links[:, y, 0].conj(), links[:, :, 1].conj()
    assert_close(plaquettes(links, lattice), one * two * three * four)


# ---- staples -----------------------------------------------------------------------------------


@both_shapes
@every_group
def test_staples_close_links_into_plaquettes(group, lattice):
    """U A of the first staple is the plaquette on the positive side: W itself for a link along x,
    its adjoint for one along y; of the second, the plaquette on the other side, seen from i."""
    links = random_links(group, lattice)
    apart = staples(links, lattice, separate=True)
    assert apart.shape[:4] == (3, lattice.n_sites, 2, 2)
    assert_close(staples(links, lattice), apart.sum(3))
    loops = plaquettes(links, lattice)
    along_x = group.compose(links[:, :, 0], apart[:, :, 0, 0])
    along_y = group.compose(links[:, :, 1], apart[:, :, 1, 0])
    assert_close(along_x, loops)
    assert_close(along_y, group.inverse(loops))
    beneath = group.compose(links[:, :, 0], apart[:, :, 0, 1])
    left = group.compose(links[:, :, 1], apart[:, :, 1, 1])
    assert_close(beneath, wilson_loop(links, lattice, (1, -2, -1, 2)))
    assert_close(left, wilson_loop(links, lattice, (2, -1, -2, 1)))


@every_group
@both_precisions
def test_staples_are_covariant(group, dtype):
    """A → g_j A g_i† for the link from i to j."""
    lattice = square(5, 3)
    links = random_links(group, lattice, dtype=dtype)
    g = random_local(group, lattice, dtype=dtype)
    before = staples(links, lattice)
    after = staples(transform_links(links, g, lattice), lattice)
    start = g[:, :, None].expand_as(links)
    assert_close(after, group.transport(g[:, lattice.link_target], before, start))


@every_group
def test_staples_are_the_gradient_of_the_action(group):
    """Σ Re Tr W is linear in every single link: a change δ of one changes it by Re Tr(δ A)."""
    lattice = square(4, 6)
    links = random_links(group, lattice)
    total = trace(plaquettes(links, lattice)).real.sum(1)
    change = torch.randn(links[:, 7, 1].shape, generator=seeded(4), dtype=links.dtype)
    moved = links.clone()
    moved[:, 7, 1] += change
    found = trace(plaquettes(moved, lattice)).real.sum(1) - total
    product = group.compose(change, staples(links, lattice)[:, 7, 1])
    exact = product.diagonal(dim1=-2, dim2=-1).sum(-1) if group.element_shape else product
    assert_close(found, exact.real)


@pytest.mark.parametrize(
    ("group", "beta", "exact"),
    [(Z2(), 0.5, math.tanh(0.5)), (U1(), 2.0, 0.697775), (SU2(), 2.0, 0.433127)],
    ids=["Z2", "U1", "SU2"],
)
def test_sampled_plaquette(group, beta, exact):
    """Two-dimensional gauge theory: ⟨W⟩ = tanh β, I₁/I₀, I₂/I₁ (trace per component).

    Metropolis on the staples. Links along one direction in every second row share no plaquette and
    move together. The torus corrects ⟨W⟩ by about ⟨W⟩^63, below 1e-9. (Z2 at β = 2 would have to
    wait for rare pairs of fluxes.)
    """
    lattice, batch = square(8), 32
    colours = 2 if group.element_shape else 1
    generator = seeded(11)
    links = group.identity(batch, lattice.n_sites, 2, dtype=torch.float64)
    x, y = (part.round().long() % 2 for part in lattice.positions.T)
    rows = [(0, y == 0), (0, y == 1), (1, x == 0), (1, x == 1)]
    series = []
    for sweep in range(60):
        for mu, sites in rows:
            old = links[:, sites, mu]
            new = group.random(*old.shape[:2], generator=generator, dtype=torch.float64)
            change = group.compose(new - old, staples(links, lattice)[:, sites, mu])
            gain = beta / colours * trace(change).real
            accept = torch.rand(gain.shape, generator=generator, dtype=torch.float64) < gain.exp()
            mask = accept.reshape(*accept.shape, *[1] * len(group.element_shape))
            links[:, sites, mu] = torch.where(mask, new, old)
        if sweep >= 15:
            series.append(trace(plaquettes(links, lattice)).real.mean(1) / colours)
    replicas = torch.stack(series).mean(0)  # independent runs are the blocks of the error
    error = float(replicas.std()) / math.sqrt(batch)
    assert error < 0.01 * exact
    assert abs(float(replicas.mean()) - exact) <= 4 * error


# ---- bad input ---------------------------------------------------------------------------------


def test_check_links_accepts_what_lies_in_the_group():
    lattice = square(4, 6)
    for group in GROUPS:
        for dtype in (torch.float32, torch.float64):
            links = random_links(group, lattice, dtype=dtype)
            check_links(links, lattice, group)
            check_links(links, lattice, group.name)
            assert gauge_group(links) == group


LATTICE = square(4, 6)
PHASES = torch.ones(2, 24, 2, dtype=torch.complex64)
MATRICES = SU2().identity(2, 24, 2)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda: plaquettes(PHASES[:, :23], LATTICE), r"need shape \[batch, 24, 2\].*\[2, 23, 2\]"),
        (lambda: plaquettes(PHASES[0], LATTICE), r"not \[24, 2\]"),
        (lambda: wilson_line(PHASES[..., :1], LATTICE, (1,)), r"not \[2, 24, 1\]"),
        (lambda: staples(MATRICES[..., :1], LATTICE), r"\[batch, 24, 2, 2, 2\] \(SU2\), not"),
        (lambda: plaquettes(MATRICES.real, LATTICE), "SU2 must be complex, not torch.float32"),
        (lambda: plaquettes(PHASES[:, :, :1], chain(24)), r"square lattice, not on chain\(24\)"),
        (lambda: staples(PHASES[:, :, :1], chain(24)), r"square lattice, not on chain\(24\)"),
        (lambda: plaquettes(PHASES, honeycomb(2, 6)), "honeycomb"),
        (lambda: wilson_line(PHASES, LATTICE, (1, 3)), "unknown step 3.*±1, ±2"),
        (lambda: wilson_line(PHASES, LATTICE, (0,)), "unknown step 0"),
        (lambda: polyakov_loop(PHASES, LATTICE, 0), "unknown step 0"),
        (lambda: wilson_loop(PHASES, LATTICE, (1, 2)), r"\(1, 2\) is not closed.*\(1, 1\) cells"),
        (lambda: rectangle(-1, 2), "-1 × 2"),
        (lambda: check_links(1.5 * PHASES, LATTICE, "U1"), "not in the group U1.* 0.5, but"),
        (lambda: check_links(-1j * MATRICES, LATTICE, "SU2"), "not in the group SU2.* 2, but"),
        (lambda: check_links(PHASES.real * math.pi, LATTICE, "Z2"), "not in the group Z2.* 2.14"),
        (lambda: check_links(PHASES, LATTICE, "SU2"), "laid out for U1, not for SU2"),
        (lambda: check_links(PHASES, LATTICE, "SU3"), "unknown internal group 'SU3'"),
        (lambda: transform_links(PHASES, 2 * PHASES[0, :, 0], LATTICE), "elements are not in.* 1,"),
        (lambda: transform_links(PHASES, PHASES[0, :23, 0], LATTICE), r"shape \[24\].*not \[23\]"),
        (
            lambda: transform_links(MATRICES, SU2().identity(3, 24), LATTICE),
            r"\[24, 2, 2\] or \[2, 24, 2, 2\], not \[3, 24, 2, 2\]",
        ),
        (
            lambda: transform_sites(PHASES[:, :5], PHASES[0, :, 0], LATTICE, 1, "U1"),
            r"\[batch, 24, …\], not \[2, 5, 2\]",
        ),
        (lambda: transform_sites(PHASES, PHASES[0, :, 0], LATTICE, "link", "U1"), "both ends"),
        (lambda: transform_sites(PHASES, PHASES[0, :, 0], LATTICE, "spin", "U1"), "unknown kind"),
        (
            lambda: parallel_transport(PHASES[..., 0], PHASES, LATTICE, (1,), 1),
            r"component axes after \[batch, 24\]",
        ),
        (
            lambda: parallel_transport(PHASES, MATRICES, LATTICE, (1,), 1),
            "unknown kind of values 1",
        ),
    ],
)
def test_bad_input_is_told_in_one_sentence(action, message):
    with pytest.raises(InputError, match=message) as caught:
        action()
    assert "\n" not in str(caught.value)


def test_local_rotations_of_spins():
    """Any compact group can act locally on sites."""
    lattice, group = square(4, 6), SO3()
    rotation = random_local(group, lattice, batch=2)
    spins = torch.randn(2, 24, 3, generator=seeded(0), dtype=torch.float64)
    found = transform_sites(spins, rotation, lattice, "1x1e", group)
    assert_close(found, torch.einsum("bnij,bnj->bni", rotation, spins))
