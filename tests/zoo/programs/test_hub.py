"""Upload and download, against a folder in place of the Hugging Face Hub."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from sb3_dreamer.zoo.programs.cli import main
from sb3_dreamer.zoo.runs import run_folder, sharing

huggingface_hub = pytest.importorskip("huggingface_hub")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that holds the repositories."""
    root = tmp_path / "hub"

    class LocalApi:
        def whoami(self) -> dict[str, str]:
            return {"name": "me"}

        def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> str:
            (root / repo_id).mkdir(parents=True, exist_ok=exist_ok)
            return f"https://hub/{repo_id}"

        def upload_folder(self, *, repo_id: str, folder_path: str, commit_message: str) -> None:
            shutil.copytree(folder_path, root / repo_id, dirs_exist_ok=True)
            (root / repo_id / "message").write_text(commit_message)

    def download(repo_id: str, filename: str, *, local_dir: Any) -> str:
        source = root / repo_id / filename
        if not source.is_file():
            raise huggingface_hub.errors.EntryNotFoundError(f"404: {repo_id} has no\n{filename}")
        target = Path(local_dir) / filename
        target.parent.mkdir(parents=True, exist_ok=True)
        return str(shutil.copyfile(source, target))

    monkeypatch.setattr(huggingface_hub, "HfApi", LocalApi)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.chdir(tmp_path)
    return root


def push(logs: Path, *words: str) -> None:
    assert main(["push_to_hub", "-f", str(logs), "-orga", "me", "--n-eval-episodes", "2", *words]) == 0


def test_there_and_back(logs: Path, hub: Path, capsys: pytest.CaptureFixture[str]) -> None:
    push(logs, "-m", "First")
    out = capsys.readouterr().out
    assert "Uploaded: https://hub/me/dreamerv3-CartPole-v1" in out
    repository = hub / "me/dreamerv3-CartPole-v1"
    files = {path.relative_to(repository).as_posix() for path in repository.rglob("*") if path.is_file()}
    own = {"CartPole-v1.zip", "CartPole-v1/config.yml", "CartPole-v1/command.txt", "scores.json"}
    assert files == own | {"README.md", "message"} and (repository / "message").read_text() == "First"

    _, metadata, text = (repository / "README.md").read_text().split("---\n", 2)
    (model,) = yaml.safe_load(metadata)["model-index"]
    scores = sharing.read_scores(run_folder.RunFolder(repository, "CartPole-v1"))
    assert model["name"] == "DreamerV3" and model["results"][0]["dataset"]["name"] == "CartPole-v1"
    assert model["results"][0]["metrics"][0]["value"] == f"{scores['mean']:.2f} +/- {scores['std']:.2f}"
    assert f"Mean return {scores['mean']:.1f}" in text and "sb3-dreamer train -n 200" in text

    command = next(line for line in text.splitlines() if line.startswith("sb3-dreamer load_from_hub"))
    assert main(command.split()[1:]) == 0
    assert f"logs/dreamerv3/CartPole-v1_2: mean return {scores['mean']:.1f}" in capsys.readouterr().out
    assert main(["enjoy", "--no-render", "-n", "5"]) == 0
    assert "CartPole-v1_2/CartPole-v1.zip: trained for 200 steps" in capsys.readouterr().out
    with pytest.warns(UserWarning, match="holds no optimizers: learning continues with new ones"):
        words = ["train", "-i", "logs/dreamerv3/CartPole-v1_2/CartPole-v1.zip", "-n", "20", "--eval-freq", "-1"]
        assert main([*words, "--final-eval-episodes", "1"]) == 0


def test_another_name_of_the_repository(logs: Path, hub: Path, capsys: pytest.CaptureFixture[str]) -> None:
    push(logs, "-name", "other")
    assert "load_from_hub --algo dreamerv3 --env CartPole-v1 -orga me -name other" in capsys.readouterr().out
    assert main(["load_from_hub", "-orga", "me", "-name", "other", "-f", "here"]) == 0
    assert "enjoy --algo dreamerv3 --env CartPole-v1 -f here" in capsys.readouterr().out


