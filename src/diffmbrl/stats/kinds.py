"""What can be said of a claim."""

from typing import Literal, get_args

Kind = Literal["agrees", "disagrees", "inconclusive", "not tested"]
KINDS: tuple[Kind, ...] = get_args(Kind)
ABSENT = "this scale has no such runs"  # the reason of a claim whose tables a scale lacks
