"""Graphs of torch-geometric and back."""

import pytest
import torch
from torch_geometric.nn import SimpleConv

from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.lattices import diamond, honeycomb, square, triangular
from latticezoo.zoo import create_model
from latticezoo.zoo.interop import from_pyg, to_pyg
from latticezoo.zoo.testing import random_fields, scalar_task

LATTICES = [square(4, 5), triangular(4), honeycomb(3), diamond(2)]


@pytest.mark.parametrize("lattice", LATTICES, ids=str)
def test_fields_come_back_as_they_went(lattice):
    sites = lattice.n_sites
    fields = {
        "Q": torch.randn(3, sites, 2),
        "U": torch.randn(3, sites, 2, 3, dtype=torch.complex64),
    }
    again, found = from_pyg(to_pyg(fields, lattice))
    assert found == lattice
    assert all(torch.equal(again[name], values) for name, values in fields.items())
    single, found = from_pyg(to_pyg({"Q": fields["Q"][0]}, lattice))
    assert torch.equal(single["Q"], fields["Q"][:1])


@pytest.mark.parametrize("lattice", LATTICES, ids=str)
def test_messages_along_the_edges_are_neighbour_sums(lattice):
    values = torch.randn(2, lattice.n_sites, 3, dtype=torch.float64)
    data = to_pyg({"Q": values}, lattice)
    summed = SimpleConv(aggr="sum")(data.x, data.edge_index).view_as(values)
    torch.testing.assert_close(summed, lattice.neighbour_sum(values))


def test_a_network_runs_on_what_comes_back():
    task, lattice = scalar_task("square"), square(6)
    network = create_model("gcn", task, widths=[4]).eval()
    fields = random_fields(task, lattice, dtype=torch.float32)
    expected = network(fields, lattice)
    given, found = from_pyg(to_pyg(fields, lattice))
    torch.testing.assert_close(network(given, found)["force"], expected["force"])


def test_what_is_no_field_is_refused():
    with pytest.raises(InputError, match=r"has the shape \(9, 1\); square\(4, 4\) takes \[16"):
        to_pyg({"Q": torch.zeros(9, 1)}, square(4))
    with pytest.raises(InputError, match="all fields alike"):
        to_pyg({"Q": torch.zeros(2, 16, 1), "P": torch.zeros(3, 16, 1)}, square(4))
    with pytest.raises(InputError, match="at least one field"):
        to_pyg({}, square(4))
    data = to_pyg({"Q": torch.zeros(16, 1)}, square(4))
    data.field_Q = data.field_Q[:9]
    with pytest.raises(InputError, match="has 9 sites"):
        from_pyg(data)
    del data.field_Q
    with pytest.raises(InputError, match="no fields"):
        from_pyg(data)
    del data.lattice
    with pytest.raises(InputError, match=r"data\.lattice"):
        from_pyg(data)
