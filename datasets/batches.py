"""Batches from memory, in an order that depends on the seed and the epoch alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch import distributed as dist
from torch.utils.data import DataLoader, Dataset, DistributedSampler, Sampler, SequentialSampler

from latticezoo.datasets.labelled import KINDS, LabelledData
from latticezoo.simulate.noise import generator
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.lattices import Lattice


@dataclass(eq=False)
class Batch(Mapping[str, Any]):
    """What a model gets: read it as ``batch["fields"]`` or ``batch.fields``.

    It is a dataclass whose ``lattice`` is no constructor argument because Lightning converts
    batches (``precision="64-true"``) by rebuilding the dataclasses inside, which frozen ones such
    as a lattice do not allow; fields that are no argument it leaves as they are.

    Attributes:
        fields: Inputs by name, ``[B, N, C]``.
        targets: Targets by name, ``[B, N, C]``.
        kind: ``[B]`` int64: 0 random configuration, 1 frame of a trajectory.
        energy: ``[B]`` total (free) energy in units of t, if the data have it.
        chemical_potential: ``[B]``, in units of t, if the data have it.
        scored: Of windows of time series, the number of last frames by which networks are judged.
        lattice: The lattice of all samples.
    """

    fields: dict[str, Tensor]
    targets: dict[str, Tensor]
    kind: Tensor
    energy: Tensor | None = None
    chemical_potential: Tensor | None = None
    scored: int | None = None
    lattice: Lattice = field(init=False)

    def __getitem__(self, name: str) -> Any:
        if name in self._names():
            return getattr(self, name)
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())

    def _names(self) -> tuple[str, ...]:
        optional = ("energy", "chemical_potential", "scored")
        there = (name for name in optional if getattr(self, name) is not None)
        return ("fields", "targets", "kind", *there, "lattice")


class Samples(Dataset[Batch]):
    """Some samples of labelled data as tensors in memory.

    Args:
        data: The data.
        indices: ``[n]`` int64, the samples to take.
        dtype: Floating-point type of the tensors.
    """

    def __init__(self, data: LabelledData, indices: Tensor, dtype: torch.dtype) -> None:
        def take(table: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {
                name: values[indices].to(dtype.to_complex() if values.is_complex() else dtype)
                for name, values in table.items()
            }

        self.lattice = data.lattice
        self.fields = take(data.fields)
        self.targets = take(data.targets)
        self.kind = data.kind[indices]
        self.energy = None if data.energy is None else data.energy[indices].to(dtype)
        potential = data.labels.get("chemical_potential")
        self.chemical_potential = None if potential is None else potential[indices].to(dtype)

    def __len__(self) -> int:
        return len(self.kind)

    def __getitem__(self, index: int) -> Batch:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        rows = torch.as_tensor(indices)
        batch = Batch(
            {name: values[rows] for name, values in self.fields.items()},
            {name: values[rows] for name, values in self.targets.items()},
            self.kind[rows],
            None if self.energy is None else self.energy[rows],
            None if self.chemical_potential is None else self.chemical_potential[rows],
        )
        batch.lattice = self.lattice
        return batch


class EpochSampler(Sampler[int]):
    """All samples once, in an order that is a function of (seed, epoch).

    Lightning calls :meth:`set_epoch` before every epoch, also after a resume, so that a resumed
    fit sees the batches that an uninterrupted one would have seen.

    Args:
        n: Number of samples.
        seed: Seed of the shuffling.
    """

    def __init__(self, n: int, seed: int) -> None:
        self.n, self.seed, self.epoch = n, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        order: np.ndarray = generator(self.seed, 0, self.epoch, "shuffle").permutation(self.n)
        return iter(order.tolist())

    def __len__(self) -> int:
        return self.n


class MixedSampler(EpochSampler):
    """As many samples as there are, a given share of them random configurations, evenly mixed.

    Of any k samples in a row k·share are random configurations, up to one, so every batch holds
    the same mixture. The kind of which there are too few is gone through several times in an epoch,
    each time in a new order; of the other kind each epoch takes other samples.

    Args:
        kind: ``[n]`` 0 for a random configuration, 1 for a frame of a trajectory.
        share: Share of random configurations, between 0 and 1.
        seed: Seed of the shuffling.
    """

    def __init__(self, kind: Tensor, share: float, seed: int) -> None:
        super().__init__(len(kind), seed)
        self.share = share
        self.pools = [torch.nonzero(kind == number).flatten().numpy() for number in (0, 1)]

    def __iter__(self) -> Iterator[int]:
        numbers = np.floor(np.arange(self.n + 1) * self.share + 0.5)
        is_random = np.diff(numbers) > 0
        order = np.empty(self.n, dtype=np.int64)
        for number, chosen in enumerate((is_random, ~is_random)):
            order[chosen] = self._draw(number, int(chosen.sum()))
        return iter(order.tolist())

    def _draw(self, number: int, count: int) -> np.ndarray:
        """The next ``count`` samples of one kind in an endless sequence of shuffled passes."""
        pool, drawn = self.pools[number], []
        start = self.epoch * count
        for turn in range(start // len(pool), -(-(start + count) // len(pool))) if count else ():
            order = generator(self.seed, number, turn, "mix").permutation(pool)
            first = turn * len(pool)
            drawn.append(order[max(0, start - first) : start + count - first])
        return np.concatenate(drawn) if drawn else np.empty(0, dtype=np.int64)


class ProcessSampler(DistributedSampler[int]):
    """The share of one of R processes that train together: every R-th sample of all.

    The k-th batches of all processes, 1/R of the size each, are then the samples of the k-th batch
    of a single process, and the mean of their gradients is its gradient. Lightning leaves a sampler
    of this type as it is, where it would shuffle any other one anew.

    Args:
        whole: What a single process would go through.
        processes: R.
        rank: Number of this process.
        even: Whether all processes get equally many samples, as training needs, by repeating the
            first ones where R does not divide the number.
    """

    def __init__(self, whole: Sampler[int], processes: int, rank: int, even: bool) -> None:
        super().__init__(cast(Any, whole), processes, rank, shuffle=False)
        self.whole, self.even = whole, even

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch."""
        if isinstance(self.whole, EpochSampler):
            self.whole.set_epoch(epoch)

    def __iter__(self) -> Iterator[int]:
        order = list(self.whole)
        if self.even:
            order += order[: -len(order) % self.num_replicas]
        return iter(order[self.rank :: self.num_replicas])

    def __len__(self) -> int:
        count = len(cast(Any, self.whole))
        if self.even:
            return -(-count // self.num_replicas)
        return len(range(self.rank, count, self.num_replicas))


def loader(
    samples: Samples,
    batch_size: int,
    seed: int | None = None,
    random_share: float | None = None,
    shared: bool = False,
) -> DataLoader[Batch]:
    """A loader of batches; shuffled when a seed is given, otherwise in order.

    Args:
        samples: The samples.
        batch_size: Samples in a batch, of all processes together where they share the work.
        seed: Seed of the shuffling.
        random_share: Share of random configurations in every shuffled batch; as there are by
            default.
        shared: Whether the processes of a parallel run, if this is one, divide the samples among
            them; otherwise each gets all.

    Raises:
        InputError: A share for which there are no samples, or a batch that cannot be divided.
    """
    sampler: EpochSampler | None = None
    if seed is not None and random_share is None:
        sampler = EpochSampler(len(samples), seed)
    elif seed is not None and random_share is not None:
        for number, share in ((0, random_share), (1, 1 - random_share)):
            if share > 0 and not bool((samples.kind == number).any()):
                raise InputError(
                    f"random_share is {random_share:g}, but the training split holds no "
                    f"{KINDS[number]} samples."
                )
        sampler = MixedSampler(samples.kind, random_share, seed)
    chosen: Sampler[int] | None = sampler
    processes = _processes() if shared else 1
    if processes > 1:
        if batch_size % processes:
            raise InputError(
                f"a batch of {batch_size} samples cannot be divided among {processes} processes; "
                "batch_size must be a multiple of their number."
            )
        batch_size //= processes
        whole = SequentialSampler(samples) if sampler is None else sampler
        chosen = ProcessSampler(whole, processes, dist.get_rank(), even=seed is not None)
    return DataLoader(samples, batch_size=batch_size, sampler=chosen, collate_fn=_as_it_is)


def _processes() -> int:
    """Processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _as_it_is(batch: Any) -> Any:
    return batch
