"""Stage: the claims of Zhang et al. 2023, and what the tables say of them.

Changes are paired by seed: a plain and a normalised run of one seed start from the same weights.
Returns are areas under the learning curve (mean return over training) in units of what plain runs
of the task came to gain: 0.1 is a tenth of it.
"""

from collections.abc import Callable
from itertools import product

import numpy as np
import pandas as pd
from scipy import stats

from diffmbrl.pipeline.stage import Job
from diffmbrl.rpg.aggregate import paired
from diffmbrl.stats import claims
from diffmbrl.stats.claims import Claim, Verdict, above, below, every, holds, less, same

MUJOCO = ("inverted_pendulum", "inverted_double_pendulum", "hopper", "half_cheetah", "walker2d",
          "ant")  # fmt: skip
MARGIN, FACTOR = 0.1, np.log10(2)  # changes that matter: of returns, of logarithms of variance
NOTHING = Verdict("not tested", "this scale trains no such runs")
Parts = dict[str, Verdict]


def run(job: Job) -> None:
    """Inputs: the tables of `rpg.aggregate`."""
    claims.write(CLAIMS, job)


def degree(theory: pd.DataFrame) -> Verdict:
    """Degree in the Lipschitz constant L: slope of log tr on log L, at each h; then against h."""
    growth = theory[(theory["study"] == "growth") & (theory["x"] >= 1)]
    slopes, fits = [], []
    for _, system in growth.groupby("seed"):
        by_h = system.groupby("horizon")
        degrees = by_h.apply(lambda part: _slope(np.log(part["x"]), np.log(part["value"])))
        slopes.append(_slope(degrees.index, degrees))
        fits.append(np.corrcoef(degrees.index, degrees)[0, 1] ** 2 if len(degrees) > 2 else np.nan)
    return every(
        {
            "degree per step of h": above(slopes, 0, 1),
            "share of the degree that a line in h explains": above(fits, 0.95, 0.04),
        }
    )


def growth(theory: pd.DataFrame) -> Verdict:
    """Above 1 the logarithm of tr(Sigma) grows with h, at 1 or less with the logarithm of h."""
    parts: Parts = {}
    for level, part in theory[theory["study"] == "growth"].groupby("x"):
        tails = [one.sort_values("horizon").iloc[-2:] for _, one in part.groupby("seed")]
        if level > 1:
            rates = [_slope(t["horizon"], np.log(t["value"])) / (4 * np.log(level)) for t in tails]
            parts[f"L = {level:g}, rate per step over 4 log L"] = above(rates, 0.5, 0.25)
        else:
            powers = [_slope(np.log(t["horizon"]), np.log(t["value"])) for t in tails]
            parts[f"L = {level:g}, power of h"] = below(powers, 8, 2)
    return every(parts)


def variance(runs: pd.DataFrame, swap: pd.DataFrame) -> Verdict:
    """R3: the change of log10 tr(Sigma) / |mean|^2 at the longest h, SN on both against none.

    Of agents that were trained so, and where only the model is fitted anew.
    """
    parts: Parts = {}
    for task, part in _dp(runs).groupby("task"):
        parts[f"{task}, trained agents"] = _variance_at(part, part["horizon"].max())
        fitted = swap[swap["task"] == task].pivot(index="seed", columns="model", values="ratio")
        change = _log_ratio(fitted["hidden"], fitted["none"])
        parts[f"{task}, only the model fitted anew"] = below(change, 0, FACTOR)
    return every(parts) if parts else NOTHING


def bounded(runs: pd.DataFrame) -> Verdict:
    """R4: local Lipschitz constants at stored states, by what is normalised."""
    parts: Parts = {}
    normalised = runs[runs["sn"] != "none"]
    for part, layers in product(("policy", "model"), ("hidden", "all")):
        rows = normalised[normalised["sn"].isin([part, "both"]) & (normalised["layers"] == layers)]
        what = f"largest local constant, {part}, layers: {layers}"
        worst = rows[f"local_max_{part}"].max() if len(rows) else np.nan
        parts[what] = holds(worst, 1.001, len(rows), what)
    error = normalised["sn_error"].max()
    parts["layers"] = holds(error, 0.05, len(normalised), "largest |sigma / target - 1|")
    return every(parts)


def keeps_returns(runs: pd.DataFrame) -> Verdict:
    """R5: area with SN on both less that without, at every h."""
    trained = runs[runs["estimator"].isin(["rp_dp", "rp_dr"])]
    parts: Parts = {}
    for (task, estimator, h), part in trained.groupby(["task", "estimator", "horizon"]):
        change = _area(runs, part)
        if len(change):
            name = f"{task}, {estimator}, h = {h}"
            parts[name] = above(change, -MARGIN, MARGIN)
    return every(parts) if parts else NOTHING


