"""Mountain car (Moore 1990), as used by Gehring et al. 2021, section 4."""

from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnasium.experimental.functional import FuncEnv

GAMMA = 0.99
LOW = np.array([-1.2, -0.07], dtype=np.float32)
HIGH = np.array([0.6, 0.07], dtype=np.float32)


@struct.dataclass
class MountainCarParams:
    """Physics of the car; positions and speeds per step."""

    force: float = 0.001
    gravity: float = 0.0025
    max_speed: float = 0.07
    goal: float = 0.5
    start_low: float = -0.6
    start_high: float = -0.4


class MountainCarFunctional(FuncEnv[jax.Array, jax.Array, int, float, bool, Any, Any]):
    """An underactuated car in a valley; actions push it back (0), not at all (1), forward (2).

    Unlike gymnasium's MountainCar-v0, the position moves by the velocity before that is
    clipped, the left wall does not stop the car, and the step that reaches the goal pays 0.
    """

    observation_space = gymnasium.spaces.Box(LOW, HIGH, dtype=np.float32)
    action_space = gymnasium.spaces.Discrete(3)

    def get_default_params(self, **kwargs) -> MountainCarParams:
        """The published physics."""
        return MountainCarParams()

    def initial(self, rng: jax.Array, params: MountainCarParams | None = None) -> jax.Array:
        """Draws a start position; the car is at rest."""
        p = params or MountainCarParams()
        position = jax.random.uniform(rng, minval=p.start_low, maxval=p.start_high)
        return jnp.stack([position, jnp.zeros_like(position)])

    def transition(self, state, action, rng=None, params: MountainCarParams | None = None):
        """One step of the physics, in the state's precision."""
        p = params or MountainCarParams()
        position, velocity = state
        velocity = velocity + (action - 1) * p.force - jnp.cos(3 * position) * p.gravity
        position = jnp.clip(position + velocity, LOW[0], HIGH[0])
        return jnp.stack([position, jnp.clip(velocity, -p.max_speed, p.max_speed)])

    def observation(self, state, rng=None, params: MountainCarParams | None = None):
        """Position and velocity, float32."""
        return state.astype(jnp.float32)

    def reward(self, state, action, next_state, rng=None, params=None):
        """-1 per step, 0 for the step that reaches the goal."""
        return jnp.where(self.terminal(next_state, rng, params), 0.0, -1.0)

    def terminal(self, state, rng=None, params: MountainCarParams | None = None):
        """Whether the car is at the goal."""
        return state[0] >= (params or MountainCarParams()).goal


def energy_pumping(observation: jax.Array) -> jax.Array:
    """The policy that pushes along the velocity (0 counts as positive), shape (3,)."""
    return jnp.where(observation[1] >= 0, jnp.array([0.0, 0.0, 1.0]), jnp.array([1.0, 0.0, 0.0]))
