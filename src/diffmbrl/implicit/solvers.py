"""How the implicit values' equation is solved: what measures fastest for n features."""

from diffmbrl.implicit.values import Implicit, Models
from diffmbrl.solve import GCR, Direct, Exact, Iterative, LinearSolver, Newton, Refined

EXACT_BELOW = 32  # features; a factorisation is faster than iterating below, slower above
SET = 72  # runs; the published grids have 66 per seed and eta
ONCE = Refined(GCR(rtol=1e-6, atol=1e-8, max_steps=60, memory=8, passes=1), rounds=1)
TWICE = Refined(GCR(rtol=1e-4, atol=1e-7, max_steps=60, memory=8, passes=1), rounds=2)
FULL = GCR(rtol=1e-15, atol=1e-8, max_steps=60, memory=20)


def models(
    n: int, backup: str, temperature: float, steps: int, rtol: float, calm: LinearSolver
) -> Models:
    """Implicit values solved by Newton's method, in both ways.

    Args:
        n: how many features there are.
        backup: over pseudo-actions.
        temperature: of a log-sum-exp.
        steps: the most of Newton's steps; 1 where the equation is affine.
        rtol: a change of theta, relative to theta, below which they end.
        calm: the linear solver of a calm run's steps, for many features.
    """
    if n < EXACT_BELOW:
        newton = Newton(Direct(), rtol=rtol, atol=1e-10, max_steps=steps)
        exact = Implicit(newton, Exact(), backup, temperature)
        return Models(exact, exact, SET)
    calmly, wildly = (
        Newton(linear, rtol=rtol, atol=1e-7, max_steps=steps) for linear in (calm, FULL)
    )
    return Models(
        Implicit(calmly, Iterative(ONCE), backup, temperature, warm=True),
        Implicit(wildly, Iterative(FULL), backup, temperature),
        1,
    )
