"""Figure T1: the theorems of Gehring et al. 2021 on random small problems, stated and measured."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns

from diffmbrl.pipeline.stage import Job
from diffmbrl.plots import style

NEAR = sns.cubehelix_palette(start=-0.2, rot=0.6, light=0.75, as_cmap=True)
EXACT = {"color": "0.15", "linestyle": ":", "linewidth": 1.2}


def of(theory: pd.DataFrame, *checks: str) -> pd.DataFrame:
    """Rows of some checks."""
    return theory[theory["check"].isin(checks)]


def draw_bound(theory: pd.DataFrame, axes):
    """Smallest eigenvalue of P against the constant of theorem 1; on the line they are equal."""
    rows = of(theory, "bound")
    for K, part in rows.groupby("features"):
        axes.loglog(part["stated"], part["measured"], ".", markersize=3, label=f"K = {K}")
    ends = [rows["stated"].min(), 1.0]
    axes.loglog(ends, ends, label="equal", **EXACT)
    axes.set(xlabel=r"$c = (1 + \eta \sqrt{K})^{-2}$", ylabel=r"$\lambda_{\min}(P)$")
    axes.legend(fontsize=6)
    return axes


def draw_flow(theory: pd.DataFrame, axes):
    """Loss along the flow, over its start, and the bound of corollary 1."""
    rows = of(theory, "flow")
    for (case, instance), part in rows.groupby(["case", "instance"]):
        color = "C0" if case == "full" else "C1"
        label = f"{case} rank" if instance == 0 else None
        measured = part["measured"].where(part["measured"] > 1e-13)
        axes.semilogy(part["x"], measured, color=color, linewidth=0.8, label=label)
    line = rows.drop_duplicates("x").sort_values("x")
    axes.semilogy(line["x"], line["stated"], label="bound", **EXACT)
    axes.set(xlabel=r"$2 c \mu t$", ylabel=r"$(L - L^*) / (L_0 - L^*)$")
    axes.legend(fontsize=6)
    return axes


def draw_decrease(theory: pd.DataFrame, axes):
    """Relative distance of the expected decrease from its first order, against the rate."""
    for check, color in (("decrease_explicit", "C0"), ("decrease_implicit", "C1")):
        rows = of(theory, check)
        error = (rows["measured"] / rows["stated"] - 1).abs()
        median = error.groupby(rows["x"]).median()
        axes.loglog(rows["x"], error, ".", markersize=3, color=color, alpha=0.5)
        axes.loglog(median.index, median, color=color, label=check.removeprefix("decrease_"))
    axes.set(xlabel=r"rate $\alpha$", ylabel="relative remainder")
    axes.legend(fontsize=6)
    return axes


def draw_expansion(theory: pd.DataFrame, axes):
    """Relative error of P's leading term, one line per model, coloured by its spectral gap."""
    gaps = mpl.colors.LogNorm(0.02, 1)
    for _, part in of(theory, "expansion_P").groupby(["instance", "gap"]):
        color = mpl.colormaps["viridis"](gaps(part["gap"].iloc[0]))
        axes.loglog(part["x"], part["measured"], color=color, linewidth=0.8)
    axes.figure.colorbar(
        mpl.cm.ScalarMappable(gaps, "viridis"), ax=axes, label="spectral gap", ticks=[0.1, 1]
    )
    axes.set(xlabel=r"$1 - \eta$", ylabel="relative error of eq. 5")
    return axes


def draw_ones(theory: pd.DataFrame, axes, nearness: mpl.colors.LogNorm):
    """Theorem 4's factor as measured and as stated, against the number of features."""
    rows = of(theory, "ones").sort_values("x", ascending=False)
    axes.scatter(rows["features"], rows["measured"], 8, NEAR(nearness(rows["x"])), label="measured")
    stated = rows[rows["x"] == rows["x"].min()]
    axes.loglog(stated["features"], stated["stated"], "_", color="0.15", label="stated")
    K = np.sort(rows["features"].unique())
    axes.loglog(K, 1 / K, label="1 / K", **EXACT)
    axes.axhline(1, color="C3", linestyle="--", linewidth=1, label="1, as concluded")
    axes.set_xticks(K, [f"{k}" for k in K])
    axes.xaxis.set_minor_locator(mpl.ticker.NullLocator())
    axes.set(xlabel="features K", ylabel=r"factor $v'(\eta^2 D + I)v$", ylim=(None, 40))
    axes.legend(fontsize=6, loc="upper right")
    return axes


def draw_moments(theory: pd.DataFrame, axes, nearness: mpl.colors.LogNorm):
    """Relative second moments, stated and counted over every batch."""
    explicit = of(theory, "moments_explicit")
    implicit = of(theory, "moments_implicit", "tabular_implicit").sort_values("x", ascending=False)
    implicit = implicit[~implicit["case"].str.contains("both")]
    axes.loglog(
        explicit["stated"],
        explicit["measured"],
        "s",
        color="C0",
        markersize=3,
        markerfacecolor="none",
        label="explicit",
    )
    axes.scatter(
        implicit["stated"],
        implicit["measured"],
        6,
        NEAR(nearness(implicit["x"])),
        zorder=3,
        label="implicit",
    )
    ends = [0.98, max(explicit["stated"].max(), implicit["stated"].max())]
    axes.loglog(ends, ends, **EXACT)
    axes.set(xlabel="second moment, theorem 5", ylabel="counted")
    axes.legend(fontsize=6)
    return axes


def run(job: Job) -> None:
    """Draws six panels."""
    theory = pd.read_parquet(job.input("theory"))
    plan = job.settings["theory"]
    nearness = mpl.colors.LogNorm(min(plan["one_minus_eta"]), max(plan["one_minus_eta"]))
    figure, axes = style.panels(2, 3, size=(3.0, 2.4))
    titles = (
        "Theorem 1",
        "Corollary 1",
        "Theorems 2 and 3",
        "Equation 5",
        "Theorem 4",
        "Theorem 5",
    )
    draw_bound(theory, axes[0, 0])
    draw_flow(theory, axes[0, 1])
    draw_decrease(theory, axes[0, 2])
    draw_expansion(theory, axes[1, 0])
    draw_ones(theory, axes[1, 1], nearness)
    draw_moments(theory, axes[1, 2], nearness)
    for ax, title in zip(axes.ravel(), titles, strict=True):
        ax.set_title(title)
    figure.colorbar(mpl.cm.ScalarMappable(nearness, NEAR), ax=axes[1, 2], label=r"$1 - \eta$")
    note = (
        f"scale {job.settings['scale']} · random models, {plan['bounds']} for theorem 1, "
        f"{plan['few']} per case elsewhere · dotted: equality or the stated bound"
    )
    style.finish(figure, note, job.outputs)
