from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from jax.test_util import check_grads

from diffmbrl.agents.soft_q import Batch, SoftQ, apply_mlp
from diffmbrl.omd.adjoint import Adjoint
from diffmbrl.omd.agents import ADAM, MLE, OMD, VEP, Rates, adam
from diffmbrl.omd.models import Model

Q, MODEL = SoftQ(4, 2, hidden=5, alpha=0.5), Model(4, 2, 3)
RATES = Rates(jnp.asarray(1e-2), jnp.asarray(0.1), jnp.asarray(1e-3))
KEY = jax.random.key(0)


def batch(n: int = 16, seed: int = 0) -> Batch:
    rng = np.random.default_rng(seed)
    action = rng.integers(2, size=n)
    return Batch(
        jnp.asarray(rng.standard_normal((4, n))), jnp.asarray(np.eye(2)[action].T),
        jnp.asarray(rng.standard_normal(n)), jnp.asarray(rng.standard_normal((4, n))),
        jnp.asarray((rng.random(n) > 0.2).astype(float)),
    )  # fmt: skip


def point(agent):
    """Parameters away from the small last layers that training starts from."""
    keys = jax.random.split(KEY, 3)
    w, target = (jax.tree.map(lambda x: 2 * x + 0.05, agent.q.init(k)) for k in keys[:2])
    theta = jax.tree.map(lambda x: 3 * x + 0.1, agent.model.init(keys[2]))
    return w, target, theta


def parts(agent, data):
    """Outer gradient v, inner Hessian H and mixed derivative M, written out as matrices."""
    w, target, theta = point(agent)
    flat_w, to_w = ravel_pytree(w)
    flat_theta, to_theta = ravel_pytree(theta)

    def inner(w, theta):
        imagined, _ = agent.model.imagine(to_theta(theta), data, KEY)
        return agent.q.loss(to_w(w), target, imagined)[0]

    v = jax.grad(lambda w: agent.q.loss(to_w(w), target, data)[0])(flat_w)
    H = jax.hessian(inner)(flat_w, flat_theta)
    M = jax.jacfwd(jax.grad(inner), 1)(flat_w, flat_theta)
    return v, H, M


def gradient(agent, data):
    w, target, theta = point(agent)
    grads, residual = agent.implicit_gradient(theta, w, target, data, KEY)
    return ravel_pytree(grads)[0], residual


@pytest.mark.parametrize("double", [True, False])
def test_identity_adjoint_is_minus_v_times_the_mixed_derivative(double):
    agent = OMD(replace(Q, double=double), MODEL)
    v, _, M = parts(agent, batch())
    ours, residual = gradient(agent, batch())
    assert np.max(np.abs(v @ M)) > 0.1
    np.testing.assert_allclose(ours, -v @ M, atol=1e-10)
    assert float(residual) == 0.0


def test_cg_adjoint_inverts_the_damped_hessian():
    damping = 10.0  # above the least eigenvalue, so that the system is positive definite
    agent = OMD(Q, MODEL, adjoint=Adjoint("cg", 500, damping))
    v, H, M = parts(agent, batch())
    system = H + damping * jnp.eye(len(H))
    assert np.min(np.linalg.eigvalsh(system)) > 0
    ours, residual = gradient(agent, batch())
    exact = -jnp.linalg.solve(system, v) @ M
    assert float(residual) < 1e-4
    np.testing.assert_allclose(ours, exact, rtol=1e-3, atol=1e-4 * np.max(np.abs(exact)))


def test_cg_that_cannot_converge_says_so():
    agent = OMD(Q, MODEL, adjoint=Adjoint("cg", 1, 1e-5))
    _, residual = gradient(agent, batch())
    assert float(residual) > 1e-2


def test_neumann_adjoint_is_the_truncated_series():
    rate, terms = 0.01, 3
    agent = OMD(Q, MODEL, adjoint=Adjoint("neumann", terms, 1e-5, rate))
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
    z, residual = Adjoint("cg", 5, 0.0).solve(
        lambda w: inner_grad(w, theta), jnp.array([w_star]), jnp.array([v])
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
            lambda t, m=model: m.likelihood_loss(t, data)[0],
            (theta,),
            order=1,
            modes=["rev"],
            eps=1e-6,
        )


