"""Stage: the Hessian of OMD's inner loss in CartPole, and what inverting it gives (appendix E).

After some steps of training with the identity, at one batch: the Hessian's eigenvalues; what
conjugate gradients leave of the system after a number of iterations; and how much a small model
step along each answer lowers the true loss once Q has followed it for K steps.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax.flatten_util import ravel_pytree

from diffmbrl.agents import replay
from diffmbrl.envs.cartpole import N_ACTIONS
from diffmbrl.omd import cartpole
from diffmbrl.omd.settings import Setting
from diffmbrl.omd.train import Carry, Training, program
from diffmbrl.pipeline.stage import Job
from diffmbrl.tables import write_parquet

NEAR_ZERO = 1e-5  # also the damping of the released program
FOLLOWED = (1, 100)  # K, steps of Q after a model step
USES = {"=omd": "omd.agents"}

MODEL_STEP = 1e-3  # of a model step, relative to the parameters' norm


def trained(training: Training, config: Mapping[str, Any]) -> Carry:
    """A run after all its segments."""
    sweep = program(training, lanes=1)
    state = sweep.init(config, None)
    advance = jax.jit(lambda state: sweep.advance(config, None, state)[0])
    for _ in range(sweep.segments):
        state = advance(state)
    return state[1]


def conjugate_gradients(H: np.ndarray, b: np.ndarray, iterations: int) -> np.ndarray:
    """Plain conjugate gradients from zero, as if H were positive definite."""
    x, r = np.zeros_like(b), b.copy()
    p, rr = r.copy(), r @ r
    for _ in range(iterations):
        Hp = H @ p
        step = rr / (p @ Hp)
        x, r = x + step * p, r - step * Hp
        rr, old = r @ r, rr
        p = r + rr / old * p
    return x


def answers(H: np.ndarray, v: np.ndarray, iterations: list[int]) -> tuple[np.ndarray, dict]:
    """The eigenvalues of H, and solutions of H z = v by name: the identity's is v itself.

    `min norm` is the pseudo-inverse's, eigenvalues within `NEAR_ZERO` of zero counted as zero.
    """
    values, vectors = np.linalg.eigh(H)
    inverse = np.where(np.abs(values) > NEAR_ZERO, 1 / values, 0)
    found = {"identity": v, "min norm": vectors @ (inverse * (vectors.T @ v))}
    damped = H + NEAR_ZERO * np.eye(len(v))
    found |= {f"cg {n}": conjugate_gradients(damped, v, n) for n in iterations}
    return values, found


class Point:
    """Where a run stands: losses and gradients as functions of flat parameters, at one batch."""

    def __init__(self, training: Training, carry: Carry, config: Mapping[str, Any]):
        self.q, self._q_of = ravel_pytree(carry.agent.q)
        self.model, self._model_of = ravel_pytree(carry.agent.model)
        agent, target = training.agent, carry.agent.q_target
        ages = jnp.arange(training.batch) * carry.buffer.added // training.batch
        batch = replay.unpack(replay.take(carry.buffer, ages), N_ACTIONS)

        def inner(w, theta):
            imagined, _ = agent.model.imagine(self._model_of(theta), batch, jax.random.key(0))
            return agent.q.loss(self._q_of(w), target, imagined)[0]

        def true(w):
            return agent.q.loss(self._q_of(w), target, batch)[0]

        self.true: Callable = jax.jit(true)
        self.outer: Callable = jax.jit(jax.grad(true))
        self.hessian: Callable = jax.jit(jax.hessian(inner))

        def through(weights):
            """The model's gradient for an answer of the linear system (eq. 7)."""
            along = jax.grad(lambda w, theta: jnp.vdot(jax.grad(inner)(w, theta), weights), 1)
            return -along(self.q, self.model)

        def followed(theta, steps):
            """The true loss after Q has followed a model, by gradient steps at its rate."""
            rate = config["inner_lr"]
            return true(
                jax.lax.fori_loop(
                    0, steps, lambda _, w: w - rate * jax.grad(inner)(w, theta), self.q
                )
            )

        self.through: Callable = jax.jit(through)
        self.followed: Callable = jax.jit(followed, static_argnums=1)

    def gains(self, weights: np.ndarray) -> dict[str, float]:
        """By K, the share of the true loss that a model step along the answer's gradient saves."""
        g = self.through(jnp.asarray(weights))
        size = MODEL_STEP * jnp.linalg.norm(self.model) / jnp.linalg.norm(g)
        moved = self.model - size * g
        return {
            f"gain_{k}": float(1 - self.followed(moved, k) / self.followed(self.model, k))
            for k in FOLLOWED
        }


def study(setting: Setting, values: Mapping[str, Any], seed: int) -> tuple[list[dict], list[dict]]:
    """Rows of eigenvalues, and of answers, of one seed."""
    training = cartpole.build(setting, values)
    inner_lr, tau = values["rates"][0]
    rates = {"inner_lr": inner_lr, "tau": tau, "model_lr": values["model_lr"]}
    config = {name: jnp.asarray(float(rate)) for name, rate in rates.items()}
    config["seed"] = jnp.asarray(seed)
    point = Point(training, trained(training, config), config)
    v = np.asarray(point.outer(point.q))
    H = np.asarray(point.hessian(point.q, point.model))
    eigenvalues, found = answers(H, v, values["iterations"])
    plain = np.asarray(point.through(jnp.asarray(v)))
    rows = []
    for name, z in found.items():
        g = np.asarray(point.through(jnp.asarray(z)))
        cosine = g @ plain / np.linalg.norm(g) / np.linalg.norm(plain)
        residual = np.linalg.norm(H @ z - v) / np.linalg.norm(v)
        rows.append({"seed": seed, "answer": name, "residual": residual, "cosine": cosine})
        rows[-1] |= point.gains(z)
    spectrum = [{"seed": seed, "index": i, "eigenvalue": x} for i, x in enumerate(eigenvalues)]
    return spectrum, rows


def run(job: Job) -> None:
    """Studies every seed in float64."""
    values = dict(job.settings) | {"precision": "float64"}
    setting = Setting("omd", values["model_width"])
    pairs = [study(setting, values, seed) for seed in range(1, values["seeds"] + 1)]
    for name, parts in zip(("eigenvalues", "answers"), zip(*pairs, strict=True), strict=True):
        rows = [row for part in parts for row in part]
        write_parquet(pd.DataFrame(rows), job.outputs[name])
