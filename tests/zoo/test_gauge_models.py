"""The networks on gauge links: the shared suite, Gauss's law, Lie derivatives, refusals."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from latticezoo.datasets.registry import create_data
from latticezoo.simulate.systems.gauge_fermions import GaugeFermions
from latticezoo.symmetry.elements import SymmetryGroup
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.fields import Field
from latticezoo.symmetry.gauge import plaquettes, rectangle, trace, wilson_loop
from latticezoo.symmetry.internal import SU2, internal_group
from latticezoo.symmetry.lattices import square
from latticezoo.symmetry.tasks import Task
from latticezoo.symmetry.testing import equivariance_error
from latticezoo.zoo import create_model
from latticezoo.zoo.layers import incidence
from latticezoo.zoo.layers import path_moments as path_moments_module
from latticezoo.zoo.layers.flags import Matrices, Surroundings, multiply
from latticezoo.zoo.layers.path_moments import PathMoments, link_orders, path_moments, site_orders
from latticezoo.zoo.testing import Case, ZooModelTests, perturb, scalar_task

CONJUGATION = ("charge_conjugation",)
GOLDEN = Path(__file__).parent / "golden_gauge.json"
WILSON = {"width": 6, "odd_width": 4, "blocks": 2}
GAUGE = {"channels": 3, "layers": 2, "products": 3, "hidden": 4}
CNN = {"channels": 6, "blocks": 1}
LOCAL = {"polyakov": False}


def task(group, *names, sublattice=False):
    """A map from links to some of the things that fermions do to them."""
    flips = CONJUGATION if group == "U1" else ()
    types = {
        "bond": Field("bond", "link"),
        "current": Field("current", "link", odd=CONJUGATION, oriented=True),
        "energy_per_site": Field("energy_per_site", "global"),
        "levels": Field("levels", point="3xA1"),
        "force": Field("force", "link", odd=CONJUGATION, oriented=True),
        "link_field": Field("link_field", "link", internal="link", conjugated=flips),
    }
    if group == "SU2":
        types["force"] = Field("force", "link", internal="adjoint", oriented=True)
    derived = [name for name in names if name in ("force", "link_field")]
    return Task(
        "-".join((group, *names, *(["sublattice"] if sublattice else []))),
        (Field("U", "link", internal="link", conjugated=flips),)
        + ((Field("sublattice"),) if sublattice else ()),
        tuple(types[name] for name in names),
        "square",
        flips,
        gauge=group,
        conservative=tuple((name, "U") for name in derived),
    )


TORI = (square(4), square(3, 5))
WIDE = (square(5), square(5, 6))  # wider than the paths of order 4
OTHERS = (
    scalar_task("square"),
    replace(task("U1", "bond"), family="triangular"),
    replace(task("U1", "bond"), gauge=None),
    replace(task("U1", "bond"), targets=(Field("bond", "plaquette"),)),
    replace(task("U1", "bond"), targets=(Field("bond", point="B1"),)),
    replace(task("U1", "bond"), inputs=(*task("U1", "bond").inputs, Field("u", point="vector"))),
    replace(task("U1", "bond"), flips=("particle_hole",)),
)


def moved_along(links, direction, step, field):
    """Links after a step of size ``step`` along the direction in which a force pushes."""
    if field.internal == "link":
        return links + step * direction
    if links.dim() == 3:
        return torch.polar(torch.ones_like(direction), step * direction) * links
    return torch.linalg.matrix_exp(1j * step * SU2.matrix(direction)) @ links


class LinkTests(ZooModelTests):
    """The slope of the energy is taken on the group."""

    golden = GOLDEN
    unsuitable = OTHERS

    def _check_gradient(self, network, fields, lattice, forces, step=5e-5):
        (target, _), *_ = network.task.conservative
        found = forces["U"]
        generator = torch.Generator().manual_seed(3)
        direction = torch.randn(found.shape, dtype=found.dtype, generator=generator)
        field = network.task.target(target)

        def energy(distance):
            moved = moved_along(fields["U"], direction, distance, field)
            return network.energy({**fields, "U": moved}, lattice).detach()

        near, far = ((energy(h) - energy(-h)) / (2 * h) for h in (step, 2 * step))
        slope = (4 * near - far) / 3  # the third derivative drops out: path moments have large ones
        work = -(found.conj() * direction).real.flatten(1).sum(1)
        torch.testing.assert_close(slope, work, rtol=1e-6, atol=1e-9)


class TestWilson(LinkTests):
    model = "wilson_gnn"
    cases = (
        Case(task("U1", "bond", "current", "energy_per_site", "levels"), TORI, WILSON),
        Case(task("Z2", "bond", "energy_per_site", "levels"), TORI, {**WILSON, **LOCAL}),
        Case(task("U1", "force", "bond", "energy_per_site"), TORI[:1], {**WILSON, **LOCAL}),
        Case(task("U1", "link_field", "bond"), TORI[:1], WILSON),
        Case(task("U1", "current", "bond", sublattice=True), TORI[:1], {**WILSON, **LOCAL}),
        Case(task("U1", "bond", "current"), WIDE, {**WILSON, **LOCAL, "path_moments": 4}),
        Case(task("Z2", "bond", "energy_per_site"), WIDE, {**WILSON, "path_moments": 9}),
        Case(task("U1", "force", "bond"), TORI[:1], {**WILSON, "path_moments": 5}),
    )
    unsuitable = (*OTHERS, task("SU2", "bond"))
    too_small = (square(2), square(5, 2))


class TestGauge(LinkTests):
    model = "gauge_gnn"
    cases = (
        Case(task("SU2", "bond", "energy_per_site", "levels"), TORI, GAUGE),
        Case(task("U1", "bond", "current", "energy_per_site"), TORI, GAUGE),
        Case(task("Z2", "bond", "levels", sublattice=True), TORI[:1], {**GAUGE, **LOCAL}),
        Case(
            task("SU2", "force", "bond", "energy_per_site"),
            TORI[:1],
            {**GAUGE, "leaves": False},
        ),
        Case(task("Z2", "levels"), TORI[:1], {**GAUGE, **LOCAL, "leaves": False}),
        Case(task("U1", "force", "levels"), TORI[:1], {**GAUGE, **LOCAL}),
        Case(task("U1", "link_field", "bond"), TORI[:1], GAUGE),
        Case(
            replace(task("SU2", "force"), conservative=()),
            TORI[:1],
            {**GAUGE, **LOCAL, "normalization": "none"},
        ),
        Case(task("SU2", "force", "bond"), WIDE, {**GAUGE, **LOCAL, "path_moments": 5}),
        Case(task("Z2", "bond", "energy_per_site"), WIDE, {**GAUGE, **LOCAL, "path_moments": 4}),
    )
    too_small = (square(2), square(5, 2))


class TestConvolutions(LinkTests):
    model = "link_cnn"
    cases = (
        Case(task("SU2", "bond", "force", "energy_per_site"), (square(5), square(5, 6)), CNN),
        Case(task("U1", "current", "link_field", sublattice=True), (square(5),), CNN),
        Case(task("Z2", "bond", "levels"), (square(5),), CNN),
    )
    too_small = (square(4), square(6, 4))


def build(name, what, **options):
    small = {"wilson_gnn": WILSON, "gauge_gnn": GAUGE, "link_cnn": CNN}[name]
    torch.manual_seed(0)
    return perturb(create_model(name, what, **{**small, **options}).double()).eval()


def links(group, lattice, batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, lattice.n_sites, lattice.directions)
    return internal_group(group).random(*shape, generator=generator, dtype=torch.float64)


# ---- laws ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("polyakov", [True, False])
@pytest.mark.parametrize("target", ["current", "force"])
@pytest.mark.parametrize("name", ["wilson_gnn", "gauge_gnn", "moments"])
def test_currents_have_no_sources(name, target, polyakov):
    """Div J = 0 by construction: as a curl, and as the derivative of an invariant energy."""
    lattice = square(4, 6)
    options = {"polyakov": polyakov}
    if name == "moments":  # paths around the torus take the place of Polyakov loops
        name, options, polyakov = "wilson_gnn", {**options, "path_moments": 7}, True
    network = build(name, task("U1", target), **options)
    J = network({"U": links("U1", lattice)}, lattice)[target].detach()
    sources = incidence.divergence(J.unflatten(1, lattice.shape)[..., None])
    assert float(sources.abs().max()) < 1e-12 < 1e-3 < float(J.abs().max())
    round_torus = J.mean(1).abs().max()  # the two cycles, where loops around the torus go in
    assert (float(round_torus) > 1e-6) == polyakov


def test_the_energy_of_su2_does_no_work_on_local_transformations():
    """Σ_out F − Σ_in U†F U = 0 at every site: Gauss's law without colour charges."""
    lattice = square(4)
    network = build("gauge_gnn", task("SU2", "force"))
    U = links("SU2", lattice)
    F = SU2.matrix(network({"U": U}, lattice)["force"].detach())
    arriving = U.mH @ F @ U
    total = F.sum(2)
    for way in (0, 1):
        total = total.index_add(1, lattice.link_target[:, way], -arriving[:, :, way])
    assert float(total.abs().max()) < 1e-12 < 1e-3 < float(F.abs().max())


