import jax.numpy as jnp
import numpy as np
import pytest

from diffmbrl.solve import Elimination, Operator
from diffmbrl.sweep import engine


def program(lanes: int) -> engine.Program:
    def advance(config, data, state):
        state = jnp.tanh(data["A"] @ state + config["shift"])
        return state, {"state": state, "sum": state.sum()}

    return engine.Program(
        init=lambda config, data: data["x"] * config["shift"],
        advance=advance, segments=4, lanes=lanes, segments_per_call=2,
    )  # fmt: skip


@pytest.mark.parametrize("threads", [1, 2])
def test_one_lane_trains_what_several_do(threads):
    rng = np.random.default_rng(0)
    data = {"A": rng.normal(size=(3, 3)), "x": rng.normal(size=3)}
    configs = {"shift": np.array([0.1, -0.4, 0.7])}
    alone = engine.run(program(1), configs, data, threads=threads)
    together = engine.run(program(3), configs, data)
    assert alone["state"].shape == (3, 4, 3)
    for name, values in together.items():
        np.testing.assert_allclose(alone[name], values, atol=1e-14)
    x = data["x"] * 0.7
    for t in range(4):
        x = np.tanh(data["A"] @ x + 0.7)
        np.testing.assert_allclose(alone["state"][2, t], x, atol=1e-14)


def test_elimination_solves_diagonally_dominant_systems():
    rng = np.random.default_rng(1)
    P = rng.dirichlet(np.ones(5), size=5)
    for matrix in (np.eye(5) - 0.95 * P, np.eye(5) - 0.95 * P.T):
        b = rng.normal(size=5)
        x = Elimination().solve(Operator(lambda v, m=matrix: jnp.asarray(m) @ v), jnp.asarray(b))
        np.testing.assert_allclose(matrix @ np.asarray(x), b, atol=1e-12)
