"""Stage: the claims of Nikishin et al. 2022, and what the tables say of each.

CartPole's runs are compared at the selected pair of rates. Where several pairs were run, each half
of the seeds is judged under the pair that is best on the other half (`omd.finals`).
"""

from diffmbrl.omd import claims_cartpole as cartpole
from diffmbrl.omd import claims_tabular as tabular
from diffmbrl.pipeline.stage import Job
from diffmbrl.stats import claims
from diffmbrl.stats.claims import Claim

CLAIMS = (
    Claim(
        "O1",
        "theorem 1, eq. 7",
        "The implicit function theorem gives the derivative of Q* in the model's parameters.",
        tabular.implicit_gradient,
        ("identities",),
        "fig_omd_t1",
    ),
    Claim(
        "O2",
        "figure 2",
        "With a bound on the model's norm, OMD's return is above MLE's.",
        tabular.above_mle,
        ("misspecification",),
        "fig_omd_2",
    ),
    Claim(
        "O3",
        "section 4, footnote 1",
        "At a small temperature (0.01) soft and hard values differ by a negligible amount.",
        tabular.small_temperature,
        ("temperature",),
        "fig_omd_t1",
    ),
    Claim(
        "O4",
        "proposition 1",
        "Every model whose Bellman operator agrees at Q* solves problems (2) and (6).",
        tabular.equivalent_models,
        ("identities",),
        "fig_omd_t1",
    ),
    Claim(
        "O5",
        "section 5.1, figure 3 left",
        "OMD finds models that are equivalent to the true one, but others, and deterministic.",
        tabular.deterministic,
        ("bounds",),
        "fig_omd_3",
    ),
    Claim(
        "O6",
        "theorem 2",
        "Both bounds on the error of Q* hold.",
        tabular.theorem_2,
        ("pairs",),
        "fig_omd_t1",
    ),
    Claim(
        "O7",
        "lemma 1, section 5.2",
        "The operator's error is at most what the model's errors allow, so OMD's bound is tighter.",
        tabular.lemma_1,
        ("pairs",),
        "fig_omd_t1",
    ),
    Claim(
        "O8",
        "figure 3 right",
        "With a bound on the model's norm, OMD has the lower error of Q* and the tighter bound.",
        tabular.lower_error,
        ("bounds",),
        "fig_omd_3",
    ),
    Claim(
        "O9",
        "section 6",
        "Minimising the true Bellman error still means maximising the returns.",
        tabular.bellman_means_returns,
        ("bounds", "misspecification"),
        "fig_omd_3",
    ),
    Claim(
        "O10",
        "section 6",
        "The returns as an objective need more samples than the Bellman error.",
        tabular.more_samples,
        ("samples",),
        "fig_omd_t1",
    ),
    Claim(
        "O11",
        "figure 4 left, section 7",
        "OMD is near the optimum (within 5%) with models of 1 to 4 units.",
        cartpole.near_optimal_when_small,
        ("finals",),
        "fig_omd_4",
    ),
    Claim(
        "O12",
        "figure 4 left",
        "With models of 1 to 4 units OMD's return is above MLE's, and MLE's above VEP's.",
        cartpole.order_when_small,
        ("finals",),
        "fig_omd_4",
    ),
    Claim(
        "O13",
        "figure 4 left",
        "With models of 6 and 12 units all agents are near the optimum (within 5%).",
        cartpole.near_optimal_when_large,
        ("finals",),
        "fig_omd_4",
    ),
    Claim(
        "O14",
        "figure 4 right",
        "OMD's return with distractors is above that of the others.",
        cartpole.robust,
        ("finals",),
        "fig_omd_4",
    ),
    Claim(
        "O15",
        "figure 4 right",
        "VEP fails (a tenth of the optimum) with any number of distractors.",
        cartpole.vep_fails,
        ("finals",),
        "fig_omd_4",
    ),
    Claim(
        "O16",
        "figure 5 left, section 7",
        "The next-state error of OMD's models of width 1 and 3 is above a random model's.",
        cartpole.worse_than_random,
        ("finals",),
        "fig_omd_5",
    ),
    Claim(
        "O17",
        "figure 5 centre",
        "At widths 1 and 3 OMD's return is above MLE's.",
        cartpole.above_mle,
        ("finals",),
        "fig_omd_5",
    ),
    Claim(
        "O18",
        "figure 5 right",
        "A run of OMD at width 1 returns 500 with a model that hardly varies the cart's velocity.",
        cartpole.constant_velocity,
        ("finals", "predictions"),
        "fig_omd_5",
    ),
    Claim(
        "O19",
        "figure 6",
        "With noise in Q, the exact inverse Jacobian and the identity give the same returns.",
        tabular.same_under_noise,
        ("noise",),
        "fig_omd_6",
    ),
    Claim(
        "O20",
        "appendix C, a conjecture",
        "The inverse Jacobian helps near the exact inner solution and not far from it.",
        tabular.preconditioner,
        ("alignment",),
        "fig_omd_t1",
    ),
    Claim(
        "O21",
        "figure 7 left",
        "The number of inner steps K makes no difference.",
        cartpole.inner_steps,
        ("finals",),
        "fig_omd_7",
    ),
    Claim(
        "O22",
        "figure 7 right",
        "Double Q-learning raises the returns.",
        cartpole.double_q,
        ("finals",),
        "fig_omd_7",
    ),
    Claim(
        "O23",
        "appendix E",
        "Double Q-learning is the only modification that matters.",
        cartpole.nothing_else_matters,
        ("finals",),
        "fig_omd_7",
    ),
    Claim(
        "O24",
        "figure 7 right",
        "The inverse Jacobian in place of the identity makes no difference.",
        cartpole.inverse_jacobian,
        ("finals",),
        "fig_omd_7",
    ),
    Claim(
        "O25",
        "appendix E",
        "The Hessian of the inner loss is singular (a tenth of it or more).",
        cartpole.singular,
        ("eigenvalues",),
        "fig_omd_t2",
    ),
    Claim(
        "O26",
        "appendix E, a conjecture",
        "The min-norm solution of the singular system is no useful direction for the model.",
        cartpole.min_norm,
        ("answers",),
        "fig_omd_t2",
    ),
    Claim(
        "O27",
        "appendix E",
        "In the tabular case a gradient constraint gives results like those of Q = B Q.",
        tabular.like_the_gradient_constraint,
        ("bounds", "noise", "constraint"),
        "fig_omd_t1",
    ),
    Claim(
        "O28",
        "appendix D, figure 4",
        "Best of 6 pairs of rates over 10 seeds at full length, OMD is near the optimum (5%).",
        cartpole.as_selected_in_the_paper,
        ("selections",),
        "fig_omd_4",
    ),
    Claim(
        "O29",
        "figure 8",
        "On HalfCheetah OMD's models are more useful than MLE's, small ones and with distractors.",
        "needs HalfCheetah with SAC as the inner optimiser: 1,000,000 steps for each of 5 seeds, "
        "2 agents, the widths, the distractors and 8 combinations of rates and K",
    ),
    Claim(
        "O30",
        "section 8, conjectures",
        "A saddle point is less stable than the implicit gradient, and OMD's model serves another "
        "reward without training. (Images are not tested here.)",
        cartpole.outlook,
        ("saddle", "zero_shot"),
        "fig_omd_t2",
    ),
)


def run(job: Job) -> None:
    """Writes the verdicts."""
    claims.write(CLAIMS, job)
