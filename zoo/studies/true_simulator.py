"""Plan with CEM on the true simulator: the upper bound of PlaNet's Table 1, for dm_control and what can be copied.

One command: ``python -m sb3_dreamer.zoo.studies.planning_baselines simulator --env planet:cartpole_swingup``.
"""

import argparse
import copy
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th

from sb3_dreamer.core.cem import cem_normal
from sb3_dreamer.wrappers import ActionRepeat
from sb3_dreamer.zoo.config.arguments import output_file

#: Mean returns of "CEM + true simulator" with 12 x 10 x 1000 (PlaNet, Table 1).
PAPER_BOUND = {
    "cartpole_swingup": 850,
    "reacher_easy": 964,
    "cheetah_run": 656,
    "finger_spin": 825,
    "cup_catch": 993,
    "walker_walk": 994,
}
BatchReward = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]  # qpos, qvel, ctrl (M, .) -> (M,)


class CopySimulator:
    """Play every sequence in a deep copy of the environment: for any environment that can be copied.

    :param env: environment with a Box action space
    """

    def __init__(self, env: gym.Env):
        self.env = env
        if not isinstance(env.action_space, gym.spaces.Box):
            raise ValueError(f"CEM on the simulator needs a Box action space, not {env.action_space}")
        self.low, self.high = env.action_space.low, env.action_space.high

    def scale(self, action: np.ndarray) -> np.ndarray:
        """Scale [-1, 1] to the bounds of the environment."""
        return (self.low + 0.5 * (action + 1.0) * (self.high - self.low)).astype(self.low.dtype)

    def returns(self, actions: np.ndarray) -> np.ndarray:
        """Compute returns ``(J,)`` of action sequences ``(J, H, A)`` in [-1, 1] from the present state."""
        totals = np.zeros(len(actions))
        for i, sequence in enumerate(actions):
            twin = copy.deepcopy(self.env)
            for action in sequence:
                _, reward, terminated, truncated, _ = twin.step(self.scale(action))
                totals[i] += float(reward)
                if terminated or truncated:
                    break
        return totals


