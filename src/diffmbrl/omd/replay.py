"""Replay of everything seen: transitions as rows of one array, batches without replacement."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from diffmbrl.agents.soft_q import Batch
from diffmbrl.keys import fold


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
    one_hot = (action == jnp.arange(n_actions, dtype=rows.dtype)[:, None]).astype(rows.dtype)
    return Batch(columns[:n], one_hot, reward, columns[n : 2 * n], continues)


def sample(key: jax.Array, n: Int[Array, ""], k: int) -> Int[Array, " k"]:
    """k different numbers below n, every such choice equally likely; n must be at least k.

    Draws with replacement and draws again what repeats an earlier number. Taken in the order
    of drawing, the numbers kept are the first k distinct ones of a uniform sequence, whatever
    n is: so cost does not grow with n, and a second round is rare once n is far above k^2.
    """

    def draw(attempt: Array) -> Int[Array, " k"]:
        bits = jax.random.bits(fold(key, attempt), (k,), jnp.uint32)
        return jax.lax.rem(bits, n.astype(jnp.uint32)).astype(jnp.int32)

    def fill(carry):
        attempt, chosen, open_ = carry
        chosen = jnp.where(open_, draw(attempt), chosen)
        return attempt + 1, chosen, repeats(chosen, open_)

    first = draw(jnp.int32(0))
    start = (jnp.int32(1), first, repeats(first, jnp.ones(k, bool)))
    return jax.lax.while_loop(lambda carry: jnp.any(carry[2]), fill, start)[1]


def repeats(chosen: Int[Array, " k"], new: Bool[Array, " k"]) -> Bool[Array, " k"]:
    """Which of the new numbers equal an old number, or a new one at an earlier place."""
    place = jnp.arange(len(chosen))
    earlier = ~new[None, :] | (place[None, :] < place[:, None])
    same = chosen[:, None] == chosen[None, :]
    return new & jnp.any(same & earlier & (place[None, :] != place[:, None]), axis=1)
