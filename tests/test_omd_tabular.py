from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from diffmbrl.mdp.dense import DenseMDP, bellman, optimal_q
from diffmbrl.mdp.known import two_state, uniform_start
from diffmbrl.omd import tabular
from diffmbrl.omd import tabular_agents as agents
from diffmbrl.omd.tabular_agents import Model, Problem
from diffmbrl.solve import CONVERGED, NON_FINITE

MDP = two_state()
PROBLEM = Problem(MDP, uniform_start(MDP), 0.01, "return", "published", "exact")


def random_model(seed: int, scale: float = 0.05) -> Model:
    keys = jax.random.split(jax.random.key(seed))
    return Model(scale * jax.random.normal(keys[0], (2, 2, 2)), jax.random.normal(keys[1], (2, 2)))


def random_mdp(seed: int, n: int = 4, a: int = 3) -> DenseMDP:
    rng = np.random.default_rng(seed)
    P = rng.dirichlet(np.ones(n), size=(a, n))
    return DenseMDP(jnp.asarray(P), jnp.asarray(rng.random((n, a))), 0.8)


def test_optimal_q_of_the_true_mdp():
    np.testing.assert_allclose(
        tabular.true_q(0.01), [[0.16363807, 0.06282009], [1.89091046, 0.66282009]], atol=1e-7
    )


@pytest.mark.parametrize("objective", ["return", "bellman"])
@pytest.mark.parametrize("adjoint", ["exact", "iterative"])
def test_implicit_gradient_through_the_converged_solve(objective, adjoint):
    problem = replace(PROBLEM, alpha=0.2, objective=objective, adjoint=adjoint)
    model = random_model(0)
    zeros = jnp.zeros((2, 2))

    @jax.jit
    def value(model):
        return agents.loss(problem, model, zeros, zeros)[0]

    grads = jax.jit(jax.grad(value))(model)
    leaves, structure = jax.tree.flatten(model)
    for i, leaf in enumerate(leaves):
        for index in np.ndindex(leaf.shape):
            moved = [[x.at[index].add(h) if k == i else x for k, x in enumerate(leaves)]
                     for h in (1e-5, -1e-5)]  # fmt: skip
            up, down = (float(value(jax.tree.unflatten(structure, m))) for m in moved)
            slope = jax.tree.leaves(grads)[i][index]
            np.testing.assert_allclose(slope, (up - down) / 2e-5, rtol=1e-4, atol=1e-7)


def test_identity_adjoint_drops_the_inverse():
    problem = replace(PROBLEM, alpha=0.2, objective="bellman", adjoint="identity")
    model, zeros = random_model(1), jnp.zeros((2, 2))
    q, _ = agents.solve(problem, model, zeros)
    v = jax.grad(lambda q: agents.bellman_error(problem, q))(q)

    def operator(model):
        mdp = agents.model_mdp(model, 0.9, 0.2)
        return agents.soft_bellman(mdp, q, 0.2)

    (expected,) = jax.vjp(operator, model)[1](v)
    ours = jax.grad(lambda m: agents.loss(problem, m, zeros, zeros)[0])(model)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)


def test_likelihood_loss_by_hand():
    model = Model(jnp.zeros((2, 2, 2)), MDP.r + 2.0)
    P = np.asarray(MDP.P)
    kl = (P * np.log(2 * P)).sum() / 4
    assert float(agents.likelihood_loss(PROBLEM, model)) == pytest.approx(kl + 4.0)


def test_projections_by_hand():
    model = Model(jnp.zeros((2, 2, 2)).at[0, 0, 0].set(0.03).at[1, 0, 0].set(4.0),
                  jnp.array([[3.0, 0.0], [0.0, 4.0]]))  # fmt: skip
    joint = agents.project(model, 1.0, 0.01, "joint")
    norm = np.sqrt((0.03 / 0.01) ** 2 + (4 / 0.01) ** 2 + 25)
    np.testing.assert_allclose(joint.rewards, model.rewards / norm)
    np.testing.assert_allclose(joint.logits, model.logits / norm)
    ours = agents.project(model, 1.0, 0.01, "published")
    np.testing.assert_allclose(ours.logits, model.logits / 5)  # |(0.03 / 0.01, 4)| = 5
    np.testing.assert_allclose(ours.rewards, model.rewards / np.hypot(300, 4))
    inside = agents.project(model, 1e4, 0.01, "joint")
    np.testing.assert_array_equal(inside.rewards, model.rewards)
    zero = agents.project(model, 0.0, 0.01, "published")
    assert not np.any(zero.logits)


def test_bounds_of_theorem_2_hold_on_random_mdps():
    """Hard operators, rewards in [0, 1]: the error of Q* is below both bounds."""
    rng = np.random.default_rng(0)
    for seed in range(20):
        mdp = random_mdp(seed)
        weight = rng.random()
        other = random_mdp(seed + 100)
        P = (1 - weight) * mdp.P + weight * other.P
        model = DenseMDP(P, (1 - weight) * mdp.r + weight * other.r, mdp.gamma)
        q, q_model = optimal_q(mdp, 1e-12), optimal_q(model, 1e-12)
        error = float(jnp.max(jnp.abs(q - q_model)))
        gap = jnp.max(jnp.abs(bellman(mdp, q_model) - bellman(model, q_model)))
        tight = float(agents.operator_bound(gap, mdp.gamma))
        reward_gap = jnp.max(jnp.abs(mdp.r - model.r))
        dynamics_gap = jnp.max(jnp.sum(jnp.abs(mdp.P - model.P), axis=-1))
        loose = float(agents.likelihood_bound(reward_gap, dynamics_gap, 1.0, mdp.gamma))
        assert error <= tight + 1e-9
        assert tight <= loose + 1e-9


