"""Speed of the omd paper: CartPole updates per second and core, and the tabular trainings.

    python bench/omd.py [--steps 3000] [--width 3] [--at 100000]

Times are processor seconds of this process (one XLA thread), so that a busy machine does not
blur them. Attainable arithmetic is what a large matrix product reaches on the same core in the
same precision; an update's arithmetic is what XLA counts in its compiled form.
"""

import argparse
import time

import diffmbrl.pinned  # noqa: F401  (before NumPy)
from diffmbrl.sweep import device

device.configure("cpu")

import gymnasium as gym  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from diffmbrl.agents import replay  # noqa: E402
from diffmbrl.agents.soft_q import SoftQ  # noqa: E402
from diffmbrl.envs.cartpole import CartPole  # noqa: E402
from diffmbrl.omd import train  # noqa: E402
from diffmbrl.omd.agent import Rates  # noqa: E402
from diffmbrl.omd.agents.mle import MLE  # noqa: E402
from diffmbrl.omd.agents.omd import OMD  # noqa: E402
from diffmbrl.omd.agents.vep import VEP  # noqa: E402
from diffmbrl.omd.models import Model  # noqa: E402

AGENTS = {"omd": OMD, "mle": MLE, "vep": VEP}
TYPES = {"float32": jnp.float32, "float64": jnp.float64}
SEGMENT = 1000


def build(agent: str, precision: str, width: int) -> train.Training:
    dtype = TYPES[precision]
    made = AGENTS[agent](SoftQ(4, 2, dtype=dtype), Model(4, 2, width, dtype=dtype))
    return train.Training(made, CartPole(), steps=200_000, segment=SEGMENT)


def compiled(training: train.Training, runs: int, steps: int, at: int) -> float:
    """Seconds per step and run of the compiled loop, environment and evaluation included."""
    config = {"inner_lr": 1e-3, "tau": 0.01, "model_lr": 1e-3}
    configs = {name: jnp.full(runs, value) for name, value in config.items()}
    configs["seed"] = jnp.arange(runs)

    def start(config):
        return jnp.asarray(at // SEGMENT, jnp.int32), train._init(training, config)

    def advance(config, state):
        return train._advance(training, config, state)

    def alone(function):
        return lambda *a: jax.tree.map(
            lambda x: x[None], function(*(jax.tree.map(lambda x: x[0], one) for one in a))
        )

    over = alone if runs == 1 else jax.vmap
    state = jax.jit(over(start))(configs)
    go_on = jax.jit(over(advance), donate_argnums=1)
    state, _ = jax.block_until_ready(go_on(configs, state))
    began = time.process_time()
    for _ in range(steps // SEGMENT):
        state, _ = jax.block_until_ready(go_on(configs, state))
    return (time.process_time() - began) / (steps // SEGMENT * SEGMENT * runs)


class UsualReplay:
    """A replay as such programs have it: device arrays, rebuilt at every write, field by field."""

    def __init__(self, capacity: int, dtype):
        rng = np.random.default_rng(0)
        shapes = {"obs": 4, "action": 1, "reward": 1, "obs_next": 4, "terminated": 1}
        self.fields = {
            name: jnp.asarray(rng.integers(2, size=(capacity, n)), dtype)
            for name, n in shapes.items()
        }
        self.rng = np.random.RandomState(0)

    def add(self, at: int, **values) -> None:
        for name, value in values.items():
            self.fields[name] = self.fields[name].at[at].set(value)

    def sample(self, n: int, size: int):
        indices = self.rng.choice(n, size, replace=False)
        f = {name: field[indices] for name, field in self.fields.items()}
        return jnp.concatenate(
            [f["obs"], f["obs_next"], f["action"], f["reward"], f["terminated"]], axis=1
        )


def usual(training: train.Training, steps: int, at: int) -> float:
    """Seconds per step of a Python loop around one jitted update; evaluation is not counted."""
    agent, dtype = training.agent, np.dtype(training.agent.q.dtype)
    rates = Rates(*(jnp.asarray(x, dtype) for x in (1e-3, 0.01, 1e-3)))
    rng, env = np.random.default_rng(0), gym.make("CartPole-v1")
    memory = UsualReplay(200_000, dtype)
    state = agent.init(jax.random.key(0))
    act = jax.jit(lambda s, obs, key: agent.act(
        s, obs[:, None], jax.random.gumbel(key, (2, 1), obs.dtype))[0])  # fmt: skip
    update = jax.jit(lambda s, batches, key: agent.update(
        s, [replay.unpack(b, 2) for b in batches], rates, key))  # fmt: skip
    obs, _ = env.reset(seed=0)
    key, began = jax.random.key(1), 0.0
    warmup = 20
    for i in range(steps + warmup):
        if i == warmup:
            began = time.process_time()
        key, use = jax.random.split(key)
        greedy = int(act(state, jnp.asarray(obs, dtype), use))
        action = int(rng.integers(2)) if rng.random() < 0.1 else greedy
        after, reward, ended, late, _ = env.step(action)
        memory.add(at + i, obs=obs, action=action, reward=reward, obs_next=after,
                   terminated=ended)  # fmt: skip
        obs = env.reset()[0] if ended or late else after
        batches = [memory.sample(at + i, 256) for _ in range(agent.batches)]
        state, losses = update(state, batches, use)
        float(losses.q_loss)
    return (time.process_time() - began) / steps


def arithmetic(training: train.Training) -> float:
    """Floating-point operations of one update."""
    agent, dtype = training.agent, training.agent.q.dtype
    rates = Rates(*(jnp.asarray(x, dtype) for x in (1e-3, 0.01, 1e-3)))
    rows = jnp.zeros((256, 11), dtype)
    update = jax.jit(lambda s, rows: agent.update(
        s, [replay.unpack(rows, 2)] * agent.batches, rates, jax.random.key(0)))  # fmt: skip
    analysis = update.lower(agent.init(jax.random.key(0)), rows).compile().cost_analysis()
    assert analysis is not None, "XLA counts no operations on this device"
    return analysis["flops"]


def attainable(precision: str, n: int = 1024, repeats: int = 5) -> float:
    """Operations per second of an n x n matrix product on this core."""
    a = jnp.ones((n, n), TYPES[precision])
    product = jax.jit(jnp.matmul)
    product(a, a).block_until_ready()
    began = time.process_time()
    for _ in range(repeats):
        product(a, a).block_until_ready()
    return 2 * n**3 * repeats / (time.process_time() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--width", type=int, default=3)
    parser.add_argument("--at", type=int, default=100_000, help="steps already in the replay")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--agents", nargs="+", choices=list(AGENTS), default=list(AGENTS))
    parser.add_argument("--precisions", nargs="+", choices=list(TYPES), default=list(TYPES))
    options = parser.parse_args()
    print(f"{device.platform()}, model width {options.width}, replay of {options.at} transitions")
    print("agent precision runs  updates/s/core   us  usual us  times  share of attainable")
    for precision in options.precisions:
        peak = attainable(precision)
        for name in options.agents:
            training = build(name, precision, options.width)
            slow = usual(training, 300, options.at)
            work = arithmetic(training)
            for runs in options.batches:
                fast = compiled(training, runs, options.steps, options.at)
                print(
                    f"{name:5} {precision:9} {runs:4} {1 / fast:15.0f} {fast * 1e6:5.0f} "
                    f"{slow * 1e6:9.0f} {slow / fast:6.1f} {work / fast / peak:12.0%}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
