"""The laws that every network of the library passes, for one of your own.

Equivariance under every element of the group with random and with trained-like weights, locality,
independence of batch and lattice size, saving and loading, refusals: all inherited.
"""

from my_network import ShellNetwork

from latticezoo.symmetry import honeycomb, square
from latticezoo.zoo.testing import Case, ZooModelTests, scalar_task, vector_task


class TestShellNetwork(ZooModelTests):
    """A few cases are all it takes."""

    model = ShellNetwork.registry_name
    cases = (
        Case(scalar_task("square", odd=True), (square(7), square(6, 9)), {"layers": 1}),
        Case(scalar_task("honeycomb"), (honeycomb(5), honeycomb(4, 5)), {"layers": 1, "shells": 2}),
    )
    unsuitable = (vector_task("square"),)
    too_small = (square(3),)
