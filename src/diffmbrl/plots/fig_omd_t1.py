"""Figure T1: what Nikishin et al. 2022 state of the tabular case without showing it."""

import numpy as np
import pandas as pd

from diffmbrl.pipeline.stage import Job
from diffmbrl.plots import style
from diffmbrl.tables import read_parquet

OPTIMUM = 1.0272727
CONSTRAINTS = {
    ("value", "exact"): ("Q = $B_\\theta$Q, inverse Jacobian", 0, "-"),
    ("value", "identity"): ("Q = $B_\\theta$Q, identity", 0, "--"),
    ("gradient", "exact"): ("dL/dQ = 0, inverse Hessian", 1, "-"),
    ("gradient", "identity"): ("dL/dQ = 0, identity", 1, "--"),
}
IDENTITIES = {
    "implicit": "implicit gradient\nand finite difference",
    "gradient_constraint": "either constraint,\nexact inverse",
    "semi_gradient": "held target and\nidentity",
    "equation_2": "prop. 1, returns",
    "equation_6": "prop. 1, Bellman error",
}
METHODS = {
    "ift": "implicit function theorem",
    "lagrangian": "Lagrangian",
    "augmented": "augmented Lagrangian",
}
OBJECTIVES = {"bellman": "Bellman error", "return": "returns"}
ROUNDING = 1e-17  # what is 0 is drawn here


def color(index: int):
    """The colour of a panel's i-th line."""
    return style.COLORS[f"variant_{index}"]


def draw_bounds(bounds: pd.DataFrame, axes):
    """OMD's bound over the likelihood bound, the largest of each kind of model."""
    rows = bounds.assign(ratio=bounds["operator"] / bounds["likelihood"])
    worst = rows[rows["kind"] == "adversarial"].sort_values("reward_error")
    axes.plot(worst["reward_error"], worst["ratio"], "o-", color=color(3), label="counterexample")
    names = {"random": "random, rewards leave [0, 1]", "clipped": "random, rewards in [0, 1]"}
    for i, (kind, label) in enumerate(names.items()):
        part = rows[rows["kind"] == kind].groupby("reward_error")["ratio"].max()
        axes.plot(part.index, part, "o-", color=color(i), label=f"largest of {label}")
    axes.axhline(1, color="0.3", linestyle="--", linewidth=1)
    axes.set(xlabel=r"reward error $\epsilon_r$ of the model", ylabel="OMD's bound / MLE's bound")
    axes.set_title("above 1: OMD's bound is looser")


def draw_temperature(rows: pd.DataFrame, axes):
    """What a temperature does to Q* and to the return, medians and ranges over MDPs."""
    random = rows[rows["instance"] >= 0]
    names = {"difference": "soft Q* against hard Q*", "regret": "return lost by the soft policy"}
    for i, (name, label) in enumerate(names.items()):
        part = random.groupby("alpha")[name]
        axes.plot(part.median().index, part.median(), color=color(i), label=f"{label}, median")
        axes.fill_between(
            part.max().index,
            part.min().clip(1e-9),
            part.max(),
            color=color(i),
            alpha=0.2,
            linewidth=0,
        )
        one = rows[rows["instance"] < 0]
        axes.plot(one["alpha"], one[name].clip(1e-9), "x", color=color(i), markersize=4)
    axes.axvline(0.01, color="0.3", linestyle="--", linewidth=1)
    axes.set(
        xscale="log",
        yscale="log",
        ylim=(1e-7, 10),
        xlabel=r"temperature $\alpha$",
        ylabel="relative to the hard optimum",
    )
    axes.set_title("soft against hard (x: the paper's MDP)")


def draw_identities(rows: pd.DataFrame, axes):
    """How far each identity is missed, all instances."""
    for i, name in enumerate(IDENTITIES):
        values = rows[name].abs().clip(ROUNDING)
        axes.plot(values, np.full(len(values), -i), "|", color=color(0), markersize=9)
    axes.set_yticks([-i for i in range(len(IDENTITIES))], list(IDENTITIES.values()), fontsize=6)
    axes.set(xscale="log", xlim=(ROUNDING / 3, 1), xlabel="relative difference")
    axes.set_title("identities on random instances")


def draw_alignment(rows: pd.DataFrame, axes):
    """Cosine with the exact gradient, against the noise in Q."""
    names = {"exact": "with the inverse Jacobian", "identity": "with the identity"}
    for i, (name, label) in enumerate(names.items()):
        part = rows.groupby("sigma")[name]
        axes.plot(part.mean().index, part.mean(), color=color(i), label=label)
        low, high = part.quantile(0.25), part.quantile(0.75)
        axes.fill_between(low.index, low, high, color=color(i), alpha=0.2, linewidth=0)
    axes.axhline(0, color="0.3", linewidth=0.6)
    axes.set(xscale="log", xlabel=r"noise $\sigma$ in Q", ylabel="cosine with the exact gradient")
    axes.set_title("direction of the model's gradient")


