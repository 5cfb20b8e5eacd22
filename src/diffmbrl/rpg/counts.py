"""Sample counts: what they have to divide by, refused before any work."""

from diffmbrl.errors import ConfigError

GROUP = 64  # gradients in memory at once
EXACT_PARTS = 10  # parts that the comparison with a closed form is summed in, to bound memory


def check_multiple(key: str, value: int, of: int) -> None:
    """Refuses a count that does not divide into whole groups.

    Raises:
        ConfigError: names the key, its value and the size of a group.
    """
    if value <= 0 or value % of:
        raise ConfigError(f"{key} = {value}: must be a multiple of {of}")


def check_stored(key: str, value: int, stored_segments: int) -> None:
    """Refuses more start states than a snapshot holds segments.

    Raises:
        ConfigError: names the key, its value and the number of stored segments.
    """
    if value > stored_segments:
        raise ConfigError(
            f"{key} = {value}: must be at most schedule.stored_segments = {stored_segments}"
        )
