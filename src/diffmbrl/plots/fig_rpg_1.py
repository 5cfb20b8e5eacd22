"""Returns over training: RP-DP with and without SN at each h, and the other estimators."""

from collections.abc import Mapping

import pandas as pd

from diffmbrl.pipeline.stage import Job
from diffmbrl.plots import rpg, style

LINES = {"none": "-", "both": "--"}
EVERYWHERE = ("rp_dp", "sac")  # estimators that every panel of an h shows


def draw(rows: pd.DataFrame, axes, look: rpg.Look, label: str, linestyle: str = "-"):
    """Mean return against steps with its interval; nothing where there are no rows."""
    if len(rows):
        rpg.band(
            axes, rows, "step", "return_mean", "return_low", "return_high",
            color=look.color, linestyle=linestyle, label=label,
        )  # fmt: skip
    axes.set_xlabel("environment steps")
    return axes


def usual(returns: pd.DataFrame) -> pd.DataFrame:
    """Arms whose hidden layers are meant, orthogonal at the start, not clipped."""
    one = (returns["layers"] == "hidden") & (returns["init"] == "orthogonal")
    return returns[one & (returns["clip"] == 0) & returns["sn"].isin(LINES)]


def panels(part: pd.DataFrame, looks: Mapping[str, rpg.Look], row) -> None:
    """One task: a panel per h of RP-DP, SAC in each, and one of the other estimators, if any."""
    ours, sac = part[part["estimator"] == "rp_dp"], part[part["estimator"] == "sac"]
    horizons = sorted(ours["horizon"].unique())
    for ax, h in zip(row, horizons, strict=False):
        draw(sac, ax, looks["sac"], "SAC (no model)").set_title(f"RP-DP, h = {h}", fontsize=9)
        for look, rows in rpg.arms(ours[ours["horizon"] == h]).items():
            draw(rows, ax, look, look.label)
    for last in row[len(horizons) :]:
        for name, look in looks.items():
            for (h, sn), rows in others(part[part["estimator"] == name]).groupby(["horizon", "sn"]):
                label = f"{look.label}, h = {h}, {rpg.ARMS[sn, 'hidden', False].label}"
                draw(rows, last, look, label, LINES[sn])
        draw(sac, last, looks["sac"], "SAC (no model)").set_title("other estimators", fontsize=9)


def others(returns: pd.DataFrame) -> pd.DataFrame:
    """The estimators that have a panel of their own."""
    return returns[~returns["estimator"].isin(EVERYWHERE)]


def run(job: Job) -> None:
    """One row of panels per task."""
    s = job.settings
    frame = usual(pd.read_csv(job.input("returns")))
    names = rpg.tasks(frame, s["tasks"])
    columns = frame[frame["estimator"] == "rp_dp"]["horizon"].nunique() + bool(len(others(frame)))
    figure, axes = style.panels(len(names), columns, (2.3, 2.1), sharey="row")
    for row, (task, label) in zip(axes, names.items(), strict=True):
        panels(frame[frame["task"] == task], rpg.looks(s["estimators"]), row)
        row[0].set_ylabel(f"{label}\nreturn")
    text = rpg.note(s, rpg.seeds(frame), "lines: means; bands: 95% t intervals over seeds",
                    "each panel's h is the h of its training")  # fmt: skip
    rpg.finish(figure, text, job.outputs, axes.ravel())