def constrained(tabular: pd.DataFrame, runs: pd.DataFrame, table: str, axis: str) -> pd.DataFrame:
    """Mean and standard error by constraint, adjoint and bound or noise level."""
    value = tabular[(tabular["table"] == table) & (tabular["objective"] == "bellman")]
    value = value[value["projection"].isin(["published", "none"]) & np.isfinite(value[axis])]
    names = {f"{m}_{s}": f"{m}_{s}" for m in ("return", "q_error") for s in ("mean", "stderr")}
    value = value[["adjoint", axis, *names]].assign(constraint="value")
    ours = runs[np.isfinite(runs[axis]) & ((runs["sigma"] > 0) == (axis == "sigma"))]
    found = ours.groupby(["adjoint", axis])[["return", "q_error"]].agg(["mean", "sem"])
    found.columns = list(names)
    return pd.concat([value, found.reset_index().assign(constraint="gradient")])


def draw_constraint(rows: pd.DataFrame, axes, axis: str, metric: str):
    """A metric under each constraint, mean with one standard error."""
    for (constraint, adjoint), (label, index, line) in CONSTRAINTS.items():
        part = rows[(rows["constraint"] == constraint) & (rows["adjoint"] == adjoint)]
        if not part.empty and (axis == "sigma" or part[axis].max() > 0):
            style.band(
                axes,
                part,
                axis,
                f"{metric}_mean",
                f"{metric}_stderr",
                color(index),
                label,
                linestyle=line,
                markersize=2,
            )


def draw_samples(runs: pd.DataFrame, axes):
    """True return against the transitions used, mean with one standard error."""
    largest = runs[runs["batch"] == runs["batch"].max()]
    lines = dict(zip(sorted(largest["alpha"].unique()), ("-", "--", ":"), strict=False))
    for i, (objective, name) in enumerate(OBJECTIVES.items()):
        for alpha, line in lines.items():
            part = largest[(largest["objective"] == objective) & (largest["alpha"] == alpha)]
            found = part.groupby("transitions")["return"].agg(["mean", "sem"]).reset_index()
            style.band(
                axes,
                found,
                "transitions",
                "mean",
                "sem",
                color(i),
                f"{name}, $\\alpha$ = {alpha:g}",
                linestyle=line,
                markersize=2,
            )
    axes.axhline(OPTIMUM, color="0.3", linestyle="--", linewidth=1)
    axes.set(xscale="log", xlabel="sampled transitions", ylabel="true return", ylim=(-1.6, 1.15))
    axes.set_title("learning from samples")


def draw_saddle(runs: pd.DataFrame, axes):
    """Error of the Q that the final model induces, against the step size."""
    last = runs[runs["step"] == runs["step"].max()]
    for i, (method, label) in enumerate(METHODS.items()):
        part = last[last["method"] == method].groupby("rate")["q_error"]
        axes.plot(part.median().index, part.median(), "o-", color=color(i), label=label)
        axes.fill_between(
            part.min().index, part.min(), part.max(), color=color(i), alpha=0.2, linewidth=0
        )
    axes.set(xscale="log", yscale="log", xlabel="Adam's step size", ylabel=r"max $|Q - Q^*|$")
    axes.set_title("saddle point or implicit gradient")


def run(job: Job) -> None:
    """Draws the eight panels."""
    found = {name: read_parquet(job.input(name)) for name in job.inputs if name != "tabular"}
    tabular = pd.read_csv(job.input("tabular"))
    figure, axes = style.panels(2, 4, (3.4, 2.9))
    draw_identities(found["identities"], axes[0, 0])
    draw_bounds(found["bounds"], axes[0, 1])
    draw_temperature(found["temperature"], axes[0, 2])
    draw_saddle(found["saddle"], axes[0, 3])
    bounded = constrained(tabular, found["constraint"], "bounds", "norm_bound")
    draw_constraint(bounded, axes[1, 0], "norm_bound", "q_error")
    axes[1, 0].set(xlabel=r"bound on the model's norm $\kappa$", ylabel=r"max $|Q - Q^*|$")
    axes[1, 0].set_title("figure 3 under either constraint")
    noisy = constrained(tabular, found["constraint"], "noise", "sigma")
    draw_constraint(noisy, axes[1, 1], "sigma", "return")
    axes[1, 1].set(xscale="log", xlabel=r"noise $\sigma$ in Q", ylabel="return")
    axes[1, 1].set_title("figure 6 under either constraint")
    draw_alignment(found["alignment"], axes[1, 2])
    draw_samples(found["samples"], axes[1, 3])
    for ax in axes.ravel()[1:]:
        ax.legend(fontsize=5.5)
    s = job.settings
    note = (
        f"scale {s['scale']} · {s['instances']} random instances · {s['trainings']} seeds "
        f"(figures 3 and 6), {s['seeds']} seeds and {s['steps']:,} steps (samples, saddle point) · "
        "bands: one standard error; range over MDPs (temperature) or seeds (saddle point); "
        "middle half (cosine)"
    )
    style.finish(figure, note, job.outputs)
