"""CartPole training of one agent: environment, replay, updates and evaluation, all compiled."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

from diffmbrl.agents import replay
from diffmbrl.agents.replay import Transition
from diffmbrl.envs.cartpole import N_ACTIONS, STEP_LIMIT, CartPole
from diffmbrl.keys import fold
from diffmbrl.omd.agent import Agent, Losses, Rates, State
from diffmbrl.sweep.engine import Program


@dataclass(frozen=True)
class Training:
    """The protocol of one run.

    Attributes:
        agent: what is trained.
        env: the environment.
        steps: environment steps in all, the random ones included.
        warmup: steps of uniformly random actions before the first update.
        segment: environment steps between two evaluations.
        batch: transitions per batch.
        epsilon: probability of a uniformly random action.
        episodes: evaluation episodes.
    """

    agent: Agent
    env: CartPole
    steps: int = 200_000
    warmup: int = 1_000
    segment: int = 1_000
    batch: int = 256
    epsilon: float = 0.1
    episodes: int = 10


class Carry(NamedTuple):
    """A run between two environment steps."""

    agent: State
    buffer: replay.Buffer
    physics: Array
    obs: Array
    action: Array
    clock: Array


class Draws(NamedTuple):
    """The random numbers of environment steps, a leading axis of steps."""

    explore: Array
    any_action: Array
    gumbel: Array
    initial: Array
    noise: Array
    noise_initial: Array
    drawn: Array
    key: Array


def program(training: Training, lanes: int, segments_per_call: int | None = None) -> Program:
    """Training as a sweep program over configs of `seed`, `inner_lr`, `tau` and `model_lr`.

    Metrics per segment are the evaluation's return, the losses' means, the share of dead units in
    each of the model's networks, and the error of the model as it was drawn; last, `model` holds
    the model's parameters, flattened.
    """
    if training.steps % training.segment or training.warmup > training.segment:
        raise ValueError("steps must be a multiple of segment, and warmup at most one segment")
    if training.warmup < training.batch:
        raise ValueError(f"warmup={training.warmup}: must be at least batch={training.batch}")
    return Program(
        init=lambda config, data: (jnp.zeros((), jnp.int32), _init(training, config)),
        advance=lambda config, data, state: _advance(training, config, state),
        segments=training.steps // training.segment,
        lanes=lanes,
        segments_per_call=segments_per_call,
        last=lambda config, data, state: {"model": ravel_pytree(state[1].agent.model)[0]},
    )


def _init(training: Training, config: dict[str, Array]) -> Carry:
    key = jax.random.key(config["seed"])
    env, agent = training.env, training.agent
    state = agent.init(fold(key, "agent"))
    draws = _draws(training, fold(key, "start"), jnp.ones(1, jnp.int32))
    physics, noise = draws.initial[0], draws.noise_initial[0]
    row = jax.ShapeDtypeStruct((2 * env.n_obs + 3,), agent.q.dtype)
    obs = env.with_noise(physics, noise).astype(agent.q.dtype)
    zero = jnp.zeros((), jnp.int32)
    return Carry(state, replay.empty(row, training.steps), physics, obs, zero, zero)


def _draws(training: Training, key: jax.Array, filled: Array) -> Draws:
    n = len(filled)
    env, dtype = training.env, training.agent.q.dtype
    noise = (n, env.distractors)
    batches = [
        replay.ordered_draws(jax.random.fold_in(fold(key, "batch"), i), filled, training.batch)
        for i in range(training.agent.batches)
    ]
    return Draws(
        jax.random.uniform(fold(key, "explore"), (n,)) < training.epsilon,
        jax.random.randint(fold(key, "action"), (n,), 0, N_ACTIONS, jnp.int32),
        jax.random.gumbel(fold(key, "policy"), (n, N_ACTIONS), dtype),
        jax.vmap(env.initial)(jax.random.split(fold(key, "reset"), n)),
        jax.random.normal(fold(key, "noise"), noise, jnp.float32),
        jax.random.normal(fold(key, "noise of reset"), noise, jnp.float32),
        jnp.stack(batches, axis=1),
        jax.random.split(fold(key, "rest"), n),
    )


def _advance(training: Training, config: dict[str, Array], state):
    """One segment: `segment` environment steps, an update after each, then an evaluation."""
    done, carry = state
    key = jax.random.fold_in(fold(jax.random.key(config["seed"]), "segment"), done)
    rates = Rates(*(config[name].astype(training.agent.q.dtype) for name in Rates._fields))
    at = done * training.segment + jnp.arange(training.segment, dtype=jnp.int32)
    filled = jnp.maximum(at + 1, training.batch)
    draws = _draws(training, fold(key, "steps"), filled)

    def step(carry: Carry, xs):
        at, filled, draw = xs
        carry = _interact(training, carry, draw, at)
        learning = at + 1 >= training.warmup
        agent, losses = jax.lax.cond(
            learning,
            lambda: _learn(training, carry, rates, filled, draw),
            lambda: (carry.agent, Losses.zeros(training.agent.q.dtype)),
        )
        return carry._replace(agent=agent), (learning, losses)

    carry, (learning, losses) = jax.lax.scan(step, carry, (at, filled, draws))
    count = jnp.maximum(jnp.sum(learning), 1)
    means = jax.tree.map(lambda x: jnp.sum(jnp.where(learning, x, 0)) / count, losses)
    metrics = {
        "eval_return": evaluate(training, carry.agent, fold(key, "evaluation")),
        **means._asdict(),
        **_of_the_model(training, config, carry),
    }
    return (done + 1, carry), metrics


def _of_the_model(training: Training, config: dict[str, Array], carry: Carry) -> dict[str, Array]:
    """Dead units, and the error of the model as it was drawn.

    On as many transitions as a batch has, spread evenly over the replay.
    """
    agent, n = training.agent, training.batch
    ages = jnp.arange(n) * carry.buffer.added // n
    batch = replay.unpack(replay.take(carry.buffer, ages), N_ACTIONS)
    drawn = agent.init(fold(jax.random.key(config["seed"]), "agent")).model
    _, random_mse = agent.model.imagine(drawn, batch, jax.random.key(0))
    dead = agent.model.dead(carry.agent.model, batch)
    return {"random_mse": random_mse} | {f"dead_{name}": share for name, share in dead.items()}


def _interact(training: Training, carry: Carry, draw: Draws, at: Array) -> Carry:
    """One environment step: act, store, start anew at an end, choose the next action.

    The policy's next action is chosen before the update, as in the released program.
    """
    env, dtype = training.env, training.agent.q.dtype
    explore = draw.explore | (at < training.warmup)
    action = jnp.where(explore, draw.any_action, carry.action)
    physics = env.transition(carry.physics, action)
    obs = env.with_noise(physics, draw.noise).astype(dtype)
    out_of_time = carry.clock + 1 >= STEP_LIMIT
    fallen = env.terminal(physics)
    terminated = (fallen & ~out_of_time).astype(dtype)
    row = replay.pack(Transition(carry.obs, action, jnp.ones((), dtype), obs, terminated))
    buffer = replay.add(carry.buffer, row)
    over = fallen | out_of_time
    physics = jnp.where(over, draw.initial, physics)
    fresh = env.with_noise(draw.initial, draw.noise_initial).astype(dtype)
    obs = jnp.where(over, fresh, obs)
    clock = jnp.where(over, 0, carry.clock + 1)
    action = training.agent.act(carry.agent, obs[:, None], draw.gumbel[:, None])[0]
    return Carry(carry.agent, buffer, physics, obs, action.astype(jnp.int32), clock)


def _learn(training: Training, carry: Carry, rates: Rates, n: Array, draw: Draws):
    agent = training.agent
    batches = []
    for i, drawn in enumerate(draw.drawn):
        ages = replay.distinct(drawn, jax.random.fold_in(draw.key, i), n)
        batches.append(replay.unpack(replay.take(carry.buffer, ages), N_ACTIONS))
    return agent.update(carry.agent, batches, rates, draw.key)


def evaluate(training: Training, agent: State, key: jax.Array) -> Array:
    """Mean return of `episodes` episodes under the softmax policy."""
    env, n = training.env, training.episodes
    dtype = training.agent.q.dtype
    physics = jax.vmap(env.initial)(jax.random.split(fold(key, "reset"), n))

    gumbels = jax.random.gumbel(fold(key, "policy"), (STEP_LIMIT, N_ACTIONS, n), dtype)

    def step(carry):
        t, physics, alive, total = carry
        here = jax.random.fold_in(fold(key, "noise"), t)
        noise = jax.random.normal(here, (n, env.distractors), jnp.float32)
        obs = jax.vmap(env.with_noise)(physics, noise).astype(dtype).T
        actions = training.agent.act(agent, obs, gumbels[t])
        physics = jax.vmap(env.transition)(physics, actions)
        total = total + alive
        return t + 1, physics, alive & ~jax.vmap(env.terminal)(physics), total

    start = (jnp.int32(0), physics, jnp.ones(n, bool), jnp.zeros(n, jnp.int32))
    end = jax.lax.while_loop(lambda c: (c[0] < STEP_LIMIT) & jnp.any(c[2]), step, start)
    return jnp.mean(end[3].astype(dtype))
