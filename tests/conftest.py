import jax
import pytest

from diffmbrl.sweep import device

device.configure("cpu")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def rank_promotion_allowed():
    with jax.numpy_rank_promotion("allow"):
        yield
