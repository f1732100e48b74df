"""Names of networks: listing without importing them, nearest names, plugging in one's own."""

import inspect
import subprocess
import sys

import pytest

from latticezoo.symmetry.errors import InputError
from latticezoo.zoo import create_model, list_models, model_class, register, registry
from latticezoo.zoo.base import ZooModel
from latticezoo.zoo.registry import MEMBERS, option_names
from latticezoo.zoo.testing import scalar_task

TASK = scalar_task("square", odd=True)


def test_the_table_and_the_decorated_classes_agree():
    for name, member in MEMBERS.items():
        cls = model_class(name)
        assert cls.registry_name == name
        assert cls.__name__ == member.class_name
        assert issubclass(cls, ZooModel)
        assert model_class(member.class_name) is cls
        assert "compact" in cls.presets


def test_patterns_choose_models():
    assert {"gcn", "descriptor_mlp"} <= set(list_models())
    assert list_models("gc?") == ["gcn"]
    assert list_models("nothing*") == []


def test_unknown_names_are_answered_with_the_nearest():
    with pytest.raises(InputError, match="unknown model 'gnc'; did you mean gcn"):
        create_model("gnc", TASK)
    with pytest.raises(InputError, match="unknown option of gcn 'width'; did you mean widths"):
        create_model("gcn", TASK, width=3)


def test_options_of_a_network_are_its_own_and_those_of_training():
    names = set(option_names(model_class("gcn")))
    assert {"widths", "aggregation", "preset", "learning_rate", "ema"} <= names
    assert not {"task", "architecture", "training", "self"} & names


@pytest.mark.parametrize("name", sorted(MEMBERS))
def test_every_preset_value_is_an_option_of_the_class(name):
    cls = model_class(name)
    known = set(option_names(cls))
    for preset in cls.presets.values():
        assert set(preset) <= known
    own = inspect.signature(cls.__init__).parameters
    chosen = {"task", "preset", "training", "self"}
    # The command line shows None; every option then has a value in the compact preset.
    assert set(own) - chosen <= set(cls.presets["compact"])


def test_a_network_from_outside_can_join(monkeypatch):
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))

    @register("my_gcn")
    class MyGCN(model_class("gcn")):
        pass

    assert "my_gcn" in list_models("my_*")
    network = create_model("MyGCN", TASK, widths=[3, 3])
    assert type(ZooModel.from_config(network.config())) is MyGCN
    with pytest.raises(InputError, match="'gcn' is taken"):
        register("gcn")(MyGCN)
    with pytest.raises(InputError, match="snake_case"):
        register("My GCN")
    model_class("gcn").registry_name = "gcn"


def test_listing_imports_neither_torch_nor_lightning():
    code = (
        "import sys; from latticezoo.zoo import list_models; assert list_models();"
        "assert not {'torch', 'pytorch_lightning', 'e3nn'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("name", "option", "wanted"),
    [("gru", "noise", "a number"), ("gru", "width", "a whole number"), ("gcn", "ema", "a number")],
)
def test_a_word_for_a_number_is_named(name, option, wanted):
    with pytest.raises(InputError, match=f"{option} of {name} is 'nan'; it must be {wanted}"):
        create_model(name, TASK, **{option: "nan"})
