"""Functional environments: step parity with gymnasium, derivatives, the smoothness dial."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffmbrl.envs.hybrid import Hybrid
from diffmbrl.envs.pendulum import Pendulum


def test_pendulum_steps_like_gymnasium():
    theirs, ours = gymnasium.make("Pendulum-v1").unwrapped, Pendulum()
    rng = np.random.default_rng(0)
    obs, _ = theirs.reset(seed=1)
    step = jax.jit(ours.step)
    for _ in range(200):
        action = rng.uniform(-1, 1, 1)
        expected, reward, terminated, _, _ = theirs.step(2 * action)
        got, r, ended = step(jnp.asarray(obs, float), jnp.asarray(action))
        np.testing.assert_allclose(got, expected, atol=2e-5)
        np.testing.assert_allclose(r, reward, atol=2e-5)
        assert not terminated
        assert ended == 0
        obs = expected


def test_pendulum_starts_as_gymnasium_does():
    obs = jax.vmap(Pendulum().reset)(jax.random.split(jax.random.key(0), 2000))
    angle = np.arctan2(obs[:, 1], obs[:, 0])
    assert angle.min() < -3.1
    assert angle.max() > 3.1
    np.testing.assert_allclose(np.abs(obs[:, 2]).max(), 1, atol=0.01)


@pytest.mark.parametrize("env", [Pendulum(), Hybrid(5.0), Hybrid(50.0)])
def test_derivatives_agree_with_finite_differences(env):
    rng, n = np.random.default_rng(3), env.observation_dim

    @jax.jit
    def f(x):
        following, reward, _ = env.step(x[:n], x[n:])
        return jnp.append(following, reward)

    derivative = jax.jit(jax.jacfwd(f))
    for _ in range(20):
        x = np.concatenate([rng.normal(size=n), rng.uniform(-0.9, 0.9, 1)])
        exact = derivative(x)
        eps = 1e-6
        for i, row in enumerate(np.eye(len(x))):
            numeric = (f(x + eps * row) - f(x - eps * row)) / (2 * eps)
            np.testing.assert_allclose(exact[:, i], numeric, rtol=1e-4, atol=1e-5)


def test_the_dial_goes_from_a_cushion_to_a_bounce():
    falling, still = jnp.array([0.02, -2.0]), jnp.zeros(1)
    hard = Hybrid(1e4).step(falling, still)[0]
    # v1 = -2 + 0.05 (-6 + 0.2) = -2.29, then -0.8 of it
    np.testing.assert_allclose(hard[1], 0.8 * 2.29, rtol=1e-6)
    soft = Hybrid(1.0).step(falling, still)[0]
    assert -2.29 < soft[1] < hard[1]

    def slope(k):
        grid = jnp.linspace(-0.5, 0.5, 2001)
        return jnp.max(
            jnp.abs(
                jax.vmap(
                    lambda x: jax.jacfwd(lambda o: Hybrid(k).step(o, still)[0])(
                        jnp.array([x, -2.0])
                    )[1, 0]
                )(grid)
            )
        )

    np.testing.assert_allclose(slope(200.0) / slope(50.0), 4, rtol=0.15)


def test_far_from_the_floor_the_ball_falls_freely():
    obs = Hybrid(100.0).step(jnp.array([2.0, 1.0]), jnp.array([0.5]))[0]
    v = 1 + 0.05 * (1.5 - 6 - 0.1)
    np.testing.assert_allclose(obs, [2 + 0.05 * v, v], rtol=1e-6)
