"""Time from nothing to the first force, and to the help of the command line.

Each command runs in a new process, several times; the median counts. Beside the time on the clock
stands that of the processor, which other work on the machine does not lengthen.

    python benchmarks/startup.py
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

from hardware import hardware

FORCE = """
import torch
from latticezoo.symmetry.lattices import square
from latticezoo.zoo import load_pretrained
network = load_pretrained("gcn.holstein_weak")
print(network.forces({"Q": torch.zeros(1, 144, 1)}, square(12))["Q"].shape)
"""
COMMANDS = {
    "import latticezoo.zoo to the first force": [sys.executable, "-c", FORCE],
    "import torch": [sys.executable, "-c", "import torch"],
    "latticezoo --help": [sys.executable, "-m", "latticezoo.training.cli", "--help"],
}
REPEATS = 5


def _timed(command: list[str]) -> tuple[float, float]:
    """Seconds on the clock, and of the processor, that a process takes."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    clock, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return clock, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure, print, save beside this script."""
    seconds = {}
    for name, command in COMMANDS.items():
        times = [_timed(command) for _ in range(REPEATS)]
        clock, processor = (statistics.median(column) for column in zip(*times, strict=True))
        seconds[name] = {"clock": round(clock, 3), "processor": round(processor, 3)}
        print(f"{name}: {clock:.2f} s, {processor:.2f} s of the processor")
    found = {
        "repeats": REPEATS,
        "seconds": seconds,
        "load_average": round(os.getloadavg()[0], 1),
        "hardware": hardware(),
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
