"""Figure 7 of Nikishin et al. 2022: OMD without each of its approximations."""

import pandas as pd

from diffmbrl.omd.settings import Setting
from diffmbrl.pipeline.stage import Job
from diffmbrl.plots import style
from diffmbrl.plots.fig_omd_4 import OPTIMUM

WORDS = {True: "with", False: "without"}
PANELS = {
    "inner_steps": ("inner steps", "K = {}"),
    "double_q": ("double Q-learning", "{}"),
    "adjoint": ("inverse Jacobian", "{}"),
    "inner_optimizer": ("Q's Adam at an outer step", "{}"),
    "probabilistic": ("Gaussian model", "{}"),
}
DEFAULT = {option: getattr(Setting, option) for option in PANELS}


def variants(curves: pd.DataFrame, axis: str) -> pd.DataFrame:
    """The curves that differ from the default agent in one option at most."""
    for name, value in DEFAULT.items():
        if name != axis:
            curves = curves[curves[name] == value]
    return curves


def draw(curves: pd.DataFrame, axes, axis: str):
    """Evaluation return during training, a line per value of the option."""
    title, label = PANELS[axis]
    values = sorted(curves[axis].unique(), key=lambda v: (v != DEFAULT[axis], v))
    for i, value in enumerate(values):
        part = curves[curves[axis] == value]
        name = label.format(WORDS[value] if curves[axis].dtype == bool else value)
        color = style.COLORS[f"variant_{i}"]
        style.estimate(axes, part, "step", "eval_return", color, name, marker="")
    axes.axhline(OPTIMUM, color="0.3", linestyle="--", linewidth=1)
    axes.set(title=title, xlabel="environment steps", ylim=(0, OPTIMUM * 1.35))
    axes.legend(loc="upper left", ncols=2 if len(values) == 2 else 3, columnspacing=1)
    return axes


def run(job: Job) -> None:
    """One panel per option that was varied."""
    curves = pd.read_csv(job.input("curves"))
    curves = curves[curves["experiment"] == "ablation"]
    shown = [axis for axis in PANELS if curves[axis].nunique() > 1]
    figure, axes = style.panels(1, len(shown), (2.9, 2.6), sharey=True)
    for ax, axis in zip(axes[0], shown, strict=True):
        draw(variants(curves, axis), ax, axis)
    axes[0, 0].set_ylabel("evaluation return")
    note = style.cartpole_note(job.settings, curves)
    cg = curves[curves["adjoint"] != "identity"]
    if not cg.empty:
        residual = cg["adjoint_residual_mean"].median()
        note += (
            f" · inverse Jacobian: at most {job.settings['adjoint_iterations']} iterations, "
            f"median relative residual {residual:.2g}"
        )
    style.finish(figure, note, job.outputs)
