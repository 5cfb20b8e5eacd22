"""The tabular statements: gradient constraint, samples, saddle point, bounds, temperature."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffmbrl.mdp.known import two_state, uniform_start
from diffmbrl.omd import bounds, checks, constraint, lagrangian, samples, tabular
from diffmbrl.omd import tabular_agents as agents
from diffmbrl.omd.tabular_agents import Problem
from diffmbrl.sweep import engine

MDP = two_state()
PROBLEM = Problem(MDP, uniform_start(MDP), 0.2, "bellman", "none", "exact")


@pytest.mark.parametrize(
    ("error", "operator", "likelihood"),
    [(0.0, 90, 90), (0.1, 109, 91), (0.5, 185, 95), (1.0, 280, 100)],
)
def test_a_model_whose_operator_bound_is_the_looser_one(error, operator, likelihood):
    """Both bounds hold, lemma 1 does not: by hand, at gamma 0.9."""
    found = bounds.judged(*bounds.counterexample(error))
    assert float(found["operator"]) == pytest.approx(operator)
    assert float(found["likelihood"]) == pytest.approx(likelihood)
    assert float(found["corrected"]) == pytest.approx(operator)
    assert float(found["error"]) <= likelihood
    assert float(found["outside"]) == pytest.approx(error)


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize(("reward_error", "dynamics_error"), [(0.3, 0.5), (1.0, 2.0)])
def test_random_models_have_the_errors_asked_for(reward_error, dynamics_error, clip):
    for seed in range(5):
        pair = bounds.random_pair(np.random.default_rng(seed), reward_error, dynamics_error, clip)
        true, model = pair
        np.testing.assert_allclose(model.P.sum(axis=-1), 1)
        assert float(model.P.min()) >= -1e-15
        gaps = np.abs(true.P - model.P).sum(axis=-1)
        np.testing.assert_allclose(gaps, dynamics_error)
        gap = float(np.abs(true.r - model.r).max())
        assert gap == pytest.approx(reward_error) or (clip and gap < reward_error)
        found = bounds.judged(*pair)
        assert float(found["error"]) <= float(found["operator"]) + 1e-9
        assert float(found["operator"]) <= float(found["corrected"]) + 1e-9
        if float(found["outside"]) <= 0:
            assert float(found["operator"]) <= float(found["likelihood"]) + 1e-9


def test_identities_hold_and_a_wrong_one_would_be_seen():
    found = checks.identities(3)
    assert (found[["gradient_constraint", "equation_6", "equation_2"]].max() < 1e-10).all()
    assert found["implicit"].max() < 1e-6
    assert found["semi_gradient"].abs().max() < 1e-12
    assert found["distance"].min() > 0.1
    model = checks.random_model(np.random.default_rng(0))
    mdp = checks.random_mdp(np.random.default_rng(1))
    exact = replace(PROBLEM, mdp=mdp, start=uniform_start(mdp))
    identity = replace(exact, adjoint="identity")
    q, _ = agents.solve(exact, model, jnp.zeros(mdp.r.shape))
    one, other = (constraint.gradient(p, model, q) for p in (exact, identity))
    assert float(checks._cosine(one, other)) < 0.999


def test_a_low_temperature_makes_little_difference_and_a_high_one_much():
    found = checks.temperature(np.array([0.001, 1.0]), 3)
    low, high = (found[found["alpha"] == alpha] for alpha in (0.001, 1.0))
    assert low["difference"].max() < 1e-4
    assert high["difference"].min() > 0.5
    assert (found["difference"] <= found["allowed"] + 1e-12).all()
    assert (found["regret"] >= -1e-12).all()


def test_without_noise_the_exact_gradient_is_its_own_direction():
    found = checks.alignment(np.array([0.0, 1.0]), 4, 0.2)
    none, much = (found[found["sigma"] == sigma] for sigma in (0.0, 1.0))
    np.testing.assert_allclose(none["exact"], 1)
    assert (none["identity"] < 0.999).all()
    assert (much["exact"] < 0.999).all()


@pytest.mark.parametrize("objective", samples.GRADIENTS)
def test_sampled_gradients_are_right_on_average(objective):
    """The mean over many batches is the expected gradient, within five standard errors."""
    problem = replace(PROBLEM, objective=objective)
    q = jnp.array([[0.1, 0.3], [0.2, 0.0]])
    keys = jax.random.split(jax.random.key(0), 2000)
    found = jax.vmap(lambda key: samples.GRADIENTS[objective](problem, q, key, 500))(keys)
    if objective == "return":
        expected = -jax.grad(lambda q: agents.policy_return(problem, q))(q)
    else:
        target = agents.soft_bellman(MDP, q, problem.alpha)
        expected = jax.grad(lambda q: jnp.mean((q - target) ** 2))(q)
    error = found.std(axis=0) / len(keys) ** 0.5
    truncated = 0.005 * float(jnp.abs(expected).max()) if objective == "return" else 0.0
    assert np.all(np.abs(found.mean(axis=0) - expected) < 5 * error + truncated)


def test_the_lagrangian_by_hand_and_its_saddle_step():
    state = agents.init(PROBLEM, 1)
    zero = jnp.zeros_like(state.q)
    gap = lagrangian.violation(PROBLEM, state.q, state.model)
    found = lagrangian.lagrangian(PROBLEM, (state.q, state.model), 2 * jnp.ones((2, 2)), 3.0)
    expected = agents.bellman_error(PROBLEM, state.q) + 2 * gap.sum() + 1.5 * (gap**2).sum()
    assert float(found) == pytest.approx(float(expected))
    primal = (state.q, state.model)
    start = lagrangian.Saddle(primal, zero, agents.ADAM.init(primal), agents.ADAM.init(zero))
    after = lagrangian.saddle_step(PROBLEM, start, jnp.asarray(0.1), 0.0)
    np.testing.assert_allclose(after.multipliers, 0.1 * np.sign(gap), rtol=1e-5)  # up, by Adam
    np.testing.assert_array_equal(after.primal[1].logits, state.model.logits)  # 0 multipliers


def test_a_constrained_training_learns_the_mdp():
    axes = {"norm_bound": [np.inf], "sigma": [0.0], "seed": [1]}
    problem = replace(PROBLEM, alpha=0.01)
    runs = tabular.train(problem, axes, 2000, 0.01, 1, step=constraint.step)
    assert runs["q_error"].max() < 0.05
    program = lagrangian.training(problem, "ift", 2000)
    found = engine.run(program, {"seed": np.array([1]), "rate": np.array([0.01])}, None)
    assert found["q_error"][0, -1] < 0.05
