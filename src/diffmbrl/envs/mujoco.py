"""MuJoCo's tasks as gymnasium has them, one step a pure function of state and action.

A state is one float64 vector: the parts of MuJoCo's integration state that change (positions,
velocities, activations, the solver's warm start), where the torso was (Ant, whose reward needs
it), and the observation, which MuJoCo computes in part on the way to a state and not from it. A
step sets a gymnasium environment to a state, calls its own `step`, and reads the state back; so
observations, rewards and terminations are gymnasium's, byte for byte. A reset is gymnasium's
`reset(seed)` with a seed drawn from the key.

An action that is not finite is not simulated: its state, observation and reward are NaN, and the
episode terminates. That is how runs that diverge look; a simulator that becomes unstable under
finite actions is refused (`callback.one_line`).
"""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from diffmbrl.envs import callback
from diffmbrl.envs.simulator import Simulator

Options = tuple[tuple[str, Any], ...]
_FREE: dict[tuple[str, Options], deque[Simulator]] = {}


class MuJoCo(eqx.Module):
    """A task of gymnasium's; see `envs.functional` for the attributes.

    Attributes:
        name: of the task, such as `Hopper-v5`.
        options: what gymnasium makes it with.
    """

    name: str = eqx.field(static=True)
    terminates: bool = eqx.field(static=True)
    reward_scale: float = eqx.field(static=True)
    options: Options = eqx.field(static=True)
    observation_dim: int = eqx.field(static=True)
    state_dim: int = eqx.field(static=True)
    action_dim: int = eqx.field(static=True)
    time_limit: int = eqx.field(static=True)

    def __init__(
        self, name: str, *, terminates: bool = True, reward_scale: float = 1.0, **options: Any
    ):
        """Makes a registered task.

        Args:
            name: of the task.
            terminates: whether its episodes can end by themselves; gymnasium does not say.
            reward_scale: see `envs.functional`.
            options: for `gymnasium.make`.

        Raises:
            ConfigError: unknown name, no MuJoCo task, or spaces that are not flat and bounded.
        """
        self.name, self.terminates, self.reward_scale = name, terminates, reward_scale
        self.options = tuple(sorted(options.items()))
        with simulator(name, self.options) as made:
            self.observation_dim, self.action_dim = made.observation_dim, made.action_dim
            self.state_dim, self.time_limit = made.state_dim, made.time_limit

    def reset(self, key: PRNGKeyArray) -> Float[Array, " state"]:
        """The state after gymnasium's `reset(seed)`, the seed drawn from the key."""
        seed = jax.random.bits(key, (), jnp.uint32)
        return callback.call(partial(_resets, self), self._state, seed)

    def observe(self, state: Float[Array, " state"]) -> Float[Array, " obs"]:
        """The observation, float64."""
        return state[-self.observation_dim :]

    def step(self, state: Float[Array, " state"], action: Float[Array, " act"]):
        """Next state, reward, and 1 where the episode terminates.

        In float64; like gymnasium's, the control costs of a float32 action are summed in float32.
        Its derivative (reverse mode, first order) is that of central differences of the step.
        """
        return _step(self, state, action)

    @property
    def _state(self) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((self.state_dim,), jnp.float64)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _step(env: MuJoCo, state, action):
    number = jax.ShapeDtypeStruct((), jnp.float64)
    return callback.call(partial(_steps, env), (env._state, number, number), state, action)


def _forward(env: MuJoCo, state, action):
    return _step(env, state, action), (state, action)


def _backward(env: MuJoCo, residuals, cotangents):
    state, action = residuals
    d_state, d_reward, _ = cotangents
    with simulator(env.name, env.options) as taken:
        free = taken.free
    shape = jax.ShapeDtypeStruct((env.state_dim + 1, free + env.action_dim), jnp.float64)
    jacobian = callback.call(partial(_jacobians, env), shape, state, action)
    by_state, by_action = jnp.split(jnp.append(d_state, d_reward) @ jacobian, [free])
    return jnp.pad(by_state, (0, env.state_dim - free)), by_action.astype(action.dtype)


_step.defvjp(_forward, _backward)


@contextmanager
def simulator(name: str, options: Options) -> Iterator[Simulator]:
    """An environment of a task that nobody else uses, made where none is free.

    Not one for each thread: threads that XLA starts are new to Python at every call.
    """
    free = _FREE.setdefault((name, options), deque())
    try:
        taken = free.pop()
    except IndexError:
        taken = Simulator(name, **dict(options))
    try:
        yield taken
    finally:
        free.append(taken)


def _resets(env: MuJoCo, seeds):
    with simulator(env.name, env.options) as taken:
        return taken.reset(seeds)


def _steps(env: MuJoCo, states, actions):
    with simulator(env.name, env.options) as taken:
        return taken.steps(states, actions)


def _jacobians(env: MuJoCo, states, actions):
    with simulator(env.name, env.options) as taken:
        return taken.jacobians(states, actions)
