"""Replay of everything seen: transitions as rows of one array, batches without replacement."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffmbrl.agents.soft_q import Batch


def write(
    rows: Float[Array, "capacity width"], at: Int[Array, ""], row: Float[Array, " width"]
) -> Float[Array, "capacity width"]:
    """The rows with one replaced, in place where the compiler may."""
    return jax.lax.dynamic_update_slice(rows, row[None], (at, jnp.zeros_like(at)))


def pack(obs: Array, action: Array, reward: Array, next_obs: Array, continues: Array) -> Array:
    """One transition as a row."""
    scalars = [jnp.asarray(x, obs.dtype)[None] for x in (action, reward, continues)]
    return jnp.concatenate([obs, next_obs, *scalars])


def unpack(rows: Float[Array, "batch width"], n_actions: int) -> Batch:
    """Rows as a batch, one transition a column."""
    columns = rows.T
    n = (len(columns) - 3) // 2
    action, reward, continues = columns[2 * n :]
    kinds = jnp.arange(n_actions, dtype=rows.dtype)
    one_hot = (action[None] == kinds[:, None]).astype(rows.dtype)
    return Batch(columns[:n], one_hot, reward, columns[n : 2 * n], continues)


def ordered_draws(key: jax.Array, n: Int[Array, " steps"], k: int) -> Int[Array, "steps k"]:
    """For each step k independent uniform numbers below its n, in rising order.

    Order statistics of uniforms are the partial sums of k + 1 exponentials over their total;
    so they come sorted without a sort, for all steps of a segment at once.
    """
    gaps = jax.random.exponential(key, (k + 1, len(n)), jnp.float64)
    total, sums = jax.lax.scan(lambda total, gap: (total + gap,) * 2, jnp.zeros(len(n)), gaps)
    below = jnp.floor(sums[:-1] / total[None] * n[None]).astype(jnp.int32)
    return jnp.minimum(below, n.astype(jnp.int32)[None] - 1).T


def distinct(drawn: Int[Array, " k"], key: jax.Array, n: Int[Array, ""]) -> Int[Array, " k"]:
    """Different numbers below n, every choice of k equally likely; n must be at least k.

    What repeats in `drawn` is drawn again, one number at a time, until it is new. The result
    is the first k distinct numbers of a uniform sequence, whose set is uniform by symmetry;
    the cost does not grow with n, and beyond n of about k^2 most batches need no second draw.

    Args:
        drawn: independent uniform numbers below n, in rising order (`ordered_draws`).
        key: of the further draws.
        n: how many numbers there are to choose from.
    """

    def fill(carry):
        attempt, chosen, open_ = carry
        fresh = jax.random.randint(jax.random.fold_in(key, attempt), (), 0, n, jnp.int32)
        slot = jnp.argmax(open_)
        new = ~jnp.any((chosen == fresh) & ~open_)
        chosen = chosen.at[slot].set(jnp.where(new, fresh, chosen[slot]))
        return attempt + 1, chosen, open_.at[slot].set(~new)

    repeats = jnp.concatenate([jnp.zeros(1, bool), drawn[1:] == drawn[:-1]])
    start = (jnp.int32(0), drawn, repeats)
    return jax.lax.while_loop(lambda carry: jnp.any(carry[2]), fill, start)[1]
