"""How the tables of runs and data decide the claims of `implicit`: pure functions to verdicts."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from pandas import DataFrame as Frame

from diffmbrl.implicit.metrics import ETA
from diffmbrl.implicit.names import PUBLISHED
from diffmbrl.stats.claims import Verdict, above, below, every, holds, same, some
from diffmbrl.stats.parity import Bar

WORTH = 0.01  # a rise of the final residual that matters, over the initial residual's rise
ALIKE = np.log10(1.5)  # final residuals within this factor are alike


def hardest(contraction: Frame) -> Frame:
    """Each domain's rows at the reward offset of the largest initial residual."""
    sizes = contraction.groupby(["domain", "reward_offset"], observed=True)["residual_norm"].mean()
    offset = sizes.unstack().idxmax(axis=1)
    return contraction[contraction["reward_offset"] == contraction["domain"].map(offset)]


def faster(rates: Frame, contraction: Frame) -> Verdict:
    """I10: the 1-part's contraction over the explicit one's, against n, in powers of ten."""
    rows = hardest(contraction[contraction["eta"] == ETA])
    points = rates.drop_duplicates(["domain", "seed"]).set_index(["domain", "seed"])["n"]
    table = rows.pivot_table(
        index=["domain", "seed"], columns=["rate", "parameterization"], values="ones", observed=True
    )
    parts = {}
    for domain, part in table.groupby(level="domain", observed=True):
        gain = {rate: part[rate]["implicit"] / part[rate]["explicit"] for rate in ("half", "equal")}
        n = points.loc[part.index]
        parts[str(domain)] = same(np.log10(gain["half"] / n), 0.5, " powers of ten").because(
            f"{gain['half'].median():.3g} times at half of each one's stable rate, "
            f"{gain['equal'].median():.3g} times at equal rates, n = {n.median():g}"
        )
    return every(parts)


def assumption(rates: Frame) -> Verdict:
    """I15: whether |XX'| stays bounded as data are added: the exponent of its growth in n."""
    parts = {}
    for domain, part in _by_domain(rates.drop_duplicates(["domain", "seed"])):
        facts = part[["feature_norm", "covariance_norm", "ones_share"]].median()
        parts[domain] = below(part["growth"], 0.5, 0.25).because(
            f"|phi| at most {facts.iloc[0]:.2g}, |XX'| {facts.iloc[1]:.3g}, |X'1|^2/n "
            f"{facts.iloc[2]:.2g}; growth exponent of |XX'| in n"
        )
    return every(parts)


def _by_domain(frame: Frame) -> Iterator[tuple[str, Frame]]:
    for domain, part in frame.groupby("domain", observed=True):
        yield str(domain), part


def numbers(compare: Frame, figure: str) -> Verdict:
    """I16, I18: share of the published means that ours miss."""
    rows = compare[compare["figure"] == figure]
    if (rows["n_runs"] != rows["n_runs_published"]).any():
        return Verdict("not tested", "not at the published seeds")
    missed, worst = 1 - rows["passes"].mean(), rows["difference"].max()
    found = holds(missed, 1 - Bar().share, len(rows), "share of published means not met")
    return found.because(f"within 0.1% and the same number of diverged runs; worst {worst:.2g} off")


def relative_size(ends: Frame) -> Verdict:
    """I17: log10 of |1-part| / |rest| at the start, at the hard offset over the easy one."""
    first = ends["parameterization"] == ends["parameterization"].iloc[0]
    rows = ends[first & (ends["eta"] == ETA) & (ends["rates"] == "selected")]
    size = np.log10(rows["residual_ones_norm_t0"] / rows["residual_ortho_norm_t0"])
    parts = {}
    for domain, part in _by_domain(rows.assign(size=size)):
        by_seed = part.pivot_table(index="seed", columns="reward_offset", values="size")
        moved = by_seed[part["hard"].iloc[0]] - by_seed[part["easy"].iloc[0]]
        told = f"{10 ** moved.mean():.3g} times the ratio at the hardest offset"
        parts[domain] = above(moved, ALIKE, 0.1, " powers of ten").because(told)
    return every(parts)


def rises(table: Frame, metric: str) -> pd.Series:
    """By seed, how much more the explicit residual rises from the easy offset to the hard one.

    Over the rise of the initial residual; rows of one domain, with its `easy` and `hard` offsets.
    """
    easy, hard = table["easy"].iloc[0], table["hard"].iloc[0]
    wide = table.pivot_table(
        index="seed",
        columns=["parameterization", "reward_offset"],
        values=[metric, "residual_norm_t0"],
        observed=True,
        dropna=False,
    )
    rise = {
        way: wide[metric][way][hard] - wide[metric][way][easy] for way in ("explicit", "implicit")
    }
    start = wide["residual_norm_t0"]["explicit"]
    return (rise["explicit"] - rise["implicit"]) / (start[hard] - start[easy]).mean()