def test_what_is_refused_leaves_nothing(logs: Path, hub: Path, capsys: pytest.CaptureFixture[str]) -> None:
    push(logs)
    repository = hub / "me/dreamerv3-CartPole-v1"
    good = {path: path.read_bytes() for path in repository.rglob("*") if path.is_file()}
    pickled = b"\x80\x04cos\nsystem\n(S'touch ran'\ntR."
    config = yaml.safe_load((repository / "CartPole-v1/config.yml").read_text())
    cases: list[tuple[str, bytes | None, str]] = [
        ("CartPole-v1.zip", pickled, "contains pickled data"),
        ("CartPole-v1.zip", b"PK", "is truncated, damaged"),
        ("CartPole-v1.zip", None, "404: me/dreamerv3-CartPole-v1 has no CartPole-v1.zip"),
        ("scores.json", b"{}", "holds no scores"),
        ("CartPole-v1/config.yml", b"!!python/object/apply:os.system ['touch ran']", "is not plain YAML"),
        ("CartPole-v1/config.yml", yaml.safe_dump(config | {"env": "x:Y-v0"}).encode(), "pass --gym-packages x"),
    ]
    capsys.readouterr()
    for name, content, message in cases:
        if content is None:
            (repository / name).unlink()
        else:
            (repository / name).write_bytes(content)
        assert main(["load_from_hub", "-orga", "me", "-f", "other"]) == 2
        err = capsys.readouterr().err
        assert message in err and err.count("\n") == 1, err
        (repository / name).write_bytes(good[repository / name])
    assert not Path("other").exists() and not Path("ran").exists()
    assert main(["load_from_hub", "-orga", "me", "-f", "other"]) == 0


@pytest.mark.parametrize(
    ("organization", "message"),
    [
        ("me", "me/dreamerv3-CartPole-v1: the Hub cannot be reached"),
        ("a b", "Repo id must use alphanumeric chars"),
        ("/", "'//dreamerv3-CartPole-v1'"),
    ],
)
def test_what_the_hub_refuses_is_known_before_the_evaluation(
    organization: str, message: str, logs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the real client: names are checked on this machine, and nobody listens on port 9."""
    from sb3_dreamer.zoo.programs import evaluate

    monkeypatch.setattr(huggingface_hub.HfApi, "whoami", without_network(huggingface_hub.HfApi.whoami))
    monkeypatch.setattr(evaluate, "evaluate_run", lambda args: pytest.fail("evaluated"))
    assert main(["push_to_hub", "-f", str(logs), "-orga", organization]) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


@pytest.mark.parametrize("reason", [None, ConnectionRefusedError("nobody\nlistens")])
def test_a_download_says_that_the_hub_cannot_be_reached(
    reason: Exception | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The client's own error only tells of its cache; the reason is its cause, if there is one."""

    def fail(*args: Any, **kwargs: Any) -> None:
        raise huggingface_hub.errors.LocalEntryNotFoundError("not in the cache") from reason

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    assert main(["load_from_hub", "-orga", "me"]) == 2
    why = "ConnectionRefusedError: nobody listens" if reason else "LocalEntryNotFoundError: not in the cache"
    assert f"the Hub cannot be reached ({why}): check your connection" in capsys.readouterr().err


def test_an_agent_that_cannot_be_evaluated_leaves_no_repository(
    logs: Path, hub: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from sb3_dreamer.zoo.config.errors import RunError
    from sb3_dreamer.zoo.programs import evaluate

    def fail(args: Any) -> None:
        raise RunError("the environment broke")

    monkeypatch.setattr(evaluate, "evaluate_run", fail)
    assert main(["push_to_hub", "-f", str(logs), "-orga", "me"]) == 1
    assert "the environment broke" in capsys.readouterr().err and not hub.exists()


def without_network(call: Any) -> Any:
    """Send to a port of this machine on which nobody listens."""

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        self.endpoint, self.token = "http://127.0.0.1:9", "hf_none"
        return call(self, *args, **kwargs)

    return method


def test_the_organization_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    for program in ("push_to_hub", "load_from_hub"):
        assert main([program]) == 2
        assert "-orga" in capsys.readouterr().err
