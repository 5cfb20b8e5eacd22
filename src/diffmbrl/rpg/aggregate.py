"""Stage: statistics over seeds of every setting, and each claim with its number."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from diffmbrl.pipeline.stage import Job

RESAMPLES = 2000
BATCH = 64  # gradients that a training step averages: what variance is divided by
SOLVED = -200.0
SETTING = ["task", "estimator", "horizon", "sn", "init"]
LOGS = (
    "bound_model",
    "bound_policy",
    "local_model",
    "local_max_model",
    "local_policy",
    "local_max_policy",
    "model_loss",
    "alpha",
    "sn_error",
)
GRADIENTS = (
    "trace",
    "mean_square",
    "ratio",
    "bias_model",
    "bias_reference",
    "true_trace",
    "relative_bias_model",
    "relative_bias_reference",
    "error_model",
)
Claim = dict[str, Any]


def run(job: Job) -> None:
    """Inputs: the result tables. Outputs: a table of statistics for each, and the claims."""
    names = ("returns", "gradients", "horizon", "smoothness", "theory")
    frames = {name: pd.read_parquet(job.input(name)) for name in names}
    made = {
        "returns": returns(frames["returns"]),
        "gradients": gradients(frames["gradients"]),
        "horizon": best_horizons(frames["horizon"]),
        "smoothness": smoothness(frames["smoothness"]),
        "theory": theory(frames["theory"]),
    }
    for name, table in made.items():
        table.to_csv(job.outputs[name], index=False, float_format="%.8g", lineterminator="\n")
    rows = [
        *claims_of_training(frames["returns"]),
        *claims_of_gradients(frames["gradients"]),
        *claims_of_horizon(made["horizon"]),
        *claims_of_smoothness(frames["smoothness"]),
        *claims_of_theory(frames["theory"]),
    ]
    pd.DataFrame(rows).to_csv(
        job.outputs["claims"], index=False, float_format="%.6g", lineterminator="\n"
    )


def interval(values: Sequence[float], statistic=np.mean) -> tuple[float, float, float]:
    """A statistic of the seeds and its 95% percentile bootstrap interval over them."""
    finite = np.asarray([v for v in values if np.isfinite(v)], float)
    if len(finite) == 0:
        return np.nan, np.nan, np.nan
    generator = np.random.default_rng(0)
    draws = generator.choice(finite, (RESAMPLES, len(finite)))
    low, high = np.percentile(statistic(draws, axis=1), [2.5, 97.5])
    return float(statistic(finite)), float(low), float(high)


def returns(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean return over seeds with its interval, and medians of the diagnostics, by step."""
    rows = []
    for key, part in frame.groupby([*SETTING, "step"], sort=True):
        mean, low, high = interval(part["return_mean"])
        rows.append(
            {
                **dict(zip([*SETTING, "step"], key, strict=True)),
                "return_mean": mean,
                "return_low": low,
                "return_high": high,
                "n_runs": len(part),
                "n_diverged": int(part["diverged"].sum()),
                **{
                    name: part[name].max() if name == "sn_error" else part[name].median()
                    for name in LOGS
                },
            }
        )
    return pd.DataFrame(rows)


def with_errors(frame: pd.DataFrame) -> pd.DataFrame:
    """Squared biases over the square of their reference, and the error of a batch's mean gradient.

    `error_model` is |bias|^2 + tr(Sigma) / BATCH, over the square of the gradient at the same h.
    """
    same = frame["true_square"].where(frame["true_square"] > 0)
    return frame.assign(
        relative_bias_model=frame["bias_model"] / same,
        relative_bias_reference=frame["bias_reference"] / frame["reference_square"],
        error_model=(frame["bias_model"] + frame["trace"] / BATCH) / same,
    )


def gradients(frame: pd.DataFrame) -> pd.DataFrame:
    """Median, smallest and largest over seeds of what was measured of the gradients."""
    groups = with_errors(frame).groupby([*SETTING, "snapshot", "starts"], sort=True)
    parts = [groups.size().rename("n_runs"), groups["diverged"].sum().rename("n_diverged")]
    for name in GRADIENTS:
        parts += [
            groups[name].median().rename(name),
            groups[name].min().rename(f"{name}_low"),
            groups[name].max().rename(f"{name}_high"),
        ]
    return pd.concat(parts, axis=1).reset_index()


def best_horizons(frame: pd.DataFrame) -> pd.DataFrame:
    """The h of least error for every problem: of the bias alone, and with a batch's variance."""
    frame = frame.assign(
        error_same=frame["bias_same"] + frame["trace"] / BATCH,
        error_full=frame["bias_full"] + frame["trace"] / BATCH,
    )
    keys = ["gamma", "model_error", "critic_error", "seed", "formula"]
    rows = []
    for key, part in frame.groupby(keys, sort=True):
        finite = part[~part["diverged"]]
        best = {
            f"best_{name}": finite.loc[finite[name].idxmin(), "horizon"]
            for name in ("bias_same", "bias_full", "error_same", "error_full")
        }
        rows.append(
            {
                **dict(zip(keys, key, strict=True)),
                **best,
                "largest": part["horizon"].max(),
                "n_diverged": int(part["diverged"].sum()),
            }
        )
    return pd.DataFrame(rows)


