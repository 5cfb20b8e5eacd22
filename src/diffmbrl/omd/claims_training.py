"""Judges of the claims about training: CartPole, and HalfCheetah.

They read one row per run: of `omd.finals`, at the pair of rates that was selected on other seeds;
of `omd.control_summary`, at the best pair.
"""

from dataclasses import replace

import numpy as np
import pandas as pd

from diffmbrl.omd.claims_tabular import solved_rates
from diffmbrl.omd.finals import by_setting, selected
from diffmbrl.omd.settings import Setting
from diffmbrl.stats.claims import Verdict, above, below, every, less, same, share
from diffmbrl.stats.kinds import Kind

NEAR = 475  # of 500
FULL, PUBLISHED = 100_000, 200_000  # steps from which a run counts as long; the paper's
FULL_CONTROL, PUBLISHED_CONTROL = 500_000, 1_000_000
MATTERS = 50  # a difference of returns that matters: a tenth of the optimum
SMALL, LARGE = (1, 2, 3, 4), (6, 12)
PAIRS = 6  # of rates, of which the paper takes the best one for each setting
ABLATED = ("inner_steps", "double_q", "adjoint", "inner_optimizer", "probabilistic")
DEFAULT = {option: getattr(Setting, option) for option in ABLATED}
COORDINATE_OF_VELOCITY = 1


def _reported(finals: pd.DataFrame, *experiments: str) -> pd.DataFrame:
    """The runs of some experiments at pairs that were selected on other seeds."""
    rows = finals[finals["experiment"].isin(experiments)]
    parts = []
    for _, runs in by_setting(rows):
        found = selected(runs, "eval_return")
        parts.append(found[found["selection"].isin(["one pair", "fresh seeds", "other half"])])
    return pd.concat(parts) if parts else rows.assign(selection="", tried=0)


def _by_width(finals: pd.DataFrame) -> pd.DataFrame:
    """As `_reported`, of model capacity: `selection` where it was run, `width` elsewhere."""
    rows = _reported(finals, "width", "selection", "fresh")
    first = rows.groupby(["agent", "width"])["experiment"].transform("min")  # in the alphabet
    return rows[rows["experiment"] == first]


def _without_halves(rows: pd.DataFrame) -> pd.DataFrame:
    """Fresh seeds alone where they were run; the two halves of the seeds elsewhere."""
    fresh = rows["selection"] == "fresh seeds"
    has_fresh = fresh.groupby([rows["agent"], rows["width"], rows["distractors"]]).transform("any")
    return rows[~has_fresh | fresh]


def _returns(rows: pd.DataFrame, agent: str, axis: str) -> pd.Series:
    """Returns by axis and seed."""
    return rows[rows["agent"] == agent].set_index([axis, "seed"])["eval_return"]


def _ahead(rows: pd.DataFrame, one: str, other: str, axis: str) -> Verdict:
    """Whether an agent's return is above another's at each value of an axis, paired by seed.

    On fresh seeds where both were run on them. With more pairs of rates than the other, being
    ahead decides nothing.
    """
    if missing := [agent for agent in (one, other) if not (rows["agent"] == agent).any()]:
        return Verdict("not tested", f"{' and '.join(missing)}: not run")
    gaps, any_gaps = (
        less(_returns(part, one, axis), _returns(part, other, axis))
        for part in (_without_halves(rows), rows)
    )
    pairs = rows.groupby([axis, "agent"])["tried"].first().unstack(fill_value=0)
    parts = {}
    for value in sorted(rows[axis].unique()):
        here, anyway = (gap[gap.index.get_level_values(axis) == value] for gap in (gaps, any_gaps))
        gap = anyway if here.empty else here
        verdict = above(gap, 0, MATTERS).because(f"{one} minus {other}")
        behind = other if verdict.verdict == "agrees" else one
        tried = pairs.loc[value]
        most = tried[[one, other]].max()
        parts[f"{axis} {value}"] = _of_all_pairs(verdict, tried[behind], most, behind)
    return every(parts)


