"""Base of the networks on gauge links: what they serve, and forces as Lie derivatives."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from latticezoo.symmetry.errors import unknown
from latticezoo.symmetry.fields import Field
from latticezoo.symmetry.internal import SU2
from latticezoo.symmetry.lattices import Lattice
from latticezoo.symmetry.tasks import Task
from latticezoo.zoo.energy_model import EnergyModel
from latticezoo.zoo.layers.energies import Energy, negative_gradient
from latticezoo.zoo.layers.path_moments import PathMoments
from latticezoo.zoo.layers.path_series import PathSeries
from latticezoo.zoo.layers.ridge import RidgeRegression

OUTPUTS = ("energy", "direct")
#: Targets that are read out as numbers.
KINDS = ("global", "site", "link", "current")
#: Configurations that the linear part of a learned energy is fit to: some tens of weights, to all
#: forces on their links.
_ENERGY_SAMPLES = 32
#: Ridge of that fit, in units of the mean square of a slope.
_ENERGY_RIDGE = 1e-4
#: Targets of the whole lattice are this times the mean over the sites, whose numbers are then small
#: enough that their fluctuations average out.
GLOBAL = 8


class GaugeModel(EnergyModel):
    """A network on the links of the square lattice.

    Targets are numbers of the whole lattice (means over the sites of local contributions), of
    sites, of links, currents (of links, with a sign for their direction) and, for SU(2), forces in
    the adjoint representation. Forces paired with the links are minus the left Lie derivatives of
    the learned energy with ``output="energy"``, and are read out directly with ``"direct"``. A
    target that transforms as the links do (the field on the link spins of a quantum link model) is
    minus the gradient of the learned energy by real and imaginary parts.

    A subclass implements :meth:`features`, :meth:`local_energies` and :meth:`read`.
    """

    #: Gauge groups that it serves.
    groups: ClassVar[tuple[str, ...]] = ()
    #: Whether forces can be derivatives of a learned energy.
    learns_energy: ClassVar[bool] = True

    def check_task(self) -> None:
        """Refuse a task that it cannot serve, and note which symmetries it has by construction.

        Raises:
            InputError: In the name of the model.
        """
        task = self.task
        if self.learns_energy and self.options["output"] not in OUTPUTS:
            raise unknown("output", self.options["output"], OUTPUTS)
        if task.family != "square":
            raise self.refuse(f"it runs on square lattices, not {task.family}.")
        links = [field for field in task.inputs if is_links(field, task)]
        if len(links) != 1 or task.gauge not in self.groups or task.internal:
            raise self.refuse(
                f"it takes the links of one gauge group, {' or '.join(self.groups)}, as its input."
            )
        self.links = links[0]
        self.scalars = [field for field in task.inputs if field is not self.links]
        for field in self.scalars:
            if kind_of(field, task) != "site":
                raise self.refuse(
                    f"beside links it takes invariant numbers of the sites, but {field.name!r} "
                    "is none."
                )
        self.kinds = {field.name: kind_of(field, task) for field in task.targets}
        for name, kind in self.kinds.items():
            if kind is None or (kind == "adjoint" and task.gauge != "SU2"):
                raise self.refuse(
                    f"the target {name!r} is neither an invariant number nor a current or force "
                    "on links."
                )
        if set(task.flips) - set(self.links.conjugated):
            raise self.refuse("one of its two-element symmetries does not conjugate the links.")
        self.built_in_flips = frozenset(task.flips)
        wants_energy = self.learns_energy and self.options["output"] == "energy"
        self.derived = dict(task.conservative) if wants_energy else {}
        if any(source != self.links.name for source in self.derived.values()):
            raise self.refuse("its forces act on something else than links.")
        for name, kind in self.kinds.items():
            if kind == "field" and self.learns_energy and name not in self.derived:
                raise self.refuse(f"the target {name!r} is learned as the gradient of an energy.")

    @property
    def energy(self) -> Any:
        """``energy(fields, lattice)``, ``[batch]``; only where targets derive from it.

        Raises:
            AttributeError: When none does.
        """
        if not self.derived:
            raise AttributeError(f"this {self.registry_name} learns no energy")
        return self._energy

    # ---- what a subclass provides --------------------------------------------------------------

    @abstractmethod
    def features(self, fields: Mapping[str, Tensor], lattice: Lattice) -> Any:
        """What the links look like around every place."""

    @abstractmethod
    def local_energies(self, features: Any) -> Tensor:
        """Standardized energies ``[batch, sites]``, of which forces are the derivatives."""

    @abstractmethod
    def read(self, features: Any) -> dict[str, Tensor]:
        """Standardized values of all targets that are read out directly."""

    def fix_zero(self, head: nn.Linear) -> None:
        """Do not train the zero of an energy of which the targets are derivatives alone."""
        sees_zero = [kind for kind in self.kinds.values() if kind in ("global", "site")]
        head.bias.requires_grad_(bool(sees_zero))

    def complex_links(self, links: Tensor) -> Tensor:
        """Links in the type of their group, also where a real number was meant for U(1)."""
        if self.task.gauge != "Z2" and not links.is_complex():
            return torch.complex(links, torch.zeros_like(links))
        return links

    def build_moments(self, highest: int) -> None:
        """Path moments up to an order, and the linear sums of them; none for order 0."""
        self.moments = PathMoments(highest) if highest else None
        counts = {
            kind: sum(len(self.target_scaling.scale(field.name)) for field in self.direct(kind))
            for kind in KINDS
        }
        self.series = (
            PathSeries(
                self.moments, counts["global"] + counts["site"], counts["link"], counts["current"]
            )
            if self.moments
            else None
        )

    def calibrate(self, batches: Iterable[Mapping[str, Any]]) -> None:
        """Decorrelate the path moments by the training batches, and fit their linear sums.

        All heads begin at zero then, so that training begins at these sums. A learned energy begins
        at the one whose derivatives fit the forces best.
        """
        moments, series = getattr(self, "moments", None), getattr(self, "series", None)
        if moments is None or series is None:
            return
        given, targets = [], []
        for batch in batches:
            links = self._cast(batch["fields"][self.links.name].to(self.device))
            given.append((self.complex_links(links), batch["lattice"]))
            if labels := batch.get("targets"):
                targets.append({name: values.to(self.device) for name, values in labels.items()})
        with torch.no_grad():
            moments.calibrate(given)
            if len(targets) == len(given):
                series.fit(
                    (moments(*one), self._fit_targets(entry))
                    for one, entry in zip(given, targets, strict=True)
                )
                for name, weight in self.named_parameters():
                    if "_head." in name:
                        weight.zero_()
                if self.derived and moments.site_count:
                    self._fit_energy(moments, zip(given, targets, strict=True))

    def _fit_energy(
        self,
        moments: PathMoments,
        samples: Iterable[tuple[tuple[Tensor, Lattice], Mapping[str, Tensor]]],
    ) -> None:
        """Set ``energy_series`` by the least squares of the targets that derive from the energy.

        The ridge is on the plain moments, which are polynomials bounded by one. Of the decorrelated
        ones some are magnified a hundredfold, and a sum of them that fits 32 states ran away on
        others (SU(2), order 63: 60 % of the force on nearly trivial links, now 12 %).
        """
        name = next(iter(self.derived))
        sums, seen = RidgeRegression(moments.site_count, 1), 0
        for (links, lattice), targets in samples:
            with torch.enable_grad():
                links = links.detach().requires_grad_()
                totals = moments.plain_sites(links, lattice).sum((0, 1))
                slopes = [torch.autograd.grad(-one, links, retain_graph=True)[0] for one in totals]
            rows = torch.stack([self._derived(name, slope, links) for slope in slopes], -1)
            exact = self._cast(targets[name]) / self.target_scaling.scale(name)
            if rows.is_complex():  # real and imaginary parts are as many equations
                rows = torch.view_as_real(rows.resolve_conj()).movedim(-1, -2)
                exact = torch.view_as_real(exact.resolve_conj())
            rows = rows.detach().flatten(0, -2)
            sums.add(rows, exact.reshape(-1, 1))
            seen += len(links)
            if seen >= _ENERGY_SAMPLES:
                break
        unit = float(sums.gram.diagonal().mean()) / sums.count
        weights = moments.site_weights(sums.solve(_ENERGY_RIDGE * unit))
        linear: nn.Linear = self.get_submodule("energy_series")  # type: ignore[assignment]
        linear.weight.copy_(weights.T)

    def _derived(self, name: str, slope: Tensor, links: Tensor) -> Tensor:
        """A target from minus the plain derivative of the energy by the links."""
        return slope if self.kinds[name] == "field" else _lie_derivative(slope, links)

    def _fit_targets(self, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Standardized targets by kind, those of the whole lattice as the sites hold them."""
        cast = {field.name: self._cast(targets[field.name]) for field in self.task.targets}
        values = self.target_scaling.normalize(cast)
        found = {}
        for kind in KINDS:
            if parts := [values[field.name] for field in self.direct(kind)]:
                on_links = kind in ("link", "current")
                found[kind] = torch.stack(parts, -1) if on_links else torch.cat(parts, -1)
        if "global" in found:
            found["global"] = found["global"] / GLOBAL
        return found

    # ---- evaluation ----------------------------------------------------------------------------

    def direct(self, kind: str | None = None) -> list[Field]:
        """Targets that are read out, of all kinds or of one."""
        chosen = [field for field in self.task.targets if field.name not in self.derived]
        if self.derived:  # the learned energy gives that of the whole lattice too
            chosen = [field for field in chosen if self.kinds[field.name] != "global"]
        return [field for field in chosen if kind in (None, self.kinds[field.name])]

    def predict(self, fields: dict[str, Tensor], lattice: Lattice) -> dict[str, Tensor]:
        """Map standardized inputs to standardized targets."""
        if not self.derived:
            return self.read(self.features(fields, lattice))
        found: dict[str, Tensor] = {}

        def energy(given: dict[str, Tensor]) -> Tensor:
            features = self.features(given, lattice)
            found.update(self.read(features))
            local = self.local_energies(features)
            for name, kind in self.kinds.items():
                if kind == "global":
                    found[name] = self._unit() * local.mean(1, keepdim=True)
                    found[name] = found[name] / self.target_scaling.scale(name)
            return local.sum(1)

        (slope,) = negative_gradient(energy, fields, [self.links.name])
        if not torch.is_grad_enabled():
            found = {name: values.detach() for name, values in found.items()}
        for name in self.derived:
            found[name] = self._derived(name, slope, fields[self.links.name])
        return found

    def energy_function(self, lattice: Lattice) -> Energy:
        """Sum of the local energies."""
        return lambda given: self.local_energies(self.features(given, lattice)).sum(1)

    def _unit(self) -> Tensor:
        """Unit of the learned energy."""
        (target, source), *_ = self.task.conservative
        return self.target_scaling.scale(target)[0] * self.input_scaling.scale(source)[0]

    def _energy(self, fields: Mapping[str, Tensor], lattice: Lattice) -> Tensor:
        self._check_input(fields, lattice)
        given = {field.name: self._cast(fields[field.name]) for field in self.task.inputs}
        given = self.input_scaling.normalize(given)
        return self._unit() * self.energy_function(lattice)(given)


