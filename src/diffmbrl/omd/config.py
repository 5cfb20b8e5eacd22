"""Types of the settings of Nikishin et al. 2022; their values are in config/omd.yaml."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from diffmbrl.settings import (
    Count,
    Discount,
    Distinct,
    Fraction,
    Group,
    Index,
    NotNegative,
    Positive,
    Probability,
    Several,
    multiple,
    refuse,
)

REGISTRIES = {"cartpole.agents": "omd.agents", "control.tasks": "rpg.tasks"}
Experiment = Literal["width", "selection", "distractors", "parts", "ablation"]
OF_ALL_AGENTS = ("width",)  # the others are of those that have rates for them
Rates = Annotated[tuple[Positive, Positive], Field(strict=False)]
Pair = Annotated[tuple[Positive, Fraction], Field(strict=False)]


class Tabular(Group):
    """The two-state MDP of figures 2, 3 and 6."""

    seeds: Annotated[
        Count, Field(description="Runs per setting; seeds 1, 2, ... by the published schedule.")
    ]
    norm_bounds: Annotated[
        int, Field(ge=2, description="How many norm bounds, from 0 to the largest, evenly spaced.")
    ]
    norm_bound_max: Annotated[Positive, Field(description="The largest norm bound.")]
    sigmas: Annotated[
        int, Field(ge=2, description="How many noise levels, evenly spaced in the logarithm.")
    ]
    sigma_exponents: Annotated[
        list[float],
        Field(
            min_length=2,
            max_length=2,
            description="Powers of ten of the least and the largest noise level.",
        ),
    ]
    steps: Annotated[Count, Field(description="The most Adam steps of a training.")]
    learning_rate: Annotated[Positive, Field(description="Adam's step size.")]
    alpha: Annotated[
        Positive,
        Field(description="Temperature of policy, soft maximum and transition logits."),
    ]
    projections: Annotated[
        Several[Literal["published", "joint"]],
        Field(description="How a norm bound is imposed; the paper's curves need `published`."),
    ]
    adjoints: Annotated[
        Several[Literal["exact", "iterative", "identity"]],
        Field(description="How the gradient of figure 6 inverts the Jacobian."),
    ]


class Studies(Group):
    """What the paper states of the tabular case without showing it."""

    seeds: Annotated[Count, Field(description="Runs per setting of the trainings; seeds 1, 2, ...")]
    steps: Annotated[
        Count,
        Field(
            multiple_of=40,
            description="Adam steps of a training from samples, or of a saddle point's.",
        ),
    ]
    instances: Annotated[Count, Field(description="Random MDPs and models per statement.")]
    alphas: Annotated[
        int, Field(ge=2, description="How many temperatures, evenly spaced in the logarithm.")
    ]
    alpha_exponents: Annotated[
        list[float],
        Field(
            min_length=2,
            max_length=2,
            description="Powers of ten of the least and the largest temperature.",
        ),
    ]
    reward_errors: Annotated[
        Several[NotNegative], Field(description="Largest errors of a model's rewards.")
    ]
    dynamics_errors: Annotated[
        Several[Annotated[float, Field(gt=0, le=2)]],
        Field(description="Largest errors of a model's transitions, in the 1-norm."),
    ]
    batches: Annotated[
        Several[Annotated[int, Field(ge=50, multiple_of=50)]],
        Field(description="Transitions per step of a training from samples."),
    ]
    temperatures: Annotated[
        Several[Positive], Field(description="Temperatures at which samples are counted.")
    ]
    rates: Annotated[
        Several[Positive], Field(description="Adam's step sizes of a saddle point and of OMD.")
    ]


class Agent(Group):
    """What an agent is trained with."""

    rates: Annotated[
        dict[Experiment, Several[Pair]],
        Field(
            description="By experiment, pairs of Adam's step size for Q and of the moving-average "
            "coefficient (tau) of the target network; all are run, the best is selected. An agent "
            "takes part in the experiments that are named."
        ),
    ]


class Runs(Group):
    """An experiment: how often each of its settings is run."""

    seeds: Annotated[Count, Field(description="Runs per setting; seeds 1, 2, ...")]


class Width(Runs):
    """Model capacity (figures 4 left and 5)."""

    widths: Annotated[
        Several[Count],
        Field(description="Units in each hidden layer of the model, in the order of running."),
    ]


class Selection(Width):
    """Model capacity with every pair of rates, and the selected one again on further seeds."""

    fresh_seeds: Annotated[
        Index,
        Field(
            description="Further runs of every setting at the pair that `seeds` selected, of those "
            "settings that have several pairs."
        ),
    ]


class Parts(Runs):
    """What of a model carries the control: leaky units; OMD with one network frozen."""

    widths: Annotated[Several[Count], Field(description="Units in each hidden layer of the model.")]


class Distractors(Runs):
    """Uninformative observations (figure 4 right)."""

    distractors: Annotated[
        Several[Index],
        Field(
            description="How many standard-normal numbers are appended, in the order of running."
        ),
    ]
    model_width: Annotated[Count, Field(description="Units in each hidden layer of the model.")]


class Ablation(Runs):
    """OMD's approximations (figure 7), and its inner optimiser's state."""

    model_width: Annotated[Count, Field(description="Units in each hidden layer of the model.")]
    inner_steps: Annotated[Several[Count], Field(description="K, Q steps per model step.")]
    adjoints: Annotated[
        Distinct[Literal["cg", "neumann"]],
        Field(description="Inverses of the Jacobian that are tried beside the identity."),
    ]
    probabilistic: Annotated[bool, Field(description="Whether a Gaussian model is tried as well.")]


class Curvature(Runs):
    """The Hessian of OMD's inner loss."""

    model_width: Annotated[Count, Field(description="Units in each hidden layer of the model.")]
    steps: Annotated[
        Count,
        Field(description="Environment steps before it is taken, a multiple of evaluate_every."),
    ]
    iterations: Annotated[
        Several[Count], Field(description="Of conjugate gradients, whose answers are compared.")
    ]


