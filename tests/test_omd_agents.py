from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from jax.test_util import check_grads

from diffmbrl.agents.replay import Transition
from diffmbrl.agents.soft_q import SoftQ
from diffmbrl.nets import ensemble
from diffmbrl.omd.agent import ADAM, Rates, adam
from diffmbrl.omd.agents import omd
from diffmbrl.omd.agents.mle import MLE
from diffmbrl.omd.agents.omd import OMD
from diffmbrl.omd.agents.vep import VEP
from diffmbrl.omd.models import Model
from diffmbrl.solve import CG, Iterative, Neumann, at_minimum

Q, MODEL = SoftQ(4, 2, hidden=5, alpha=0.5), Model(4, 2, 3)
RATES = Rates(jnp.asarray(1e-2), jnp.asarray(0.1), jnp.asarray(1e-3))
KEY = jax.random.key(0)


def batch(n: int = 16, seed: int = 0) -> Transition:
    rng = np.random.default_rng(seed)
    action = rng.integers(2, size=n)
    return Transition(
        jnp.asarray(rng.standard_normal((4, n))), jnp.asarray(np.eye(2)[action].T),
        jnp.asarray(rng.standard_normal(n)), jnp.asarray(rng.standard_normal((4, n))),
        jnp.asarray((rng.random(n) <= 0.2).astype(float)),
    )  # fmt: skip


@partial(jax.jit, static_argnums=(0, 1))
def point(q, model):
    """Parameters away from the small last layers that training starts from."""
    keys = jax.random.split(KEY, 3)
    w, target = (jax.tree.map(lambda x: 2 * x + 0.05, q.init(k)) for k in keys[:2])
    theta = jax.tree.map(lambda x: 3 * x + 0.1, model.init(keys[2]))
    return w, target, theta


def parts(agent, data):
    """Outer gradient v, inner Hessian H and mixed derivative M, written out as matrices."""
    return _parts(agent.q, agent.model, *point(agent.q, agent.model), data)


@partial(jax.jit, static_argnums=(0, 1))
def _parts(q, model, w, target, theta, data):
    flat_w, to_w = ravel_pytree(w)
    flat_theta, to_theta = ravel_pytree(theta)

    def inner(w, theta):
        imagined, _ = model.imagine(to_theta(theta), data, KEY)
        return q.loss(to_w(w), target, imagined)[0]

    v = jax.grad(lambda w: q.loss(to_w(w), target, data)[0])(flat_w)
    H = jax.hessian(inner)(flat_w, flat_theta)
    M = jax.jacfwd(jax.grad(inner), 1)(flat_w, flat_theta)
    return v, H, M


def gradient(agent, data):
    w, target, theta = point(agent.q, agent.model)
    grads, residual = _implicit_gradient(agent, theta, w, target, data)
    return ravel_pytree(grads)[0], residual


@partial(jax.jit, static_argnums=0)
def _implicit_gradient(agent, theta, w, target, data):
    return agent.implicit_gradient(theta, w, target, data, KEY)


@partial(jax.jit, static_argnums=0)
def init(agent):
    return agent.init(KEY)


@partial(jax.jit, static_argnums=0)
def update(agent, state, *batches):
    return agent.update(state, list(batches), RATES, KEY)


@pytest.mark.parametrize("double", [True, pytest.param(False, marks=pytest.mark.soak)])
def test_identity_adjoint_is_minus_v_times_the_mixed_derivative(double):
    agent = OMD(replace(Q, double=double), MODEL)
    v, _, M = parts(agent, batch())
    ours, residual = gradient(agent, batch())
    assert np.max(np.abs(v @ M)) > 0.1
    np.testing.assert_allclose(ours, -v @ M, atol=1e-10)
    assert float(residual) == 0.0


def test_cg_adjoint_inverts_the_damped_hessian():
    damping = 10.0  # above the least eigenvalue, so that the system is positive definite
    agent = OMD(Q, MODEL, adjoint=Iterative(CG(max_steps=500)), damping=damping)
    v, H, M = parts(agent, batch())
    system = H + damping * jnp.eye(len(H))
    assert np.min(np.linalg.eigvalsh(system)) > 0
    ours, residual = gradient(agent, batch())
    exact = -jnp.linalg.solve(system, v) @ M
    assert float(residual) < 1e-4
    np.testing.assert_allclose(ours, exact, rtol=1e-3, atol=1e-4 * np.max(np.abs(exact)))


def test_cg_that_cannot_converge_says_so():
    agent = OMD(Q, MODEL, adjoint=Iterative(CG(max_steps=1)))
    _, residual = gradient(agent, batch())
    assert float(residual) > 1e-2


def test_neumann_adjoint_is_the_truncated_series():
    rate, terms = 0.01, 3
    agent = OMD(Q, MODEL, adjoint=Iterative(Neumann(rate, terms)))
    v, H, M = parts(agent, batch())
    B = jnp.eye(len(H)) - rate * (H + 1e-5 * jnp.eye(len(H)))
    z = rate * sum(jnp.linalg.matrix_power(B, k) @ v for k in range(terms + 1))
    np.testing.assert_allclose(gradient(agent, batch())[0], -z @ M, rtol=1e-8)


