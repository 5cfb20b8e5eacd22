"""Parameterizations, training, selection and comparison of `implicit`."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from diffmbrl import registry
from diffmbrl.errors import ConfigError, DataError
from diffmbrl.implicit import advance, aggregate, compare, dataset, schedule, train
from diffmbrl.implicit.domains.chain import DOMAIN as CHAIN
from diffmbrl.implicit.metrics import METRICS
from diffmbrl.implicit.parameterizations import explicit
from diffmbrl.implicit.parameterizations import implicit as chain_of_features
from diffmbrl.implicit.published import published
from diffmbrl.implicit.values import Explicit, Implicit, Models, centred
from diffmbrl.pipeline.stage import Job
from diffmbrl.solve import CONVERGED, GCR, NON_FINITE, Direct, Exact, Iterative, Newton, Refined
from diffmbrl.stats.parity import Bar, agreement
from diffmbrl.sweep.grid import grid
from diffmbrl.tables import write_parquet

SEED = 733348321

# Residual norms that the released logs of Gehring et al. 2021 give for the chain, seed 733348321,
# eta 0.95, offset 0.5, at steps 0, 10, 100 and 300: (parameterization, learning rate) -> values.
PUBLISHED = {
    ("explicit", 0.5): [45.03882675587887, 28.523700444465312, 3.9611061643315333,
                        4.228534996246246],
    ("implicit", 0.015625): [45.03882675587887, 8.922495511328009, 3.8600035282152807,
                             4.491134653217575],
}  # fmt: skip


@pytest.fixture
def model():
    return schedule.initial_parameters(jax.random.PRNGKey(3), 6, actions=2)


def test_chain_values_in_closed_form(model):
    w, F = model[0][:, :1], model[1][:, :1]
    implicit = Implicit(Newton(Direct(), max_steps=1), Exact())
    theta = implicit.solve({"w": w, "F": F}, jnp.asarray(0.9), jnp.zeros(6)).value
    P = np.asarray(jax.nn.softmax(F[:, 0], axis=-1))
    np.testing.assert_allclose(theta, np.linalg.solve(np.eye(6) - 0.9 * P, w[:, 0]), rtol=1e-12)
    start = Explicit(implicit).init(w, F, jnp.asarray(0.9))
    np.testing.assert_allclose(start["theta"], theta, rtol=1e-12)


@pytest.mark.parametrize("backup", ["max", "logsumexp"])
def test_mdp_values_satisfy_their_equation(model, backup):
    w, F = model
    implicit = Implicit(Newton(Direct(), atol=1e-13), Exact(), backup, temperature=0.1)
    theta = implicit.solve({"w": w, "F": F}, jnp.asarray(0.9), jnp.zeros(6)).value
    q = np.asarray(w) + 0.9 * np.einsum("iaj,j->ia", jax.nn.softmax(F, axis=-1), theta)
    soft = 0.1 * np.log(np.exp(q / 0.1).sum(axis=1))
    np.testing.assert_allclose(theta, q.max(axis=1) if backup == "max" else soft, rtol=1e-10)


@pytest.mark.parametrize("backup", ["max", "logsumexp"])
def test_gradient_of_logits_and_rewards_by_finite_differences(model, backup):
    implicit = Implicit(Newton(Direct(), atol=1e-12), Exact(), backup, 0.1)
    weights, eta = jnp.arange(6.0), jnp.asarray(0.9)

    @jax.jit
    def loss(params):
        return weights @ implicit.solve(params, eta, jnp.zeros(6)).value

    params = dict(zip("wF", model, strict=True))
    gradient = jax.grad(loss)(params)
    draw = np.random.default_rng(0)
    for name in ("w", "F"):
        direction = draw.normal(size=params[name].shape)
        forth, back = (loss(params | {name: params[name] + s * 1e-6 * direction}) for s in (1, -1))
        slope = float(forth - back) / 2e-6
        assert float(jnp.sum(gradient[name] * direction)) == pytest.approx(slope, rel=2e-6)


@pytest.mark.parametrize("backup", ["max", "logsumexp"])
def test_warm_values_and_gradients_are_the_cold_ones(model, backup):
    """As far as weights in float32 allow, wherever the solve starts."""
    fine = Refined(GCR(rtol=1e-5, atol=1e-12), rounds=4)
    cold = Implicit(Newton(Direct(), atol=1e-12), Exact(), backup, 0.1)
    warm = Implicit(Newton(fine, atol=1e-12), Iterative(fine), backup, 0.1, warm=True)
    params = dict(zip("wF", model, strict=True))
    params["F"] = centred(params["F"])
    found = {}
    for name, implicit, guess in (("cold", cold, jnp.zeros(6)), ("warm", warm, jnp.ones(6))):

        def loss(params, implicit=implicit, guess=guess):
            theta = implicit.solve(params, jnp.asarray(0.9), guess).value
            return jnp.arange(6.0) @ theta, theta

        found[name] = jax.grad(loss, has_aux=True)(params)
    (expected, theirs), (gradient, ours) = found["cold"], found["warm"]
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    for name in "wF":
        scale = float(jnp.abs(expected[name]).max())
        np.testing.assert_allclose(gradient[name], expected[name], rtol=1e-6, atol=1e-6 * scale)


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "chain.parquet"
    write_parquet(CHAIN.collect([SEED], 0.1, 50, 100), path)
    return path


def settings(**changes):
    base = {
        "domain": "chain", "parameterization": "implicit", "seeds": [SEED], "updates": 20,
        "log_every": 10, "batch_size": 25, "learning_rates": [0.015625, 0.0078125],
        "etas": [0.9], "reward_offsets": [0, 0.5], "actions": 1, "backups": ["max"],
        "temperature": 0.1,
    }  # fmt: skip
    return base | changes


def trained(chain, tmp_path, **changes) -> pd.DataFrame:
    job = Job(settings(**changes), {"dataset": [chain]}, {"runs": tmp_path / "runs.parquet"}, 1,
              tmp_path / "scratch")  # fmt: skip
    train.run(job)
    return pd.read_parquet(tmp_path / "runs.parquet")


def test_table_of_runs(chain, tmp_path):
    frame = trained(chain, tmp_path)
    assert len(frame) == 2 * 2 * 3
    assert frame["step"].unique().tolist() == [0, 10, 20]
    assert set(compare.RUN) | {"step", "diverged", "solver_result", *METRICS} == set(frame.columns)
    assert (frame["solver_result"] == CONVERGED).all()
    total = frame["residual_ones_norm"] ** 2 + frame["residual_ortho_norm"] ** 2
    np.testing.assert_allclose(total, frame["residual_norm"] ** 2, rtol=1e-10)
    np.testing.assert_allclose(frame["mse"], frame["residual_norm"] ** 2 / 11, rtol=1e-10)
    assert (frame[frame["step"] == 20]["residual_norm"].to_numpy()
            < frame[frame["step"] == 0]["residual_norm"].to_numpy()).all()  # fmt: skip


def test_updates_that_are_no_multiple_of_the_logged_step_are_refused(chain, tmp_path):
    with pytest.raises(ConfigError, match="updates = 25: must be a multiple of log_every = 10"):
        trained(chain, tmp_path, updates=25)


@pytest.mark.parametrize("parameterization", ["explicit", "implicit"])
def test_whole_run_is_the_published_one(chain, tmp_path, parameterization):
    """Explicit to rounding; implicit to the published solver's tolerance."""
    ((rate, expected),) = [
        (rate, values) for (name, rate), values in PUBLISHED.items() if name == parameterization
    ]
    frame = trained(chain, tmp_path, parameterization=parameterization, learning_rates=[rate],
                    etas=[0.95], reward_offsets=[0.5], updates=300)  # fmt: skip
    ours = frame.set_index("step")["residual_norm"].loc[[0, 10, 100, 300]]
    tolerance = 1e-12 if parameterization == "explicit" else 3e-6
    np.testing.assert_allclose(ours, expected, rtol=tolerance)