@pytest.mark.parametrize("name", ["wilson_gnn", "gauge_gnn"])
def test_only_loops_around_the_torus_tell_polyakov_sectors_apart(name):
    """Signs of all links across a line change no plaquette, but the Polyakov loops."""
    lattice = square(4)
    U = links("Z2", lattice)
    other = U.unflatten(1, lattice.shape).clone()
    other[:, 0, :, 0] *= -1
    other = other.flatten(1, 2)
    assert torch.equal(plaquettes(U, lattice), plaquettes(other, lattice))
    for polyakov in (True, False):
        network = build(name, task("Z2", "bond"), polyakov=polyakov)
        one, two = (network({"U": x}, lattice)["bond"] for x in (U, other))
        assert (float((one - two).abs().max()) > 1e-3) == polyakov


@pytest.mark.parametrize("highest", [3, 4, 7, 12, 13])
@pytest.mark.parametrize("group", ["Z2", "U1", "SU2"])
def test_path_moments_are_polynomials_of_the_hopping_matrix(group, highest):
    """On tori that are narrower and wider than the paths, also for links of any modulus."""
    for lattice in (square(3, 5), square(6), square(16, 4)):
        U = links(group, lattice)
        size = torch.linspace(0.5, 1.5, 2 * 2 * lattice.n_sites, dtype=torch.float64)
        U = U if group == "SU2" else U * size.view(U.shape)
        blocks = U if group == "SU2" else U[..., None, None]
        c = blocks.shape[-1]
        site = torch.arange(lattice.n_sites)
        h = torch.zeros(2, lattice.n_sites, c, lattice.n_sites, c, dtype=U.dtype)
        for way in (0, 1):
            end = lattice.link_target[:, way]
            h[:, site, :, end] += blocks[:, :, way].movedim(1, 0)
            h[:, end, :, site] += blocks[:, :, way].movedim(1, 0).mH
        energies, states = torch.linalg.eigh(h.flatten(3).flatten(1, 2))
        angle = torch.arccos((energies / 6.0).to(torch.complex128))
        found = dict(zip(("site", "link"), path_moments(U, lattice, highest, 6.0), strict=True))
        for kind, orders in (("site", site_orders(highest)), ("link", link_orders(highest))):
            assert found[kind].shape[-1] == len(orders)
            for place, order in enumerate(orders):
                values = torch.cos(order * angle).real.to(U.dtype)
                T = (states * values[:, None] @ states.mH).view(h.shape)
                if kind == "site":
                    expected = T.diagonal(dim1=1, dim2=3).diagonal(dim1=1, dim2=2).real.mean(-1)
                else:
                    ends = [
                        torch.einsum("nxab,xnba->nx", blocks[:, :, way], T[:, end, :, site]) / c
                        for way, end in enumerate(lattice.link_target.T)
                    ]
                    expected = torch.stack(ends, -1)
                    expected = expected.real if group == "SU2" else expected
                torch.testing.assert_close(found[kind][..., place], expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("highest", [4, 5, 8, 9])
def test_path_moments_reach_half_their_order(highest):
    """A path that comes back sees half as far; one that retraces its steps sees moduli alone."""
    lattice = square(25, 4)
    U = links("U1", lattice, batch=1)
    other = U.clone()
    other[:, 0] *= torch.tensor([1.3 + 0.7j, 0.4 - 0.5j], dtype=torch.complex128)
    there = lattice.positions[:, 0]
    distance = torch.minimum(there, lattice.shape[0] - there)
    reach = PathMoments(highest).reach
    changed = torch.zeros(lattice.n_sites, dtype=torch.float64)
    for one, two in zip(*(path_moments(x, lattice, highest) for x in (U, other)), strict=True):
        changed = torch.maximum(changed, (one - two).abs()[0].flatten(1).amax(1))
    assert float(changed[distance > reach].max()) == 0
    assert float(changed[distance == reach].max()) > 1e-9


def test_path_moments_are_decorrelated_by_training_data():
    lattice = square(6)
    moments = PathMoments(9).double()
    U = links("U1", lattice, batch=24)
    moments.calibrate([(U[:8], lattice), (U[8:], lattice)])
    found = moments(U, lattice)
    raw = path_moments(U, lattice, 9)
    for values, given, odd in (
        (found.sites, raw[0], False),
        (found.links, raw[1].real, False),
        (found.currents, raw[1].imag, True),
    ):
        flat, given = values.flatten(0, -2), given.flatten(0, -2)
        if not odd:
            torch.testing.assert_close(flat.mean(0), 0 * flat[0], rtol=0, atol=1e-5)
            given = given - given.mean(0)
        given = given / given.square().mean(0).sqrt()
        # Of eigenvalues c of the correlations c/(c + 1/1000) are left.
        left = torch.linalg.eigvalsh(flat.mT @ flat / len(flat))
        before = torch.linalg.eigvalsh(given.mT @ given / len(given))
        torch.testing.assert_close(left, before / (before + 1e-3), rtol=1e-4, atol=1e-6)
    moments.calibrate([(3 * U, lattice)])  # a wider spectrum, but the same polynomials
    again = moments(3 * U, lattice)
    torch.testing.assert_close(again.currents, found.currents, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "group"), [("wilson_gnn", "U1"), ("gauge_gnn", "SU2")])
