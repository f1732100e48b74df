"""Pictures are written whole, with labelled axes, from plain arrays."""

from pathlib import Path

import matplotlib as mpl
import matplotlib.figure
import numpy as np
import pytest

from latticezoo.training import plots
from latticezoo.training.cost_plot import accuracy_against_cost, spread_out

RANDOM = np.random.default_rng(0)


def pairs(noise):
    exact = {"trajectory": RANDOM.normal(size=300), "random": RANDOM.normal(size=200)}
    return {kind: (v, v + noise * RANDOM.normal(size=len(v))) for kind, v in exact.items()}


@pytest.fixture
def axes_of(monkeypatch):
    """The axes of the figures that were drawn, labels included."""
    seen = []
    original = mpl.figure.Figure.savefig

    def savefig(self, *words, **named):
        seen.append(self.axes)
        return original(self, *words, **named)

    monkeypatch.setattr(mpl.figure.Figure, "savefig", savefig)
    return seen


def draw_parity(path):
    return plots.parity(path, {"a": pairs(0.1), "b": pairs(0.2)}, "n − ½")


def draw_errors(path):
    differences = {k: p - e for k, (e, p) in pairs(0.1).items()}
    return plots.error_histogram(path, {"a": differences}, "n − ½")


def draw_cost(path):
    rows = [
        {"label": "a", "rmse": 0.02, "seconds_per_site": 1e-6, "parameters": 1000},
        {"label": "b", "rmse": 0.03, "seconds_per_site": 3e-6, "parameters": 4000},
    ]
    history = {"seconds": np.array([1.0, 2, 4]), "val/rmse": np.array([0.3, 0.2, 0.25])}
    return accuracy_against_cost(path, rows, {"a": history}, "n − ½", spread=0.3)


def draw_correlation(path):
    band = plots.Band(np.exp(-np.arange(12).reshape(3, 4) / 4), np.full((3, 4), 0.05))
    return plots.correlation(path, np.arange(4), (1, 5, 20), {"exact": band, "gcn": band}, 8)


def draw_maps(path):
    maps = {"exact": RANDOM.normal(size=(2, 6, 8)), "gcn": RANDOM.normal(size=(2, 6, 8))}
    return plots.order_parameter_maps(path, maps, (1, 5))


def draw_growth(path):
    times = np.arange(20.0)
    band = plots.Band(np.where(times < 15, 1 + np.sqrt(times), np.nan), np.full(20, 0.1))
    return plots.growth(path, times, {"exact": band})


def draw_learning(path):
    curve = {"seconds": np.arange(5.0), "val/rmse": np.exp(-np.arange(5.0))}
    return plots.learning_curve(path, {"gcn": curve}, "n − ½")


DRAWERS = {name: f for name, f in globals().items() if name.startswith("draw_")}


@pytest.mark.parametrize("name", DRAWERS)
def test_every_picture_has_labelled_axes(name, tmp_path, axes_of):
    path = DRAWERS[name](tmp_path / "folder" / "picture.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [p.name for p in path.parent.iterdir()] == ["picture.png"]
    (axes,) = axes_of
    panels = [ax for ax in axes if ax.get_subplotspec() is not None]
    assert any(ax.get_xlabel() for ax in panels)
    assert any(ax.get_ylabel() for ax in panels)


def test_a_failed_picture_leaves_nothing(tmp_path, monkeypatch):
    def fail(self, *words, **named):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(mpl.figure.Figure, "savefig", fail)
    with pytest.raises(OSError, match="No space"):
        draw_cost(tmp_path / "picture.png")
    assert not list(Path(tmp_path).iterdir())


def test_settings_of_the_user_are_left_alone(tmp_path):
    before = mpl.rcParams["font.size"]
    draw_cost(tmp_path / "picture.png")
    assert mpl.rcParams["font.size"] == before


def test_labels_are_moved_apart_in_order_and_no_further_than_needed():
    assert spread_out([0.1, 0.5, 0.9], 0.1) == [0.1, 0.5, 0.9]
    assert spread_out([0.5, 0.5], 0.1) == pytest.approx([0.45, 0.55])
    assert spread_out([], 0.1) == []
    wanted = np.sort(RANDOM.random(12))
    moved = spread_out(list(wanted), 0.08)
    assert np.diff(moved).min() > 0.08 - 1e-9
    assert np.mean(moved) == pytest.approx(np.mean(wanted))


def test_every_member_is_labelled_at_its_cost(tmp_path, axes_of):
    draw_cost(tmp_path / "picture.png")
    (axes,) = axes_of
    inference, training = axes
    assert {text.get_text() for text in inference.texts} >= {"a (1 k)", "b (4 k)"}
    assert "a" in {text.get_text() for text in training.texts}
    assert (inference.get_xscale(), inference.get_yscale()) == ("log", "log")
    assert training.lines[0].get_ydata().tolist() == [0.3, 0.2, 0.2]  # lowest so far
    assert inference.lines[1].get_xdata()[0] == pytest.approx(3.0)  # µs
