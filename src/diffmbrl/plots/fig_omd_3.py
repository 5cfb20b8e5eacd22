"""Figure 3 of Nikishin et al. 2022: an equivalent MDP, and errors of Q* with their bounds."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
import pandas as pd
from matplotlib.patches import Circle, FancyArrowPatch

from diffmbrl.mdp.dense import DenseMDP, optimal_q, soft_bellman
from diffmbrl.mdp.known import two_state
from diffmbrl.omd.compare import published
from diffmbrl.omd.tabular import true_q
from diffmbrl.omd.tabular_agents import Model, model_mdp
from diffmbrl.pipeline.stage import Job
from diffmbrl.plots import fig_omd_2, style
from diffmbrl.tables import read_parquet

SHOWN_FROM = 0.005  # transitions below this probability are not drawn


def learned_mdp(run: pd.Series, alpha: float) -> tuple[DenseMDP, np.ndarray]:
    """The MDP and the Q of one training, from its row of the results."""
    logits = jnp.array([run[f"logits_{i}"] for i in range(8)]).reshape(2, 2, 2)
    rewards = jnp.array([run[f"rewards_{i}"] for i in range(4)]).reshape(2, 2)
    q = np.array([run[f"q_{i}"] for i in range(4)]).reshape(2, 2)
    return model_mdp(Model(logits, rewards), two_state().gamma, alpha), q


def draw_mdp(mdp: DenseMDP, q: np.ndarray, axes):
    """A state diagram: an arrow per transition, labelled (action, reward, probability, Q)."""
    centres = np.array([[-1.0, 0.0], [1.0, 0.0]])
    for state, centre in enumerate(centres):
        axes.add_patch(Circle(centre, 0.24, facecolor="white", edgecolor="0.2", zorder=3))
        axes.text(*centre, f"$s_{state}$", ha="center", va="center", zorder=4)
    P, r = np.asarray(mdp.P), np.asarray(mdp.r)
    for source, target in ((0, 0), (0, 1), (1, 0), (1, 1)):
        text = [
            f"($a_{a}$, {r[source, a]:.2f}, {P[a, source, target]:.2f}, {q[source, a]:.2f})"
            for a in range(mdp.n_actions)
            if P[a, source, target] > SHOWN_FROM
        ]
        if text:
            _arrow(axes, centres, source, target, "\n".join(text))
    axes.set(xlim=(-1.8, 1.8), ylim=(-1.25, 1.25), aspect="equal")
    axes.axis("off")
    return axes


def _arrow(axes, centres: np.ndarray, source: int, target: int, text: str) -> None:
    side = 1 if source == 0 else -1
    if source == target:
        x = centres[source][0]
        start, end, bend = (x - 0.16, 0.19 * side), (x + 0.16, 0.19 * side), -1.6 * side
        place = (x, 0.98 * side)
    else:
        start = (centres[source][0] + 0.24 * side, 0.08 * side)
        end, bend = (centres[target][0] - 0.24 * side, 0.08 * side), -0.28
        place = (0.0, 0.52 * side)
    axes.add_patch(
        FancyArrowPatch(
            start,
            end,
            connectionstyle=f"arc3,rad={bend}",
            arrowstyle="-|>",
            mutation_scale=9,
            color="0.35",
            linewidth=1,
        )
    )
    axes.text(*place, text, ha="center", va="center", fontsize=6.5)


def draw_bounds(rows: pd.DataFrame, axes, looks: Mapping[str, Mapping]):
    """The error of Q* (solid) and the bound on it (dashed) of both agents."""
    for agent in ("mle", "omd"):
        part = rows[rows["agent"] == agent].sort_values("norm_bound")
        look = looks[agent]
        bound = {**look, "label": f"{look['label']} bound"}
        style.estimate(axes, part, "norm_bound", "q_error", **look)
        style.estimate(axes, part, "norm_bound", "bound", **bound, linestyle=":")
    axes.set_yscale("log")
    axes.set_xlabel(r"bound on the model's norm $\kappa$")
    return axes


def best_unbounded(runs: pd.DataFrame) -> pd.Series:
    """The run without a bound whose Q is nearest to Q*."""
    free = runs[(runs["projection"] == "none") & (runs["agent"] == "omd")]
    return free.sort_values(["q_error", "seed"]).iloc[0]


def run(job: Job) -> None:
    """Draws the two MDPs, errors with bounds under both projections, and the returns."""
    alpha = job.settings["alpha"]
    summary = pd.read_csv(job.input("tabular"))
    summary = summary[(summary["table"] == "bounds") & np.isfinite(summary["norm_bound"])]
    shown = [name for name in fig_omd_2.PROJECTIONS if name in set(summary["projection"])]
    figure, axes = style.panels(2, 1 + len(shown), (3.5, 2.6))
    mdp, q = two_state(), np.asarray(true_q(alpha))
    draw_mdp(mdp, q, axes[0, 0]).set_title("true MDP: (action, reward, probability, $Q^*$)")
    chosen = best_unbounded(read_parquet(job.input("bounds")))
    learned, q_learned = learned_mdp(chosen, alpha)
    gap = np.abs(soft_bellman(learned, jnp.asarray(q), alpha) - q).max()
    title = f"OMD's MDP, seed {chosen['seed']:.0f}: max|$Q - Q^*$| = {chosen['q_error']:.1e}"
    draw_mdp(learned, q_learned, axes[1, 0]).set_title(title)
    axes[1, 0].text(
        0,
        -1.2,
        f"max|$B^\\theta Q^* - Q^*$| = {gap:.1e}; "
        f"hard $Q^*$ of the true MDP: {_short(optimal_q(mdp))}",
        ha="center",
        fontsize=6,
        color="0.35",
    )
    looks, theirs = style.looks(job.settings["agents"]), published()
    theirs = theirs[theirs["figure"] == "figure 3"]
    for column, name in enumerate(shown, start=1):
        rows = summary[summary["projection"] == name]
        draw_bounds(rows, axes[0, column], looks).set_title(fig_omd_2.PROJECTIONS[name])
        fig_omd_2.draw(rows, axes[1, column], looks)
        axes[1, column].axhline(
            fig_omd_2.OPTIMUM, color="0.3", linestyle="--", linewidth=1, label="optimum"
        )
        if name == "published":
            errors = theirs[theirs["metric"] != "return"]
            fig_omd_2.draw_published(errors, axes[0, column])
            fig_omd_2.draw_published(theirs[theirs["metric"] == "return"], axes[1, column])
    axes[0, 1].set_ylabel("error of $Q^*$, and bound")
    axes[1, 1].set_ylabel("return (not in the paper)")
    note = style.tabular_note(job.settings) + " · OMD minimises the true Bellman error (eq. 6)"
    style.finish(figure, note, job.outputs, legend_from=axes[:, 1])


def _short(values) -> str:
    return ", ".join(f"{v:.2f}" for v in np.asarray(values).ravel())