def test_training_begins_at_the_linear_sums_of_path_moments(name, group):
    """What is linear in the moments is there before the first step, to the λ of the ridge."""
    lattice = square(6)
    what = task(group, "bond", "energy_per_site", *(["current"] if group == "U1" else []))
    network = build(name, what, path_moments=7, **LOCAL)
    U = links(group, lattice, batch=40)
    sites, ends = path_moments(U, lattice, 7)
    targets = {
        "bond": 0.3 + ends.real @ torch.tensor([0.7, -1.1, 0.4], dtype=torch.float64),
        "energy_per_site": 2 - sites.mean(1) @ torch.tensor([[1.0], [0.6]], dtype=torch.float64),
    }
    if group == "U1":
        targets["current"] = ends.imag @ torch.tensor([0.2, 0.5, -0.8], dtype=torch.float64)
    targets = {field.name: targets[field.name] for field in what.targets}
    fields = {"U": U}
    parts = {"inputs": fields, "targets": targets}
    network.set_statistics(
        {
            part: {
                k: {
                    "mean": [0.0 if v.is_complex() or k == "current" else float(v.mean())],
                    "std": [float(v.std())],
                }
                for k, v in values.items()
            }
            for part, values in parts.items()
        }
    )
    network.calibrate([{"fields": fields, "targets": targets, "lattice": lattice}])
    for field_name, values in network(fields, lattice).items():
        error = (values.detach() - targets[field_name]).square().mean().sqrt()
        assert float(error / targets[field_name].std()) < 0.02, field_name


