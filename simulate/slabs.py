"""One large simulation over several processes: slabs of the lattice with halos.

The lattice is cut across its first axis. Each process of a ``torch.distributed`` group holds one
slab of it, and takes from its two neighbours, before every force call, the rows that the force
field sees from its own sites: the halo. Slab and halo form a torus of their own on which the force
field is evaluated; what it gives for the halo, where the view wraps around that torus, is dropped.
The noise of a site depends on (seed, replica, step, site) alone, so that any number of processes
gives the trajectory of one, up to the rounding of the force field on lattices of different shape.

Every process runs the same script, with the same starting state:

    torch.distributed.init_process_group("gloo")
    state = run_slabs(field, Langevin(0.1, 0.1, 0.2), state, 1000, lattice=square(512))

On one machine ``torchrun --nproc-per-node 2 script.py`` starts them. Under SLURM, on two nodes with
four tasks each::

    #SBATCH --nodes=2 --ntasks-per-node=4 --cpus-per-task=4
    export MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
    export MASTER_PORT=29500 WORLD_SIZE=$SLURM_NTASKS OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK
    srun bash -c 'RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID python script.py'

On GPUs the group is ``"nccl"``, and each process puts the state and the network on the device of
its ``LOCAL_RANK``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch import distributed as dist

from latticezoo.simulate.dynamics.brownian import Brownian
from latticezoo.simulate.dynamics.langevin import Langevin
from latticezoo.simulate.forcefield import Fields
from latticezoo.simulate.run import simulate
from latticezoo.simulate.state import State
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.lattices import Lattice

Group = Any  # torch.distributed.ProcessGroup, where torch was built with it


def run_slabs(
    force_field: Any,
    dynamics: Langevin | Brownian,
    initial: State,
    steps: int,
    *,
    lattice: Lattice,
    radius: float | None = None,
    group: Group | None = None,
    batch_replicas: bool | None = None,
) -> State:
    """Run ``steps`` steps of a dynamics, every process on its slab of the lattice.

    Two calls, the second from the state of the first, give the bits of one call of as many steps:
    call it in legs to observe or save what happens, as ``examples/slab_quench.py`` does.

    Args:
        force_field: A local one: a system's with a network in the place of the electrons, or any
            with a finite range.
        dynamics: :class:`Langevin` or :class:`Brownian`.
        initial: The state of the whole lattice, the same in all processes.
        steps: Number of steps.
        lattice: The whole lattice.
        radius: How far the force on a site sees, in bond lengths. By default what the network of a
            system sees, and at least one bond for the part that is known exactly.
        group: The processes; by default all.
        batch_replicas: As for :func:`~latticezoo.simulate.run.simulate`.

    Returns:
        The state of the whole lattice, in all processes.

    Raises:
        InputError: The force field is not local, the dynamics another one, the lattice cannot be
            cut into so many slabs, or what :func:`~latticezoo.simulate.run.simulate` raises. The
            other processes then fail in their next exchange.
    """
    if not isinstance(dynamics, Langevin | Brownian):
        raise InputError(
            f"slabs run Langevin and Brownian dynamics, not {type(dynamics).__name__}."
        )
    _check_local(force_field)
    slab = Slab.of(lattice, sight(force_field) if radius is None else radius, group)
    result = simulate(
        SlabForceField(force_field, slab),
        dynamics,
        slab.cut_state(initial),
        steps,
        lattice=slab.own,
        progress=slab.rank == 0,
        batch_replicas=batch_replicas,
    )
    return slab.join_state(result.state)


def sight(force_field: Any) -> float:
    """How far the force on a site sees, in bond lengths.

    Args:
        force_field: A system with a network, whose other forces reach over one bond.

    Raises:
        InputError: It does not say how far it sees.
    """
    found = getattr(getattr(force_field, "model", None), "receptive_radius", None)
    if found is None:
        raise InputError(
            f"{type(force_field).__name__} does not say how far it sees; give its radius."
        )
    return max(1.0, float(found))


def _check_local(force_field: Any) -> None:
    """Refuse a force field that depends on all sites at once."""
    network = getattr(force_field, "model", None)
    if getattr(network, "conserved", None) is None:
        return
    if getattr(force_field.system, "chemical_potential", None) is None:
        raise InputError(
            f"{getattr(network, 'registry_name', 'the network')} keeps the number of particles, "
            "which no slab knows by itself; fix the chemical_potential of the system, or take a "
            "network without conserve."
        )


@dataclass(frozen=True)
class Slab:
    """The part of a lattice that one process holds: rows of cells along the first axis.

    Attributes:
        lattice: The whole lattice.
        halo: Rows of cells that are taken from each neighbour.
        rank: Number of this slab.
        ranks: Number of slabs.
        group: The processes; None: all.
    """

    lattice: Lattice
    halo: int
    rank: int
    ranks: int
    group: Group | None = None

    def __post_init__(self) -> None:
        rows = self.lattice.shape[0]
        if rows % self.ranks:
            raise InputError(
                f"the first side of {self.lattice} cannot be cut into {self.ranks} equal slabs; "
                "take a number of processes that divides it."
            )
        if self.ranks > 1 and rows // self.ranks < self.halo:
            raise InputError(
                f"{self.ranks} slabs of {self.lattice} hold {rows // self.ranks} rows each, fewer "
                f"than the {self.halo} that the force field sees beyond them; take fewer processes."
            )

    @classmethod
    def of(cls, lattice: Lattice, radius: float, group: Group | None = None) -> Slab:
        """The slab of this process.

        Args:
            lattice: The whole lattice.
            radius: How far a site sees, in bond lengths.
            group: The processes; None: all.

        Raises:
            InputError: No process group was set up, or the lattice cannot be cut.
        """
        if not (dist.is_available() and dist.is_initialized()):
            raise InputError(
                "slabs need a process group; call torch.distributed.init_process_group first."
            )
        ranks, rank = dist.get_world_size(group), dist.get_rank(group)
        return cls(lattice, rows_within(lattice, radius), rank, ranks, group)

    @property
    def own(self) -> Lattice:
        """The slab as a lattice, which says how many sites it has."""
        return self._with_rows(self.lattice.shape[0] // self.ranks)

    @property
    def padded(self) -> Lattice:
        """The torus that slab and halo form."""
        return self._with_rows(self.own.shape[0] + 2 * self.halo)

    @property
    def margin(self) -> int:
        """Sites of the halo on each side."""
        return self.halo * self.own.n_sites // self.own.shape[0]

    def _with_rows(self, rows: int) -> Lattice:
        return replace(self.lattice, shape=(rows, *self.lattice.shape[1:]))

    def cut(self, values: Tensor) -> Tensor:
        """This slab's part ``[R, n, …]`` of values ``[R, N, …]`` on the whole lattice."""
        count = self.own.n_sites
        return values[:, self.rank * count : (self.rank + 1) * count].clone()

    def join(self, values: Tensor) -> Tensor:
        """Values ``[R, N, …]`` on the whole lattice from the parts ``[R, n, …]`` of all slabs."""
        parts = [torch.empty_like(values) for _ in range(self.ranks)]
        dist.all_gather(parts, values.contiguous(), group=self.group)
        return torch.cat(parts, dim=1)

    def pad(self, values: Tensor) -> Tensor:
        """Values ``[R, n + 2 margin, …]`` on slab and halo from those ``[R, n, …]`` on the slab."""
        if not self.halo:
            return values
        last, first = values[:, -self.margin :].contiguous(), values[:, : self.margin].contiguous()
        before, after = torch.empty_like(last), torch.empty_like(first)
        below, above = ((self.rank + step) % self.ranks for step in (-1, 1))
        if self.group is not None:
            below, above = (dist.get_global_rank(self.group, peer) for peer in (below, above))
        # Of two processes each is both neighbours of the other: upward messages go first.
        orders = [
            dist.P2POp(dist.isend, last, above, self.group, 0),
            dist.P2POp(dist.irecv, before, below, self.group, 0),
            dist.P2POp(dist.isend, first, below, self.group, 1),
            dist.P2POp(dist.irecv, after, above, self.group, 1),
        ]
        for request in dist.batch_isend_irecv(orders):
            request.wait()
        return torch.cat([before, values, after], dim=1)

    def cut_state(self, state: State) -> State:
        """This slab's part of a state of the whole lattice.

        Raises:
            InputError: A field has another number of sites.
        """
        for name, values in state.fields.items():
            if values.shape[1] != self.lattice.n_sites:
                raise InputError(
                    f"field {name!r} has {values.shape[1]} sites, but {self.lattice} has "
                    f"{self.lattice.n_sites}; the two must agree."
                )
        first = self.rank * self.own.n_sites
        return replace(_each(state, self.cut), sites=(first, self.lattice.n_sites))

    def join_state(self, state: State) -> State:
        """The state of the whole lattice, in every process."""
        return replace(_each(state, self.join), sites=None)


