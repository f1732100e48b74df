"""The equivariance check finds what it claims to find."""

import pytest
import torch

from latticezoo.symmetry.fields import Field
from latticezoo.symmetry.lattices import chain, square
from latticezoo.symmetry.tasks import Task
from latticezoo.symmetry.testing import assert_equivariant, equivariance_error

SCALAR = Task(
    "t",
    (Field("Q", odd=("particle_hole",)),),
    (Field("n", odd=("particle_hole",)),),
    "square",
    flips=("particle_hole",),
)


def symmetric(fields, lattice):
    return {"n": torch.tanh(fields["Q"] + 0.3 * lattice.neighbour_sum(fields["Q"]) ** 3)}


def test_an_exact_map_passes_and_every_element_is_tried():
    report = assert_equivariant(symmetric, SCALAR, square(4))
    assert report.elements == 16 * 8 * 2
    assert report.exhaustive
    assert report.error < 1e-14


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("breaks", "named"),
    [
        (lambda n, q, lattice: n + 1e-3 * q**2, "particle_hole"),
        (lambda n, q, lattice: n + 1e-3 * torch.roll(q, 1, dims=1), r"C|σ|m"),
        (lambda n, q, lattice: n + 1e-3 * torch.arange(16.0).reshape(16, 1) * q, "translation"),
    ],
)
def test_a_broken_map_is_caught_with_the_element_that_shows_it(breaks, named, dtype):
    def broken(fields, lattice):
        return {"n": breaks(symmetric(fields, lattice)["n"], fields["Q"], lattice)}

    with pytest.raises(AssertionError, match="not equivariant within") as caught:
        assert_equivariant(broken, SCALAR, square(4), dtype=dtype)
    assert caught.match(named)


def test_the_size_of_the_error_is_relative_to_the_target():
    def broken(fields, lattice):
        return {"n": 1e6 * (symmetric(fields, lattice)["n"] + 1e-3)}

    report = equivariance_error(broken, SCALAR, square(4))
    largest = 1.0 + 1e-3  # tanh saturates somewhere in a random configuration
    assert report.error == pytest.approx(2e-3 / largest, rel=0.2)
    assert "particle_hole" in report.worst


def test_not_a_number_counts_as_the_worst():
    def broken(fields, lattice):
        return {"n": symmetric(fields, lattice)["n"] / 0}

    with pytest.raises(AssertionError):
        assert_equivariant(broken, SCALAR, square(4))


def test_local_gauge_transformations_are_drawn_at_random():
    task = Task(
        "hopping",
        (Field("psi", internal=1), Field("U", "link", internal="link")),
        (Field("chi", internal=1),),
        "chain",
        gauge="U1",
    )

    def hop(fields, lattice, transport=True):
        links = fields["U"] if transport else torch.ones_like(fields["U"])
        forward = links * fields["psi"][:, lattice.link_target[:, 0]]
        back = torch.empty_like(forward)
        back[:, lattice.link_target[:, 0]] = links.conj() * fields["psi"]
        return {"chi": forward + back}

    report = assert_equivariant(hop, task, chain(6))
    assert not report.exhaustive
    with pytest.raises(AssertionError, match="local U1 transformation"):
        assert_equivariant(lambda f, lattice: hop(f, lattice, transport=False), task, chain(6))