@pytest.mark.parametrize(("name", "group"), [("wilson_gnn", "U1"), ("gauge_gnn", "SU2")])
def test_training_begins_at_the_forces_of_the_best_linear_energy(name, group):
    """The free energy of hot fermions is a polynomial of low order in the hopping matrix."""
    lattice, fermions = square(6), GaugeFermions(group, temperature=2.0)
    network = build(name, fermions.task(target="force"), path_moments=9, **LOCAL)
    U = links(group, lattice, batch=6)
    force = fermions.labels({"U": U}, lattice, ("force",))["force"]
    mean = {"mean": [0.0] * len(network.target_scaling.scale("force"))}
    network.set_statistics(
        {
            "inputs": {"U": {"mean": [0.0], "std": [1.0]}},
            "targets": {"force": {**mean, "std": [float(force.std())] * len(mean["mean"])}},
        }
    )
    batches = [
        {"fields": {"U": part}, "targets": {"force": goal}, "lattice": lattice}
        for part, goal in zip(U[:4].split(2), force[:4].split(2), strict=True)
    ]
    network.calibrate(batches)
    error = network({"U": U[4:]}, lattice)["force"].detach() - force[4:]
    assert float(error.square().mean().sqrt() / force.std()) < 2e-3


def test_columns_that_are_built_again_give_the_same_gradients(monkeypatch):
    lattice = square(12, 9)
    U = links("U1", lattice, batch=2)

    def derivatives():
        x = U.clone().requires_grad_()
        sites, ends = path_moments(x, lattice, 7)
        (slope,) = torch.autograd.grad(
            (sites[..., 1] * ends.imag[:, :, 0, 1]).sum(), x, create_graph=True
        )
        return slope.detach(), *torch.autograd.grad(slope.abs().square().sum(), x)

    kept = derivatives()
    monkeypatch.setattr("latticezoo.zoo.layers.path_moments._KEPT", 0)
    built = []
    plain = path_moments_module._columns
    monkeypatch.setattr(
        path_moments_module, "_columns", lambda *given: built.append(1) or plain(*given)
    )
    for one, two in zip(kept, derivatives(), strict=True):
        assert float(one.abs().max()) > 0.01
        torch.testing.assert_close(one, two, rtol=0, atol=1e-14)
    assert len(built) >= 2


