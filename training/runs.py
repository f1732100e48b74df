"""A run folder: what one training run is, how far it got, and who is at it.

======================== ======================================================================
file                     content
======================== ======================================================================
``run.json``             options that decide the result, state, versions, hardware
``config.yaml``          every option, for ``latticezoo fit --config``
``checkpoints/last.ckpt``  the state at the end of the last whole epoch
``checkpoints/best.ckpt``  that of the epoch with the lowest validation error
``metrics.csv``          one line an epoch
``tensorboard/``         the same for TensorBoard
``.lock``                held while a process trains here
======================== ======================================================================
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latticezoo.simulate.files import atomic_write
from latticezoo.symmetry.errors import InputError

if TYPE_CHECKING:
    from latticezoo.datasets.module import LatticeData
    from latticezoo.zoo.base import ZooModel


class RunFolder:
    """The files of one run, and the rule that a folder holds one run only.

    Args:
        path: The folder; made when training starts.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    @property
    def last(self) -> Path:
        """Checkpoint of the last whole epoch."""
        return self.path / "checkpoints" / "last.ckpt"

    @property
    def best(self) -> Path:
        """Checkpoint of the epoch with the lowest validation error."""
        return self.path / "checkpoints" / "best.ckpt"

    @property
    def metrics(self) -> Path:
        """One line an epoch."""
        return self.path / "metrics.csv"

    @property
    def config(self) -> Path:
        """Every option."""
        return self.path / "config.yaml"

    def record(self) -> dict[str, Any]:
        """What ``run.json`` says; empty when there is none.

        Raises:
            InputError: When the file cannot be read as JSON.
        """
        file = self.path / "run.json"
        if not file.exists():
            return {}
        try:
            return json.loads(file.read_text())
        except ValueError as error:
            raise InputError(f"{file} is not a run record: {error}.") from error

    @property
    def finished(self) -> bool:
        """Whether the run here came to its end."""
        return self.record().get("state") == "finished"

    def claim(self, identity: Mapping[str, Any]) -> None:
        """Make this the folder of a run, or check that it is already; the first process does.

        Args:
            identity: The options that decide the result, plain values.

        Raises:
            InputError: When the folder holds a run with other options, or other files.
        """
        if is_helper():  # the first process looks, and may be writing at this moment
            return
        record = self.record()
        if record:
            new = _plain(identity)
            different = differences(_with_later_options(record.get("identity", {}), new), new)
            if different:
                raise InputError(
                    f"{self.path} holds a run with other options ({different}); "
                    "give another folder with --out."
                )
            return
        foreign = [p.name for p in self.path.iterdir()] if self.path.is_dir() else []
        foreign = [name for name in foreign if name != ".lock"]
        if self.path.exists() and (foreign or not self.path.is_dir()):
            raise InputError(
                f"{self.path} exists and is not a run folder; give another one with --out."
            )
        self.update(identity=_plain(identity), state="started", versions=versions())

    def update(self, **entries: Any) -> None:
        """Add entries to ``run.json``; only the first process of a parallel run does."""
        if is_helper():
            return
        write_json(self.path / "run.json", {**self.record(), **entries})

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes out while this one trains here; a killed process lets go.

        Raises:
            InputError: When another process is at it.
        """
        if is_helper():
            yield
            return
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / ".lock").open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise InputError(f"another process is training in {self.path}.") from error
            yield


def _with_later_options(old: dict[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """An older identity with the options that came into the library after it.

    A run that was made before an option existed stays a run with what is off, or the default of
    training, today.
    """
    from latticezoo.zoo.optimization import TRAINING_DEFAULTS

    network = old.get("network")
    if not isinstance(network, dict) or "options" not in network or "network" not in new:
        return old
    later = {
        name: value
        for name, value in new["network"]["options"].items()
        if name not in network["options"] and (not value or TRAINING_DEFAULTS.get(name) == value)
    }
    return {**old, "network": {**network, "options": {**network["options"], **later}}}


def is_helper() -> bool:
    """Whether this is a further process of a run on several devices.

    Lightning starts such processes itself, or torchrun, or srun; each has its own way to say so.
    """
    ranks = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")
    return any(int(os.environ.get(name, "0")) > 0 for name in ranks)


def identity(
    network: ZooModel,
    data: LatticeData,
    *,
    seed: int,
    max_epochs: int | None,
    budget: float | None,
    patience: int | None = None,
) -> dict[str, Any]:
    """The options that decide the result of training a network on data, plain values."""
    return {
        **({} if patience is None else {"patience": patience}),
        "network": network.config(),
        "data": {"class": type(data).__name__, **data.hparams},
        "seed": seed,
        "max_epochs": max_epochs,
        "budget": budget,
    }


def fingerprint(identity: Mapping[str, Any]) -> str:
    """Eight hexadecimal digits that tell runs with different options apart."""
    text = json.dumps(_plain(identity), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def differences(old: Any, new: Any, where: str = "", limit: int = 3) -> str:
    """Name the first few options in which two runs differ, such as ``seed 0, not 1``."""
    found = list(_differences(old, new, where))
    more = f" and {len(found) - limit} more" if len(found) > limit else ""
    return ", ".join(found[:limit]) + more


def _differences(old: Any, new: Any, where: str) -> Iterator[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*old, *new}):
            yield from _differences(old.get(key), new.get(key), f"{where}.{key}" if where else key)
    elif old != new:
        yield f"{where} {_brief(old)}, not {_brief(new)}"


def _brief(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "…"


def _plain(values: Any) -> Any:
    return json.loads(json.dumps(values, sort_keys=True, default=str))


def write_json(path: str | os.PathLike[str], values: Any) -> Path:
    """Write JSON beside, then rename."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n")
    return Path(path)


def versions() -> dict[str, str]:
    """Versions of the packages that decide numbers."""
    names = ("lattice-zoo", "torch", "pytorch-lightning", "numpy", "scipy")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def hardware() -> dict[str, Any]:
    """Processor, threads and accelerator of this machine."""
    import torch

    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        match = re.search(r"model name\s*:\s*(.+)", info.read_text())
        name = match[1] if match else name
    found = {"cpu": name, "cores": len(os.sched_getaffinity(0)), "threads": torch.get_num_threads()}
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found
