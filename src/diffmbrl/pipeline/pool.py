"""XLA's thread pool on a CPU, where a stage needs more of it than XLA gives."""

import os

BATCHED = ("omd.cartpole",)  # stages that factorise batches of matrices
AT_ONCE = 8  # such factorisations that a training program may run side by side


def widen() -> None:
    """Makes the pool large enough for batched factorisations; before JAX first computes.

    jaxlib's QR factorisation of a batch of larger matrices occupies a thread of the pool while
    it waits for others of that pool. Where as many run at once as there are threads, all wait
    for ever: on two cores, the initial values of VEP's five networks with 256 distractors did.
    XLA takes the number of threads from NPROC, and results do not depend on it; a wider pool
    costs other stages 10% to 20%, so it is not the rule.
    """
    os.environ.setdefault("NPROC", str(AT_ONCE * (os.cpu_count() or 1)))
