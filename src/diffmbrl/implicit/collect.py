"""Stage: offline data of one domain, every seed, by epsilon-greedy rollouts."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array, Float, Int

from diffmbrl.envs.dense import DenseFunctional
from diffmbrl.envs.mountain_car import MountainCarFunctional, MountainCarParams, energy_pumping
from diffmbrl.implicit import schedule
from diffmbrl.implicit.domains import DOMAINS, behaviour, mdp_of
from diffmbrl.implicit.tables import write_parquet
from diffmbrl.mdp.dense import DenseMDP, epsilon_greedy, policy_values
from diffmbrl.pipeline.stage import Job


class Rollout(NamedTuple):
    """Steps of a set's trajectories, leading axes (trajectories, steps)."""

    observation: Float[Array, "n t d"]
    action: Int[Array, "n t"]
    reward: Float[Array, "n t"]
    terminated: Array


def rollout_mdp(
    mdp: DenseMDP,
    behaviour: Float[Array, "s a"],
    environment: Array,
    policy: Array,
    trajectories: int,
    steps: int,
) -> Rollout:
    """Trajectories of exactly `steps` steps in a dense MDP, absorbing state included.

    Args:
        mdp: the environment.
        behaviour: probabilities of the actions in each state.
        environment: the environment's raw key.
        policy: the policy's raw key.
        trajectories: how many.
        steps: of each.
    """
    env = DenseFunctional(mdp)

    def step(carry, _):
        state, key, env_key = carry
        key, use = jax.random.split(key)
        action = schedule.sample_action(use, behaviour[state])
        use, env_key = jax.random.split(env_key)
        now = (state[None].astype(float), action, env.reward(state, action, None),
               jnp.asarray(False))  # fmt: skip
        return (env.transition(state, action, use), key, env_key), Rollout(*now)

    def trajectory(carry, _):
        policy_key, env_key = carry
        key, policy_key = jax.random.split(policy_key)
        use, env_key = jax.random.split(env_key)
        start = (env.initial(use), key, env_key)
        (_, _, env_key), now = jax.lax.scan(step, start, None, length=steps)
        return (policy_key, env_key), now

    return jax.lax.scan(trajectory, (policy, environment), None, length=trajectories)[1]


def rollout_mountain_car(
    epsilon: float, starts: Float[Array, " n"], policy: Array, steps: int
) -> Rollout:
    """Trajectories of `steps` steps of mountain car; steps after the goal are padding.

    Args:
        epsilon: exploration of the behaviour policy.
        starts: start position of each trajectory.
        policy: the policy's raw key.
        steps: of each.
    """
    env = MountainCarFunctional()

    def step(carry, _):
        state, key = carry
        key, use = jax.random.split(key)
        observation = env.observation(state)
        action = schedule.sample_action(use, epsilon_greedy(energy_pumping(observation), epsilon))
        after = env.transition(state, action)
        reward = env.reward(state, action, after)
        return (after, key), Rollout(observation, action, reward, env.terminal(after))

    def trajectory(policy_key, start):
        key, policy_key = jax.random.split(policy_key)
        state = jnp.stack([start, jnp.zeros_like(start)])
        return policy_key, jax.lax.scan(step, (state, key), None, length=steps)[1]

    return jax.lax.scan(trajectory, policy, starts)[1]


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


def table(
    domain: str, seed: int, split: str, rollout: Rollout, limit: int | None = None
) -> pd.DataFrame:
    """A set's trajectories as rows, cut after the goal and after `limit` steps in all."""
    info, left, frames = DOMAINS[domain], limit or rollout.reward.size, []
    for index in range(len(rollout.reward)):
        ends = np.flatnonzero(rollout.terminated[index])
        length = min(ends[0] + 1 if len(ends) else rollout.reward.shape[1], left)
        left -= length
        if length == 0:
            break
        reward = np.asarray(rollout.reward[index, :length], dtype=float)
        terminated = np.asarray(rollout.terminated[index, :length])
        returns, discounts = returns_to_go(reward, info.gamma)
        observation = np.asarray(rollout.observation[index, :length])
        last = np.arange(length) == length - 1
        frames.append(pd.DataFrame({
            "seed": seed, "split": split, "trajectory": index, "t": np.arange(length),
            **{name: observation[:, i] for i, name in enumerate(info.observation)},
            "action": np.asarray(rollout.action[index, :length]), "reward": reward,
            "terminated": terminated, "truncated": last & ~terminated,
            "return": returns, "discount_sum": discounts,
        }))  # fmt: skip
    if limit is not None and left > 0:
        raise RuntimeError(f"{domain}: {left} of {limit} {split} steps were not collected")
    return pd.concat(frames, ignore_index=True)


