"""Figure T3: the rate at which runs diverge as theorem 1 has it, and what an update then gains."""

import pandas as pd

from diffmbrl.implicit.judges_runs import hardest
from diffmbrl.pipeline.stage import Job
from diffmbrl.plots import style
from diffmbrl.plots.fig_implicit_2 import compared

WAYS = ("explicit", "implicit")


def draw_divergence(summary: pd.DataFrame, rates: pd.DataFrame, axes, looks):
    """Share of runs that diverged against the rate over the predicted stable one, by eta."""
    stable = rates.groupby(["parameterization", "eta"], observed=True)["stable_rate"].median()
    for way in WAYS:
        rows = summary[(summary["parameterization"] == way) & (summary["backup"] == "none")]
        for i, (eta, part) in enumerate(rows.groupby("eta")):
            if (way, eta) not in stable.index:
                continue
            groups = part.groupby("learning_rate")[["n_diverged", "n_runs"]].sum()
            share = groups["n_diverged"] / groups["n_runs"]
            look = looks[way] | ({} if i == 0 else {"label": None})
            axes.plot(share.index / stable[way, eta], share, "o-", linewidth=0.8, **look)
    axes.axvline(1, color="0.3", linestyle=":", linewidth=1.2)
    axes.set_xscale("log", base=2)
    axes.set_xlabel("rate / predicted stable rate")
    return axes


def draw_gain(contraction: pd.DataFrame, rates: pd.DataFrame, axes):
    """How many times more of the 1-part an implicit update takes away, against eta."""
    table = contraction.pivot_table(
        index=["eta", "seed"],
        columns=["rate", "parameterization"],
        values="ones",
        observed=True,
    )
    for rate, label, color in (
        ("equal", "equal rates", "C2"),
        ("half", "half of each one's stable rate", "C4"),
    ):
        gain = (table[rate]["implicit"] / table[rate]["explicit"]).groupby("eta").median()
        axes.semilogy(gain.index, gain, "o-", color=color, label=label)
    etas = table.index.get_level_values("eta").unique()
    axes.semilogy(etas, 1 / (1 - etas) ** 2, "--", color="0.5", label=r"$(1-\eta)^{-2}$")
    n = rates["n"].median()
    axes.axhline(n, color="C3", linewidth=1, label="n, as concluded")
    axes.set_xlabel(r"$\eta$")
    return axes


def draw_parts(contraction: pd.DataFrame, axes, looks):
    """Share of the 1-part and of the rest that an update at half the stable rate takes away."""
    rows = contraction[contraction["rate"] == "half"]
    for way in WAYS:
        groups = rows[rows["parameterization"] == way].groupby("eta", observed=True)
        for part, name, line in (("ones", "1-part", "o-"), ("rest", "rest", "s:")):
            look = looks[way] | {"label": f"{looks[way]['label']}, {name}"}
            median = groups[part].median()
            axes.plot(median.index, median, line, **look)
    axes.set_ylim(0, None)
    axes.set_xlabel(r"$\eta$")
    return axes


def run(job: Job) -> None:
    """Draws three panels per domain."""
    summary = pd.read_csv(job.input("summary"))
    rates, contraction = (pd.read_parquet(job.inputs[name]) for name in ("rates", "contraction"))
    contraction = hardest(contraction)
    looks = compared(job.settings["parameterizations"])
    domains = style.in_order(job.settings["domains"])
    figure, axes = style.panels(3, len(domains), size=(2.9, 2.1), sharey="row")
    for column, (domain, facts) in zip(axes.T, domains.items(), strict=True):
        mine, theirs, sizes = (t[t["domain"] == domain] for t in (summary, contraction, rates))
        draw_divergence(mine, sizes, column[0], looks).set_title(facts["LABEL"])
        draw_gain(theirs, sizes, column[1])
        draw_parts(theirs, column[2], looks)
    for ax, label in zip(
        axes[:, 0],
        ("share of runs diverged", "gain along 1 per update", "share taken per update"),
        strict=True,
    ):
        ax.set_ylabel(label)
    note = style.protocol(job.settings, "medians over seeds") + (
        r" · predicted: $2/\lambda_{\max}(PG)$ at the start, one line per $\eta$"
        "\nmiddle and bottom: one expected update at the start, offset of the largest residual"
    )
    style.finish(figure, note, job.outputs, legend_from=axes[:, 0])