def _too_short(runs: pd.DataFrame, full: int = FULL, published: int = PUBLISHED) -> Verdict | None:
    """Why runs cannot tell what training ends with, None where they can."""
    steps = int(runs["steps"].max())
    if steps >= full:
        return None
    text = f"runs of {steps:,} steps do not tell what {published:,} end with"
    return Verdict("not tested", f"{text}; scale paper runs those")


def _near(finals: pd.DataFrame, agents: tuple[str, ...], widths: tuple[int, ...]) -> Verdict:
    if short := _too_short(finals):
        return short
    rows, parts = _without_halves(_by_width(finals)), {}
    rows = rows[rows["width"].isin(widths)]
    for agent in agents:
        runs = rows[rows["agent"] == agent]
        if runs.empty:
            parts[agent] = Verdict("not tested", "it was not run")
        for width, ends in runs.groupby("width"):
            verdict = above(ends["eval_return"], NEAR, NEAR / 20)
            if verdict.verdict == "disagrees":
                verdict = _of_all_pairs(verdict, ends["tried"].iloc[0])
            parts[f"{agent}, width {width}"] = verdict
    return every(parts)


def _of_all_pairs(verdict: Verdict, tried: int, pairs: int = PAIRS, agent: str = "") -> Verdict:
    """What is said of an agent that is too low: open until the other pairs of rates were tried."""
    if verdict.verdict not in ("agrees", "disagrees") or tried >= pairs:
        return verdict
    whose = f"{agent} with" if agent else "with"
    told = f"{verdict.reason}, {whose} {tried} of {pairs} pairs of rates; the others would tell"
    return replace(verdict, verdict="inconclusive", reason=told)


def near_optimal_when_small(finals: pd.DataFrame) -> Verdict:
    """O11."""
    return _near(finals, ("omd",), SMALL)


def order_when_small(finals: pd.DataFrame) -> Verdict:
    """O12."""
    rows = _by_width(finals)
    rows = rows[rows["width"].isin(SMALL)]
    pairs = (("omd", "mle"), ("mle", "vep"))
    return every({f"{a} over {b}": _ahead(rows, a, b, "width") for a, b in pairs})


def near_optimal_when_large(finals: pd.DataFrame) -> Verdict:
    """O13."""
    return _near(finals, ("omd", "mle", "vep"), LARGE)


def robust(finals: pd.DataFrame) -> Verdict:
    """O14."""
    rows = _reported(finals, "distractors")
    others = ("mle", "vep")
    return every({f"over {other}": _ahead(rows, "omd", other, "distractors") for other in others})


def vep_fails(finals: pd.DataFrame) -> Verdict:
    """O15."""
    if short := _too_short(finals):
        return short
    returns = _returns(_reported(finals, "distractors"), "vep", "distractors")
    if returns.empty:
        return Verdict("not tested", "VEP was not run with distractors")
    by_count = returns.groupby(level="distractors")
    return every({f"{n} distractors": below(ends, 50, 50) for n, ends in by_count})


def worse_than_random(finals: pd.DataFrame) -> Verdict:
    """O16."""
    rows = _without_halves(_by_width(finals))
    rows = rows[(rows["agent"] == "omd") & rows["width"].isin((1, 3))]
    ratio = np.log10(rows["model_mse"] / rows["random_mse"])
    parts = {
        f"width {width}": above(part, 0, 0.1).because("log10 of the error over the random model's")
        for width, part in ratio.groupby(rows["width"])
    }
    return every(parts) if parts else Verdict("not tested", "neither width was run")


def above_mle(finals: pd.DataFrame) -> Verdict:
    """O17."""
    rows = _by_width(finals)
    return _ahead(rows[rows["width"].isin((1, 3))], "omd", "mle", "width")


