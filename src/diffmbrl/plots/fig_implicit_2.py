"""Figure 2 of Gehring et al. 2021: the final residual against the reward offset."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd

from diffmbrl.implicit.metrics import ETA
from diffmbrl.implicit.published import published
from diffmbrl.pipeline.stage import Job
from diffmbrl.plots import style

Facts = Mapping[str, Mapping[str, Any]]


class Panel(NamedTuple):
    """A domain, a metric of the summary, and what the panel is called."""

    domain: str
    metric: str
    title: str
    gamma: float


def panels(domains: Facts) -> list[Panel]:
    """One panel per domain, and another without its floor where it has one."""
    found = []
    for name, facts in style.in_order(domains).items():
        label, gamma = facts["LABEL"], facts["GAMMA"]
        found.append(Panel(name, "residual_norm", label, gamma))
        if "FLOOR" in facts:
            title = f"{label}, floor removed"
            found.append(Panel(name, "residual_norm_learnable", title, gamma))
    return found


def compared(parameterizations: Facts) -> dict[str, dict[str, Any]]:
    """The parameterizations that have a single backup, by name, and how each is drawn."""
    return {
        name: style.look(facts)
        for name, facts in style.in_order(parameterizations).items()
        if "BACKUPS" not in facts
    }


def chosen(summary: pd.DataFrame, selected: pd.DataFrame) -> pd.DataFrame:
    """The summary's rows at each family's selected learning rate."""
    keys = ["domain", "parameterization", "backup", "eta", "learning_rate"]
    return summary.merge(selected[keys], on=keys)


def draw(rows: pd.DataFrame, axes, looks: Mapping[str, Mapping], metric: str = "residual_norm"):
    """Final residual of the parameterizations against the offset, with diverged runs counted.

    Args:
        rows: one domain and eta at the selected rates.
        axes: where to draw.
        looks: of each parameterization (`compared`).
        metric: residual_norm, or residual_norm_learnable (without what no method can remove).
    """
    for name, look in looks.items():
        part = rows[rows["parameterization"] == name]
        style.band(axes, part, "reward_offset", f"{metric}_mean", f"{metric}_std", **look)
        style.mark_diverged(axes, part, "reward_offset", f"{metric}_mean")
    axes.set_xlabel("reward offset")
    axes.set_ylim(bottom=0)
    return axes


def draw_published(rows: pd.DataFrame, axes):
    """The authors' means at their own rates, as crosses."""
    axes.plot(
        rows["reward_offset"],
        rows["residual_norm_mean"],
        "x",
        markersize=4,
        color=style.COLORS["published"],
        label="published mean",
        zorder=3,
    )
    return axes


def same_protocol(settings: Mapping[str, Any]) -> bool:
    """Whether published means belong beside these runs: same number of seeds and updates."""
    return len(settings["seeds"]) == 20 and settings["updates"] == 300


def run(job: Job) -> None:
    """Draws every domain, and those with a floor once more without it."""
    rows = chosen(pd.read_csv(job.input("summary")), pd.read_csv(job.input("selected")))
    rows, theirs = rows[rows["eta"] == ETA], published()
    theirs = theirs[theirs["eta"] == ETA]
    shown, looks = panels(job.settings["domains"]), compared(job.settings["parameterizations"])
    figure, axes = style.panels(1, len(shown))
    for ax, (domain, metric, title, _) in zip(axes[0], shown, strict=True):
        draw(rows[rows["domain"] == domain], ax, looks, metric).set_title(title)
        if metric == "residual_norm" and same_protocol(job.settings):
            draw_published(theirs[theirs["domain"] == domain], ax)
    axes[0, 0].set_ylabel("final residual norm")
    note = style.protocol(job.settings) + rf" · $\eta={ETA}$ · rates selected from these runs"
    style.finish(figure, note, job.outputs, legend_from=axes[0])
