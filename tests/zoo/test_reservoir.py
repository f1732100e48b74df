"""The parts of an echo state network: reservoir, read-out, symmetric inputs."""

import numpy as np
import pytest
import scipy.sparse
import torch

from latticezoo.symmetry.elements import SymmetryGroup
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.fields import Field, transform
from latticezoo.symmetry.lattices import honeycomb, square, triangular
from latticezoo.zoo.layers.reservoir import Reservoir, random_recurrence, spectral_radius
from latticezoo.zoo.layers.ridge import RidgeRegression
from latticezoo.zoo.layers.surroundings import Surroundings


def double(reservoir: Reservoir) -> Reservoir:
    return reservoir.double()


@pytest.mark.parametrize("size", [3, 60, 200, 500])
def test_the_spectral_radius_is_that_of_all_eigenvalues(size):
    draw = np.random.default_rng(size)
    matrix = scipy.sparse.random(size, size, 0.3, "csr", rng=draw, data_rvs=draw.standard_normal)
    expected = np.abs(np.linalg.eigvals(matrix.toarray())).max()
    assert spectral_radius(matrix) == pytest.approx(expected, rel=1e-8)


def test_the_spectral_radius_of_a_rotation_on_which_power_iteration_turns_for_ever():
    turn = np.array([[0.0, -2.0], [2.0, 0.0]])
    matrix = scipy.sparse.block_diag([turn, *[0.1 * turn] * 99]).tocsr()
    assert spectral_radius(matrix) == pytest.approx(2.0, rel=1e-10)


@pytest.mark.parametrize("radius", [0.3, 0.9, 0.99])
def test_the_recurrence_has_the_asked_radius_and_density(radius):
    matrix = random_recurrence(300, 0.05, radius, np.random.default_rng(1))
    assert np.abs(np.linalg.eigvals(matrix.toarray())).max() == pytest.approx(radius, rel=1e-8)
    assert (np.diff(matrix.indptr) == 15).all()


def test_a_step_is_the_equation():
    reservoir = double(Reservoir(3, 40, leak=0.3, bias=0.5, seed=4))
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(7, 40, generator=generator, dtype=torch.float64)
    inputs = torch.randn(7, 3, generator=generator, dtype=torch.float64)
    W = torch.zeros(40, 40, dtype=torch.float64)
    for row in range(40):
        part = slice(reservoir.pointers[row], reservoir.pointers[row + 1])
        W[row, reservoir.columns[part]] = reservoir.values[part]
    drive = hidden @ W.T + inputs @ reservoir.coupling.T + reservoir.bias
    expected = 0.7 * hidden + 0.3 * torch.tanh(drive)
    torch.testing.assert_close(reservoir.step(hidden, inputs), expected, rtol=0, atol=1e-14)


def test_without_bias_a_reservoir_is_odd_with_bias_it_is_not():
    inputs = torch.linspace(-1, 1, 12).view(6, 2)
    for bias, odd in ((0.0, True), (0.3, False)):
        reservoir = Reservoir(2, 50, bias=bias)
        found = [reservoir.step(reservoir.start(6), sign * inputs) for sign in (1, -1)]
        assert torch.equal(found[0], -found[1]) is odd


def test_the_weights_are_a_function_of_the_seed_and_all_in_the_state_dict():
    first, second, other = Reservoir(2, 50), Reservoir(2, 50), Reservoir(2, 50, seed=1)
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, second.state_dict()[name])
    assert not torch.equal(first.values, other.values)
    other.load_state_dict(first.state_dict())
    inputs = torch.ones(3, 2)
    hidden = torch.linspace(-0.5, 0.5, 150).view(3, 50)
    assert torch.equal(first.step(hidden, inputs), other.step(hidden, inputs))


@pytest.mark.parametrize(("radius", "leak"), [(0.9, 1.0), (0.5, 1.0), (0.9, 0.8)])
def test_two_hidden_states_under_the_same_input_converge(radius, leak):
    """The echo state property, below 1e-6 within a washout of 120 steps."""
    reservoir = double(Reservoir(1, 300, radius=radius, leak=leak, input_scale=0.5))
    draw = torch.Generator().manual_seed(0)
    hidden = [torch.rand(4, 300, generator=draw, dtype=torch.float64) * 2 - 1 for _ in range(2)]
    signal = torch.sin(0.4 * torch.arange(120)).double()
    for value in signal:
        inputs = value.expand(4, 1)
        hidden = [reservoir.step(state, inputs) for state in hidden]
    assert float((hidden[0] - hidden[1]).abs().max()) < 1e-6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"radius": 1.0}, "spectral radius is 1; it must be above 0 and below 1"),
        ({"radius": 0.0}, "spectral radius is 0"),
        ({"radius": float("nan")}, "spectral radius is nan"),
        ({"density": 0.0}, "density is 0"),
        ({"leak": 1.5}, "leak is 1.5"),
        ({"input_scale": -1.0}, "input_scale is -1"),
        ({"bias": -1.0}, "bias is -1"),
        ({"seed": -1}, "seed is -1"),
        ({"size": 1}, "at least 2 nodes, not 1"),
    ],
)
def test_numbers_out_of_range_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        Reservoir(1, **{"size": 20, **options})


