"""The agents of continuous control: SAC on what a model imagines, in the interface of CartPole's.

What CartPole's agents (`omd.agents`) call Q and its target are here SAC's critics, and all that
the critics' loss depends on beside them: target critics, policy, temperature, and the key of the
actions it draws. A step of Q is an update of SAC. The implicit gradient is CartPole's, of SAC's
critic loss.
"""

from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffmbrl.agents.replay import Transition
from diffmbrl.agents.sac import SAC, State, TanhGaussian, Twin
from diffmbrl.keys import fold
from diffmbrl.nets import mlp as nets
from diffmbrl.omd import agent as agents
from diffmbrl.omd.agent import ADAM

Params = Any


class Context(NamedTuple):
    """What the critics' loss depends on beside the critics."""

    policy: TanhGaussian
    targets: Twin
    log_alpha: Float[Array, ""]
    key: Array


@dataclass(frozen=True)
class Critics:
    """SAC's critics as a learner of Q."""

    sac: SAC

    def loss(self, w: Twin, context: Context, batch: Transition) -> tuple[Array, Array]:
        """SAC's critic loss, and the mean value of the actions taken."""
        state, key = self.state(w, context, ()), fold(context.key, "target")
        loss = self.sac.critic_loss(w, state, context.policy, batch, key)
        return loss, jnp.mean(jax.vmap(w)(batch.obs, batch.action))

    def state(self, w: Twin, context: Context, optimisers: Any) -> State:
        """SAC's own state."""
        return State(context.policy, w, context.targets, context.log_alpha, optimisers)


@dataclass(frozen=True)
class Model:
    """One network of two hidden layers: next observation and reward; float32.

    Attributes:
        n_obs: length of an observation.
        n_actions: length of an action.
        width: units in each hidden layer.
        frozen: CartPole's models can have frozen networks; this one has none.
    """

    n_obs: int
    n_actions: int
    width: int
    frozen: tuple[str, ...] = ()

    def init(self, key: jax.Array) -> Params:
        """A fresh network."""
        sizes = [self.n_obs + self.n_actions, self.width, self.width, self.n_obs + 1]
        return {"net": nets.mlp(key, sizes, dtype=jnp.float32)}

    def imagine(
        self, params: Params, batch: Transition, key: jax.Array
    ) -> tuple[Transition, Array]:
        """The batch with the model's next observation and reward, and its squared error."""
        found = jax.vmap(params["net"])(jnp.concatenate([batch.obs, batch.action], axis=1))
        obs_next, reward = found[:, :-1], found[:, -1]
        mse = jnp.mean(jnp.sum((obs_next - batch.obs_next) ** 2, axis=1))
        return batch._replace(obs_next=obs_next, reward=reward), mse

    def likelihood_loss(self, params: Params, batch: Transition) -> tuple[Array, Array]:
        """Squared error of next observation (summed) and reward, and that of the former alone."""
        imagined, mse = self.imagine(params, batch, jnp.zeros(2, jnp.uint32))
        return mse + jnp.mean((imagined.reward - batch.reward) ** 2), mse


class WithSAC:
    """What an agent does differently where SAC is its inner optimiser."""

    q: Critics
    model: Model

    def init(self, key: jax.Array) -> agents.State:
        """Fresh networks and optimisers."""
        start, model = self.q.sac.init(fold(key, "sac")), self.model.init(fold(key, "model"))
        context = Context(start.policy, start.targets, start.log_alpha, fold(key, "actions"))
        return agents.State(start.critics, context, start.optimisers, model, ADAM.init(model), ())

    def act(self, state: agents.State, obs: Array, noise: Array) -> Array:
        """The action that a standard normal noise gives; the mean where it is 0."""
        return state.q_target.policy.sample(obs, noise)[0]

    def update(self, state, batches, rates, key):
        """As CartPole's, every loss of one update with actions of its own."""
        state = state._replace(q_target=state.q_target._replace(key=key))
        return super().update(state, batches, rates, key)  # type: ignore[misc]

    def _q_step(self, q, target, q_opt, batch: Transition, rates):
        loss, value = self.q.loss(q, target, batch)
        new = self.q.sac.update(self.q.state(q, target, q_opt), batch, target.key)
        key = fold(target.key, "next")
        context = Context(new.policy, new.targets, new.log_alpha, key)
        return new.critics, context, new.optimisers, loss, value


def with_sac(agent: agents.Agent) -> agents.Agent:
    """An agent of CartPole's, made with `Critics` and `Model`, whose inner optimiser is SAC."""
    kind = type(agent)
    made = type(f"{kind.__name__}WithSAC", (WithSAC, kind), {})
    return made(**{field.name: getattr(agent, field.name) for field in fields(agent)})
