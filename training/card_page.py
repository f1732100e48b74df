"""The README.md of a model card, made from its measurements alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from latticezoo.zoo.base import ZooModel


def card_page(network: ZooModel, metrics: Mapping[str, Any]) -> str:
    """The README.md of a complete card, made from its measurements alone."""
    from latticezoo.symmetry.lattices import Lattice

    name, found, target = metrics["name"], metrics["measurements"], metrics["target"]
    system = {k: v for k, v in metrics["system"].items() if v is not None}
    title = system.pop("system")
    parameters = ", ".join(f"{k} = {_plain(v)}" for k, v in system.items())
    units = f"; energies in units of {_energy_unit(title)}"
    field = network.task.inputs[0].name
    channels = network.task.inputs[0].channels(Lattice.parse(metrics["lattice"]))
    unit = "n − ½ of the electrons" if target == "density" else "in the units of the system"
    targets = ", ".join((target, *found.get("other_targets", {})))
    what = f"it maps {field} to {targets} ({unit})"
    shape = ", ".join(map(str, ("batch", "sites", *_tail(network, channels))))
    layout = f"`[{shape}]`; other sizes of the lattice do as well"
    if "frames_per_second" in found:
        what = f"from the frames of {target} so far it predicts the next one"
        on_sites = network.task.inputs[0].support == "site"
        layout = f"`[batch, frames, {'sites, ' if on_sites else ''}{channels}]`"
        layout += "; `network.roll_out` goes on by its own predictions"
    return f"""{metadata(network, metrics)}
# {name}

{_title(network)} for the task `{metrics["task"]}`: {what}.
Physics: {title} model, {parameters}{units}.

```python
from latticezoo.symmetry.lattices import Lattice
from latticezoo.zoo import load_pretrained

# or "local-dir:PATH", "hf-hub:user/name"
network = load_pretrained("{name}")
outputs = network({{"{field}": values}}, Lattice.parse("{metrics["lattice"]}"))
```

`values` is {layout}. It is a
`torch.nn.Module` in eval mode.

## Symmetry

{_symmetry(network)} Measured as the largest relative error over {found["equivariance_group"]}:
{found["equivariance_float64"]:.1e} in float64, {found["equivariance_float32"]:.1e} in float32.

## Errors

{_measure(metrics)} on the split `{metrics["split"]}`: trajectories are held
out whole, never single frames.

{_errors(metrics)}

![exact against predicted](parity.png)
![distribution of the errors](errors.png)

## Other sizes

{_transfer(metrics)}

## Beside the exact run

{_rollout(metrics)}

## Training data and recipe

{_training(network, metrics)}
{_large_runs(metrics)}
## Hardware and time

{found["training_seconds"]:.0f} s of training\
{f", {found['epochs']} epochs" if "epochs" in found else ""}, \
{_speed(found)} on one thread.
{_table("hardware", metrics["hardware"])}; {_table("versions", metrics["versions"])}.

## Intended use and limits

{_use(found)}, and as a
reference for other networks. It knows the parameters, the temperature and the kind of states named
above, and nothing else: other couplings or temperatures need other weights.\
{_sight(network)} Compare a short run with the exact solver
before you trust a long one. Every number on this page comes from metrics.json beside it.

## Citation

