"""Gauge-equivariant graph network: matrices that transform with the links, at every layer.

Rayat, Li and Chern, arXiv:2604.20797, describe the principle, and Favoni, Ipp, Müller and Schuh,
Phys. Rev. Lett. 128, 032003 (2022), how transport and products build any loop; the layers here are
this library's own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.gauge import polyakov_loop
from latticezoo.symmetry.lattices import Lattice
from latticezoo.symmetry.tasks import Task
from latticezoo.zoo.gauge_model import GLOBAL, GaugeModel
from latticezoo.zoo.layers import incidence
from latticezoo.zoo.layers.covariant import CovariantLayer, rescaled
from latticezoo.zoo.layers.energy_graph import fan_in_linear
from latticezoo.zoo.layers.flags import (
    FLAGS,
    STEPS,
    Matrices,
    Surroundings,
    components,
    per_flag,
)
from latticezoo.zoo.layers.loop_graph import Inputs
from latticezoo.zoo.layers.path_moments import StandardMoments
from latticezoo.zoo.registry import register


@dataclass(frozen=True)
class _Read:
    """Features, their surroundings, and the numbers ``[B, N, 8, C]`` that targets are read from."""

    features: Matrices
    around: Surroundings
    numbers: Tensor
    moments: StandardMoments | None


@register("gauge_gnn")
class GaugeGNN(GaugeModel):
    r"""Matrices on sites and links, carried along links and multiplied into loops.

    Features transform as :math:`H_i \to g_i H_i g_i^\dagger`. A layer brings those of the
    neighbours, :math:`U_{ij} H_j U_{ij}^\dagger`, multiplies real combinations pairwise, and scales
    the result by gates that depend on invariants. There are eight sets of them at each site, one
    for every link from it and every side of that link, which is what a link feature
    :math:`V_{ij} = H_i U_{ij}` amounts to; layers act alike on all eight, in the frame of link and
    side, so that D4 is exact and yet directions differ
    (:mod:`~latticezoo.zoo.layers.flags`, :mod:`~latticezoo.zoo.layers.covariant`). Wilson loops of
    any shape form by and by: with products their area can double from layer to layer.

    Targets are read from invariants: numbers of sites and links, currents (U(1)) as the curl of one
    odd number per plaquette, so without divergence; forces of SU(2) are covariant vectors. Forces
    that are paired with the links are by default minus the Lie derivatives of a learned energy.

    With ``path_moments`` the sums over all closed paths up to a length go in as numbers, and
    their linear sums are fit in one pass (:mod:`~latticezoo.zoo.layers.path_series`), that of a
    learned energy to the forces: fermions at low temperature see loops of any length.

    Presets:
        ``compact``: three layers of 8 channels (SU(2)).
        ``moments``: two layers, with path moments up to order 47 in place of Polyakov loops.
        ``paper``: six layers of 16 channels.

    Args:
        task: What to learn.
        preset: ``"compact"``, ``"moments"`` or ``"paper"``.
        channels: Channels of the features of a flag.
        layers: Number of layers.
        products: Pairs of matrices that a layer multiplies.
        hidden: Invariant numbers that go through the nonlinearity of a layer.
        leaves: Whether the plaquettes go in. Otherwise the start is the identity alone, and layers
            carry link features around plaquettes to make them.
        polyakov: Whether Polyakov loops go in. Without them the network is local.
        path_moments: Highest order of the path moments that go in, 3 or more, or 0 for none. They
            are decorrelated by the training data.
        normalization: ``"rms"`` rescales features before they are multiplied, ``"none"`` does not.
        output: Where forces are paired with the links: ``"energy"`` or ``"direct"``.
        **training: Learning rate, optimizer, schedule: see
            :class:`~latticezoo.zoo.base.ZooModel`.

    Raises:
        InputError: When the task is not from links on the square lattice to invariant numbers,
            currents and forces, or an option is wrong.
    """

    presets: ClassVar = {
        "compact": {
            "channels": 8,
            "layers": 3,
            "products": 8,
            "hidden": 16,
            "leaves": True,
            "polyakov": True,
            "path_moments": 0,
            "normalization": "rms",
            "output": "energy",
            "learning_rate": 3e-3,
        },
        "moments": {
            "layers": 2,
            "polyakov": False,
            "path_moments": 47,
            "learning_rate": 3e-4,  # it begins at the linear sums, which large steps would spoil
        },
        "paper": {"channels": 16, "layers": 6, "products": 16, "hidden": 32, "learning_rate": 1e-3},
    }
    groups: ClassVar = ("Z2", "U1", "SU2")

    def __init__(
        self,
        task: Task | dict[str, Any],
        *,
        preset: str = "compact",
        channels: int | None = None,
        layers: int | None = None,
        products: int | None = None,
        hidden: int | None = None,
        leaves: bool | None = None,
        polyakov: bool | None = None,
        path_moments: int | None = None,
        normalization: str | None = None,
        output: str | None = None,
        **training: Any,
    ) -> None:
        super().__init__(
            task,
            preset=preset,
            architecture={
                "channels": channels,
                "layers": layers,
                "products": products,
                "hidden": hidden,
                "leaves": leaves,
                "polyakov": polyakov,
                "path_moments": path_moments,
                "normalization": normalization,
                "output": output,
            },
            **training,
        )
        options = self.options
        for name in ("channels", "layers", "products", "hidden"):
            if options[name] < 1:
                raise InputError(f"{name} must be 1 or more, not {options[name]}.")
        if options["normalization"] not in ("rms", "none"):
            raise InputError(
                f"normalization must be 'rms' or 'none', not {options['normalization']!r}."
            )
        self.check_task()
        self.has_charge = self.task.gauge != "Z2"
        width = options["channels"]
        self.build_moments(options["path_moments"])
        paths = self.moments.site_count + self.moments.link_count if self.moments else 0
        loops = bool(options["leaves"]) + 2 * bool(options["polyakov"])
        self.number_input = Inputs(loops + len(self.scalars) + paths, width)
        if self.has_charge and loops:
            self.charged_input = fan_in_linear(loops, width, 1.0, bias=False)
        self.blocks = nn.ModuleList(
            CovariantLayer(
                width,
                options["products"],
                options["hidden"],
                self.has_charge,
                not options["leaves"],
                options["normalization"] == "rms",
            )
            for _ in range(options["layers"])
        )
        self._build_heads(width, options["products"], options["hidden"])

    def _build_heads(self, width: int, products: int, hidden: int) -> None:
        counts = {
            kind: sum(self._channels(field.name) for field in self.direct(kind))
            for kind in ("global", "site", "link")
        }
        odd = len(self.direct("current")) + len(self.direct("adjoint"))
        local = counts["global"] + counts["site"] + bool(self.derived)
        if self.has_charge:
            self.pairs = fan_in_linear(width, 2 * products, 1.0, bias=False)
        seen = width + products * self.has_charge
        self.shown = fan_in_linear(seen, hidden, 1.0)
        if local:
            self.site_head = fan_in_linear(seen + hidden, local, 0.3)
            self.fix_zero(self.site_head)
        if counts["link"]:
            self.link_head = fan_in_linear(seen + hidden, counts["link"], 0.3)
        if self.moments and self.moments.site_count and self.derived:
            self.energy_series = fan_in_linear(self.moments.site_count, 1, 0.3, bias=False)
        if odd:
            self.odd_head = fan_in_linear(width, odd, 0.3, bias=False)
            self.odd_gate = fan_in_linear(seen + hidden, odd, 0.3)
            if self.direct("current") and self.options["polyakov"]:
                self.cycle_head = fan_in_linear(width, odd, 0.3, bias=False)

    def _channels(self, name: str) -> int:
        return len(self.target_scaling.scale(name))

    # ---- evaluation ----------------------------------------------------------------------------

    def features(self, fields: Mapping[str, Tensor], lattice: Lattice) -> _Read:
        """Features of all flags after all layers."""
        links = self.complex_links(fields[self.links.name])
        group = str(self.task.gauge)
        around = Surroundings.of(links, lattice, group)
        inputs = [around.leaf] if self.options["leaves"] else []
        if self.options["polyakov"]:
            ways = [polyakov_loop(links, lattice, way) for way in (1, -1, 2, -2)]
            sides = torch.stack(ways, 2)  # laid out as links are
            inputs += [per_flag(components(sides, group), way) for way in (0, 1)]
        scalars = [
            fields[field.name][:, :, None, None].expand(-1, -1, -1, 8, -1) for field in self.scalars
        ]
        moments = None
        if self.moments:
            moments = self.moments(links, lattice)
            scalars += self._paths(moments, lattice)
        values = self._start(inputs, scalars, around)
        for block in self.blocks:
            values = block(values, around)
        if self.options["normalization"] == "rms":
            values = rescaled(values)
        numbers = values.numbers
        if values.charged is not None:
            a, b = self.pairs(values.charged).chunk(2, dim=-1)
            numbers = torch.cat([numbers, (a * b).sum(2, keepdim=True)], -1)
        numbers = torch.cat([numbers, F.silu(self.shown(numbers))], -1)
        return _Read(values, around, numbers[:, :, 0], moments)

    @staticmethod
    def _paths(moments: StandardMoments, lattice: Lattice) -> list[Tensor]:
        """Path moments of the sites, and of the link along e1, at all flags."""
        target, ways = lattice.link_target, []
        for way in (0, 1):  # a moment has no direction: there and back at once
            back = torch.empty_like(moments.links[:, :, way])
            back[:, target[:, way]] = moments.links[:, :, way]
            ways += [moments.links[:, :, way], back]
        along = torch.stack(ways, 2)[:, :, [e1 for e1, _ in FLAGS]]  # [B, N, 8, K]
        sites = moments.sites[:, :, None].expand(-1, -1, 8, -1)
        return [sites[:, :, None], along[:, :, None]]

    def _start(
        self, loops: list[Matrices], scalars: list[Tensor], around: Surroundings
    ) -> Matrices:
        """The identity, the loops that go in, and further numbers of the sites."""
        leaf = around.leaf
        none = leaf.numbers[..., :0]
        numbers = torch.cat([none, *(loop.numbers for loop in loops), *scalars], -1)
        start = self.number_input(numbers)
        if leaf.charged is None:
            return Matrices(start, None)
        if not loops:
            shape = (*leaf.charged.shape[:-1], start.shape[-1])
            return Matrices(start, leaf.charged.new_zeros(shape))
        charged = [loop.charged for loop in loops if loop.charged is not None]
        return Matrices(start, self.charged_input(torch.cat(charged, -1)))

    def local_energies(self, features: _Read) -> Tensor:
        """Standardized energies ``[batch, sites]``."""
        found = self.site_head(features.numbers).mean(2)[..., -1]
        if features.moments is not None and hasattr(self, "energy_series"):
            found = found + self.energy_series(features.moments.sites).squeeze(-1)
        return found

    def read(self, features: _Read) -> dict[str, Tensor]:
        """Standardized values of all targets that are read out directly."""
        found: dict[str, Tensor] = {}
        if local := [*self.direct("global"), *self.direct("site")]:
            widths = [self._channels(field.name) for field in local]
            sites = self.site_head(features.numbers).mean(2)[..., : sum(widths)]
            if features.moments is not None and self.series is not None:
                sites = sites + self.series.sites(features.moments)
            for field, part in zip(local, sites.split(widths, dim=-1), strict=True):
                found[field.name] = GLOBAL * part.mean(1) if field.support == "global" else part
        if links := self.direct("link"):
            ends = self.link_head(features.numbers).unflatten(2, (4, 2)).mean(3)  # [B, N, 4, n]
            values = _meet(ends, features.around.lattice)
            if features.moments is not None and self.series is not None:
                values = values + self.series.links(features.moments)
            parts = values.unbind(-1)
            found |= {field.name: part for field, part in zip(links, parts, strict=True)}
        odd = [*self.direct("current"), *self.direct("adjoint")]
        if odd:
            charged = features.features.charged
            assert charged is not None
            gate = self.odd_gate(features.numbers)[:, :, None]
            gated = self.odd_head(charged) * gate  # [B, N, d, 8, n]
            if self.task.gauge == "SU2":
                read = self._forces(gated, features)
            else:
                read = self._currents(gated, charged, features.around.lattice)
            found |= {field.name: part for field, part in zip(odd, read.unbind(2), strict=True)}
        return found

    def _currents(self, gated: Tensor, charged: Tensor, lattice: Lattice) -> Tensor:
        """Currents without sources ``[B, N, n, 2]``."""
        shares = gated[:, :, 0].unflatten(1, lattice.shape)  # [B, L1, L2, 8, n]
        total: Tensor | float = 0.0
        for flag, (a, b) in enumerate(FLAGS):
            (ax, ay), (bx, by) = STEPS[a], STEPS[b]
            corner = (min(ax + bx, 0), min(ay + by, 0))  # from the site to the lower left corner
            turn = ax * by - ay * bx
            total = total + turn * torch.roll(shares[..., flag, :], corner, (1, 2))
        assert isinstance(total, Tensor)
        values = incidence.curl_to_links(total[:, :, :, None].expand(-1, -1, -1, 2, -1))
        found = values.flatten(1, 2).movedim(3, 2)
        if self.options["polyakov"]:
            ways = self.cycle_head(charged)[:, :, 0].unflatten(2, (4, 2)).mean((1, 3))
            found = found + (ways[:, ::2] - ways[:, 1::2]).mT[:, None]
        return found

    def _forces(self, gated: Tensor, features: _Read) -> Tensor:
        """Vectors at the start of links ``[B, N, n, 2, 3]``: E of a link is −U†EU at its end."""
        around = features.around
        assert around.leaving is not None
        ends = gated.unflatten(3, (4, 2)).mean(4)  # [B, N, 3, 4, n]
        there = ends[:, :, :, 1::2].movedim(2, 3)  # [B, N, 2, 3, n], against x and y
        there = torch.stack(
            [there[:, around.lattice.link_target[:, way], way] for way in (0, 1)], dim=2
        )
        here = ends[:, :, :, ::2].movedim(2, 3)
        return (here - around.leaving @ there).movedim(4, 2)

    @property
    def receptive_radius(self) -> float:
        """A cell for every layer, and the corners of plaquettes; all with Polyakov loops."""
        if self.options["polyakov"]:
            return math.inf
        radius = self.options["layers"] + (max(3.0, self.moments.reach) if self.moments else 3.0)
        return 2 * radius if self.derived else radius


def _meet(ends: Tensor, lattice: Lattice) -> Tensor:
    """Sums over both ends of the links along x and y, ``[B, N, 2, n]``, from those of all ways."""
    target = lattice.link_target
    return torch.stack(
        [ends[:, :, 2 * way] + ends[:, target[:, way], 2 * way + 1] for way in (0, 1)], dim=2
    )