def test_explicit_update_by_hand(chain):
    """One SGD step of the explicit parameterization, computed with numpy."""
    data = train.arrays(chain, CHAIN, [SEED], 10, 25, 1)
    program = train.program(explicit.models(11)._replace(width=1), updates=10, log_every=1)
    config = {"seed": 0, "learning_rate": 0.5, "eta": jnp.asarray(0.9), "reward_offset": 0.3}
    data = jax.tree.map(jnp.asarray, data)
    state = program.init(config, data)
    after, _ = program.advance(config, data, state)
    indices = np.asarray(data["batches"])[0, 0]
    phi = np.asarray(data["train"]["features"])[0, indices]
    target = np.asarray(data["train"]["returns"] + 0.3 * data["train"]["discounts"])[0, indices]
    theta = np.asarray(state["params"]["theta"])
    expected = theta - 0.5 * phi.T @ (phi @ theta - target) / 25
    np.testing.assert_allclose(after["params"]["theta"], expected, rtol=1e-12)


def test_calm_and_wild_solves_agree():
    """Both ways of solving give the same training on a model too large to factorise."""
    w, F = schedule.initial_parameters(jax.random.PRNGKey(5), 40)
    models = chain_of_features.models(40)
    ways = (models.calm, models.wild)
    assert models.calm is not models.wild
    eta = jnp.asarray(0.95)
    values = [jax.jit(m.solve)({"w": w, "F": F}, eta, jnp.zeros(40)).value for m in ways]
    np.testing.assert_allclose(*values, atol=2e-6)
    gradients = [
        jax.grad(lambda p, e, m=m: jnp.sum(m.solve(p, e, jnp.zeros(40)).value ** 2))(
            {"w": w, "F": F}, eta
        )
        for m in ways
    ]
    for name in "wF":
        np.testing.assert_allclose(*(g[name] for g in gradients), rtol=1e-5, atol=1e-5)