def is_links(field: Field, task: Task) -> bool:
    """Whether an input holds the links of the task's gauge group."""
    return field.support == "link" and field.internal == "link" and task.gauge is not None


def kind_of(field: Field, task: Task) -> str | None:
    """What a field is to a network on links: ``global``, ``site``, ``link``, ``current``,
    ``adjoint``, ``field`` (what transforms as the links do), or None for anything else.
    """
    flipped = set(task.flips) & {*field.odd, *field.conjugated}
    if is_links(field, task):
        return "field"
    if field.support == "link" and field.internal == "adjoint":
        return None if flipped else "adjoint"
    if field.internal is not None:
        return None
    if field.support in ("site", "global"):
        trivial = all(part.lstrip("0123456789x") == "A1" for part in field.point.split("+"))
        return field.support if trivial and not flipped else None
    if field.support != "link":
        return None
    if field.oriented:
        return "current" if flipped and flipped <= set(field.odd) else None
    return None if flipped else "link"


def _lie_derivative(slope: Tensor, links: Tensor) -> Tensor:
    """Minus the left Lie derivative of an energy, from minus its plain derivative.

    At U → exp(iεT^a) U the energy changes by ε Re Tr(g† iT^a U), with g its derivative by the
    entries of U. U(1): ``[B, N, D]``; SU(2): ``[B, N, D, 3]``, T^a = σ^a/2.
    """
    if slope.dim() == 5:
        return 0.5 * SU2.components(1j * (links @ slope.mH))
    return (slope.conj() * 1j * links).real