def _each(state: State, change: Any) -> State:
    """A state with all that lives on sites changed."""

    def changed(table: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: change(values) for name, values in table.items()}

    return replace(
        state,
        fields=changed(state.fields),
        momenta=changed(state.momenta),
        forces=changed(state.forces),
    )


@dataclass(frozen=True)
class SlabForceField:
    """A force field on a slab: halos are exchanged in every call, which all processes make.

    Attributes:
        force_field: A local one.
        slab: Which part of the lattice this process holds.
    """

    force_field: Any
    slab: Slab

    @property
    def batch_invariant(self) -> bool:
        """Whether the bits of a replica's forces do not depend on the batch."""
        return bool(getattr(self.force_field, "batch_invariant", False))

    def forces(self, fields: Fields, lattice: Lattice) -> dict[str, Tensor]:
        """Forces ``[R, n, C]`` on the sites of the slab.

        Args:
            fields: Values ``[R, n, C]`` on the slab.
            lattice: The slab as a lattice.
        """
        slab = self.slab
        if slab.ranks == 1:
            return dict(self.force_field.forces(fields, lattice))
        padded = {name: slab.pad(values) for name, values in fields.items()}
        found = self.force_field.forces(padded, slab.padded)
        inside = slice(slab.margin, slab.margin + lattice.n_sites)
        return {name: force[:, inside] for name, force in found.items()}


def rows_within(lattice: Lattice, radius: float) -> int:
    """Rows of cells along the first axis that a site sees beyond its own, to either side.

    Args:
        lattice: The lattice; its shape does not matter.
        radius: How far a site sees, in bond lengths.

    Raises:
        InputError: The radius is negative or not finite.
    """
    if not (math.isfinite(radius) and radius >= 0):
        raise InputError(f"a force field sees a finite distance of at least 0, not {radius!r}.")
    # The first cell coordinate changes along the normal of the rows alone.
    normal = np.linalg.inv(lattice.vectors)[:, 0]
    cell = replace(lattice, shape=(1,) * lattice.dim)
    along = cell.positions.numpy() @ normal
    return math.floor(radius * float(np.linalg.norm(normal)) + float(np.ptp(along)) + 1e-9)