def model_free(runs: pd.DataFrame) -> Verdict:
    """R6: area of plain RP-DP at h = 3 less that of SAC, by seed."""
    plain = runs[_arm(runs, "none")]

    def one(part: pd.DataFrame) -> Verdict:
        areas = part.set_index("seed")["area"]
        ours = ((part["estimator"] == "rp_dp") & (part["horizon"] == 3)).to_numpy()
        change = less(areas[ours], areas[(part["estimator"] == "sac").to_numpy()])
        return above(change / _span(runs, part["task"].iloc[0]), -MARGIN, MARGIN)

    return _each_task(plain, one)


def best_horizon(horizon: pd.DataFrame) -> Verdict:
    """R7: rank correlation of the best h with the formula, against the whole gradient."""
    parts: Parts = {}
    for column, what in (("best_bias_full", "least bias"), ("best_error_full", "a batch's error")):
        found = [_rank(p["formula"], p[column]) for _, p in horizon.groupby("seed")]
        parts[f"rank correlation, {what}"] = above(found, 0.5, 0.2)
    return every(parts)


def accurate(theory: pd.DataFrame, horizon: pd.DataFrame) -> Verdict:
    """R8: the critic's part of the bias from step to step; best h of the most accurate models."""
    rates = []
    for _, system in theory[theory["study"] == "critic"].groupby(["seed"]):
        slopes = [_slope(p["horizon"], np.log(p["value"])) for _, p in system.groupby("x")]
        rates.append(np.exp(np.mean(slopes)))
    sharp = horizon[horizon["model_error"] == horizon["model_error"].min()]
    best = sharp.groupby("seed")["best_bias_full"].mean()
    return every(
        {
            "factor per step of the bias that the critic causes": below(rates, 1, 0.05),
            "h of least bias with the most accurate model": above(best, 1, 1),
        }
    )


def converges(convergence: pd.DataFrame) -> Verdict:
    """R9: is |grad J|^2 explained by progress, bias and noise; does SN add anything beyond them?"""
    parts: Parts = {}
    for task, part in convergence.groupby("task"):
        runs = part[~part["diverged"]]
        lost = len(part) - len(runs)
        place = f"{task}, without {lost} of {len(part)} runs, which diverged" if lost else str(task)
        runs = runs.assign(beyond=np.log10(runs["grad_square"] / runs["predicted"]))
        found = [_rank(p["predicted"], p["grad_square"]) for _, p in runs.groupby("seed")]
        parts[f"{place}: rank correlation of measured and predicted"] = above(found, 0.5, 0.2)
        keys = ["seed", "horizon", "batch"]
        plain = runs[runs["sn"] == "none"].set_index(keys)["beyond"]
        other = runs[runs["sn"] != "none"].groupby(keys)["beyond"].mean()
        change = less(other, plain).groupby("seed").mean()
        parts[f"{place}: log10 of what SN adds beyond"] = same(change, FACTOR)
    return every(parts)


def mujoco(runs: pd.DataFrame) -> Verdict:
    """R10: variance and returns at the longest h on MuJoCo's tasks."""
    ours = _dp(runs[runs["task"].isin(MUJOCO)])
    parts: Parts = {}
    for task, part in ours.groupby("task"):
        h = part["horizon"].max()
        parts[f"{task}: log10 of the change of tr/|mean|^2, h = {h}"] = _variance_at(part, h)
        area = _area(runs, part[part["horizon"] == h])
        parts[f"{task}: area, h = {h}"] = above(area, -MARGIN, MARGIN)
    return every(parts) if parts else NOTHING


def returns_by_h(runs: pd.DataFrame) -> Verdict:
    """R11: the gain in area by SN at the longest h less that at the shortest."""

    def one(part: pd.DataFrame) -> Verdict:
        gains = _changes(part, "area", lambda a, b: (a - b) / _span(runs, part["task"].iloc[0]))
        return above(_contrast(gains), 0, MARGIN)

    return _each_task(_dp(runs), one)


def variance_by_h(runs: pd.DataFrame) -> Verdict:
    """R12: the change of log10 tr/|mean|^2 by SN at the longest h less that at the shortest."""

    def one(part: pd.DataFrame) -> Verdict:
        return below(_contrast(_changes(part, "ratio", _log_ratio)), 0, FACTOR)

    return _each_task(_dp(runs), one)


def hurts(smoothness: pd.DataFrame) -> Verdict:
    """R13: what policies lose that are trained in a normalised model, at the stiffest floor."""
    hard = smoothness[smoothness["stiffness"] == smoothness["stiffness"].max()]
    hard = hard[(hard["sn"] == "model") & (hard["target"] == 1)]
    parts = {f"return lost, layers: {layers}": above(part["lost"], 0, 1)
             for layers, part in hard.groupby("layers")}  # fmt: skip
    return every(parts) if parts else NOTHING


def _dp(runs: pd.DataFrame) -> pd.DataFrame:
    return runs[runs["estimator"] == "rp_dp"]


def _each_task(runs: pd.DataFrame, judge: Callable[[pd.DataFrame], Verdict]) -> Verdict:
    parts = {str(task): judge(part) for task, part in runs.groupby("task")}
    return every(parts) if parts else NOTHING