def with_ends(coverage: Frame, ends: Frame) -> Frame:
    """Coverage's last step, with initial residuals and each domain's easy and hard offsets."""
    coverage = coverage.assign(
        **{name: coverage[name].astype(str) for name in ("domain", "parameterization", "data")}
    )
    run = ["domain", "parameterization", "data", "untrained_below", "reward_offset", "seed"]
    start = coverage[coverage["step"] == 0].set_index(run)["residual_norm"]
    last = coverage[coverage["step"] == coverage["step"].max()]
    last = last.join(start.rename("residual_norm_t0"), on=run)
    marks = ends.drop_duplicates("domain").set_index("domain")[["easy", "hard"]]
    return last.join(marks, on="domain")


def less_sensitive(coverage: Frame, ends: Frame) -> Verdict:
    """I19: difference of rises, over all features and over trained ones.

    Pairs in which a run diverged are left out; n says how many are left.
    """
    table, parts = with_ends(coverage, ends), {}
    table = table[table["data"] == PUBLISHED]
    table = table[table["untrained_below"] == table["untrained_below"].max()]
    for metric, name in (("residual_norm", "all"), ("trained", "trained features")):
        for domain, part in _by_domain(table):
            values = rises(part, metric)
            parts[f"{domain}, {name}"] = above(values[np.isfinite(values)], WORTH, WORTH)
    return every(parts)


def _crossed(table: Frame, choose) -> pd.Series:
    """By seed, the eta that `choose` picks on the other half of the seeds."""
    seeds = table["seed"].unique()
    halves = (seeds[::2], seeds[1::2])
    picked: dict[int, float] = {}
    for mine, others in (halves, halves[::-1]):
        if len(others):
            eta = choose(table[table["seed"].isin(others)])
            picked |= dict.fromkeys(mine, eta)
    return pd.Series(picked)


def _cost(table: Frame) -> pd.Series:
    """Final residual by seed and eta, mean over offsets."""
    return table.groupby(["seed", "eta"])["residual_norm"].mean()


def _best(table: Frame) -> float:
    return float(_cost(table).groupby("eta").mean().idxmin())


def _steadiest(table: Frame) -> float:
    at = table.pivot_table(index="eta", columns="reward_offset", values="residual_norm")
    return float((at[table["hard"].iloc[0]] - at[table["easy"].iloc[0]]).abs().idxmin())


def _implicit(ends: Frame) -> Frame:
    return ends[(ends["parameterization"] == "implicit") & (ends["rates"] == "selected")]


def _costs_more(part: Frame, against: pd.Series) -> Verdict:
    """Whether an eta costs more than the best one, chosen on the other half of the seeds."""
    best, cost = _crossed(part, _best), _cost(part)
    values = [cost[seed, against[seed]] - cost[seed, best[seed]] for seed in best.index]
    ours, theirs = (sorted({f"{eta:g}" for eta in etas}) for etas in (against, best))
    told = f"eta {' or '.join(ours)} against {' or '.join(theirs)}"
    if len(best) and (best == against.loc[best.index]).all():
        return Verdict("disagrees", f"eta {theirs[0]} is both", 0.0, n=len(best))
    return above(values, 0, 0.05 * part["residual_norm"].mean()).because(told)


def steadiest_is_not_best(ends: Frame) -> Verdict:
    """I20: in some domain the least sensitive eta costs more than the best one."""
    parts = {}
    for domain, part in _by_domain(_implicit(ends)):
        parts[domain] = _costs_more(part, _crossed(part, _steadiest))
    return some(parts)


def best_is_not_gamma(ends: Frame) -> Verdict:
    """I21: in some domain eta = gamma costs more than the best one."""
    parts = {}
    for domain, part in _by_domain(_implicit(ends)):
        gamma = part["gamma"].iloc[0]
        if gamma not in set(part["eta"]):
            text = f"gamma {gamma:g} is not among the etas"
            parts[domain] = Verdict("not tested", text)
            continue
        parts[domain] = _costs_more(part, pd.Series(gamma, index=part["seed"].unique()))
    return some(parts)


def several_actions(ends: Frame) -> Verdict:
    """I22: log10 of the final residual over the single-action one, mean over offsets.

    Pairs in which a run diverged are left out, and counted.
    """
    rows = ends[(ends["eta"] == ETA) & (ends["rates"] == "selected")]
    run = ["domain", "reward_offset", "seed"]
    one = rows[rows["parameterization"] == "implicit"].set_index(run)["residual_norm"]
    several, parts = rows[rows["parameterization"] == "implicit_mdp"], {}
    for (domain, backup), part in several.groupby(["domain", "backup"], observed=True):
        pairs = np.log10(part.set_index(run)["residual_norm"] / one).dropna()
        values = pairs.groupby(level="seed").mean()
        told = f"residual {10 ** values.median():.3g} times the single action's"
        if lost := len(part) - len(pairs):
            told += f", {lost} of {len(part)} pairs left out (diverged)"
        parts[f"{domain}, {backup}"] = same(values, ALIKE, " powers of ten").because(told)
    if not parts:
        return Verdict("not tested", "no model with several pseudo-actions was trained")
    return every(parts)
