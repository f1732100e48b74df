"""Networks whose targets derive from an energy: sums over sites, and forces by differentiation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from latticezoo.symmetry.fields import Field
from latticezoo.symmetry.filter_cache import fixed_weights
from latticezoo.symmetry.lattices import Lattice
from latticezoo.symmetry.neighbourhoods import family_lattice

if TYPE_CHECKING:
    from latticezoo.zoo.base import ZooModel

Energy = Callable[[dict[str, Tensor]], Tensor]


def check_conservative(model: ZooModel) -> None:
    """Refuse a task some target of which does not derive from an energy.

    Raises:
        InputError: In the name of the model.
    """
    task = model.task
    if not task.conservative:
        raise model.refuse("its targets are the derivatives of no energy.")
    derived = [target for target, _ in task.conservative]
    for field in task.targets:
        if field.name not in derived:
            raise model.refuse(f"the target {field.name!r} is the derivative of no energy.")
    sources = [source for _, source in task.conservative]
    if len(set(sources)) < len(sources) or len(set(derived)) < len(derived):
        raise model.refuse(f"its conservative pairs {task.conservative} name a field twice.")


def invariant_channels(family: str, fields: Sequence[Field]) -> list[bool]:
    """For each channel of some fields side by side, whether no operation about a site changes it.

    Args:
        family: Lattice family.
        fields: Site fields without internal type.
    """
    group = family_lattice(family).site_group
    return [
        name == group.trivial
        for field in fields
        for number, name, dim in group.representation(field.point).blocks
        for _ in range(number * dim)
    ]


def negative_gradient(
    energy: Energy, fields: Mapping[str, Tensor], names: Sequence[str]
) -> list[Tensor]:
    """Minus the derivative of an energy with respect to some fields.

    It works under ``no_grad`` and ``inference_mode`` too; the result is differentiable again
    (force training, Hessians) where gradients are on.

    Args:
        energy: Energies ``[batch]`` of fields.
        fields: All fields, ``[batch, …]``.
        names: Those to differentiate by.

    Returns:
        One tensor for each name, of the field's shape.
    """
    keep = torch.is_grad_enabled()
    with torch.inference_mode(False), torch.enable_grad():
        # Tensors made in inference mode cannot be part of a graph, copies of them can.
        inputs = {k: v.clone() if v.is_inference() else v for k, v in fields.items()}
        for name in names:
            if not (keep and inputs[name].requires_grad):
                inputs[name] = inputs[name].detach().requires_grad_()
        with fixed_weights(not keep):
            total = energy(inputs).sum()
        slopes = torch.autograd.grad(total, [inputs[name] for name in names], create_graph=keep)
    return [-slope for slope in slopes]


def conservative_targets(
    model: ZooModel, energy: Energy, fields: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """All targets of the task from a standardized energy of standardized fields."""
    pairs = model.task.conservative
    slopes = negative_gradient(energy, fields, [source for _, source in pairs])
    return {target: slope for (target, _), slope in zip(pairs, slopes, strict=True)}


def physical_energy(
    model: ZooModel, energy: Energy, fields: Mapping[str, Tensor], lattice: Lattice
) -> Tensor:
    """The energy of which the model's targets are minus the derivatives.

    The mean over the two-element symmetries of the task, as :meth:`ZooModel.forward` takes it of
    the targets, times the unit of energy, minus the work of the mean targets.

    Args:
        model: The network.
        energy: Standardized energies ``[batch]`` of standardized fields.
        fields: Inputs in physical units.
        lattice: Where they live.

    Returns:
        ``[batch]``, in units of target times input.
    """
    model._check_input(fields, lattice)
    given = {field.name: model._cast(fields[field.name]) for field in model.task.inputs}
    images = model.images(given)
    count = len(next(iter(images.values()))) // len(next(iter(given.values())))
    total = energy(model.input_scaling.normalize(images))
    target, source = model.task.conservative[0]
    unit = model.target_scaling.scale(target)[0] * model.input_scaling.scale(source)[0]
    total = unit * total
    for target, source in model.task.conservative:
        work = images[source] * model.target_scaling.mean(target)
        total = total - work.flatten(1).sum(1)
    return total.view(count, -1).mean(0)
