"""The README.md of a model card, made from its measurements alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from latticezoo.zoo.base import ZooModel


def card_page(network: ZooModel, metrics: Mapping[str, Any]) -> str:
    """The README.md of a card, made from its measurements alone."""
    from latticezoo.symmetry.lattices import Lattice

    name, found, target = metrics["name"], metrics["measurements"], metrics["target"]
    system = {k: v for k, v in metrics["system"].items() if v is not None}
    title = system.pop("system")
    sizes = metrics["split_sizes"]
    rows = []
    for kind, words in (
        ("trajectory", "states along quenches"),
        ("random", "random configurations"),
    ):
        if f"rmse_{kind}" in found:
            rows.append(
                f"| held out, {words} ({sizes['test'][kind]}) | {found[f'rmse_{kind}']:.4f} | "
                f"{found[f'spread_{kind}']:.3f} | {100 * found[f'share_{kind}']:.1f} % |"
            )
    if "rmse_transfer" in found:
        spread = found.get("transfer_spread_trajectory", found["transfer_spread_all"])
        rows.append(
            f"| {found['transfer_lattice']}, states along exact quenches | "
            f"{found['rmse_transfer']:.4f} | {spread:.3f} | "
            f"{100 * found['rmse_transfer'] / spread:.1f} % |"
        )
    options = ", ".join(f"{k} = {v}" for k, v in network.options.items())
    parameters = ", ".join(f"{k} = {_plain(v)}" for k, v in system.items())
    train = sizes["train"]
    hardware = ", ".join(f"{k}: {v}" for k, v in metrics["hardware"].items())
    field = network.task.inputs[0].name
    channels = network.task.inputs[0].channels(Lattice.parse(metrics["lattice"]))
    options_of_data = metrics["data"]["options"]
    driven = ""
    if options_of_data.get("driver"):
        driven = (
            f" The quenches, but for {options_of_data.get('exact_trajectories') or 0} exact ones, "
            f"were driven by a network (weights {str(options_of_data.get('driver_sha256'))[:12]}); "
            "every frame is labelled exactly."
        )
    return f"""---
license: mit
library_name: lattice-zoo
tags: [physics, lattice, force-field, equivariant]
---
# {name}

{_title(network)} for the task `{metrics["task"]}`: it maps {field} to {target} \
({"n − ½ of the electrons" if target == "density" else "in the units of the system"}).
Physics: {title} model, {parameters}; energies in units of the hopping t.

```python
from latticezoo.zoo import load_pretrained

# or "local-dir:PATH" of this folder
network = load_pretrained("{name}")
outputs = network({{"{field}": values}}, lattice)  # values [batch, sites, {channels}]
```

## Errors

Root-mean-square error of {target} per site. Trajectories are held out whole, never single frames.

| split (states) | RMSE | spread of the target | share |
|---|---|---|---|
{chr(10).join(rows)}

![exact against predicted](parity.png)
![distribution of the errors](errors.png)

## Symmetry

Largest relative error over {found["equivariance_group"]}:
{found["equivariance_float64"]:.1e} in float64, {found["equivariance_float32"]:.1e} in float32.

## Training

{train["random"]} random configurations and {train["trajectory"]} quench frames on \
{metrics["lattice"]}; {found["training_seconds"]:.0f} s of training\
{f", {found['epochs']} epochs" if "epochs" in found else ""}. {found["parameters"]:,} parameters, \
{found["sites_per_second"]:.2g} sites per second in inference, \
{str(network.dtype).removeprefix("torch.")}.{driven}
Hardware: {hardware}.
Options: {options}.
{_large_runs(metrics)}
## Limits

It knows the parameters, the temperature and the kind of states named above, and nothing else: \
other couplings or temperatures need other weights. It sees {network.receptive_radius:.3g} bond \
lengths around a site. Every number on this page comes from metrics.json beside it.
"""


def _plain(value: Any) -> str:
    """A parameter in few digits; lists of numbers too."""
    if isinstance(value, list | tuple):
        return "(" + ", ".join(_plain(entry) for entry in value) + ")"
    return f"{value:.4g}" if isinstance(value, int | float) else str(value)


def _large_runs(metrics: Mapping[str, Any]) -> str:
    """Growth of domains after quenches with the network, or nothing."""
    if not metrics.get("domain_growth"):
        return ""
    rows = []
    for run in metrics["domain_growth"]:
        first, last = run["window_tau0"]
        frozen = run["stripe_frozen"] + run["diagonal_stripes"]
        rows.append(
            f"| {run['bath_temperature']:g} | {run['lattice']}, {run['replicas']} | "
            f"{run['exponent']:.3f} ± {run['exponent_standard_error']:.3f} | "
            f"{first:g}–{last:g} | {run['length']:.2f} | {run['collapse_rms_residual']:.3f} | "
            f"{frozen} of {run['replicas']} |"
        )
    return f"""
## Large runs

Growth of domains after a quench from disorder, the network in the place of the electrons: \
L(t) ~ t^α, where L is the distance at which the correlation function falls to one half. Errors \
by resampling the replicas; the residual is that of the collapse of C(r / L) in the window.

| bath T | lattice, replicas | α | window (τ₀) | last L | residual | frozen stripes |
|---|---|---|---|---|---|---|
{chr(10).join(rows)}
"""


def _title(network: ZooModel) -> str:
    count = network.config().get("ensemble", 1)
    name = f"`{network.registry_name}`"
    return (
        f"An ensemble of {count} {name}, with the spread as an uncertainty," if count > 1 else name
    )
