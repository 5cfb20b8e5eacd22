"""Whether numbers differ by more than rounding."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

FLOAT64, FLOAT32 = 1e-9, 1e-4  # rounding, relative to a number's size
NOTHING = 1e-12  # a smaller difference is none, whatever the size
PRINTED = range(6, 10)  # significant digits of a table written as text


@dataclass(frozen=True)
class Difference:
    """Where a column of paired tables differs beyond rounding.

    Attributes:
        column: its name.
        rows: in how many rows.
        worst: the largest difference, relative to the number's size; None for what is no number.
        row: the position of that row.
    """

    column: str
    rows: int
    worst: float | None
    row: int

    def __str__(self) -> str:
        if self.worst is None:
            return f"{self.column} (in {self.rows} rows)"
        return f"{self.column} (worst relative difference {self.worst:.2g})"


def differences(
    old: pd.DataFrame, new: pd.DataFrame, rtol: float | None = None, least: float = 0.0
) -> list[Difference]:
    """The columns in which two paired tables differ beyond rounding, the worst first.

    Args:
        old: rows in some order.
        new: the same columns and rows in the same order.
        rtol: the rounding of every column; 0 asks for every bit, None for `rounding`'s.
        least: a rounding that every column is allowed at least.
    """
    allowed = rounding(old, new, least) if rtol is None else dict.fromkeys(old.columns, rtol)
    found = [_column(old[name], new[name], allowed.get(name, 0.0)) for name in old.columns]
    return sorted(filter(None, found), key=lambda d: -np.inf if d.worst is None else -d.worst)


def rounding(old: pd.DataFrame, new: pd.DataFrame, least: float = 0.0) -> dict[str, float]:
    """By floating column, the largest relative difference that is rounding.

    1e-4 for what was computed in float32 (all values of both sides are float32 numbers), some
    thousand times its 6e-8, which leaves room for sums and short recursions; 1e-9 for float64.
    In a table written as text with 6 to 9 digits, one unit of the last digit.
    """
    names = [c for c in old.columns if "f" in (old[c].dtype.kind, new[c].dtype.kind)]
    values = {c: np.concatenate([old[c].to_numpy(float), new[c].to_numpy(float)]) for c in names}
    digits = _printed(np.concatenate([*values.values(), []]))
    base = max(FLOAT64, 10.0 ** (1 - digits)) if digits else FLOAT64
    with np.errstate(over="ignore"):
        single = {
            c: np.array_equal(v.astype(np.float32).astype(float), v, equal_nan=True)
            for c, v in values.items()
        }
    return {c: max(least, FLOAT32 if single[c] else base) for c in names}


def _printed(values: np.ndarray) -> int | None:
    """With how few digits, at least six, all values can be written; None if not with nine."""
    finite = np.unique(values[np.isfinite(values)]).tolist()
    return next((n for n in PRINTED if all(float(f"{v:.{n}g}") == v for v in finite)), None)


def _column(old: pd.Series, new: pd.Series, rtol: float) -> Difference | None:
    kinds = {old.dtype.kind, new.dtype.kind}
    if not kinds <= set("biuf"):
        unequal = old.astype(str).to_numpy() != new.astype(str).to_numpy()
        rows = int(unequal.sum())
        return Difference(str(old.name), rows, None, int(unequal.argmax())) if rows else None
    a, b = old.to_numpy(), new.to_numpy()
    off = relative(a.astype(float), b.astype(float), NOTHING if rtol else 0.0)
    if "f" not in kinds:
        unequal = a != b
    elif kinds == {"f"} and rtol == 0.0 and a.dtype == b.dtype:
        unequal = a.view(f"u{a.itemsize}") != b.view(f"u{b.itemsize}")
    else:
        unequal = off > rtol
    if not unequal.any():
        return None
    row = int(np.where(unequal, off, -1.0).argmax())
    return Difference(str(old.name), int(unequal.sum()), float(off[row]), row)


def relative(
    a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"], nothing: float = NOTHING
) -> Float[np.ndarray, " n"]:
    """Differences relative to size: the larger of the two numbers and their column's median.

    NaN equals NaN, infinity itself; either is infinitely far from a number. The median, of what is
    finite and not 0, keeps a number that happens to lie near 0 from counting as far off.

    Args:
        a: one column.
        b: the other.
        nothing: differences up to this count as none.
    """
    sizes = np.abs(np.concatenate([a, b]))
    sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
    median = np.median(sizes) if len(sizes) else 1.0
    with np.errstate(all="ignore"):
        gap = np.abs(a - b)
        off = gap / np.maximum(np.maximum(np.abs(a), np.abs(b)), median)
    off = np.where(np.isnan(off), np.inf, off)
    return np.where((a == b) | (np.isnan(a) & np.isnan(b)) | (gap <= nothing), 0.0, off)
