"""Stage: how many samples the two objectives need in the two-state MDP (section 6).

A model without a norm bound is learned from samples of the true MDP. For the Bellman error these
are independent transitions, from every state and action alike, and the target is held fixed
(eq. 11). For the returns they are on-policy trajectories, and the gradient is REINFORCE with
rewards to go and a baseline. Both gradients reach the model through the exact implicit function
theorem.
"""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array, Float

from diffmbrl.keys import fold
from diffmbrl.mdp.dense import DenseMDP, soft_max
from diffmbrl.mdp.known import two_state, uniform_start
from diffmbrl.omd import tabular_agents as agents
from diffmbrl.omd.tabular_agents import Problem, State
from diffmbrl.pipeline.stage import Job
from diffmbrl.sweep import engine
from diffmbrl.tables import write_parquet

HORIZON = 50  # steps of a trajectory; what is cut off is below gamma^50 = 0.005 of a return
SEGMENTS = 40
LANES = 10


def bellman_gradient(problem: Problem, q: Float[Array, "s a"], key: Array, n: int) -> Array:
    """d/dQ of the mean of (Q - r - gamma V(s'))^2 over n transitions, V held fixed (eq. 11)."""
    mdp = problem.mdp
    cell = jax.random.randint(fold(key, "cell"), (n,), 0, mdp.r.size)
    s, a = jnp.divmod(cell, mdp.n_actions)
    after = _draw(fold(key, "next"), mdp.P[a, s])
    error = q[s, a] - mdp.r[s, a] - mdp.gamma * soft_max(q, problem.alpha)[after]
    return jnp.zeros_like(q).at[s, a].add(2 * error / n)


def return_gradient(problem: Problem, q: Float[Array, "s a"], key: Array, n: int) -> Array:
    """-d/dQ of the mean return, by REINFORCE over n transitions in trajectories of `HORIZON`."""
    paths = n // HORIZON
    s, a, rewards = _rollout(problem, q, key, paths)
    discount = problem.mdp.gamma ** jnp.arange(HORIZON)
    ahead = jnp.cumsum((discount[:, None] * rewards)[::-1], axis=0)[::-1]
    if paths > 1:  # the mean over the other trajectories, which leaves it unbiased
        ahead = ahead - (ahead.sum(axis=1, keepdims=True) - ahead) / (paths - 1)
    # d log pi(a | s) / dQ(s, .) is (one-hot of a - pi) / alpha.
    score = jax.nn.one_hot(a, problem.mdp.n_actions) - jax.nn.softmax(q / problem.alpha)[s]
    pushed = ahead[..., None] * score / problem.alpha / paths
    return -jnp.zeros_like(q).at[s].add(pushed)


def _rollout(problem: Problem, q: Array, key: Array, paths: int) -> tuple[Array, Array, Array]:
    """States, actions and rewards of trajectories, arrays of shape (HORIZON, paths)."""
    mdp, policy = problem.mdp, jax.nn.softmax(q / problem.alpha)
    first = _draw(fold(key, "start"), jnp.tile(problem.start, (paths, 1)))

    def go(s, t):
        here = jax.random.fold_in(fold(key, "steps"), t)
        a = _draw(fold(here, "action"), policy[s])
        return _draw(fold(here, "next"), mdp.P[a, s]), (s, a, mdp.r[s, a])

    return jax.lax.scan(go, first, jnp.arange(HORIZON))[1]


def _draw(key: Array, p: Float[Array, "n k"]) -> Array:
    """One index per row of probabilities."""
    u = jax.random.uniform(key, (len(p), 1))
    return jnp.minimum(jnp.sum(u >= jnp.cumsum(p, axis=1), axis=1), p.shape[1] - 1)


GRADIENTS = {"bellman": bellman_gradient, "return": return_gradient}


def training(problem: Problem, batch: int, max_steps: int, rate: float) -> engine.Program:
    """Training as a sweep program over configs of `seed`; reports the true return."""
    of_q = GRADIENTS[problem.objective]

    def one(config, state: State) -> State:
        key = jax.random.fold_in(fold(jax.random.key(config["seed"]), "samples"), state.steps)

        def solved(model):
            q, found = agents.solve(problem, model, state.q)
            return q, found.result

        q, pull, result = jax.vjp(solved, state.model, has_aux=True)
        (grads,) = pull(of_q(problem, q, key, batch))
        return agents.descend(problem, state, grads, q, result, jnp.asarray(jnp.inf), rate)

    def advance(config, data, state):
        every = max_steps // SEGMENTS
        state = jax.lax.fori_loop(0, every, lambda _, s: one(config, s), state)
        return state, {"return": agents.policy_return(problem, state.q), "steps": state.steps}

    start = partial(agents.init, problem)
    return engine.Program(
        init=lambda config, data: start(config["seed"]),
        advance=advance,
        segments=SEGMENTS,
        lanes=LANES,
    )


def train(mdp: DenseMDP, settings: dict, threads: int) -> pd.DataFrame:
    """One row per run and logged step, with the transitions used so far."""
    tables = []
    seeds = np.arange(1, settings["seeds"] + 1)
    axes = (settings["temperatures"], GRADIENTS, settings["batches"])
    for alpha, objective, batch in itertools.product(*axes):
        problem = Problem(mdp, uniform_start(mdp), alpha, objective, "none", "exact")
        program = training(problem, batch, settings["steps"], settings["learning_rate"])
        label = f"samples {objective} {alpha} {batch}"
        found = engine.run(program, {"seed": seeds}, None, threads=threads, label=label)
        columns = {"objective": objective, "alpha": alpha, "batch": batch}
        columns["seed"] = np.repeat(seeds, SEGMENTS)
        steps = found["steps"].ravel()
        columns |= {"transitions": steps * batch, "return": found["return"].ravel()}
        tables.append(pd.DataFrame(columns))
    return pd.concat(tables, ignore_index=True)


def run(job: Job) -> None:
    """Trains both objectives at every batch size."""
    write_parquet(train(two_state(), dict(job.settings), job.threads), job.outputs["runs"])
