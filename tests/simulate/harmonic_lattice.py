"""Small force fields with known answers, for the tests of the simulation engine."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from latticezoo.symmetry.lattices import Lattice


@dataclass(frozen=True)
class HarmonicLattice:
    """V = Σ K Q²/2 + κ Σ_<ij> Q_i Q_j + a Σ Q⁴/4: the Holstein lattice at g = 0 (a = 0)."""

    stiffness: float = 1.0
    coupling: float = 0.0
    quartic: float = 0.0

    def forces(self, fields: Mapping[str, Tensor], lattice: Lattice) -> dict[str, Tensor]:
        Q = fields["Q"]
        force = -(self.stiffness * Q)
        if self.coupling:
            force = force - self.coupling * lattice.neighbour_sum(Q)
        if self.quartic:
            force = force - self.quartic * Q * Q * Q
        return {"Q": force}

    def energy(self, fields: Mapping[str, Tensor], lattice: Lattice) -> Tensor:
        Q = fields["Q"]
        local = 0.5 * self.stiffness * Q**2 + 0.25 * self.quartic * Q**4
        if self.coupling:
            local = local + 0.5 * self.coupling * Q * lattice.neighbour_sum(Q)
        return local.sum((1, 2))


@dataclass(frozen=True)
class Disturbed(HarmonicLattice):
    """The same, with something happening at one force call (not part of the description)."""

    _at_call: int = -1
    _event: Callable[[], None] = os.abort
    _calls: list[int] = field(default_factory=list)

    def forces(self, fields: Mapping[str, Tensor], lattice: Lattice) -> dict[str, Tensor]:
        self._calls.append(1)
        if len(self._calls) == self._at_call:
            self._event()
        return super().forces(fields, lattice)


class Network(torch.nn.Module):
    """A small convolution network as a force field: its low bits do depend on the batch."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        torch.manual_seed(7)
        layers = [(1, 16), (16, 16), (16, 1)]
        self.weights = torch.nn.ParameterList(
            [torch.randn(b, a, 3, 3, dtype=dtype) / (9 * a) ** 0.5 for a, b in layers]
        )

    def forces(self, fields: Mapping[str, Tensor], lattice: Lattice) -> dict[str, Tensor]:
        Q = fields["Q"]
        hidden = Q.reshape(-1, 1, *lattice.shape).to(self.weights[0].dtype)
        for number, weight in enumerate(self.weights):
            hidden = torch.nn.functional.pad(hidden, (1, 1, 1, 1), mode="circular")
            hidden = torch.nn.functional.conv2d(hidden, weight)
            if number < len(self.weights) - 1:
                hidden = torch.nn.functional.silu(hidden)
        return {"Q": hidden.reshape(Q.shape) - Q}
