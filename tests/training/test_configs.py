"""Packaged configurations: every one names a network and data that fit together, or a plan."""

from importlib.resources import files

import pytest

from latticezoo.datasets import create_data
from latticezoo.datasets.series import SeriesData
from latticezoo.training.names import read_config
from latticezoo.training.simulate_command import Plan
from latticezoo.zoo import create_model

NAMES = sorted(
    entry.name
    for entry in files("latticezoo.training.configs").iterdir()
    if entry.name.endswith(".yaml")
)


@pytest.mark.parametrize("name", NAMES)
def test_a_packaged_configuration_builds(name):
    given = read_config(name)
    if "system" in given:
        assert Plan.make(given).steps > 0
        return
    if "name" in given["data"]:
        # A roll-out; its network comes from elsewhere.
        assert isinstance(create_data(**given["data"]), SeriesData)
        assert given["steps"] > 0
        return
    data = create_data(given["data"]["class_path"], **given["data"]["init_args"])
    network = create_model(given["model"]["class_path"], data.task, **given["model"]["init_args"])
    data.lattice.require(network.required_shells)
    assert network.task == data.task
    assert given["trainer"]["max_epochs"] > 0
