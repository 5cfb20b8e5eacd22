"""Implicit differentiation: one solve, with a choice of forward method and of adjoint."""

from diffmbrl.solve.fixed_point import (
    CONVERGED,
    MAX_STEPS,
    NON_FINITE,
    RESULTS,
    Adjoint,
    Exact,
    Identity,
    Iterative,
    Method,
    Newton,
    Picard,
    Solution,
    fixed_point,
)
from diffmbrl.solve.linear import GCR, Direct, Elimination, LinearSolver, Operator, Refined

__all__ = [
    "CONVERGED",
    "GCR",
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
    "Newton",
    "Operator",
    "Picard",
    "Refined",
    "Solution",
    "fixed_point",
]
