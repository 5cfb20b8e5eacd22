"""Our functional environments as ordinary gymnasium ones, with numpy observations."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium.envs.functional_jax_env import FunctionalJaxEnv
from gymnasium.experimental.functional import FuncEnv

from diffmbrl.envs.chain import chain
from diffmbrl.envs.dense import DenseFunctional
from diffmbrl.envs.four_rooms import TERMINAL, four_rooms
from diffmbrl.envs.mountain_car import MountainCarFunctional


class HostEnv(FunctionalJaxEnv):
    """Steps a functional environment on the host; each method is compiled once."""

    def __init__(self, func_env: FuncEnv, render_mode: str | None = None):
        """Wraps a functional environment; there is nothing to render."""
        func_env.transform(jax.jit)
        super().__init__(func_env, metadata={"render_modes": []}, render_mode=render_mode)

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        """Starts an episode; a seed makes it, and the steps after it, repeatable."""
        observation, info = super().reset(seed=seed, options=options)
        return self._numpy(observation), info

    def step(self, action: Any):
        """Takes one step."""
        observation, *rest = super().step(jnp.asarray(action))
        return self._numpy(observation), *rest

    def _numpy(self, observation: jax.Array):
        array = np.asarray(observation, dtype=self.observation_space.dtype)
        return array.item() if array.ndim == 0 else array


def make_chain(**kwargs: Any) -> HostEnv:
    """`diffmbrl/Chain-v0`: the chain of Gehring et al. 2021."""
    return HostEnv(DenseFunctional(chain()), **kwargs)


def make_four_rooms(**kwargs: Any) -> HostEnv:
    """`diffmbrl/FourRooms-v0`: four rooms; the absorbing state is terminal."""
    return HostEnv(DenseFunctional(four_rooms(), absorbing=TERMINAL), **kwargs)


def make_mountain_car(**kwargs: Any) -> HostEnv:
    """`diffmbrl/MountainCar-v0`: mountain car as Gehring et al. 2021 use it."""
    return HostEnv(MountainCarFunctional(), **kwargs)
