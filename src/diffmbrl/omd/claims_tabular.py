"""Judges of the claims about the two-state MDP and the theory."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from diffmbrl.stats.claims import Verdict, above, below, every, holds, same, share

ROUNDING = 1e-9
TRUE_NORM = 4.811  # of the true model's (logits / alpha, rewards): with a larger bound it fits
OPTIMUM = 1.0272727
SMALL_ALPHA = 0.01
NAMES = {"published": "bounded as published", "joint": "bounded as stated"}


def _limited(runs: pd.DataFrame) -> pd.DataFrame:
    """Runs under a bound that excludes the true model, but for the bound 0 (nothing to learn).

    As published, each array is bounded by itself, and no bound up to 6 admits it.
    """
    some = (runs["norm_bound"] > 0) & np.isfinite(runs["norm_bound"])
    fits = (runs["projection"] == "joint") & (runs["norm_bound"] >= TRUE_NORM)
    return runs[some & ~fits]


def _of_seeds(runs: pd.DataFrame, agent: str, objective: str, metric: str) -> pd.Series:
    """A metric by projection, bound and seed."""
    part = runs[(runs["agent"] == agent) & (runs["objective"] == objective)]
    return part.set_index(["projection", "norm_bound", "seed"])[metric]


def _by_projection(gaps: pd.Series, bar: float, relevant: float, words: str) -> Verdict:
    """A gap's mean over bounds, seed by seed, above a bar under each projection."""
    parts = {}
    for name in dict.fromkeys(gaps.index.get_level_values("projection")):
        part = gaps.loc[name]
        mean = part.groupby("norm_bound").mean()
        told = f"{words}, mean over {len(mean)} bounds"
        if (below_bar := mean.index[mean < bar]).size:
            told += (
                f" ({below_bar.size} of them below, at "
                + ", ".join(f"{bound:.2f}" for bound in below_bar)
                + ")"
            )
        verdict = above(part.groupby("seed").mean(), bar, relevant)
        parts[NAMES.get(name, name)] = verdict.because(told)
    return every(parts) if parts else Verdict("not tested", "no bound was run")


def implicit_gradient(identities: pd.DataFrame) -> Verdict:
    """O1."""
    what = "gradient against finite differences, relative"
    return holds(identities["implicit"].max(), 1e-6, len(identities), what)


def above_mle(misspecification: pd.DataFrame) -> Verdict:
    """O2."""
    runs = _limited(misspecification)
    gap = _of_seeds(runs, "omd", "return", "return") - _of_seeds(
        runs, "mle", "likelihood", "return"
    )
    return _by_projection(gap, 0.0, 0.1, "return, OMD minus MLE")


def small_temperature(temperature: pd.DataFrame) -> Verdict:
    """O3."""
    alphas = temperature["alpha"].unique()
    at = alphas[np.abs(np.log(alphas / SMALL_ALPHA)).argmin()]
    if not np.isclose(at, SMALL_ALPHA, rtol=0.3):
        return Verdict("not tested", f"no temperature near {SMALL_ALPHA} was run")
    rows = temperature[np.isclose(temperature["alpha"], at) & (temperature["instance"] >= 0)]
    parts = {
        "Q*": below(rows["difference"], 0.01, 0.01),
        "return lost": below(rows["regret"], 0.01, 0.01),
    }
    return every(parts).because(f"relative, {len(rows)} random MDPs, bar 1%")


def equivalent_models(identities: pd.DataFrame) -> Verdict:
    """O4."""
    worst = identities[["equation_2", "equation_6"]].to_numpy().max()
    return holds(worst, ROUNDING, len(identities), "loss of return, and Bellman error, relative")


def deterministic(bounds: pd.DataFrame) -> Verdict:
    """O5."""
    runs = bounds[(bounds["agent"] == "omd") & ~np.isfinite(bounds["norm_bound"])]
    logits = np.stack([runs[f"logits_{i}"] for i in range(8)], axis=1).reshape(-1, 2, 2, 2)
    logits = logits / SMALL_ALPHA
    P = np.exp(logits - logits.max(axis=-1, keepdims=True))
    P /= P.sum(axis=-1, keepdims=True)
    equivalent = (runs["q_error"] < 1e-3).to_numpy()
    sure = (P.max(axis=-1) > 0.95).all(axis=(1, 2))
    found = share(int(np.sum(equivalent & sure)), len(runs), 0.5, 0.4)
    return found.because(
        f"without a bound, {int(equivalent.sum())} of {len(runs)} models are equivalent "
        "(error below 0.001); and every transition has a probability above 0.95"
    )


def theorem_2(pairs: pd.DataFrame) -> Verdict:
    """O6."""
    excess = np.maximum(
        pairs["error"] / pairs["operator"].clip(1e-12), pairs["error"] / pairs["likelihood"]
    )
    return holds(excess.max(), 1 + 1e-6, len(pairs), "error of Q* over either bound")


def lemma_1(pairs: pd.DataFrame) -> Verdict:
    """O7."""
    ratio = pairs["operator"] / pairs["likelihood"].clip(1e-12)
    inside = pairs["outside"] <= ROUNDING
    what = "OMD's bound over MLE's"
    parts = {
        "values within [0, r_max / (1 - gamma)]": holds(
            ratio[inside].max(), 1 + 1e-6, int(inside.sum()), what
        ),
        "any model": holds(ratio.max(), 1 + 1e-6, len(pairs), what),
    }
    return every(parts)