def test_implicit_gradient_on_a_linear_quadratic_toy():
    """L(theta, w) = a/2 (w - theta)^2, L_true(w) = 1/2 (w - c)^2: dL_true/dtheta = w* - c."""
    a, c, theta = 4.0, 3.0, 1.5

    def inner_grad(w, theta):
        return a * (w - theta)

    w_star = theta
    v = w_star - c
    z, residual = at_minimum(
        Iterative(CG(max_steps=5)),
        lambda w: inner_grad(w, theta),
        jnp.array([w_star]),
        jnp.array([v]),
    )
    mixed = jax.grad(inner_grad, 1)(w_star, theta)
    assert float(residual) < 1e-8
    assert float(-z[0] * mixed) == pytest.approx(w_star - c)
    assert float(-v * mixed) == pytest.approx(a * (w_star - c))  # the identity: off by a


def test_likelihood_gradient_against_finite_differences():
    data = batch()
    for model in (MODEL, replace(MODEL, probabilistic=True)):
        theta = jax.tree.map(lambda x: 3 * x + 0.1, model.init(KEY))
        check_grads(
            jax.jit(lambda t, m=model: m.likelihood_loss(t, data)[0]),
            (theta,),
            order=1,
            modes=["rev"],
            eps=1e-6,
        )


def test_vep_ignores_errors_that_its_values_do_not_see():
    agent = VEP(Q, MODEL)
    state = init(agent)
    data = batch()
    mean, _, reward = MODEL.predict(state.model, data)
    exact = data._replace(obs_next=mean, reward=reward)
    loss, mse = agent._model_loss(state.model, state.probes, exact)
    assert float(loss) == pytest.approx(0, abs=1e-20)
    assert float(mse) == pytest.approx(0, abs=1e-20)
    blind = jax.tree.map(jnp.zeros_like, state.probes)
    loss, mse = agent._model_loss(state.model, blind, data._replace(reward=reward))
    assert float(loss) == 0.0
    assert float(mse) > 1.0
    assert ensemble.apply(state.probes, data.obs).shape == (5, 1, 16)


def test_a_fresh_optimiser_steps_by_the_sign_of_the_gradient():
    agent = OMD(Q, MODEL)
    state = init(agent)
    after, _ = update(agent, state, batch())
    before, now = ravel_pytree(state.q)[0], ravel_pytree(after.q)[0]
    steps = np.abs(np.asarray(now - before))
    assert np.mean(steps > 1e-6) > 0.3
    assert np.max(steps) <= 1e-2 * (1 + 1e-9)
    assert np.median(steps[steps > 1e-6]) == pytest.approx(1e-2, rel=1e-3)
    again, _ = update(agent, after, batch(seed=1))
    steps = np.abs(np.asarray(ravel_pytree(again.q)[0] - now))
    assert np.median(steps[steps > 1e-6]) == pytest.approx(1e-2, rel=1e-3)


def test_a_warm_optimiser_keeps_its_state():
    warm = OMD(Q, MODEL, warm_optimizer=True)
    state, _ = update(warm, init(warm), batch())
    assert int(state.q_opt.count) == 1
    state, _ = update(warm, state, batch(seed=1))
    assert int(state.q_opt.count) == 2


def test_inner_steps_repeat_on_one_batch():
    one, three = OMD(Q, MODEL), OMD(Q, MODEL, inner_steps=3)
    state = init(one)
    imagined, _ = MODEL.imagine(state.model, batch(), KEY)
    q, target, opt = state.q, state.q_target, ADAM.init(state.q)

    @jax.jit
    def step(q, target, opt):
        grads = jax.grad(lambda w: Q.loss(w, target, imagined)[0])(q)
        q, opt = adam(grads, opt, q, RATES.inner_lr)
        return q, jax.tree.map(lambda t, w: 0.9 * t + 0.1 * w, target, q), opt

    for _ in range(3):
        q, target, opt = step(q, target, opt)
    after, _ = update(three, state, batch())
    np.testing.assert_allclose(ravel_pytree(after.q)[0], ravel_pytree(q)[0], atol=1e-12)
    np.testing.assert_allclose(ravel_pytree(after.q_target)[0], ravel_pytree(target)[0], atol=1e-12)


def test_mle_fits_a_learnable_model():
    agent = MLE(Q, Model(4, 2, 16))
    state = init(agent)
    data = batch(64)
    data = data._replace(obs_next=0.5 * data.obs, reward=data.obs[0])
    update = jax.jit(lambda s: agent.update(s, [data, data], RATES._replace(
        model_lr=jnp.asarray(3e-3)), KEY))  # fmt: skip
    _, first = update(state)
    for _ in range(600):
        state, losses = update(state)
    assert float(losses.model_mse) < 0.05 * float(first.model_mse)


@pytest.mark.parametrize("agent", [OMD(Q, MODEL), MLE(Q, MODEL), VEP(Q, MODEL)])
def test_agents_share_one_interface(agent):
    state = init(agent)
    after, losses = update(agent, state, *(batch(seed=i) for i in range(agent.batches)))
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(losses))
    assert agent.act(after, jnp.ones((4, 1)), jnp.zeros((2, 1))).shape == (1,)


def test_bad_adjoints_are_refused():
    with pytest.raises(ValueError, match="'gmres' is unknown"):
        omd.adjoint("gmres", 1)
    for name in ("cg", "neumann"):
        with pytest.raises(ValueError, match="max_steps=0: must be at least 1"):
            omd.adjoint(name, 0)