def _arm(runs: pd.DataFrame, sn: str) -> pd.Series:
    """The rows of an arm whose hidden layers are meant, orthogonal at the start, not clipped."""
    usual = (runs["layers"] == "hidden") & (runs["init"] == "orthogonal") & (runs["clip"] == 0)
    return usual & (runs["sn"] == sn)


def _changes(runs: pd.DataFrame, column: str, change: Callable) -> pd.DataFrame:
    """From no normalisation to both, by h and seed; NaN where either run diverged."""
    return paired(runs, column, _arm(runs, "both"), _arm(runs, "none"), change)


def _contrast(changes: pd.DataFrame) -> pd.Series:
    """The change at the longest h less that at the shortest, by seed."""
    h = changes["horizon"]
    if h.nunique() < 2:
        return pd.Series(dtype=float)
    by_seed = changes.set_index("seed")["change"]
    return less(by_seed[(h == h.max()).to_numpy()], by_seed[(h == h.min()).to_numpy()])


def _variance_at(runs: pd.DataFrame, h: int) -> Verdict:
    changes = _changes(runs[runs["horizon"] == h], "ratio", _log_ratio)
    return below(changes["change"], 0, FACTOR)


def _area(runs: pd.DataFrame, part: pd.DataFrame) -> pd.Series:
    """Changes of the area from none to both, in units of the task's span."""
    span = _span(runs, part["task"].iloc[0])
    return _changes(part, "area", lambda a, b: (a - b) / span)["change"]


def _span(runs: pd.DataFrame, task: str) -> float:
    """What plain runs of a task came to gain at best: mean final return of the best kind."""
    plain = runs[_arm(runs, "none") & (runs["task"] == task)]
    by_kind = (plain["final"] - plain["first"]).groupby([plain["estimator"], plain["horizon"]])
    return max(float(by_kind.mean().max()), 1e-9)


def _log_ratio(one: pd.Series, other: pd.Series) -> pd.Series:
    return np.log10(one / other)


def _rank(x: pd.Series, y: pd.Series) -> float:
    """Spearman's correlation; NaN where either does not vary."""
    if x.nunique() < 2 or y.nunique() < 2:
        return np.nan
    return float(stats.spearmanr(x, y).statistic)


def _slope(x, y) -> float:
    """Slope of the least-squares line; NaN with fewer than two points."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    return float(np.polyfit(x, y, 1)[0]) if len(x) > 1 else np.nan


CLAIMS = (
    Claim("R1", "section 5, proposition on the variance",
          "The variance of the gradient is polynomial in the Lipschitz constants of model and "
          "policy, of a degree that is linear in the number of model steps h.",
          degree, ("theory",), "fig_rpg_8"),
    Claim("R2", "section 5", "Above 1 the variance grows exponentially with h.",
          growth, ("theory",), "fig_rpg_8"),
    Claim("R3", "sections 5 and 7",
          "Spectral normalisation of model and policy lowers the variance of long unrolls (here: "
          "tr/|mean|^2 at the h that is trained with).",
          variance, ("runs", "swap"), "fig_rpg_2"),
    Claim("R4", "section 5", "A normalised network has a Lipschitz constant of at most 1.",
          bounded, ("runs",), "fig_rpg_5"),
    Claim("R5", "section 7", "Normalisation keeps or improves returns.",
          keeps_returns, ("runs",), "fig_rpg_1"),
    Claim("R6", "section 7", "Model-based RP gradients do at least as well as model-free ones.",
          model_free, ("runs",), "fig_rpg_1"),
    Claim("R7", "proposition 5.7",
          "With Lipschitz constants of at most 1 the best h scales with "
          "e_v / ((1 - gamma)(e_f + e_v)), the errors of critic and model.",
          best_horizon, ("horizon",), "fig_rpg_4"),
    Claim("R8", "section 5", "Longer unrolls give more accurate gradients.",
          accurate, ("theory", "horizon"), "fig_rpg_8"),
    Claim("R9", "corollary 5.9, open question 3",
          "Convergence is governed by bias and variance of the gradients; normalisation acts "
          "through them alone.", converges, ("convergence",), "fig_rpg_10"),
    Claim("R10", "section 7",
          "On MuJoCo's tasks normalisation lowers the variance and keeps or improves returns.",
          mujoco, ("runs",), "fig_rpg_1"),
    Claim("R11", "section 7", "The longer the unroll, the more normalisation helps returns.",
          returns_by_h, ("runs",), "fig_rpg_1"),
    Claim("R12", "section 7", "The longer the unroll, the more it lowers the variance.",
          variance_by_h, ("runs",), "fig_rpg_2"),
    Claim("R13", "section 5, open questions 1 and 2",
          "Where the dynamics are not smooth, normalising the model costs returns.",
          hurts, ("smoothness",), "fig_rpg_6"),
)  # fmt: skip