def test_the_energy_of_a_sector_that_training_lacks_is_not_far_off(monkeypatch, tmp_path):
    """Without flux around the torus or through it levels coincide, as in no state of the data."""
    monkeypatch.setenv("LATTICEZOO_CACHE", str(tmp_path))
    data = create_data(
        "gauge_fermions",
        group="Z2",
        lattice=12,
        random=48,
        thermal=48,
        target="bond,energy_per_site",
    )
    data.prepare_data()
    data.setup()
    network = create_model("wilson_gnn", data.task, preset="moments", path_moments=63)
    network.set_statistics(data.statistics())
    network.calibrate(data.training_batches())
    links = torch.ones(1, 144, 2)
    exact = data.system.labels({"U": links.double()}, data.lattice, ("energy_per_site",))
    found = network({"U": links}, data.lattice)["energy_per_site"].detach()
    spread = data.samples("train").targets["energy_per_site"].std()
    # With a hundredth of the ridge it was 3.5.
    assert abs(float(found - exact["energy_per_site"]) / spread) < 0.1


@pytest.mark.parametrize("group", ["Z2", "U1", "SU2"])
def test_products_of_carried_plaquettes_are_larger_loops(group):
    """A plaquette times its neighbour's, carried along the shared links, encloses both."""
    lattice = square(4, 5)
    U = links(group, lattice)
    around = Surroundings.of(U, lattice, group)
    near = around.neighbours(around.leaf)
    ahead = Matrices(*(None if part is None else part[..., :1] for part in near))
    double = multiply(ahead, around.leaf)  # e1 first: the far plaquette, then the near one
    # Flag 0 is (+x, +y): the 2 × 1 loop from the site.
    path = wilson_loop(U, lattice, (1, 1, 2, -1, -1, -2))
    expected = trace(path).real / (2 if group == "SU2" else 1)
    other = multiply(around.leaf, ahead)
    found = [x.numbers[:, :, 0, 0, 0] for x in (double, other)]
    torch.testing.assert_close(found[0], expected, rtol=1e-12, atol=1e-12)
    assert rectangle(2, 1) == (1, 1, 2, -1, -1, -2)


