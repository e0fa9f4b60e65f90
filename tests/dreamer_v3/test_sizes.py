"""Sizes: which one `auto` is, in files too; the 2023 stacks for vectors (5 layers of 1024 at every released size)."""

import warnings

import pytest
import torch as th

from sb3_dreamer import DreamerV3
from sb3_dreamer.dreamer_v3.dreamer_v3 import default_arguments
from sb3_dreamer.dreamer_v3.policies import MlpPolicy, stack_widths
from sb3_dreamer.dreamer_v3.spec import SIZES_2023, resolve_spec
from sb3_dreamer.zoo.studies import sizes

SMALL = {"deter": 16, "cnn_depth": 2, "stoch": 4, "classes": 4, "bins": 15}
SETTINGS = {"batch_size": 2, "batch_length": 4, "buffer_size": 200, "device": "cpu", "seed": 0}
CODECS = ("world_model.encoder.mlp", "world_model.decoder.mlp")


def test_released_and_own_sizes() -> None:
    """Size S with 24 entries: 18.7M parameters there, from the layers of its code."""
    for name, spec in SIZES_2023.items():
        assert spec.codec_mlp == ((1024,) * 5 if name in ("XS", "S", "M", "L", "XL") else spec.mlp), name
    assert sizes.count("S", vector=24, actions=6, discrete=False) == layers_2023(512, 512, 2, vector=24, actions=6)
    assert sizes.count("S", vector=24, actions=6, discrete=False) == pytest.approx(18.7e6, abs=5e4)


def layers_2023(deter: int, units: int, layers: int, *, vector: int, actions: int) -> int:
    """Parameters of the 2023 code for vectors and Box actions, layer by layer."""
    stoch, bins, codec = 32 * 32, 255, 1024

    def hidden(inputs: int, width: int) -> int:  # no bias, and a norm with scale and shift
        return inputs * width + 2 * width

    def stack(inputs: int, width: int, count: int) -> int:
        return hidden(inputs, width) + (count - 1) * hidden(width, width)

    def dense(inputs: int, outputs: int) -> int:
        return inputs * outputs + outputs

    feat = deter + stoch
    total = stack(vector, codec, 5) + stack(feat, codec, 5) + dense(codec, vector)
    total += deter + hidden(stoch + actions, units) + hidden(deter + units, 3 * deter)
    total += hidden(deter, units) + dense(units, stoch) + hidden(deter + codec, units) + dense(units, stoch)
    outs = (bins, 1, bins, 2 * actions)  # reward, continue, critic, actor
    return total + sum(stack(feat, units, layers) + dense(units, out) for out in outs)


def test_widths_for_all_stacks_hold_for_vectors_too() -> None:
    assert resolve_spec("S", (), {"units": 64}).codec_mlp == (64, 64)
    assert resolve_spec("S", (), {"net_arch": [32]}).codec_mlp == (32,)
    assert resolve_spec("S", (), {"net_arch": [32], "codec_units": (16, 16)}).codec_mlp == (16, 16)
    assert resolve_spec("XXS", (), {"codec_units": (8,)}).codec_mlp == (8,)
    assert resolve_spec("S", (), {"deter": 64}).codec_mlp == (1024,) * 5


@pytest.mark.parametrize("what", ["model", "policy"])
def test_files_of_earlier_versions_have_the_former_widths(what: str, tmp_path) -> None:
    """They name a size and the fields that were replaced, and say nothing of this one."""
    old = DreamerV3(
        "MlpPolicy", "Pendulum-v1", model_size="XS", policy_kwargs=SMALL | {"codec_units": None}, **SETTINGS
    )
    for holder in (old.policy_kwargs, old.policy.spec_overrides):
        holder.pop("codec_units", None)  # as 0.1 wrote it
    saved = old if what == "model" else old.policy
    saved.save(tmp_path / "old.zip")
    loaded = type(saved).load(tmp_path / "old.zip")
    policy = loaded.policy if what == "model" else loaded
    assert policy.spec.codec_mlp == (256,)
    th.testing.assert_close(policy.state_dict(), old.policy.state_dict(), rtol=0, atol=0)
    loaded.save(tmp_path / "again.zip")
    again = type(saved).load(tmp_path / "again.zip")
    assert (again.policy if what == "model" else again).spec == policy.spec


def test_files_of_today_are_read_as_they_are(tmp_path) -> None:
    model = DreamerV3("MlpPolicy", "Pendulum-v1", model_size="XS", policy_kwargs=SMALL, **SETTINGS)
    weights = model.policy.state_dict()
    assert all(stack_widths(weights, stack) == (1024,) * 5 for stack in CODECS)
    model.save(tmp_path / "model.zip")
    assert DreamerV3.load(tmp_path / "model.zip").policy_kwargs == SMALL
    assert MlpPolicy.former_defaults({}, "XS", weights) == {}


def test_auto_in_a_file_is_what_it_was_then() -> None:
    stacks = {f"world_model.{part}.mlp.linears.0.weight": th.zeros(512, 3) for part in ("encoder", "reward_head")}
    assert MlpPolicy.former_defaults({}, "auto", stacks) == {"model_size": "XXS"}
    image = {"world_model.encoder.cnns.64x64.convs.0.weight": th.zeros(1)}
    assert MlpPolicy.former_defaults({}, "auto", stacks | image) == {"model_size": "S", "codec_units": None}
    assert MlpPolicy.former_defaults({"units": 512}, "auto", stacks | image) == {"model_size": "S"}


