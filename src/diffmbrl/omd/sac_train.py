"""Training of one agent in continuous control: environment, replay, updates and evaluation."""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffmbrl.agents import replay
from diffmbrl.agents.replay import Transition
from diffmbrl.envs import rollout
from diffmbrl.envs.functional import Environment
from diffmbrl.keys import fold
from diffmbrl.omd.agent import Losses, Rates, State
from diffmbrl.sweep.engine import Program

PyTree = Any


@dataclass(frozen=True)
class Training:
    """The protocol of one run.

    Attributes:
        agent: what is trained, made by `omd.sac_agent.with_sac`.
        env: the environment, its distractors included.
        steps: environment steps in all, the random ones included.
        warmup: steps of uniformly random actions before the first update.
        segment: environment steps between two evaluations.
        batch: transitions per batch.
        episodes: evaluation episodes.
    """

    agent: Any
    env: Environment
    steps: int
    warmup: int
    segment: int
    batch: int
    episodes: int

    @property
    def row(self) -> PyTree:
        """Shapes of a stored transition, float32."""
        n, m = self.env.observation_dim, self.env.action_dim
        shapes = ((n,), (m,), (), (n,), ())
        parts: list[Any] = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
        return Transition(*parts)


class Carry(NamedTuple):
    """A run between two environment steps; `age` counts those of its episode."""

    agent: State
    buffer: replay.Buffer
    state: Float[Array, " d"]
    age: Int[Array, ""]
    step: Int[Array, ""]
    key: Array


def program(training: Training, gpu_lanes: int = 1) -> Program:
    """Training as a sweep program over configs of `seed` and `model_lr`.

    Metrics per segment are the evaluation's return, in the environment's own reward, and the
    losses' means over the segment's updates.
    """
    return Program(
        init=lambda config, data: _init(training, config),
        advance=lambda config, data, carry: _advance(training, config, carry),
        segments=training.steps // training.segment,
        gpu_lanes=gpu_lanes,
        segments_per_call=1,
    )


def _init(training: Training, config: dict[str, Array]) -> Carry:
    key, zero = jax.random.PRNGKey(config["seed"]), jnp.zeros((), jnp.int32)
    return Carry(
        training.agent.init(fold(key, "agent")),
        replay.empty(training.row, training.steps),
        training.env.reset(fold(key, "first")),
        zero,
        zero,
        fold(key, "loop"),
    )


def _advance(training: Training, config: dict[str, Array], carry: Carry):
    """One segment: `segment` environment steps, an update after each, then an evaluation."""
    rate = config["model_lr"].astype(jnp.float32)
    rates = Rates(rate, rate, rate)  # SAC has its own, which are static

    def step(carry: Carry, _):
        carry = _interact(training, carry)
        learning = carry.step >= training.warmup
        agent, losses = jax.lax.cond(
            learning,
            lambda: _learn(training, carry, rates),
            lambda: (carry.agent, Losses.zeros(jnp.float32)),
        )
        return carry._replace(agent=agent, key=fold(carry.key, "next")), (learning, losses)

    carry, (learning, losses) = jax.lax.scan(step, carry, None, training.segment)
    count = jnp.maximum(jnp.sum(learning), 1)
    means = jax.tree.map(lambda x: jnp.sum(jnp.where(learning, x, 0)) / count, losses)
    act = partial(training.agent.act, carry.agent)
    returns = rollout.evaluate(training.env, act, fold(carry.key, "eval"), training.episodes)
    return carry, {"eval_return": jnp.mean(returns), **means._asdict()}


def _interact(training: Training, carry: Carry) -> Carry:
    """One environment step, stored; a new episode where one ended or reached its time limit."""
    env, key = training.env, carry.key
    shape, obs = (env.action_dim,), env.observe(carry.state).astype(jnp.float32)
    uniform = jax.random.uniform(fold(key, "random"), shape, jnp.float32, -1, 1)
    noise = jax.random.normal(fold(key, "act"), shape, jnp.float32)
    own = training.agent.act(carry.agent, obs, noise)
    action = jnp.where(carry.step < training.warmup, uniform, own)
    state, reward, ended = env.step(carry.state, action)
    values = (obs, action, env.reward_scale * reward, env.observe(state), ended)
    row = Transition(*(value.astype(jnp.float32) for value in values))
    over = (ended > 0) | (carry.age + 1 >= env.time_limit)
    return carry._replace(
        buffer=replay.add(carry.buffer, row),
        state=jax.lax.cond(over, lambda: env.reset(fold(key, "reset")), lambda: state),
        age=jnp.where(over, 0, carry.age + 1),
        step=carry.step + 1,
    )


def _learn(training: Training, carry: Carry, rates: Rates) -> tuple[State, Losses]:
    shape = (training.agent.batches, training.batch)
    ages = jax.random.randint(fold(carry.key, "batch"), shape, 0, carry.buffer.size)
    batches = [replay.take(carry.buffer, each) for each in ages]
    agent, losses = training.agent.update(carry.agent, batches, rates, fold(carry.key, "update"))
    return agent, Losses(*(jnp.asarray(loss, jnp.float32) for loss in losses))
