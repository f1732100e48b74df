"""The demonstration, small: every step runs, writes its files and can be run again."""

from pathlib import Path

import pytest

from latticezoo.training.demo import Demo
from latticezoo.zoo import check_golden
from tests.training.conftest import SMALL_DATA


@pytest.fixture
def small(empty):
    quench = {"lattice": "square(8)", "steps": 10, "replicas": 2, "frame_every": 2}
    return lambda: Demo(Path("demo"), 0.5, dict(SMALL_DATA), quench, ["gcn"])


def test_the_demonstration_writes_pictures_and_a_card(small, capsys):
    small().run()
    out = capsys.readouterr().out
    for step in (
        "1. Exact data",
        "2. Training",
        "3. Leaderboard",
        "4. A thermal quench",
        "5. A mod",
    ):
        assert step in out
    pictures = {path.name for path in Path("demo").rglob("*.png")}
    assert {
        "parity.png",
        "errors.png",
        "accuracy_cost.png",
        "correlation.png",
        "growth.png",
    } <= pictures
    (card,) = Path("demo/cards").iterdir()
    assert check_golden(card) < 1e-4
    for line in out.split("wrote:")[1].split():
        assert Path(line).exists()


@pytest.mark.slow
def test_a_second_demonstration_goes_on_from_what_is_there(small):
    small().run()
    files = [*Path("demo").rglob("*.ckpt"), *Path("demo").rglob("trajectory.h5")]
    before = [path.stat().st_mtime_ns for path in files]
    small().run()
    assert [path.stat().st_mtime_ns for path in files] == before
