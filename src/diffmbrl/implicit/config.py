"""Types of the settings of Gehring et al. 2021; their values are in config/implicit.yaml."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from diffmbrl.settings import (
    Count,
    Discount,
    Fraction,
    Group,
    Index,
    Positive,
    Probability,
    Several,
    multiple,
    refuse,
)

REGISTRIES = {
    "domains": "implicit.domains",
    "parameterizations": "implicit.parameterizations",
}


class Domain(Group):
    """How much data a domain has."""

    trajectories: Annotated[Count, Field(description="Trajectories of the training set.")]
    steps: Annotated[Count, Field(description="The most steps that a trajectory has.")]


class Parameterization(Group):
    """What a parameterization is trained with."""

    actions: Annotated[Count, Field(description="Pseudo-actions of the learned model.")]
    backups: Annotated[
        Several[Literal["max", "logsumexp"]],
        Field(description="Backups over pseudo-actions, a maximum or a log-sum-exp."),
    ]
    temperature: Annotated[
        Positive,
        Field(description="Of the log-sum-exp; with one pseudo-action it has no effect."),
    ]
    etas: Annotated[
        Several[Discount],
        Field(description="Internal discounts; of `explicit` they set the initial values only."),
    ]
    reward_offsets: Annotated[Several[float], Field(description="Constants added to every reward.")]
    learning_rates: Annotated[
        dict[str, Several[Positive]], Field(description="Rates of plain SGD, by domain.")
    ]


class Theory(Group):
    """The theorems on random small problems."""

    seed: Annotated[Index, Field(description="Of the problems that are drawn.")]
    features: Annotated[
        Several[Count], Field(description="Sizes of the models whose P and gradient are checked.")
    ]
    instances: Annotated[Count, Field(description="Models whose P and gradient are checked, each.")]
    bounds: Annotated[Count, Field(description="Models whose smallest eigenvalue is checked.")]
    few: Annotated[Count, Field(description="Problems of each of the other checks.")]
    one_minus_eta: Annotated[
        Several[Fraction],
        Field(min_length=2, description="1 - eta where a statement holds as eta goes to 1."),
    ]


class Coverage(Group):
    """Figure 2's residual on trained and untrained features."""

    untrained_below: Annotated[
        Several[Positive],
        Field(
            description="Bars: a feature is untrained where its sum over all drawn points is below."
        ),
    ]


class Noise(Group):
    """The relative second moment of updates during training."""

    measurements: Annotated[
        Count,
        Field(
            description="After the start, evenly spaced; fewer where they do not divide updates."
        ),
    ]
    offsets: Annotated[Several[float], Field(description="Constants added to every reward.")]


class Td(Group):
    """TD(0) targets."""

    offsets: Annotated[Several[float], Field(description="Constants added to every reward.")]
    learning_rates: Annotated[
        dict[str, dict[str, Several[Positive]]],
        Field(description="By parameterization and domain; a domain without rates is not run."),
    ]


class Choice(Group):
    """Choosing eta."""

    held_out: Annotated[
        int,
        Field(ge=2, description="One in so many trajectories is held out to choose eta on."),
    ]
    offsets: Annotated[Several[float], Field(description="Constants added to every reward.")]


class Settings(Group):
    """Explicit and implicit value parameterizations (Gehring et al. 2021)."""

    seeds: Annotated[
        Several[Index],
        Field(description="One run per seed; each is split into keys by the published schedule."),
    ]
    epsilon: Annotated[
        Probability, Field(description="Exploration of the behaviour policy, epsilon-greedy.")
    ]
    evaluation_steps: Annotated[
        Count,
        Field(description="Steps of the evaluation set where exact values are unknown."),
    ]
    updates: Annotated[Count, Field(description="SGD updates per run; a multiple of log_every.")]
    log_every: Annotated[Count, Field(description="Updates between two logged steps.")]
    batch_size: Annotated[Count, Field(description="Points per batch, drawn with replacement.")]
    domains: Annotated[dict[str, Domain], Field(description="What is run in each domain.")]
    parameterizations: Annotated[
        dict[str, Parameterization], Field(description="What is trained, and with what.")
    ]
    theory: Annotated[Theory, Field(description="Figure T1.")]
    coverage: Annotated[Coverage, Field(description="Figure T2.")]
    noise: Annotated[Noise, Field(description="Corollaries 2 and 3 in training.")]
    td: Annotated[Td, Field(description="Figure T4.")]
    choice: Annotated[Choice, Field(description="Figure T5.")]

    @model_validator(mode="after")
    def _together(self) -> "Settings":
        multiple(self, "updates", "log_every")
        for name, entry in self.parameterizations.items():
            key = f"parameterizations.{name}.learning_rates"
            if missing := set(self.domains) - set(entry.learning_rates):
                refuse(f"{key}: has no rates for domain {min(missing)!r}")
            if unknown := set(entry.learning_rates) - set(self.domains):
                known = ", ".join(self.domains)
                refuse(f"{key}: unknown key {min(unknown)!r}; known: {known}")
        return self
