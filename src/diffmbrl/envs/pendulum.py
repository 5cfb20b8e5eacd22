"""Gymnasium's functional Pendulum (gymnasium.envs.phys2d.pendulum), differentiable."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from gymnasium.envs.phys2d.pendulum import PendulumFunctional, PendulumParams
from jaxtyping import Array, Float, PRNGKeyArray


class Pendulum(eqx.Module):
    """Swing-up; observations (cos, sin, angular velocity in rad/s), torque up to 2 N m."""

    observation_dim: ClassVar[int] = 3
    state_dim: ClassVar[int] = 0
    action_dim: ClassVar[int] = 1
    time_limit: ClassVar[int] = 200
    terminates: ClassVar[bool] = False
    reward_scale: ClassVar[float] = 0.1

    def reset(self, key: PRNGKeyArray) -> Float[Array, "3"]:
        """Any angle, velocity in [-1, 1]."""
        return _env().observation(_env().initial(key, PendulumParams), None).astype(jnp.float32)

    def observe(self, state: Float[Array, "3"]) -> Float[Array, "3"]:
        """The state itself."""
        return state

    def step(self, obs: Float[Array, "3"], action: Float[Array, "1"]):
        """Next observation, reward, never terminated."""
        env = _env()
        state = jnp.array([jnp.arctan2(obs[1], obs[0]), obs[2]])
        torque = PendulumFunctional.max_torque * action
        following = env.transition(state, torque, None, PendulumParams)
        reward = env.reward(state, torque, following, None, PendulumParams)
        return env.observation(following, None, PendulumParams), reward, jnp.zeros_like(reward)


def _env() -> PendulumFunctional:
    return PendulumFunctional()