def small_problem(n=40, points=60, updates=10):
    """Data of one seed, as `train.arrays` lays them out, with targets of tens."""
    rng = np.random.default_rng(3)
    sample = {
        "features": rng.dirichlet(np.ones(n), (1, points)),
        "returns": -50 * rng.random((1, points)),
        "discounts": np.ones((1, points)),
    }
    w, F = schedule.initial_parameters(jax.random.PRNGKey(5), n)
    batches = rng.integers(points, size=(1, updates, 25))
    data = {"train": sample, "evaluation": sample, "w": w[None], "F": F[None], "batches": batches}
    return jax.tree.map(jnp.asarray, data)


@pytest.mark.parametrize(("rate", "moves"), [(0.1, False), (1.0, True)])
def test_logits_that_move_far_are_solved_the_wild_way(rate, moves):
    """Weights in float32 lose their precision there, and overflow in the end."""
    config = {"seed": 0, "learning_rate": rate, "eta": jnp.asarray(0.9), "reward_offset": 0.0}
    data, both = small_problem(), chain_of_features.models(40)
    after = {}
    for name, models in {"both": both, "wild": Models(both.wild, both.wild, 1)}.items():
        program = train.program(models, updates=10, log_every=10)
        start = program.init(config, data)
        after[name], _ = jax.jit(program.advance)(config, data, start)
    largest = jnp.abs(after["wild"]["params"]["F"].max(axis=-1))
    assert bool(jnp.any(largest > advance.DRIFT)) == moves
    same = np.array_equal(after["both"]["theta"], after["wild"]["theta"])
    assert same == moves
    np.testing.assert_allclose(after["both"]["theta"], after["wild"]["theta"], rtol=1e-5)


