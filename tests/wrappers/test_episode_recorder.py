"""Recording: files are finished at episode ends, close, exceptions, interrupts and exit; the content is right."""

import gc
import sys

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from sb3_dreamer.wrappers import (
    ActionRepeat,
    EpisodeRecorder,
    PixelObservation,
    RestartingVecEnv,
    StackChannels,
    make_env,
    make_vec_env,
)


def read_video(path):
    imageio = pytest.importorskip("imageio.v3")
    return np.stack(list(imageio.imiter(path)))


def play(env, steps):
    for _ in range(steps):
        _, _, terminated, truncated, _ = env.step(0)
        if terminated or truncated:
            env.reset()


def names(folder):
    """Return the names of the files, without the claims of running episodes."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".recording")


def test_every_nth_episode_with_the_right_frames(counting, tmp_path):
    pytest.importorskip("moviepy")
    env = EpisodeRecorder(counting(length=6), tmp_path, every=2, scale=4)
    env.reset(seed=0)
    play(env, 6 * 3 + 2)
    env.close()
    assert names(tmp_path) == ["episode-00000.mp4", "episode-00002.mp4"]
    frames = read_video(tmp_path / "episode-00002.mp4")
    assert frames.shape == (7, 32, 48, 3)  # the reset frame and six steps, enlarged
    assert np.abs(frames.mean((1, 2, 3)) - np.arange(7)).max() < 3


def test_trigger_npz_and_info(counting, tmp_path):
    env = EpisodeRecorder(counting(length=3, kind="dict"), tmp_path, trigger=lambda n: n == 1, video=False, npz=True)
    env.reset(seed=0)
    play(env, 3)
    for _ in range(3):
        info = env.step(2)[4]
    assert names(tmp_path) == ["episode-00001.npz"] and info["recording"] == [str(tmp_path / "episode-00001.npz")]
    with np.load(tmp_path / "episode-00001.npz", allow_pickle=False) as data:
        assert data["obs/vector"][:, 1].tolist() == [0, 1, 2, 3] and data["obs/image"].shape == (4, 8, 12, 3)
        assert data["prev_action"].tolist() == [0, 2, 2, 2] and data["reward"].tolist() == [0, 1, 2, 3]
        assert data["is_first"].tolist() == [True, False, False, False]
        assert data["is_last"].tolist() == data["is_terminal"].tolist() == [False, False, False, True]


def test_truncated_episode_is_not_terminal(counting, tmp_path):
    env = EpisodeRecorder(counting(length=2, end="truncated", action="box"), tmp_path, video=False, npz=True)
    env.reset(seed=0)
    for _ in range(2):
        env.step(np.array([2.0, 0.5]))
    with np.load(env.files[0]) as data:
        assert data["is_last"].tolist() == [False, False, True] and not data["is_terminal"].any()
        assert data["prev_action"].tolist() == [[0, 0], [2, 0.5], [2, 0.5]]


def test_reset_in_mid_episode_and_close_leave_partial_files(counting, tmp_path):
    pytest.importorskip("moviepy")
    env = EpisodeRecorder(counting(length=50), tmp_path, npz=True)
    env.reset(seed=0)
    play(env, 3)
    env.reset()
    play(env, 2)
    env.close()
    kinds = ("episode-0000{}-partial.mp4", "episode-0000{}-partial.npz")
    assert names(tmp_path) == [kind.format(number) for number in (0, 1) for kind in kinds]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_the_file_is_finished_when_a_step_raises(counting, tmp_path, error):
    pytest.importorskip("moviepy")

    class Failing(counting):
        def step(self, action):
            if self.t == 4:
                raise error("stop")
            return super().step(action)

    env = EpisodeRecorder(Failing(length=50), tmp_path)
    env.reset(seed=0)
    with pytest.raises(error):
        play(env, 10)
    assert names(tmp_path) == ["episode-00000-partial.mp4"]
    assert len(read_video(tmp_path / "episode-00000-partial.mp4")) == 5


@pytest.mark.parametrize("ending", ["pass", "raise KeyboardInterrupt", "raise ValueError"])
def test_the_file_is_finished_when_the_process_ends_without_close(run_script, tmp_path, ending):
    pytest.importorskip("moviepy")
    code = (
        "import sys\nfrom sb3_dreamer.wrappers import ActionRepeat, EpisodeRecorder, make_env\n"
        "env = EpisodeRecorder(make_env('CartPole-v1', render_mode='rgb_array'), sys.argv[1])\n"
        f"env.reset(seed=0)\nfor _ in range(5): env.step(0)\n{ending}\n"
    )
    run_script(code, tmp_path)
    assert names(tmp_path) == ["episode-00000-partial.mp4"]
    assert len(read_video(tmp_path / "episode-00000-partial.mp4")) == 6


def test_the_file_is_finished_when_the_recorder_is_no_longer_used(counting, tmp_path):
    pytest.importorskip("moviepy")

    def record():
        env = EpisodeRecorder(counting(length=50), tmp_path, npz=True)
        env.reset(seed=0)
        play(env, 5)

    record()
    gc.collect()
    there = sorted(path.name for path in tmp_path.iterdir())
    assert there == ["episode-00000-partial.mp4", "episode-00000-partial.npz"]  # no claim is left
    assert len(read_video(tmp_path / "episode-00000-partial.mp4")) == 6
    with np.load(tmp_path / "episode-00000-partial.npz") as data:
        assert data["prev_action"].tolist() == [0] * 6 and data["obs"][:, 1].tolist() == [0, 1, 2, 3, 4, 5]


def test_gif_where_moviepy_is_missing(counting, tmp_path, monkeypatch):
    pytest.importorskip("PIL")
    monkeypatch.setitem(sys.modules, "moviepy.video.io.ffmpeg_writer", None)
    env = EpisodeRecorder(counting(length=3), tmp_path, fps=10)
    with pytest.warns(UserWarning, match="pip install moviepy"):
        env.reset(seed=0)
        play(env, 3)
    assert "episode-00000.gif" in names(tmp_path)
    assert read_video(tmp_path / "episode-00000.gif").shape[:3] == (4, 8, 12)


def test_without_any_writer_training_goes_on(counting, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "moviepy.video.io.ffmpeg_writer", None)
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    env = EpisodeRecorder(counting(length=3), tmp_path, npz=True)
    with pytest.warns(UserWarning, match="no video"):
        env.reset(seed=0)
    play(env, 3)
    assert names(tmp_path) == ["episode-00000.npz"]


def test_existing_files_are_kept(counting, tmp_path):
    for _ in range(3):
        env = EpisodeRecorder(counting(length=2), tmp_path, video=False, npz=True, prefix="run")
        env.reset(seed=0)
        play(env, 2)
    assert names(tmp_path) == ["run-00000-1.npz", "run-00000-2.npz", "run-00000.npz"]


def test_copies_that_share_a_folder_keep_their_episodes_apart(counting, tmp_path):
    copies = [EpisodeRecorder(counting(length=2), tmp_path, video=False, npz=True) for _ in range(3)]
    for _ in range(2):
        for env in copies:
            env.reset(seed=0)
        for action, env in enumerate(copies):
            env.step(action)
            env.step(action)
    written = [path.stem for env in copies for path in env.files]
    assert sorted(written) == [f"episode-0000{n}{copy}" for n in range(2) for copy in ("", "-1", "-2")]
    for action, env in enumerate(copies):
        for path in env.files:
            with np.load(path) as data:
                assert data["prev_action"].tolist() == [0, action, action]
    there = sorted(path.name for path in tmp_path.iterdir())
    assert there == sorted(path.name for env in copies for path in env.files)  # no claim is left


def test_workers_that_share_a_folder_keep_their_episodes_apart(tmp_path):
    envs = make_vec_env(
        "CartPole-v1", 3, seed=0, vec_env_cls=RestartingVecEnv, wrapper_class=EpisodeRecorder,
        wrapper_kwargs={"folder": str(tmp_path), "video": False, "npz": True},
    )  # fmt: skip
    envs.reset()
    ends = sum(envs.step(np.array([i % 2] * 3))[2].sum() for i in range(60))
    envs.close()
    finished = [name for name in names(tmp_path) if "partial" not in name]
    assert len(finished) == ends >= 3 and ends <= len(names(tmp_path)) <= ends + 3


def test_an_episode_without_a_step_is_not_stored(counting, tmp_path):
    env = EpisodeRecorder(counting(), tmp_path, video=False, npz=True)
    env.reset(seed=0)
    env.close()
    assert names(tmp_path) == env.files == []


def test_a_folder_that_is_gone_does_not_end_the_run(counting, tmp_path):
    env = EpisodeRecorder(counting(length=2), tmp_path / "rec", video=False, npz=True)
    (tmp_path / "rec").rmdir()
    with pytest.warns(UserWarning, match="episode 0 is not recorded"):
        env.reset(seed=0)
    play(env, 1)


def test_the_observation_is_recorded_where_nothing_is_drawn(counting, tmp_path):
    pytest.importorskip("moviepy")
    env = EpisodeRecorder(StackChannels(counting(kind="image", render_mode=None, length=4), 3), tmp_path, scale=8)
    env.reset(seed=0)
    play(env, 4)
    frames = read_video(tmp_path / "episode-00000.mp4")
    assert frames.shape == (5, 64, 96, 3) and np.abs(frames.mean((1, 2, 3)) - np.arange(5)).max() < 3


@pytest.mark.parametrize(
    "arguments", [{"source": "render"}, {"source": "observation"}, {}, {"every": 0}, {"source": "screen"}]
)
def test_nothing_to_record_is_an_error(counting, tmp_path, arguments):
    with pytest.raises(ValueError, match=r"record|image|every"):
        EpisodeRecorder(counting(render_mode=None), tmp_path, **arguments)


def test_recording_changes_neither_actions_nor_episodes(tmp_path):
    def trace(record):
        env = make_env("CartPole-v1", render_mode="rgb_array")
        env = EpisodeRecorder(env, tmp_path, npz=True) if record else env
        env.action_space.seed(0)
        out = [env.reset(seed=0)[0].tolist()]
        for _ in range(60):
            obs, _, terminated, _, _ = env.step(env.action_space.sample())
            out.append((env.reset()[0] if terminated else obs).tolist())
        env.close()
        return out

    assert trace(True) == trace(False)


def test_pixel_observations_can_be_recorded(tmp_path):
    pytest.importorskip("moviepy")
    env = EpisodeRecorder(PixelObservation(gym.make("CartPole-v1", render_mode="rgb_array"), 32), tmp_path)
    env.reset(seed=0)
    play(env, 3)
    env.close()
    assert read_video(env.files[0]).shape == (4, 400, 600, 3)


class ChannelsFirst(gym.ObservationWrapper):
    """An image observation with its channels in front, as some environments have it."""

    def __init__(self, env):
        super().__init__(env)
        height, width, channels = env.observation_space.shape
        self.observation_space = spaces.Box(0, 255, (channels, 4 * height, 4 * width), np.uint8)

    def observation(self, observation):
        image = np.moveaxis(observation, -1, 0).repeat(4, 1).repeat(4, 2)
        image[:, :16] = 255  # the upper half is white
        return image


@pytest.mark.parametrize("stack", [1, 3])
def test_channels_in_front_are_no_stripes(counting, tmp_path, stack):
    pytest.importorskip("moviepy")
    base = counting(kind="image", render_mode=None, length=4)
    env = ChannelsFirst(StackChannels(base, stack) if stack > 1 else base)
    env = EpisodeRecorder(env, tmp_path, scale=2)
    env.reset(seed=0)
    play(env, 4)
    frames = read_video(env.files[0])
    assert frames.shape == (5, 64, 96, 3)
    assert frames[:, :28].min() > 240 and frames[:, 36:].max() < 15


def test_a_video_has_the_speed_of_the_task(counting, tmp_path):
    env = EpisodeRecorder(ActionRepeat(counting(), 4), tmp_path, video=False)
    assert env.fps == counting.metadata["render_fps"] / 4


@pytest.mark.parametrize(
    "arguments,match",
    [
        ({"every": 0}, "every=0: must be a whole number of episodes, at least 1.$"),
        ({"every": 1.5}, "every=1.5: must be"),
        ({"trigger": 3}, "trigger=3: pass a function"),
        ({"source": "screen"}, "source='screen' cannot be recorded: write one of 'auto', 'render', 'observation'"),
        ({"scale": 0}, "scale=0: must be"),
        ({"fps": 0}, "fps=0: must be a finite number, above 0"),
    ],
)
def test_bad_arguments_are_refused(counting, tmp_path, arguments, match):
    with pytest.raises(ValueError, match=match):
        EpisodeRecorder(counting(), tmp_path, **arguments)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Dict(a=spaces.Dict(b=spaces.Box(0, 1, (2,)))),
        spaces.Tuple([spaces.Box(0, 1, (2,)), spaces.Discrete(3)]),
        spaces.Dict(a=spaces.Box(0, 1, (2,)), b=spaces.Tuple([spaces.Discrete(2)])),
    ],
)
def test_nested_observations_are_flattened_or_refused(counting, tmp_path, space):
    class Nested(gym.ObservationWrapper):
        def __init__(self, env):
            super().__init__(env)
            self.observation_space = space

        def observation(self, observation):
            return space.sample()

    with pytest.raises(ValueError, match=r"npz=True cannot store .*FlattenObservation"):
        EpisodeRecorder(Nested(counting()), tmp_path, npz=True)
    env = EpisodeRecorder(gym.wrappers.FlattenObservation(Nested(counting(length=2))), tmp_path, video=False, npz=True)
    env.reset(seed=0)
    play(env, 2)
    with np.load(env.files[0], allow_pickle=False) as data:
        assert data["obs"].shape == (3, spaces.flatdim(space))
