"""Functions of NumPy arrays within compiled programs, and their refusals as one line.

A host function must not call JAX: on a CPU that can wait for itself for ever.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from diffmbrl.errors import UserError

PyTree = Any
_REFUSALS: list[UserError] = []


def call(function: Callable[..., PyTree], shapes: PyTree, *arrays: Array) -> PyTree:
    """What a host function gives for arrays; under `vmap` it is called once, for all lanes.

    Args:
        function: from NumPy arrays with any number of leading axes, the same for all, to a
            pytree like `shapes` with the same leading axes; a pure function.
        shapes: shapes and dtypes of what it gives for one lane.
        arrays: its arguments for one lane.

    Raises:
        UserError: what `function` raises of that kind, within `one_line` only.
    """

    def host(*arguments: Any) -> PyTree:
        try:
            return function(*(np.asarray(argument) for argument in arguments))
        except UserError as refusal:
            _REFUSALS.append(refusal)
            raise

    return jax.pure_callback(host, shapes, *arrays, vmap_method="broadcast_all")


@contextmanager
def one_line() -> Iterator[None]:
    """Raises what a host function refused as it was raised there, without JAX's own report."""
    logger = logging.getLogger("jax._src.callback")
    logger.addFilter(_not_ours)
    try:
        yield
    except jax.errors.JaxRuntimeError:
        if not _REFUSALS:
            raise
        raise _REFUSALS[0] from None
    finally:
        _REFUSALS.clear()
        logger.removeFilter(_not_ours)


def _not_ours(record: logging.LogRecord) -> bool:
    """Whether a log record tells of anything but a refusal."""
    return not (record.exc_info and isinstance(record.exc_info[1], UserError))
