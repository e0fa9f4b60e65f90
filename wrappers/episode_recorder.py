"""Record episodes as video and as data."""

from __future__ import annotations

import itertools
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from sb3_dreamer.video import VideoWriter
from sb3_dreamer.wrappers.arguments import finite_number, whole_number
from sb3_dreamer.wrappers.stack_channels import channels_first

SOURCES = ("auto", "render", "observation")


class EpisodeRecorder(gym.Wrapper, gym.utils.RecordConstructorArgs):
    """Write chosen episodes as MP4 (GIF where ffmpeg is missing) and, if asked, as NPZ.

    Gymnasium's ``RecordVideo`` keeps all frames in memory and loses the episode that runs when the process ends without
    ``close()``; here frames are streamed to the file, and the file is finished at the end of an episode, at
    ``close()``, when a step raises (an interrupt from the keyboard included), when nothing refers to the recorder any
    more and when the interpreter exits. An unfinished episode has ``-partial`` in its name. A video that cannot be
    written is a warning, never the end of a training run. Copies in a vector environment may share a folder: each
    episode has a name of its own, the second one of a number with ``-1`` behind it.

    The NPZ holds the whole episode in rows: row t is the observation (``obs``, or ``obs/<key>``), the action that led
    to it (``prev_action``, zeros in row 0), the reward received with it, and ``is_first``, ``is_last``,
    ``is_terminal``. ``model.add_episodes`` reads it.

    :param env: environment to wrap, made with ``render_mode="rgb_array"`` unless the observation has an image
    :param folder: where the files go; made if missing
    :param every: record each ``every``-th episode, beginning with the first
    :param trigger: function of the episode number (from 0) that decides instead
    :param video: write videos
    :param npz: write NPZ files
    :param source: ``"render"`` (``env.render()``), ``"observation"`` (the image in the observation) or ``"auto"``:
        render if the environment can, else the observation
    :param fps: frames per second; None: the environment's ``render_fps`` or 30, at most 60
    :param scale: whole-number enlargement of the frames
    :param prefix: beginning of the file names
    :raises ValueError: if there is nothing to record, or an argument is malformed
    """

    def __init__(
        self,
        env: gym.Env,
        folder: str | Path,
        every: int = 1,
        trigger: Callable[[int], bool] | None = None,
        video: bool = True,
        npz: bool = False,
        source: str = "auto",
        fps: float | None = None,
        scale: int = 1,
        prefix: str = "episode",
    ):
        gym.utils.RecordConstructorArgs.__init__(
            self, folder=str(folder), every=every, trigger=trigger, video=video, npz=npz, source=source, fps=fps,
            scale=scale, prefix=prefix,
        )  # fmt: skip
        gym.Wrapper.__init__(self, env)
        every = whole_number("every", every, 1, what="number of episodes")
        if trigger is not None and not callable(trigger):
            raise ValueError(f"trigger={trigger!r}: pass a function of the episode number, or every=.")
        if source not in SOURCES:
            raise ValueError(f"source={source!r} cannot be recorded: write one of {', '.join(map(repr, SOURCES))}.")
        if fps is not None:
            fps = finite_number("fps", fps, positive=True)
        self.folder, self.prefix, self.scale = Path(folder), prefix, whole_number("scale", scale, 1, what="factor")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._trigger = trigger if trigger is not None else lambda episode: episode % every == 0
        self.video, self.npz = video, npz
        self._key = _image_key(env.observation_space)
        renders = env.render_mode == "rgb_array"
        if video and ((source == "render" and not renders) or (source != "render" and not renders and not self._key)):
            raise ValueError("nothing to record: make the environment with render_mode='rgb_array'.")
        if video and source == "observation" and not self._key:
            raise ValueError(f"source='observation', but there is no image in {env.observation_space}.")
        if npz:
            _check_columns(env.observation_space)
        self._render = source != "observation" and renders
        self.fps = fps if fps is not None else min(60.0, float(env.metadata.get("render_fps") or 30))
        self.episode = -1
        self.files: list[Path] = []
        self._recording = _Recording(self.action_space)
        weakref.finalize(self, self._recording.finish, partial=True)  # also when the interpreter exits

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Finish the file of an episode that did not end, then reset and begin the next."""
        self.flush(partial=True)
        obs, info = self.env.reset(seed=seed, options=options)
        self.episode += 1
        if self._trigger(self.episode):
            self._recording.path = self._claim_path()
        if self._recording.path is not None:
            self._add(obs, None, 0.0, False, False)
        return obs, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step and record; at the end of a recorded episode ``info["recording"]`` lists its files."""
        try:
            obs, reward, terminated, truncated, info = self.env.step(action)
            if self._recording.path is not None:
                self._add(obs, action, float(reward), terminated, truncated)
        except BaseException:
            self.flush(partial=True)
            raise
        if self._recording.path is not None and (terminated or truncated):
            info = {**info, "recording": [str(path) for path in self.flush()]}
        return obs, reward, terminated, truncated, info

    def close(self) -> None:
        """Finish the files and close the environment."""
        self.flush(partial=True)
        super().close()

    def flush(self, partial: bool = False) -> list[Path]:
        """Finish the files of the episode that is being recorded.

        :param partial: mark them as unfinished
        :return: the files written
        """
        written = self._recording.finish(partial)
        self.files += written
        return written

    def _claim_path(self) -> Path | None:
        """Claim a name without suffix that no file in the folder has; other recorders may share the folder.

        The claim is an empty file, which only one of them can create; it is removed when the episode's files are there.
        So whoever claims a name after that sees those files and takes the next name.
        """
        ends = ("mp4", "gif", "npz", "part.mp4")
        stem = f"{self.prefix}-{self.episode:05d}"
        for count in itertools.count():
            path = self.folder / (f"{stem}-{count}" if count else stem)
            try:
                _claim(path).touch(exist_ok=False)
            except FileExistsError:
                continue
            except OSError as error:
                warnings.warn(f"episode {self.episode} is not recorded: {error}", stacklevel=3)
                return None
            if not any(
                path.with_name(f"{path.name}{mark}.{end}").exists() for mark in ("", "-partial") for end in ends
            ):
                return path
            _claim(path).unlink()
        return None

    def _add(self, obs: Any, action: Any, reward: float, terminated: bool, truncated: bool) -> None:
        if self.npz:
            columns = (
                {f"obs/{k}": np.array(v) for k, v in obs.items()} if isinstance(obs, dict) else {"obs": np.array(obs)}
            )
            ends = {
                "is_first": action is None,
                "is_last": bool(terminated or truncated),
                "is_terminal": bool(terminated),
            }
            self._recording.rows.append({**columns, "prev_action": action, "reward": np.float32(reward), **ends})
        if not self.video:
            return
        try:
            frame = self.env.render() if self._render else _last_frame(obs[self._key] if isinstance(obs, dict) else obs)
            self._recording.add(np.asarray(frame), self.fps, self.scale)
        except Exception as error:
            warnings.warn(f"no video of this run any more: {type(error).__name__}: {error}", stacklevel=2)
            self.video = False


