r"""Add your own Hamiltonian: from the formula to learned dynamics, in one file.

The optical Su–Schrieffer–Heeger model on a chain: atoms with displacements u_i, bound to their
sites, change the hopping on their bonds (Capone, Stephan and Grilli, Phys. Rev. B 56, 4484 (1997)):

.. math::
    H = -\sum_i t_i\,(c_i^\dagger c_{i+1} + \mathrm{h.c.})
        + \sum_i \Big(\frac{P_i^2}{2m} + \frac{k}{2} u_i^2\Big), \qquad
    t_i = t - \alpha\,(u_{i+1} - u_i).

At half filling and low temperature the chain dimerizes. The script

1. defines the exact system, and checks it against closed forms and finite differences,
2. states what a network shall learn and with which symmetry, and lets the exact forces prove it,
3. makes labelled data by a recipe: in parallel, resumable, split by trajectory,
4. trains a network of the zoo on them, and lets it drive a quench beside the exact forces.

    python examples/my_hamiltonian.py                  # about two minutes on one core
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from pytorch_lightning import Trainer
from torch import Tensor

from latticezoo.datasets import FromFile, LabelledData, Recipe, Source, Unit, make_dataset, recipe
from latticezoo.simulate import Langevin, System, random_start, simulate
from latticezoo.simulate.systems import system_registry
from latticezoo.symmetry import Field, Lattice, Task, assert_equivariant, chain
from latticezoo.zoo import create_model

# ---- 1. The system: parameters, energy, forces -------------------------------------------------


@dataclass(frozen=True)
class OpticalSSH(System):
    """Spinless electrons at half filling (μ = 0, exactly) on bonds that atoms stretch.

    Attributes:
        alpha: Change of the hopping by the length of a bond.
        k: Spring constant of an atom.
        t: Hopping, the unit of energy.
        temperature: Temperature of electrons and bath (k_B = 1).
        mass: Mass of an atom.
        damping: Friction coefficient.
    """

    alpha: float = 0.5
    k: float = 1.0
    t: float = 1.0
    temperature: float = 0.05
    mass: float = 1.0
    damping: float = 0.3

    name: ClassVar[str] = "optical_ssh"
    # A displacement along the chain turns round under reflections: the vector of the point group.
    fields: ClassVar[tuple[Field, ...]] = (Field("u", point="vector"),)
    families: ClassVar[tuple[str, ...]] = ("chain",)

    @property
    def masses(self) -> dict[str, float]:
        return {"u": self.mass}

    def electrons(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Grand potential ``[B]``, and ⟨c†_i c_{i+1}⟩ ``[B, N]``, at displacements ``[B, N]``."""
        hopping = self.t - self.alpha * (u.roll(-1, 1) - u)
        site = torch.arange(u.shape[1])
        h = torch.zeros(*u.shape, u.shape[1], dtype=torch.float64)
        h[:, site, site.roll(-1)] = -hopping
        h = h + h.mT
        levels, orbitals = torch.linalg.eigh(h)
        occupied = torch.special.expit(-levels / self.temperature)
        coherence = torch.einsum("bin,bn,bin->bi", orbitals, occupied, orbitals.roll(-1, 1))
        filled = torch.nn.functional.softplus(-levels / self.temperature)
        return -self.temperature * filled.sum(1), coherence

    def energy(self, fields: Any, lattice: Lattice) -> Tensor:
        self.check(fields, lattice)
        u = fields["u"][..., 0].double()
        return self.electrons(u)[0] + 0.5 * self.k * u.square().sum(1)

    def forces(self, fields: Any, lattice: Lattice) -> dict[str, Tensor]:
        """By Hellmann and Feynman, never by differentiating through the diagonalization."""
        return {"u": self.assemble(self.labels(fields, lattice), fields, lattice)["u"]}

    def labels(self, fields: Any, lattice: Lattice) -> dict[str, Tensor]:
        """The electronic force 2α (⟨c†_i c_{i+1}⟩ − ⟨c†_{i−1} c_i⟩), and the energy."""
        self.check(fields, lattice)
        u = fields["u"][..., 0].double()
        _, coherence = self.electrons(u)
        pull = 2 * self.alpha * (coherence - coherence.roll(1, 1))
        return {"pull": pull[..., None], "energy": self.energy(fields, lattice)}

    def assemble(self, predictions: Any, fields: Any, lattice: Lattice) -> dict[str, Tensor]:
        """What is known exactly is added exactly: the spring of every atom."""
        return {"u": predictions["pull"] - self.k * fields["u"]}

    def observables(self, fields: Any, lattice: Lattice) -> dict[str, Tensor]:
        return {"alternation": alternation(fields["u"])}

    def task(self, family: str = "chain", target: str = "pull") -> Task:
        """Vectors to vectors, and the target is minus the derivative of an energy."""
        return Task(
            "optical_ssh_chain",
            inputs=(Field("u", point="vector"),),
            targets=(Field("pull", point="vector"),),
            family=family,
            conservative=(("pull", "u"),),
        )


def alternation(u: Tensor) -> Tensor:
    """Mean of −u_i u_{i+1} over the bonds ``[B]``: u_0² where u_i = ± (−1)^i u_0."""
    return -(u * u.roll(-1, 1)).mean((1, 2))


# A file of data names its system; this is how it is found again.
system_registry["optical_ssh"] = OpticalSSH


