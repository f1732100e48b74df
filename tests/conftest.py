"""Settings that every test shares."""

import pytest
import torch
from hub import TOKEN, Hub
from hypothesis import settings

# A busy machine must not fail a property test for being slow.
settings.register_profile("lattice-zoo", deadline=None)
settings.load_profile("lattice-zoo")


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """Small tensors gain nothing from threads, and waiting for them costs ten times the work."""
    torch.set_num_threads(1)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub on this machine in the place of the real one, with an empty cache and its token."""
    from huggingface_hub import constants

    served = Hub()
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "ENDPOINT", served.url)
    monkeypatch.setattr(
        constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        served.url + "/{repo_id}/resolve/{revision}/{filename}",
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    yield served
    served.close()
