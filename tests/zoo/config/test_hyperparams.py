"""The loader is strict, and every entry of every file makes a model."""

import time
from pathlib import Path

import pytest
import yaml

from sb3_dreamer import DreamerV3
from sb3_dreamer.zoo.config import hyperparams
from sb3_dreamer.zoo.config.algorithms import ALGORITHMS, algorithm_class
from sb3_dreamer.zoo.config.arguments import parse_value, write_value
from sb3_dreamer.zoo.config.errors import UsageError
from sb3_dreamer.zoo.config.hyperparams import find_entry, load_file, suite_files
from sb3_dreamer.zoo.config.values import check_values, to_constructor
from sb3_dreamer.zoo.config.yaml_files import read_yaml, write_yaml

FILES = [(algo, path) for algo in ALGORITHMS for path in suite_files(algo).values()]


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "own.yml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A-v0: {train_ration: 32}", "unknown hyperparameter train_ration=32 (did you mean 'train_ratio'?)"),
        ("A-v0: {train_ratio: many}", "train_ratio='many' must be a number"),
        ("A-v0: {batch_size: 1.5}", "batch_size=1.5 must be a whole number"),
        ("A-v0: {batch_size: true}", "batch_size=True must be a whole number"),
        ("A-v0: {n_timesteps: 0}", "n_timesteps=0 must be at least 1"),
        ("A-v0: {seed: 3}", "seed has a flag of its own: use --seed"),
        ("A-v0: {normalize: true}", "normalize=True is not supported"),
        ("A-v0: {clip_range: 0.2}", "clip_range=0.2 is not supported: updates are not clipped"),
        ("A-v0: {policy_kwargs: dict units=3}", "policy_kwargs='dict units=3' must be a mapping"),
        ("A-v0: [1]", "entry 'A-v0' must be a mapping"),
        ("- 1", "must hold a mapping"),
        ("A-v0: {gamma: 1", "not plain YAML"),
        ("A-v0: {gamma: 0.9, gamma: 0.8}", "'gamma' appears twice"),
        ("A-v0: {}\nA-v0: {}", "'A-v0' appears twice"),
        ("A-v0: {gamma: !!python/object/apply:os.getcwd []}", "not plain YAML"),
        ("run_defaults: {eval_fre: 3}", "unknown run default eval_fre=3"),
        ("run_defaults: {eval_freq: 0}", "eval_freq=0 must be at least 1, or -1 for none"),
        ("run_defaults: 3", "must be a mapping of eval_freq"),
        ("run_defaults: {stop_at_return: 100}", "stop_at_return=100 must be a mapping of tasks to returns"),
        ("run_defaults: {eval_episodes: -1}", "eval_episodes=-1 must be at least 1"),
        ("A-v0: {gamma: 2020-13-45}", "not plain YAML"),
        ("A-v0: &a {gamma: *a}", "a value contains itself"),
        ("A-v0: {gamma: " + "[" * 5000 + "]" * 5000 + "}", "nested too deeply"),
        ("A-v0: {gamma: [" + "1, " * 90_000 + "1]}", "must be a number"),
        ("A-v0: {callback: x}", "use the flags --eval-freq and --save-freq"),
        ("A-v0: {monitor_kwargs: {}}", "every environment is monitored"),
    ],
)
def test_a_bad_file_is_refused_with_the_value(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_file(write(tmp_path, text), "dreamerv3")
    assert message in str(caught.value) and "own.yml" in str(caught.value) and "\n" not in str(caught.value)


def test_an_alias_bomb_is_refused_at_once(tmp_path: Path) -> None:
    """600 bytes stand for 9^8 values; the message alone would take minutes."""
    lists = [f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]" for i in range(1, 9)]
    text = "\n".join(["l0: &l0 [1, 1, 1, 1, 1, 1, 1, 1, 1]", *lists, "A-v0: {gamma: *l8}"])
    start = time.process_time()
    with pytest.raises(UsageError, match="more than 100,000 values") as caught:
        load_file(write(tmp_path, text), "dreamerv3")
    assert time.process_time() - start < 5 and len(str(caught.value)) < 500


def test_a_long_value_is_cut_in_the_message(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load_file(write(tmp_path, "A-v0: {gamma: [" + "1, " * 9_000 + "1]}"), "dreamerv3")
    assert len(str(caught.value)) < 300


def test_an_ordered_mapping_of_rl_zoo3_is_read_without_code(tmp_path: Path) -> None:
    tag = "!!python/object/apply:collections.OrderedDict"
    path = write(tmp_path, f"{tag}\n- - - gamma\n    - 0.9\n  - - policy\n    - MlpPolicy\n")
    assert read_yaml(path) == {"gamma": 0.9, "policy": "MlpPolicy"}
    for bad in (f"{tag} [1]", f"{tag} [[[1]]]", f"{tag} []", tag):
        with pytest.raises(UsageError, match="not plain YAML"):
            read_yaml(write(tmp_path, bad))


def test_mappings_may_be_written_as_in_rl_zoo3(tmp_path: Path) -> None:
    path = tmp_path / "own.yml"
    path.write_text("A-v0: {policy_kwargs: 'dict(units=16)'}")
    assert load_file(path, "dreamerv3")[0] == {"A-v0": {"policy_kwargs": {"units": 16}}}
    path.write_text("A-v0: {policy_kwargs: 'dict(activation_fn=nn.ReLU)'}")
    with pytest.raises(UsageError, match="policy_kwargs: cannot read 'dict"):
        load_file(path, "dreamerv3")


def test_inheritance_overrides_and_nests(tmp_path: Path) -> None:
    text = """
a: &a {gamma: 0.9, horizon: 5, learning_rate: 1e-3}
b: &b {<<: *a, horizon: 6}
c: {<<: *b, gamma: 0.8}
"""
    entries, _ = load_file(write(tmp_path, text), "dreamerv3")
    assert entries["c"] == {"gamma": 0.8, "horizon": 6, "learning_rate": 0.001}


def test_numbers_are_converted_to_what_the_constructor_declares() -> None:
    values = {"buffer_size": 1e5, "train_ratio": 32, "learning_rate": "lin_0.01", "train_freq": [2, "episode"]}
    checked = check_values(values, DreamerV3, "test")
    assert checked["buffer_size"] == 100_000 and isinstance(checked["buffer_size"], int)
    assert isinstance(checked["train_ratio"], float)
    made = to_constructor(checked, DreamerV3)
    assert made["train_freq"] == (2, "episode")
    assert made["learning_rate"](1.0) == pytest.approx(0.01) and made["learning_rate"](0.0) == 0.0
    with pytest.raises(UsageError, match="schedule"):
        check_values({"learning_rate": "linear"}, DreamerV3, "test")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001), ("S", "S"), ("[64, 64]", [64, 64]), ("None", None), ("false", False), ("True", True),
        ("-1", -1), ("12m", "12m"), ("'1e5'", "1e5"), ("'true'", "true"),
        ("dict(units=64, mlp=[1, 2])", {"units": 64, "mlp": [1, 2]}), ("{'a': (1, 2)}", {"a": (1, 2)}), ("'7'", "7"),
    ],
)  # fmt: skip
def test_values_of_the_command_line(text: str, value: object) -> None:
    assert parse_value(text, "x") == value
    assert parse_value(write_value(value), "x") == value


