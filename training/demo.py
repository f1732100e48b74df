"""What `make demo` runs: exact data, training, leaderboard, a quench with the winner, a card."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from latticezoo.training.cli import Parser, guarded

#: 100 random configurations and ten exact quenches of 20 frames on 12×12, parameter set A.
DATA = {"lattice": 12, "preset": "holstein_weak", "random": 100, "trajectories": 10, "frames": 20}
MODELS = ("descriptor_mlp", "gcn")
QUENCH = {
    "system": "holstein_weak",
    "lattice": "square(16, 16)",
    "initial": {"kind": "random", "amplitude": 1.0},
    "dynamics": {"name": "langevin", "dt": 0.1, "temperature": 0.1},
    "steps": 200,
    "replicas": 12,
    "seed": 2024,
    "sample_every": 10,
    "frame_every": 5,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demonstration; give the exit status."""
    parser = Parser(prog="python -m latticezoo.training.demo", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder (default demo)")
    parser.add_argument(
        "--budget", type=float, default=70.0, help="training seconds per network (default 70)"
    )

    def run(words: list[str]) -> int:
        arguments = parser.parse_args(words)
        Demo(arguments.out, arguments.budget).run()
        return 0

    return guarded(run, list(sys.argv[1:] if argv is None else argv))


class Demo:
    """The steps of the demonstration; each goes on from what an interrupted one left.

    Args:
        out: Folder for everything.
        budget: Training time of each network, s.
        data: Options of the Holstein data.
        quench: Settings of the simulation.
        models: Networks to train.
    """

    def __init__(
        self,
        out: Path,
        budget: float,
        data: dict[str, Any] | None = None,
        quench: dict[str, Any] | None = None,
        models: Sequence[str] = MODELS,
    ) -> None:
        self.out, self.budget, self.models = out, budget, list(models)
        self.data = {**DATA, **(data or {}), "path": str(out / "holstein.h5")}
        self.quench = {**QUENCH, **(quench or {})}
        self._start = time.monotonic()

    def run(self) -> None:
        """Run all steps and print the paths."""
        from latticezoo.training.train import quiet, written

        with quiet():
            results = self._compare()
            winner, simulated = self._quench(results)
            card = self._card(results, winner)
        self._say("Done.")
        written(self.out / "holstein.h5", *self._files, *simulated, *card)

    def _say(self, text: str) -> None:
        print(f"\n[{time.monotonic() - self._start:4.0f} s] {text}", flush=True)

    def _compare(self) -> Any:
        from latticezoo.training.compare import Comparison

        self._say(
            f"1. Exact data: {self.data['random']} random configurations and "
            f"{self.data['trajectories']} quenches of the Holstein model on "
            f"{self.data['lattice']}×{self.data['lattice']} sites, by diagonalization."
        )
        comparison = Comparison.open("holstein", self.models, self.data, budget=self.budget)
        comparison.data.prepare_data()
        comparison.data.setup()
        self._say(
            f"2. Training {' and '.join(self.models)} to predict the electron density n − ½ from "
            f"the displacements Q, {self.budget:g} s each; trajectories are held out whole."
        )
        results = comparison.run(self.out / "comparison")
        self._say("3. Leaderboard on held-out states (equivariance over the whole symmetry group):")
        self._files = results.write(self.out / "comparison", comparison.settings)
        return results

    def _quench(self, results: Any) -> tuple[str, list[Path]]:
        from latticezoo.training.pictures import agreement, simulation_pictures
        from latticezoo.training.simulate_command import Plan

        winner = results.best()
        plan = Plan.make({**self.quench, "model": str(self.out / "comparison/members" / winner)})
        seconds = plan.steps * plan.dynamics.get("dt", 0.1)
        self._say(
            f"4. A thermal quench on {plan.lattice}, {plan.replicas} replicas to t = {seconds:g} "
            f"τ₀: first with the exact solver, then with {winner}, same starts and same noise."
        )
        runs, walls = {}, {}
        exact = replace(plan, model="exact").force_field()
        for label, force_field in (("exact", exact), (winner, None)):
            start = time.monotonic()
            runs[label] = plan.simulate(self.out / "quench" / label, force_field)
            walls[label] = time.monotonic() - start
            print(f"   {label}: {walls[label]:.0f} s")
        pictures = simulation_pictures(self.out / "quench", plan, runs)
        for line in agreement(plan, runs):
            print(f"   {line}")
        return winner, [self.out / "quench" / label / "trajectory.h5" for label in runs] + pictures

    def _card(self, results: Any, winner: str) -> list[Path]:
        from latticezoo.training.cards import write_card

        self._say(f"5. A model card for {winner}, with its weights.")
        folder = self.out / "cards" / f"{winner}.holstein_demo"
        row = next(row for row in results.rows if row["label"] == winner)
        network = results.networks[winner]
        return write_card(
            folder, network, results.data, row, results.pairs[winner], force=folder.exists()
        )


if __name__ == "__main__":
    sys.exit(main())
