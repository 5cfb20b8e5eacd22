"""The compilation cache of the tests saves time and changes no byte."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from conftest import cache_compiled
from diffmbrl.sweep import engine
from diffmbrl.sweep.grid import grid


def trained() -> dict[str, bytes]:
    """A training with random draws, products, a linear solve and transcendental functions."""

    def init(config, data):
        return jnp.full(8, config["scale"]), jax.random.PRNGKey(config["seed"])

    def advance(config, data, state):
        x, key = state
        key, use = jax.random.split(key)
        matrix = jnp.eye(8) + 0.1 * jax.random.normal(use, (8, 8))
        x = jnp.tanh(jnp.linalg.solve(matrix, data @ x)) + jnp.exp(-x)
        return (x, key), {"x": x, "norm": jnp.linalg.norm(x)}

    runs = grid({"seed": np.arange(3), "scale": [0.5, 2.0]})
    data = np.linspace(-1, 1, 64).reshape(8, 8)
    metrics = engine.run(engine.Program(init, advance, segments=5, lanes=4), runs, data)
    return {name: values.tobytes() for name, values in metrics.items()}


@pytest.fixture
def folder(tmp_path):
    """A cache that is empty; the common one comes back afterwards."""
    before = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    cache_compiled(tmp_path / "compiled")
    yield tmp_path / "compiled"
    if before is None:
        jax.config.update("jax_compilation_cache_dir", None)
        del os.environ["JAX_COMPILATION_CACHE_DIR"]
    else:
        cache_compiled(before)


@pytest.fixture
def events():
    heard = []
    jax.monitoring.register_event_listener(lambda name, **_: heard.append(name.split("/")[-1]))
    return heard


def test_a_loaded_program_computes_the_bytes_of_a_compiled_one(folder, events, request):
    stored = trained()
    assert list(folder.glob("*go_on*"))
    events.clear()
    loaded = trained()
    assert events.count("cache_hits") >= 2  # the engine's start and go_on
    assert "cache_misses" not in events
    request.getfixturevalue("compiled_afresh")
    events.clear()
    assert trained() == stored == loaded
    assert "cache_hits" not in events


def test_another_program_is_not_taken_for_a_stored_one(folder, events):
    x = jnp.arange(4.0)
    first, second = (jax.jit(lambda x, c=c: jnp.sin(x) * c)(x) for c in (2.0, 3.0))
    np.testing.assert_allclose(first * 1.5, second)
    assert "cache_hits" not in events
