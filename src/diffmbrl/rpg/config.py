"""Types of the settings of Zhang et al. 2023; their values are in config/rpg.yaml."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from diffmbrl import registry
from diffmbrl.settings import (
    Count,
    Fraction,
    Group,
    Index,
    NotNegative,
    Positive,
    Several,
    multiple,
    refuse,
)

REGISTRIES = {"tasks": "rpg.tasks"}
Horizon = Annotated[str, Field(pattern=r"^h(0|[1-9][0-9]*)$")]
OpenDiscount = Annotated[float, Field(gt=0, lt=1)]


class Arm(Group):
    """Runs that differ in seed and rate only."""

    sn: Annotated[
        Literal["none", "model", "policy", "both"],
        Field(description="What is spectrally normalised."),
    ]
    layers: Annotated[
        Literal["hidden", "all"],
        Field(
            description="Which layers: hidden (policy: hidden to hidden; model: all but the "
            "last) or all. Of plain runs, which start with singular values of the target."
        ),
    ]
    init: Annotated[
        Literal["orthogonal", "uniform"], Field(description="First weights of those layers.")
    ]
    clip: Annotated[
        NotNegative, Field(description="Largest norm of the actor's gradient; 0 for no limit.")
    ]
    rates: Annotated[Several[Positive], Field(description="Adam's rates of the actor.")]
    seeds: Annotated[Count, Field(description="How many seeds: 0, 1, ...")]


class Learner(Group):
    """The learner: networks, optimisers, replay, spectral normalisation."""

    width: Annotated[Count, Field(description="Of each hidden layer of actor and critics.")]
    depth: Annotated[Count, Field(description="Hidden layers of actor and critics.")]
    gamma: Annotated[Fraction, Field(description="Discount.")]
    tau: Annotated[
        Fraction, Field(description="Step of the target critics towards the critics, per update.")
    ]
    learning_rate: Annotated[Positive, Field(description="Adam's, of critics and temperature.")]
    alpha: Annotated[Positive, Field(description="Temperature at the start; it is learned.")]
    batch: Annotated[Count, Field(description="Segments per batch.")]
    model_width: Annotated[Count, Field(description="Of each hidden layer of the model.")]
    model_depth: Annotated[Count, Field(description="Hidden layers of the model's dynamics.")]
    head_depth: Annotated[
        Count, Field(description="Hidden layers of its heads for reward and termination.")
    ]
    model_learning_rate: Annotated[Positive, Field(description="Adam's, of the model.")]
    model_steps: Annotated[
        Index,
        Field(description="Length of the segments that the model is trained on; 0: the horizon."),
    ]
    model_noise: Annotated[
        NotNegative,
        Field(
            description="Standard deviation of the noise that unrolls add to a normalised state."
        ),
    ]
    sn_target: Annotated[
        Positive, Field(description="Largest singular value of a normalised layer.")
    ]
    sn_iterations: Annotated[
        Count, Field(description="Power iterations after each update, at most.")
    ]
    recent: Annotated[
        Count, Field(description="How many of the newest steps rp_dr takes its segments from.")
    ]


class Schedule(Group):
    """How long a run is, in environment steps, and what it records."""

    steps: Annotated[Count, Field(description="Environment steps of a run.")]
    random_steps: Annotated[Index, Field(description="Steps with uniform actions at the start.")]
    update_every: Annotated[Count, Field(description="Environment steps between two updates.")]
    evaluate_every: Annotated[
        Count, Field(description="Environment steps between two evaluations.")
    ]
    episodes: Annotated[int, Field(ge=2, description="Episodes per evaluation.")]
    snapshots: Annotated[
        Index,
        Field(
            description="Snapshots after the one before training, evenly spaced; gradients are "
            "measured on them. 0 for none, not even before training."
        ),
    ]
    stored_segments: Annotated[Count, Field(description="Real segments in a snapshot.")]
    stored_steps: Annotated[
        Count, Field(description="Their length; rp_dr is measured at no longer horizon.")
    ]
    lanes: Annotated[
        Count,
        Field(
            description="Runs that a CPU trains side by side, at most. More take less time each "
            "where networks are small and unrolls long."
        ),
    ]


class Task(Group):
    """What is trained in one task."""

    schedule: Annotated[Schedule, Field(description="How long a run is, and what it records.")]
    estimators: Annotated[
        dict[str, dict[Horizon, Several[Arm]]],
        Field(description="Of each estimator and horizon (`h8`: 8 model steps), the arms."),
    ]


class Gradients(Group):
    """The measurement of gradients on snapshots."""

    estimators: Annotated[
        Several[str], Field(description="Which estimators are measured, rp_dp among them.")
    ]
    samples: Annotated[Count, Field(description="Independent gradients per run and snapshot.")]
    batch: Annotated[Count, Field(description="Gradients in a mean that is held against truth.")]
    true_samples: Annotated[
        Count, Field(description="How many of them are taken through the true dynamics too.")
    ]

    @model_validator(mode="after")
    def _together(self) -> "Gradients":
        for key in ("samples", "true_samples"):
            multiple(self, key, "batch", "gradients.")
        if self.true_samples >= self.samples:
            key = f"gradients.true_samples = {self.true_samples}"
            refuse(f"{key}: must be below samples = {self.samples}")
        if "rp_dp" not in self.estimators:
            refuse(f"gradients.estimators = {self.estimators}: must hold rp_dp")
        return self


class Swap(Group):
    """Models fitted anew to what a run had stored."""

    model_updates: Annotated[Count, Field(description="Updates of a model.")]
    batch: Annotated[Count, Field(description="Segments per batch.")]
    learning_rate: Annotated[
        Positive, Field(description="Adam's at the start; it decays to 0 along a cosine.")
    ]


class Exact(Group):
    """Means of gradients against a closed form."""

    estimators: Annotated[Several[str], Field(description="Which estimators.")]
    horizons: Annotated[Several[Index], Field(description="Model steps h.")]
    samples: Annotated[
        int, Field(ge=20, multiple_of=10, description="Gradients per estimator and horizon.")
    ]


class Landscape(Group):
    """The objective along two random directions of the policy's weights."""

    radius: Annotated[
        Positive, Field(description="Extent of the plane either side, in norms of each array.")
    ]
    points: Annotated[int, Field(ge=3, description="Grid points per side.")]
    states: Annotated[Count, Field(description="Start states that the objective is averaged over.")]


