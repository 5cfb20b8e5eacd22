"""Stage: offline data of one domain, every seed, by epsilon-greedy rollouts."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array, Float, Int

from diffmbrl.envs.dense import DenseFunctional
from diffmbrl.envs.mountain_car import MountainCarFunctional, MountainCarParams, energy_pumping
from diffmbrl.implicit import schedule
from diffmbrl.implicit.domains import DOMAINS, behaviour
from diffmbrl.mdp.dense import epsilon_greedy, policy_values
from diffmbrl.pipeline.stage import Job

COLUMNS = ("seed", "split", "trajectory", "t")


class Rollout(NamedTuple):
    """Steps of a set's trajectories, leading axes (trajectories, steps)."""

    observation: Float[Array, "n t d"]
    action: Int[Array, "n t"]
    reward: Float[Array, "n t"]
    terminated: Array


def rollout_mdp(
    domain: str, epsilon: float, keys: schedule.SetKeys, trajectories: int, steps: int
) -> Rollout:
    """Trajectories of exactly `steps` steps in a dense MDP, absorbing state included."""
    env = DenseFunctional(DOMAINS[domain].mdp)
    policy = behaviour(domain, epsilon)

    def step(carry, _):
        state, key, env_key = carry
        key, use = jax.random.split(key)
        action = schedule.sample_action(use, policy[state])
        use, env_key = jax.random.split(env_key)
        reward = env.reward(state, action, None)
        now = (state[None].astype(float), action, reward, jnp.asarray(False))
        return (env.transition(state, action, use), key, env_key), now

    def trajectory(carry, _):
        policy_key, env_key = carry
        key, policy_key = jax.random.split(policy_key)
        use, env_key = jax.random.split(env_key)
        (_, _, env_key), now = jax.lax.scan(
            step, (env.initial(use), key, env_key), None, length=steps
        )
        return (policy_key, env_key), Rollout(*now)

    start = (jnp.asarray(keys.policy), jax.random.PRNGKey(keys.environment))
    return jax.lax.scan(trajectory, start, None, length=trajectories)[1]


def rollout_mountain_car(
    epsilon: float, keys: schedule.SetKeys, trajectories: int, steps: int
) -> Rollout:
    """Trajectories of at most `steps` steps of mountain car; steps after the goal are padding."""
    env, params = MountainCarFunctional(), MountainCarParams()
    draw = np.random.default_rng(keys.environment)
    starts = [draw.uniform(params.start_low, params.start_high) for _ in range(trajectories)]

    def step(carry, _):
        state, key = carry
        key, use = jax.random.split(key)
        observation = env.observation(state)
        action = schedule.sample_action(use, epsilon_greedy(energy_pumping(observation), epsilon))
        after = env.transition(state, action)
        now = (observation.astype(float), action, env.reward(state, action, after),
               env.terminal(after))  # fmt: skip
        return (after, key), now

    def trajectory(policy_key, start):
        key, policy_key = jax.random.split(policy_key)
        state = jnp.stack([start, jnp.zeros_like(start)])
        return policy_key, Rollout(*jax.lax.scan(step, (state, key), None, length=steps)[1])

    return jax.lax.scan(trajectory, jnp.asarray(keys.policy), jnp.asarray(starts))[1]


def returns_to_go(
    reward: Float[np.ndarray, " t"], gamma: float
) -> tuple[Float[np.ndarray, " t"], Float[np.ndarray, " t"]]:
    """Discounted return to the end of a trajectory, without bootstrap, and discounts' sum.

    An offset added to every reward adds offset x (the discounts' sum) to the return.
    """
    returns, discounts = np.zeros_like(reward), np.zeros_like(reward)
    value, weight = 0.0, 0.0
    for t in range(len(reward) - 1, -1, -1):
        value, weight = reward[t] + gamma * value, 1.0 + gamma * weight
        returns[t], discounts[t] = value, weight
    return returns, discounts
