"""Settings that every test shares."""

import pytest
import torch
from hypothesis import settings

# A busy machine must not fail a property test for being slow.
settings.register_profile("lattice-zoo", deadline=None)
settings.load_profile("lattice-zoo")


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """Small tensors gain nothing from threads, and waiting for them costs ten times the work."""
    torch.set_num_threads(1)