def smoothness(frame: pd.DataFrame) -> pd.DataFrame:
    """Medians, smallest and largest over seeds, by stiffness and target."""
    groups = with_gradient_error(frame).groupby(["stiffness", "sn", "target"], sort=True)
    names = (
        "model_error",
        "jacobian_error",
        "lipschitz",
        "true_lipschitz",
        "trace",
        "mean_square",
        "true_trace",
        "true_square",
        "bias_model",
        "gradient_error",
        "return_untrained",
        "return_trained",
    )
    parts = [groups.size().rename("n_runs"), groups["diverged"].sum().rename("n_diverged")]
    for name in names:
        parts += [
            groups[name].median().rename(name),
            groups[name].min().rename(f"{name}_low"),
            groups[name].max().rename(f"{name}_high"),
        ]
    return pd.concat(parts, axis=1).reset_index()


def with_gradient_error(frame: pd.DataFrame) -> pd.DataFrame:
    """|bias|^2 + tr(Sigma) / BATCH: the expected squared error of a batch's mean gradient."""
    return frame.assign(gradient_error=frame["bias_model"] + frame["trace"] / BATCH)


def theory(frame: pd.DataFrame) -> pd.DataFrame:
    """Medians, smallest and largest over random systems."""
    groups = frame.groupby(["study", "x", "horizon"], sort=True)["value"]
    return groups.agg(
        value="median", value_low="min", value_high="max", n_runs="size"
    ).reset_index()


def _claim(name: str, statement: str, values, holds, statistic=np.mean) -> Claim:
    estimate, low, high = interval(values, statistic)
    return {
        "claim": name,
        "statistic": statement,
        "estimate": estimate,
        "low": low,
        "high": high,
        "n": len(values),
        "holds": bool(holds(estimate, low, high)),
    }


def claims_of_training(frame: pd.DataFrame) -> Iterator[Claim]:
    """Learning, its final returns against SAC's, and how well normalisation holds."""
    late = np.unique(frame["step"])[-3:]
    for key, part in frame.groupby(["estimator", "sn", "init"], sort=True):
        name, best = "/".join(key), part.groupby("seed")["return_mean"].max()
        yield _claim(
            "learns",
            f"share of seeds that reach {SOLVED:g}: {name}",
            best > SOLVED,
            lambda e, low, high: e == 1,
        )
        final = part[part["step"].isin(late)].groupby("seed")["return_mean"].mean()
        yield _claim(
            "final return",
            f"mean of the last 3 evaluations: {name}",
            final,
            lambda e, low, high: low > SOLVED,
        )
    normalised = frame[frame["sn"] != "none"]
    yield _claim(
        "normalisation holds",
        "largest |sigma / target - 1|",
        [normalised["sn_error"].max()],
        lambda e, low, high: e < 0.01,
    )


def _slope(part: pd.DataFrame, x, y) -> float:
    good = np.isfinite(y) & np.isfinite(x)
    return stats.linregress(x[good], y[good]).slope if good.sum() > 2 else np.nan


def claims_of_gradients(frame: pd.DataFrame) -> Iterator[Claim]:
    """Exactness; growth in h; what normalisation and initialisation each do."""
    exact = frame[frame["task"] == "linear_quadratic"]
    yield _claim(
        "exact",
        "share of means whose every coordinate lies within 3 standard errors",
        exact["worst_z"] < 3,
        lambda e, low, high: e > 0.9,
    )
    ours = frame[
        (frame["task"] != "linear_quadratic")
        & (frame["starts"] == "fixed")
        & (frame["estimator"] == "rp_dp")
    ]
    longest, last = ours["horizon"].max(), ours["snapshot"].max()
    for (sn, init, snapshot), part in ours.groupby(["sn", "init", "snapshot"], sort=True):
        tail = part[part["horizon"] > 0]
        slopes = [_slope(p, p["horizon"], np.log(p["trace"])) for _, p in tail.groupby("seed")]
        yield _claim(
            "growth in h",
            f"d log tr(Sigma) / d h, {sn}/{init}, step {snapshot}",
            slopes,
            lambda e, low, high: low > 0,
        )
    table = ours[ours["horizon"] == longest].set_index(["sn", "init", "snapshot", "seed"])
    pairs = [
        (f"{sn}, init matched", (sn, init), ("none", init))
        for sn, init in (
            ("both", "orthogonal"),
            ("both", "uniform"),
            ("model", "orthogonal"),
            ("policy", "orthogonal"),
        )
    ]
    pairs.append(
        ("both, as released (init not matched)", ("both", "uniform"), ("none", "orthogonal"))
    )
    pairs.append(("init alone, plain", ("none", "uniform"), ("none", "orthogonal")))
    for label, one, other in pairs:
        for snapshot in sorted({ours["snapshot"].min(), last}):
            for name in ("trace", "ratio"):
                change = _log_ratio(table[name], (*one, snapshot), (*other, snapshot))
                if len(change):
                    what = {"trace": "tr(Sigma)", "ratio": "tr(Sigma)/|mean|^2"}[name]
                    yield _claim(
                        f"normalisation lowers {what}",
                        f"log10 of its change at h = {longest}, step {snapshot}: {label} "
                        f"({'/'.join(one)} over {'/'.join(other)})",
                        change,
                        lambda e, low, high: high < 0,
                    )