def check_physics(system: OpticalSSH, lattice: Lattice) -> None:
    """Closed form and finite differences, in the tightest bounds that hold."""
    # A dimerized chain has the levels ± |t_1 + t_2 e^{iq}|.
    size = 0.3
    u = size * (1 - 2.0 * (torch.arange(lattice.n_sites) % 2)).double()[None]
    strong, weak = (system.t + sign * 2 * system.alpha * size for sign in (1, -1))
    q = torch.arange(lattice.n_sites // 2).double() * (4 * torch.pi / lattice.n_sites)
    band = (strong**2 + weak**2 + 2 * strong * weak * q.cos()).sqrt()
    levels = torch.cat([band, -band])
    exact = -system.temperature * torch.nn.functional.softplus(-levels / system.temperature).sum()
    torch.testing.assert_close(system.electrons(u)[0][0], exact, rtol=1e-12, atol=0)

    start = random_start(lattice, amplitude=0.5, field="u", channels=1, seed=1).fields["u"]
    force = system.forces({"u": start}, lattice)["u"]
    for site in (0, 3):
        step = torch.zeros_like(start)
        step[:, site] = 1e-4
        slope = [system.energy({"u": start + sign * step}, lattice) for sign in (1, -1)]
        torch.testing.assert_close(
            force[:, site, 0], -(slope[0] - slope[1]) / 2e-4, rtol=1e-6, atol=1e-8
        )


# ---- 3. The data: a recipe says what one unit of the work is -----------------------------------


@recipe("optical_ssh")
@dataclass(frozen=True, kw_only=True)
class Quenches(Recipe):
    """Thermal quenches from disorder with exact forces.

    Args:
        lattice: The chain.
        trajectories: Number of quenches.
        frames: Samples from each, two time units apart.
        seed: Seed of the starts and of the noise.
    """

    lattice: str = "chain(32)"
    trajectories: int = 20
    frames: int = 20
    seed: int = 0

    @property
    def geometry(self) -> Lattice:
        return Lattice.parse(self.lattice)

    @property
    def task(self) -> Task:
        return OpticalSSH().task()

    def source(self) -> Source:
        system = OpticalSSH()
        return Source(
            system=system.name,
            parameters=system.parameters,
            recipe=self.name,
            options=self.options(),
            seed=self.seed,
            created_with={"torch": torch.__version__},
        )

    def units(self) -> tuple[Unit, ...]:
        return tuple(
            Unit(f"quench-{n:03d}", self.frames, n, self.frames) for n in range(self.trajectories)
        )

    def run(self, unit: Unit, report: Callable[[int], None]) -> LabelledData:
        """One quench; it must depend on the recipe and the number of the unit alone."""
        system, lattice = OpticalSSH(), self.geometry
        state = random_start(
            lattice, (unit.first,), amplitude=0.8, field="u", channels=1, seed=1000 + self.seed
        )
        frames = []
        for _ in range(unit.count):
            state = simulate(system, bath(system), state, 20, lattice=lattice, progress=False).state
            frames.append(state.fields["u"])
            report(1)
        fields = {"u": torch.cat(frames)}
        return LabelledData(
            self.task,
            lattice,
            fields,
            system.labels(fields, lattice),
            kind=torch.ones(unit.count, dtype=torch.long),
            trajectory=torch.full((unit.count,), unit.first),
            frame=torch.arange(unit.count),
            types={"energy": Field("energy", support="global")},
            source=self.source(),
        )


def bath(system: OpticalSSH) -> Langevin:
    """Langevin dynamics at the temperature of the system."""
    return Langevin(0.1, system.temperature, system.damping, system.mass)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--trajectories", type=int, default=20)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--data", type=Path, default=Path("optical_ssh.h5"))
    args = parser.parse_args()
    system, lattice = OpticalSSH(), chain(32)
    check_physics(system, lattice)

    # ---- 2. What shall be learned: the exact solver is held to the symmetry that the task claims.
    task = system.task()
    print("exact forces:", assert_equivariant(system.labels, task, chain(12)))

    # ---- 3. and 4. Data, then a network that has the symmetry by construction.
    # One process, because this recipe stands in a script; in a module of your own, several.
    made = make_dataset("optical_ssh", path=args.data, trajectories=args.trajectories, workers=1)
    data = FromFile(str(made), batch_size=8)
    torch.manual_seed(0)
    network = create_model("energy_gnn", task)
    trainer = Trainer(
        max_epochs=args.epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(network, datamodule=data)
    (found,) = trainer.test(network, datamodule=data, verbose=False)
    spread = data.samples("test").targets["pull"].std()
    print(f"test error of the electronic force: {found['test/rmse'] / spread:.1%} of its spread")
    print("network:", assert_equivariant(network.double().eval(), task, chain(20)))

    # Quenches on a longer chain than any in the data, beside exact ones: same starts, same noise.
    longer = chain(64)
    start = random_start(longer, 8, amplitude=0.8, field="u", channels=1, seed=7)
    print("alternation −⟨u_i u_{i+1}⟩ after the quench, mean of 8 replicas")
    for name, driver in (("exact", system), ("learned", system.learned(network))):
        run = simulate(driver, bath(system), start, args.steps, lattice=longer, progress=False)
        found = alternation(run.state.fields["u"])
        print(f"{name:>8}: {found.mean():.4f} ± {found.std() / len(found) ** 0.5:.4f}")


if __name__ == "__main__":
    main()