@pytest.mark.parametrize(
    "text",
    ["__import__('os').getcwd()", "dict(a=open('x'))", "(lambda: 1)()", "dict(**{'a': 1})", "1 +", "f'{1}'", ";"],
)
def test_code_on_the_command_line_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        parse_value(text, "x")


@pytest.mark.parametrize(("algo", "path"), FILES, ids=[f"{algo}-{path.stem}" for algo, path in FILES])
def test_files_read_the_same_as_plain_yaml_and_name_their_sources(algo: str, path: Path) -> None:
    """rl_zoo3 reads the files with PyYAML's safe loader; every value has a comment that says where it is from."""
    plain = yaml.safe_load(path.read_text())
    plain.pop("run_defaults", None)
    entries, _ = load_file(path, algo)
    assert entries == plain
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.startswith("  ") and ":" in line and "<<" not in line and not line.strip().startswith("#"):
            assert line.partition(" # ")[2].strip(), f"{path.name}:{number} does not say where its value is from"


def test_texts_that_look_like_numbers_survive_a_config(tmp_path: Path) -> None:
    content = {"hash": "0e3f6a5a08f4", "other": "12e4", "number": 12e4, "rate": 1e-5, "text": "1.5", "nothing": None}
    write_yaml(tmp_path / "config.yml", content)
    assert read_yaml(tmp_path / "config.yml") == content


def test_names_resolve() -> None:
    pixels = find_entry("dreamerv3", "PixelCatch")
    assert pixels.env == "sb3_dreamer.wrappers.benchmarks.pixel_catch:PixelCatch-v0"
    assert pixels.run_name == "PixelCatch" and pixels.suite == "classic"
    short = find_entry("dreamerv3", "CartPole")
    assert (short.env, short.suite) == ("CartPole-v1", "classic") and "resolved to CartPole-v1" in short.note
    other = find_entry("dreamerv3", "FrozenLake-v1")
    assert other.suite == "other" and other.env == "FrozenLake-v1" and "no tuned values" in other.note
    with pytest.raises(UsageError, match="did you mean 'dreamerv3'"):
        find_entry("dreamer3", "CartPole-v1")
    with pytest.raises(UsageError, match="empty"):
        find_entry("dreamerv3", "")


