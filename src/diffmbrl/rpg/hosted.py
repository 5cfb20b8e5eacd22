"""Training of one run in an environment that is stepped on the host, with the same learner."""

import jax
import jax.numpy as jnp
import numpy as np

from diffmbrl import keys
from diffmbrl.agents import sac
from diffmbrl.envs.host import HostEnvironment
from diffmbrl.errors import ConfigError
from diffmbrl.rpg import learner as learning
from diffmbrl.rpg.learner import Learner


def train(
    learner: Learner, env: HostEnvironment, sn: learning.Normalisation, seed: int, *, steps: int,
    random_steps: int, update_every: int,
) -> tuple[learning.State, list[float]]:  # fmt: skip
    """The learner after `steps` environment steps, and the return of each finished episode.

    Raises:
        ConfigError: no stored segment was as long as the horizon when learning began.
    """
    key = jax.random.PRNGKey(seed)
    state = learner.init(keys.fold(key, "init"), sn)
    rng = np.random.default_rng(seed)
    act, observe, update = jax.jit(learner.act), jax.jit(learner.observe), jax.jit(learner.update)
    obs, age, total, longest, returns = env.reset(seed), 0, 0.0, 0, []
    for t in range(steps):
        key = keys.fold(key, "next")
        if t < random_steps:
            action = rng.uniform(-1, 1, env.action_dim).astype(np.float32)
        else:
            noise = jax.random.normal(keys.fold(key, "act"), (env.action_dim,), jnp.float32)
            action = act(state, jnp.asarray(obs), noise)
        following, reward, terminated, truncated = env.step(np.asarray(action))
        transition = sac.Transition(
            jnp.asarray(obs), jnp.asarray(action), jnp.float32(env.reward_scale * reward),
            jnp.asarray(following), jnp.float32(terminated),
        )  # fmt: skip
        state = observe(state, transition, jnp.int32(age))
        obs, age, total = following, age + 1, total + reward
        longest = max(longest, age)
        if terminated or truncated:
            returns.append(total)
            obs, age, total = env.reset(), 0, 0.0
        if t >= random_steps and t % update_every == 0:
            if longest < learner.segment_steps:
                raise ConfigError(
                    f"model_steps = {learner.segment_steps}: longer than any stored segment "
                    f"({longest} steps); lower it or take more random steps"
                )
            state, _ = update(state, keys.fold(key, "update"))
    return state, returns
