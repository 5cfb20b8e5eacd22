"""The three domains of Gehring et al. 2021: what is collected, and the features of a state."""

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffmbrl.envs import chain, four_rooms, mountain_car
from diffmbrl.mdp.dense import DenseMDP, epsilon_greedy, greedy, optimal_q


class Domain(NamedTuple):
    """What collection and training know of a domain.

    Attributes:
        observation: names of the observation's columns in a dataset.
        gamma: discount factor.
        n_features: width of the feature vector.
        mdp: the dense MDP, None where the domain has none.
    """

    observation: tuple[str, ...]
    gamma: float
    n_features: int
    mdp: DenseMDP | None


DOMAINS: Mapping[str, Domain] = {
    "chain": Domain(("state",), chain.GAMMA, 11, chain.chain()),
    "four_rooms": Domain(("state",), four_rooms.GAMMA, 121, four_rooms.four_rooms()),
    "mountain_car": Domain(("position", "velocity"), mountain_car.GAMMA, 400, None),
}


def mdp_of(domain: str) -> DenseMDP:
    """The dense MDP of a domain that has one."""
    mdp = DOMAINS[domain].mdp
    if mdp is None:
        raise ValueError(f"{domain} has no dense MDP")
    return mdp


def behaviour(domain: str, epsilon: float) -> Float[Array, "s a"]:
    """The epsilon-greedy behaviour policy of a domain with a dense MDP.

    Chain: around always advancing. Four rooms: around the optimal actions (value iteration to
    1e-6), ties shared.
    """
    if domain == "chain":
        return epsilon_greedy(jnp.asarray(chain.policy()), epsilon)
    return epsilon_greedy(greedy(optimal_q(mdp_of(domain), 1e-6), 1e-5), epsilon)


def features(domain: str, observation: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n k"]:
    """Features of observations: one-hot states, or normalised radial basis functions.

    The terminal state of four rooms lies beyond the one-hot's width: its features are zero.
    """
    if domain == "mountain_car":
        return radial_basis(observation, mountain_car.LOW, mountain_car.HIGH)
    width = DOMAINS[domain].n_features
    return (observation == np.arange(width)).astype(float)


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
