"""Figure 5 of Nikishin et al. 2022: OMD's models predict badly, and its agents do well."""

from collections.abc import Mapping

import pandas as pd

from diffmbrl.pipeline.stage import Job
from diffmbrl.plots import style
from diffmbrl.plots.fig_omd_4 import OPTIMUM, by_width
from diffmbrl.tables import read_parquet

WIDTHS, COMPARED = (1, 3), ("omd", "mle")
SHOWN_STEPS = 100
COORDINATES = ("cart position", "cart velocity", "pole angle", "pole velocity")


def shown(width: pd.DataFrame) -> pd.DataFrame:
    """The rows of the paper's widths and agents; where neither was run, of those that were."""
    widths = [w for w in WIDTHS if (width["width"] == w).any()]
    widths = widths or sorted(width["width"].unique())[:2]
    agents = [a for a in COMPARED if (width["agent"] == a).any()] or width["agent"].unique()
    return width[width["width"].isin(widths) & width["agent"].isin(agents)]


def draw_curves(curves: pd.DataFrame, axes, looks: Mapping[str, Mapping], metric: str):
    """A metric during training, one line per agent and model width."""
    for width in sorted(curves["width"].unique()):
        line = "-" if width == curves["width"].max() else "--"
        for agent, look in looks.items():
            part = curves[(curves["width"] == width) & (curves["agent"] == agent)]
            if not part.empty:
                look = {**look, "label": f"{look['label']}, width {width}"}
                style.estimate(axes, part, "step", metric, **look, linestyle=line, marker="")
    axes.set_xlabel("environment steps")
    return axes


def draw_predictions(runs: pd.DataFrame, axes, looks: Mapping[str, Mapping], coordinate: int):
    """Predicted next values of one coordinate along an optimal trajectory."""
    rows = runs[(runs["coordinate"] == coordinate) & (runs["t"] < SHOWN_STEPS)]
    for agent, part in rows.groupby("agent"):
        axes.plot(part["t"], part["predicted"], **looks[str(agent)], linewidth=1)
    one = rows[rows["agent"] == rows["agent"].iloc[0]]
    axes.plot(one["t"], one["true"], color="0.2", linewidth=1, label="true")
    axes.set_title(COORDINATES[coordinate])
    axes.set_xlabel("time step")
    return axes


def best_runs(width: pd.DataFrame, predictions: pd.DataFrame) -> pd.DataFrame:
    """Predictions of each agent's run with the highest last return at the least width.

    Returns:
        Rows of `predictions`, with a column `final`: the run's mean return over its last
        tenth of evaluations.
    """
    narrow = width["width"] == width["width"].min()
    last = width[(width["step"] > 0.9 * width["step"].max()) & narrow]
    run = ["agent", "width", "inner_lr", "tau", "seed"]
    score = last.groupby(run)["eval_return"].mean().rename("final").reset_index()
    score = score.sort_values("final", ascending=False)
    return predictions.merge(score.groupby("agent").head(1), on=run)


def run(job: Job) -> None:
    """Draws model error, returns, and the predictions of one run per agent."""
    looks = style.looks(job.settings["agents"])
    curves = pd.read_csv(job.input("curves"))
    curves = shown(by_width(curves))
    figure, axes = style.panels(2, 3, (3.2, 2.3))
    draw_curves(curves, axes[0, 0], looks, "model_mse").set_ylabel("model MSE on replay")
    axes[0, 0].set_yscale("log")
    draw_curves(curves, axes[0, 1], looks, "eval_return").set_ylabel("evaluation return")
    axes[0, 1].axhline(OPTIMUM, color="0.3", linestyle=":", linewidth=1, label="optimum")
    width, predictions = (
        pd.concat(map(read_parquet, job.inputs[name]), ignore_index=True)
        for name in ("runs", "predictions")
    )
    chosen = best_runs(shown(width), predictions)
    places = (axes[0, 2], axes[1, 0], axes[1, 1], axes[1, 2])
    for coordinate, ax in enumerate(places):
        draw_predictions(chosen, ax, looks, coordinate)
    finals = chosen.groupby("agent")["final"].first()
    told = ", ".join(f"{looks[a]['label']} {v:.0f}" for a, v in finals.items())
    note = style.cartpole_note(job.settings, curves)
    note += f" · predictions: width {chosen['width'].iloc[0]}, final returns {told}"
    handles = (axes[0, 0], axes[0, 1], axes[1, 0])
    style.finish(figure, note, job.outputs, legend_from=handles)
