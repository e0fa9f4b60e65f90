"""The loader is strict, and every entry of every file makes a model."""

from pathlib import Path

import pytest
import yaml
from sb3_dreamer.zoo import hyperparams
from sb3_dreamer.zoo.algorithms import ALGORITHMS, algorithm_class
from sb3_dreamer.zoo.arguments import parse_value, write_value
from sb3_dreamer.zoo.errors import UsageError
from sb3_dreamer.zoo.hyperparams import find_entry, load_file, suite_files
from sb3_dreamer.zoo.values import check_values, to_constructor

from sb3_dreamer import DreamerV3

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
        ("A-v0: {policy_kwargs: dict(units=3)}", "policy_kwargs='dict(units=3)' must be a mapping"),
        ("A-v0: [1]", "entry 'A-v0' must be a mapping"),
        ("- 1", "must hold a mapping"),
        ("A-v0: {gamma: 1", "not plain YAML"),
        ("A-v0: {gamma: 0.9, gamma: 0.8}", "'gamma' is given twice"),
        ("A-v0: {}\nA-v0: {}", "'A-v0' is given twice"),
        ("A-v0: {gamma: !!python/object/apply:os.getcwd []}", "not plain YAML"),
        ("run_defaults: {eval_fre: 3}", "unknown run default eval_fre=3"),
    ],
)
def test_a_bad_file_is_refused_with_the_value(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_file(write(tmp_path, text), "dreamerv3")
    assert message in str(caught.value) and "own.yml" in str(caught.value) and "\n" not in str(caught.value)


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
        ("-1", -1),
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


def test_names_resolve() -> None:
    pixels = find_entry("dreamerv3", "CartPole-pixels")
    assert pixels.env == "CartPole-v1" and pixels.run_name == "CartPole-pixels" and pixels.suite == "classic"
    other = find_entry("dreamerv3", "FrozenLake-v1")
    assert other.suite == "other" and other.env == "FrozenLake-v1" and "paper" in other.note
    with pytest.raises(UsageError, match="did you mean 'dreamerv3'"):
        find_entry("dreamer3", "CartPole-v1")
    with pytest.raises(UsageError, match="empty"):
        find_entry("dreamerv3", "")


def entries_of_files() -> list[tuple[str, str, str]]:
    """Algorithm, suite and task of everything that a file has an entry for (an anchor alone is none)."""
    found = []
    for algo, path in FILES:
        tasks = [task for task in load_file(path, algo)[0] if task != "default"]
        found += [(algo, path.stem, task) for task in tasks]
    return found


@pytest.mark.parametrize(("algo", "suite", "task"), entries_of_files())
def test_every_entry_makes_a_model(algo: str, suite: str, task: str, tmp_path: Path) -> None:
    from sb3_dreamer.zoo import building
    from sb3_dreamer.zoo.plan import make_plan
    from sb3_dreamer.zoo.training_arguments import make_parser

    name = f"{suite}:{task}" if suite in hyperparams.SUITES else task
    words = ["--algo", algo, "--env", name, "--seed", "0", "-params", "model_size:debug"]
    plan, _ = make_plan(make_parser().parse_args(words))
    env = building.make_training_env(plan, "dummy")
    model = building.make_model(plan, env, "cpu")
    assert isinstance(model, algorithm_class(algo))
    assert model.predict(env.reset())[0].shape == (env.num_envs, *env.action_space.shape)
    env.close()
