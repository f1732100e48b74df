"""Fields as graphs of torch-geometric, and back.

    >>> data = to_pyg({"Q": torch.randn(64, 1)}, square(8))
    >>> fields, lattice = from_pyg(data)

Any network of torch-geometric then runs on ``data.x`` and ``data.edge_index``; and every network of
the zoo is a plain ``torch.nn.Module`` called with ``(fields, lattice)``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.lattices import Lattice

if TYPE_CHECKING:
    from torch_geometric.data import Batch, Data

_PREFIX = "field_"


def to_pyg(fields: Mapping[str, Tensor], lattice: Lattice, shell: int = 1) -> Data | Batch:
    """Fields on a lattice as a graph, or as a batch of graphs.

    Args:
        fields: By name, ``[sites, …]`` for one graph or ``[batch, sites, …]`` for a batch; all of
            them one or the other. A field ``[sites, C]`` of a single graph has two axes, so that
            one with three belongs to a batch.
        lattice: Where they live; nodes are its sites, row-major.
        shell: Which neighbours the edges go to; every bond is there in both directions.

    Returns:
        ``Data`` with ``edge_index``, ``pos`` (bond lengths), ``lattice`` (its name), the fields as
        ``field_<name>``, and ``x``, all fields side by side ``[sites, C]``; or a ``Batch`` of them.

    Raises:
        InputError: There is no field, or one with another number of sites.
    """
    from torch_geometric.data import Batch, Data

    if not fields:
        raise InputError("a graph needs at least one field.")
    first = next(iter(fields.values()))
    single = any(values.dim() == 2 for values in fields.values())
    leading = () if single else tuple(first.shape[:1])
    for name, values in fields.items():
        head = tuple(values.shape[: len(leading) + 1])
        if values.dim() < len(leading) + 2 or head != (*leading, lattice.n_sites):
            raise InputError(
                f"the field {name!r} has the shape {tuple(values.shape)}; {lattice} takes "
                f"[{lattice.n_sites}, channels] or [batch, {lattice.n_sites}, channels], all "
                "fields alike."
            )
    edges, positions = lattice.edge_index(shell), lattice.positions

    def graph(values: Mapping[str, Tensor]) -> Data:
        made = Data(edge_index=edges, pos=positions.to(torch.get_default_dtype()))
        made.lattice = str(lattice)
        for name, value in values.items():
            made[_PREFIX + name] = value
        made.x = torch.cat([value.flatten(1) for value in values.values()], 1)
        return made

    if single:
        return graph(fields)
    rows = range(len(first))
    return Batch.from_data_list([graph({k: v[row] for k, v in fields.items()}) for row in rows])


def from_pyg(data: Data | Batch) -> tuple[dict[str, Tensor], Lattice]:
    """Fields and lattice of a graph, or of a batch of graphs, that :func:`to_pyg` made.

    Args:
        data: Its values may have changed, its sites may not.

    Returns:
        Fields ``[batch, sites, …]``, as networks take them (a batch of one for a single graph), and
        the lattice.

    Raises:
        InputError: It does not tell its lattice, has graphs of several lattices, or no fields.
    """
    from torch_geometric.data import Batch

    graphs = data.to_data_list() if isinstance(data, Batch) else [data]
    lattices = {str(getattr(graph, "lattice", "")) for graph in graphs}
    if len(lattices) != 1 or lattices == {""}:
        raise InputError(
            "the graphs must all be of one lattice, and tell it as data.lattice = 'square(8)'."
        )
    lattice = Lattice.parse(lattices.pop())
    names = [key for key in graphs[0].to_dict() if key.startswith(_PREFIX)]
    if not names:
        raise InputError(f"the graph has no fields: no attribute begins with {_PREFIX!r}.")
    fields = {
        name.removeprefix(_PREFIX): torch.stack([graph[name] for graph in graphs]) for name in names
    }
    for name, values in fields.items():
        if values.shape[1] != lattice.n_sites:
            raise InputError(
                f"the field {name!r} has {values.shape[1]} sites, {lattice} {lattice.n_sites}."
            )
    return fields, lattice
