"""The command line: ``python -m windlm train | evaluate | sample | reward``.

Every command takes its settings as flags, from a YAML or JSON file (``--config run.yaml``), or both: flags win.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: spinning threads are erratic on small machines

import inspect
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro

T = TypeVar("T")


def settings(kind: type[T], arguments: Sequence[str], command: str = "") -> T:
    """Return a command's configuration from flags, over those of the file that ``--config`` names."""
    from .run import build, read_file

    rest = list(arguments)
    given: dict[str, Any] = {}
    for i, word in enumerate(rest):
        name, equals, value = word.partition("=")
        if name == "--config":
            if not equals and i + 1 == len(rest):
                raise ValueError("--config needs a file.")
            path = Path(value if equals else rest[i + 1])
            del rest[i : i + (1 if equals else 2)]
            given["default"] = build(kind, read_file(path), missing=tyro.MISSING)
            break
    told = f"{inspect.getdoc(kind)}\n\n--config FILE reads settings from YAML or JSON; flags win over it."
    return tyro.cli(kind, args=rest, prog=f"python -m windlm {command}".strip(), description=told, **given)


def train(arguments: Sequence[str]) -> None:
    """Align a model with a judge, or print the plan."""
    from . import run

    config = settings(run.Run, arguments, "train")
    if config.dry_run:
        for name, value in run.plan(config).items():
            print(f"{name:<26} {value:>16,}")
        return
    rows = run.start(config)
    print(f"The model is in {config.train.out / 'model'}, the metrics of {len(rows) - 1} rounds beside it.")


def evaluate(arguments: Sequence[str]) -> None:
    """Print what a model is worth, and write it."""
    from . import report, run

    config = settings(report.Evaluation, arguments, "evaluate")
    rows = report.evaluate(config)
    report.write(rows, run.plain(config), config.out)
    print(report.table(rows))


def sample(arguments: Sequence[str]) -> None:
    """Print responses side by side."""
    from . import report

    print(report.side_by_side(settings(report.Reading, arguments, "sample")))


def reward(arguments: Sequence[str]) -> None:
    """Fit a reward model, and print its accuracy on held-out pairs."""
    from .reward import Fit, fit

    config = settings(Fit, arguments, "reward")
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


if __name__ == "__main__":
    main()