class ZeroShot(Group):
    """Planning with learned dynamics for another reward."""

    widths: Annotated[
        Several[Count], Field(description="Of experiment `width`, whose models are planned with.")
    ]
    updates: Annotated[Count, Field(description="Updates of the new task's Q.")]


class CartPole(Group):
    """CartPole, figures 4, 5 and 7."""

    agents: Annotated[dict[str, Agent], Field(description="The agents of figures 4 and 5.")]
    experiments: Annotated[
        Distinct[Experiment],
        Field(description="Which are run; figures that draw on others are left out."),
    ]
    steps: Annotated[
        Count, Field(description="Environment steps of a run, a multiple of evaluate_every.")
    ]
    warmup: Annotated[
        Count,
        Field(
            description="Steps of uniformly random actions before the first update; at most "
            "evaluate_every."
        ),
    ]
    evaluate_every: Annotated[
        Count, Field(description="Environment steps between two evaluations.")
    ]
    episodes: Annotated[Count, Field(description="Episodes per evaluation.")]
    final_evaluations: Annotated[
        Count, Field(description="A run's final return is the mean of so many last evaluations.")
    ]
    readings: Annotated[
        Several[Count],
        Field(description="Other numbers of last evaluations by which final returns are read."),
    ]
    batch: Annotated[
        Count,
        Field(description="Transitions per batch, drawn without replacement; at most warmup."),
    ]
    epsilon: Annotated[
        Probability, Field(description="Probability of a uniformly random action in training.")
    ]
    alpha: Annotated[
        Positive, Field(description="Temperature of the policy and of the soft maximum.")
    ]
    gamma: Annotated[Discount, Field(description="Discount.")]
    hidden: Annotated[
        Count, Field(description="Units in each of the two hidden layers of a Q network.")
    ]
    precision: Annotated[
        Literal["float32", "float64"],
        Field(description="Of networks and updates; the paper's is float64."),
    ]
    model_lr: Annotated[Positive, Field(description="Adam's step size for the model.")]
    adjoint_iterations: Annotated[
        Count, Field(description="At most so many products with the Hessian (cg, neumann).")
    ]
    adjoint_damping: Annotated[NotNegative, Field(description="Added to the Hessian's diagonal.")]
    width: Annotated[Width, Field(description="Model capacity (figures 4 left and 5).")]
    selection: Annotated[
        Selection,
        Field(description="Model capacity where more pairs of rates and more seeds are run."),
    ]
    distractors: Annotated[
        Distractors, Field(description="Uninformative observations (figure 4 right).")
    ]
    parts: Annotated[
        Parts,
        Field(description="Leaky units; OMD with its dynamics, or its rewards, frozen."),
    ]
    ablation: Annotated[Ablation, Field(description="OMD's approximations (figure 7).")]
    curvature: Annotated[Curvature, Field(description="The Hessian of OMD's inner loss.")]
    zero_shot: Annotated[
        ZeroShot, Field(description="Planning with learned dynamics for another reward.")
    ]


