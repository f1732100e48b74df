"""Export a network so that it runs without this library: ``torch.export``, one lattice, one file.

    >>> network = load_pretrained("gcn.holstein_weak")
    >>> export_network(network, square(24), "gcn.pt2")  # doctest: +SKIP

and elsewhere, with PyTorch alone::

    program = torch.export.load("gcn.pt2").module()
    outputs = program(values)  # {"density": [batch, sites, 1]}, float32, physical units

Sites, batch and floating-point type are those of the export. Networks that differentiate an energy
come with the derivative written out; those that keep the number of particles search it in a fixed
number of evaluations.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.lattices import Lattice
from latticezoo.symmetry.testing import random_inputs
from latticezoo.zoo.base import ZooModel
from latticezoo.zoo.conservation import solve

#: Name of the description beside the program.
DESCRIPTION = "latticezoo.json"
#: Largest deviation of the exported program from the network, as a share of the largest output.
_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-9}


class _OnLattice(nn.Module):
    """A network on one lattice: tensors in the order of the task's inputs, a table of targets."""

    def __init__(self, network: ZooModel, lattice: Lattice) -> None:
        super().__init__()
        self.network, self.lattice = network, lattice

    def forward(self, *values: Tensor) -> dict[str, Tensor]:
        """Targets by name."""
        network = self.network
        fields = {f.name: v for f, v in zip(network.task.inputs, values, strict=True)}
        rule = network.conserved
        if rule is None:
            return network(fields, self.lattice)
        return solve(
            lambda given: network._local(given, self.lattice), fields, rule, unrolled=True
        ).outputs


def exported(network: ZooModel, lattice: Lattice, batch: int = 1) -> Any:
    """The program of a network on a lattice, a ``torch.export.ExportedProgram``.

    Args:
        network: With its weights; it is not changed.
        lattice: The lattice that the program is for.
        batch: Samples in one call.

    Raises:
        InputError: The network cannot be traced, or the program does not do what the network does.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    if batch < 1:
        raise InputError(f"a batch of {batch} is none; it must be at least 1.")
    dtype = next(network.parameters()).dtype
    frozen = copy.deepcopy(network).cpu().eval().requires_grad_(False)
    program = _OnLattice(frozen, lattice)
    examples = [_inputs(frozen, lattice, batch, dtype, seed) for seed in range(3)]
    with torch.no_grad():
        wanted = [program(*values) for values in examples]  # checks the lattice, fills caches
        try:
            # The derivative of an energy becomes part of the trace.
            traced = make_fx(program)(*examples[0])
            made = torch.export.export(traced, examples[0], strict=False)
        except Exception as error:  # whatever a tracer of another package finds
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise InputError(
                f"{network.registry_name} cannot be exported on {lattice}: {reason}"
            ) from error
        run = made.module()
        for values, outputs in zip(examples, wanted, strict=True):
            _compare(run(*values), outputs, network.registry_name)
    return made


def export_network(
    network: ZooModel, lattice: Lattice, path: str | os.PathLike[str], batch: int = 1
) -> Path:
    """Write the program of a network on a lattice to a file for ``torch.export.load``.

    Args:
        network: With its weights.
        lattice: The lattice that the program is for.
        path: The file, ``.pt2``.
        batch: Samples in one call.

    Returns:
        The path. A description of inputs and targets lies in the file as ``latticezoo.json``.

    Raises:
        InputError: As :func:`exported`, or for another suffix.
    """
    target = Path(path)
    if target.suffix != ".pt2":
        raise InputError(f"{target.name} must end in .pt2, as torch.export wants it.")
    made = exported(network, lattice, batch)
    described = {
        **network.config(),
        "lattice": str(lattice),
        "batch": batch,
        "dtype": str(next(network.parameters()).dtype).removeprefix("torch."),
        "inputs": [field.name for field in network.task.inputs],
        "targets": [field.name for field in network.task.targets],
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}-{os.getpid()}.pt2")
    try:
        torch.export.save(made, beside, extra_files={DESCRIPTION: json.dumps(described)})
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)
    return target


def _inputs(
    network: ZooModel, lattice: Lattice, batch: int, dtype: torch.dtype, seed: int
) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    fields = random_inputs(network.task, lattice, batch, dtype, generator)
    return tuple(fields[field.name] for field in network.task.inputs)


def _compare(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], name: str) -> None:
    for key, value in wanted.items():
        error = float((found[key] - value).abs().max() / value.abs().max().clamp(min=1e-30))
        if not error <= _TOLERANCE[value.dtype]:
            raise InputError(
                f"the exported {name} differs from the network by {error:.1e} of the largest {key}."
            )
