"""One step of acting as a file that runs without this package: ONNX, or a program of ``torch.export``."""

import copy
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from torch import nn

from sb3_dreamer.common.files.atomic import atomic_path, atomic_write
from sb3_dreamer.common.policy import PolicyState, WorldModelPolicy
from sb3_dreamer.common.spaces import as_dict, space_dict
from sb3_dreamer.core.action_heads import TruncatedNormalHead
from sb3_dreamer.core.behavior import Behavior
from sb3_dreamer.core.planner import CEMPlanner

ENDINGS = (".onnx", ".pt2")
State = tuple[th.Tensor, ...]


class ActingStep(nn.Module):
    """``(observation, state, episode_start)`` to ``(action, next state)``, as ``predict`` does it, on tensors alone.

    :param policy: acts; a copy is kept, on the CPU
    :param deterministic: modes instead of samples
    """

    def __init__(self, policy: WorldModelPolicy, deterministic: bool):
        super().__init__()
        # Without gradients: the state goes from call to call, and a graph would grow with it.
        self.policy = copy.deepcopy(policy).cpu().requires_grad_(False)
        self.policy.set_training_mode(False)
        self.deterministic = deterministic

    def forward(
        self, obs: th.Tensor | dict[str, th.Tensor], state: State, episode_start: th.Tensor
    ) -> tuple[th.Tensor, State]:
        """Act once.

        :param obs: raw observations ``(n, *shape)`` in the dtype of their space, by key for a Dict space
        :param state: deter ``(n, D)``, stoch ``(n, S, K)`` or ``(n, S)``, prev_action ``(n, A)``
        :param episode_start: ``(n,)`` bool; the state of these environments is not read
        :return: actions of the action space ``(n, *shape)``, and the state for the next call
        """
        after = self.policy.step(as_dict(obs), PolicyState(*state), episode_start, deterministic=self.deterministic)
        return self.policy.codec.to_env_tensor(after.prev_action), tuple(after)

    def example(self, n: int) -> tuple[th.Tensor | dict[str, th.Tensor], State, th.Tensor]:
        """Arguments of the right shapes and dtypes for ``n`` environments that begin their first episode."""
        spaces_ = space_dict(self.policy.observation_space)
        obs: Any = {
            key.name: th.as_tensor(np.stack([spaces_[key.name].sample() for _ in range(n)])) for key in self.policy.keys
        }
        if not isinstance(self.policy.observation_space, spaces.Dict):
            (obs,) = obs.values()
        return obs, tuple(self.policy.initial_state(n)), th.ones(n, dtype=th.bool)


@th.no_grad()
def export_policy(policy: WorldModelPolicy, path: str | os.PathLike[str], *, deterministic: bool) -> Path:
    """Write :class:`ActingStep` to a file, whole or not at all.

    :param policy: acts
    :param path: file name, whose ending names the format: ``.onnx`` or ``.pt2``
    :param deterministic: modes instead of samples
    :return: the path
    :raises ValueError: for another ending, or a behavior that no graph can hold
    :raises ImportError: if a package is missing that the format needs
    """
    path = Path(path)
    if path.suffix not in ENDINGS:
        raise ValueError(f"{path.name!r} must end in {' or '.join(ENDINGS)}, which names the format")
    if path.suffix == ".onnx":
        _require_onnx()
    _check_behavior(policy.behavior, path.suffix, deterministic)
    step = ActingStep(policy, deterministic)
    arguments = step.example(2)
    batch = th.export.Dim("n", min=1)
    every: Any = {0: batch}
    obs = dict.fromkeys(arguments[0], every) if isinstance(arguments[0], dict) else every
    shapes = {"obs": obs, "state": (every,) * len(PolicyState._fields), "episode_start": every}
    program = th.export.export(step, arguments, dynamic_shapes=shapes, strict=False)
    if path.suffix == ".pt2":
        with atomic_write(path) as handle:
            th.export.save(program, handle)
    else:
        with atomic_path(path) as part:
            _write_onnx(program, part, arguments[0])
    return path


def _write_onnx(program: th.export.ExportedProgram, path: Path, obs: th.Tensor | dict[str, th.Tensor]) -> None:
    """Convert a program to ONNX, weights in the same file, its inputs and outputs named as in docs/export.md."""
    names = [f"obs.{name}" for name in obs] if isinstance(obs, dict) else ["obs"]
    converted = th.onnx.export(
        program,
        input_names=[*names, *PolicyState._fields, "episode_start"],
        output_names=["action", *(f"next_{name}" for name in PolicyState._fields)],
        dynamo=True,
        verbose=False,
    )
    assert converted is not None
    for node in converted.model.graph:
        node.metadata_props.clear()  # lines of this package's source, by their paths on this machine
    converted.save(path, external_data=False)


def _require_onnx() -> None:
    try:
        import onnxscript  # noqa: F401
    except ImportError as error:
        how = "pip install 'sb3-dreamer[export]'"
        raise ImportError(f"an .onnx file needs onnx and onnxscript: {how} ({error})") from None


def _check_behavior(behavior: Behavior, suffix: str, deterministic: bool) -> None:
    """Refuse a behavior that the format cannot hold.

    :raises ValueError: saying what to write instead
    """
    if isinstance(behavior, CEMPlanner) and behavior.warm_start:
        raise ValueError("warm_start=True: the last plan is not part of the state, so the step cannot be exported")
    if isinstance(behavior, CEMPlanner) and deterministic:
        raise ValueError(
            "deterministic=True: a planner then draws its candidates from a random generator that it seeds anew with "
            "each state, which no graph can hold: use export(..., deterministic=False)"
        )
    actor = getattr(behavior, "actor", None)
    if isinstance(actor, TruncatedNormalHead) and suffix == ".onnx" and not deterministic:
        raise ValueError(
            "deterministic=False: ONNX has no inverse error function, which samples of DreamerV2's truncated normal "
            "need: use deterministic=True, or a file name that ends in .pt2"
        )