def _log_ratio(values: pd.Series, one: tuple, other: tuple) -> np.ndarray:
    try:
        a, b = values.loc[one], values.loc[other]
    except KeyError:
        return np.array([])
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log10((a / b).dropna().to_numpy())


def claims_of_horizon(best: pd.DataFrame) -> Iterator[Claim]:
    """Rank correlation of the best h with the formula and with e_v / e_f, for each system."""
    best = best.assign(quotient=best["critic_error"] / best["model_error"])
    for name in ("best_bias_same", "best_error_same", "best_bias_full", "best_error_full"):
        for x in ("formula", "quotient"):
            values = [_rank_correlation(part[x], part[name]) for _, part in best.groupby("seed")]
            yield _claim(
                "best horizon follows the formula",
                f"Spearman correlation of {name} with "
                + ("the formula" if x == "formula" else "critic error / model error"),
                values,
                lambda e, low, high: low > 0.5,
            )


def _rank_correlation(x: pd.Series, y: pd.Series) -> float:
    """Spearman's, NaN where either never changes."""
    if x.nunique() < 2 or y.nunique() < 2:
        return np.nan
    return float(stats.spearmanr(x, y).statistic)


def claims_of_smoothness(frame: pd.DataFrame) -> Iterator[Claim]:
    """Whether a model normalised to 1 serves worse than a plain one, by stiffness."""
    frame = with_gradient_error(frame)
    plain = frame[frame["sn"] == "none"].set_index(["stiffness", "seed"])
    for target, mine in frame[frame["sn"] == "model"].groupby("target"):
        mine = mine.set_index(["stiffness", "seed"])
        for stiffness in sorted(frame["stiffness"].unique()):
            lost = (mine["return_trained"] - plain["return_trained"]).loc[stiffness]
            yield _claim(
                "normalisation hurts the policy on hard contacts",
                f"return trained in it less that in the plain model: "
                f"target {target:g}, stiffness {stiffness:g}",
                lost,
                lambda e, low, high: high < 0,
            )


def claims_of_theory(frame: pd.DataFrame) -> Iterator[Claim]:
    """Slopes that the theory names, one value a random system."""
    batch = frame[frame["study"] == "batch"]
    slopes = [_slope(p, np.log(p["x"]), np.log(p["value"])) for _, p in batch.groupby("seed")]
    yield _claim(
        "variance falls as 1/N", "d log tr / d log N", slopes, lambda e, low, high: abs(e + 1) < 0.1
    )
    growth = frame[(frame["study"] == "growth") & (frame["horizon"] >= 2)]
    for x, part in growth.groupby("x"):
        if x > 1:
            late = part[part["horizon"] >= part["horizon"].max() / 2]
            slopes = [
                _slope(p, p["horizon"], np.log(p["value"]))
                if len(p) > 2
                else np.diff(np.log(p["value"]))[-1] / np.diff(p["horizon"])[-1]
                for _, p in late.sort_values("horizon").groupby("seed")
            ]
            yield _claim(
                "growth follows the Lipschitz constant",
                f"d log tr / d h over 4 log L, L = {x:g}",
                np.array(slopes) / (4 * np.log(x)),
                lambda e, low, high: 0.5 < e < 3,
            )
        else:
            slopes = [
                _slope(p, np.log(p["horizon"]), np.log(p["value"])) for _, p in part.groupby("seed")
            ]
            yield _claim(
                "growth is polynomial for L <= 1",
                f"d log tr / d log h, L = {x:g}",
                slopes,
                lambda e, low, high: e < 8,
            )
    model = frame[(frame["study"] == "model")]
    for h, part in model.groupby("horizon"):
        slopes = [
            np.polyfit(np.log(p["x"]), np.log(p["value"]), 1)[0] if len(p) > 1 else np.nan
            for _, p in part.groupby("seed")
        ]
        yield _claim(
            "bias is linear in the model's Jacobian error",
            f"d log bias / d log error, h = {h}",
            slopes,
            lambda e, low, high: 0.8 < e < 1.3,
        )
    critic = frame[(frame["study"] == "critic")]
    for gamma, part in critic.groupby("x"):
        late = part[part["horizon"] >= part["horizon"].max() / 2]
        rates = [
            np.exp(np.diff(np.log(p["value"]))[-1] / np.diff(p["horizon"])[-1])
            if len(p) > 1
            else np.nan
            for _, p in late.sort_values("horizon").groupby("seed")
        ]
        yield _claim(
            "the critic's part of the bias falls as gamma^h",
            f"its factor a step over gamma L^2, gamma = {gamma:g}, L = 0.95",
            np.array(rates) / (gamma * 0.95**2),
            lambda e, low, high: 0.7 < e < 1.2,
        )
