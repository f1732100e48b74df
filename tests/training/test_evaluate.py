"""Measurements: baselines against closed forms, errors, averages over replicas."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from latticezoo.datasets.registry import create_data
from latticezoo.simulate.observables import correlation_function
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.fields import Field
from latticezoo.symmetry.lattices import square, triangular
from latticezoo.symmetry.tasks import Task
from latticezoo.symmetry.testing import assert_equivariant
from latticezoo.training.analysis import correlation_lengths, correlations, jackknife
from latticezoo.training.baselines import MeanBaseline, RidgeBaseline
from latticezoo.training.evaluate import (
    equivariance,
    errors,
    pairs,
    parameter_count,
    predict,
    sites_per_second,
)
from latticezoo.training.settings import convert, merge, section
from latticezoo.training.threads import ENOUGH_WORK, suited_threads
from latticezoo.zoo import create_model
from tests.training.conftest import SMALL_DATA


@pytest.fixture(scope="module")
def data(cache):
    made = create_data("holstein", **SMALL_DATA)
    made.setup()
    return made


class Linear:
    """A target that is linear in the shells: what the ridge must find."""

    def __call__(self, fields, lattice):
        values = fields["Q"]
        return {"density": 0.3 * values - 0.1 * lattice.neighbour_sum(values, 2)}


def test_the_ridge_recovers_a_linear_map(data):
    train = data.samples("train")
    train.targets["density"] = Linear()(train.fields, train.lattice)["density"]
    try:
        ridge = RidgeBaseline(data.task, train, strength=1e-12)
    finally:
        data._data = None  # the samples were changed: read them again
        data.setup()
    weights = ridge.weights["density"][:, 0]
    expected = torch.zeros_like(weights)
    expected[0], expected[2] = 0.3, -0.1
    assert torch.allclose(weights, expected, atol=1e-5)
    assert_equivariant(ridge, data.task, square(8))


def test_the_error_of_the_mean_is_the_spread(data):
    found = errors(
        pairs(MeanBaseline(data.task, data.samples("train")), data.samples("test"), "density")
    )
    for kind in ("random", "trajectory", "all"):
        assert found[f"rmse_{kind}"] == pytest.approx(found[f"spread_{kind}"], rel=1e-2)


def test_the_mean_baseline_honours_the_odd_symmetry(data):
    baseline = MeanBaseline(data.task, data.samples("train"))
    assert baseline.means["density"].item() == 0
    assert_equivariant(baseline, data.task, square(8))


def test_the_ridge_refuses_what_is_not_scalar(data):
    task = replace(data.task, inputs=(replace(data.task.inputs[0], point="E"),))
    with pytest.raises(InputError, match="without point representation"):
        RidgeBaseline(task, data.samples("train"))


def test_the_ridge_on_spins_recovers_pair_exchange():
    field = Field("S", internal="1x1e", odd=("time_reversal",))
    target = replace(field, name="H")
    task = Task(
        "spins",
        (field,),
        (target,),
        "triangular",
        ("time_reversal",),
        "SO3",
        tangent=(("H", "S"),),
    )
    lattice = triangular(9)
    generator = torch.Generator().manual_seed(0)
    S = torch.randn(4, 81, 3, dtype=torch.float64, generator=generator)
    S = torch.nn.functional.normalize(S, dim=-1)
    pull = -1.0 * lattice.neighbour_sum(S, 1) + 0.25 * lattice.neighbour_sum(S, 3)
    H = pull - (pull * S).sum(-1, keepdim=True) * S
    train = SimpleNamespace(fields={"S": S}, targets={"H": H}, lattice=lattice)
    ridge = RidgeBaseline(task, train, strength=1e-12)
    assert 4 <= ridge.shells < 18  # as many as the torus holds
    wanted = torch.zeros(ridge.shells, dtype=torch.float64)
    wanted[0], wanted[2] = -1.0, 0.25
    torch.testing.assert_close(ridge.weights["H"][:, 0], wanted, rtol=0, atol=1e-8)
    torch.testing.assert_close(ridge({"S": S}, lattice)["H"], H, rtol=0, atol=1e-8)
    assert_equivariant(ridge, task, lattice, fields={"S": S})


def test_prediction_in_pieces_equals_the_whole(data):
    network = create_model("gcn", data.task, widths=[4, 4]).double().eval()
    samples = create_data("holstein", **SMALL_DATA, dtype="float64").samples("train")
    with torch.no_grad():
        whole = predict(network, samples)["density"]
        pieces = predict(network, samples, chunk_sites=64 * 3)["density"]
    assert torch.allclose(whole, pieces, atol=1e-13)
    assert whole.shape == samples.targets["density"].shape


def test_equivariance_sees_a_broken_symmetry(data):
    class Broken:
        def __call__(self, fields, lattice):
            view = fields["Q"].reshape(-1, *lattice.shape, 1)
            return {"density": (view + 0.1 * view.roll(1, 1)).flatten(1, 2)}

    samples = data.samples("test")
    assert equivariance(Broken(), data.task, samples, torch.float64).error > 1e-2
    network = create_model("gcn", data.task, widths=[4, 4])
    report = equivariance(network, data.task, samples, torch.float64)
    assert report.error < 1e-10
    assert report.elements == 64 * 8 * 2
    assert next(network.parameters()).dtype == torch.float32  # the network itself is left alone


def test_speed_and_size(data):
    network = create_model("gcn", data.task, widths=[4, 4])
    assert sites_per_second(network, data.samples("test"), sites=256, seconds=0.02) > 0
    assert parameter_count(network) == sum(p.numel() for p in network.parameters())


def test_jackknife_of_a_mean_is_its_standard_error():
    values = np.random.default_rng(0).normal(size=12)
    left_out = np.array([np.delete(values, r).mean() for r in range(12)])
    found = jackknife(left_out, np.array(values.mean()))
    assert found == pytest.approx(values.std(ddof=1) / np.sqrt(12))


def test_correlations_average_over_the_replicas():
    lattice = square(8)
    order = np.random.default_rng(1).normal(size=(2, 5, 64))
    band = correlations(order, lattice)
    for frame, mean in zip(order, band.mean, strict=True):
        tensor = torch.from_numpy(frame)[..., None]
        expected = correlation_function(tensor, lattice, average_replicas=True)[0]
        assert np.allclose(mean, expected)
    assert band.mean[:, 0] == pytest.approx(1)
    assert (band.error[:, 1:] > 0).all()


def test_correlation_length_of_stripes():
    # Stripes of width 4 on 16 sites: along x C falls linearly from 1 to −1 over 4 sites, along y
    # it stays 1; the average is ½ at distance 2.
    lattice = square(16)
    x = np.arange(16)
    stripes = np.where((x // 4) % 2 == 0, 1.0, -1.0)[:, None] * np.ones((16, 16))
    length = correlation_lengths(np.stack([[stripes.ravel(), -stripes.ravel()]]), lattice)
    assert length.mean[0] == pytest.approx(2.0)


def test_small_work_takes_one_thread_unless_the_user_decided(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    torch.set_num_threads(2)
    try:
        with suited_threads(ENOUGH_WORK / 2):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
        with suited_threads(2 * ENOUGH_WORK):
            assert torch.get_num_threads() == 2
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
        with suited_threads(0):
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_settings_are_checked():
    known = {"steps": int, "dt": float, "name": str}
    assert section({"steps": 3, "dt": "1e-3"}, "x", known) == {"steps": 3, "dt": 1e-3}
    with pytest.raises(InputError, match="did you mean steps"):
        section({"stpes": 3}, "x", known)
    with pytest.raises(InputError, match="whole number"):
        section({"steps": 1.5}, "x", known)
    with pytest.raises(InputError, match="must be a number"):
        convert("soon", float, "dt")
    with pytest.raises(InputError, match="names and values"):
        section([1], "x", known)
    assert merge({"a": {"b": 1, "c": 2}}, {"a": {"c": 3}, "d": 4}) == {
        "a": {"b": 1, "c": 3},
        "d": 4,
    }