class _Recording:
    """Hold what is recorded of an episode apart from its recorder, so that the files are finished when that is gone.

    :param action_space: of the actions
    """

    def __init__(self, action_space: spaces.Space[Any]):
        self.action_space = action_space
        self.path: Path | None = None  #: without suffix; None: no episode is recorded
        self.rows: list[dict[str, Any]] = []
        self._writer: VideoWriter | None = None

    def add(self, frame: np.ndarray, fps: float, scale: int) -> None:
        """Append a frame to the video."""
        if self._writer is None:
            assert self.path is not None
            self._writer = VideoWriter(self.path.with_name(self.path.name + ".mp4"), fps, scale)
        self._writer.add(frame)

    def finish(self, partial: bool = False) -> list[Path]:
        """Finish the files, and forget the episode; return what was written.

        :param partial: mark them as unfinished
        """
        path, writer, rows = self.path, self._writer, self.rows
        self.path, self._writer, self.rows = None, None, []
        written: list[Path] = []
        if path is None:
            return written
        try:
            done = writer.close() if writer is not None else None
            if done is not None:
                written.append(done.replace(done.with_stem(f"{done.stem}-partial")) if partial else done)
            if len(rows) > 1:  # an episode of no step holds nothing to learn from
                target = path.with_name(path.name + ("-partial" if partial else "") + ".npz")
                np.savez_compressed(target, **_columns(rows, self.action_space))  # type: ignore[arg-type]
                written.append(target)
        except Exception as error:
            warnings.warn(f"the episode {path} could not be written: {error}", stacklevel=3)
        finally:
            _claim(path).unlink(missing_ok=True)
        return written


def _check_columns(space: spaces.Space[Any]) -> None:
    """Refuse an observation whose parts are no plain arrays: an NPZ could hold them only as pickles."""
    plain = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary, spaces.Text)
    for member in space.values() if isinstance(space, spaces.Dict) else [space]:
        if not isinstance(member, plain):
            raise ValueError(
                f"npz=True cannot store {member}, a {type(member).__name__} space: flatten it with "
                "gymnasium.wrappers.FlattenObservation, or record the video only (npz=False)."
            )


def _claim(path: Path) -> Path:
    """Return the file that marks a name as taken while its episode is being recorded."""
    return path.with_name(f"{path.name}.recording")


def _image_key(space: spaces.Space[Any]) -> str | None:
    """Return the key of the image in a ``Dict``, ``"."`` if the observation is one, None without an image."""
    members = space.spaces if isinstance(space, spaces.Dict) else {".": space}
    for key, member in members.items():
        if isinstance(member, spaces.Box) and member.dtype == np.uint8 and len(member.shape) == 3:
            return key
    return None


def _last_frame(image: np.ndarray) -> np.ndarray:
    """Return the newest frame of an image whose channels, in front or last, may hold several."""
    image = np.moveaxis(image, 0, -1) if channels_first(image.shape) else image
    return image[..., -3:] if image.shape[-1] % 3 == 0 else image[..., -1:]


def _columns(rows: list[dict[str, Any]], space: spaces.Space[Any]) -> dict[str, np.ndarray]:
    """Return the rows as arrays, with zeros for the action of the first row; nested actions as flat vectors."""
    nested = isinstance(space, (spaces.Dict, spaces.Tuple))
    blank = np.zeros(spaces.flatdim(space), np.float32) if nested else np.zeros(space.shape or (), space.dtype)
    taken = [row["prev_action"] for row in rows]
    actions = [blank if act is None else np.asarray(spaces.flatten(space, act) if nested else act) for act in taken]
    table = {key: np.stack([row[key] for row in rows]) for key in rows[0] if key != "prev_action"}
    return {**table, "prev_action": np.stack(actions).astype(blank.dtype)}
