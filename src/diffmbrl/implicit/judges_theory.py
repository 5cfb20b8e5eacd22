"""How the theory's tables decide the claims of `implicit`: pure functions to verdicts."""

import numpy as np
from pandas import DataFrame as Frame

from diffmbrl.implicit.metrics import ETA
from diffmbrl.stats.claims import Verdict, every, holds

ROUNDING = 1e-10  # of quantities that are equal in exact arithmetic, relative
DIFFERENCES = 1e-6  # of central differences with a step of 1e-6, relative
NEAR = 0.01  # what a remainder of order 1 - eta, or of order alpha, may be where it is smallest
SLOPE = 0.1  # by how much a remainder's exponent may be off


def _of(theory: Frame, check: str) -> Frame:
    rows = theory[theory["check"] == check]
    return rows.assign(error=(rows["measured"] - rows["stated"]).abs() / rows["stated"].abs())


def derivative(theory: Frame) -> Verdict:
    """I1: against central differences."""
    rows = _of(theory, "gradient")
    return holds(rows["measured"].max(), DIFFERENCES, len(rows), "relative error of the derivative")


def unrolled(theory: Frame) -> Verdict:
    """I2: never equal after few iterations, equal in the end."""
    rows = _of(theory, "unrolled")
    few, last = rows[rows["x"] <= 10], rows[rows["x"] == rows["x"].max()]
    parts = {
        "at most 10 iterations": holds(
            (few["stated"] / few["measured"]).max(), 3, len(few), "eta^N over the relative error"
        ),
        f"{rows['x'].max():g} iterations": holds(
            last["measured"].max(), ROUNDING, len(last), "relative error"
        ),
    }
    return every(parts)


def flow_is_preconditioned(theory: Frame) -> Verdict:
    """I3: J J' = P, so that flow in (w, F) moves theta by -P grad L."""
    rows = _of(theory, "jacobian")
    return holds(rows["measured"].max(), ROUNDING, len(rows), "relative error of J J' against P")


def smallest_eigenvalue(theory: Frame) -> Verdict:
    """I4: c = 1 / (1 + eta sqrt K)^2 is below lambda_min(P)."""
    rows = _of(theory, "bound")
    worst = (rows["stated"] / rows["measured"]).max()
    return holds(worst, 1 + 1e-9, len(rows), "c over the smallest eigenvalue of P")


def global_minimum(theory: Frame) -> Verdict:
    """I5: the flow's loss stays below its exponential bound."""
    rows = _of(theory, "flow")
    worst = (rows["measured"] / rows["stated"]).max()
    flows = len(rows[["case", "instance"]].drop_duplicates())
    return holds(worst, 1 + 1e-6, flows, "L - L* over its bound, along the flow")


def _orders(rows: Frame, error: str) -> np.ndarray:
    """Exponents with which each instance's error goes to 0, from the two smallest x."""
    table = rows.pivot_table(index=["instance", "gap"], columns="x", values=error, dropna=False)
    table = table.dropna(how="all")
    smallest, next_one = sorted(table.columns)[:2]
    falls = np.log(table[next_one] / table[smallest])
    return (falls / np.log(next_one / smallest)).to_numpy()


def first_order(theory: Frame, check: str) -> Verdict:
    """I6, I7: the remainder of E[dL] / alpha is of order alpha."""
    rows = _of(theory, check)
    orders = _orders(rows.assign(gap=0.0), "error")
    what = "exponent of the remainder in alpha, less 1"
    found = holds(np.abs(orders - 1).max(), SLOPE, len(orders), what)
    if check != "decrease_explicit":
        return found
    level = _of(theory, "level")
    worst = (level["measured"] / level["stated"]).max()
    return every(
        {
            "decrease": found,
            "|r|^2 <= 2 |XX'| L": holds(worst, 1 + ROUNDING, len(level), "|r|^2 over it"),
        }
    )


