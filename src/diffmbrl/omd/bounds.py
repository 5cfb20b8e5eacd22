"""The two bounds of theorem 2 against each other and the truth, as a model's errors grow.

Lemma 1 says that the operator's error is at most eps_r + gamma eps_p r_max / (2 (1 - gamma)), by
which OMD's bound would be the tighter one. Its proof needs 0 <= Q <= r_max / (1 - gamma), and the
fixed point of a model whose rewards leave [0, r_max] does not obey it.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array

from diffmbrl.mdp.dense import DenseMDP, bellman, optimal_q
from diffmbrl.omd.tabular_agents import likelihood_bound, operator_bound

STATES, ACTIONS, GAMMA, R_MAX = 3, 2, 0.9, 1.0
TIGHT = 1e-13  # of value iteration


@jax.jit
def judged(mdp: DenseMDP, model: DenseMDP) -> dict[str, Array]:
    """Both bounds, the error of Q* that they bound, and how far Q leaves what lemma 1 asks for."""
    q = optimal_q(model, TIGHT)
    gap = jnp.max(jnp.abs(bellman(mdp, q) - bellman(model, q)))
    reward_gap = jnp.max(jnp.abs(mdp.r - model.r))
    dynamics_gap = jnp.max(jnp.sum(jnp.abs(mdp.P - model.P), axis=-1))
    most = R_MAX / (1 - mdp.gamma)
    v = q.max(axis=-1)
    return {
        "error": jnp.max(jnp.abs(optimal_q(mdp, TIGHT) - q)),
        "operator": operator_bound(gap, mdp.gamma),
        "likelihood": likelihood_bound(reward_gap, dynamics_gap, jnp.asarray(R_MAX), mdp.gamma),
        "corrected": operator_bound(corrected_gap(reward_gap, dynamics_gap, mdp.gamma), mdp.gamma),
        "outside": jnp.maximum(jnp.max(v) - most, jnp.max(-v)) / most,
    }


def corrected_gap(reward_gap: Array, dynamics_gap: Array, gamma: float | Array) -> Array:
    """Lemma 1 for a model's own fixed point: r_max becomes r_max + 2 eps_r.

    Its rewards, and with them its values times 1 - gamma, lie in [-eps_r, r_max + eps_r].
    """
    return reward_gap + gamma * dynamics_gap * (R_MAX + 2 * reward_gap) / (2 * (1 - gamma))


def random_pair(
    rng: np.random.Generator, reward_error: float, dynamics_error: float, clip: bool
) -> tuple[DenseMDP, DenseMDP]:
    """An MDP with rewards in [0, 1] and a model that is off by the given errors.

    Args:
        rng: source of both.
        reward_error: the largest |r - r_model|.
        dynamics_error: the largest |p - p_model| in 1-norm, at most 2.
        clip: keep the model's rewards in [0, 1], so that its error may be smaller.
    """
    P, other = (rng.dirichlet(np.ones(STATES), size=(ACTIONS, STATES)) for _ in range(2))
    r = rng.random((STATES, ACTIONS))
    for a, s in np.ndindex(ACTIONS, STATES):
        if np.abs(P[a, s] - other[a, s]).sum() < dynamics_error:
            # The error is larger than between these two: mass goes from one corner to another.
            P[a, s], other[a, s] = _far_apart(rng, dynamics_error)
        share = dynamics_error / np.abs(P[a, s] - other[a, s]).sum()
        other[a, s] = P[a, s] + share * (other[a, s] - P[a, s])
    u = rng.uniform(-1, 1, size=r.shape)
    model_r = r + reward_error * u / np.abs(u).max()
    if clip:
        model_r = model_r.clip(0, 1)
    true, model = (
        DenseMDP(jnp.asarray(p), jnp.asarray(x), GAMMA) for p, x in ((P, r), (other, model_r))
    )
    return true, model


def _far_apart(rng: np.random.Generator, distance: float) -> tuple[np.ndarray, np.ndarray]:
    """Two distributions at a 1-norm distance: what they share, and half of it on either's own."""
    shared = rng.dirichlet(np.ones(STATES)) * (1 - distance / 2)
    one, two = rng.permutation(STATES)[:2]
    return tuple(shared + distance / 2 * np.eye(STATES)[k] for k in (one, two))


def counterexample(reward_error: float) -> tuple[DenseMDP, DenseMDP]:
    """One action, r = (1, 0), state 0 -> 1 -> 1; the model stays in 0, with rewards (1 + e, -e).

    At e = 0, .1, .5, 1 its operator bound is 90, 109, 185, 280, its likelihood bound 90, 91, 95,
    100. That is `corrected_gap`: no model with these errors has a larger quotient.
    """
    true = DenseMDP(jnp.array([[[0.0, 1.0], [0.0, 1.0]]]), jnp.array([[1.0], [0.0]]), GAMMA)
    rewards = jnp.array([[1.0 + reward_error], [-reward_error]])
    return true, DenseMDP(jnp.eye(2)[None], rewards, GAMMA)


def ratios(
    reward_errors: Sequence[float], dynamics_errors: Sequence[float], count: int
) -> pd.DataFrame:
    """One row per pair of errors and model: random ones, clipped ones, and the counterexample."""

    def pairs() -> Iterator[tuple[dict[str, Any], tuple[DenseMDP, DenseMDP]]]:
        for reward_error in reward_errors:
            axes = {"reward_error": reward_error, "dynamics_error": 2.0, "instance": 0}
            yield {"kind": "adversarial", **axes}, counterexample(reward_error)
            for dynamics_error in dynamics_errors:
                for instance in range(count):
                    axes = {
                        "reward_error": reward_error,
                        "dynamics_error": dynamics_error,
                        "instance": instance,
                    }
                    for kind, clip in (("random", False), ("clipped", True)):
                        rng = np.random.default_rng(instance)
                        pair = random_pair(rng, reward_error, dynamics_error, clip)
                        yield {"kind": kind, **axes}, pair

    rows = [axes | {k: float(x) for k, x in judged(*pair).items()} for axes, pair in pairs()]
    return pd.DataFrame(rows)
