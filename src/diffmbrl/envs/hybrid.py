"""A ball to be bounced to a height, with a dial from a smooth cushion to a hard floor.

Height x (m), velocity v (m/s), push u in [-1, 1]; one step of dt = 0.05 s:
    v1 = v + dt (PUSH u - GRAVITY - DRAG v),   x1 = x + dt v1,
    v' = v1 + (1 + RESTITUTION) S(-k x1) z S(k z),   z = -v1,   S the logistic function,
    x' = x + dt v'.
The stiffness k (1/m) is the dial: as it grows the impulse tends to that of a rigid floor at
x = 0, and the step's Jacobian to a jump (it grows as k). The push is weaker than gravity, so that
only bounces lead to the goal: a policy has to use the contact, not to avoid it.
"""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

DT, PUSH, GRAVITY, DRAG, RESTITUTION, GOAL = 0.05, 3.0, 6.0, 0.1, 0.8, 1.0


class Hybrid(eqx.Module):
    """Keep the ball near the height GOAL."""

    observation_dim: ClassVar[int] = 2
    state_dim: ClassVar[int] = 0
    action_dim: ClassVar[int] = 1
    time_limit: ClassVar[int] = 100
    terminates: ClassVar[bool] = False
    reward_scale: ClassVar[float] = 1.0
    stiffness: Float[Array, ""] | float = 10.0

    def reset(self, key: PRNGKeyArray) -> Float[Array, "2"]:
        """X in [0.2, 0.8] m, v in [-2, 0] m/s."""
        low, high = jnp.array([0.2, -2.0]), jnp.array([0.8, 0.0])
        return jax.random.uniform(key, (2,), jnp.float32, low, high)

    def observe(self, state: Float[Array, "2"]) -> Float[Array, "2"]:
        """The state itself."""
        return state

    def step(self, obs: Float[Array, "2"], action: Float[Array, "1"]):
        """Next observation, reward -(x - GOAL)^2 - 0.01 u^2, never terminated."""
        (x, v), u = obs, jnp.clip(action[0], -1, 1)
        reward = -((x - GOAL) ** 2) - 0.01 * u**2
        v = v + DT * (PUSH * u - GRAVITY - DRAG * v)
        touch = jax.nn.sigmoid(-self.stiffness * (x + DT * v))
        v = v - (1 + RESTITUTION) * touch * v * jax.nn.sigmoid(-self.stiffness * v)
        return jnp.stack([x + DT * v, v]), reward, jnp.zeros_like(reward)
