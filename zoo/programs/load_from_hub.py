"""The program ``load_from_hub``: download a trained agent from the Hugging Face Hub into a run folder."""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from sb3_dreamer.zoo.config import building
from sb3_dreamer.zoo.config.algorithms import ALGORITHMS, DEFAULT_ALGORITHM, check_algorithm
from sb3_dreamer.zoo.config.arguments import OneLineParser, folder, to_command
from sb3_dreamer.zoo.config.hyperparams import find_entry
from sb3_dreamer.zoo.config.plan import DEFAULT_ENV
from sb3_dreamer.zoo.programs.push_to_hub import add_hub_arguments, hub_errors
from sb3_dreamer.zoo.runs import run_folder, sharing
from sb3_dreamer.zoo.runs.agents import LOGS
from sb3_dreamer.zoo.runs.run_folder import RunFolder


def make_parser() -> OneLineParser:
    """Make the parser."""
    parser = OneLineParser(
        prog="sb3-dreamer load_from_hub",
        description="Download a trained agent from the Hugging Face Hub into a run folder. No code of its files runs; "
        "models that sb3-dreamer did not save and settings that would import other packages are refused.",
    )
    add = parser.add_argument
    add("--algo", default=DEFAULT_ALGORITHM, metavar="ALGO", help=f"algorithm: {', '.join(ALGORITHMS)}")
    add("--env", default=DEFAULT_ENV, metavar="ENV", help="as passed to train")
    add("-f", "--folder", type=folder, default=LOGS, metavar="DIR", help="where the run folders are")
    add("--gym-packages", nargs="+", default=[], metavar="NAME", help="packages of its environment that you trust")
    add_hub_arguments(parser)
    return parser


def main(words: Sequence[str]) -> int:
    """Download, check, move to a new run folder.

    :param words: command-line arguments
    :return: exit status
    """
    args = make_parser().parse_args(words)
    name = find_entry(check_algorithm(args.algo), args.env).run_name
    repo_id = f"{args.organization}/{args.repo_name or f'{args.algo}-{name}'}"
    with tempfile.TemporaryDirectory() as temporary:
        packed = RunFolder(Path(temporary), name)
        download(repo_id, packed)
        sharing.check_config(packed.config, args.gym_packages)
        building.load_model(packed.model, args.algo, device="cpu")
        score = sharing.score_in_words(packed)
        run = run_folder.create(args.folder, args.algo, name)
        run.settings.mkdir()
        for relative, path in sharing.files(packed).items():
            shutil.copyfile(path, run.path / relative)
    print(f"{run.path}: {score}, as its author says")
    where = [*(["-f", args.folder] if args.folder != LOGS else []), *packages(args.gym_packages)]
    print(f"Watch it: {to_command('enjoy', ['--algo', args.algo, '--env', name, *where])}")
    return 0


def packages(names: Sequence[str]) -> list[str]:
    """Write the flag for packages that register environments."""
    return ["--gym-packages", *names] if names else []


def download(repo_id: str, packed: RunFolder) -> None:
    """Fetch the files of an agent.

    :param repo_id: ``organization/repository``
    :param packed: folder to fill
    :raises UsageError: if there is no such repository or file, or no connection
    """
    from huggingface_hub import hf_hub_download

    for relative in sharing.files(packed):
        with hub_errors(f"{repo_id}, {relative}"):
            hf_hub_download(repo_id, relative, local_dir=packed.path)
