"""Stage: the claims of Gehring et al. 2021, and what our tables say of each."""

from functools import partial

from diffmbrl.implicit import judges_runs, judges_theory
from diffmbrl.pipeline.stage import Job
from diffmbrl.stats import claims
from diffmbrl.stats.claims import Claim

THEORY, DATA, RUNS = ("theory",), ("theory", "noise"), ("ends",)

CLAIMS = (
    Claim(
        "I1",
        "section 2.3",
        "The derivative of the values in the model's parameters is that of "
        "the implicit function theorem, whatever solves for the values.",
        judges_theory.derivative,
        THEORY,
        "fig_implicit_t1",
    ),
    Claim(
        "I2",
        "section 2.3",
        "Differentiating through the solver's iterations gives the same "
        "derivative only asymptotically.",
        judges_theory.unrolled,
        THEORY,
    ),
    Claim(
        "I3",
        "theorem 1",
        "Gradient flow in rewards and logits moves the values by -P grad L.",
        judges_theory.flow_is_preconditioned,
        THEORY,
        "fig_implicit_t1",
    ),
    Claim(
        "I4",
        "theorem 1",
        "The smallest eigenvalue of P stays above a constant that does not depend on time.",
        judges_theory.smallest_eigenvalue,
        THEORY,
        "fig_implicit_t1",
    ),
    Claim(
        "I5",
        "corollary 1",
        "From any start, the flow of the implicit parameterization reaches a global minimum.",
        judges_theory.global_minimum,
        THEORY,
        "fig_implicit_t1",
    ),
    Claim(
        "I6",
        "theorem 2",
        "Explicit SGD lowers the loss by (alpha/n) |r|^2 in expectation, at "
        "first order in alpha, and |r|^2 is at most of the order of L.",
        partial(judges_theory.first_order, check="decrease_explicit"),
        THEORY,
        "fig_implicit_t1",
    ),
    Claim(
        "I7",
        "theorem 3",
        "Implicit SGD lowers the loss by (alpha/n) <P r, r> in expectation, "
        "at first order in alpha.",
        partial(judges_theory.first_order, check="decrease_implicit"),
        THEORY,
        "fig_implicit_t1",
    ),
    Claim(
        "I8",
        "eq. 5",
        "As eta goes to 1, A^-1 and P are their parts along the all-ones vector "
        "but for a relative error of order 1 - eta.",
        judges_theory.expansion,
        THEORY,
        "fig_implicit_t1",
    ),
    Claim(
        "I9",
        "theorem 4",
        "The residual's 1-part r falls by alpha r / (1 - eta)^2 "
        "v'(eta^2 D + I)v |X'1|^2 / n per update in expectation, but for lower orders.",
        judges_theory.ones_rate,
        ("theory", "rates"),
        "fig_implicit_t1",
    ),
    Claim(
        "I10",
        "section 3.2",
        "With a dominant 1-part the implicit parameterization converges "
        "roughly n times faster (within a factor of 3, each at half its largest stable rate).",
        judges_runs.faster,
        ("rates", "contraction"),
        "fig_implicit_t3",
    ),
    Claim(
        "I11",
        "theorem 5",
        "The relative second moment of explicit updates.",
        judges_theory.exact_moments,
        THEORY,
        "fig_implicit_t1",
    ),
    Claim(
        "I12",
        "theorem 5",
        "The relative second moment of implicit updates, but for an error of order 1 - eta.",
        judges_theory.near_moments,
        DATA,
        "fig_implicit_t1",
    ),
    Claim(
        "I13",
        "corollary 2",
        "With one-hot features the relative second moment of explicit updates is n/k.",
        judges_theory.each_state_once,
        DATA,
    ),
    Claim(
        "I14",
        "corollary 3",
        "With residuals of one sign it is at most 1 + (r_max/r_min)^2 / k for implicit ones.",
        judges_theory.balanced,
        DATA,
    ),
    Claim(
        "I15",
        "assumption 1",
        "Features are bounded, |XX'| is bounded and |X'1|^2 is of the "
        "order of n, in the experiments (|XX'| grows more slowly than the root of n).",
        judges_runs.assumption,
        ("rates",),
    ),
    Claim(
        "I16",
        "figure 1",
        "Its numbers.",
        partial(judges_runs.numbers, figure="figure 1"),
        ("compare",),
        "fig_implicit_1",
    ),
    Claim(
        "I17",
        "figure 1, text",
        "The reward offset sets the relative size of the residual's "
        "1-part (by a factor of 1.5 at least, in each domain).",
        judges_runs.relative_size,
        RUNS,
        "fig_implicit_1",
    ),
    Claim(
        "I18",
        "figures 2 and 3",
        "Their numbers.",
        partial(judges_runs.numbers, figure="figures 2 and 3"),
        ("compare",),
        "fig_implicit_2",
    ),
    Claim(
        "I19",
        "figure 2, text",
        "The implicit parameterization is less sensitive to the offset, "
        "as theorem 4 predicts (its final residual rises less, by 1% of the initial residual's "
        "rise at least, also on features that are trained).",
        judges_runs.less_sensitive,
        ("coverage", "ends"),
        "fig_implicit_t2",
    ),
    Claim(
        "I20",
        "figure 3, text",
        "The least sensitive eta is not necessarily the best one.",
        judges_runs.steadiest_is_not_best,
        RUNS,
        "fig_implicit_3",
    ),
    Claim(
        "I21",
        "figure 3, text",
        "The best eta is not necessarily the true discount.",
        judges_runs.best_is_not_gamma,
        RUNS,
        "fig_implicit_3",
    ),
    Claim(
        "I22",
        "appendix",
        "Models with several pseudo-actions behave like those with one (final "
        "residuals within a factor of 1.5).",
        judges_runs.several_actions,
        RUNS,
        "fig_implicit_a3",
    ),
)


def run(job: Job) -> None:
    """Writes the claims table."""
    claims.write(CLAIMS, job)
