"""CartPole as pure functions, after gymnasium's functional one, with distractors.

Source: Barto, Sutton and Anderson 1983; dynamics of `gymnasium.envs.phys2d.cartpole`, given the
pole's mass times length that CartPole-v1 has (its own default adds the two). The 500-step limit
of CartPole-v1 belongs to whoever steps the environment, as gymnasium's TimeLimit does.
"""

import dataclasses
from typing import Any

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium.envs.functional_jax_env import FunctionalJaxEnv
from gymnasium.envs.phys2d.cartpole import CartPoleFunctional, CartPoleParams
from jaxtyping import Array, Float32

STEP_LIMIT = 500
N_PHYSICS, N_ACTIONS = 4, 2
PARAMS = CartPoleParams(polemass_length=0.05)


class CartPole(CartPoleFunctional):
    """CartPole-v1 whose observation ends in `distractors` standard-normal numbers.

    Distractors carry no information and are drawn anew at every observation.
    """

    def __init__(self, distractors: int = 0):
        if distractors < 0:
            raise ValueError(f"distractors={distractors}: must be at least 0")
        super().__init__()
        self.distractors = distractors
        self.n_obs = N_PHYSICS + distractors
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (self.n_obs,), np.float32)

    def get_default_params(self, **kwargs: Any) -> CartPoleParams:
        """CartPole-v1's constants."""
        return dataclasses.replace(PARAMS, **kwargs)

    def initial(self, rng, params=PARAMS) -> Float32[Array, "4"]:
        """Each coordinate uniform in [-0.05, 0.05]."""
        span = params.x_init
        return jax.random.uniform(rng, (N_PHYSICS,), jnp.float32, -span, span)

    def transition(self, state, action, rng=None, params=PARAMS) -> Float32[Array, "4"]:
        """One Euler step of 0.02 s under a push of 10 N to the right (1) or left (0)."""
        return super().transition(state, action, rng, params)

    def observation(self, state, rng, params=PARAMS) -> Float32[Array, " n_obs"]:
        """Position, velocity, angle, angular velocity, then the distractors."""
        if not self.distractors:
            return state
        return self.with_noise(state, jax.random.normal(rng, (self.distractors,), jnp.float32))

    def with_noise(
        self, state: Float32[Array, "4"], noise: Float32[Array, " distractors"]
    ) -> Float32[Array, " n_obs"]:
        """The observation whose distractors are `noise`."""
        return jnp.concatenate([state, noise]) if self.distractors else state

    def terminal(self, state, rng=None, params=PARAMS) -> Array:  # type: ignore[override]
        """True once the cart is beyond 2.4 or the pole beyond 12 degrees."""
        return super().terminal(state, rng, params)

    def reward(  # type: ignore[override]
        self, state, action, next_state, rng=None, params=PARAMS
    ) -> Array:
        """1 per step, the last one included."""
        return super().reward(state, action, next_state, rng, params)


class CartPoleEnv(FunctionalJaxEnv):
    """The same environment behind gymnasium's stateful interface."""

    def __init__(self, distractors: int = 0):
        super().__init__(CartPole(distractors), metadata={"render_modes": [], "jax": True})


gym.register(
    "diffmbrl/CartPole-v1",
    entry_point="diffmbrl.envs.cartpole:CartPoleEnv",
    max_episode_steps=STEP_LIMIT,
)
