"""Types of the toy's settings."""

from typing import Annotated

from pydantic import Field

from diffmbrl.settings import Count, Group, Index, Positive, Several

REGISTRIES = {"rates": "toy.methods"}


class Settings(Group):
    """The toy."""

    size: Annotated[dict[str, Count], Field(description="Numbers of each domain.")]
    rates: Annotated[dict[str, Several[Positive]], Field(description="Rates of each method.")]
    seeds: Annotated[Several[Index], Field(description="One run per seed.")]
    title: Annotated[str, Field(description="Of the figure.")]
