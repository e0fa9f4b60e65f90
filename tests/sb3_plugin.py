"""Stable-Baselines3's own tests, with our algorithms in the place of SAC and DQN.

    python tests/sb3_plugin.py --tests PATH/TO/stable-baselines3/tests --algo DreamerV3 --out result.json

The test files come from the source package of the installed Stable-Baselines3 (see docs/sb3_tests.md); nothing of them
is copied here. What a test passes to SAC or DQN goes to our class as it is. Arguments that our class does not take are
dropped, and a test that passes only without them counts as adapted. A test whose subject is such an argument, or that
trains too little for any update, counts as not applicable.
"""

import argparse
import inspect
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import stable_baselines3
import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm

import sb3_dreamer
from sb3_dreamer.common.spec import OF_SB3

FILES = (
    *("save_load", "callbacks", "predict", "cnn", "dict_env", "spaces", "deterministic", "logger", "vec_normalize"),
    *("custom_policy", "tensorboard", "run"),
)
ROLES = ("SAC", "DQN")  #: classes that are replaced; the names stay, they are in the tests' names and in log folders
#: defaults of the stand-ins: SAC's and DQN's learning_starts, DQN's update every 4 steps, sequences that soon are there
DEFAULTS = {"learning_starts": 100, "batch_length": 4, "train_ratio": 2}
SMALLEST_BUFFER = 16  #: rows; SAC accepts buffer_size=1, which holds no sequence
#: tests, by the start of their name, that are about an argument that our classes do not take
SUBJECTS = {
    "test_custom_optimizer": "optimizer_class",
    "test_dqn_custom_policy": "optimizer_class",
    "test_n_critics": "n_critics",
    "test_sde_multi_dim": "use_sde",
    "test_features_extractor_target_net": "features_extractor_kwargs",
    "test_sac[auto": "ent_coef='auto'",
    "test_eval_success_logging": "HerReplayBuffer",
    "test_her_normalization": "HerReplayBuffer",
    "test_warn_dqn_multi_env": "target_update_interval",
    "test_dqn_target_update_interval": "target_update_interval",
}
OUTCOMES = ("passed", "adapted", "failed", "not applicable")


@dataclass
class Seen:
    """What the stand-ins saw during one test.

    :ivar models: number of models that were built
    :ivar dropped: arguments that were not passed on
    :ivar trained: calls of learn(), as (steps asked for, learning_starts)
    :ivar updates: over all calls of learn()
    """

    models: int = 0
    dropped: set[str] = field(default_factory=set)
    trained: list[tuple[int, int]] = field(default_factory=list)
    updates: int = 0

    def nothing_tested(self) -> str:
        """Why a test that passed says nothing, or an empty text."""
        if not self.models:
            return "ends before it builds a model"
        if self.trained and not self.updates and all(steps <= starts for steps, starts in self.trained):
            return "no update: " + ", ".join(
                f"{n} steps with learning_starts={s}" for n, s in dict(self.trained).items()
            )
        return ""


