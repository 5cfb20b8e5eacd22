"""Stage: offline data of one domain, every seed, by epsilon-greedy rollouts."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array, Float, Int
from tqdm import tqdm

from diffmbrl.envs.dense import DenseFunctional
from diffmbrl.envs.mountain_car import MountainCarFunctional, MountainCarParams, energy_pumping
from diffmbrl.implicit import schedule
from diffmbrl.implicit.dataset import write_parquet
from diffmbrl.implicit.domains import DOMAINS, behaviour
from diffmbrl.mdp.dense import epsilon_greedy, policy_values
from diffmbrl.pipeline.stage import Job


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


def exact_values(domain: str, seed: int, epsilon: float) -> pd.DataFrame:
    """The evaluation set of a dense MDP: every state with its exact value as the return."""
    mdp = DOMAINS[domain].mdp
    values = np.asarray(policy_values(mdp, behaviour(domain, epsilon)))
    states = np.arange(mdp.n_states)
    return pd.DataFrame({
        "seed": seed, "split": "evaluation", "trajectory": states, "t": 0,
        "state": states.astype(float), "action": -1, "reward": np.nan,
        "terminated": False, "truncated": False,
        "return": values, "discount_sum": 1 / (1 - mdp.gamma),
    })  # fmt: skip


def collect(
    domain: str, seed: int, epsilon: float, trajectories: int, steps: int, evaluation_steps: int
) -> pd.DataFrame:
    """Training and evaluation set of one seed.

    Args:
        domain: a key of DOMAINS.
        seed: of the run.
        epsilon: exploration of the behaviour policy.
        trajectories: how many the training set has.
        steps: the most steps a trajectory has.
        evaluation_steps: how many steps the evaluation set has, where exact values are unknown.
    """
    training, evaluation = schedule.set_keys(seed)
    if domain != "mountain_car":
        rollout = jax.jit(lambda: rollout_mdp(domain, epsilon, training, trajectories, steps))()
        return pd.concat([
            table(domain, seed, "train", rollout), exact_values(domain, seed, epsilon)
        ])  # fmt: skip
    shortest = 50  # no episode is shorter: the car needs about 90 steps to build momentum
    more = -(-evaluation_steps // shortest)
    return pd.concat([
        table(domain, seed, "train", rollout_mountain_car(epsilon, training, trajectories, steps)),
        table(domain, seed, "evaluation",
              rollout_mountain_car(epsilon, evaluation, more, steps), evaluation_steps),
    ])  # fmt: skip


def run(job: Job) -> None:
    """Collects every seed's sets and writes them as one table."""
    settings = dict(job.settings)
    seeds, domain = settings.pop("seeds"), settings.pop("domain")
    frames = [collect(domain, seed, **settings) for seed in tqdm(seeds, desc=domain, unit="seed")]
    write_parquet(pd.concat(frames, ignore_index=True), job.outputs["dataset"])