def lower_error(bounds: pd.DataFrame) -> Verdict:
    """O8."""
    runs = _limited(bounds)

    def gap(metric: str) -> pd.Series:
        mle = np.log10(_of_seeds(runs, "mle", "likelihood", metric))
        return mle - np.log10(_of_seeds(runs, "omd", "bellman", metric))

    return every(
        {
            "error": _by_projection(gap("q_error"), 0.0, 0.1, "log10 of MLE's over OMD's"),
            "bound": _by_projection(gap("bound"), 0.0, 0.1, "log10 of MLE's over OMD's"),
        }
    )


def bellman_means_returns(bounds: pd.DataFrame, misspecification: pd.DataFrame) -> Verdict:
    """O9."""
    bellman = _of_seeds(_limited(bounds), "omd", "bellman", "return")
    returns = _of_seeds(_limited(misspecification), "omd", "return", "return")
    gaps = (bellman - returns).loc[["published"]].groupby("seed").mean()
    free = bounds[(bounds["agent"] == "omd") & ~np.isfinite(bounds["norm_bound"])]
    parts = {
        "under a bound": same(gaps, 0.1).because("return, Bellman error minus returns"),
        "without one": same(free["return"] - OPTIMUM, 0.1).because("return minus the optimum"),
    }
    return every(parts)


def more_samples(samples: pd.DataFrame) -> Verdict:
    """O10: in how many seeds the returns need more transitions until 95% of the optimum."""
    enough = 0.95 * OPTIMUM
    largest = samples[samples["batch"] == samples["batch"].max()]
    parts = {}
    for alpha, part in largest.groupby("alpha"):
        by = part.groupby(["objective", "seed"])
        reached = part[part["return"] >= enough].groupby(["objective", "seed"])["transitions"].min()
        counts = reached.reindex(by.size().index)
        never = counts.isna().groupby("objective").sum()
        used = counts.fillna(np.inf)
        more = used.loc["return"] > used.loc["bellman"]
        told = (
            f"seeds in which the returns need more; within {part['transitions'].max():,} they do "
            f"not reach {enough:.2f} in {never['return']} runs (Bellman error: "
            f"{never['bellman']}), "
            f"and need {used.loc['return'].min():,.0f} at least (Bellman error: "
            f"{used.loc['bellman'].min():,.0f})"
        )
        parts[f"alpha {alpha:g}"] = share(int(more.sum()), len(more), 0.5, 0.4).because(told)
    return every(parts)


def same_under_noise(noise: pd.DataFrame) -> Verdict:
    """O19."""
    table = noise.pivot_table(index=["sigma", "seed"], columns="adjoint", values="return")
    if not {"exact", "identity"} <= set(table):
        return Verdict("not tested", "one of the two adjoints was not run")
    gap = (table["exact"] - table["identity"]).groupby("seed").mean()
    return same(gap, 0.1).because("return, exact minus identity, mean over noise levels")


def preconditioner(alignment: pd.DataFrame) -> Verdict:
    """O20."""
    gap = alignment.assign(gap=alignment["exact"] - alignment["identity"])
    near, far = (
        gap[gap["sigma"] == sigma]["gap"] for sigma in (gap["sigma"].min(), gap["sigma"].max())
    )
    parts = {
        f"noise {gap['sigma'].min():.3g}": above(near, 0.05, 0.1),
        f"noise {gap['sigma'].max():.3g}": same(far, 0.15),
    }
    return every(parts).because("cosine with the exact gradient, inverse Jacobian minus identity")


def like_the_gradient_constraint(
    bounds: pd.DataFrame, noise: pd.DataFrame, constraint: pd.DataFrame
) -> Verdict:
    """O27."""
    parts: dict[str, Verdict] = {}
    free = constraint["sigma"] == 0
    bounded = constraint[free & (constraint["adjoint"] == "exact")]
    value = _limited(bounds)
    value = value[(value["projection"] == "published") & (value["agent"] == "omd")]
    parts["figure 3, error of Q*"] = _paired(bounded, value, "norm_bound", "q_error", 0.1)
    for adjoint in ("exact", "identity"):
        ours = constraint[~free & (constraint["adjoint"] == adjoint)]
        theirs = noise[noise["adjoint"] == adjoint]
        parts[f"figure 6, return, {adjoint}"] = _paired(ours, theirs, "sigma", "return", 0.1)
    return every(parts)


def _paired(
    ours: pd.DataFrame, theirs: pd.DataFrame, axis: str, metric: str, margin: float
) -> Verdict:
    """Whether a metric differs by less than a margin, mean over an axis, paired by seed."""
    both = ours.merge(theirs, on=[axis, "seed"], suffixes=("", "_other"))
    gap = (both[metric] - both[f"{metric}_other"]).groupby(both["seed"]).mean()
    return same(gap, margin)


def solved_rates(saddle: pd.DataFrame) -> Mapping[str, pd.Series]:
    """By method and seed, at how many rates the model ends with an error of Q* below 0.01."""
    last = saddle[saddle["step"] == saddle["step"].max()]
    solved = (last["q_error"] < 0.01).groupby([last["method"], last["seed"]]).sum()
    return {method: solved.loc[method] for method in solved.index.get_level_values(0).unique()}
