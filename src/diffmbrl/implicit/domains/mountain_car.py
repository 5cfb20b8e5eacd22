"""Mountain car, with normalised radial basis functions; its values are those that were observed."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array, Float

from diffmbrl.envs import mountain_car as car
from diffmbrl.implicit import schedule
from diffmbrl.implicit.rollouts import Rollout, over_seeds, table
from diffmbrl.mdp.dense import epsilon_greedy

LABEL = "Mountain car"
ORDER = 2
GAMMA = 0.99
LIMITS = (0.0, 700.0)  # of the final residual norm, figure A1

SHORTEST = 50  # steps; no episode is shorter: the car needs about 90 to build momentum


class MountainCar:
    """Mountain car as a domain (`diffmbrl.implicit.domain.Domain`)."""

    observation = ("position", "velocity")
    gamma = car.GAMMA
    n_features = 400
    first_states_only = False

    def features(self, observation: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 400"]:
        """Normalised radial basis functions."""
        return radial_basis(observation, car.LOW, car.HIGH)

    def collect(
        self,
        seeds: Sequence[int],
        epsilon: float,
        trajectories: int,
        steps: int,
        evaluation_steps: int,
    ) -> pd.DataFrame:
        """Training trajectories and `evaluation_steps` further steps, for every seed."""
        counts = {"train": trajectories, "evaluation": -(-evaluation_steps // SHORTEST)}
        limits = {"train": None, "evaluation": evaluation_steps}
        frames = []
        for index, (split, count) in enumerate(counts.items()):
            keys = [schedule.set_keys(seed)[index] for seed in seeds]
            rollouts = over_seeds(
                lambda starts, policy: rollout(epsilon, starts, policy, steps),
                np.stack([start_positions(key.environment, count) for key in keys]),
                np.stack([key.policy for key in keys]),
            )
            frames += [
                table(self, seed, split, one, limits[split])
                for seed, one in zip(seeds, rollouts, strict=True)
            ]
        return pd.concat(frames, ignore_index=True)


DOMAIN = MountainCar()


def rollout(epsilon: float, starts: Float[Array, " n"], policy: Array, steps: int) -> Rollout:
    """Trajectories of `steps` steps of mountain car; steps after the goal are padding.

    Args:
        epsilon: exploration of the behaviour policy.
        starts: start position of each trajectory.
        policy: the policy's raw key.
        steps: of each.
    """
    env = car.MountainCarFunctional()

    def step(carry, _):
        state, key = carry
        key, use = jax.random.split(key)
        observation = env.observation(state)
        action = schedule.sample_action(
            use, epsilon_greedy(car.energy_pumping(observation), epsilon)
        )
        after = env.transition(state, action)
        reward = env.reward(state, action, after)
        return (after, key), Rollout(observation, action, reward, env.terminal(after))

    def trajectory(policy_key, start):
        key, policy_key = jax.random.split(policy_key)
        state = jnp.stack([start, jnp.zeros_like(start)])
        return policy_key, jax.lax.scan(step, (state, key), None, length=steps)[1]

    return jax.lax.scan(trajectory, policy, starts)[1]


def start_positions(environment: int, count: int) -> Float[np.ndarray, " count"]:
    """The published runs' start positions, drawn by numpy from the environment's seed."""
    params, draw = car.MountainCarParams(), np.random.default_rng(environment)
    return np.array([draw.uniform(params.start_low, params.start_high) for _ in range(count)])


def radial_basis(
    observation: Float[np.ndarray, "n d"],
    low: Float[np.ndarray, " d"],
    high: Float[np.ndarray, " d"],
    per_axis: int = 20,
    scale: float = 0.1,
) -> Float[np.ndarray, "n k"]:
    """Softmax over a grid of centres of minus the squared distance, in units of scale x span.

    The bounds are float32 and so are the spans; centres are spaced between them in float64.
    """
    axes = [np.linspace(float(a), float(b), per_axis) for a, b in zip(low, high, strict=True)]
    centres = np.stack([axis.ravel() for axis in np.meshgrid(*axes)], axis=-1)
    width = (scale * (high - low)).astype(np.float32)
    distance = (observation.astype(float)[:, None, :] - centres) / width
    logits = -(distance**2).sum(axis=-1)
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)
