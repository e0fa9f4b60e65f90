"""Stable-Baselines3's own tests, with our algorithms in the place of SAC and DQN.

    python tests/sb3_plugin.py --tests PATH/TO/stable-baselines3/tests --algo DreamerV3 --out result.json

The test files come from the repository of the installed Stable-Baselines3 (https://github.com/DLR-RM/stable-baselines3,
folder ``tests``, tag of the version); nothing of them is copied here. Arguments that belong to SAC or DQN alone, such
as the number of critics or a feature extractor's, are dropped: those are other algorithms' networks.
"""

import argparse
import inspect
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

FILES = (
    *("save_load", "callbacks", "predict", "cnn", "dict_env", "spaces", "deterministic", "logger", "vec_normalize"),
    *("custom_policy", "tensorboard", "run"),
)
#: policy_kwargs of SB3's networks
FOREIGN = {
    *("features_extractor_class", "features_extractor_kwargs", "share_features_extractor", "n_critics", "qf"),
    *("optimizer_class", "optimizer_kwargs", "activation_fn", "log_std_init", "use_expln", "clip_mean"),
    "normalize_images",
}
CHANGES = {"batch_length": 4, "train_ratio": 1}  # a sequence is there after three steps; few updates: tests are long
OURS: list[type] = []


def stand_in(algorithm: type, settings: dict[str, Any], name: str) -> type:
    """A subclass of the smallest size that takes the arguments SB3's tests give."""
    known = inspect.signature(algorithm.__init__).parameters

    class StandIn(algorithm):  # type: ignore[misc, valid-type]
        def __init__(self, policy: Any, env: Any, *args: Any, **kwargs: Any):
            given = {**settings, **{key: value for key, value in kwargs.items() if key in known}}
            networks = {key: value for key, value in (given.get("policy_kwargs") or {}).items() if key not in FOREIGN}
            if not isinstance(networks.get("net_arch"), list):
                networks.pop("net_arch", None)
            given["policy_kwargs"] = networks or None
            super().__init__(policy, env, *args, **given)

    StandIn.__name__ = StandIn.__qualname__ = name
    return StandIn


def pytest_configure(config: pytest.Config) -> None:
    """Put the stand-ins where the test files import SAC and DQN from."""
    import stable_baselines3
    import torch as th
    from algorithms import TINY  # beside this file; the package ``tests`` is that of Stable-Baselines3 here

    import sb3_dreamer

    th.set_num_threads(1)
    algorithm = getattr(sb3_dreamer, os.environ.get("SB3_TESTS_ALGO", "DreamerV3"))
    settings = {key: value for key, value in TINY[algorithm].items() if key not in ("learning_starts", "buffer_size")}
    settings |= CHANGES if "train_ratio" in settings else {"batch_length": CHANGES["batch_length"]}
    for name, role in (("SAC", "Box"), ("DQN", "Discrete")):
        OURS.append(stand_in(algorithm, settings, algorithm.__name__ + role))
        setattr(stable_baselines3, name, OURS[-1])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep what runs on our classes."""
    items[:] = [
        item
        for item in items
        if any(
            isinstance(value, type) and value in OURS
            for value in getattr(getattr(item, "callspec", None), "params", {}).values()
        )
    ]


class Results:
    """Outcome of every test."""

    def __init__(self) -> None:
        self.outcomes: dict[str, list[str]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note the outcome; the reason of a failure in one line."""
        if report.when == "call" or report.outcome != "passed":
            crash = getattr(report.longrepr, "reprcrash", None)
            reason = crash.message.splitlines()[0] if crash is not None else ""
            if isinstance(report.longrepr, tuple):
                reason = report.longrepr[2]
            self.outcomes[report.nodeid.split("/")[-1]] = [report.outcome, reason[:300]]


def main(words: Sequence[str] | None = None) -> int:
    """Run the tests and write what came out.

    :return: number of failures
    """
    import stable_baselines3

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tests", type=Path, required=True, help="the folder tests of Stable-Baselines3's repository")
    parser.add_argument("--algo", default="DreamerV3")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--files", nargs="*", default=FILES, help="test files, without test_ and .py")
    parser.add_argument("-k", default="", help="as pytest's -k")
    args = parser.parse_args(words)
    os.environ["SB3_TESTS_ALGO"] = args.algo
    results = Results()
    options = ["-q", "-p", "no:cacheprovider", "-p", "sb3_plugin", "-o", "addopts=", "-k", args.k, "--noconftest"]
    options += ["--timeout=1800", "--tb=line", "--disable-warnings", "--import-mode=prepend"]
    with tempfile.TemporaryDirectory() as root:
        # Beside the tests lies the source of Stable-Baselines3; it is the installed one that is tested.
        (Path(root) / "tests").symlink_to(args.tests.resolve(), target_is_directory=True)
        paths = [str(Path(root) / "tests" / f"test_{name}.py") for name in args.files]
        pytest.main([*options, f"--rootdir={root}", *paths], plugins=[results])
    counts: dict[str, int] = {}
    for outcome, _ in results.outcomes.values():
        counts[outcome] = counts.get(outcome, 0) + 1
    if args.out is not None:
        versions = {"stable_baselines3": stable_baselines3.__version__}
        tests = dict(sorted(results.outcomes.items()))
        summary = {"algorithm": args.algo, **versions, "counts": counts, "tests": tests}
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    print(args.algo, counts)
    return counts.get("failed", 0)


if __name__ == "__main__":
    sys.exit(min(1, main()))