def test_equivalent_models_solve_both_problems():
    """Proposition 1: a model with B_theta Q* = Q* has Q* as its own optimum (hard operators)."""
    for seed in range(10):
        mdp = random_mdp(seed)
        q = optimal_q(mdp, 1e-13)
        other = random_mdp(seed + 50)
        # Any transitions will do, given the rewards that make the operators agree at Q*.
        v = q.max(axis=-1)
        r = q - mdp.gamma * jnp.einsum("ast,t->sa", other.P, v)
        model = DenseMDP(other.P, r, mdp.gamma)
        np.testing.assert_allclose(bellman(model, q), q, atol=1e-10)
        found = optimal_q(model, 1e-13)
        np.testing.assert_allclose(found, q, atol=1e-9)
        np.testing.assert_allclose(bellman(mdp, found), found, atol=1e-9)
        assert float(jnp.max(jnp.abs(model.P - mdp.P))) > 0.1


def test_published_means_are_reproduced_run_by_run(tmp_path):
    """Three seeds each: OMD at a bound of 24/19 (figure 2), noise 10^-3 (figure 6)."""
    seeds = np.arange(1, 11)
    axes = {"norm_bound": [12 / 19], "sigma": [0.0], "seed": seeds}
    omd = tabular.train(PROBLEM, axes, 10_000, 0.01, 1, tmp_path)
    assert omd["return"].mean() == pytest.approx(-0.32840986, abs=1e-6)
    assert omd["return"].std(ddof=0) / 10**0.5 == pytest.approx(0.00698643, abs=1e-6)
    bell = replace(PROBLEM, objective="bellman")
    axes["norm_bound"] = [24 / 19]
    found = tabular.train(bell, axes, 10_000, 0.01, 1)
    assert found["q_error"].mean() == pytest.approx(1.81054904, abs=1e-6)
    assert found["bound"].mean() == pytest.approx(4.91729994, abs=1e-6)


def test_zero_bound_leaves_nothing_to_learn_and_stops_early():
    axes = {"norm_bound": [0.0], "sigma": [0.0], "seed": [1, 2]}
    for objective in ("return", "likelihood"):
        runs = tabular.train(replace(PROBLEM, objective=objective), axes, 500, 0.01, 1)
        np.testing.assert_allclose(runs["return"], -0.855, atol=1e-12)
        assert runs["converged"].all()
        assert (runs["steps"] < 10).all()


def test_unbounded_omd_finds_an_equivalent_model():
    problem = replace(PROBLEM, objective="bellman", projection="none")
    axes = {"norm_bound": [np.inf], "sigma": [0.0], "seed": [1, 2, 3]}
    runs = tabular.train(problem, axes, 4000, 0.01, 1)
    assert runs["q_error"].min() < 1e-3
    assert runs["return"].max() == pytest.approx(1.02727, abs=1e-3)
    logits = [runs.iloc[0][f"logits_{i}"] for i in range(8)]
    learned = jax.nn.softmax(jnp.array(logits).reshape(2, 2, 2) / 0.01)
    assert float(jnp.max(jnp.abs(learned - MDP.P))) > 0.2


def test_noise_follows_the_published_keys():
    problem = replace(PROBLEM, objective="bellman", projection="none")
    axes = {"norm_bound": [np.inf], "sigma": [0.5], "seed": [3]}
    runs = tabular.train(problem, axes, 1, 0.01, 1)
    state = agents.init(problem, 3)
    clean, _ = agents.solve(problem, state.model, state.q)
    noise = 0.5 * jax.random.normal(jax.random.PRNGKey(30_000), (2, 2))
    q = [runs.iloc[0][f"q_{i}"] for i in range(4)]
    np.testing.assert_allclose(q, (clean + noise).ravel(), atol=1e-9)


def test_unknown_names_are_refused():
    for name in ("objective", "projection", "adjoint"):
        with pytest.raises(ValueError, match=f"{name}: 'x' is unknown"):
            replace(PROBLEM, **{name: "x"})


def test_rows_hold_the_axes_and_metrics():
    axes = {"norm_bound": [1.0, 2.0], "sigma": [0.0], "seed": [1]}
    runs = tabular.train(PROBLEM, axes, 500, 0.01, 1)
    assert isinstance(runs, pd.DataFrame)
    assert runs["norm_bound"].tolist() == [1.0, 2.0]
    assert (runs["return_low"] <= runs["return"]).all()
    assert not runs["diverged"].any()


def test_how_the_solves_ended_is_kept():
    """A solve that reaches no fixed point marks its run: here the noise makes Q overflow."""
    axes = {"norm_bound": [1.0], "sigma": [0.0], "seed": [1]}
    runs = tabular.train(PROBLEM, axes, 10, 0.01, 1)
    assert runs["solver_result"].tolist() == [CONVERGED]
    assert runs["solved"].all()
    broken = tabular.train(PROBLEM, axes | {"sigma": [np.inf]}, 10, 0.01, 1)
    assert broken["solver_result"].tolist() == [NON_FINITE]
    assert not broken["solved"].any()