class HorizonStudy(Group):
    """Best horizon of linear systems with errors injected into model and critic."""

    horizons: Annotated[Several[Index], Field(description="Model steps h that are compared.")]
    gammas: Annotated[Several[OpenDiscount], Field(description="Discounts.")]
    model_errors: Annotated[
        Several[Positive],
        Field(description="Spectral norms of the error of the model's Jacobian."),
    ]
    critic_errors: Annotated[
        Several[Positive],
        Field(description="Spectral norms of the critic's error, relative to the critic's."),
    ]
    radii: Annotated[
        Several[Positive], Field(description="Every singular value of the closed loop.")
    ]
    batch: Annotated[
        Count, Field(description="Gradients in a mean whose error decides the best h.")
    ]
    seeds: Annotated[Count, Field(description="How many random systems.")]
    samples: Annotated[int, Field(ge=2, description="Gradients for each estimate of tr(Sigma).")]


class Smoothness(Group):
    """The dial from smooth to contact-like."""

    stiffness: Annotated[Several[Positive], Field(description="Stiffnesses of the floor, 1/m.")]
    targets: Annotated[
        Several[Positive],
        Field(
            description="Largest singular values of the normalised models' layers; plain models "
            "and the true system are added."
        ),
    ]
    seeds: Annotated[Count, Field(description="How many models of each setting.")]
    horizon: Annotated[Count, Field(description="Model steps of the unroll.")]
    transitions: Annotated[
        Count, Field(description="Segments of 4 steps that a model is fitted to.")
    ]
    width: Annotated[Count, Field(description="Of each hidden layer of the model.")]
    depth: Annotated[Count, Field(description="Hidden layers of the model.")]
    batch: Annotated[Count, Field(description="Segments per batch.")]
    learning_rate: Annotated[
        Positive,
        Field(description="Adam's at the start, of the model; it decays to 0 along a cosine."),
    ]
    model_updates: Annotated[Count, Field(description="Updates of the model.")]
    samples: Annotated[
        int, Field(ge=64, multiple_of=64, description="Gradients for bias and variance.")
    ]
    policy_batch: Annotated[Count, Field(description="Unrolls per policy update.")]
    policy_updates: Annotated[Count, Field(description="Updates of the policy.")]
    policy_learning_rate: Annotated[Positive, Field(description="Adam's, of the policy.")]


