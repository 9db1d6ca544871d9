"""The commands."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence

from .settings import plain, settings


def train(arguments: Sequence[str]) -> None:
    """Align a model with a judge, or print the plan."""
    from .run import RunConfig, plan_run, start

    config = settings(RunConfig, arguments, "train")
    if config.dry_run:
        for name, value in plan_run(config).items():
            print(f"{name:<26} {value:>16,}")
        return
    rows = start(config)
    print(f"The model is in {config.train.out / 'model'}, the metrics of {len(rows) - 1} rounds beside it.")


def evaluate(arguments: Sequence[str]) -> None:
    """Print what a model is worth, and write it."""
    from ..evaluate.command import EvaluateConfig, evaluate
    from ..evaluate.tables import table, write

    config = settings(EvaluateConfig, arguments, "evaluate")
    rows = evaluate(config)
    write(rows, plain(config), config.out)
    print(table(rows))


def sample(arguments: Sequence[str]) -> None:
    """Print responses side by side."""
    from ..evaluate.command import SampleConfig, side_by_side

    print(side_by_side(settings(SampleConfig, arguments, "sample")))


def reward(arguments: Sequence[str]) -> None:
    """Fit a reward model, and print its accuracy on held-out pairs."""
    from ..judges.fitting import RewardModelConfig, fit

    config = settings(RewardModelConfig, arguments, "reward")
    found = fit(config)
    print(f"Held-out accuracy {found.mean:.3f} ({found.low:.3f} to {found.high:.3f}); the model is in {config.out}.")


COMMANDS = {"train": train, "evaluate": evaluate, "sample": sample, "reward": reward}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; what the user got wrong is said in one line."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] not in COMMANDS:
        print("usage: python -m windlm COMMAND [--config FILE] [--help]\n")
        for name, command in COMMANDS.items():
            print(f"  {name:<10} {inspect.getdoc(command)}")
        raise SystemExit(0 if words[:1] in (["-h"], ["--help"]) else 2)
    try:
        COMMANDS[words[0]](words[1:])
    except ValueError as error:
        raise SystemExit(f"windlm {words[0]}: {error}") from error