def expansion(theory: Frame) -> Verdict:
    """I8: the error of the leading terms is of order 1 - eta."""
    parts = {}
    for check, name in (("expansion_inverse", "A^-1"), ("expansion_P", "P")):
        orders = _orders(_of(theory, check), "measured")
        what = "exponent of the relative error in 1 - eta, less 1"
        parts[name] = holds(np.abs(orders - 1).max(), SLOPE, len(orders), what)
    return every(parts)


def _nearest(theory: Frame, check: str) -> Frame:
    rows = _of(theory, check)
    return rows[rows["x"] == rows["x"].min()]


def ones_rate(theory: Frame, rates: Frame) -> Verdict:
    """I9: the theorem's rate where eta is near 1; its factor on the domains' data is about 1/K."""
    rows = _nearest(theory, "ones")
    found = holds(rows["error"].max(), NEAR, len(rows), f"relative error at 1 - eta {_x(rows)}")
    perron = rates[rates["parameterization"] == "implicit"].groupby("domain")["perron"]
    low, high = perron.min().min(), perron.max().max()
    return found.because(
        f"K v'(eta^2 D + I)v is {low:.2f} to {high:.2f} at the start on the domains' data, so that "
        "the last line's constant is 1/K"
    )


def _x(rows: Frame) -> str:
    return f"{rows['x'].min():g}"


def exact_moments(theory: Frame) -> Verdict:
    """I11: theorem 5, explicit."""
    rows = _of(theory, "moments_explicit")
    return holds(rows["error"].max(), ROUNDING, len(rows), "relative error, every batch counted")


def near_moments(theory: Frame, noise: Frame) -> Verdict:
    """I12: theorem 5, implicit, where eta is near 1."""
    rows = _nearest(theory, "moments_implicit")
    found = holds(rows["error"].max(), NEAR, len(rows), f"relative error at 1 - eta {_x(rows)}")
    mine = noise[(noise["parameterization"] == "implicit") & np.isfinite(noise["ratio"])]
    off = (mine["ratio"] / mine["stated"] - 1).abs()
    return found.because(f"on the domains' data at eta {ETA:g} off by {off.median():.2g} (median)")


def each_state_once(theory: Frame, noise: Frame) -> Verdict:
    """I13: n/k without replacement, each state once."""
    rows = _of(theory, "tabular_explicit")
    rows = rows[rows["case"].str.contains("without")]
    error = (rows["measured"] * rows["batch"] / rows["features"] - 1).abs().max()
    told = []
    for domain, part in noise[noise["parameterization"] == "explicit"].groupby("domain"):
        ratio = part.groupby("step")["ratio"].median()
        told.append(
            f"{domain} {ratio.iloc[0]:.3g} to {ratio.max():.3g}, n/k"
            f" {part['each_once'].median():.3g}"
        )
    found = holds(error, ROUNDING, len(rows), "relative error against n/k")
    return found.because(f"where states repeat, as in the experiments: {'; '.join(told)}")


def balanced(theory: Frame, noise: Frame) -> Verdict:
    """I14: 1 + (r_max / r_min)^2 / k bounds the ratio where residuals have one sign."""
    rows = _nearest(theory, "tabular_implicit")
    one = rows[rows["case"].str.contains("one sign")]
    worst = (one["measured"] / (1 + one["spread"] ** 2 / one["batch"])).max()
    both = rows[rows["case"].str.contains("both signs")]
    beyond = (both["measured"] > both["features"] / both["batch"]).mean()
    trained = noise[(noise["parameterization"] == "implicit") & (noise["step"] > 0)]
    mixed = (trained["minority"] > 0).mean()
    found = holds(worst, 1 + NEAR, len(one), f"ratio over its bound at 1 - eta {_x(rows)}")
    return found.because(
        f"with both signs {beyond:.0%} of instances exceed n/k; in training {mixed:.0%} of the "
        "runs' residuals have both signs"
    )
