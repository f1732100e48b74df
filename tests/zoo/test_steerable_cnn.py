"""The steerable network: the shared suite, and what escnn alone would get wrong."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.fields import Field
from latticezoo.symmetry.lattices import square
from latticezoo.symmetry.tasks import Task
from latticezoo.symmetry.testing import assert_equivariant
from latticezoo.zoo import create_model, list_models
from latticezoo.zoo.layers.steerable import SteerableConv
from latticezoo.zoo.layers.steerable_types import regular_type
from latticezoo.zoo.testing import (
    Case,
    ZooModelTests,
    fill,
    perturb,
    random_fields,
    scalar_task,
    vector_task,
)

if sys.version_info >= (3, 13):  # escnn needs numpy 1, which has no wheels there
    pytest.importorskip("escnn")

TINY = {"copies": 2, "layers": 2, "first_kernel": 3}


def jahn_teller():
    return Task(
        "jahn_teller",
        (Field("Q", point="2xA1+B1"),),
        (Field("force", point="2xA1+B1"),),
        "square",
        conservative=(("force", "Q"),),
    )


def mixed():
    """Every irrep goes in and comes out, equal ones apart from each other, some odd."""
    return Task(
        "mixed",
        (Field("d", point="E+A2+B2", odd=("p",)), Field("s", point="B1+A2")),
        (Field("n"), Field("t", point="A2+pseudovector+A1+B2+B1", odd=("p",))),
        "square",
        ("p",),
    )


class TestSteerableCNN(ZooModelTests):
    model = "steerable_cnn"
    cases = (
        Case(scalar_task("square", odd=True), (square(4), square(3, 5)), TINY),
        Case(
            jahn_teller(),
            (square(4), square(3, 5)),
            {**TINY, "filters": "band_limited", "residual": False},
        ),
        Case(mixed(), (square(3), square(3, 4)), TINY),
        Case(
            vector_task("square"),
            (square(5), square(5, 6)),
            {**TINY, "layers": 1, "first_kernel": 5, "output": "energy"},
        ),
    )
    unsuitable = (
        scalar_task("triangular"),
        Task("spins", (Field("S", internal="1x1e"),), (Field("h"),), "square", internal="SO3"),
        Task("links", (Field("Q"),), (Field("b", support="link"),), "square"),
        Task("complex", (Field("Q", conjugated=("c",)),), (Field("h"),), "square", ("c",)),
    )
    too_small = (square(2), square(6, 2))
    golden = Path(__file__).parent / "golden_steerable_cnn.json"


def build(dtype=torch.float64, **options):
    torch.manual_seed(0)
    network = create_model("steerable_cnn", jahn_teller(), **{**TINY, **options})
    return perturb(network.to(dtype)).eval()


@pytest.mark.parametrize(("preset", "weights"), [("compact", 19_314), ("wide", 9_658)])
def test_presets_have_the_stated_sizes_and_are_exact(preset, weights):
    network = create_model("steerable_cnn", jahn_teller(), preset=preset)
    assert sum(weight.numel() for weight in network.parameters()) == weights
    report = assert_equivariant(perturb(network).double(), network.task, square(5), batch=1)
    assert report.error < 1e-12


@pytest.mark.parametrize(("kernel", "number"), [(1, 8), (3, 72), (5, 200)])
def test_all_equivariant_filters_of_the_regular_representation_are_there(kernel, number):
    """A regular representation is free: one eighth of all k·k·8·8 filters is equivariant."""
    kind = regular_type(1)
    layer = SteerableConv(square(3).site_group, kind, kind, kernel, "all").double()
    (filters,) = (b for n, b in layer.named_buffers() if n.endswith("sampled_basis"))
    # On the eight pixels (±1, ±2), (±2, ±1) both waves of frequency 4 are one: 8 weights too many.
    assert len(filters) == number + (8 if kernel == 5 else 0)
    strengths = torch.linalg.svdvals(filters.flatten(1))
    assert int((strengths > 1e-10 * strengths[0]).sum()) == number
    assert float(strengths[number - 1]) > 0.1 * float(strengths[0])


def test_networks_do_not_share_their_bases():
    first, second = build(), build()
    fields, lattice = random_fields(first.task, square(4)), square(4)
    expected = first(fields, lattice)["force"].detach()
    second.float()
    assert torch.equal(first(fields, lattice)["force"].detach(), expected)
    # A way through single precision loses the weights' digits, not the symmetry.
    assert_equivariant(second.double(), second.task, lattice, tolerance=1e-12)


def test_only_weights_are_saved():
    network = build().network
    assert set(network.state_dict()) == {name for name, _ in network.named_parameters()}
    network.infer(torch.zeros(1, 3, 3, 3, dtype=torch.float64))
    assert set(network.state_dict()) == {name for name, _ in network.named_parameters()}


@pytest.mark.parametrize("mode", [True, False], ids=["train", "eval"])
def test_inference_follows_every_change_of_the_weights(mode):
    network = build(layers=3).train(mode)
    fields, lattice = random_fields(network.task, square(4)), square(4)

    def by_data():
        for weight in network.parameters():
            weight.data.mul_(1.1)

    def in_place():
        with torch.no_grad():
            for weight in network.parameters():
                weight.add_(0.1)

    def by_loading():
        state = network.state_dict()
        network.load_state_dict(
            {k: v * 2 if v.is_floating_point() else v for k, v in state.items()}
        )

    with torch.no_grad():
        before = network(fields, lattice)["force"]
    for change in (by_data, in_place, by_loading):
        change()
        with torch.no_grad():
            found = network(fields, lattice)["force"]
        torch.testing.assert_close(found, network(fields, lattice)["force"].detach())
        assert not torch.equal(found, before)
        before = found


def test_plain_convolutions_are_made_once_and_are_periodic():
    network = build().network
    image = torch.randn(2, 3, 5, 4, dtype=torch.float64)
    with torch.inference_mode():
        found = network.infer(image)
    plain = network._plain()
    assert all(type(layer) is torch.nn.Conv2d for layer in plain)
    assert all(x is y for x, y in zip(plain, network._plain(), strict=True))
    rolled = network.infer(image.roll((2, 1), (2, 3)))
    torch.testing.assert_close(rolled, found.roll((2, 1), (2, 3)))
    torch.testing.assert_close(network(image), found)


def test_energies_have_derivatives_without_gradients_of_the_weights():
    network = build(output="energy", activation="tanh")
    fields, lattice = random_fields(network.task, square(4)), square(4)
    with torch.inference_mode():
        found = network(fields, lattice)["force"]
    torch.testing.assert_close(found.clone(), network(fields, lattice)["force"].detach())
    assert not hasattr(build(), "energy")


def test_a_copy_is_independent():
    """As the moving average of the weights makes one."""
    network = build()
    fields, lattice = random_fields(network.task, square(4)), square(4)
    with torch.no_grad():
        expected = network(fields, lattice)["force"]
        twin = copy.deepcopy(network)
        for weight in network.parameters():
            weight.mul_(2)
        assert torch.equal(twin(fields, lattice)["force"], expected)
    twin(fields, lattice)["force"].square().sum().backward()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"activation": "silu"}, "unknown activation 'silu'"),
        ({"filters": "most"}, "unknown choice of filters 'most'"),
        ({"output": "forces"}, "unknown output 'forces'"),
        ({"kernel": 4}, "side 1, 3 or 5, not 4"),
        ({"copies": 0}, "copies must be 1 or more, not 0"),
        ({"layers": -1}, "layers must be 1 or more, not -1"),
        ({"channels": 3}, "unknown option of steerable_cnn 'channels'"),
    ],
)
def test_wrong_options_are_refused_in_one_sentence(options, sentence):
    with pytest.raises(InputError, match=sentence):
        create_model("steerable_cnn", vector_task("square"), **options)


def test_an_energy_is_refused_where_there_is_none():
    with pytest.raises(InputError, match=r"cannot serve the task 'mixed'.*no energy"):
        create_model("steerable_cnn", mixed(), output="energy")


def test_without_escnn_it_is_listed_and_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "escnn", None)
    monkeypatch.setitem(sys.modules, "escnn.group", None)
    assert "steerable_cnn" in list_models()
    with pytest.raises(InputError, match=r"pip install 'lattice-zoo\[escnn\]'") as caught:
        create_model("steerable_cnn", vector_task("square"))
    assert "\n" not in str(caught.value)


def test_another_process_builds_the_same_network_and_leaves_no_files(tmp_path):
    """Bases must not depend on the order of sets, for the weights refer to them by number."""
    task = mixed()
    code = (
        "import json\n"
        "from latticezoo.zoo import create_model\n"
        "from latticezoo.zoo.testing import fill, random_fields\n"
        "from latticezoo.symmetry import Task, square\n"
        f"task = Task.from_dict({task.to_dict()!r})\n"
        f"network = fill(create_model('steerable_cnn', task, **{TINY!r}).double())\n"
        "print(json.dumps(network(random_fields(task, square(3)), square(3))['t'].tolist()))\n"
    )
    run = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stderr == ""
    assert list(tmp_path.iterdir()) == []
    network = fill(create_model("steerable_cnn", task, **TINY).double())
    expected = network(random_fields(task, square(3)), square(3))["t"].detach()
    torch.testing.assert_close(
        torch.tensor(json.loads(run.stdout)).double(), expected, rtol=1e-6, atol=1e-6
    )
