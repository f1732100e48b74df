"""Driven trajectories beside exact ones: statistics, quantities, errors of the driver."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from latticezoo.datasets.file import LabelledData
from latticezoo.datasets.make import make_dataset
from latticezoo.datasets.populations import (
    QUANTITIES,
    compare_populations,
    deviate,
    driver_errors,
    quantities,
)
from latticezoo.datasets.registry import create_recipe
from latticezoo.simulate.systems import create_system
from latticezoo.simulate.systems.jahn_teller import QX
from latticezoo.symmetry.errors import InputError
from latticezoo.zoo.pretrained import load_pretrained, model_config, weights_bytes
from latticezoo.zoo.registry import create_model

DRIVER = "gcn.holstein_weak"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = make_dataset(
        "holstein_square",
        path=tmp_path_factory.mktemp("populations") / "both.h5",
        workers=1,
        progress=False,
        lattice=6,
        random=4,
        trajectories=14,
        frames=3,
        last_time=4.0,
        driver=DRIVER,
        exact_trajectories=5,
    )
    return LabelledData.open(path)


def test_z_has_the_probability_of_students_t():
    draw = np.random.default_rng(0)
    for n, m in ((2, 5), (1, 3), (20, 30)):
        a, b = draw.normal(size=n), draw.normal(1.0, 1.0, size=m)
        z = deviate(torch.from_numpy(a), torch.from_numpy(b))
        t = (b.mean() - a.mean()) / np.sqrt(
            (((a - a.mean()) ** 2).sum() + ((b - b.mean()) ** 2).sum())
            / (n + m - 2)
            * (1 / n + 1 / m)
        )
        assert np.sign(z) == np.sign(t)
        assert 2 * stats.norm.sf(abs(z)) == pytest.approx(2 * stats.t.sf(abs(t), n + m - 2))
    assert deviate(torch.zeros(1), torch.ones(1)) is None
    assert deviate(torch.zeros(3), torch.ones(3)) is None


def test_z_is_normal_where_nothing_differs_however_few_there_are():
    draw = torch.Generator().manual_seed(1)
    values = torch.randn(2000, 7, generator=draw, dtype=torch.float64)
    z = torch.tensor([deviate(row[:2], row[2:]) for row in values])
    assert float(z.mean()) == pytest.approx(0, abs=0.07)
    assert float(z.std()) == pytest.approx(1, abs=0.06)
    assert float((z.abs() > 1.96).double().mean()) == pytest.approx(0.05, abs=0.015)


def test_quantities_are_what_they_say(data):
    found = quantities(data)
    assert list(found) == list(QUANTITIES)
    row, lattice = 7, data.lattice
    Q = data.fields["Q"][row, :, 0].reshape(6, 6).numpy()
    n = data.labels["density"][row, :, 0].reshape(6, 6).numpy()
    around = sum(np.roll(Q, shift, axis) for shift in (1, -1) for axis in (0, 1))
    sign = (-1.0) ** np.add.outer(range(6), range(6))
    force = 1.5 * n - 1.005 * Q - 0.18 * around
    expected = {
        "force_square": (force**2).mean(),
        "displacement_square": (Q**2).mean(),
        "density_variance": n.var(),
        "order_parameter": abs((sign * n).mean()),
        "neighbour_correlation": (Q * around).mean() / 4 / (Q**2).mean(),
        "energy_per_site": float(data.energy[row]) / lattice.n_sites,
    }
    for name, value in expected.items():
        assert float(found[name][row]) == pytest.approx(value), name


def test_means_and_deviates_are_over_trajectories(data):
    found = compare_populations(data)
    values = quantities(data)["displacement_square"]
    table = values[data.trajectory >= 0].reshape(14, 3)
    (whole,) = [row for row in found.overall if row.quantity == "displacement_square"]
    assert (whole.exact.trajectories, whole.learned.trajectories) == (5, 9)
    assert whole.exact.mean == pytest.approx(float(table[:5].mean()))
    assert whole.learned.error == pytest.approx(float(table[5:].mean(1).std()) / 3)
    at = [row for row in found.by_time if row.quantity == "displacement_square"]
    assert [row.time for row in at] == pytest.approx([1.0, 2.0, 4.0])
    for k, row in enumerate(at):
        assert row.z == pytest.approx(deviate(table[:5, k], table[5:, k]))
    assert len(found.to_dict()["by_time"]) == 3 * len(QUANTITIES)


def test_a_driver_that_heats_is_found_out(data):
    """Displacements of the driven frames twice too large, and labels that belong to them."""
    system = create_system("holstein_weak", backend="lapack")
    factor = 1 + data.driven.double()[:, None, None]
    fields = {"Q": data.fields["Q"] * factor}
    labels = {**data.labels, **system.labels(fields, data.lattice)}
    found = {
        row.quantity: row.z
        for row in compare_populations(replace(data, fields=fields, labels=labels)).overall
    }
    honest = {row.quantity: row.z for row in compare_populations(data).overall}
    assert found["displacement_square"] > 3 > abs(honest["displacement_square"])
    assert found["energy_per_site"] > 3 > abs(honest["energy_per_site"])


def test_populations_need_both(data):
    driven = data.driven > 0
    alone = LabelledData.from_arrays(
        {name: values[driven.numpy()] for name, values in data.arrays().items()},
        task=data.task,
        lattice=data.lattice,
        types=data.types,
        source=data.source,
    )
    with pytest.raises(InputError, match="0 exact trajectories and 9 driven"):
        compare_populations(alone)
    moved = replace(data, step=data.step + 1000 * data.driven)
    with pytest.raises(InputError, match="no frame at the same step"):
        compare_populations(moved)


def test_errors_of_the_driver_by_population(data):
    found = driver_errors(data)
    assert (found["driver"], found["target"]) == (DRIVER, "density")
    network = load_pretrained(DRIVER)
    with torch.no_grad():
        predicted = network({"Q": data.fields["Q"].float()}, data.lattice)["density"].double()
    wrong = predicted - data.labels["density"]
    for words, stratum, samples in (
        ("random", 0, 4),
        ("exact trajectory", 1, 15),
        ("driven trajectory", 2, 27),
    ):
        row, chosen = found["populations"][words], data.strata == stratum
        assert row["samples"] == samples
        rmse = float(wrong[chosen].square().mean().sqrt())
        assert row["density"]["rmse"] == pytest.approx(rmse, rel=1e-4)
        # The elastic part of the force is exact: its error is that of the density, times g.
        assert row["force"]["rmse"] == pytest.approx(1.5 * rmse, rel=1e-4)
        rms = float(data.labels["force"][chosen].square().mean().sqrt())
        assert row["force"]["share"] == pytest.approx(row["force"]["rmse"] / rms)


def test_a_driver_that_changed_since_is_told(data):
    options = {**data.source.options, "driver_sha256": "0" * 64}
    changed = replace(data, source=replace(data.source, options=options))
    with pytest.raises(InputError, match="has other weights"):
        driver_errors(changed)
    assert driver_errors(changed, DRIVER)["driver"] == DRIVER
    with pytest.raises(InputError, match="name no driver"):
        driver_errors(replace(data, source=replace(data.source, options={})))


def test_the_jahn_teller_model_too(tmp_path, monkeypatch):
    """Driven by a network that knows nothing, which only this test lets pass."""
    options = {"lattice": 4, "random": 0, "trajectories": 4, "frames": 2, "last_time": 1.5}
    task = create_recipe("jahn_teller_square", **options).task
    torch.manual_seed(0)
    network = create_model("lattice_enn", task, width=4, blocks=1, output="direct").eval()
    weights = weights_bytes(network)
    (tmp_path / "model.safetensors").write_bytes(weights)
    (tmp_path / "config.json").write_text(json.dumps(model_config(network, weights)))
    monkeypatch.setattr("latticezoo.datasets.driver.WORST_START", 1e9)
    path = make_dataset(
        "jahn_teller_square",
        path=tmp_path / "jt.h5",
        workers=1,
        progress=False,
        driver=str(tmp_path),
        exact_trajectories=2,
        **options,
    )
    data = LabelledData.open(path)
    assert data.driven.tolist() == [0] * 4 + [1] * 4
    found = quantities(data)
    assert list(found) == list(QUANTITIES)
    sign = data.lattice.stagger
    order = (data.fields["Q"][:, :, QX] * sign).mean(1).abs()
    assert torch.allclose(found["order_parameter"], order)
    force = create_system("jahn_teller_half_filled", backend="lapack").forces(
        data.fields, data.lattice
    )["Q"]
    assert torch.allclose(found["force_square"], force.square().sum(2).mean(1))
    assert len(compare_populations(data).overall) == len(QUANTITIES)
    errors = driver_errors(data)["populations"]
    assert set(errors) == {"exact trajectory", "driven trajectory"}
    assert errors["driven trajectory"]["scaled_force"]["share"] > 0.5