def exact_values(mdp: DenseMDP, policy: Float[Array, "s a"]) -> pd.DataFrame:
    """The evaluation set of a dense MDP: every state with its exact value as the return."""
    values = np.asarray(policy_values(mdp, policy))
    states = np.arange(mdp.n_states)
    return pd.DataFrame({
        "split": "evaluation", "trajectory": states, "t": 0,
        "state": states.astype(float), "action": -1, "reward": np.nan,
        "terminated": False, "truncated": False,
        "return": values, "discount_sum": 1 / (1 - mdp.gamma),
    })  # fmt: skip


def collect_mdp(
    domain: str, seeds: Sequence[int], epsilon: float, trajectories: int, steps: int
) -> pd.DataFrame:
    """Training trajectories and exact evaluation values of a dense MDP, every seed."""
    mdp, policy = mdp_of(domain), behaviour(domain, epsilon)
    keys = [schedule.set_keys(seed)[0] for seed in seeds]
    environments = np.stack([np.asarray(jax.random.PRNGKey(key.environment)) for key in keys])
    rollouts = _over_seeds(
        lambda env, key: rollout_mdp(mdp, policy, env, key, trajectories, steps),
        environments, np.stack([key.policy for key in keys]),
    )  # fmt: skip
    exact, frames = exact_values(mdp, policy), []
    for seed, rollout in zip(seeds, rollouts, strict=True):
        frames += [table(domain, seed, "train", rollout), exact.assign(seed=seed)]
    return pd.concat(frames, ignore_index=True)


def collect_mountain_car(
    seeds: Sequence[int], epsilon: float, trajectories: int, steps: int, evaluation_steps: int
) -> pd.DataFrame:
    """Training trajectories and `evaluation_steps` further steps of mountain car, every seed."""
    shortest = 50  # no episode is shorter: the car needs about 90 steps to build momentum
    sets = (("train", trajectories, None),
            ("evaluation", -(-evaluation_steps // shortest), evaluation_steps))  # fmt: skip
    frames = []
    for index, (split, count, limit) in enumerate(sets):
        keys = [schedule.set_keys(seed)[index] for seed in seeds]
        rollouts = _over_seeds(
            lambda starts, policy: rollout_mountain_car(epsilon, starts, policy, steps),
            np.stack([start_positions(key.environment, count) for key in keys]),
            np.stack([key.policy for key in keys]),
        )
        frames += [
            table("mountain_car", seed, split, rollout, limit)
            for seed, rollout in zip(seeds, rollouts, strict=True)
        ]
    return pd.concat(frames, ignore_index=True)


def start_positions(environment: int, count: int) -> Float[np.ndarray, " count"]:
    """The published runs' start positions, drawn by numpy from the environment's seed."""
    params, draw = MountainCarParams(), np.random.default_rng(environment)
    return np.array([draw.uniform(params.start_low, params.start_high) for _ in range(count)])


def _over_seeds(rollout: Callable[..., Rollout], *arrays: np.ndarray) -> list[Rollout]:
    stacked = jax.jit(lambda arrays: jax.lax.map(lambda mine: rollout(*mine), arrays))(arrays)
    leaves = [np.asarray(leaf) for leaf in stacked]
    return [Rollout(*mine) for mine in zip(*leaves, strict=True)]


def run(job: Job) -> None:
    """Collects every seed's sets and writes them as one table."""
    s = dict(job.settings)
    domain, evaluation_steps = s.pop("domain"), s.pop("evaluation_steps")
    if domain == "mountain_car":
        frame = collect_mountain_car(**s, evaluation_steps=evaluation_steps)
    else:
        frame = collect_mdp(domain, **s)
    write_parquet(frame, job.outputs["dataset"])
