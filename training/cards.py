"""Turn a finished run into a model card: a folder with weights, measurements and a page to read.

  latticezoo card runs/my-run --name gcn.my_data --out cards
  latticezoo card cards/gcn.my_data                           # measure what a card lacks
  latticezoo card cards/gcn.my_data --growth weak_010.json    # add a large run to a finished card

The card holds config.json (the network by its registry name, hashes), model.safetensors,
golden.safetensors (inputs and outputs to check against), metrics.json (every measurement with its
split, hardware and cost), pictures, and a README.md made from these. Measured are held-out errors,
those on another size of the lattice (--transfer), symmetry, speed, and a short run beside the exact
one (--steps, --replicas); of a time series the errors of the next frame, and long free runs beside
the true ones. load_pretrained("local-dir:…"), latticezoo simulate --model FOLDER and
latticezoo publish take it. A run that lacks a measurement gets no card.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latticezoo.simulate.files import atomic_write
from latticezoo.symmetry.errors import InputError
from latticezoo.training.card_check import METRICS, PAGE, check_card, missing, read_metrics
from latticezoo.training.card_measure import REPLICAS, STEPS, complete
from latticezoo.training.card_page import card_page

if TYPE_CHECKING:
    from latticezoo.datasets.module import LatticeData
    from latticezoo.training.evaluate import Pairs
    from latticezoo.zoo.base import ZooModel

_LIMIT = 1_000_000
ROLLOUT = "rollout.png"
_NAME = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)*")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("run", type=Path, help="folder of a finished run (fit, or a compare member), or a card")
    add("--name", help="name of the card (default <network>.<parameter set>)")
    add("--out", type=Path, default=Path("cards"), help="folder of cards (default cards)")
    add(
        "--transfer",
        metavar="L",
        help="other lattice size to measure on (default: half as large again, or a smaller one)",
    )
    add("--steps", type=int, default=STEPS, help=f"of the run beside the exact one ({STEPS})")
    add("--replicas", type=int, default=REPLICAS, help=f"of that run ({REPLICAS})")
    add("--force", action="store_true", help="replace a card of that name")
    add(
        "--growth",
        type=Path,
        action="append",
        default=[],
        metavar="JSON",
        help="report a run of benchmarks/domain_growth.py with these weights; may be repeated",
    )
    add("--max-bytes", type=int, default=_LIMIT, help=f"largest weights file (default {_LIMIT})")


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from latticezoo.datasets.series import SeriesData
    from latticezoo.training.names import open_data
    from latticezoo.training.results import Results
    from latticezoo.training.runs import RunFolder
    from latticezoo.training.series_card import SeriesCard
    from latticezoo.training.train import quiet, written
    from latticezoo.zoo.base import ZooModel

    growth = [read_growth(file) for file in arguments.growth]
    sizes = {"steps": arguments.steps, "replicas": arguments.replicas}
    if (arguments.run / "config.json").exists():
        with quiet():
            files = revise_card(
                arguments.run, growth, arguments.transfer, force=arguments.force, **sizes
            )
        written(*files)
        return 0
    folder = RunFolder(arguments.run)
    record = folder.record()
    if not record:
        raise InputError(f"{folder.path} is not the folder of a run.")
    if not folder.finished:
        raise InputError(
            f"the run in {folder.path} is not finished; run the command that began it again first."
        )
    with quiet():
        network = ZooModel.load_from_checkpoint(folder.best).eval()
        data = open_data(record["data"]["name"], record["data"]["options"])
        name = arguments.name or f"{network.registry_name}.{_parameter_set(data)}"
        check_target(arguments.out / name, force=arguments.force)
        data.prepare_data()
        data.setup()
        results = SeriesCard(data) if isinstance(data, SeriesData) else Results(data)
        row = results.add(name, network, record, folder)
        files = write_card(
            arguments.out / name,
            network,
            data,
            row,
            results.pairs[name],
            force=arguments.force,
            limit=arguments.max_bytes,
            growth=growth,
            transfer=arguments.transfer,
            **sizes,
        )
    written(*files)
    return 0


def read_growth(file: Path) -> dict[str, Any]:
    """What a card says of a large run: a part of the JSON that benchmarks/domain_growth.py writes.

    Raises:
        InputError: The file is missing or another.
    """
    try:
        found = json.loads(file.read_text())
        fit = found["fits"]["half_height"]
        return {
            "bath_temperature": found["bath_temperature"],
            "chemical_potential": found["system"]["chemical_potential"],
            "lattice": found["lattice"],
            "replicas": found["replicas"],
            "steps": found["steps"],
            "dt_tau0": found["dt_tau0"],
            "exponent": fit["exponent"],
            "exponent_standard_error": fit["standard_error"],
            "window_tau0": found["window_tau0"],
            "length": found["lengths"]["half_height"]["mean"][-1],
            "collapse_rms_residual": (found["collapse"] or {}).get("rms_residual"),
            "stripe_frozen": found["final"]["stripe_frozen"],
            "diagonal_stripes": found["final"]["diagonal_stripes"],
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} is no JSON file of benchmarks/domain_growth.py.") from error


def revise_card(
    folder: Path,
    growth: list[dict[str, Any]],
    transfer: str | None = None,
    *,
    steps: int = STEPS,
    replicas: int = REPLICAS,
    force: bool = False,
) -> list[Path]:
    """Measure what a card lacks, add large runs to it, and write its page anew.

    Args:
        folder: The card.
        growth: Large runs, as :func:`read_growth` gives them; none keeps those it has.
        transfer: Other lattice size to measure on.
        steps: Of the run beside the exact one.
        replicas: Of that run.
        force: Measure again what it has.

    Returns:
        What was written.

    Raises:
        InputError: There is nothing to add, the card is damaged, or something cannot be measured.
    """
    from latticezoo.datasets.driven import DRIVER_OPTIONS
    from latticezoo.training.names import open_data
    from latticezoo.training.runs import write_json
    from latticezoo.zoo.pretrained import load_pretrained

    network, metrics = load_pretrained(folder), read_metrics(folder)
    lacking = missing(metrics)
    if not (lacking or growth or force):
        raise InputError(
            f"{folder} is a complete card already; give --growth with what to add to it, or "
            "--force to measure again."
        )
    if growth:
        metrics["domain_growth"] = growth
    files = []
    if lacking or force:
        # What drove the training data is told on the page and may be long gone: fresh states are
        # exact.
        options = {k: v for k, v in metrics["data"]["options"].items() if k not in DRIVER_OPTIONS}
        data = open_data(metrics["data"]["name"], options)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".rollout-") as scratch:
            picture = Path(scratch) / ROLLOUT
            complete(
                metrics,
                network,
                data,
                picture,
                transfer=transfer,
                steps=steps,
                replicas=replicas,
                again=force,
            )
            if picture.exists():
                files.append(picture.replace(folder / ROLLOUT))
    with atomic_write(folder / PAGE) as temporary:
        temporary.write_text(card_page(network, metrics))
    return [*files, write_json(folder / METRICS, metrics), folder / PAGE]


def _parameter_set(data: LatticeData) -> str:
    from latticezoo.datasets.series import SeriesData

    preset = None if isinstance(data, SeriesData) else data.hparams.get("preset")
    return str(preset or data.task.name)


def check_target(folder: Path, *, force: bool = False) -> None:
    """Make sure that a card may be written there.

    Raises:
        InputError: For a name in another style, or a folder that exists.
    """
    if not _NAME.fullmatch(folder.name):
        raise InputError(
            f"{folder.name!r} is no name for a card; use lower case letters, digits, _ and dots, "
            "such as gcn.holstein_weak."
        )
    if folder.exists() and not (force and (folder / "config.json").exists()):
        hint = "use --force to replace it" if (folder / "config.json").exists() else "it is no card"
        raise InputError(f"{folder} exists; {hint}, or choose another --name or --out.")


def write_card(
    folder: Path,
    network: ZooModel,
    data: LatticeData,
    row: Mapping[str, Any],
    pairs: Pairs,
    *,
    force: bool = False,
    limit: int = _LIMIT,
    growth: list[dict[str, Any]] | None = None,
    transfer: str | None = None,
    steps: int = STEPS,
    replicas: int = REPLICAS,
) -> list[Path]:
    """Write a card whole or not at all, a run beside the exact one in it, and check that it loads.

    Args:
        folder: The card; its last part is the name.
        network: With trained weights.
        data: What it was trained and measured on.
        row: Its measurements, as a row of the leaderboard.
        pairs: Exact and predicted held-out values, for the pictures.
        force: Replace an older card.
        limit: Largest size of the weights in bytes.
        growth: Large runs with these weights, as :func:`read_growth` gives them.
        transfer: Other lattice size to measure on, where the row has none.
        steps: Of the run beside the exact one.
        replicas: Of that run.

    Returns:
        The files of the card.

    Raises:
        InputError: When a measurement is missing, the weights are too large, or the name is taken.
    """
    from latticezoo.datasets.series import SeriesData
    from latticezoo.training import plots
    from latticezoo.training.results import QUANTITIES
    from latticezoo.training.runs import write_json
    from latticezoo.zoo.pretrained import golden_bytes, model_config, weights_bytes
    from latticezoo.zoo.sources import CONFIG, GOLDEN, WEIGHTS

    check_target(folder, force=force)
    metrics = card_metrics(folder.name, data, row)
    if growth:
        metrics["domain_growth"] = growth
    network = network.cpu().eval()
    weights = weights_bytes(network)
    if len(weights) > limit:
        raise InputError(
            f"the weights of {folder.name} take {len(weights):,} bytes, more than {limit:,}; "
            "raise --max-bytes, or train a smaller network."
        )
    fields, lattice = _golden_inputs(network, data)
    golden = golden_bytes(network, fields, lattice)
    quantity = QUANTITIES.get(metrics["target"], metrics["target"])
    if isinstance(data, SeriesData):
        quantity = f"change of {quantity}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    with put_in_place(made, folder):
        (made / WEIGHTS).write_bytes(weights)
        (made / GOLDEN).write_bytes(golden)
        write_json(made / CONFIG, model_config(network, weights, golden, lattice))
        complete(
            metrics,
            network,
            data,
            made / ROLLOUT,
            transfer=transfer,
            steps=steps,
            replicas=replicas,
        )
        write_json(made / METRICS, metrics)
        plots.parity(made / "parity.png", {folder.name: pairs}, quantity)
        errors = {kind: predicted - exact for kind, (exact, predicted) in pairs.items()}
        plots.error_histogram(made / "errors.png", {folder.name: errors}, quantity)
        (made / PAGE).write_text(card_page(network, metrics))
        check_card(made)
    return sorted(folder.iterdir())


@contextmanager
def put_in_place(made: Path, folder: Path) -> Iterator[None]:
    """Rename a folder into place once the block has filled it, an older one out of the way first.

    Args:
        made: A new folder beside it; removed when the block fails.
        folder: Where it shall be.
    """
    try:
        yield
        made.chmod(0o755)
        if not folder.exists():
            made.rename(folder)
            return
        old = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-old-"))
        folder.rename(old / "card")
        made.rename(folder)
        shutil.rmtree(old)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise


def _golden_inputs(network: ZooModel, data: LatticeData) -> tuple[dict[str, Any], Any]:
    """One held-out state of each kind on a small lattice."""
    import torch

    samples = data.samples("test")
    kinds = [samples.kind == number for number in (0, 1)]
    rows = [int(chosen.nonzero()[0]) for chosen in kinds if chosen.any()]
    picked = torch.tensor(rows)
    return {name: values[picked] for name, values in samples.fields.items()}, samples.lattice


def card_metrics(name: str, data: LatticeData, row: Mapping[str, Any]) -> dict[str, Any]:
    """All that was measured, with what it was measured on, plain values."""
    from latticezoo.training.callbacks import describe_data
    from latticezoo.training.names import data_record
    from latticezoo.training.runs import hardware, versions

    kept = {k: v for k, v in row.items() if k not in ("label", "baseline", "network")}
    return {
        "name": name,
        "task": data.task.name,
        "target": data.task.targets[0].name,
        **describe_data(data),
        "data": data_record(data),
        "split": "test, by trajectory",
        "split_sizes": data.split_sizes,
        "measurements": kept,
        "hardware": hardware(),
        "versions": versions(),
    }
