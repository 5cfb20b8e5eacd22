"""HalfCheetah's true gradient against MJX's, where MJX is installed (`make venv EXTRAS=mjx`)."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffmbrl.envs.simulator import Simulator
from test_envs_mujoco import visited

mjx = pytest.importorskip("mujoco.mjx", reason="MJX is not installed: make venv EXTRAS=mjx")
SOLVE = mjx._src.solver.solve


def solve(model, data):
    """MJX's solver, and one Newton step from where it ended, the only part that is derived.

    Reverse mode cannot pass the solver's loop; at its solution the derivative of a Newton step is
    that of the solution (implicit function theorem).
    """
    solved = SOLVE(model, jax.lax.stop_gradient(data))
    there = data.replace(qacc=solved.qacc)
    step = mjx._src.solver.Context.create(model, there)
    qacc = step.qacc - step.Mgrad
    force = mjx._src.support.mul_m(model, data, qacc) - data.qfrc_smooth
    return there.replace(qacc=qacc, qfrc_constraint=force)


@pytest.mark.soak
@pytest.mark.usefixtures("rank_promotion_allowed")
def test_finite_differences_are_the_implicit_gradient_of_mjx(monkeypatch):
    monkeypatch.setattr(mjx._src.forward.solver, "solve", solve)
    sim = Simulator("HalfCheetah-v5")
    model, start = mjx.put_model(sim._model), mjx.make_data(sim._model)
    nq, nv = sim._model.nq, sim._model.nv

    @jax.jit
    @partial(jax.jacrev, argnums=(0, 1))
    def jacobian(physics, action, warm):
        data = start.replace(qpos=physics[:nq], qvel=physics[nq:], qacc_warmstart=warm, ctrl=action)
        data, _ = jax.lax.scan(
            lambda data, _: (mjx.step(model, data), None), data, None, sim._env.frame_skip
        )
        return jnp.concatenate([data.qpos, data.qvel])

    errors, touching = [], 0
    for seed in range(20):
        state, actions, _ = visited(sim, seed)
        expected = sim.jacobians(state, actions[0])[: sim.free]
        touching += sim._data.ncon > 0
        found = jacobian(state[: nq + nv], actions[0], state[nq + nv : nq + 2 * nv])
        found = np.concatenate(found, axis=1)
        errors.append(np.linalg.norm(found - expected) / np.linalg.norm(expected))
    assert max(errors) < 1e-6
    assert touching >= 4
