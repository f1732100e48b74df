"""Train on a cluster: data on Dask, training by DDP, a large run in slabs; here on one machine.

The script makes exact data with worker processes of Dask, trains on them in two processes, and runs
a quench with two slabs of one lattice. Each step is one command, which it prints; none of them
gives another result than one process does.

    python examples/train_on_a_cluster.py              # about a minute on two cores

Under SLURM the same commands run as the tasks of a job.

**Data.** A scheduler and workers, then the command; no common file system is needed::

    #SBATCH --ntasks=66 --cpus-per-task=1
    srun --ntasks=1 --exact dask scheduler --scheduler-file scheduler.json &
    srun --ntasks=64 --exact dask worker --nthreads 1 --scheduler-file scheduler.json &
    latticezoo data make holstein_square --lattice 40 --cluster scheduler.json --out holstein.h5

**Training.** Lightning's strategies, given as they are. ``batch_size`` is that of all processes
together, so that the loss curve does not depend on their number; a run that is killed goes on with
the same command::

    #SBATCH --nodes=2 --ntasks-per-node=4 --gpus-per-node=4
    srun latticezoo fit --model gcn --data from_file --data.path holstein.h5 \
        --data.batch_size 64 --trainer.strategy ddp --trainer.num_nodes 2 --trainer.devices 4

**A large run.** The lattice in slabs, one for each process::

    #SBATCH --nodes=2 --ntasks-per-node=4 --cpus-per-task=4
    export MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
    export MASTER_PORT=29500 WORLD_SIZE=$SLURM_NTASKS OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK
    srun bash -c 'RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID \
        python examples/slab_quench.py --lattice 4096 --steps 10000'
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from pathlib import Path

#: What the script torchrun is.
TORCHRUN = "torch.distributed.run"


def run(*words: object) -> None:
    """Print a command and run it; what it prints is shown, and its failure is ours."""
    text = shlex.join(str(word) for word in words).removeprefix(f"{sys.executable} -m ")
    for module, name in (("latticezoo.training.cli", "latticezoo"), (TORCHRUN, "torchrun")):
        text = text.replace(module, name)
    print("$", text, flush=True)
    # One thread for each process: more than there are cores would only wait for each other.
    subprocess.run(
        [str(word) for word in words], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--lattice", type=int, default=12, help="side of the lattice of the data")
    parser.add_argument("--large", type=int, default=128, help="side of the large lattice")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--out", type=Path, default=Path("cluster"))
    args = parser.parse_args()
    latticezoo = (sys.executable, "-m", "latticezoo.training.cli")
    data = args.out / "holstein.h5"

    run(
        *latticezoo,
        *("data", "make", "holstein_square", "--lattice", args.lattice),
        *("--random", 40, "--trajectories", 10, "--frames", 10),
        *("--cluster", "local", "--workers", args.processes, "--out", data),
    )
    run(
        *latticezoo,
        *("fit", "--model", "gcn", "--data", "from_file", "--data.path", data),
        *("--trainer.max_epochs", args.epochs, "--trainer.accelerator", "cpu"),
        *("--trainer.strategy", "ddp", "--trainer.devices", args.processes),
        *("--out", args.out / "run"),
    )
    run(
        *(sys.executable, "-m", TORCHRUN, "--nproc-per-node", args.processes),
        *(Path(__file__).with_name("slab_quench.py"), "--lattice", args.large),
        *("--steps", args.steps, "--leg", max(1, args.steps // 2)),
        *("--out", args.out / "slab_quench.pt"),
    )


if __name__ == "__main__":
    main()