class Theory(Group):
    """Statements of the theory on linear-Gaussian systems."""

    horizons: Annotated[Several[Index], Field(description="Model steps h.")]
    lipschitz: Annotated[
        Several[Positive], Field(description="Singular values of the closed loop.")
    ]
    model_errors: Annotated[
        Several[Positive],
        Field(description="Spectral norms of the error of the model's Jacobian."),
    ]
    gammas: Annotated[Several[OpenDiscount], Field(description="Discounts.")]
    seeds: Annotated[Count, Field(description="How many random systems.")]
    samples: Annotated[int, Field(ge=2, description="Gradients for each estimate of tr(Sigma).")]


class Model(Group):
    """A model that is fitted to random data of the bouncing ball."""

    transitions: Annotated[Count, Field(description="Segments of 4 steps of its data.")]
    width: Annotated[Count, Field(description="Of each hidden layer.")]
    depth: Annotated[Count, Field(description="Hidden layers.")]
    batch: Annotated[Count, Field(description="Segments per batch.")]
    learning_rate: Annotated[
        Positive, Field(description="Adam's at the start; it decays to 0 along a cosine.")
    ]
    model_updates: Annotated[Count, Field(description="Updates.")]


class Convergence(Group):
    """Plain gradient ascent, for corollary 5.9."""

    horizons: Annotated[Several[Count], Field(description="Model steps h, in rising order.")]
    targets: Annotated[
        Several[Positive], Field(description="Largest singular values of normalised layers.")
    ]
    batches: Annotated[Several[Count], Field(description="Gradients per update, N.")]
    steps: Annotated[
        Several[Positive],
        Field(
            description="Lengths of the first update, from which constant rates follow; seed 0 "
            "chooses one for each arm, h and N."
        ),
    ]
    seeds: Annotated[int, Field(ge=2, description="Seeds 0, 1, ...; 0 only chooses the rate.")]
    updates: Annotated[Count, Field(description="Updates of a run.")]
    look_every: Annotated[Count, Field(description="Updates between two measurements.")]
    samples: Annotated[int, Field(ge=2, description="Gradients per measurement.")]
    gamma: Annotated[OpenDiscount, Field(description="Discount of the linear systems.")]
    stiffness: Annotated[Positive, Field(description="Stiffness of the ball's floor, 1/m.")]
    model: Annotated[Model, Field(description="The ball's model.")]

    @model_validator(mode="after")
    def _together(self) -> "Convergence":
        multiple(self, "updates", "look_every", "convergence.")
        if sorted(self.horizons) != self.horizons:
            refuse(f"convergence.horizons = {self.horizons}: must rise")
        return self


class Settings(Group):
    """Reparameterization policy gradients and spectral normalisation (Zhang et al. 2023)."""

    cases: Annotated[
        Several[Literal["agents", "theory"]],
        Field(
            description="Which are run: agents in the tasks, with their gradients; studies of "
            "linear systems and of fitted models."
        ),
    ]
    tasks: Annotated[
        dict[str, Task], Field(description="The environments that are learned in.", min_length=1)
    ]
    learner: Annotated[Learner, Field(description="Networks, optimisers, replay.")]
    gradients: Annotated[Gradients, Field(description="The measurement of gradients.")]
    swap: Annotated[Swap, Field(description="The frozen swap.")]
    exact: Annotated[Exact, Field(description="Gradients against a closed form.")]
    landscape: Annotated[Landscape, Field(description="The objective around a policy.")]
    horizon_study: Annotated[HorizonStudy, Field(description="Best horizon of linear systems.")]
    smoothness: Annotated[Smoothness, Field(description="From smooth to contact-like.")]
    theory: Annotated[Theory, Field(description="Theory on linear-Gaussian systems.")]
    convergence: Annotated[Convergence, Field(description="Plain gradient ascent.")]

    @model_validator(mode="after")
    def _together(self) -> "Settings":
        known = registry.names("rpg.estimators")
        for name, task in self.tasks.items():
            for kind, horizons in task.estimators.items():
                key = f"tasks.{name}.estimators.{kind}"
                if kind not in known:
                    refuse(f"{key}: unknown estimator; use one of {', '.join(known)}")
                model_free = registry.fact("rpg.estimators", kind, "MODEL_FREE")
                if model_free and set(horizons) != {"h0"}:
                    refuse(f"{key}: horizons {', '.join(horizons)}: must be h0: it has no model")
        return self
