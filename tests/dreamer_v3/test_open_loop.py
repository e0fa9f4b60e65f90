"""Open-loop prediction: numbers against arithmetic, videos, the callback, and the world model with numpy."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.logger import CSVOutputFormat, KVWriter, Logger, configure

from sb3_dreamer import DreamerV3
from sb3_dreamer.common.open_loop import horizon_table, log_video
from sb3_dreamer.common.world_model_view import Latents
from sb3_dreamer.core.open_loop import OpenLoop, open_loop_errors, open_loop_frames, predict_open_loop
from sb3_dreamer.core.types import ObsKey, SequenceBatch
from sb3_dreamer.dreamer_v3 import OpenLoopCallback
from tests.algorithms import equal, weights
from tests.spaces_env import SpacesEnv, image

KEYS = (ObsKey("cam", "image", (1, 16, 16)), ObsKey("pos", "vector", (2,)), ObsKey("gear", "discrete", (), (3,), (0,)))
SPACE = spaces.Dict({"cam": image(1, 16, 16), "gear": spaces.Discrete(3), "pos": spaces.Box(-1, 1, (2,), np.float32)})


def make(size: str = "debug", **kwargs) -> DreamerV3:
    tiny = {"batch_size": 2, "batch_length": 6, "horizon": 3, "buffer_size": 300, "learning_starts": 20}
    tiny |= {"train_ratio": 2, "seed": 0, "device": "cpu"}
    return DreamerV3("MultiInputPolicy", SpacesEnv(SPACE, spaces.Discrete(3)), model_size=size, **(tiny | kwargs))


def make_batch(b: int = 2, t: int = 6) -> SequenceBatch:
    generator = th.Generator().manual_seed(0)
    flags = th.zeros(b, t, dtype=th.bool)
    obs = {
        "cam": th.randint(0, 256, (b, t, 1, 16, 16), dtype=th.uint8, generator=generator),
        "pos": th.randn(b, t, 2, generator=generator),
        "gear": th.randint(0, 3, (b, t), generator=generator),
    }
    action = th.eye(3)[th.randint(0, 3, (b, t), generator=generator)]
    return SequenceBatch(obs, action, th.randn(b, t, generator=generator), flags.clone(), flags.clone(), flags.clone())


def test_numbers_by_hand() -> None:
    batch = make_batch()
    batch.is_first[1, 4] = True  # the second sequence ends after one predicted row
    batch.is_terminal[1, 3] = True
    obs = {"cam": batch.obs["cam"].float() + 25.5, "pos": batch.obs["pos"].clone(), "gear": batch.obs["gear"] * 0}
    prediction = OpenLoop(obs, batch.reward + 2.0, th.ones(2, 6))
    errors = open_loop_errors(prediction, batch, KEYS, context=3)
    assert all(value.shape == (3,) for value in errors.values())
    assert errors["image_error"].tolist() == pytest.approx([0.01] * 3)
    assert errors["psnr"].tolist() == pytest.approx([20.0] * 3)
    assert errors["vector_error"].tolist() == [0.0] * 3
    assert errors["reward_error"].tolist() == pytest.approx([2.0] * 3)
    assert errors["cont_error"].tolist() == [0.5, 0.0, 0.0], "the end of the second sequence counts one step ahead only"
    wrong = (batch.obs["gear"] != 0).float()
    assert errors["discrete_error"].tolist() == pytest.approx([wrong[:, 3].mean().item(), *wrong[0, 4:].tolist()])
    real = batch.obs["cam"].float() / 255
    copied = (real[0, 2] - real[0, 5]).square().mean()
    assert errors["image_error_copy"][2].item() == pytest.approx(copied.item(), rel=1e-5)
    assert errors["psnr_copy"][2].item() == pytest.approx(-10 * np.log10(copied.item()), rel=1e-4)


def test_a_horizon_that_no_sequence_reaches_is_nan() -> None:
    batch = make_batch()
    batch.is_first[:, 5] = True
    errors = open_loop_errors(OpenLoop(batch.obs, batch.reward, th.ones(2, 6)), batch, KEYS, context=3)
    assert errors["reward_error"].isnan().tolist() == [False, False, True]


@pytest.mark.parametrize("size", ["debug", "debug2024"])
def test_predictions_do_not_see_what_they_predict(size) -> None:
    world_model, batch = make(size).policy.world_model, make_batch()
    changed = {key: value.clone() for key, value in batch.obs.items()}
    changed["cam"][:, 3:] = 0
    changed["pos"][:, 3:] = 9.0
    results = []
    for obs in (batch.obs, changed):
        th.manual_seed(0)
        results.append(predict_open_loop(world_model, batch._replace(obs=obs), 3))
    assert all(th.equal(results[0].obs[key], results[1].obs[key]) for key in changed)
    th.manual_seed(0)
    flipped = batch.prev_action.clone()
    flipped[:, 4:] = flipped[:, 4:].roll(1, -1)
    other = predict_open_loop(world_model, batch._replace(prev_action=flipped), 3)
    th.testing.assert_close(other.reward[:, :4], results[0].reward[:, :4])
    assert not th.equal(other.obs["pos"][:, 4], results[0].obs["pos"][:, 4]), "the actions matter"
    with pytest.raises(ValueError, match="context=6"):
        predict_open_loop(world_model, batch, 6)


def test_frames_show_real_model_and_error() -> None:
    batch = make_batch()
    prediction = OpenLoop({"cam": batch.obs["cam"].float()}, batch.reward, batch.reward)
    frames = open_loop_frames(prediction, batch, KEYS[0], context=2).numpy()
    assert frames.shape == (6, 2 * 20, 3 * 20, 3) and frames.dtype == np.uint8
    real, model, error = (frames[:, 2:18, 20 * i + 2 : 20 * i + 18, 0] for i in range(3))
    np.testing.assert_array_equal(real, batch.obs["cam"][0, :, 0])
    np.testing.assert_array_equal(model, real)
    assert (np.abs(error.astype(int) - 128) <= 1).all(), "no error is gray"
    assert frames[1, 0, 0].tolist() == [0, 200, 0] and frames[2, 0, 0].tolist() == [220, 0, 0]


def test_callback(tmp_path) -> None:
    plain = make()
    plain.learn(90)
    model = make()
    callback = OpenLoopCallback(40, context=2, horizon=4, sequences=3, shown=2, folder=tmp_path / "videos")
    model.set_logger(configure(str(tmp_path), ["csv", "tensorboard"]))
    model.learn(90, callback=callback, log_interval=1)
    assert equal(weights(plain), weights(model)), "looking changes nothing"
    assert callback.errors["image_error"].shape == (4,)
    header = (tmp_path / "progress.csv").read_text().splitlines()[-1]
    text = (tmp_path / "progress.csv").read_text()
    for name in ("image_error", "psnr", "psnr_copy", "reward_error_1", "cont_error"):
        assert f"open_loop/{name}" in text, header
    assert callback.videos["cam"].shape == (6, 24 + 2 * 12 * 20, 3 * 12 * 20, 3), "enlarged and labeled"
    videos = list((tmp_path / "videos").iterdir())
    assert len(videos) == 2 and all(video.stat().st_size > 500 for video in videos)
    events = b"".join(path.read_bytes() for path in Path(tmp_path).glob("events*"))
    assert b"open_loop/cam" in events and b"GIF89a" in events
    lines = horizon_table(callback.errors).splitlines()
    assert "psnr" in lines[0] and [line.split()[0] for line in lines[1:]] == ["1", "4"], "the last step, too"


def test_videos_go_to_outputs_of_other_libraries(tmp_path) -> None:
    class Other(KVWriter):
        def write(self, key_values, key_excluded, step=0) -> None:
            assert key_values.keys() == key_excluded.keys()
            self.wrote = (key_values, step)

    other, frames = Other(), np.random.default_rng(0).integers(0, 255, (4, 8, 6, 3), np.uint8)
    log_video(Logger(None, [CSVOutputFormat(str(tmp_path / "log.csv")), other]), "name", frames, 5, 9)
    values, step = other.wrote
    assert step == 9 and values["name"].fps == 5
    assert np.array_equal(values["name"].frames.numpy(), frames.transpose(0, 3, 1, 2)[None])
    assert not (tmp_path / "log.csv").read_text()


def test_nothing_to_predict_is_told_once(tmp_path) -> None:
    make().learn(30).save(tmp_path / "model.zip")
    model = DreamerV3.load(tmp_path / "model.zip", device="cpu")
    callback = OpenLoopCallback(context=2, horizon=4)
    callback.init_callback(model)
    with pytest.warns(UserWarning, match=r"replay holds 0 rows.* at least 4; call learn\(\) or model.load_replay"):
        assert callback.look() == {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert callback.look() == {}
    with pytest.warns(UserWarning, match=r"replay holds 4 rows, and context=5 needs at least 7; wait"):
        make(learning_starts=2, batch_length=3).learn(5, callback=OpenLoopCallback(3))


def test_a_loaded_model_needs_no_log(tmp_path) -> None:
    model = make().learn(30)
    model.save(tmp_path / "model.zip")
    model.save_replay_buffer(tmp_path / "replay")
    loaded = DreamerV3.load(tmp_path / "model.zip", device="cpu")
    loaded.load_replay_buffer(tmp_path / "replay")
    callback = OpenLoopCallback(context=2, horizon=4)
    callback.init_callback(loaded)
    assert callback.look()["image_error"].shape == (4,) and "cam" in callback.videos


def test_a_video_that_cannot_be_written_does_not_end_training(tmp_path) -> None:
    """As on a full disk."""
    (tmp_path / "videos").write_text("no folder")
    callback = OpenLoopCallback(40, context=2, horizon=4, sequences=3, folder=tmp_path / "videos")
    with pytest.warns(UserWarning, match=r"no open-loop video: .*videos'; training continues"):
        assert make().learn(50, callback).num_timesteps == 50


def test_a_folder_for_videos_of_vectors_is_told(tmp_path) -> None:
    env = SpacesEnv(spaces.Box(-1, 1, (3,), np.float32), spaces.Discrete(3))
    model = DreamerV3("MlpPolicy", env, model_size="debug", buffer_size=100, device="cpu", seed=0)
    callback = OpenLoopCallback(folder=tmp_path / "videos")
    with pytest.warns(UserWarning, match=r"folder=.*videos' will get no videos, because Box.* has no image"):
        callback.init_callback(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        callback.init_callback(model)
        OpenLoopCallback().init_callback(model)
    assert not (tmp_path / "videos").exists()


def test_callback_with_context_in_replay() -> None:
    plain, model = make("debug2024").learn(60), make("debug2024")
    model.learn(60, callback=OpenLoopCallback(25, context=2, horizon=3, sequences=2))
    assert equal(weights(plain), weights(model))


def test_callback_counts_updates_without_an_environment() -> None:
    model, looks = make().learn(30), []
    callback = OpenLoopCallback(4, context=2, horizon=3, sequences=1, shown=0)
    callback.look = lambda: looks.append(model._n_updates)
    before = model._n_updates
    model.learn_offline(10, callback=callback)
    assert looks == [before + 4, before + 8]


def test_arguments_and_models_that_the_callback_refuses() -> None:
    for name, value in {"every": 2.5, "context": 0, "horizon": None, "shown": -1, "fps": 0}.items():
        with pytest.raises(ValueError, match=f"^{name}={value!r} must be an integer from"):
            OpenLoopCallback(**{name: value})
    with pytest.raises(TypeError, match="PPO has no world model"):
        OpenLoopCallback().init_callback(PPO("MlpPolicy", "CartPole-v1", n_steps=2, batch_size=2))


@pytest.mark.parametrize("size", ["debug", "debug2024"])
def test_world_model_with_numpy(size) -> None:
    model = make(size).learn(40)
    view, rng = model.world_model, np.random.default_rng(0)
    obs = {
        "cam": rng.integers(0, 256, (2, 5, 1, 16, 16)).astype(np.uint8),
        "gear": rng.integers(0, 3, (2, 5)),
        "pos": rng.normal(size=(2, 5, 2)),
    }
    actions = rng.integers(0, 3, (2, 5))
    before = th.get_rng_state()
    states = view.observe(obs, actions)
    assert states.deter.shape[:2] == states.stoch.shape[:2] == (2, 5) and isinstance(states.deter, np.ndarray)
    assert view.reward(states).shape == view.cont(states).shape == (2, 5)
    decoded = view.decode(states)
    assert decoded["cam"].shape == (2, 5, 1, 16, 16) and 0 <= decoded["cam"].min() <= decoded["cam"].max() <= 255
    dreamed, taken = view.imagine(states.at(-1), actions[:, :3])
    np.testing.assert_array_equal(taken, actions[:, :3])
    assert dreamed.deter.shape[:2] == (2, 3)
    own, chosen = view.imagine(states.at(-1), horizon=7)
    assert own.deter.shape[:2] == (2, 7) and chosen.shape == (2, 7) and model.action_space.contains(chosen[0, 0])
    assert th.equal(before, th.get_rng_state()), "the training's random numbers are left alone"
    # Going on from a state is the same as not stopping.
    latent = model.policy.world_model.rssm.latent
    object.__setattr__(model.policy.world_model.rssm, "latent", Deterministic(latent))
    whole = view.observe(obs, actions)
    head, tail = ({key: value[:, part] for key, value in obs.items()} for part in (slice(0, 2), slice(2, 5)))
    first = view.observe(head, actions[:, :2])
    rest = view.observe(tail, actions[:, 2:], state=first.at(-1))
    np.testing.assert_allclose(np.concatenate([first.deter, rest.deter], 1), whole.deter, atol=1e-5)
    with pytest.raises(ValueError, match="obs has no"):
        view.observe({"cam": obs["cam"]}, actions)


def test_world_model_takes_frames_as_the_environment_has_them() -> None:
    space = spaces.Dict({"cam": image(16, 16, 3), "pos": spaces.Box(-1, 1, (2,), np.float32)})
    model = DreamerV3("MultiInputPolicy", SpacesEnv(space, spaces.Discrete(3)), model_size="debug", device="cpu")
    view, rng = model.world_model, np.random.default_rng(0)
    frames = rng.integers(0, 256, (2, 5, 16, 16, 3)).astype(np.uint8)
    actions, pos = rng.integers(0, 3, (2, 5)), rng.normal(size=(2, 5, 2))
    states = []
    for cam in (frames, np.moveaxis(frames, -1, 2)):
        model.policy.seed_random_state(0)
        states.append(view.observe({"cam": cam, "pos": pos}, actions))
    np.testing.assert_array_equal(states[0].deter, states[1].deter)
    np.testing.assert_array_equal(states[0].stoch, states[1].stoch)
    for wrong in (frames[:, :, :8], frames[0], frames[:, :4]):
        with pytest.raises(ValueError, match=r"obs 'cam' of shape .*: pass \(2, 5, 3, 16, 16\)"):
            view.observe({"cam": wrong, "pos": pos}, actions)
    with pytest.raises(ValueError, match=r"actions of shape \(5\): pass \(B, T\)"):
        view.observe({"cam": frames, "pos": pos}, actions[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"obs": np.full((2, 5, 3), np.nan)}, "NaN or infinity in observation 'obs'"),
        ({"obs": np.zeros((0, 5, 3)), "actions": np.zeros((0, 5), int)}, "at least one observation"),
        ({"is_first": np.zeros(5, bool)}, r"is_first of shape \(5\): pass \(2, 5\)"),
        ({"state": 1}, r"batch axes \(1,\): pass one of \(2,\)"),
        ({"state": 5}, r"batch axes \(2, 5\): pass one of \(2,\)"),
    ],
)
def test_sequences_that_do_not_fit_are_refused(change, message) -> None:
    model = DreamerV3("MlpPolicy", SpacesEnv(spaces.Box(-1, 1, (3,)), spaces.Discrete(3)), model_size="debug")
    good = {"obs": np.zeros((2, 5, 3)), "actions": np.zeros((2, 5), int)}
    states = model.world_model.observe(**good)
    if "state" in change:
        one, whole = Latents(*(part[:1, 0] for part in states)), states
        change = {"state": one if change["state"] == 1 else whole}
    with pytest.raises(ValueError, match=message):
        model.world_model.observe(**good | change)


def test_dreams_that_do_not_fit_are_refused() -> None:
    model = DreamerV3("MlpPolicy", SpacesEnv(spaces.Box(-1, 1, (3,)), spaces.Discrete(3)), model_size="debug")
    states = model.world_model.observe(np.zeros((2, 5, 3)), np.zeros((2, 5), int))
    with pytest.raises(ValueError, match=r"batch axes \(2, 5\): pass one of \(B,\), such as states\.at"):
        model.world_model.imagine(states)
    with pytest.raises(ValueError, match=r"batch axes \(2,\): pass one of \(3,\)"):
        model.world_model.imagine(states.at(-1), np.zeros((3, 4), int))
    with pytest.raises(ValueError, match="horizon=0 must be an integer from 1"):
        model.world_model.imagine(states.at(-1), horizon=0)
    with pytest.raises(ValueError, match=r"deter \(2, 5\) .* and this model's end in"):
        model.world_model.reward(Latents(states.deter[..., 0], states.stoch))
    _, acting = model.predict(np.zeros((2, 3), np.float32))
    with pytest.raises(TypeError, match=r"Latents\(\*state\[:2\]\)"):
        model.world_model.imagine(acting)
    assert model.world_model.reward(Latents(*acting[:2])).shape == (2,)


def test_a_dict_of_one_key_is_decoded_as_a_dict() -> None:
    space = spaces.Dict({"obs": spaces.Box(-1, 1, (3,), np.float32)})
    model = DreamerV3("MultiInputPolicy", SpacesEnv(space, spaces.Discrete(3)), model_size="debug")
    states = model.world_model.observe({"obs": np.zeros((2, 5, 3))}, np.zeros((2, 5), int))
    assert model.world_model.decode(states)["obs"].shape == (2, 5, 3)


class Deterministic:
    """A latent whose samples are its modes."""

    def __init__(self, latent):
        self.latent = latent

    def __getattr__(self, name):
        return getattr(self.latent, "mode" if name == "sample" else name)


def test_world_model_of_a_box() -> None:
    env = SpacesEnv(spaces.Box(-1, 1, (3,), np.float32), spaces.Box(1.0, 50.0, (2,), np.float32))
    model = DreamerV3("MlpPolicy", env, model_size="debug", buffer_size=100, device="cpu", seed=0)
    actions = np.random.default_rng(0).uniform(1, 50, (1, 4, 2)).astype(np.float32)
    states = model.world_model.observe(np.zeros((1, 4, 3), np.float32), actions)
    _, taken = model.world_model.imagine(states.at(0), actions)
    np.testing.assert_allclose(taken, actions, rtol=1e-4)
    assert model.world_model.decode(states).shape == (1, 4, 3)