def constant_velocity(finals: pd.DataFrame, predictions: pd.DataFrame) -> Verdict:
    """O18."""
    rows = finals[(finals["experiment"] == "width") & (finals["agent"] == "omd")]
    rows = rows[rows["width"] == 1]
    if short := _too_short(finals):
        return short
    optimal = rows[rows["eval_return"] >= 490]
    if rows.empty:
        return Verdict("not tested", "width 1 was not run")
    if optimal.empty:
        verdict = share(0, len(rows), 0.0, 0.2)
        text = f"no run of {len(rows)} returns 490 or more; its probability is below "
        text += f"{verdict.high:.2g} (99%), and more runs would narrow it"
        return Verdict("inconclusive", text, 0.0, 0.0, verdict.high, verdict.interval, len(rows))
    axes = ["inner_lr", "tau", "seed"]
    velocity = predictions[
        (predictions["agent"] == "omd")
        & (predictions["width"] == 1)
        & (predictions["coordinate"] == COORDINATE_OF_VELOCITY)
    ]
    spread = velocity.groupby(axes)[["predicted", "true"]].std()
    ratio = (spread["predicted"] / spread["true"]).reindex(optimal.set_index(axes).index)
    kind: Kind = "agrees" if ratio.min() < 0.25 else "disagrees"
    text = (
        f"{len(optimal)} of {len(rows)} runs return 490 or more; the least spread of a predicted "
    )
    text += f"velocity is {ratio.min():.2g} of the true one's (bar 0.25)"
    return Verdict(kind, text, float(ratio.min()), n=len(rows), test="one run is enough")


def _ablated(finals: pd.DataFrame, axis: str, value: object) -> pd.Series | None:
    """Return with an option's value minus the default agent's, by seed; None where not run."""
    rows = finals[finals["experiment"] == "ablation"]
    others = [name for name in DEFAULT if name != axis]
    rows = rows[(rows[others] == pd.Series(DEFAULT)[others]).all(axis=1)]
    returns = rows.set_index("seed")["eval_return"]
    ours, usual = (returns[(rows[axis] == x).to_numpy()] for x in (value, DEFAULT[axis]))
    return less(ours, usual) if len(ours) and len(usual) else None


def _no_difference(finals: pd.DataFrame, options: dict[str, tuple[str, object]]) -> Verdict:
    parts = {}
    for name, (axis, value) in options.items():
        gap = _ablated(finals, axis, value)
        if gap is not None:
            parts[name] = same(gap, MATTERS)
    return every(parts) if parts else Verdict("not tested", "the ablation was not run")


def inner_steps(finals: pd.DataFrame) -> Verdict:
    """O21."""
    return _no_difference(finals, {"K = 3": ("inner_steps", 3), "K = 10": ("inner_steps", 10)})


def inverse_jacobian(finals: pd.DataFrame) -> Verdict:
    """O24."""
    return _no_difference(finals, {"conjugate gradients": ("adjoint", "cg")})


def nothing_else_matters(finals: pd.DataFrame) -> Verdict:
    """O23."""
    return _no_difference(
        finals,
        {
            "K = 3": ("inner_steps", 3),
            "K = 10": ("inner_steps", 10),
            "conjugate gradients": ("adjoint", "cg"),
            "Q's Adam kept": ("inner_optimizer", "warm"),
        },
    )


def double_q(finals: pd.DataFrame) -> Verdict:
    """O22."""
    gap = _ablated(finals, "double_q", False)
    if gap is None:
        return Verdict("not tested", "the ablation was not run")
    return above(-gap, 0, MATTERS).because("return, double minus single Q")


def singular(eigenvalues: pd.DataFrame) -> Verdict:
    """O25."""
    size = eigenvalues.groupby("seed")["eigenvalue"].transform(lambda x: x.abs().max())
    near_zero = eigenvalues["eigenvalue"].abs() < 1e-5 * size
    shares = near_zero.groupby(eigenvalues["seed"]).mean()
    negative = (eigenvalues["eigenvalue"] < -1e-5 * size).groupby(eigenvalues["seed"]).mean()
    told = "share of eigenvalues within 1e-5 of the largest one of zero "
    told += f"(and negative ones: {negative.mean():.2g})"
    return above(shares, 0.1, 0.2).because(told)


