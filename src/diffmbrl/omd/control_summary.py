"""Stage: final returns of the continuous-control runs, OMD against MLE, and learning curves."""

import numpy as np
import pandas as pd
from scipy import stats

from diffmbrl.pipeline.stage import Job
from diffmbrl.stats.claims import t_interval
from diffmbrl.tables import read_parquet, write_csv

SETTING = ["task", "width", "distractors", "inner_steps"]
ARM = [*SETTING, "agent", "adjoint"]
RATES = ["inner_lr", "model_lr"]
LEVEL = 0.95


def finals(runs: pd.DataFrame, evaluations: int) -> pd.DataFrame:
    """One row per run at the best rates of its arm: the mean of its last evaluations.

    The best pair of rates has the highest mean return over seeds.
    """
    rows = []
    for _, part in runs.groupby([*ARM, *RATES, "seed"], sort=True):
        last = part.sort_values("step").tail(evaluations)
        row = last.iloc[-1][[*ARM, *RATES, "seed", "diverged"]].to_dict()
        ends = {"steps": last["step"].max(), "eval_return": last["eval_return"].mean()}
        rows.append({**row, **ends})
    frame = pd.DataFrame(rows)
    score = frame.groupby([*ARM, *RATES], sort=True)["eval_return"].mean().reset_index()
    best = score.sort_values("eval_return", ascending=False, kind="stable").groupby(ARM).first()
    return frame.merge(best.reset_index()[[*ARM, *RATES]], on=[*ARM, *RATES])


def arms(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per setting and agent: the mean over seeds and its 95% interval by Student's t."""
    rows = []
    for key, part in frame.groupby([*ARM, *RATES], sort=True):
        mean, low, high = interval(part["eval_return"].to_numpy(float))
        rows.append(
            {
                **dict(zip([*ARM, *RATES], key, strict=True)),
                "n_runs": len(part),
                "n_diverged": int(part["diverged"].sum()),
                "mean": mean,
                "low": low,
                "high": high,
            }
        )
    return pd.DataFrame(rows)


def differences(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per setting that both agents have: OMD's mean return minus MLE's, by Welch's t."""
    rows = []
    for key, part in frame.groupby(SETTING, sort=True):
        omd, mle = (part.loc[part["agent"] == name, "eval_return"] for name in ("omd", "mle"))
        omd, mle = (x[np.isfinite(x)].to_numpy(float) for x in (omd, mle))
        if len(omd) > 1 and len(mle) > 1:
            test = stats.ttest_ind(omd, mle, equal_var=False)
            low, high = test.confidence_interval(LEVEL)
            row = dict(zip(SETTING, key, strict=True))
            found = {"difference": omd.mean() - mle.mean(), "low": low, "high": high}
            rows.append({**row, "n_omd": len(omd), "n_mle": len(mle), **found, "p": test.pvalue})
    columns = [*SETTING, "n_omd", "n_mle", "difference", "low", "high", "p"]
    return pd.DataFrame(rows, columns=columns)


def curves(runs: pd.DataFrame, frame: pd.DataFrame) -> pd.DataFrame:
    """The arms' mean return by step, with its 95% interval, at the rates of `finals`."""
    chosen = frame[[*ARM, *RATES]].drop_duplicates()
    rows = []
    for key, part in runs.merge(chosen, on=[*ARM, *RATES]).groupby([*ARM, "step"], sort=True):
        mean, low, high = interval(part["eval_return"].to_numpy(float))
        found = {"mean": mean, "low": low, "high": high, "n_runs": len(part)}
        mse = {"model_mse": part["model_mse"].median(), "q_value": part["q_value"].median()}
        rows.append({**dict(zip([*ARM, "step"], key, strict=True)), **found, **mse})
    return pd.DataFrame(rows)


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """Mean of the finite values and its 95% t interval, whose ends are NaN for a single one."""
    finite = values[np.isfinite(values)]
    if len(finite) < 2:
        return (float(finite.mean()) if len(finite) else np.nan), np.nan, np.nan
    return t_interval(finite, LEVEL)


def run(job: Job) -> None:
    """Settings: final_evaluations."""
    runs = pd.concat(map(read_parquet, job.inputs["curves"]), ignore_index=True)
    found = finals(runs, job.settings["final_evaluations"])
    write_csv(arms(found), job.outputs["arms"])
    write_csv(found, job.outputs["runs"])
    write_csv(differences(found), job.outputs["differences"])
    write_csv(curves(runs, found), job.outputs["curves"])