def test_plain_convolutions_break_gauge_invariance():
    lattice = square(5)
    for group in ("Z2", "U1", "SU2"):
        what = task(group, "bond")
        local = SymmetryGroup(lattice, gauge=group, point_operations=(0,))
        error = equivariance_error(build("link_cnn", what), what, lattice, group=local).error
        assert error > 0.05
        other = "gauge_gnn" if group == "SU2" else "wilson_gnn"
        assert equivariance_error(build(other, what), what, lattice, group=local).error < 1e-12


@pytest.mark.filterwarnings("ignore:.*LeafSpec.*", "ignore:.*many workers.*")
def test_augmentation_transforms_links_locally(tmp_path):
    """Of an equivariant map, turned examples are examples too."""
    lattice = square(5)
    what = task("SU2", "bond", "force")
    teacher = build("gauge_gnn", what)
    U = links("SU2", lattice, batch=3)
    targets = {k: v.detach() for k, v in teacher({"U": U}, lattice).items()}
    batch = {"fields": {"U": U}, "targets": targets, "lattice": lattice}
    network = build("link_cnn", what)
    torch.manual_seed(1)
    turned = network.augmented(batch)
    again = teacher(turned["fields"], lattice)
    for name in targets:
        torch.testing.assert_close(again[name].detach(), turned["targets"][name])
    assert float((turned["fields"]["U"] - U).abs().amax((1, 2, 3, 4)).min()) > 0.1
    assert build("link_cnn", what, augment=False).augmented(batch) is batch


# ---- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("wilson_gnn", {"path_moments": 2}, "path_moments must be 0 or an order of 3 or more"),
        ("wilson_gnn", {"width": 0}, "width must be 1 or more, not 0"),
        ("wilson_gnn", {"output": "forces"}, "unknown output 'forces'"),
        ("gauge_gnn", {"layers": 0}, "layers must be 1 or more, not 0"),
        ("gauge_gnn", {"normalization": "layer"}, "normalization must be 'rms' or 'none'"),
        ("link_cnn", {"blocks": 0}, "blocks must be 1 or more, not 0"),
    ],
)
def test_wrong_options_are_refused_in_one_sentence(name, options, sentence):
    with pytest.raises(InputError, match=sentence) as error:
        create_model(name, task("U1", "bond"), **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "preset"),
    [(name, preset) for name in ("wilson_gnn", "gauge_gnn") for preset in ("paper", "moments")],
)
def test_presets_build(name, preset):
    network = create_model(name, task("U1", "bond", "current"), preset=preset)
    assert 5_000 < sum(weight.numel() for weight in network.parameters()) < 1_000_000
