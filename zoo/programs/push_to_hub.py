"""The program ``push_to_hub``: evaluate a trained agent and upload it to the Hugging Face Hub with a model card."""

import contextlib
import tempfile
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from sb3_dreamer.zoo.config.arguments import OneLineParser, positive, to_command
from sb3_dreamer.zoo.config.errors import UsageError, one_line
from sb3_dreamer.zoo.programs import evaluate
from sb3_dreamer.zoo.runs import sharing
from sb3_dreamer.zoo.runs.agents import Agent, add_agent_arguments, load_agent
from sb3_dreamer.zoo.runs.run_folder import RunFolder

CARD = """---
{metadata}---

# {cls} playing {env}

Trained with [sb3-dreamer](https://github.com/sb3-dreamer/sb3-dreamer): world models as Stable-Baselines3 algorithms.
{score}, after {steps:,} agent steps. `scores.json` has every episode, `{name}/config.yml` every setting.

Watch it:

```bash
pip install "sb3-dreamer[zoo,hub]"
sb3-dreamer load_from_hub --algo {algo} --env {name} -orga {organization} -name {repository}
sb3-dreamer enjoy --algo {algo} --env {name}
```

Train it:

```bash
{command}
```
"""


def make_parser() -> OneLineParser:
    """Make the parser."""
    parser = OneLineParser(
        prog="sb3-dreamer push_to_hub",
        description="Upload a trained agent to the Hugging Face Hub: the model without optimizers and replay, its "
        "settings, and a model card with its scores. Log in first: hf auth login",
    )
    add_agent_arguments(parser)
    group = parser.add_argument_group("where to")
    add_hub_arguments(group)
    group.add_argument(
        "-m", "--commit-message", default="A trained agent", metavar="TEXT", help="message of the commit"
    )
    group.add_argument("--private", action="store_true", help="make the repository private")
    group.add_argument("--n-eval-episodes", type=positive, default=20, metavar="N", help="episodes to score it on")
    return parser


def add_hub_arguments(group: Any) -> None:
    """Add rl_zoo3's flags that name a repository."""
    group.add_argument("-orga", "--organization", required=True, metavar="NAME", help="organization or user")
    group.add_argument("-name", "--repo-name", default="", metavar="NAME", help="repository (default: ALGO-ENV)")


def main(words: Sequence[str]) -> int:
    """Evaluate, pack, make the repository, upload.

    :param words: command-line arguments
    :return: exit status
    """
    args = make_parser().parse_args(words)
    from huggingface_hub import HfApi
    from huggingface_hub.utils import validate_repo_id

    args.n_episodes = args.n_eval_episodes
    agent = load_agent(args)
    agent.env.close()
    repository = args.repo_name or f"{args.algo}-{agent.run.name}"
    repo_id, api = f"{args.organization}/{repository}", HfApi()
    with hub_errors(repo_id):  # before the evaluation: there may be no connection, no login, or no such name
        validate_repo_id(repo_id)
        api.whoami()
    with tempfile.TemporaryDirectory() as folder:
        target = RunFolder(Path(folder), agent.run.name)
        sharing.pack(agent.model, agent.run, target)
        sharing.write_scores(target, evaluate.evaluate_run(args))
        (target.path / "README.md").write_text(model_card(args, agent, target, repository), encoding="utf-8")
        print(f"Uploading to {repo_id}: {', '.join(sharing.files(target))}, README.md", flush=True)
        with hub_errors(repo_id):
            url = api.create_repo(repo_id, private=args.private, exist_ok=True)
            api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message=args.commit_message)
    print(f"Uploaded: {url}")
    print(f"To download it: {to_command('load_from_hub', download_words(args, agent))}")
    return 0


@contextlib.contextmanager
def hub_errors(what: str) -> Iterator[None]:
    """Turn errors of the Hub, and of the way there, into one line.

    :param what: repository or file
    :raises UsageError: for them
    """
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    try:
        yield
    except (LocalEntryNotFoundError, ConnectionError) as error:  # the reason is its cause, if the Hub's client has one
        raise unreachable(what, error.__cause__ or error) from error
    except (EntryNotFoundError, HfHubHTTPError, OSError, ValueError) as error:
        raise UsageError(f"{what}: {one_line(error)}") from error
    except Exception as error:  # of the HTTP library, which depends on the version of huggingface_hub
        raise unreachable(what, error) from error


def unreachable(what: str, reason: BaseException) -> UsageError:
    """Make the error of a Hub that does not answer."""
    text = f"{type(reason).__name__}: {one_line(reason)}"
    return UsageError(f"{what}: the Hub cannot be reached ({text}): check your connection")


def download_words(args: Namespace, agent: Agent) -> list[str]:
    """Write the flags of ``load_from_hub`` for this repository."""
    words = ["--algo", args.algo, "--env", agent.run.name, "-orga", args.organization]
    return [*words, *(["-name", args.repo_name] if args.repo_name else [])]


def model_card(args: Namespace, agent: Agent, packed: RunFolder, repository: str) -> str:
    """Write the README of a repository, with the metadata that the Hub shows."""
    scores, cls, env = sharing.read_scores(packed), type(agent.model).__name__, str(agent.config.get("env") or args.env)
    metric = {"type": "mean_reward", "value": f"{scores['mean']:.2f} +/- {scores['std']:.2f}", "name": "mean_reward"}
    result = {
        "task": {"type": "reinforcement-learning", "name": "reinforcement-learning"},
        "dataset": {"name": env, "type": env},
        "metrics": [metric],
    }
    metadata = {
        "library_name": "sb3-dreamer",
        "tags": [env, "reinforcement-learning", "deep-reinforcement-learning", "stable-baselines3", "world-model"],
        "model-index": [{"name": cls, "results": [result]}],
    }
    score = sharing.score_in_words(packed)
    return CARD.format(
        metadata=yaml.safe_dump(metadata, sort_keys=False),
        cls=cls,
        env=env,
        score=score[0].upper() + score[1:],
        steps=scores["trained_steps"],
        name=packed.name,
        algo=args.algo,
        organization=args.organization,
        repository=repository,
        command=packed.command.read_text(encoding="utf-8").strip(),
    )