class ControlTask(Group):
    """A task of figure 8, and what is run in it."""

    rates: Annotated[
        dict[Literal["omd", "mle"], Several[Rates]],
        Field(
            description="By agent, pairs of Adam's step sizes for SAC and for the model; all are "
            "run, the best is selected."
        ),
    ]
    seeds: Annotated[Count, Field(description="Runs per setting; seeds 1, 2, ...")]
    steps: Annotated[
        Count, Field(description="Environment steps of a run, a multiple of evaluate_every.")
    ]
    warmup: Annotated[
        Count, Field(description="Steps of uniformly random actions before the first update.")
    ]
    evaluate_every: Annotated[
        Count, Field(description="Environment steps between two evaluations.")
    ]
    episodes: Annotated[Count, Field(description="Episodes per evaluation.")]
    hidden: Annotated[
        Count, Field(description="Units in each of the two hidden layers of actor and critics.")
    ]
    batch: Annotated[Count, Field(description="Transitions per batch.")]
    tau: Annotated[
        Fraction, Field(description="Step of the target critics towards the critics, per update.")
    ]
    alpha: Annotated[Positive, Field(description="Temperature at the start; it is learned.")]
    widths: Annotated[
        Several[Count],
        Field(description="Units in each hidden layer of the model, without distractors."),
    ]
    distractors: Annotated[
        Several[Index],
        Field(description="How many standard-normal numbers are appended, at model_width."),
    ]
    model_width: Annotated[
        Count, Field(description="Units in each hidden layer of the model, with distractors.")
    ]
    inner_steps: Annotated[
        Several[Count], Field(description="K, SAC updates per model step; every setting has each.")
    ]


class Control(Group):
    """Continuous control, figure 8: SAC on a learned model."""

    tasks: Annotated[
        dict[str, ControlTask], Field(description="Tasks (entries of rpg.tasks) and their runs.")
    ]
    gamma: Annotated[Discount, Field(description="Discount.")]
    adjoint: Annotated[
        Literal["identity", "cg"], Field(description="How OMD inverts the critics' Hessian.")
    ]
    adjoint_iterations: Annotated[
        Count, Field(description="At most so many products with the Hessian (cg).")
    ]
    adjoint_damping: Annotated[NotNegative, Field(description="Added to the Hessian's diagonal.")]
    final_evaluations: Annotated[
        Count, Field(description="A run's final return is the mean of so many last evaluations.")
    ]


class Settings(Group):
    """Control-oriented model learning by implicit differentiation (Nikishin et al. 2022)."""

    cases: Annotated[
        Several[Literal["tabular", "cartpole", "control"]],
        Field(description="Which are run: the two-state MDP, CartPole, continuous control."),
    ]
    tabular: Annotated[Tabular, Field(description="The two-state MDP of figures 2, 3 and 6.")]
    studies: Annotated[
        Studies, Field(description="What the paper states of the tabular case without showing it.")
    ]
    cartpole: Annotated[CartPole, Field(description="CartPole, figures 4, 5 and 7.")]
    control: Annotated[Control, Field(description="Continuous control, figure 8.")]

    @model_validator(mode="after")
    def _together(self) -> "Settings":
        for name, task in self.control.tasks.items():
            multiple(task, "steps", "evaluate_every", within=f"control.tasks.{name}.")
        cartpole = self.cartpole
        multiple(cartpole, "steps", "evaluate_every", within="cartpole.")
        if cartpole.curvature.steps % cartpole.evaluate_every:
            refuse(
                f"cartpole.curvature.steps = {cartpole.curvature.steps}: must be a multiple of "
                f"evaluate_every = {cartpole.evaluate_every}"
            )
        for key, most in (("warmup", "evaluate_every"), ("batch", "warmup")):
            value, limit = getattr(cartpole, key), getattr(cartpole, most)
            if value > limit:
                refuse(f"cartpole.{key} = {value}: must be at most {most} = {limit}")
        if "width" not in cartpole.experiments:
            found = str(list(cartpole.experiments)).replace("'", '"')
            refuse(f'cartpole.experiments = {found}: must hold "width"')
        for experiment in cartpole.experiments:
            for name in cartpole.agents if experiment in OF_ALL_AGENTS else ["omd"]:
                if name not in cartpole.agents or experiment not in cartpole.agents[name].rates:
                    refuse(f"cartpole.agents.{name}.rates: has none for experiment {experiment!r}")
        return self
