"""Speed of `rpg`: gradients per second against h, the cost of spectral normalisation, what a
gradient through MuJoCo's true dynamics costs, and SAC for many runs in one program against as many
processes: updates alone, and training in MuJoCo, also against the usual loop (gymnasium, and one
compiled act, store and update per step).

    python bench/rpg.py [--seconds 2]
"""

import argparse
import subprocess
import sys
import time
from functools import partial
from typing import Any

import diffmbrl.pinned  # noqa: F401  (before NumPy)
from diffmbrl.sweep import device

device.configure("cpu")

import gymnasium  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from diffmbrl.agents import sac  # noqa: E402
from diffmbrl.envs.pendulum import Pendulum  # noqa: E402
from diffmbrl.rpg import learner as learning  # noqa: E402
from diffmbrl.rpg import model as models  # noqa: E402
from diffmbrl.rpg import setup  # noqa: E402
from diffmbrl.rpg.arm import plain  # noqa: E402
from diffmbrl.rpg.objective import Objective, whole  # noqa: E402
from diffmbrl.rpg.schedule import Schedule  # noqa: E402
from diffmbrl.rpg.training import Loop, Training  # noqa: E402

UPDATES = 200
TASKS = ("inverted_double_pendulum", "half_cheetah", "hopper", "walker2d", "ant")
SCHEDULE = Schedule(300, 300, 1, 1, 1, 1, 1, 1)  # 300 random steps


def rate(call, work: int, seconds: float) -> float:
    """Units of work a second, from the fastest call of those that fit in `seconds`."""
    jax.block_until_ready(call())
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        jax.block_until_ready(call())
        best = min(best, time.perf_counter() - start)
    return work / best


def made(estimator: str, h: int, iterations: int = 10) -> tuple[learning.Learner, learning.State]:
    """A learner of the laptop scale's size and a state with 300 random steps."""
    entry = setup.estimator(estimator)
    learner = learning.Learner(sac.SAC(3, 1), entry, h, 3, False, 1000, sn_iterations=iterations)
    on = jnp.asarray(iterations > 0)
    config = plain()._replace(model=on, policy=on)._asdict()
    start = jax.jit(Training(learner, Pendulum(), SCHEDULE).start)
    return learner, start({**config, "seed": jnp.uint32(0)}).learner


def gradients(h: int, seconds: float) -> float:
    """Per-sample RP-DP gradients a second, 64 at a time."""
    learner, state = made("rp_dp", h)
    policy, world = learner.policy(state), learner.world(state)
    objective = Objective(policy, world, state.agent.critics, 0.99, 0.1)
    batch = learner.segments(state, jax.random.PRNGKey(3), 64, 1)
    each = jax.random.split(jax.random.PRNGKey(4), 64)

    def one(s, a, key):
        return learner.estimator.gradient(objective, h, whole(s, a), key)

    call = jax.jit(jax.vmap(one))
    return rate(partial(call, batch.states, batch.actions, each), 64, seconds)


def true_gradients(task: str, h: int, seconds: float) -> float:
    """Gradients a second of a policy through h steps of the true dynamics, one at a time."""
    env = setup.environment(task)
    n, m = env.observation_dim, env.action_dim
    state = sac.SAC(n, m).init(jax.random.PRNGKey(0))
    unit = models.Normaliser(jnp.float32(1), jnp.zeros(n, jnp.float32), jnp.ones(n, jnp.float32))
    world = models.TrueWorld(env, unit, jnp.zeros(n, jnp.float32))
    objective = Objective(state.policy, world, state.critics, 0.99, 0.1)
    start = env.reset(jax.random.PRNGKey(1))
    segment = whole(start[None], jnp.zeros((0, m), jnp.float32))
    gradient = setup.estimator("rp_dp").gradient
    call = jax.jit(lambda key: gradient(objective, h, segment, key))
    return rate(partial(call, jax.random.PRNGKey(2)), 1, seconds)


def updates(learner: learning.Learner, state: learning.State, runs: int, seconds: float) -> float:
    """Updates a second of `runs` learners in one program, all of them together."""

    def many(state):
        each = jax.random.split(jax.random.PRNGKey(5), UPDATES)
        return jax.lax.scan(lambda s, key: (learner.update(s, key)[0], None), state, each)[0]

    states = jax.tree.map(lambda leaf: jnp.stack([leaf] * runs), state)
    call = jax.jit(jax.vmap(many))
    return rate(partial(call, states), UPDATES * runs, seconds)


def processes(what: str, runs: int, seconds: float) -> float:
    """The same with a process per run, all at once; each reports its own rate."""
    command = [sys.executable, __file__, "--one", what, "--seconds", str(seconds)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(runs)]
    return sum(float(process.communicate()[0]) for process in started)


