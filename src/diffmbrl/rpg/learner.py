"""The model-based learner: SAC's critics and temperature, a model, an actor of any estimator.

It sees transitions only; what produces them is the caller's matter.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from diffmbrl import keys
from diffmbrl.agents import replay, sac
from diffmbrl.errors import ConfigError
from diffmbrl.nets import spectral
from diffmbrl.rpg import arm as arms
from diffmbrl.rpg import model as models
from diffmbrl.rpg.arm import Arm
from diffmbrl.rpg.objective import Ends, Estimator, Objective, Segment, check_horizon

PyTree = Any
CLIP = 1.0


class State(NamedTuple):
    """All that learning changes."""

    agent: sac.State
    model: models.Model
    model_optimiser: PyTree
    policy_vectors: tuple[spectral.Vectors, ...]
    model_vectors: tuple[spectral.Vectors, ...]
    normaliser: models.Normaliser
    buffer: replay.Buffer
    arm: Arm


class Stored(NamedTuple):
    """A transition in the buffer.

    Attributes:
        transition: what the learner sees of it.
        age: steps since its episode began.
        physics: the environment's state before it, left out where that is the observation.
    """

    transition: sac.Transition
    age: Int[Array, ""]
    physics: PyTree = ()


class Learner(eqx.Module):
    """Hyperparameters and the verbs `init`, `act`, `observe`, `update`.

    Attributes:
        agent: SAC's hyperparameters.
        estimator: of the policy gradient, an entry of `rpg.estimators`.
        h: model steps of the estimator.
        model_steps: length of the segments that the model is trained on; 0: h, at least 1.
        terminates: whether the environment can end an episode by itself.
        capacity: of the replay buffer.
        batch: segments per batch.
        model_width: of the model's hidden layers.
        model_depth: number of the model's hidden layers.
        model_learning_rate: Adam's, of the model.
        head_depth: the same of its heads for reward and termination.
        sn_iterations: power iterations after each update, at most.
        recent: how many of the newest steps an estimator that infers noises takes its segments
            from. Such noises tell nothing of the present policy on actions of an older one.
        model_noise: standard deviation of the noise that unrolls add to each normalised state.
        state_dim: length of the environment's states; 0 where they are its observations.
    """

    agent: sac.SAC
    estimator: Estimator = eqx.field(static=True)
    h: int = eqx.field(static=True)
    model_steps: int = eqx.field(static=True)
    terminates: bool = eqx.field(static=True)
    capacity: int = eqx.field(static=True)
    batch: int = eqx.field(static=True, default=64)
    model_width: int = eqx.field(static=True, default=64)
    model_depth: int = eqx.field(static=True, default=3)
    model_learning_rate: float = eqx.field(static=True, default=1e-3)
    head_depth: int = eqx.field(static=True, default=2)
    sn_iterations: int = eqx.field(static=True, default=200)
    recent: int = eqx.field(static=True, default=200)
    model_noise: float = eqx.field(static=True, default=0.0)
    state_dim: int = eqx.field(static=True, default=0)

    def __check_init__(self):
        check_horizon(self.h)
        if not self.unrolls and self.h:
            raise ConfigError(f"horizon = {self.h}: SAC has no model to unroll; set 0")

    @property
    def unrolls(self) -> bool:
        """Whether it learns a model and unrolls it; SAC does not."""
        return self.estimator.surrogate is not None

    @property
    def segment_steps(self) -> int:
        """Steps of the segments that a batch holds."""
        return (self.model_steps or max(1, self.h)) if self.unrolls else 1

    def init(self, key: PRNGKeyArray, arm: Arm) -> State:
        """Fresh networks and an empty buffer.

        With `uniform`, hidden weights start from the usual fan-in uniform distribution, divided
        by their largest singular value and multiplied by the target, whether normalised or not;
        else orthogonal, with every singular value at the target. Either way a normalised and a
        plain run of one seed compute the same function at the start.
        """
        obs_dim, action_dim = self.agent.obs_dim, self.agent.action_dim
        agent = self.agent.init(keys.fold(key, "agent"))
        model = models.init(
            keys.fold(key, "model"),
            obs_dim,
            action_dim,
            self.terminates,
            self.model_width,
            self.model_depth,
            self.head_depth,
        )
        net = arms.start_weights(agent.policy.net, "policy", key, arm)
        agent = agent._replace(policy=eqx.tree_at(lambda p: p.net, agent.policy, net))
        dynamics = arms.start_weights(model.dynamics, "model", key, arm)
        model = eqx.tree_at(lambda m: m.dynamics, model, dynamics)
        zero, obs = jnp.zeros((), jnp.float32), jnp.zeros(obs_dim, jnp.float32)
        blank = sac.Transition(obs, jnp.zeros(action_dim, jnp.float32), zero, obs, zero)
        physics = jnp.zeros(self.state_dim) if self.state_dim else ()
        return State(
            agent,
            model,
            self._optimiser.init(model),
            spectral.start(net, keys.fold(key, "policy vectors")),
            spectral.start(dynamics, keys.fold(key, "model vectors")),
            models.normaliser(obs_dim),
            replay.empty(Stored(blank, jnp.zeros((), jnp.int32), physics), self.capacity),
            arm,
        )

    def policy(self, state: State, raw: sac.TanhGaussian | None = None) -> sac.TanhGaussian:
        """The policy in use: raw weights (the state's by default), normalised as the run says."""
        raw = state.agent.policy if raw is None else raw
        arm = state.arm
        on = [arm.policy & chosen for chosen in arms.layers(raw.net, "policy", arm)]
        net = spectral.normalise(raw.net, state.policy_vectors, on, arm.target)
        return eqx.tree_at(lambda p: p.net, raw, net)

    def world(self, state: State, raw: models.Model | None = None) -> models.LearnedWorld:
        """The model in use, as a world to unroll."""
        raw = state.model if raw is None else raw
        arm = state.arm
        on = [arm.model & chosen for chosen in arms.layers(raw.dynamics, "model", arm)]
        net = spectral.normalise(raw.dynamics, state.model_vectors, on, arm.target)
        scale = jnp.full(self.agent.obs_dim, self.model_noise, jnp.float32)
        return models.LearnedWorld(eqx.tree_at(lambda m: m.dynamics, raw, net), scale)

    def act(self, state: State, obs: Float[Array, " s"], noise: Float[Array, " a"]):
        """The action for an observation in the environment's units; noise 0 for the mean."""
        return self.policy(state).sample(state.normaliser.apply(obs), noise)[0]

    def observe(self, state: State, stored: Stored) -> State:
        """Stores one transition, its reward already scaled."""
        return state._replace(
            buffer=replay.add(state.buffer, stored),
            normaliser=state.normaliser.add(stored.transition.obs_next),
        )

    def segments(
        self, state: State, key: PRNGKeyArray, n: int, steps: int, recent: int | None = None
    ) -> models.Segments:
        """`n` stored segments of `steps` steps, normalised, drawn uniformly over first steps.

        With `recent`, over those among the newest so many. What follows an episode's end is in
        them too, and marked: `within` is 0 there.
        """
        starts = jnp.maximum(state.buffer.size - steps + 1, 1)
        oldest = 0 if recent is None else jnp.maximum(starts - recent, 0)
        first = jax.random.randint(key, (n,), oldest, starts)
        offsets = jnp.arange(steps)
        stored = replay.take(state.buffer, first[:, None] + offsets[None, :])
        rows = stored.transition
        within = stored.age - stored.age[:, :1] == offsets
        within &= first[:, None] + offsets[None, :] < state.buffer.size
        # The next observation of each row: at an episode's end the next row's is a reset.
        states = jnp.concatenate([rows.obs[:, :1], rows.obs_next], axis=1)
        return models.Segments(
            state.normaliser.apply(states),
            rows.action,
            rows.reward,
            rows.terminated,
            within.astype(jnp.float32),
            stored.physics,
        )

    def balanced(self, state: State, key: PRNGKeyArray) -> tuple[Array, Array, Array, Array]:
        """Single steps that the termination head learns from, half of them terminal where any is.

        Returns:
            Normalised states, actions, whether a step terminated, and weights (0 for steps of a
            kind that is not stored yet); leading axis the batch, or one less where it is odd.
        """
        ages = jnp.arange(self.capacity)
        flags = replay.Buffer(state.buffer.data.transition.terminated, state.buffer.added)
        ended, held = replay.take(flags, ages) > 0, ages < state.buffer.size

        def draw(name, among):
            upto = jnp.cumsum(among)
            shape = (self.batch // 2,)
            nth = jax.random.randint(keys.fold(key, name), shape, 0, jnp.maximum(upto[-1], 1))
            weight = jnp.full(shape, upto[-1] > 0, jnp.float32)
            return jnp.searchsorted(upto, nth + 1), weight

        parts = draw("ended", ended & held), draw("going", ~ended & held)
        rows, weight = (jnp.concatenate(part) for part in zip(*parts, strict=True))
        drawn = replay.take(state.buffer, rows).transition
        return state.normaliser.apply(drawn.obs), drawn.action, drawn.terminated, weight

    def update(self, state: State, key: PRNGKeyArray) -> tuple[State, Mapping[str, Array]]:
        """One step of model, critics, actor and temperature on one batch of segments."""
        batch = self.segments(state, keys.fold(key, "batch"), self.batch, self.segment_steps)
        logs = {**self.no_logs(), "within": jnp.mean(batch.within)}
        if self.unrolls:
            state, logs["model_loss"] = self._update_model(state, batch, keys.fold(key, "ends"))
        starts = batch
        if self.estimator.infers:
            drawn = keys.fold(key, "actor batch")
            starts = self.segments(state, drawn, self.batch, max(self.h, 1), self.recent)

        def surrogate(policy, agent):
            return self._surrogate(state, policy, agent, starts, keys.fold(key, "actor"))

        mine = replace(self.agent, actor_learning_rate=state.arm.rate, clip=state.arm.clip)
        agent = mine.update(
            state.agent,
            _first_steps(batch),
            keys.fold(key, "agent"),
            surrogate=surrogate if self.unrolls else None,
            used=lambda raw: self.policy(state, raw),
        )
        vectors = spectral.track(
            agent.policy.net, state.policy_vectors, self.sn_iterations, state.arm.policy
        )
        return state._replace(agent=agent, policy_vectors=vectors), logs

    def no_logs(self) -> dict[str, Array]:
        """What `update` logs, before the first update."""
        return {
            "within": jnp.ones((), jnp.float32),
            "model_loss": jnp.full((), jnp.nan, jnp.float32),
        }

    def _surrogate(self, state, policy, agent, batch, key):
        """The estimator's mean over segments, and the mean log-probability of an action."""
        sample, alpha = self.estimator.surrogate, jnp.exp(agent.log_alpha)
        assert sample is not None
        objective = Objective(policy, self.world(state), agent.critics, self.agent.gamma, alpha)

        def one(segment, key):
            return sample(objective, self.h, segment, key)

        total = jax.vmap(one)(for_estimator(batch), jax.random.split(key, self.batch))
        eps = jax.random.normal(keys.fold(key, "entropy"), batch.actions[:, 0].shape, jnp.float32)
        log_prob = jax.vmap(policy.sample)(batch.states[:, 0], eps)[1]
        return jnp.mean(total), jnp.mean(log_prob)

    def _update_model(self, state: State, batch: models.Segments, key) -> tuple[State, Array]:
        """One step of dynamics and rewards on segments, of the termination head on single steps."""

        def loss(raw):
            world, apart = self.world(state, raw), jnp.zeros((), jnp.float32)
            if raw.ends is not None:
                apart = models.ends_loss(raw.ends, *self.balanced(state, key))
            value = models.loss(world.model, batch)
            return value + apart, value

        grads, value = eqx.filter_grad(loss, has_aux=True)(state.model)
        updates, optimiser = self._optimiser.update(grads, state.model_optimiser)
        model = optax.apply_updates(state.model, updates)
        vectors = spectral.track(
            model.dynamics, state.model_vectors, self.sn_iterations, state.arm.model
        )
        state = state._replace(model=model, model_optimiser=optimiser, model_vectors=vectors)
        return state, value

    @property
    def _optimiser(self) -> optax.GradientTransformation:
        return optax.chain(optax.clip_by_global_norm(CLIP), optax.adam(self.model_learning_rate))


def for_estimator(segments: models.Segments) -> Segment:
    """Stored segments as estimators take them."""
    ends = Ends(segments.terminated, segments.within)
    return Segment(segments.states, segments.actions, ends)


def _first_steps(segments: models.Segments) -> sac.Transition:
    """The first step of each segment, which the critics learn from."""
    return sac.Transition(
        segments.states[:, 0],
        segments.actions[:, 0],
        segments.rewards[:, 0],
        segments.states[:, 1],
        segments.terminated[:, 0],
    )
