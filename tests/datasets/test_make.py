"""Making datasets: the result depends on the recipe alone, whatever happens on the way."""

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import toy_recipe

from latticezoo.datasets import cache, processes
from latticezoo.datasets.file import LabelledData
from latticezoo.datasets.make import make_dataset
from latticezoo.symmetry.errors import InputError

HERE = Path(__file__).parent


@pytest.fixture
def whole(tmp_path):
    """Bytes of the undisturbed dataset."""
    return make("whole.h5", tmp_path).read_bytes()


def make(name, folder, **options):
    options = {"workers": 1, "progress": False, **options}
    return make_dataset("toy", path=folder / name, **options)


def in_python(script, *arguments):
    """A separate Python process that runs a script with the toy recipe at hand."""
    start = f"import sys; sys.path.insert(0, {str(HERE)!r}); import toy_recipe\n"
    return subprocess.Popen(
        [sys.executable, "-c", start + textwrap.dedent(script), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.02)


def children(pid):
    listing = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True)
    return [int(word) for word in listing.stdout.split()]


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_units_are_joined_in_order(tmp_path):
    data = LabelledData.open(make("a.h5", tmp_path))
    direct = toy_recipe.toy_data(data.lattice, 0, 16, 0, data.source)
    for name, values in direct.arrays().items():
        assert np.array_equal(data.arrays()[name], values), name
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]


def test_seed_and_options_change_the_data(tmp_path, whole):
    assert make("seed.h5", tmp_path, seed=1).read_bytes() != whole
    assert make("lattice.h5", tmp_path, lattice="square(6, 4)").read_bytes() != whole


def test_the_cache_is_found_again(tmp_path, monkeypatch):
    monkeypatch.setenv("LATTICEZOO_CACHE", str(tmp_path))
    path = make_dataset("toy", workers=1, progress=False)
    assert path.parent == tmp_path / "datasets"
    assert path.name.startswith("toy-4x4-")
    before = path.stat()
    monkeypatch.setattr(toy_recipe.Toy, "run", None)  # would fail if it were called
    assert make_dataset("toy", progress=False) == path
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert cache.default_path(toy_recipe.Toy(seed=1)) != path


def test_another_dataset_at_the_path_is_not_overwritten(tmp_path):
    path = make("a.h5", tmp_path)
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"its seed is 0, not 1"):
        make("a.h5", tmp_path, seed=1)
    path.write_bytes(before[:500])
    with pytest.raises(InputError, match="delete it to make it anew"):
        make("a.h5", tmp_path)
    assert path.read_bytes() == before[:500]
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"]