def sac_in(task: str) -> Training:
    """SAC of two layers of 64, batch 64, in a task of MuJoCo."""
    env = setup.environment(task)
    agent = sac.SAC(env.observation_dim, env.action_dim)
    learner = learning.Learner(
        agent, setup.estimator("sac"), 0, 0, env.terminates, 1000, state_dim=env.state_dim
    )
    return Training(learner, env, SCHEDULE)


def begun(training: Training, runs: int) -> Loop:
    """Several runs after their random steps."""
    config = {**plain()._asdict(), "seed": jnp.uint32(0)}
    loop = jax.jit(training.start)(config)
    return jax.tree.map(lambda leaf: jnp.stack([leaf] * runs), loop)


def steps(task: str, runs: int, seconds: float) -> float:
    """Steps a second, each with an update, of several runs of SAC in one program."""
    training = sac_in(task)
    learner = training.learner

    def step(_, loop):
        key = jax.random.fold_in(loop.key, 1)
        noise = jax.random.normal(key, (training.env.action_dim,), jnp.float32)
        obs = training.env.observe(loop.state).astype(jnp.float32)
        loop = training.interact(loop, learner.act(loop.learner, obs, noise))
        return loop._replace(learner=learner.update(loop.learner, key)[0])

    call = jax.jit(jax.vmap(lambda loop: jax.lax.fori_loop(0, UPDATES, step, loop)))
    return rate(partial(call, begun(training, runs)), UPDATES * runs, seconds)


def usual(task: str, seconds: float) -> float:
    """The same of one run as it is usually written: Python steps gymnasium's environment."""
    training = sac_in(task)
    learner = training.learner
    state = jax.tree.map(lambda leaf: leaf[0], begun(training, 1)).learner
    task_of: Any = training.env
    env = gymnasium.make(task_of.name)
    act, update = jax.jit(learner.act), jax.jit(lambda s, key: learner.update(s, key)[0])
    observe = jax.jit(learner.observe)
    obs, _ = env.reset(seed=0)
    rng, age = np.random.default_rng(0), 0
    transition: Any = sac.Transition  # of NumPy's arrays, which a compiled function takes too
    store: Any = learning.Stored

    def call():
        nonlocal state, obs, age
        for _ in range(UPDATES):
            noise = rng.standard_normal(env.action_space.shape).astype(np.float32)
            before = obs.astype(np.float32)
            action = np.asarray(act(state, before, noise))
            obs, reward, terminated, truncated, _ = env.step(action)
            physics = np.zeros(training.env.state_dim)
            led = (np.float32(reward), obs.astype(np.float32), np.float32(terminated))
            stored = store(transition(before, action, *led), np.int32(age), physics)
            state = update(observe(state, stored), jax.random.PRNGKey(rng.integers(1 << 30)))
            age += 1
            if terminated or truncated:
                (obs, _), age = env.reset(), 0
        return state

    return rate(call, UPDATES, seconds)


def main() -> None:
    """Prints every measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="time for each measurement")
    parser.add_argument(
        "--one", help="one run only: `updates` of SAC, or steps of training in a task"
    )
    arguments = parser.parse_args()
    if arguments.one == "updates":
        print(updates(*made("sac", 0), 1, arguments.seconds))
        return
    if arguments.one:
        print(steps(arguments.one, 1, arguments.seconds))
        return
    print(f"{device.platform()}\nRP-DP gradients a second")
    for h in (0, 1, 3, 8, 20):
        print(f"  h = {h:2d}: {gradients(h, arguments.seconds):9.0f}", flush=True)
    print("milliseconds of a gradient through the true dynamics, h = 1, 5, 20")
    for task in TASKS:
        each = [1000 / true_gradients(task, h, arguments.seconds) for h in (1, 5, 20)]
        print(f"  {task}: {each[0]:.1f}, {each[1]:.1f}, {each[2]:.1f}", flush=True)
    print("RP-DP updates a second (h = 3), power iterations after each")
    for iterations in (0, 2, 10):
        speed = updates(*made("rp_dp", 3, iterations), 1, arguments.seconds)
        name = "none (no normalisation)" if iterations == 0 else str(iterations)
        print(f"  {name}: {speed:.0f}", flush=True)
    print("SAC updates a second, all runs together")
    for runs in (1, 4, 16):
        together = updates(*made("sac", 0), runs, arguments.seconds)
        apart = processes("updates", runs, arguments.seconds)
        print(f"  {runs:2d} runs: one program {together:.0f}, as many processes {apart:.0f}",
              flush=True)  # fmt: skip
    print("steps of SAC in MuJoCo a second, each with an update, all runs together")
    for task in TASKS[:3]:
        print(f"  {task}: the usual loop, 1 run {usual(task, arguments.seconds):.0f}", flush=True)
        for runs in (1, 5, 16):
            together = steps(task, runs, arguments.seconds)
            apart = processes(task, runs, arguments.seconds)
            print(f"    {runs:2d} runs: one program {together:.0f}, as many processes {apart:.0f}",
                  flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
