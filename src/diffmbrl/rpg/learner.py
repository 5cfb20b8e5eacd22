"""The model-based learner: SAC's critics and temperature, a model, an actor of any estimator.

It sees transitions only; what produces them, a functional environment or one stepped on the
host, is the caller's matter.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from diffmbrl import keys
from diffmbrl.agents import replay, sac
from diffmbrl.errors import ConfigError
from diffmbrl.nets import spectral
from diffmbrl.rpg import estimators
from diffmbrl.rpg import model as models

PyTree = Any
ESTIMATORS = ("sac", *estimators.KINDS)
CLIP = 1.0


class Normalisation(NamedTuple):
    """Spectral normalisation of one run; leaves may be traced, so that runs can differ."""

    model: Bool[Array, ""]
    policy: Bool[Array, ""]
    target: Float[Array, ""]
    uniform: Bool[Array, ""]


class State(NamedTuple):
    """All that learning changes."""

    agent: sac.State
    model: models.Model
    model_optimiser: PyTree
    policy_vectors: tuple[spectral.Vectors, ...]
    model_vectors: tuple[spectral.Vectors, ...]
    normaliser: models.Normaliser
    buffer: replay.Buffer
    normalisation: Normalisation


class Stored(NamedTuple):
    """A transition in the buffer; `age` counts steps since its episode began."""

    transition: sac.Transition
    age: Int[Array, ""]


class Learner(eqx.Module):
    """Hyperparameters and the verbs `init`, `act`, `observe`, `update`.

    Attributes:
        agent: SAC's hyperparameters.
        estimator: of the policy gradient, one of `ESTIMATORS`; `sac` is h = 0, without a model.
        h: model steps of the estimator.
        model_steps: length of the segments that the model is trained on.
        terminates: whether the environment can end an episode by itself.
        capacity: of the replay buffer.
        batch: segments a batch.
        model_width: of the model's hidden layers.
        model_depth: number of the model's hidden layers.
        model_learning_rate: Adam's, of the model.
        sn_layers: `hidden` or `all`, see `nets.spectral.chosen`.
        sn_iterations: power iterations after each update, at most.
        recent: how many of the newest steps `rp_dr` takes its segments from. Its noises tell
            nothing of the present policy on actions that an older one took.
        model_noise: standard deviation of the noise that unrolls add to each normalised state.
    """

    agent: sac.SAC
    estimator: str = eqx.field(static=True)
    h: int = eqx.field(static=True)
    model_steps: int = eqx.field(static=True)
    terminates: bool = eqx.field(static=True)
    capacity: int = eqx.field(static=True)
    batch: int = eqx.field(static=True, default=64)
    model_width: int = eqx.field(static=True, default=64)
    model_depth: int = eqx.field(static=True, default=3)
    model_learning_rate: float = eqx.field(static=True, default=1e-3)
    sn_layers: str = eqx.field(static=True, default="hidden")
    sn_iterations: int = eqx.field(static=True, default=200)
    recent: int = eqx.field(static=True, default=200)
    model_noise: float = eqx.field(static=True, default=0.0)

    def __check_init__(self):
        if self.estimator not in ESTIMATORS:
            raise ConfigError(
                f"estimator = {self.estimator!r}: unknown; use one of {', '.join(ESTIMATORS)}"
            )
        estimators.check_horizon(self.h)
        if self.estimator == "sac" and self.h:
            raise ConfigError(f"horizon = {self.h}: SAC has no model to unroll; set 0")

    @property
    def segment_steps(self) -> int:
        """Steps of the segments that a batch holds."""
        if self.estimator == "sac":
            return 1
        return max(1, self.model_steps)

    def init(self, key: PRNGKeyArray, normalisation: Normalisation) -> State:
        """Fresh networks and an empty buffer.

        With `uniform`, hidden weights start from the usual fan-in uniform distribution, divided
        by their largest singular value and multiplied by the target, whether normalised or not;
        else orthogonal, with every singular value at the target. Either way a normalised and a
        plain run of one seed compute the same function at the start.
        """
        sac_ = self.agent
        agent = sac_.init(keys.fold(key, "agent"))
        model = models.init(
            keys.fold(key, "model"), sac_.obs_dim, sac_.action_dim, self.terminates,
            self.model_width, self.model_depth,
        )  # fmt: skip
        net = self._start_weights(agent.policy.net, "policy", key, normalisation)
        agent = agent._replace(policy=eqx.tree_at(lambda p: p.net, agent.policy, net))
        dynamics = self._start_weights(model.dynamics, "model", key, normalisation)
        model = eqx.tree_at(lambda m: m.dynamics, model, dynamics)
        zeros = jnp.zeros((), jnp.float32)
        obs, action = jnp.zeros(sac_.obs_dim, jnp.float32), jnp.zeros(sac_.action_dim, jnp.float32)
        blank = Stored(sac.Transition(obs, action, zeros, obs, zeros), jnp.zeros((), jnp.int32))
        return State(
            agent, model, self._optimiser.init(model),
            spectral.start(net, keys.fold(key, "policy vectors")),
            spectral.start(dynamics, keys.fold(key, "model vectors")),
            models.normaliser(sac_.obs_dim), replay.empty(blank, self.capacity), normalisation,
        )  # fmt: skip

    def policy(self, state: State, raw: sac.TanhGaussian | None = None) -> sac.TanhGaussian:
        """The policy in use: raw weights (the state's by default), normalised as the run says."""
        raw = state.agent.policy if raw is None else raw
        sn = state.normalisation
        layers = spectral.chosen(raw.net, "policy", self.sn_layers)
        net = spectral.normalise(raw.net, state.policy_vectors, layers, sn.target, sn.policy)
        return eqx.tree_at(lambda p: p.net, raw, net)

    def world(self, state: State, raw: models.Model | None = None) -> models.LearnedWorld:
        """The model in use, as a world to unroll."""
        raw = state.model if raw is None else raw
        sn = state.normalisation
        layers = spectral.chosen(raw.dynamics, "model", self.sn_layers)
        net = spectral.normalise(raw.dynamics, state.model_vectors, layers, sn.target, sn.model)
        scale = jnp.full(self.agent.obs_dim, self.model_noise, jnp.float32)
        return models.LearnedWorld(eqx.tree_at(lambda m: m.dynamics, raw, net), scale)

    def act(self, state: State, obs: Float[Array, " s"], noise: Float[Array, " a"]):
        """The action for an observation in the environment's units; noise 0 for the mean."""
        return self.policy(state).sample(state.normaliser.apply(obs), noise)[0]

    def observe(self, state: State, transition: sac.Transition, age: Int[Array, ""]) -> State:
        """Stores one transition (reward already scaled), `age` steps after its episode's start."""
        return state._replace(
            buffer=replay.add(state.buffer, Stored(transition, age)),
            normaliser=state.normaliser.add(transition.obs_next),
        )

    def segments(
        self, state: State, key: PRNGKeyArray, n: int, steps: int, recent: int | None = None
    ) -> models.Segments:
        """`n` stored segments of `steps` steps, normalised, drawn uniformly over first steps.

        With `recent`, over those among the newest so many.
        """
        starts = jnp.maximum(state.buffer.size - steps + 1, 1)
        oldest = 0 if recent is None else jnp.maximum(starts - recent, 0)
        first = jax.random.randint(key, (n,), oldest, starts)
        stored = replay.take(state.buffer, first[:, None] + jnp.arange(steps)[None, :])
        rows = stored.transition
        whole = stored.age[:, -1] - stored.age[:, 0] == steps - 1
        valid = whole & (state.buffer.size >= steps)
        states = jnp.concatenate([rows.obs, rows.obs_next[:, -1:]], axis=1)
        return models.Segments(
            state.normaliser.apply(states), rows.action, rows.reward, rows.terminated,
            valid.astype(jnp.float32),
        )  # fmt: skip

    def update(self, state: State, key: PRNGKeyArray) -> tuple[State, Mapping[str, Array]]:
        """One step of model, critics, actor and temperature on one batch of segments."""
        batch = self.segments(state, keys.fold(key, "batch"), self.batch, self.segment_steps)
        logs = {**self.no_logs(), "valid": jnp.mean(batch.valid)}
        if self.estimator != "sac":
            state, logs["model_loss"] = self._update_model(state, batch)
        first = sac.Transition(
            batch.states[:, 0], batch.actions[:, 0], batch.rewards[:, 0], batch.states[:, 1],
            batch.terminated[:, 0],
        )  # fmt: skip

        starts = batch
        if self.estimator == "rp_dr":
            drawn = keys.fold(key, "actor batch")
            starts = self.segments(state, drawn, self.batch, max(self.h, 1), self.recent)

        def surrogate(policy, agent):
            return self._surrogate(state, policy, agent, starts, keys.fold(key, "actor"))

        agent = self.agent.update(
            state.agent, first, keys.fold(key, "agent"),
            surrogate=None if self.estimator == "sac" else surrogate,
            used=lambda raw: self.policy(state, raw),
        )  # fmt: skip
        vectors = spectral.track(
            agent.policy.net, state.policy_vectors, self.sn_iterations, state.normalisation.policy
        )
        return state._replace(agent=agent, policy_vectors=vectors), logs

    def no_logs(self) -> dict[str, Array]:
        """What `update` logs, before the first update."""
        return {
            "valid": jnp.ones((), jnp.float32),
            "model_loss": jnp.full((), jnp.nan, jnp.float32),
        }

    def _surrogate(self, state, policy, agent, batch, key):
        estimator = estimators.Estimator(self.estimator, self.h, self.agent.gamma)
        world, alpha = self.world(state), jnp.exp(agent.log_alpha)

        def one(states, actions, key):
            segment = estimators.Segment(states, actions)
            return estimator.surrogate(policy, world, agent.critics, segment, key, alpha)

        each = jax.random.split(key, self.batch)
        weight = batch.valid if self.estimator == "rp_dr" else jnp.ones_like(batch.valid)
        total = jax.vmap(one)(batch.states, batch.actions, each)
        eps = jax.random.normal(keys.fold(key, "entropy"), batch.actions[:, 0].shape, jnp.float32)
        log_prob = jax.vmap(policy.sample)(batch.states[:, 0], eps)[1]
        return jnp.sum(total * weight) / jnp.maximum(jnp.sum(weight), 1), jnp.mean(log_prob)

    def _update_model(self, state: State, batch: models.Segments) -> tuple[State, Array]:
        value, grads = eqx.filter_value_and_grad(
            lambda raw: models.loss(self.world(state, raw).model, batch)
        )(state.model)
        updates, optimiser = self._optimiser.update(grads, state.model_optimiser)
        model = optax.apply_updates(state.model, updates)
        vectors = spectral.track(
            model.dynamics, state.model_vectors, self.sn_iterations, state.normalisation.model
        )
        return state._replace(
            model=model, model_optimiser=optimiser, model_vectors=vectors
        ), value  # fmt: skip

    @property
    def _optimiser(self) -> optax.GradientTransformation:
        return optax.chain(optax.clip_by_global_norm(CLIP), optax.adam(self.model_learning_rate))

    def _start_weights(self, net, part: str, key, normalisation: Normalisation):
        """Hidden weights with singular values at the target: all (orthogonal) or the largest."""
        layers = spectral.chosen(net, part, self.sn_layers)
        target = normalisation.target

        def start(i, layer, choose):
            if not choose:
                return layer
            draw = jax.random.uniform(
                jax.random.fold_in(keys.fold(key, part, "uniform"), i), layer.weight.shape,
                layer.weight.dtype, -1, 1,
            )  # fmt: skip
            weight = jnp.where(normalisation.uniform, draw / jnp.linalg.norm(draw, 2), layer.weight)
            return eqx.tree_at(lambda x: x.weight, layer, (target * weight).astype(weight.dtype))

        new = tuple(start(i, *pair) for i, pair in enumerate(zip(net.layers, layers, strict=True)))
        return eqx.tree_at(lambda n: n.layers, net, new)