class DmcSimulator(CopySimulator):
    """Play all sequences with MuJoCo's batched rollout from the saved physics state of a dm_control environment.

    Rewards of cartpole and ball-in-cup are computed for all states at once; other tasks are asked state by state, which
    is exact and slow.

    :param env: what ``make_env("planet:...")`` or ``make_env("dmc_proprio:...")`` gives
    :param threads: threads of the rollout
    """

    def __init__(self, env: gym.Env, threads: int = 1):
        super().__init__(env)
        import mujoco

        self.physics = env.unwrapped.physics  # type: ignore[attr-defined]
        control = env.unwrapped._env  # type: ignore[attr-defined]
        self.task, self.substeps = control.task, control._n_sub_steps
        self.repeat = find_repeat(env)
        self.model = self.physics.model.ptr
        self.datas = [mujoco.MjData(self.model) for _ in range(threads)]
        self.spec = mujoco.mjtState.mjSTATE_FULLPHYSICS
        self.batch_reward = find_batch_reward(self.task, self.physics)

    def rollout(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Compute positions, velocities and controls after every control step, ``(J, H * repeat, .)`` each."""
        import mujoco
        from mujoco import rollout

        low, high = self.model.actuator_ctrlrange.T
        control = low + 0.5 * (actions + 1.0) * (high - low)
        control = np.repeat(control, self.repeat * self.substeps, axis=1)
        state = np.zeros(mujoco.mj_stateSize(self.model, self.spec))
        mujoco.mj_getState(self.model, self.physics.data.ptr, state, self.spec)
        states, _ = rollout.rollout(self.model, self.datas, state[None], control, persistent_pool=True)
        states, control = states[:, self.substeps - 1 :: self.substeps], control[:, self.substeps - 1 :: self.substeps]
        nq, nv = self.model.nq, self.model.nv
        return states[..., 1 : 1 + nq], states[..., 1 + nq : 1 + nq + nv], control

    def returns(self, actions: np.ndarray) -> np.ndarray:
        """See :meth:`CopySimulator.returns`."""
        parts = self.rollout(actions)
        steps = parts[0].shape[:2]
        qpos, qvel, control = (part.reshape(-1, part.shape[-1]) for part in parts)
        reward = self.batch_reward or self._ask_task
        return reward(qpos, qvel, control).reshape(steps).sum(1)

    def _ask_task(self, qpos: np.ndarray, qvel: np.ndarray, control: np.ndarray) -> np.ndarray:
        """Ask the task for its reward, state by state; the physics is put back afterwards."""
        physics, before = self.physics, self.physics.get_state().copy()
        held = physics.control().copy()
        rewards = np.zeros(len(qpos))
        with physics.suppress_physics_errors():
            for i, state in enumerate(np.concatenate([qpos, qvel], 1)):
                physics.set_state(state)
                physics.set_control(control[i])
                physics.forward()
                rewards[i] = self.task.get_reward(physics)
            physics.set_state(before)
            physics.set_control(held)
            physics.forward()
        return rewards


def find_repeat(env: gym.Env) -> int:
    """Find the action repeat of the wrappers around an environment."""
    repeat = 1
    while isinstance(env, gym.Wrapper):
        repeat *= env.amount if isinstance(env, ActionRepeat) else 1
        env = env.env
    return repeat


def find_batch_reward(task: Any, physics: Any) -> BatchReward | None:
    """Find the task's reward for many states at once, where it is known here."""
    from dm_control.suite import ball_in_cup, cartpole

    if isinstance(task, cartpole.Balance) and not task._sparse and physics.model.nv == 2:
        return cartpole_reward
    if isinstance(task, ball_in_cup.BallInCup):
        return cup_reward(physics)
    return None


def cartpole_reward(qpos: np.ndarray, qvel: np.ndarray, control: np.ndarray) -> np.ndarray:
    """Compute the smooth reward of dm_control's cartpole with one pole: upright, in the middle, gently and slowly."""
    from dm_control.utils.rewards import tolerance

    centered = (1 + tolerance(qpos[:, 0], margin=2)) / 2
    gentle = (4 + tolerance(control[:, 0], margin=1, value_at_margin=0, sigmoid="quadratic")) / 5
    slow = (1 + tolerance(qvel[:, 1], margin=5)) / 2
    return (np.cos(qpos[:, 1]) + 1) / 2 * gentle * slow * centered


def cup_reward(physics: Any) -> BatchReward:
    """Make the sparse reward of dm_control's ball in cup; both only slide: places are positions and an offset."""
    index = [physics.model.name2id(name, "joint") for name in ("cup_x", "cup_z", "ball_x", "ball_z")]
    cup, ball = index[:2], index[2:]
    data, model = physics.named.data, physics.named.model
    qpos = physics.data.qpos
    offset = data.site_xpos["target", ["x", "z"]] - qpos[cup] - (data.xpos["ball", ["x", "z"]] - qpos[ball])
    room = model.site_size["target", [0, 2]] - model.geom_size["ball", 0]

    def reward(qpos: np.ndarray, qvel: np.ndarray, control: np.ndarray) -> np.ndarray:
        distance = np.abs(qpos[:, cup] - qpos[:, ball] + offset)
        return (distance < room).all(1).astype(float)

    return reward


def make_simulator(env: gym.Env, threads: int = 1) -> CopySimulator:
    """Make the fastest simulator that the environment allows."""
    is_dmc = hasattr(env.unwrapped, "physics") and hasattr(env.unwrapped, "_env")
    return DmcSimulator(env, threads) if is_dmc else CopySimulator(env)


def play(env: gym.Env, simulator: CopySimulator, args: argparse.Namespace, seed: int) -> dict[str, float]:
    """Play one episode in which every action is planned anew."""
    env.reset(seed=seed)
    generator = th.Generator().manual_seed(seed)
    shape = (1, args.horizon, int(np.prod(env.action_space.shape or (1,))))
    mean, total, steps, start = th.zeros(shape), 0.0, 0, time.time()

    def score(actions: th.Tensor) -> th.Tensor:
        return th.from_numpy(simulator.returns(actions[0].double().numpy())).float()[None]

    while True:
        mean = th.cat([mean[:, 1:], th.zeros(1, 1, shape[2])], 1) if args.warm_start else th.zeros(shape)
        mean, _ = cem_normal(
            score,
            (mean, th.ones(shape)),
            iterations=args.iterations,
            candidates=args.candidates,
            elites=args.elites,
            generators=[generator],
        )
        _, reward, terminated, truncated, _ = env.step(simulator.scale(mean[0, 0].numpy()))
        total, steps = total + float(reward), steps + 1
        if terminated or truncated:
            return {"return": total, "steps": steps, "seconds": round(time.time() - start, 1)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the ``simulator`` command."""
    parser.add_argument("--env", default="planet:cartpole_swingup", help="as planet, or any name that make_env knows")
    parser.add_argument("--seed", type=int, default=0, help="of the first episode")
    parser.add_argument("--episodes", type=int, default=1)
    parser.add_argument("--horizon", type=int, default=12)
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--candidates", type=int, default=1000)
    parser.add_argument("--elites", type=int, default=100)
    parser.add_argument("--warm-start", action="store_true", help="start from the last plan (the paper does not)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=output_file, help="JSON file; episodes that it holds are not played again")


def run(args: argparse.Namespace, env: gym.Env) -> None:
    """Play the episodes that are missing in ``--out``; write after each.

    :param args: flags of :func:`add_arguments`
    :param env: the environment that ``args.env`` names
    """
    keys = ("env", "horizon", "iterations", "candidates", "elites", "warm_start")
    record: dict[str, Any] = {key: getattr(args, key) for key in keys}
    bound = PAPER_BOUND.get(args.env.split(":")[-1])
    out = Path(args.out) if args.out else None
    episodes: dict[str, Any] = {}
    if out is not None and out.exists():
        earlier = json.loads(out.read_text())
        if {key: earlier[key] for key in keys} != record:
            raise SystemExit(f"{out} holds episodes with other settings: choose another --out")
        episodes = earlier["episodes"]
    env.reset(seed=args.seed)
    simulator = make_simulator(env, args.threads)
    for seed in range(args.seed, args.seed + args.episodes):
        if str(seed) in episodes:
            continue
        episodes[str(seed)] = play(env, simulator, args, seed)
        mean = float(np.mean([episode["return"] for episode in episodes.values()]))
        result = record | {"mean_return": mean, "paper": bound, "share": mean / bound if bound else None}
        print(json.dumps({"seed": seed} | episodes[str(seed)] | {"mean": mean, "paper": bound}), flush=True)
        if out is not None:
            out.write_text(json.dumps(result | {"episodes": episodes}, indent=1) + "\n")
