"""Fields of the s–d model: kernel polynomials against diagonalization, and against the hardware.

    python benchmarks/spin_kpm.py
    python benchmarks/spin_kpm.py --quick

Random spins, the skyrmion parameter set (two shells of hopping, fixed chemical potential), one
thread. Three parts:

* ``solvers``: seconds of processor time for the exact fields of one configuration by
  diagonalization and by kernel polynomials with exact traces at a requested 1e-6, the largest
  deviation between them, and the side at which they would cross when the costs grow from the
  largest size on as L⁶ and L⁴.
* ``throughput``: sites·moments per second of the Chebyshev recursion. One unit is one moment of one
  vector on one site, both spins, complex double: 32 bytes. Two moments come from one product, which
  at the very least reads two vectors and writes one: the limits are the measured copy bandwidths
  divided by 48 bytes, for blocks of the size used (in cache) and for ones beyond any cache. The
  rivals are a dense and a CSR matrix times the same block of vectors, products alone.
* ``random_vectors``: root-mean-square error of the perpendicular field, as a share of its own
  root-mean-square, and processor time, with random vectors on every ``spacing``-th site.

Writes JSON with the hardware.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hardware import hardware
from scipy import sparse

from latticezoo.simulate.electrons.operators import Operator, Window
from latticezoo.simulate.electrons.spin_kpm import spin_state
from latticezoo.simulate.electrons.spin_products import Product
from latticezoo.simulate.systems import create_system
from latticezoo.simulate.unit_vectors import normalized
from latticezoo.symmetry.fields import perpendicular
from latticezoo.symmetry.lattices import Lattice, triangular

_BYTES = 32  # of one site: two spins, complex double
_BLOCK = 3.6e6  # bytes of a block of vectors on a CPU


def timed(function: Callable[[], Any], repeats: int = 1) -> tuple[float, Any]:
    """Shortest processor time of a few calls, and the last result."""
    best, result = float("inf"), None
    for _ in range(repeats):
        began = time.process_time()
        result = function()
        best = min(best, time.process_time() - began)
    return best, result


def random_spins(lattice: Lattice, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return normalized(torch.randn(1, lattice.n_sites, 3, dtype=torch.float64, generator=generator))


def solvers(sizes: list[int], temperatures: list[float]) -> list[dict[str, Any]]:
    """Cost of both solvers against the side of the lattice."""
    found = []
    for temperature in temperatures:
        exact = create_system("sd_skyrmion", temperature=temperature)
        kpm = replace(exact, solver="kpm", error=1e-6)
        rows = []
        for L in sizes:
            lattice = triangular(L)
            spins = random_spins(lattice)
            repeats = 3 if L <= 12 else 1
            first, fields = timed(lambda: exact.interaction_field(spins, lattice), repeats)  # noqa: B023
            second, series = timed(lambda: kpm.interaction_field(spins, lattice), repeats)  # noqa: B023
            rows.append(
                {
                    "L": L,
                    "diagonalization_s": round(first, 4),
                    "kpm_s": round(second, 4),
                    "kpm_over_diagonalization": round(second / first, 2),
                    "largest_deviation": float((fields - series).abs().max()),
                }
            )
            print(temperature, rows[-1], flush=True)
        largest = rows[-1]
        crossing = largest["L"] * np.sqrt(largest["kpm_s"] / largest["diagonalization_s"])
        order = spin_state(
            exact.hoppings(triangular(6)),
            exact.site_blocks(random_spins(triangular(6))),
            temperature,
            mu=exact.chemical_potential,
            error=5e-7,
        ).order
        found.append(
            {
                "temperature": temperature,
                "order": order,
                "rows": rows,
                "crossing_side": round(float(crossing), 1),
            }
        )
    return found


def throughput(L: int, order: int) -> dict[str, Any]:
    """Sites·moments per second of recursion and of rival products, and copy bandwidths."""
    lattice, system = triangular(L), create_system("sd_skyrmion")
    spins, sites = random_spins(lattice), lattice.n_sites
    (hopping,), blocks = system.hoppings(lattice), system.site_blocks(spins)
    vectors = int(_BLOCK / (_BYTES * sites)) // 2 * 2
    full, _ = timed(lambda: spin_state([hopping], blocks, 0.05, mu=-3.5, order=order), repeats=2)
    product = _bare_products(hopping, blocks, sites, vectors)
    matrix = sparse.csr_array(sparse.kron(hopping.matrix(), np.eye(2)))
    local = sparse.block_diag(list(blocks[0].numpy()), format="csr")
    whole = sparse.csr_array(matrix + local)
    block = torch.randn(2 * sites, vectors, dtype=torch.complex128)
    dense = torch.from_numpy(whole.toarray())
    rows = Operator.of(whole)
    csr, _ = timed(lambda: rows.product(block), 10)
    gemm, _ = timed(lambda: dense @ block, 3)
    in_cache, beyond = copy_bandwidth(_BLOCK), copy_bandwidth(256e6)
    unit = 2 * sites * vectors  # two moments from one product
    return {
        "lattice": str(lattice),
        "vectors_in_a_block": vectors,
        "sites_moments_per_second": {
            "whole_calculation": float(f"{2 * sites * sites * order / full:.4g}"),
            "products_alone": float(f"{unit / product:.4g}"),
            "csr_products_alone": float(f"{unit / csr:.4g}"),
            "dense_products_alone": float(f"{unit / gemm:.4g}"),
            "limit_of_copies_in_cache": float(f"{in_cache / 48:.4g}"),
            "limit_of_copies_in_memory": float(f"{beyond / 48:.4g}"),
        },
        "copy_bandwidth_in_cache_GB_s": round(in_cache / 1e9, 1),
        "copy_bandwidth_in_memory_GB_s": round(beyond / 1e9, 1),
        "dense_product_Gflop_s": round(8 * (2 * sites) ** 2 * vectors / gemm / 1e9, 1),
    }


def _bare_products(hopping: Any, blocks: torch.Tensor, sites: int, vectors: int) -> float:
    product = Product(hopping, blocks, Window(-6.0, 9.0))
    old = product.buffer(torch.randn(sites, 1, 4, vectors, dtype=torch.float64))
    new = product(old)

    def step() -> None:
        nonlocal old, new
        for _ in range(10):
            old, new = new, product(new, old)

    with torch.no_grad():
        return timed(step, 5)[0] / 10


def copy_bandwidth(size: float) -> float:
    """Bytes read and written per second by copies of arrays of a size."""
    source = torch.ones(int(size / 8), dtype=torch.float64)
    target = torch.empty_like(source)
    count = max(1, int(5e8 / size))

    def copies() -> None:
        for _ in range(count):
            target.copy_(source)

    return 2 * 8 * len(source) * count / timed(copies, 5)[0]


def random_vectors(sizes: list[int], cases: list[tuple[int, int]]) -> list[dict[str, Any]]:
    """Error and cost of estimates."""
    exact = create_system("sd_skyrmion", temperature=0.05)
    found = []
    for L in sizes:
        lattice = triangular(L)
        spins = random_spins(lattice)
        reference = None
        if sizes[0] == L:
            reference = perpendicular(exact.interaction_field(spins, lattice), spins)
        for count, spacing in cases:
            system = replace(exact, solver="kpm", error=1e-5, n_random=count, spacing=spacing)
            seconds, electrons = timed(lambda: system.electrons(spins, lattice))  # noqa: B023
            field = perpendicular(0.5 * electrons.charge_spin[..., 1:], spins)
            row = {"L": L, "n_random": count, "spacing": spacing, "seconds": round(seconds, 3)}
            if reference is not None:
                error = (field - reference).norm() / reference.norm()
                row["relative_error"] = float(f"{error:.3g}")
            found.append(row)
            print(row, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small and short: checks that it runs")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    sizes, temperatures, side, order = [12, 18, 24, 30], [0.05, 0.2], 24, 100
    estimates = ([24, 36], [(4, 1), (16, 1), (4, 3), (2, 6)])
    if options.quick:
        sizes, temperatures, side, order, estimates = [6, 12], [0.2], 12, 20, ([12], [(4, 1)])
    found = {
        "benchmark": "spin_kpm",
        "quick": options.quick,
        "hardware": hardware(),
        "load_average_before": round(os.getloadavg()[0], 1),
        "throughput": throughput(side, order),
        "solvers": solvers(sizes, temperatures),
        "random_vectors": random_vectors(*estimates),
    }
    options.output.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found["throughput"], indent=2))
    print(options.output)


if __name__ == "__main__":
    main()
