"""Training of one run in a functional environment, as pure functions for the sweep engine."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from diffmbrl import keys
from diffmbrl.agents import sac
from diffmbrl.envs import rollout
from diffmbrl.envs.functional import Environment
from diffmbrl.rpg import learner as learning
from diffmbrl.rpg import snapshots
from diffmbrl.rpg.arm import Arm
from diffmbrl.rpg.diagnostics import diagnose
from diffmbrl.rpg.learner import Learner
from diffmbrl.rpg.schedule import Schedule
from diffmbrl.sweep.engine import Program

PyTree = Any


class Loop(NamedTuple):
    """Learner and environment between two steps."""

    learner: learning.State
    state: Float[Array, " d"]
    age: Int[Array, ""]
    key: Array


class Training(NamedTuple):
    """What is trained, in what, for how long: all that the runs of one sweep share."""

    learner: Learner
    env: Environment
    schedule: Schedule

    def program(self, lanes: int = 1) -> Program:
        """Training as the sweep engine takes it; a segment lies between two snapshots.

        Configs hold `seed` (uint32) and the fields of `arm.Arm`. Metrics are those of `advance`.

        Args:
            lanes: runs that a CPU trains side by side.

        Raises:
            ConfigError: the schedule does not fit together.
        """
        self.schedule.check()
        return Program(
            lambda config, _: self.start(config),
            lambda config, _, loop: self.advance(loop),
            self.schedule.segments,
            lanes=lanes,
            segments_per_call=1,
        )

    def start(self, config: PyTree) -> Loop:
        """A fresh learner after the steps with uniform actions."""
        key = jax.random.PRNGKey(config["seed"])
        arm = Arm(**{name: config[name] for name in Arm._fields})
        loop = Loop(
            self.learner.init(keys.fold(key, "init"), arm),
            self.env.reset(keys.fold(key, "first")),
            jnp.zeros((), jnp.int32),
            keys.fold(key, "loop"),
        )

        def step(loop, _):
            shape = (self.env.action_dim,)
            draw = jax.random.uniform(keys.fold(loop.key, "random"), shape, jnp.float32, -1, 1)
            return self.interact(loop, draw), None

        return jax.lax.scan(step, loop, None, self.schedule.random_steps)[0]

    def advance(self, loop: Loop) -> tuple[Loop, dict[str, Array]]:
        """Training from one snapshot to the next.

        Returns:
            The loop after it, and metrics at its start and after each `evaluate_every` steps (so
            that the first entry is the last one of the segment before): `returns` (entry,
            episode), the logs of the last update and what `diagnose` finds; and, where the
            schedule has any, `snapshot` at its start and end.
        """
        schedule = self.schedule

        def block(carry, index):
            loop, logs = carry
            metrics = {
                "returns": self.evaluate(loop.learner, keys.fold(loop.key, "eval")),
                **logs,
                **diagnose(self.learner, loop.learner, loop.key),
            }
            every = schedule.evaluate_every // schedule.update_every
            rounds = jnp.where(index < schedule.evaluations, every, 0)
            return jax.lax.fori_loop(0, rounds, self._round, (loop, logs)), metrics

        before = loop
        entries = jnp.arange(schedule.evaluations + 1)
        (loop, _), metrics = jax.lax.scan(block, (loop, self.learner.no_logs()), entries)
        if schedule.snapshots:
            metrics["snapshot"] = jnp.stack([self._snapshot(before), self._snapshot(loop)])
        return loop, metrics

    def _round(self, _, carry):
        """`update_every` steps with the learner's own actions, then one update."""
        loop, _ = carry

        def step(loop, _):
            shape = (self.env.action_dim,)
            noise = jax.random.normal(keys.fold(loop.key, "act"), shape, jnp.float32)
            action = self.learner.act(loop.learner, self._obs(loop.state), noise)
            return self.interact(loop, action), None

        loop = jax.lax.scan(step, loop, None, self.schedule.update_every)[0]
        state, logs = self.learner.update(loop.learner, keys.fold(loop.key, "update"))
        return loop._replace(learner=state), logs

    def _snapshot(self, loop: Loop) -> Float[Array, " p"]:
        return snapshots.flatten(
            snapshots.take(self.learner, self.schedule, loop.learner, loop.key)
        )

    def interact(self, loop: Loop, action: Float[Array, " a"]) -> Loop:
        """One environment step, stored; a new episode where one ended or reached its time limit."""
        following, reward, terminated = self.env.step(loop.state, action)
        transition = sac.Transition(
            self._obs(loop.state),
            action,
            (self.env.reward_scale * reward).astype(jnp.float32),
            self._obs(following),
            terminated.astype(jnp.float32),
        )
        physics = loop.state if self.env.state_dim else ()
        stored = learning.Stored(transition, loop.age, physics)
        age = loop.age + 1
        over = (terminated > 0) | (age >= self.env.time_limit)
        return Loop(
            self.learner.observe(loop.learner, stored),
            jax.lax.cond(
                over,
                lambda: self.env.reset(keys.fold(loop.key, "reset")),
                lambda: following.astype(loop.state.dtype),
            ),
            jnp.where(over, 0, age),
            keys.fold(loop.key, "next"),
        )

    def evaluate(self, state: learning.State, key: PRNGKeyArray) -> Float[Array, " episodes"]:
        """Undiscounted returns of the mean action, in the environment's own reward."""
        policy = self.learner.policy(state)

        def act(obs, noise):
            return policy.sample(state.normaliser.apply(obs), noise)[0]

        return rollout.evaluate(self.env, act, key, self.schedule.episodes)

    def _obs(self, state: Float[Array, " d"]) -> Float[Array, " s"]:
        return self.env.observe(state).astype(jnp.float32)
