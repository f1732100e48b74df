"""Pretrained networks: weights that can be checked before they are believed.

A card is a folder with

* ``config.json``: which network (by registry name, never an import path), its task and options,
  the version of the representation conventions, and the sha256 of the other files;
* ``model.safetensors``: parameters and buffers, the standardization among them;
* ``golden.safetensors``: inputs, and the outputs that these weights gave for them.

Nothing is unpickled, and nothing is parsed before its hash has been checked; that holds for
installed cards, folders and repositories on the hub alike (:mod:`latticezoo.zoo.sources`). This
module reads; :mod:`latticezoo.training` writes the folders, from :func:`model_config`,
:func:`weights_bytes` and :func:`golden_bytes`, which only compute.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.groups import CONVENTION_VERSION
from latticezoo.symmetry.lattices import Lattice
from latticezoo.zoo.base import ZooModel
from latticezoo.zoo.registry import model_class
from latticezoo.zoo.sources import CONFIG, GOLDEN, WEIGHTS, Card, list_pretrained, open_card

__all__ = [
    "check_golden",
    "golden_bytes",
    "list_pretrained",
    "load_pretrained",
    "model_config",
    "weights_bytes",
]

FORMAT = "latticezoo-weights-1"

#: Keys that a config.json must have, and may have.
REQUIRED_KEYS = frozenset({"format", "convention_version", "model", "task", "options", "sha256"})
ALLOWED_KEYS = REQUIRED_KEYS | {
    "ensemble",
    "golden_lattice",
    "library_version",
    "parameters",
    "statistics",
}

#: Largest deviation from the golden outputs, as a share of the largest of them.
#: Ending of the names of complex golden numbers, whose last axis is real and imaginary part.
_COMPLEX = ":complex"
GOLDEN_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-9}


def load_pretrained(
    name: str | Path,
    *,
    revision: str | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> ZooModel:
    """Load a network with its weights, in eval mode.

    Args:
        name: One of :func:`list_pretrained`, such as ``"gcn.holstein_weak"``; a folder, as a path
            or as ``"local-dir:PATH"``; or a repository on the Hugging Face hub,
            ``"hf-hub:user/name"`` or ``"hf-hub:user/name@revision"``.
        revision: Branch, tag or commit on the hub, in the place of ``@revision``.
        device: Where the network shall be; the CPU by default.
        dtype: Its floating-point type; that of the saved weights by default.

    Returns:
        The network.

    Raises:
        InputError: For an unknown name, a missing or unreadable file, a hash that differs, a model
            or option that is unknown, other representation conventions, or weights that do not
            fit. The sentence says which.
    """
    card = open_card(name, revision)
    network = _load(card, read_config(card))
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise InputError(f"dtype {dtype} is no floating-point type, such as torch.float64.")
    try:
        return network.to(device=device, dtype=dtype)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"the device {str(device)!r} is not to be had here.") from error


def check_golden(name: str | Path, revision: str | None = None) -> float:
    """Compare a network's outputs with those that were saved beside its weights.

    Args:
        name: As :func:`load_pretrained`.
        revision: As :func:`load_pretrained`.

    Returns:
        The largest deviation as a share of the largest output.

    Raises:
        InputError: As :func:`load_pretrained`; when the golden file is missing or damaged, or the
            outputs differ by more than rounding.
    """
    card = open_card(name, revision)
    config = read_config(card)
    network = _load(card, config)
    if GOLDEN not in config["sha256"] or "golden_lattice" not in config:
        raise InputError(f"{card} has no golden outputs to compare with.")
    tensors = _read_tensors(card, GOLDEN, config)
    lattice = Lattice.parse(config["golden_lattice"])
    dtype = next(network.parameters()).dtype
    fields, expected = (
        {
            key.removeprefix(prefix).removesuffix(_COMPLEX): _from_real(key, value.to(dtype))
            for key, value in tensors.items()
            if key.startswith(prefix)
        }
        for prefix in ("inputs/", "targets/")
    )
    missing = [field.name for field in network.task.targets if field.name not in expected]
    if missing:
        raise InputError(f"the golden outputs in {card} lack {', '.join(missing)}.")
    with torch.no_grad():
        found = network(fields, lattice)
    worst = max(
        float((found[key] - value).abs().max() / value.abs().max().clamp(min=1e-30))
        for key, value in expected.items()
    )
    if not worst <= GOLDEN_TOLERANCE[dtype]:
        raise InputError(
            f"the network in {card} does not reproduce its golden outputs: it deviates by "
            f"{worst:.1e} of the largest."
        )
    return worst


# ---- reading -----------------------------------------------------------------------------------


def _load(card: Card, config: Mapping[str, Any]) -> ZooModel:
    """The network of a card, in eval mode on the CPU."""
    model_class(config["model"])  # an unknown one is refused before the weights are read
    weights = _read_tensors(card, WEIGHTS, config)
    try:
        network = ZooModel.from_config(config)
    except InputError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise InputError(f"{card}/{CONFIG} describes no network: {_first_line(error)}.") from error
    own = network.state_dict()
    for key in sorted({*own, *weights}):
        if key not in own or key not in weights or own[key].shape != weights[key].shape:
            raise InputError(
                f"the weights in {card} do not fit the network {config['model']!r}: {key!r} "
                "is missing, unexpected, or of another shape."
            )
    saved = next((value.dtype for value in weights.values() if value.is_floating_point()), None)
    if saved not in GOLDEN_TOLERANCE:
        raise InputError(f"the weights in {card} must be float32 or float64, not {saved}.")
    network = network.to(dtype=saved)
    network.load_state_dict(weights)
    return network.eval()


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def read_config(card: Card) -> dict[str, Any]:
    """Read and check a config.json: keys, format, conventions, file names.

    Raises:
        InputError: Naming what is wrong.
    """
    path = f"{card}/{CONFIG}"
    data = card.read(CONFIG)
    try:
        config = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as JSON; it is damaged.") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise InputError(f"{path} is not in the format {FORMAT!r}.")
    missing, extra = sorted(REQUIRED_KEYS - set(config)), sorted(set(config) - ALLOWED_KEYS)
    if missing:
        raise InputError(f"{path} lacks {', '.join(missing)}.")
    if extra:
        raise InputError(f"{path} has keys that are not allowed: {', '.join(extra)}.")
    if config["convention_version"] != CONVENTION_VERSION:
        raise InputError(
            f"{path} uses version {config['convention_version']} of the representation "
            f"conventions, but this library uses version {CONVENTION_VERSION}."
        )
    hashes = config["sha256"]
    if not isinstance(hashes, dict) or not {WEIGHTS} <= set(hashes) <= {WEIGHTS, GOLDEN}:
        raise InputError(f"{path} must give the sha256 of {WEIGHTS} and at most {GOLDEN}.")
    if not isinstance(config["model"], str) or not isinstance(config["options"], dict):
        raise InputError(f"{path} must name its model and give its options as a table.")
    return config


def _read_tensors(card: Card, file: str, config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Read a safetensors file whose hash is right.

    Raises:
        InputError: When it is missing, was changed, or is no safetensors file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    path = f"{card}/{file}"
    data = card.read(file)
    if hashlib.sha256(data).hexdigest() != config["sha256"][file]:
        raise InputError(
            f"{path} is not the file that {CONFIG} describes (its sha256 differs); it was changed "
            "or cut off."
        )
    _check_header(data, path)
    try:
        return load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise InputError(f"{path} is not a safetensors file.") from error


def _check_header(data: bytes, path: str) -> None:
    """Refuse what does not begin as a safetensors file: the length of a JSON table, and the table.

    Raises:
        InputError: Naming a pickle, which a disguise is for, as what it is.
    """
    length = int.from_bytes(data[:8], "little")
    if data[8:9] == b"{" and length <= len(data) - 8:
        return
    # torch.save writes a zip archive with a pickle in it; plain pickles begin with their protocol.
    if data[:4] == b"PK\x03\x04" or (data[:1] == b"\x80" and data[1:2] <= b"\x05"):
        raise InputError(
            f"{path} is not a safetensors file but a pickle, which could run code; nothing of it "
            "was opened."
        )
    raise InputError(f"{path} is not a safetensors file.")


# ---- what the writing side needs ---------------------------------------------------------------


def weights_bytes(network: ZooModel) -> bytes:
    """Parameters and persistent buffers of a network in the safetensors format."""
    from safetensors.torch import save

    state = network.state_dict()
    return save({key: value.detach().cpu().contiguous() for key, value in state.items()})


def golden_bytes(network: ZooModel, fields: Mapping[str, Tensor], lattice: Lattice) -> bytes:
    """Inputs and the network's outputs for them in the safetensors format.

    Args:
        network: With the weights that are saved beside it.
        fields: Inputs, a few configurations of a small lattice.
        lattice: That lattice.
    """
    from safetensors.torch import save

    network = network.cpu().eval()
    inputs = {name: network._cast(values.detach().cpu()) for name, values in fields.items()}
    with torch.no_grad():
        outputs = network(inputs, lattice)
    tensors = _as_real({f"inputs/{name}": values for name, values in inputs.items()})
    return save(tensors | _as_real({f"targets/{name}": value for name, value in outputs.items()}))


def _as_real(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Complex numbers as pairs, under a name that says so: the format has no complex128."""
    return {
        name + _COMPLEX * values.is_complex(): (
            torch.view_as_real(values.resolve_conj()) if values.is_complex() else values
        ).contiguous()
        for name, values in tensors.items()
    }


def _from_real(name: str, values: Tensor) -> Tensor:
    """The inverse of :func:`_as_real` for one tensor."""
    return torch.view_as_complex(values) if name.endswith(_COMPLEX) else values


def model_config(
    network: ZooModel, weights: bytes, golden: bytes | None = None, lattice: Lattice | None = None
) -> dict[str, Any]:
    """What goes into config.json.

    Args:
        network: The network.
        weights: As given by :func:`weights_bytes`.
        golden: As given by :func:`golden_bytes`.
        lattice: The lattice of the golden inputs.

    Returns:
        Plain values, for JSON.
    """
    files = {WEIGHTS: weights} | ({} if golden is None else {GOLDEN: golden})
    config = {
        "format": FORMAT,
        "convention_version": CONVENTION_VERSION,
        **network.config(),
        "parameters": sum(value.numel() for value in network.parameters()),
        "statistics": {
            "inputs": network.input_scaling.to_dict(),
            "targets": network.target_scaling.to_dict(),
        },
        "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
    }
    if lattice is not None:
        config["golden_lattice"] = str(lattice)
    return config