# ---- read-out ------------------------------------------------------------------------------------


def samples(count, features, seed=0):
    draw = torch.Generator().manual_seed(seed)
    rows = torch.randn(count, features, generator=draw, dtype=torch.float64)
    rows[:, -1] = 1.0
    return rows, torch.randn(count, 2, generator=draw, dtype=torch.float64) + 3.0


def test_the_streamed_ridge_is_the_ridge_of_all_samples_at_once():
    rows, goals = samples(200, 6)
    ridge = RidgeRegression(6, 2, constant=True)
    for part in range(0, 200, 30):
        ridge.add(rows[part : part + 30], goals[part : part + 30])
    # The penalty as further samples: sqrt(beta M) times the unit vectors but the constant's.
    penalty = (0.1 * 200) ** 0.5 * torch.eye(6, dtype=torch.float64)[:5]
    system = torch.cat([rows, penalty])
    expected = torch.linalg.lstsq(system, torch.cat([goals, goals.new_zeros(5, 2)])).solution
    weights = ridge.solve(0.1)
    torch.testing.assert_close(weights, expected, rtol=1e-10, atol=1e-12)
    left = goals - rows @ weights
    residual = left.T @ left / len(left)
    torch.testing.assert_close(ridge.residual(weights), residual, rtol=1e-10, atol=0)


def test_single_precision_features_are_summed_in_double():
    rows, goals = samples(50, 4)
    ridge = RidgeRegression(4, 2)
    ridge.add(rows.float(), goals.float())
    expected = rows.float().double().T @ rows.float().double()
    torch.testing.assert_close(ridge.gram, expected, rtol=1e-14, atol=0)


def test_what_cannot_be_fit_is_refused():
    rows, goals = samples(5, 4)
    ridge = RidgeRegression(4, 2)
    with pytest.raises(InputError, match="no samples"):
        ridge.solve(1e-6)
    ridge.add(rows, goals)
    with pytest.raises(InputError, match="ridge is 0"):
        ridge.solve(0.0)
    equal = RidgeRegression(4, 2)
    equal.add(torch.ones(5, 4), goals)
    with pytest.raises(InputError, match="too small to tell 4 features"):
        equal.solve(1e-30)
    ridge.add(rows * float("nan"), goals)
    with pytest.raises(InputError, match="NaN"):
        ridge.solve(1e-6)


# ---- symmetric inputs ----------------------------------------------------------------------------


def test_numbers_of_inputs_on_the_square_lattice():
    found = {c: Surroundings("square", 8, c) for c in ("orbits", "invariants", "average")}
    sizes = {name: (part.images, part.inputs) for name, part in found.items()}
    assert sizes == {"orbits": (1, 9), "invariants": (1, 34), "average": (8, 45)}


def test_orbits_are_means_over_shells():
    lattice = square(8)
    values = torch.randn(2, 64, 1, dtype=torch.float64)
    part = Surroundings("square", 8).double()
    found = part(values, lattice)[:, :, 0]
    for number, shell in enumerate(part.shells):
        expected = lattice.neighbour_mean(values, shell)[..., 0]
        torch.testing.assert_close(found[..., number], expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("coupling", ["orbits", "invariants", "average"])
@pytest.mark.parametrize(
    "lattice", [square(8), square(8, 10), triangular(6), honeycomb(6)], ids=str
)
def test_inputs_follow_every_operation_and_are_odd(coupling, lattice):
    """Invariant at their site; those of ``average`` as a set of images."""
    field = Field("order", odd=("ising",))
    part = Surroundings(lattice.family, 4, coupling).double()
    draw = torch.Generator().manual_seed(2)
    values = torch.randn(1, lattice.n_sites, 1, generator=draw, dtype=torch.float64)

    def seen(given):
        inputs = part(given, lattice)
        # A sum over images of a function without symmetry compares them as a set.
        marks = torch.cos(1.7 * torch.arange(inputs.shape[-1], dtype=torch.float64))
        return torch.sinh(inputs @ marks).mean(-1, keepdim=True)

    before = seen(values)
    for element in SymmetryGroup(lattice, ("ising",)).sample(20, draw):
        after = seen(transform(field, values, element))
        expected = transform(field, before, element)
        torch.testing.assert_close(after, expected, rtol=0, atol=1e-12)


def test_invariants_tell_a_wall_from_an_arc_where_orbits_do_not():
    """Equal means on all shells, different arrangement."""
    lattice = square(8)
    values = torch.zeros(2, 64, 1, dtype=torch.float64)
    values[:, 0] = 1.0
    ring = lattice.neighbours(1)[0]
    values[0, ring, 0] = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64)
    values[1, ring, 0] = torch.tensor([1.0, 1.0, -1.0, -1.0], dtype=torch.float64)
    for coupling, differ in (("orbits", False), ("invariants", True)):
        found = Surroundings("square", 1, coupling).double()(values, lattice)[:, 0, 0]
        assert (float((found[0] - found[1]).abs().max()) > 0.1) is differ


def test_bad_couplings_and_lattices_are_refused():
    with pytest.raises(InputError, match="orbit"):
        Surroundings("square", 8, "orbit")
    with pytest.raises(InputError, match="too small"):
        Surroundings("square", 8)(torch.zeros(1, 16, 1), square(4))