def min_norm(answers: pd.DataFrame) -> Verdict:
    """O26: it saves less of the true loss than the identity, whatever Q does afterwards."""
    parts = {}
    for gain in (name for name in answers if name.startswith("gain_")):
        table = answers.pivot(index="seed", columns="answer", values=gain)
        gap = table["min norm"] - table["identity"]
        scale = float(table["identity"].abs().mean())
        words = "true loss saved, min norm minus identity"
        parts[f"K = {gain.removeprefix('gain_')}"] = below(gap, 0, scale).because(words)
    return every(parts)


def as_selected_in_the_paper(selections: pd.DataFrame) -> Verdict:
    """O28: on the seeds that selected the pair, as published; beside it, on fresh ones."""
    found = selections[
        (selections["experiment"] == "selection")
        & (selections["agent"] == "omd")
        & (selections["tried"] >= PAIRS)
    ]
    rows = found[(found["selection"] == "same seeds") & (found["n"] >= 5)]
    if rows.empty:
        return Verdict("not tested", "this scale does not run every pair of rates")
    ends = rows[rows["reading"] != "best"]
    kind: Kind
    if (ends["high"] < NEAR).all():
        kind = "disagrees"
    else:
        kind = "agrees" if (ends["low"] > NEAR).all() else "inconclusive"
    text = f"mean of the best pair, selected on the same seeds, against {NEAR}: {_readings(rows)}"
    fresh = found[found["selection"] == "fresh seeds"]
    text += "" if fresh.empty else f". On fresh seeds {_readings(fresh)}"
    worst = ends.loc[ends["mean"].idxmin()]
    n = int(worst["n"])
    return Verdict(kind, text, worst["mean"], worst["low"], worst["high"], "99% t", n)


def _readings(rows: pd.DataFrame) -> str:
    return "; ".join(
        f"width {r.width}, {r.reading}: {r.mean:.0f} [{r.low:.0f}, {r.high:.0f}]"
        for r in rows.itertuples()
    )


def more_useful_models(control: pd.DataFrame) -> Verdict:
    """O29: OMD's return less MLE's, by width and distractors, each with its better K."""
    rows = control[control["task"] == "half_cheetah"]
    if rows.empty:
        return Verdict("not tested", "HalfCheetah was not run")
    if short := _too_short(rows, FULL_CONTROL, PUBLISHED_CONTROL):
        return short
    parts = {}
    for (width, distractors), part in rows.groupby(["width", "distractors"]):
        place = f"width {width}, {distractors} distractors"
        if part["agent"].nunique() < 2:
            parts[place] = Verdict("not tested", f"only {part['agent'].iloc[0]} was run")
            continue
        omd, mle = (_at_its_best(part[part["agent"] == agent]) for agent in ("omd", "mle"))
        parts[place] = above(less(omd, mle), 0, abs(mle.mean()) / 10)
    return every(parts)


def _at_its_best(runs: pd.DataFrame) -> pd.Series:
    """Returns by seed with the K of the highest mean; NaN where a run diverged."""
    returns = runs["eval_return"].where(~runs["diverged"])
    table = returns.groupby([runs["inner_steps"], runs["seed"]]).first()
    return table.loc[table.groupby(level="inner_steps").mean().idxmax()]


def outlook(saddle: pd.DataFrame, zero_shot: pd.DataFrame) -> Verdict:
    """O30."""
    solved = solved_rates(saddle)
    parts = {}
    for method in ("lagrangian", "augmented"):
        told = f"rates at which the model is right, implicit minus {method}"
        parts[method] = above(solved["ift"] - solved[method], 0, 1).because(told)
    omd = zero_shot[zero_shot["agent"] == "omd"]
    table = omd.pivot_table(index="seed", columns="source", values="return")
    if {"model", "untrained"} <= set(table):
        told = "return with the new reward, OMD's model minus an untrained one"
        told += f" (with the true dynamics {table['true'].mean():.0f})"
        parts["another reward"] = above(table["model"] - table["untrained"], 0, 20).because(told)
    return every(parts)
