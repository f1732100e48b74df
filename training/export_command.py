"""Export a network for PyTorch alone: a .pt2 file that torch.export.load runs without this library.

  latticezoo export gcn.holstein_weak gcn.pt2 --lattice 24
  latticezoo export runs/my-run my.pt2 --lattice "square(16, 24)" --batch 4

Elsewhere: outputs = torch.export.load("gcn.pt2").module()(values). The program is for one lattice
and one batch size; it is compared with the network before it is written.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("name", metavar="NAME", help="pretrained name, local-dir:, hf-hub:, run or checkpoint")
    add("out", metavar="OUT.pt2", type=Path, help="the file")
    add("--lattice", default="16", help="such as 24, or 'square(16, 24)' (default side 16)")
    add("--batch", type=int, default=1, help="samples in one call (default 1)")


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from latticezoo.symmetry.lattices import Lattice
    from latticezoo.zoo.export import export_network
    from latticezoo.zoo.loading import load_network

    network = load_network(arguments.name)
    size = arguments.lattice
    if size.isdigit():
        family = network.task.family
        lattice = Lattice(family, (int(size),) * Lattice.dimension(family))
    else:
        lattice = Lattice.parse(size)
    print(f"wrote {export_network(network, lattice, arguments.out, arguments.batch)}")
    return 0
