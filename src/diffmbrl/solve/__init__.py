"""Implicit differentiation: one solve, with a choice of forward method and of adjoint."""

from diffmbrl.solve.adjoint import IDENTITY, Adjoint, Exact, Identity, Iterative, at_minimum
from diffmbrl.solve.fixed_point import (
    CONVERGED,
    MAX_STEPS,
    NON_FINITE,
    RESULTS,
    Method,
    Newton,
    Picard,
    Solution,
    fixed_point,
)
from diffmbrl.solve.linear import (
    CG,
    GCR,
    Direct,
    Elimination,
    LinearSolver,
    Neumann,
    Operator,
    Refined,
)

__all__ = [
    "CG",
    "CONVERGED",
    "GCR",
    "IDENTITY",
    "MAX_STEPS",
    "NON_FINITE",
    "RESULTS",
    "Adjoint",
    "Direct",
    "Elimination",
    "Exact",
    "Identity",
    "Iterative",
    "LinearSolver",
    "Method",
    "Neumann",
    "Newton",
    "Operator",
    "Picard",
    "Refined",
    "Solution",
    "at_minimum",
    "fixed_point",
]