```bibtex
@software{{lattice_zoo,
  title = {{lattice-zoo: symmetry-exact networks for lattice models}},
  author = {{{{The lattice-zoo developers}}}},
  version = {{{metrics["versions"]["lattice-zoo"]}}},
  note = {{model card {name}}}
}}
```
"""


def _tail(network: ZooModel, channels: int) -> tuple[int, ...]:
    """The last axes of the first input: channels, or links along both directions."""
    task = network.task
    if task.inputs[0].support != "link":
        return (channels,)
    return (2, 2, 2) if task.gauge == "SU2" else (2,)


def _energy_unit(system: str) -> str:
    """What energies are measured in; that of the base for systems that are no force fields."""
    from latticezoo.simulate.systems import System, system_registry

    return system_registry.get(system, System).energy_unit


def _runs(metrics: Mapping[str, Any]) -> str:
    """What the trajectories of the data are called."""
    from latticezoo.datasets.registry import data_class, list_data

    name = metrics["data"]["name"]
    return data_class(name).kind_of_runs if name in list_data() else "runs"


def _independent(metrics: Mapping[str, Any]) -> str:
    """What the states are that belong to no trajectory."""
    options = metrics["data"]["options"]
    kinds = [kind for kind in ("random", "thermal") if options.get(kind)]
    return f"{' and '.join(kinds)} links" if "thermal" in options else "random configurations"


def metadata(network: ZooModel, metrics: Mapping[str, Any]) -> str:
    """The head of the page, as the Hugging Face hub reads it: results with their split."""
    import yaml

    found, options = metrics["measurements"], metrics["data"]["options"]
    recipe = options.get("preset") or metrics["data"]["name"]
    results = [
        {"type": "rmse", "value": found[key], "name": f"RMSE of {metrics['target']}, {words}"}
        for key, words in (
            ("rmse_trajectory", f"states along {_runs(metrics)}"),
            ("rmse_random", _independent(metrics)),
            ("rmse_all", "all held-out states"),
        )
        if key in found
    ]
    results.append(
        {
            "type": "equivariance_error",
            "value": found["equivariance_float32"],
            "name": "largest relative symmetry error, float32",
        }
    )
    head = {
        "license": "mit",
        "library_name": "lattice-zoo",
        "tags": ["physics", "lattice", "force-field", "equivariant", network.registry_name],
        "datasets": [f"lattice-zoo/{recipe}"],
        "model-index": [
            {
                "name": metrics["name"],
                "results": [
                    {
                        "task": {"type": "other", "name": metrics["task"]},
                        "dataset": {
                            "type": f"lattice-zoo/{recipe}",
                            "name": f"{recipe}, {metrics['lattice']}",
                            "split": "test",
                        },
                        "metrics": results,
                    }
                ],
            }
        ],
    }
    text = yaml.safe_dump(head, sort_keys=False, allow_unicode=True, width=100)
    return f"---\n{text}---"


def _measure(metrics: Mapping[str, Any]) -> str:
    """What the errors are errors of."""
    if "frames_per_second" in metrics["measurements"]:
        return (
            f"Root-mean-square error of the next frame of {metrics['target']} after true ones. "
            "Spread is that of the change from frame to frame, so that persistence has a share of "
            "100 %. Measured"
        )
    targets = (metrics["target"], *metrics["measurements"].get("other_targets", {}))
    return f"Root-mean-square error of {', '.join(targets)} per site"


def _sight(network: ZooModel) -> str:
    if network.task.inputs[0].support == "global":
        return ""
    if math.isinf(network.receptive_radius):
        return " It sees the whole lattice, by loops around the torus."
    return f" It sees {network.receptive_radius:.3g} bond lengths around a site."


def _speed(found: Mapping[str, Any]) -> str:
    if "frames_per_second" in found:
        return f"{found['frames_per_second']:.2g} frames per second in a roll-out of 16 series"
    return f"{found['sites_per_second']:.2g} sites per second in inference"


def _use(found: Mapping[str, Any]) -> str:
    if "frames_per_second" in found:
        return "For the statistics and the near future of this series without the exact solver"
    return (
        "For forces and observables of this model in simulations where the exact solver is too slow"
    )


def _errors(metrics: Mapping[str, Any]) -> str:
    found, sizes = metrics["measurements"], metrics["split_sizes"]["test"]
    rows = ["| states (their number) | RMSE | spread of the target | share |", "|---|---|---|---|"]
    others = found.get("other_targets", {})
    for name, errors in {metrics["target"]: found, **others}.items():
        for kind, words in (
            ("trajectory", f"along {_runs(metrics)}"),
            ("random", _independent(metrics)),
        ):
            if f"rmse_{kind}" in errors:
                share = (
                    f"{100 * errors[f'share_{kind}']:.1f} %" if errors[f"spread_{kind}"] else "–"
                )
                rows.append(
                    f"| {f'{name}, ' if others else ''}{words} ({sizes[kind]}) | "
                    f"{errors[f'rmse_{kind}']:#.3g} | {errors[f'spread_{kind}']:#.3g} | "
                    f"{share} |"
                )
    return "\n".join(rows)


def _transfer(metrics: Mapping[str, Any]) -> str:
    found = metrics["measurements"]
    if "rmse_transfer" not in found:
        return str(metrics["not_measured"]["transfer"])
    spread = found.get("transfer_spread_trajectory", found["transfer_spread_all"])
    share = 100 * found["rmse_transfer"] / spread
    return (
        f"The same weights on {found['transfer_lattice']} (training: {metrics['lattice']}), fresh "
        f"exact states: RMSE {found['rmse_transfer']:.4f}, {share:.1f} % of the spread there."
    )


def _rollout(metrics: Mapping[str, Any]) -> str:
    if "rollout" not in metrics:
        return str(metrics["not_measured"]["rollout"])
    run = metrics["rollout"]
    start = run["initial"]["kind"]
    first = (
        f"{run['replicas']} free runs of {run['steps']} frames, each after "
        f"{run['initial']['frames']} true frames of a held-out run. At the end, or over the whole "
        "runs where it is a number of the climate, with standard errors over the runs; exact is "
        "what happened in the data:"
        if start == "held-out"
        else f"A run from {start} states on {run['lattice']}, {run['replicas']} replicas, "
        f"{run['steps']} steps of {run['dynamics']['name']} dynamics, with the network and with "
        "the exact solver: same starts, same noise. At the end, mean ± standard error over the "
        "replicas:"
    )
    rows = [
        first,
        "",
        "| observable | exact | network |",
        "|---|---|---|",
    ]
    rows += [
        f"| {entry['name']} | {entry['exact']:.4g} ± {entry['exact_error']:.1g} | "
        f"{entry['network']:.4g} ± {entry['network_error']:.1g} |"
        for entry in run["observables"]
    ]
    for label, entry in run.get("climate", {}).items():
        rows += ["", _climate(label, entry)]
    return "\n".join([*rows, "", "![runs beside the exact ones](rollout.png)"])


def _climate(label: str, entry: Mapping[str, Any]) -> str:
    """What only a comparison of both runs has."""
    words = f"{label}: {entry['diverged']} of the runs diverged"
    if "total_variation" in entry:
        words += f"; total variation between the histograms {entry['total_variation']:.3f}"
    if "valid_lyapunov" in entry:
        words += (
            f"; predictions stay within half the spread for "
            f"{entry['valid_frames']:.1f} ± {entry['valid_frames_error']:.1f} frames, "
            f"{entry['valid_lyapunov']:.2f} Lyapunov times"
        )
    return words + "."


def _symmetry(network: ZooModel) -> str:
    if not network.equivariant:
        return "It keeps translations exactly and learns the rest of the symmetry from turned data."
    return "The full symmetry of the task holds by construction, for any weights."


def _training(network: ZooModel, metrics: Mapping[str, Any]) -> str:
    found, train, data = metrics["measurements"], metrics["split_sizes"]["train"], metrics["data"]
    options_of_data = data["options"]
    pieces = "stretches" if "frames_per_second" in found else "frames"
    kinds = " and ".join(
        f"{train[kind]} {words}"
        for kind, words in (
            ("random", _independent(metrics)),
            ("trajectory", f"{pieces} of {_runs(metrics)}"),
        )
        if train.get(kind)
    )
    driven = ""
    if options_of_data.get("driver"):
        exact = options_of_data.get("exact_trajectories")
        driven = (
            f" The quenches{f', but for {exact} exact ones,' if exact else ''} "
            f"were driven by a network (weights {str(options_of_data.get('driver_sha256'))[:12]}); "
            "every frame is labelled exactly."
        )
    labels = "labels by exact diagonalization or the model's own formula"
    if "frames_per_second" in found:
        labels = "every frame computed exactly"
    options = ", ".join(f"{k} = {v}" for k, v in network.options.items())
    earlier = ""
    if found.get("init"):
        earlier = (
            " Training went on from the weights of an earlier run; data, options, time and epochs "
            "are those of the last one."
        )
    return (
        f"{kinds} on {metrics['lattice']}, dataset `{data['name']}` "
        f"(seed {options_of_data.get('seed', 0)}), {labels}.{driven} "
        f"{found['parameters']:,} parameters, {str(network.dtype).removeprefix('torch.')}."
        f"{earlier}\n"
        f"Options: {options}."
    )


def _table(name: str, values: Mapping[str, Any]) -> str:
    return f"{name.capitalize()}: " + ", ".join(f"{k} {v}" for k, v in values.items())


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
