"""Graph network in the Wilson-loop representation: gauge-invariant numbers go in, and nothing else.

Rayat and Chern, arXiv:2605.03901, describe the idea; the layers here are this library's own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.gauge import plaquettes, polyakov_loop
from latticezoo.symmetry.lattices import Lattice
from latticezoo.symmetry.tasks import Task
from latticezoo.zoo.gauge_model import GLOBAL, GaugeModel
from latticezoo.zoo.layers import incidence
from latticezoo.zoo.layers.energy_graph import fan_in_linear
from latticezoo.zoo.layers.loop_graph import (
    Inputs,
    LinkUpdate,
    LoopBlock,
    LoopFeatures,
    unit_size,
)
from latticezoo.zoo.layers.path_moments import StandardMoments
from latticezoo.zoo.registry import register


@dataclass(frozen=True)
class _Read:
    """Features, those of links after the last look at their surroundings, and odd moments."""

    features: LoopFeatures
    links: Tensor
    currents: Tensor | None
    moments: StandardMoments | None


@register("wilson_gnn")
class WilsonGNN(GaugeModel):
    r"""Messages between sites, links and plaquettes that carry gauge-invariant numbers alone.

    Inputs are, of every plaquette, Re W and (U(1)) Im W, and of every link |U|² (which varies in
    quantum link models, where it is S² − E²) and the Polyakov loop that runs through it: on a torus
    plaquettes do not fix the links up to local transformations, the loops around it are two more
    invariants. In every block links gather from plaquettes and sites, then these from links, all by
    shifts of the lattice.

    Every number is even or odd under charge conjugation, U → U*. Odd ones change sign with the
    direction in which a link or plaquette is traversed as well, go between links and plaquettes by
    lattice curls, and are made even in pairs only. So the whole group holds by construction:
    translations, D4 (reflections reverse plaquettes), charge conjugation and local transformations.

    Currents are the curl of one odd number per plaquette, and (with Polyakov loops) a constant for
    each direction: their divergence is zero, up to rounding, whatever the weights.

    Fermions at low temperature see far: their correlators depend on loops of any length. With
    ``path_moments`` the sums over all closed paths through a site or link, up to that many steps,
    go in as well: Chebyshev moments of the hopping matrix, invariants of the whole group
    (:mod:`~latticezoo.zoo.layers.path_moments`). They are the terms of the kernel polynomial
    method. Their linear sums are fit in one pass, and messages learn what lies beyond them
    (:mod:`~latticezoo.zoo.layers.path_series`); of a learned energy the sum is the one whose
    derivatives fit the forces best. The reach is no longer small: time per site grows as the order
    cubed, until paths cover the torus. Paths around a torus are among them, where it
    is short enough, in place of Polyakov loops.

    Presets:
        ``compact``: three blocks of 32 even and 16 odd channels.
        ``moments``: the same with path moments up to order 47 in place of Polyakov loops.
        ``paper``: six blocks, 64 even and 16 odd channels (the source names no sizes).

    Args:
        task: What to learn.
        preset: ``"compact"``, ``"moments"`` or ``"paper"``.
        width: Even channels.
        odd_width: Odd channels; not used for Z2, which has no odd loops.
        blocks: Rounds of messages.
        polyakov: Whether Polyakov loops go in. Without them the network is local.
        path_moments: Highest order of the path moments that go in, 3 or more, or 0 for none. They
            are decorrelated by the training data.
        output: Where forces are paired with the links: ``"energy"`` makes them minus the
            derivatives of a learned energy, ``"direct"`` reads them out.
        **training: Learning rate, optimizer, schedule: see
            :class:`~latticezoo.zoo.base.ZooModel`.

    Raises:
        InputError: When the task is not from Z2 or U(1) links on the square lattice to invariant
            numbers and currents, or an option is wrong.
    """

    presets: ClassVar = {
        "compact": {
            "width": 32,
            "odd_width": 16,
            "blocks": 3,
            "polyakov": True,
            "path_moments": 0,
            "output": "energy",
            "learning_rate": 3e-3,
        },
        "moments": {"polyakov": False, "path_moments": 47, "learning_rate": 3e-5},
        "paper": {"width": 64, "blocks": 6, "learning_rate": 1e-3},
    }
    groups: ClassVar = ("Z2", "U1")

    def __init__(
        self,
        task: Task | dict[str, Any],
        *,
        preset: str = "compact",
        width: int | None = None,
        odd_width: int | None = None,
        blocks: int | None = None,
        polyakov: bool | None = None,
        path_moments: int | None = None,
        output: str | None = None,
        **training: Any,
    ) -> None:
        super().__init__(
            task,
            preset=preset,
            architecture={
                "width": width,
                "odd_width": odd_width,
                "blocks": blocks,
                "polyakov": polyakov,
                "path_moments": path_moments,
                "output": output,
            },
            **training,
        )
        options = self.options
        for name in ("width", "odd_width", "blocks"):
            if options[name] < 1:
                raise InputError(f"{name} must be 1 or more, not {options[name]}.")
        self.check_task()
        even, odd = options["width"], options["odd_width"] if self.has_odd else 0
        self.build_moments(options["path_moments"])
        sites, ends = (self.moments.site_count, self.moments.link_count) if self.moments else (0, 0)
        loops = 1 if options["polyakov"] else 0
        self.plaquette_input = Inputs(1, even)
        self.link_input = Inputs(self.has_odd + loops + ends, even)
        self.site_input = Inputs(loops + len(self.scalars) + sites, even)
        if odd:
            self.circulation_input = nn.Linear(1, odd, bias=False)
            inputs = loops + ends
            self.current_input = nn.Linear(inputs, odd, bias=False) if inputs else None
        self.blocks = nn.ModuleList(LoopBlock(even, odd) for _ in range(options["blocks"]))
        self._build_heads(even, odd)

    @property
    def has_odd(self) -> bool:
        """Whether loops have a part that is odd under charge conjugation."""
        return self.task.gauge == "U1"

    def _build_heads(self, even: int, odd: int) -> None:
        counts = {
            kind: sum(self._channels(field.name) for field in self.direct(kind))
            for kind in ("global", "site", "link", "current")
        }
        local = counts["global"] + counts["site"] + bool(self.derived)
        cycles = counts["current"] if self.options["polyakov"] else 0
        if local or counts["link"] or cycles:
            self.look = LinkUpdate(even, odd, bool(local or counts["link"]), bool(cycles))
        if counts["link"]:
            self.link_head = fan_in_linear(even, counts["link"], 0.3)
        if local:
            self.site_head = fan_in_linear(even, local, 0.3)
            self.fix_zero(self.site_head)
            self.plaquette_head = fan_in_linear(even, local, 0.3, bias=False)
            self.site_link_head = fan_in_linear(even, local, 0.3, bias=False)
            if self.moments and self.moments.site_count and self.derived:
                self.energy_series = fan_in_linear(self.moments.site_count, 1, 0.3, bias=False)
        if counts["current"]:
            self.circulation_gate = fan_in_linear(even, odd, 1.0)
            self.circulation_head = fan_in_linear(odd, counts["current"], 0.3, bias=False)
        if cycles:
            self.cycle_head = fan_in_linear(odd, cycles, 0.3, bias=False)

    def _channels(self, name: str) -> int:
        return len(self.target_scaling.scale(name))

    # ---- evaluation ----------------------------------------------------------------------------

    def features(self, fields: Mapping[str, Tensor], lattice: Lattice) -> _Read:
        """Features of all places after all blocks."""
        given, moments = self._inputs(fields, lattice)
        for block in self.blocks:
            given = block(given)
        if not hasattr(self, "look"):
            return _Read(given, given.links, given.currents, moments)
        even, odd = self.look(given.unit_size())
        links = given.links if even is None else given.links + even
        currents = given.currents if odd is None else given.currents + odd
        return _Read(given, links, currents, moments)

    def _inputs(
        self, fields: Mapping[str, Tensor], lattice: Lattice
    ) -> tuple[LoopFeatures, StandardMoments | None]:
        """Features of all places at the start, and the path moments."""
        links = self.complex_links(fields[self.links.name])
        loops = _on_torus(plaquettes(links, lattice)[..., None], lattice)
        sites = [
            _on_torus(fields[field.name], lattice)[..., None, :].expand(-1, -1, -1, 2, -1)
            for field in self.scalars
        ]
        around = None
        if self.options["polyakov"]:
            ways = [polyakov_loop(links, lattice, way) for way in (1, 2)]
            around = _on_torus(torch.stack(ways, -1)[..., None], lattice)
            sites.append(_even(around))
        both = loops[..., None, :].expand(-1, -1, -1, 2, -1)
        along = [] if around is None else [_even(around)]
        if self.has_odd:  # of quantum links the modulus is a variable
            modulus = links.real.square() + links.imag.square()
            along.append(_on_torus(modulus[..., None], lattice))
        moments = None
        if self.moments:
            found = self.moments(links, lattice)
            flows = None if found.currents is None else _on_torus(found.currents, lattice)
            moments = StandardMoments(
                _on_torus(found.sites, lattice), _on_torus(found.links, lattice), flows
            )
            along.append(moments.links)
            sites.append(moments.sites[..., None, :].expand(-1, -1, -1, 2, -1))
        none = _even(both)[..., :0]
        given = LoopFeatures(
            links=self.link_input(torch.cat([none, *along], -1)),
            plaquettes=self.plaquette_input(_even(both)),
            sites=self.site_input(torch.cat([none, *sites], -1)),
        )
        if not self.has_odd:
            return given, moments
        circulations = self.circulation_input(both.imag)
        currents = incidence.curl_to_links(circulations)
        odd = [] if around is None else [around.imag]
        odd += [] if moments is None or moments.currents is None else [moments.currents]
        if self.current_input is not None:
            currents = currents + self.current_input(torch.cat(odd, -1))
        return replace(given, circulations=circulations, currents=currents), moments

    def local_energies(self, features: _Read) -> Tensor:
        """Standardized energies ``[batch, sites]``."""
        found = self._site_values(features)[..., -1]
        if features.moments is not None and hasattr(self, "energy_series"):
            found = found + self.energy_series(features.moments.sites).squeeze(-1)
        return found.flatten(1, 2)

    def _site_values(self, features: _Read) -> Tensor:
        """Numbers of the sites ``[batch, L1, L2, n]``: shares of all places around."""
        given = features.features
        links = incidence.links_to_sites(self.site_link_head(features.links)).sum(3)
        loops = incidence.plaquettes_to_sites(self.plaquette_head(given.plaquettes).sum(3))
        return self.site_head(given.sites).sum(3) + 0.5 * links + 0.25 * loops

    def read(self, features: _Read) -> dict[str, Tensor]:
        """Standardized values of all targets that are read out directly."""
        found: dict[str, Tensor] = {}
        if local := [*self.direct("global"), *self.direct("site")]:
            widths = [self._channels(field.name) for field in local]
            sites = self._site_values(features)[..., : sum(widths)]
            if features.moments is not None and self.series is not None:
                sites = sites + self.series.sites(features.moments)
            for field, part in zip(local, sites.flatten(1, 2).split(widths, -1), strict=True):
                found[field.name] = GLOBAL * part.mean(1) if field.support == "global" else part
        if links := self.direct("link"):
            values = self.link_head(features.links)
            if features.moments is not None and self.series is not None:
                values = values + self.series.links(features.moments)
            parts = values.flatten(1, 2).unbind(-1)
            found |= {field.name: part for field, part in zip(links, parts, strict=True)}
        if currents := self.direct("current"):
            values = self._currents(features).flatten(1, 2).unbind(-1)
            found |= {field.name: part for field, part in zip(currents, values, strict=True)}
        return found

    def _currents(self, features: _Read) -> Tensor:
        """Currents without sources ``[batch, L1, L2, 2, n]``."""
        given = features.features
        assert given.circulations is not None
        gate = self.circulation_gate(unit_size(given.plaquettes))
        shares = self.circulation_head(given.circulations * gate)
        total = shares.sum(3, keepdim=True).expand_as(shares)
        found = incidence.curl_to_links(total)
        if features.moments is not None and self.series is not None:
            found = found + self.series.currents(features.moments)
        if self.options["polyakov"]:
            found = found + self.cycle_head(features.currents).mean((1, 2), keepdim=True)
        return found

    @property
    def receptive_radius(self) -> float:
        """Two cells a block, two more, and the extent of plaquettes or of the longest path moments;
        all with Polyakov loops.
        """
        if self.options["polyakov"]:
            return math.inf
        inputs = max(2, self.moments.reach) if self.moments else 2
        radius = 2.0 * (self.options["blocks"] + 1) + inputs
        return 2 * radius if self.derived else radius


def _on_torus(values: Tensor, lattice: Lattice) -> Tensor:
    return values.unflatten(1, lattice.shape)


def _even(values: Tensor) -> Tensor:
    return values.real if values.is_complex() else values
