"""What is logged of model and policy at each evaluation."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from diffmbrl import keys
from diffmbrl.nets import spectral
from diffmbrl.rpg import arm as arms
from diffmbrl.rpg import learner as learning
from diffmbrl.rpg.learner import Learner

STATES = 64  # stored states at which local Lipschitz constants are measured


def diagnose(learner: Learner, state: learning.State, key: PRNGKeyArray) -> dict[str, Array]:
    """Lipschitz constants of model and policy, and how well normalisation holds.

    Bounds are products of the layers' largest singular values, 1 added for the model's residual;
    local ones the largest and the mean spectral norm of the Jacobian by the state at stored
    states; `sn_error` is the largest |sigma / target - 1| of a normalised layer; `longest` is
    the number of steps of the longest stored segment of one episode.
    """
    policy, world = learner.policy(state), learner.world(state)
    nets = {"model": world.model.dynamics, "policy": policy.net}
    used = {part: spectral.exact(net) for part, net in nets.items()}
    local = _local(learner, state, keys.fold(key, "diagnose"))
    return {
        "sn_error": _sn_error(state, nets, used),
        "bound_model": 1 + jnp.prod(used["model"]),
        "bound_policy": jnp.prod(used["policy"]),
        **{f"local_{part}": jnp.mean(value) for part, value in local.items()},
        **{f"local_max_{part}": jnp.max(value) for part, value in local.items()},
        "alpha": jnp.exp(state.agent.log_alpha),
        "longest": jnp.max(state.buffer.data.age) + 1,
    }


def _local(learner: Learner, state: learning.State, key: PRNGKeyArray) -> dict[str, Array]:
    """Spectral norms of the Jacobians by the state, one per stored state."""
    policy, world = learner.policy(state), learner.world(state)
    batch = learner.segments(state, key, STATES, 1)
    s, a = batch.states[:, 0], batch.actions[:, 0]
    still = jnp.zeros(learner.agent.action_dim, jnp.float32)
    quiet = jnp.zeros(learner.agent.obs_dim, jnp.float32)
    by_model = jax.vmap(jax.jacfwd(lambda s, a: world.step(s, a, quiet)))(s, a)
    by_policy = jax.vmap(jax.jacfwd(lambda s: policy.sample(s, still)[0]))(s)
    return {
        "model": jnp.linalg.norm(by_model, 2, axis=(1, 2)),
        "policy": jnp.linalg.norm(by_policy, 2, axis=(1, 2)),
    }


def _sn_error(state: learning.State, nets, used) -> Array:
    """The largest |sigma / target - 1| of the layers that the run normalises; 0 without any."""
    arm = state.arm

    def error(part, on):
        chosen = jnp.stack(arms.layers(nets[part], part, arm))
        return jnp.where(on, jnp.max(jnp.abs(used[part] / arm.target - 1) * chosen), 0.0)

    return jnp.maximum(error("model", arm.model), error("policy", arm.policy))