def test_after_kill_9_the_rest_is_done_and_nothing_else(tmp_path, whole, monkeypatch):
    """Kill parent and, through it, two workers in the middle; then make it here alone."""
    target, marker = tmp_path / "killed.h5", tmp_path / "marker"
    script = """
        from latticezoo.datasets.make import make_dataset
        make_dataset("toy", path=sys.argv[1], workers=2, trouble="once:" + sys.argv[2])
    """
    process = in_python(script, target, marker)
    folder = Path(f"{target}.parts")
    wait_for(lambda: marker.exists() and len(list(folder.glob("block-*.h5"))) == 3)
    workers = children(process.pid)
    assert len(workers) == 2
    process.kill()
    process.communicate()
    wait_for(lambda: not any(map(alive, workers)), 10)

    # What a kill in the middle of a write leaves: half a file beside a part and the target.
    (folder / f".{next(folder.glob('block-0*')).stem}-abcd_123.h5").write_bytes(b"half")
    (tmp_path / ".killed-01234567.h5").write_bytes(b"half")
    next(folder.glob("block-1*")).write_bytes(b"damaged")
    done = []
    run = toy_recipe.Toy.run
    monkeypatch.setattr(
        toy_recipe.Toy, "run", lambda *args: done.append(args[1].name) or run(*args)
    )
    assert make("killed.h5", tmp_path).read_bytes() == whole
    assert done == ["block-1", "block-2"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["killed.h5", "marker", "whole.h5"]


def test_ctrl_c_stops_the_workers_and_keeps_the_parts(tmp_path, whole):
    target, marker = tmp_path / "stopped.h5", tmp_path / "marker"
    script = """
        from latticezoo.training.cli import main
        sys.exit(main(["data", "make", "toy", "--out", sys.argv[1], "--workers", "2",
                       "--trouble", "once:" + sys.argv[2]]))
    """
    process = in_python(script, target, marker)
    folder = Path(f"{target}.parts")
    wait_for(lambda: marker.exists() and len(list(folder.glob("block-*.h5"))) == 3)
    workers = children(process.pid)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert "latticezoo: " in errors.splitlines()[-1]
    wait_for(lambda: not any(map(alive, workers)), 10)
    assert not target.exists()
    assert len(list(folder.glob("block-*.h5"))) == 3
    assert not list(folder.glob(".*.h5"))

    assert make("stopped.h5", tmp_path, workers=2).read_bytes() == whole


def test_the_second_of_two_processes_waits_for_the_first(tmp_path, whole, caplog, monkeypatch):
    script = """
        from latticezoo.datasets.make import make_dataset
        make_dataset("toy", path=sys.argv[1], workers=1, delay=0.3, progress=False)
    """
    target = tmp_path / "shared.h5"
    first = in_python(script, target)
    wait_for(lambda: len(list(Path(f"{target}.parts").glob("block-*.h5"))) == 1)
    monkeypatch.setattr(toy_recipe.Toy, "run", None)  # it would fail if it worked itself
    assert make("shared.h5", tmp_path).read_bytes() == whole
    assert "waiting" in caplog.text
    _, errors = first.communicate(timeout=60)
    assert first.returncode == 0, errors
    assert sorted(p.name for p in tmp_path.iterdir()) == ["shared.h5", "whole.h5"]


def test_what_a_unit_raises_comes_out(tmp_path):
    with pytest.raises(InputError, match=r"^the toy is broken\.$"):
        make("a.h5", tmp_path, trouble="input")
    with pytest.raises(ZeroDivisionError, match="a fault"):
        make("a.h5", tmp_path, trouble="fault")
    with pytest.raises(RuntimeError, match=r"(?s)a worker process failed.*Traceback.*a fault"):
        make("b.h5", tmp_path, workers=2, trouble="fault")
    assert not list(tmp_path.glob("*.h5"))


@pytest.mark.parametrize(
    "error",
    [
        InputError("the toy is broken."),
        OSError(errno.ENOSPC, "No space left on device", "/tmp/a.h5"),
        OSError("a sentence."),
        MemoryError("3 GB wanted"),
    ],
)
def test_errors_cross_the_process_border(error):
    there = json.loads(json.dumps(processes._described(error)))
    back = processes._rebuilt(there)
    assert type(back) is type(error)
    assert str(back) == str(error)


def test_a_dead_worker_is_told(tmp_path):
    with pytest.raises(ChildProcessError, match="a worker process ended with status 9"):
        make("a.h5", tmp_path, workers=2, trouble="death")


def test_a_full_disk_is_told_before_the_work(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: usage)
    monkeypatch.setattr(toy_recipe.Toy, "run", None)
    with pytest.raises(OSError, match="No space left on device"):
        make("a.h5", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot write datasets to .*: Not a directory\.$"):
        make("a.h5", tmp_path / "file" / "folder")
    if os.geteuid():  # root may write anywhere
        (tmp_path / "closed").mkdir(mode=0o500)
        with pytest.raises(OSError, match=r"cannot write datasets to .*: Permission denied\.$"):
            make("a.h5", tmp_path / "closed")


def test_unknown_names_give_the_nearest(tmp_path):
    with pytest.raises(InputError, match="did you mean holstein_square"):
        make_dataset("holstein_sqare")
    with pytest.raises(InputError, match="did you mean samples_wanted"):
        make("a.h5", tmp_path, samples=3)
    with pytest.raises(InputError, match="the number of workers is 0"):
        make("a.h5", tmp_path, workers=0)
