"""Errors that are the user's to mend: each names what is wrong and what would be right."""


class UserError(Exception):
    """Shown as one line, without a traceback; the command exits with `code`."""

    code = 2


class ConfigError(UserError):
    """A config value that the schema refuses; the message names file, key and value."""


class DataError(UserError):
    """An input file that is missing, damaged or not what its stage expects."""