def test_sets_share_seed_and_eta_and_hold_every_run():
    axes = grid({"seed": [0, 1], "learning_rate": [1.0, 2.0, 3.0], "eta": [0.5, 0.9],
                 "reward_offset": [0.0, 1.0]})  # fmt: skip
    configs, runs = train.sets(axes, 4)
    assert runs.shape == (8, 4)
    assert set(runs.ravel()) == set(range(24))
    for name in ("seed", "eta"):
        assert (axes[name][runs] == configs[name][:, None]).all()
    for name in ("learning_rate", "reward_offset"):
        assert (axes[name][runs] == configs[name]).all()


def test_a_run_that_diverges_keeps_its_rows(chain, tmp_path):
    frame = trained(chain, tmp_path, learning_rates=[8.0], updates=300, log_every=100)
    assert len(frame) == 2 * 4
    assert frame["diverged"].all()
    assert np.isfinite(frame.loc[frame["step"] == 0, "residual_norm"]).all()
    assert not np.isfinite(frame.loc[frame["step"] == 300, "residual_norm"]).any()
    assert (frame.loc[frame["step"] == 0, "solver_result"] == CONVERGED).all()
    assert (frame.loc[frame["step"] == 300, "solver_result"] == NON_FINITE).all()


@pytest.mark.soak
@pytest.mark.usefixtures("compiled_afresh", "compiled_as_results")
def test_same_bytes_twice_and_alone(chain, tmp_path):
    """Twice the same; and each run alone gives the rows that it has in company."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    whole = trained(chain, tmp_path / "a")
    trained(chain, tmp_path / "b")
    first, second = ((tmp_path / x / "runs.parquet").read_bytes() for x in "ab")
    assert first == second
    alone = trained(chain, tmp_path, learning_rates=[0.0078125], reward_offsets=[0.5])
    mine = whole[(whole["learning_rate"] == 0.0078125) & (whole["reward_offset"] == 0.5)]
    pd.testing.assert_frame_equal(alone, mine.reset_index(drop=True), check_exact=True)


def test_dataset_refusals(chain, tmp_path):
    frame = pd.read_parquet(chain)
    without = tmp_path / "without.parquet"
    frame.drop(columns="return").to_parquet(without)
    with pytest.raises(DataError, match=r"without.parquet: column 'return' is missing; expected"):
        dataset.load(without, CHAIN, [SEED])
    truncated = tmp_path / "truncated.parquet"
    truncated.write_bytes(chain.read_bytes()[:5000])
    with pytest.raises(DataError, match=r"truncated.parquet: not a whole Parquet file"):
        dataset.load(truncated, CHAIN, [SEED])
    with pytest.raises(DataError, match="has no rows of seed 7"):
        dataset.load(chain, CHAIN, [7])


FLOORS = {n: f.get("FLOOR", 0.0) for n, f in registry.facts("implicit.domains").items()}


def rows(**columns):
    base = {"domain": "chain", "parameterization": "implicit", "backup": "none", "eta": 0.9,
            "residual_ones_norm": 1.0, "residual_ortho_norm": 1.0, "mse": 1.0}  # fmt: skip
    return pd.DataFrame(base | columns)


def test_summary_counts_diverged_runs():
    frame = rows(learning_rate=1.0, reward_offset=0.0, seed=[1, 1, 2, 2, 3, 3], step=[0, 10] * 3,
                 residual_norm=[5.0, 1.0, 5.0, 3.0, 5.0, np.nan],
                 diverged=[False] * 4 + [True] * 2)  # fmt: skip
    (row,) = aggregate.summarize(frame, FLOORS).to_dict("records")
    assert (row["n_runs"], row["n_diverged"]) == (3, 1)
    assert row["residual_norm_mean"] == 2
    assert row["residual_norm_std"] == pytest.approx(np.sqrt(2))
    assert row["residual_norm_t0_mean"] == 5


def test_floor_of_four_rooms_is_removed():
    frame = rows(domain="four_rooms", reward_offset=[0.3], residual_norm=[5.0])
    assert aggregate.without_floor(frame, FLOORS).tolist() == [4.0]  # 5^2 = 4^2 + (10 x 0.3)^2
    other = rows(reward_offset=[0.3], residual_norm=[5.0])
    assert aggregate.without_floor(other, FLOORS).tolist() == [5.0]


def test_selection_rule():
    """The lower median wins, a minority of diverged seeds notwithstanding; ties go up."""
    seeds = [1, 2, 3]
    tables = [
        rows(learning_rate=rate, reward_offset=0.0, seed=seeds, step=10, residual_norm=norms,
             diverged=[not np.isfinite(n) for n in norms])
        for rate, norms in ((4.0, [np.nan, np.nan, 1.0]), (2.0, [1.0, 1.2, np.nan]),
                            (1.0, [1.2, 1.2, 1.2]), (0.5, [3.0, 3.0, 3.0]))
    ]  # fmt: skip
    best = aggregate.select(pd.concat(tables))
    assert best["learning_rate"].tolist() == [2.0]
    assert best["score"].tolist() == [1.2]


def parity_tables():
    runs = grid({"seed": np.arange(4), "learning_rate": [1.0, 2.0]})
    frame = pd.DataFrame(runs).merge(pd.DataFrame({"step": [0, 10]}), how="cross")
    frame["residual_norm"] = 1.0 + np.arange(len(frame)) / 10
    return frame, frame.copy()


def test_agreement_sees_a_difference_and_a_divergence():
    ours, theirs = parity_tables()
    options = {"run": ["seed", "learning_rate"], "by": ["learning_rate"],
               "metric": "residual_norm", "bar": Bar()}  # fmt: skip
    assert agreement(ours, theirs, **options)["passes"].all()
    ours.loc[3, "residual_norm"] *= 1.01
    table = agreement(ours, theirs, **options).set_index(["learning_rate", "step"])
    assert table.loc[(2.0, 10), "within"] == 0.75
    assert not table.loc[(2.0, 10), "passes"]
    assert table.loc[(1.0, 10), "passes"]
    ours, theirs = parity_tables()
    theirs.loc[1, "residual_norm"] = np.nan
    table = agreement(ours, theirs, **options).set_index(["learning_rate", "step"])
    assert table.loc[(1.0, 10), "divergence_agrees"] == 0.75
    assert table.loc[(1.0, 10), "compared"] == 3
    assert not table.loc[(1.0, 10), "passes"]


def test_authors_folder_is_read(tmp_path):
    folder = tmp_path / "results/chain_rollout/implicit/202105261803"
    (folder / "2").mkdir(parents=True)
    (folder / "results.csv").write_text(
        "Seq,SEED,LEARNING_RATE,BATCH_SIZE,MDP_MODULE_DISCOUNT,REWARD_OFFSET,USE_BIAS\n"
        "1,5,0.25,5,0.9,0.1,False\n2,7,0.5,25,0.95,0.30000000000000004,False\n"
    )
    (folder / "2/logs.csv").write_text(
        "timestep,mse,res_ones_norm,res_ortho_norm,residual_norm\n0,1,2,3,4\n10,1,1,1,2\n"
    )
    frame = compare.read_published(tmp_path)
    assert frame["seed"].unique().tolist() == [7]
    assert frame["domain"].unique().tolist() == ["chain"]
    assert frame["residual_norm"].tolist() == [4, 2]
    with pytest.raises(DataError, match="no run logs found; expected"):
        compare.read_published(tmp_path / "nothing")


def test_published_summary_is_compared_by_mean_and_divergence():
    theirs = published()
    ours = theirs.rename(columns={"n_nonfinite": "n_diverged"}).assign(backup="none")
    table = compare.compare_summary(ours)
    assert table["passes"].all()
    assert {v["verdict"] for v in compare.verdicts(table).values()} == {"agrees"}
    ours.loc[3:5, "residual_norm_mean"] *= 1.01
    assert (
        compare.verdicts(compare.compare_summary(ours))["figures 2 and 3"]["verdict"] == "differs"
    )
    fewer = ours.assign(n_runs=2)
    verdict = compare.verdicts(compare.compare_summary(fewer))["figure 1"]["verdict"]
    assert verdict == "not the published seeds"