def test_a_file_with_auto_loads(tmp_path) -> None:
    model = DreamerV3("MlpPolicy", "CartPole-v1", model_size="XXS", batch_length=8)
    model.model_size = "auto"  # as files had it up to now
    model.save(tmp_path / "model.zip")
    loaded = DreamerV3.load(tmp_path / "model.zip")
    assert loaded.model_size == "XXS" and loaded.learning_rate == 1e-4


RECIPE = ("batch_size", "batch_length", "train_ratio", "ent_coef", "warmup_updates")


def test_auto_is_stored_by_name(tmp_path) -> None:
    model = DreamerV3("MlpPolicy", "CartPole-v1")
    assert model.model_size == "100k"
    model.policy.save(tmp_path / "policy.zip")
    assert MlpPolicy.load(tmp_path / "policy.zip").size_name == "100k"


@pytest.mark.parametrize(
    "size, values",
    [
        ("100k", (32, 16, 128, 3e-3, 50)),
        ("debug2024", (16, 64, 512, 3e-4, 1000)),
        ("debug", (16, 64, 512, 3e-4, 1000)),
    ],
)
def test_defaults_that_depend_on_the_size(size: str, values: tuple[int, ...]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # none of them was passed, so none of them is "unused"
        model = DreamerV3("MlpPolicy", "CartPole-v1", model_size=size)
    assert tuple(getattr(model, name) for name in RECIPE) == values
    assert model.learning_rate is default_arguments(size)["learning_rate"]


def test_what_is_passed_stays(tmp_path) -> None:
    given = {"batch_size": 8, "batch_length": 8, "train_ratio": 64, "ent_coef": 0.0, "warmup_updates": 0}
    given |= {"learning_rate": 2e-4}
    model = DreamerV3("MlpPolicy", "CartPole-v1", **given)
    model.save(tmp_path / "model.zip")
    loaded = DreamerV3.load(tmp_path / "model.zip")
    assert all(getattr(one, name) == value for one in (model, loaded) for name, value in given.items())
    for name in RECIPE:
        with pytest.raises(ValueError, match=f"{name}=-1"):
            DreamerV3("MlpPolicy", "CartPole-v1", **{name: -1})


def test_the_falling_default_is_stored(tmp_path) -> None:
    model = DreamerV3("MlpPolicy", "CartPole-v1")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a file that cannot hold a schedule says so
        model.save(tmp_path / "model.zip")
        loaded = DreamerV3.load(tmp_path / "model.zip")
    assert [loaded.lr_schedule(left) for left in (1.0, 0.25, 0.0)] == pytest.approx([1e-3, 2.5e-4, 0.0])
    model.learning_rate = 1e-3  # as files had it up to now
    model.save(tmp_path / "former.zip")
    assert DreamerV3.load(tmp_path / "former.zip").learning_rate == 1e-3


def test_auto_at_load_keeps_the_size_of_the_file(tmp_path) -> None:
    model = DreamerV3("MlpPolicy", "CartPole-v1", batch_length=8)
    model.save(tmp_path / "model.zip")
    assert DreamerV3.load(tmp_path / "model.zip", model_size="auto").model_size == "100k"


def test_arguments_of_the_other_version_or_of_a_part_that_is_off_are_named() -> None:
    with pytest.warns(UserWarning, match=r"no effect: actor_learning_rate=0\.5, max_grad_norm=1\.0\. .*'100k'.*2024"):
        DreamerV3("MlpPolicy", "CartPole-v1", actor_learning_rate=0.5, max_grad_norm=1.0)
    with pytest.warns(UserWarning, match=r"no effect: warmup_updates=5\. .*'debug'.*2023"):
        DreamerV3("MlpPolicy", "CartPole-v1", model_size="debug", warmup_updates=5)
    with pytest.warns(UserWarning, match=r"no effect: context_dtype='float32'\. Remove it, or set replay_context=True"):
        DreamerV3("MlpPolicy", "CartPole-v1", model_size="debug", context_dtype="float32")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        DreamerV3("MlpPolicy", "CartPole-v1", warmup_updates=5, context_dtype="float32")
        DreamerV3("MlpPolicy", "CartPole-v1", model_size="debug", actor_learning_rate=0.5)


def test_names_of_sizes() -> None:
    with pytest.raises(ValueError, match="did you mean '100k'"):
        DreamerV3("MlpPolicy", "CartPole-v1", model_size="100K")
    with pytest.raises(ValueError, match="did you mean 'XXS'"):
        DreamerV3("MlpPolicy", "CartPole-v1", model_size="xxs")
    with pytest.raises(ValueError, match="pass it to DreamerV3 itself"):
        DreamerV3("MlpPolicy", "CartPole-v1", policy_kwargs={"model_size": "XXS"})
    with pytest.raises(ValueError, match=r"gamma=0\.9: pass it to DreamerV3 itself"):
        DreamerV3("MlpPolicy", "CartPole-v1", policy_kwargs={"gamma": 0.9})