class Plugin:
    """A pytest plugin that puts stand-ins where the test files import SAC and DQN from, and notes what comes out.

    :param algorithm: the class to test
    """

    def __init__(self, algorithm: type):
        from algorithms import TINY  # beside this file; the package ``tests`` is that of Stable-Baselines3 here

        self.seen = Seen()
        self.tests: dict[str, dict[str, Any]] = {}
        changed = {name: value for name, value in DEFAULTS.items() if name in TINY[algorithm] or name != "train_ratio"}
        settings = {name: value for name, value in TINY[algorithm].items() if name != "buffer_size"} | changed
        self.ours = [self._stand_in(algorithm, settings, name) for name in ROLES]
        for name, stand_in in zip(ROLES, self.ours, strict=True):
            setattr(stable_baselines3, name, stand_in)

    def _stand_in(self, algorithm: Any, settings: dict[str, Any], name: str) -> type:
        """A subclass with other defaults that drops, and notes, the arguments it does not take."""
        plugin, known = self, inspect.signature(algorithm.__init__).parameters

        class StandIn(algorithm):
            def __init__(self, policy: Any, env: Any, *args: Any, **kwargs: Any):
                plugin.seen.models += 1
                given = {key: value for key, value in kwargs.items() if key in known}
                if given.get("buffer_size", SMALLEST_BUFFER) < SMALLEST_BUFFER:
                    del given["buffer_size"]
                if given.get("policy_kwargs"):
                    ours = {key: value for key, value in given["policy_kwargs"].items() if key not in OF_SB3}
                    plugin.seen.dropped |= set(given["policy_kwargs"]) - set(ours)
                    given["policy_kwargs"] = ours or None
                plugin.seen.dropped |= set(kwargs) - set(given)
                super().__init__(policy, env, *args, **{**settings, **given})

            def learn(self, total_timesteps: int, *args: Any, **kwargs: Any) -> Any:
                plugin.seen.trained.append((total_timesteps, self.learning_starts))
                before = self._n_updates
                try:
                    return super().learn(total_timesteps, *args, **kwargs)
                finally:
                    plugin.seen.updates += self._n_updates - before

        StandIn.__name__ = StandIn.__qualname__ = name
        return StandIn

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Keep what runs on our classes, and skip what is about an argument that they do not take."""
        items[:] = [item for item in items if self._runs_on_ours(item)]
        for item in items:
            for start, argument in SUBJECTS.items():
                if item.name.startswith(start):
                    item.add_marker(pytest.mark.skip(reason=f"the test is about {argument}"))

    def _runs_on_ours(self, item: Any) -> bool:
        values = list(getattr(getattr(item, "callspec", None), "params", {}).values())
        classes = [value for value in values if isinstance(value, type) and issubclass(value, BaseAlgorithm)]
        if classes:
            return any(value in self.ours for value in classes)
        by_name = any(isinstance(value, str) and value == "sac" for value in values)
        return by_name or not set(ROLES).isdisjoint(item.function.__code__.co_names)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Forget the test before."""
        self.seen = Seen()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note the outcome; the reason in one line."""
        if report.when != "call" and report.outcome == "passed":
            return
        seen, outcome, reason = self.seen, str(report.outcome), ""
        crash = getattr(report.longrepr, "reprcrash", None)
        if crash is not None:
            reason = crash.message.splitlines()[0][:300]
        if isinstance(report.longrepr, tuple):
            outcome, reason = "not applicable", report.longrepr[2].removeprefix("Skipped: ")
        elif outcome == "passed":
            reason = seen.nothing_tested()
            outcome = "not applicable" if reason else "adapted" if seen.dropped else "passed"
        details = {"reason": reason, "dropped": sorted(seen.dropped), "updates": seen.updates if seen.trained else None}
        known = {name: value for name, value in details.items() if value not in ("", [], None)}
        self.tests[report.nodeid.split("/")[-1]] = {"outcome": outcome, **known}


def main(words: Sequence[str] | None = None) -> int:
    """Run the tests and write what came out.

    :return: number of failures
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tests", type=Path, required=True, help="the folder tests of Stable-Baselines3's source")
    parser.add_argument("--algo", default="DreamerV3")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--files", nargs="*", default=FILES, help="test files, without test_ and .py")
    parser.add_argument("-k", default="", help="as pytest's -k")
    args = parser.parse_args(words)
    th.set_num_threads(1)
    plugin = Plugin(getattr(sb3_dreamer, args.algo))
    options = ["-q", "-p", "no:cacheprovider", "-o", "addopts=", "-k", args.k, "--noconftest"]
    options += ["--timeout=1800", "--tb=line", "--disable-warnings", "--import-mode=prepend"]
    with tempfile.TemporaryDirectory() as root:
        # Beside the tests lies the source of Stable-Baselines3; it is the installed one that is tested.
        (Path(root) / "tests").symlink_to(args.tests.resolve(), target_is_directory=True)
        paths = [str(Path(root) / "tests" / f"test_{name}.py") for name in args.files]
        pytest.main([*options, f"--rootdir={root}", *paths], plugins=[plugin])
    found = Counter(test["outcome"] for test in plugin.tests.values())
    counts = {outcome: found[outcome] for outcome in OUTCOMES}
    if args.out is not None:
        summary = {"algorithm": args.algo, "stable_baselines3": stable_baselines3.__version__, "counts": counts}
        args.out.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(summary | {"tests": dict(sorted(plugin.tests.items()))}, indent=1)
        args.out.write_text(text + "\n", encoding="utf-8")
    total = len(plugin.tests)
    print(
        f"{args.algo}: of {total} tests {counts['passed']} pass unaltered, {counts['adapted']} pass with arguments "
        f"dropped, {counts['failed']} fail, {counts['not applicable']} are not applicable"
    )
    return counts["failed"]


if __name__ == "__main__":
    sys.exit(min(1, main()))
