"""Flags of ``train``: rl_zoo3's names, and a few more."""

from sb3_dreamer.zoo.config.algorithms import ALGORITHMS, DEFAULT_ALGORITHM
from sb3_dreamer.zoo.programs.arguments import KeyValues, OneLineParser, positive, whole


def make_parser() -> OneLineParser:
    """The parser of ``train``."""
    parser = OneLineParser(
        prog="sb3-dreamer train",
        description="Train an agent. Everything is written to LOG_FOLDER/ALGO/ENV_ID/; Ctrl-C saves the model.",
        epilog="Examples:  train --algo dreamerv3 --env CartPole-v1    train --env atari:pong -n 1e5 "
        "-params model_size:XS train_ratio:64    train -i logs/dreamerv3/CartPole-v1_1    "
        "torchrun --nproc-per-node=2 zoo/train.py --env CartPole-v1",
    )
    _add_main(parser)
    _add_evaluation(parser)
    _add_machine(parser)
    _add_tracking(parser)
    return parser


def _add_main(parser: OneLineParser) -> None:
    group = parser.add_argument_group("what to train")
    group.add_argument(
        "--algo", metavar="ALGO", help=f"algorithm: {', '.join(ALGORITHMS)} (default: {DEFAULT_ALGORITHM})"
    )
    group.add_argument(
        "--env", metavar="ENV", help="task (Pong, dmc_vision:walker_walk) or gymnasium id (default: CartPole-v1)"
    )
    group.add_argument("-n", "--n-timesteps", type=positive, metavar="N", help="agent steps; with -i: further steps")
    group.add_argument(
        "-params", "--hyperparams", nargs="+", action=KeyValues, metavar="KEY:VALUE",
        help="overrides, for example learning_rate:1e-3 policy_kwargs:\"{'units': 64}\"",
    )  # fmt: skip
    group.add_argument("-conf", "--conf-file", metavar="FILE", help="YAML file of hyperparameters by task")
    group.add_argument("--config", metavar="FILE", help="config.yml of a run, to repeat it")
    group.add_argument(
        "-i",
        "--trained-agent",
        default="",
        metavar="PATH",
        help="what to continue: a run folder or checkpoint folder (--save-freq) goes on exactly, in the same folder; "
        "a model file starts a new run with the replay beside it",
    )
    group.add_argument(
        "--truncate-last-trajectory", action="store_true",
        help="accepted for rl_zoo3's sake: with -i, running episodes of the replay always count as truncated",
    )  # fmt: skip
    group.add_argument(
        "--seed", type=whole, default=-1, metavar="N", help="-1 draws one, prints and stores it (default)"
    )
    group.add_argument(
        "--env-kwargs", nargs="+", action=KeyValues, metavar="KEY:VALUE", help="settings of the environment"
    )
    group.add_argument(
        "--gym-packages", nargs="+", default=[], metavar="NAME", help="packages that register environments"
    )


def _add_evaluation(parser: OneLineParser) -> None:
    group = parser.add_argument_group("evaluation and files")
    group.add_argument(
        "--eval-freq",
        type=whole,
        metavar="N",
        help="steps between evaluations (default: a tenth of the run, at most 25000; -1: none)",
    )
    group.add_argument(
        "--eval-episodes", type=positive, metavar="N", help="episodes of an evaluation (default: the file's, or 5)"
    )
    group.add_argument(
        "--final-eval-episodes",
        type=whole,
        metavar="N",
        help="episodes of the evaluation at the end (default: the file's, or --eval-episodes)",
    )
    group.add_argument(
        "--n-eval-envs", type=positive, metavar="N", help="environments for evaluation (default: the file's, or 1)"
    )
    group.add_argument(
        "--eval-env-kwargs", nargs="+", action=KeyValues, metavar="KEY:VALUE", help="settings that differ in evaluation"
    )
    group.add_argument(
        "--save-freq",
        type=whole,
        default=-1,
        metavar="N",
        help="steps between checkpoints, from which -i RUN_FOLDER goes on exactly (default: -1, none)",
    )
    group.add_argument(
        "--save-replay-buffer", action="store_true", help="save the replay with every model file and at the end"
    )
    group.add_argument("-f", "--log-folder", default="logs", metavar="DIR", help="where the run folders are")
    group.add_argument(
        "-tb", "--tensorboard-log", default="", metavar="DIR", help="TensorBoard folder (default: in the run folder)"
    )
    group.add_argument("-uuid", "--uuid", action="store_true", help="make the name of the run folder unique")
    group.add_argument(
        "--log-interval", type=whole, default=-1, metavar="N", help="episodes between log rows (default: 4)"
    )


def _add_machine(parser: OneLineParser) -> None:
    group = parser.add_argument_group("machine and screen")
    group.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda or cuda:1")
    group.add_argument(
        "--num-threads", type=whole, default=-1, metavar="N", help="threads of PyTorch (default: its own choice)"
    )
    group.add_argument(
        "--vec-env", choices=["dummy", "subproc"], help="where environments run (default: by their speed and number)"
    )
    group.add_argument("--verbose", type=int, choices=[0, 1, 2], default=1, help="0: only errors, 2: also log tables")
    group.add_argument(
        "-P", "--progress", action="store_true", help="draw the progress bar even if this is no terminal"
    )


def _add_tracking(parser: OneLineParser) -> None:
    group = parser.add_argument_group("Weights & Biases")
    group.add_argument("--track", action="store_true", help="send the log there")
    group.add_argument("--wandb-project-name", default="sb3-dreamer", metavar="NAME", help="project")
    group.add_argument("--wandb-entity", metavar="NAME", help="team")
    group.add_argument("--wandb-group", metavar="NAME", help="group of runs")
    group.add_argument("-tags", "--wandb-tags", nargs="+", default=[], metavar="TAG", help="tags of the run")
