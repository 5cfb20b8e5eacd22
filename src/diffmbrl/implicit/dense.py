"""Domains that are finite MDPs: states are observed, values are known exactly."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array, Float

from diffmbrl.envs.dense import DenseFunctional
from diffmbrl.implicit import schedule
from diffmbrl.implicit.rollouts import Rollout, over_seeds, table
from diffmbrl.mdp.dense import DenseMDP, epsilon_greedy, policy_values


@dataclass(frozen=True, eq=False)
class DenseDomain:
    """A dense MDP as a domain (`diffmbrl.implicit.domain.Domain`).

    Attributes:
        mdp: the environment.
        policy: gives the policy that is explored around, probabilities of shape (s, a).
        n_features: how many states have a feature; a state beyond them has none.
        first_states_only: whether only the first states of trajectories are trained on.
    """

    observation: ClassVar[tuple[str, ...]] = ("state",)

    mdp: DenseMDP
    policy: Callable[[], Float[Array, "s a"]]
    n_features: int
    first_states_only: bool = False

    @property
    def gamma(self) -> float:
        """The MDP's discount factor."""
        return float(self.mdp.gamma)

    def features(self, observation: Float[np.ndarray, "n 1"]) -> Float[np.ndarray, "n k"]:
        """One-hot states."""
        return (observation == np.arange(self.n_features)).astype(float)

    def behaviour(self, epsilon: float) -> Float[Array, "s a"]:
        """The policy that collects data: epsilon-greedy around `policy`."""
        return epsilon_greedy(self.policy(), epsilon)

    def collect(
        self,
        seeds: Sequence[int],
        epsilon: float,
        trajectories: int,
        steps: int,
        evaluation_steps: int = 0,
    ) -> pd.DataFrame:
        """Training trajectories, and every state with its exact value, for every seed."""
        policy = self.behaviour(epsilon)
        keys = [schedule.set_keys(seed)[0] for seed in seeds]
        environments = np.stack([np.asarray(jax.random.PRNGKey(key.environment)) for key in keys])
        rollouts = over_seeds(
            lambda env, key: rollout_mdp(self.mdp, policy, env, key, trajectories, steps),
            environments,
            np.stack([key.policy for key in keys]),
        )
        exact, frames = exact_values(self.mdp, policy), []
        for seed, rollout in zip(seeds, rollouts, strict=True):
            frames += [table(self, seed, "train", rollout), exact.assign(seed=seed)]
        return pd.concat(frames, ignore_index=True)


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
        reward, ended = env.reward(state, action, None), jnp.asarray(False)
        now = Rollout(state[None].astype(float), action, reward, ended)
        return (env.transition(state, action, use), key, env_key), now

    def trajectory(carry, _):
        policy_key, env_key = carry
        key, policy_key = jax.random.split(policy_key)
        use, env_key = jax.random.split(env_key)
        start = (env.initial(use), key, env_key)
        (_, _, env_key), now = jax.lax.scan(step, start, None, length=steps)
        return (policy_key, env_key), now

    return jax.lax.scan(trajectory, (policy, environment), None, length=trajectories)[1]


def exact_values(mdp: DenseMDP, policy: Float[Array, "s a"]) -> pd.DataFrame:
    """The evaluation set of a dense MDP: every state with its exact value as the return."""
    values = np.asarray(policy_values(mdp, policy))
    states = np.arange(mdp.n_states)
    columns = {
        "split": "evaluation",
        "trajectory": states,
        "t": 0,
        "state": states.astype(float),
        "action": -1,
        "reward": np.nan,
        "terminated": False,
        "truncated": False,
        "return": values,
        "discount_sum": 1 / (1 - mdp.gamma),
    }
    return pd.DataFrame(columns)
