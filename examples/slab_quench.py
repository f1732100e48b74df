"""One large quench over several processes: slabs of the lattice, halos, the trajectory of one.

    torchrun --nproc-per-node 2 examples/slab_quench.py --lattice 256 --steps 200

Every process holds a slab and asks its neighbours, before every force call, for the rows that the
network sees beyond it. The noise of a site depends on (seed, replica, step, site) alone, so that
the number of processes changes nothing but the rounding of the network. The run is made in legs,
observed and saved after each; started again, it goes on from the last one.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch
from torch import distributed as dist

from latticezoo.simulate import Langevin, State, preset, random_start, run_slabs
from latticezoo.simulate.files import atomic_write
from latticezoo.simulate.observables import local_order
from latticezoo.symmetry import square
from latticezoo.zoo import load_pretrained


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lattice", type=int, default=256)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--leg", type=int, default=50, help="steps between two observations")
    parser.add_argument("--out", type=Path, default=Path("slab_quench.pt"))
    args = parser.parse_args()

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    cuda = torch.cuda.is_available()
    dist.init_process_group("nccl" if cuda else "gloo")
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cuda else torch.device("cpu")

    system, lattice = preset("holstein_weak"), square(args.lattice)
    field = system.learned(load_pretrained("gcn.holstein_weak", device=device))
    bath = Langevin(0.1, temperature=0.1, damping=system.damping, mass=system.mass)
    state = restored(args.out, device)
    if state is None:
        state = random_start(lattice, amplitude=system.Q0, seed=1, device=device)
    while state.step < args.steps:
        leg = min(args.leg, args.steps - state.step)
        state = run_slabs(field, bath, state, leg, lattice=lattice)
        if dist.get_rank() == 0:
            save(args.out, state)
            density = system.density_from_forces(state.fields, state.forces, lattice)
            order = local_order(density, lattice).abs().mean()
            print(f"step {state.step}: mean |local order| {order:.4f}", flush=True)
    if dist.get_rank() == 0:
        print(f"wrote:\n  {args.out}")
    dist.destroy_process_group()


def save(path: Path, state: State) -> None:
    """Write the whole state beside, then rename: a kill leaves the one before."""
    kept = {
        "fields": dict(state.fields),
        "momenta": dict(state.momenta),
        "forces": dict(state.forces),
        "step": state.step,
        "dt": state.dt,
        "origin": state.origin,
        "replicas": state.replicas,
        "seed": state.seed,
    }
    with atomic_write(path) as temporary:
        torch.save(kept, temporary)


def restored(path: Path, device: torch.device) -> State | None:
    """The state that an earlier run of this script left."""
    if not path.exists():
        return None
    kept = torch.load(path, weights_only=True, map_location=device)
    return State(**kept)


if __name__ == "__main__":
    main()
