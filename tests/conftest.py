import jax
import pytest

from diffmbrl.sweep import device

device.configure("cpu")
jax.config.update("jax_numpy_rank_promotion", "raise")

PROMOTES = ("test_rpg_", "test_envs_host")  # code that rests on numpy's rank promotion


@pytest.fixture
def rank_promotion_allowed():
    with jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(autouse=True)
def rank_promotion_of(request):
    """Sets it for all threads: the sweep engine traces in its own."""
    free = request.module.__name__.startswith(PROMOTES)
    jax.config.update("jax_numpy_rank_promotion", "allow" if free else "raise")