def entries_of_files() -> list[tuple[str, str, str]]:
    """Algorithm, suite and task of every entry; the default of a suite stands for its first task."""
    found = []
    for algo, path in FILES:
        for task in load_file(path, algo)[0]:
            if task != "default":
                found.append((algo, path.stem, task))
            elif path.stem in hyperparams.SUITES and path.stem != "planet":
                found.append((algo, path.stem, hyperparams.SUITES[path.stem].tasks[0]))
            elif path.stem == "other":
                found.append((algo, path.stem, "FrozenLake-v1"))
    return found


@pytest.mark.parametrize(
    "given, expected",
    [
        ("batch_size:8", ["batch_size auto -> 8"]),
        ("batch_size:8 model_size:1m", ["batch_size 16 -> 8", "model_size auto -> 1m"]),
        ("train_ratio:32 model_size:100k", ["train_ratio 128 -> 32", "model_size auto -> 100k"]),
        ("model_size:1m batch_length:64", ["model_size auto -> 1m"]),
    ],
)
def test_notes_on_defaults_that_depend_on_the_size(given: str, expected: list[str]) -> None:
    from sb3_dreamer.zoo.config.plan import make_plan
    from sb3_dreamer.zoo.programs.train import make_parser

    words = ["--algo", "dreamerv3", "--env", "MountainCarContinuous-v0", "-params", *given.split()]
    assert make_plan(make_parser().parse_args(words), {})[1][-len(expected) :] == expected


def construct(algo: str, suite: str, task: str) -> None:
    """Make environment and model of an entry at the smallest size, and act once."""
    from sb3_dreamer.zoo.config import building
    from sb3_dreamer.zoo.config.plan import make_plan
    from sb3_dreamer.zoo.programs.train import make_parser

    name = f"{suite}:{task}" if suite in hyperparams.SUITES else task
    words = ["--algo", algo, "--env", name, "--seed", "0", "-params", "model_size:debug", "n_envs:1"]
    plan, _ = make_plan(make_parser().parse_args(words), {})
    try:
        env = building.make_training_env(plan, "dummy")
    except UsageError as error:
        if any(part in str(error) for part in ("To install it", "pip install", "urlopen error")):  # bsuite's MNIST
            pytest.skip(str(error))
        raise
    model = building.make_model(plan, env, "cpu")
    assert isinstance(model, algorithm_class(algo))
    if algo == "planet":
        assert model.policy.world_model is not None  # acting would plan for seconds
    else:
        assert model.predict(env.reset())[0].shape == (env.num_envs, *env.action_space.shape)
    env.close()


@pytest.mark.parametrize(("algo", "suite", "task"), entries_of_files())
def test_every_entry_makes_a_model(algo: str, suite: str, task: str) -> None:
    construct(algo, suite, task)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algo", "suite"), [(algo, path.stem) for algo, path in FILES if path.stem in hyperparams.SUITES]
)
def test_every_task_of_a_suite_makes_a_model(algo: str, suite: str) -> None:
    for task in sorted(hyperparams.SUITES[suite].tasks, key=lambda task: "mnist" in task):  # needs a download: last
        construct(algo, suite, task)


def test_suite_names_resolve_by_the_algorithm() -> None:
    pong = find_entry("dreamerv2", "Pong")
    assert (pong.env, pong.run_name, pong.values["preset"]) == ("atari:pong", "atari-pong", "dreamerv2")
    walker = find_entry("dreamerv3", "walker_walk")
    assert walker.env == "dmc_vision:walker_walk" and "also: dmc_proprio:walker_walk" in walker.note
    assert find_entry("planet", "walker_walk").env == "planet:walker_walk"
    assert find_entry("planet", "cup_catch").values["n_timesteps"] == 250_000
    assert find_entry("dreamerv3", "atari100k:MsPacman").env == "atari100k:ms_pacman"


@pytest.mark.parametrize("suite", ["atari", "atari100k", "dmc_vision", "dmc_proprio", "crafter"])
def test_steps_and_frames_are_those_of_the_paper(suite: str) -> None:
    """Environment frames of arXiv 2301.04104v1, Table A.1, are agent steps times the preset's action repeat."""
    from sb3_dreamer.wrappers.benchmarks.presets import PRESETS

    frames = {"atari": 200e6, "atari100k": 400e3, "dmc_vision": 1e6, "dmc_proprio": 500e3, "crafter": 1e6}[suite]
    values = find_entry("dreamerv3", f"{suite}:{hyperparams.SUITES[suite].tasks[0]}").values
    assert values["n_timesteps"] * PRESETS[suite][values["preset"]].action_repeat == frames


def test_released_dreamerv2_values_are_the_class_presets() -> None:
    from sb3_dreamer import DreamerV2

    for suite, preset in (("atari", "atari"), ("dmc_vision", "dmc"), ("crafter", "crafter")):
        values = find_entry("dreamerv2", f"{suite}:{hyperparams.SUITES[suite].tasks[0]}").values
        for name, value in DreamerV2.presets[preset].items():
            if name != "buffer_size":  # the class's default
                assert values[name] == value, f"{suite}: {name}"
