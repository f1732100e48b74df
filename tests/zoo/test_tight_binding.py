"""The tight-binding network: the laws of every network, and functions of matrices."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from latticezoo.simulate.systems import jahn_teller
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.fields import Field
from latticezoo.symmetry.lattices import chain, square, triangular
from latticezoo.symmetry.tasks import Task
from latticezoo.zoo import create_model
from latticezoo.zoo.layers import matrix_functions
from latticezoo.zoo.layers.matrix_functions import site_blocks, torus_matrix
from latticezoo.zoo.optimization import BatchLBFGS
from latticezoo.zoo.testing import Case, ZooModelTests, perturb, scalar_task, vector_task

SHORT = {"order": 5, "reach": 2, "conserve": False}
SYSTEM = jahn_teller.PRESETS["jahn_teller_half_filled"]
DOUBLET = replace(SYSTEM.task(target="orbital"), conserved=None)
DISTINCT = Task(
    "orbitals",
    (Field("Q", point="E1"), Field("m")),
    (Field("n"), Field("tau", point="E1")),
    "triangular",
)


class TestTightBinding(ZooModelTests):
    model = "tight_binding"
    cases = (
        Case(scalar_task("square", odd=True), (square(5), square(3, 6)), SHORT),
        Case(DOUBLET, (square(5), square(4, 3)), {**SHORT, "order": 4}),
        Case(vector_task("square"), (square(5), square(4)), {**SHORT, "potential_shells": 1}),
        Case(scalar_task("chain"), (chain(9), chain(4)), {**SHORT, "order": 8, "reach": 4}),
        Case(
            replace(vector_task("triangular"), name="far"),
            (triangular(5), triangular(4)),
            {**SHORT, "order": 3, "shells": 2},
        ),
    )
    unsuitable = (
        scalar_task("diamond"),
        Task("spins", (Field("S", internal="1x1e"),), (Field("h"),), "square", internal="SO3"),
        Task("bonds", (Field("Q"),), (Field("t", support="link"),), "square"),
    )
    too_small = (square(2), square(6, 2))
    golden = Path(__file__).parent / "golden_tight_binding.json"


def network(task=DOUBLET, **options):
    torch.manual_seed(0)
    return perturb(create_model("tight_binding", task, **{**SHORT, **options}).double()).eval()


def matrix_parts(net, lattice, batch=2):
    """A potential, hopping amplitudes and coefficients with derivatives."""
    d = net.hopping().shape[-1]
    draw = torch.Generator().manual_seed(1)
    V = torch.randn(batch, lattice.n_sites, d, d, generator=draw, dtype=torch.float64)
    V = (0.08 * (V + V.mT)).requires_grad_()
    c = torch.randn(net.options["order"] + 1, generator=draw, dtype=torch.float64)
    return V, 0.5 * net.hopping(), c.requires_grad_()


@pytest.mark.parametrize("order", [4, 5])
def test_columns_and_diagonalization_are_one_function(order):
    """Paths of at most ``order`` hops do not come around a torus that is wider."""
    net, lattice = network(order=order), square(7, 8)
    V, t, c = matrix_parts(net, lattice)
    found = []
    for reach in (3, 4):  # the second is more than half of the torus
        blocks = site_blocks(V, t, net.hopping.offsets, lattice, c, reach)
        wanted = (V, net.hopping.weights, c)
        found.append(
            (blocks, *torch.autograd.grad(blocks.square().sum(), wanted, retain_graph=True))
        )
    for one, two in zip(*found, strict=True):
        if one.dim() > 1:  # derivatives with respect to either half of a symmetric matrix
            one, two = one + one.mT, two + two.mT
        torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-11)


def test_blocks_are_those_of_the_matrix_polynomial():
    net, lattice = network(), square(3, 5)
    V, t, c = matrix_parts(net, lattice)
    h = torus_matrix(V, t, net.hopping.offsets, lattice)
    torch.testing.assert_close(h, h.mT)
    one = torch.eye(h.shape[-1], dtype=h.dtype).expand_as(h)
    orders = [one, h]
    while len(orders) < len(c):
        orders.append(2 * h @ orders[-1] - orders[-2])
    full = sum(weight * matrix for weight, matrix in zip(c, orders, strict=True))
    expected = torch.stack(
        [full[:, 2 * i : 2 * i + 2, 2 * i : 2 * i + 2] for i in range(lattice.n_sites)], 1
    )
    found = site_blocks(V, t, net.hopping.offsets, lattice, c, reach=9)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_derivatives_are_finite_where_levels_meet():
    """Without a potential nearly all levels of a torus are degenerate."""
    net, lattice = network(), square(4)
    V, t, c = matrix_parts(net, lattice, batch=1)
    V = torch.zeros_like(V).requires_grad_()
    direction = torch.randn(V.shape, generator=torch.Generator().manual_seed(2), dtype=V.dtype)
    direction = direction + direction.mT

    def total(step):
        blocks = site_blocks(V + step * direction, t, net.hopping.offsets, lattice, c, reach=9)
        return (blocks * direction).sum()

    slope = (torch.autograd.grad(total(0.0), V)[0] * direction).sum()
    numerical = (total(1e-5) - total(-1e-5)) / 2e-5
    torch.testing.assert_close(slope, numerical, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("size", [0.3, 30.0])
def test_levels_stay_inside_the_interval_whatever_goes_in(size):
    """Outside (−1, 1) Chebyshev polynomials grow exponentially with their order."""
    net, lattice = network(order=60, reach=9), square(6)
    Q = size * torch.randn(
        1, 36, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    seen = {}
    genuine = matrix_functions.torus_matrix

    def watch(*parts):
        seen["levels"] = torch.linalg.eigvalsh(genuine(*parts))
        return genuine(*parts)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matrix_functions, "torus_matrix", watch)
        output = net({"Q": Q}, lattice)["orbital"]
    assert float(seen["levels"].detach().abs().max()) < 1
    assert bool(output.isfinite().all())


def test_it_finds_the_hamiltonian_of_the_exact_model():
    """From random states alone: the amplitudes of H_K, up to signs and names of orbitals."""
    torch.manual_seed(0)
    lattice, warm = square(6), replace(SYSTEM, temperature=0.3, chemical_potential=0.0)
    strength = torch.rand(24, 1, 1, dtype=torch.float64) * (2 * torch.rand(24, 36, 3) - 1)
    Q = {"Q": strength * torch.tensor([0.5, 1.0, 1.0])}
    exact = warm.labels(Q, lattice)["orbital"]
    net = create_model("tight_binding", warm.task(target="orbital"), order=40).double()
    net.set_statistics(
        {
            group: {name: {"mean": torch.zeros(3), "std": values.std((0, 1))}}
            for group, name, values in (("inputs", "Q", Q["Q"]), ("targets", "orbital", exact))
        }
    )
    seen = {"Q": Q["Q"][:16]}
    batch = {"fields": seen, "targets": {"orbital": exact[:16]}, "lattice": lattice}
    optimizer = BatchLBFGS(net.parameters(), max_iter=250)

    def closure():
        optimizer.zero_grad()
        loss = net.training_loss(batch)
        loss.backward()
        return loss

    optimizer.step(closure)
    with torch.no_grad():
        error = (net.eval()({"Q": Q["Q"][16:]}, lattice)["orbital"] - exact[16:]).square().mean()
        along_x = net.hopping()[net.hopping.offsets.index((1, 0))]
    assert float(error.sqrt()) < 0.03 * float(exact.std())
    weak, strong = along_x.diagonal().abs().sort().values.tolist()
    assert weak / strong == pytest.approx(1 / 3, abs=0.05)  # t [[1, ∓1/√3], [∓1/√3, 1/3]]
    assert abs(float(along_x[0, 1])) / strong == pytest.approx(3**-0.5, abs=0.05)


def test_minimization_on_a_batch_solves_a_linear_problem_in_one_step():
    draw = torch.Generator().manual_seed(0)
    A = torch.randn(40, 6, generator=draw, dtype=torch.float64)
    exact = torch.randn(6, generator=draw, dtype=torch.float64)
    weights = torch.nn.Parameter(torch.zeros(6, dtype=torch.float64))
    optimizer = BatchLBFGS([weights])

    def closure():
        optimizer.zero_grad()
        loss = (A @ (weights - exact)).square().mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    torch.testing.assert_close(weights.detach(), exact, rtol=1e-5, atol=1e-5)
    with pytest.raises(InputError, match=r"no weight decay; leave out the 0\.1 given"):
        BatchLBFGS([weights], weight_decay=0.1)


def test_orbitals_follow_from_the_fields_and_can_be_chosen():
    net = create_model("tight_binding", DISTINCT, **SHORT)
    assert net.matrices.spec == "2xA1+1xE1+1xE2"
    with pytest.raises(InputError, match=r"no product of two of the orbitals A1 is a target"):
        create_model("tight_binding", DISTINCT, orbitals="A1", **SHORT)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"order": 1}, "order must be 2 or more, not 1"),
        ({"reach": 0}, "reach must be 1 or more, not 0"),
        ({"potential_shells": -1}, "potential_shells must be 0 or more, not -1"),
        ({"orbitals": "A1+Z"}, "Z"),
    ],
)
def test_wrong_options_are_refused_in_one_sentence(options, sentence):
    with pytest.raises(InputError) as error:
        create_model("tight_binding", DOUBLET, **options)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_presets_have_few_weights():
    counts = {
        preset: sum(
            w.numel() for w in create_model("tight_binding", DOUBLET, preset=preset).parameters()
        )
        for preset in ("compact", "fast")
    }
    assert counts == {"compact": 147, "fast": 51}
