"""Trajectories: how they are rolled out for every seed, and the rows that they become."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
import pandas as pd
from jaxtyping import Array, Float, Int

from diffmbrl.implicit.domain import Domain


class Rollout(NamedTuple):
    """Steps of a set's trajectories, leading axes (trajectories, steps)."""

    observation: Float[Array, "n t d"]
    action: Int[Array, "n t"]
    reward: Float[Array, "n t"]
    terminated: Array


def over_seeds(rollout: Callable[..., Rollout], *arrays: np.ndarray) -> list[Rollout]:
    """A rollout for every seed; arrays have a leading axis of seeds."""
    stacked = jax.jit(lambda arrays: jax.lax.map(lambda mine: rollout(*mine), arrays))(arrays)
    leaves = [np.asarray(leaf) for leaf in stacked]
    return [Rollout(*mine) for mine in zip(*leaves, strict=True)]


def table(
    domain: Domain, seed: int, split: str, rollout: Rollout, limit: int | None = None
) -> pd.DataFrame:
    """A set's trajectories as rows, cut after the goal and after `limit` steps in all."""
    left, frames = limit or rollout.reward.size, []
    for index in range(len(rollout.reward)):
        ends = np.flatnonzero(rollout.terminated[index])
        length = min(ends[0] + 1 if len(ends) else rollout.reward.shape[1], left)
        left -= length
        if length == 0:
            break
        reward = np.asarray(rollout.reward[index, :length], dtype=float)
        terminated = np.asarray(rollout.terminated[index, :length])
        returns, discounts = returns_to_go(reward, domain.gamma)
        observation = np.asarray(rollout.observation[index, :length])
        last = np.arange(length) == length - 1
        columns = {
            "seed": seed,
            "split": split,
            "trajectory": index,
            "t": np.arange(length),
            **{name: observation[:, i] for i, name in enumerate(domain.observation)},
            "action": np.asarray(rollout.action[index, :length]),
            "reward": reward,
            "terminated": terminated,
            "truncated": last & ~terminated,
            "return": returns,
            "discount_sum": discounts,
        }
        frames.append(pd.DataFrame(columns))
    if limit is not None and left > 0:
        raise RuntimeError(f"{left} of {limit} {split} steps were not collected")
    return pd.concat(frames, ignore_index=True)


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