def test_vep_ignores_errors_that_its_values_do_not_see():
    agent = VEP(Q, MODEL)
    state = agent.init(KEY)
    data = batch()
    mean, _, reward = MODEL.predict(state.model, data)
    exact = data._replace(next_obs=mean, reward=reward)
    loss, mse = agent._model_loss(state.model, state.probes, exact)
    assert float(loss) == pytest.approx(0, abs=1e-20)
    assert float(mse) == pytest.approx(0, abs=1e-20)
    blind = jax.tree.map(jnp.zeros_like, state.probes)
    loss, mse = agent._model_loss(state.model, blind, data._replace(reward=reward))
    assert float(loss) == 0.0
    assert float(mse) > 1.0
    assert apply_mlp(state.probes, data.obs).shape == (5, 1, 16)


def test_a_fresh_optimiser_steps_by_the_sign_of_the_gradient():
    agent = OMD(Q, MODEL)
    state = agent.init(KEY)
    after, _ = agent.update(state, [batch()], RATES, KEY)
    before, now = ravel_pytree(state.q)[0], ravel_pytree(after.q)[0]
    steps = np.abs(np.asarray(now - before))
    assert np.mean(steps > 1e-6) > 0.3
    assert np.max(steps) <= 1e-2 * (1 + 1e-9)
    assert np.median(steps[steps > 1e-6]) == pytest.approx(1e-2, rel=1e-3)
    again, _ = agent.update(after, [batch(seed=1)], RATES, KEY)
    steps = np.abs(np.asarray(ravel_pytree(again.q)[0] - now))
    assert np.median(steps[steps > 1e-6]) == pytest.approx(1e-2, rel=1e-3)


def test_a_warm_optimiser_keeps_its_state():
    warm = OMD(Q, MODEL, warm_optimizer=True)
    state, _ = warm.update(warm.init(KEY), [batch()], RATES, KEY)
    assert int(state.q_opt.count) == 1
    state, _ = warm.update(state, [batch(seed=1)], RATES, KEY)
    assert int(state.q_opt.count) == 2


def test_inner_steps_repeat_on_one_batch():
    one, three = OMD(Q, MODEL), OMD(Q, MODEL, inner_steps=3)
    state = one.init(KEY)
    imagined, _ = MODEL.imagine(state.model, batch(), KEY)
    q, target, opt = state.q, state.q_target, ADAM.init(state.q)
    for _ in range(3):
        grads = jax.grad(lambda w, t=target: Q.loss(w, t, imagined)[0])(q)
        q, opt = adam(grads, opt, q, RATES.inner_lr)
        target = jax.tree.map(lambda t, w: 0.9 * t + 0.1 * w, target, q)
    after, _ = three.update(state, [batch()], RATES, KEY)
    np.testing.assert_allclose(ravel_pytree(after.q)[0], ravel_pytree(q)[0], atol=1e-12)
    np.testing.assert_allclose(ravel_pytree(after.q_target)[0], ravel_pytree(target)[0], atol=1e-12)


def test_mle_fits_a_learnable_model():
    agent = MLE(Q, Model(4, 2, 16))
    state = agent.init(KEY)
    data = batch(64)
    data = data._replace(next_obs=0.5 * data.obs, reward=data.obs[0])
    update = jax.jit(lambda s: agent.update(s, [data, data], RATES._replace(
        model_lr=jnp.asarray(3e-3)), KEY))  # fmt: skip
    _, first = update(state)
    for _ in range(600):
        state, losses = update(state)
    assert float(losses.model_mse) < 0.05 * float(first.model_mse)


@pytest.mark.parametrize("agent", [OMD(Q, MODEL), MLE(Q, MODEL), VEP(Q, MODEL)])
def test_agents_share_one_interface(agent):
    state = agent.init(KEY)
    after, losses = agent.update(state, [batch(seed=i) for i in range(agent.batches)], RATES, KEY)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(losses))
    assert agent.act(after, jnp.ones((4, 1)), jnp.zeros((2, 1))).shape == (1,)


def test_bad_adjoints_are_refused():
    with pytest.raises(ValueError, match="'gmres' is unknown"):
        Adjoint("gmres")
    with pytest.raises(ValueError, match="iterations=0: must be at least 1"):
        Adjoint("cg", 0)
