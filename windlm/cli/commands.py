"""The commands: each parses its settings, calls the library, and prints the result."""

from __future__ import annotations

import inspect
import sys
import traceback
from collections.abc import Sequence

from ..allocator import keep_freed_memory
from ..files import UnwritableError
from .settings import plain, settings


def train(arguments: Sequence[str]) -> None:
    """Align a model with a judge."""
    from .run import RunConfig, start

    config = settings(RunConfig, arguments, "train")
    rows = start(config, "train" if config.judged else None)
    out = config.train.out
    if "remark" in rows[0]:
        print(f"Remark: {rows[0]['remark']}")
    rounds = sum(not row.get("final") for row in rows) - 1
    print(f"Trained for {rounds} round{'s' * (rounds != 1)}. Model: {out / 'model'}, metrics: {out / 'metrics.jsonl'}.")


def plan(arguments: Sequence[str]) -> None:
    """Print what a run costs in tokens, memory and disk, and refuse what it would refuse; loads no weights."""
    from .plan import PlanConfig, measure, plan_run

    config = settings(PlanConfig, arguments, "plan")
    for name, value in (plan_run(config) | (measure(config) if config.measure else {})).items():
        print(f"{name:<26} {value:>16,}" if isinstance(value, int | float) else f"{name:<26} {value}")


def generate(arguments: Sequence[str]) -> None:
    """Sample the responses of a run's next round only; then come windlm judge and windlm train --judged."""
    from .run import RunConfig, start

    config = settings(RunConfig, arguments, "generate")
    start(config, "generate")
    print(f"Sampled into {config.train.out / 'rollouts'}. Next: windlm judge.")


def judge(arguments: Sequence[str]) -> None:
    """Judge the responses that windlm generate sampled last, without the model's weights."""
    from .run import RunConfig, judge_next

    number = judge_next(settings(RunConfig, arguments, "judge"))
    print(f"Judged round {number}. Next: windlm train --judged.")


def evaluate(arguments: Sequence[str]) -> None:
    """Print and save a table of measures: win rate, KL divergence, diversity, grades, benchmarks."""
    from ..evaluate.command import EvaluateConfig, evaluate
    from ..evaluate.tables import table, write

    config = settings(EvaluateConfig, arguments, "evaluate")
    rows = evaluate(config)
    write(rows, plain(config), config.out)
    print(table(rows, "the reference" if config.reference else "the model"))


def sample(arguments: Sequence[str]) -> None:
    """Print responses of one or two models side by side."""
    from ..evaluate.command import SampleConfig, side_by_side

    print(side_by_side(settings(SampleConfig, arguments, "sample")))


def reward(arguments: Sequence[str]) -> None:
    """Fit a reward model, or a preference model, to labelled pairs, and print its held-out accuracy."""
    from ..judges.fitting import RewardModelConfig, fit

    config = settings(RewardModelConfig, arguments, "reward")
    found = fit(config)
    print(
        f"Held-out accuracy {found.accuracy.mean:.3f} (95% {found.accuracy.low:.3f} to {found.accuracy.high:.3f}, "
        f"{found.prompts} prompts), fitted to {found.pairs} pairs in {found.seconds:.0f} s."
    )
    if found.position_bias is not None:
        print(f"The two orders of a pair differ by {found.position_bias:.3f} on average.")
    if found.intransitive is not None:
        print(f"Of the answers, {found.intransitive}.")
    kind = {"reward": "reward-model", "pairwise": "pairwise-model"}.get(config.kind, config.kind)
    print(f"As a judge: --judge.kind {kind} --judge.name {config.out}")


def report(arguments: Sequence[str]) -> None:
    """Write the report of runs: one HTML file with curves and responses."""
    from ..report.command import ReportConfig, report

    config = settings(ReportConfig, arguments, "report")
    print(f"Written: {', '.join(map(str, report(config)))}")


COMMANDS = {
    "train": train,
    "plan": plan,
    "generate": generate,
    "judge": judge,
    "evaluate": evaluate,
    "sample": sample,
    "reward": reward,
    "report": report,
}
"""The commands by name."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; invalid input ends the program with one line."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] not in COMMANDS:
        print("usage: windlm COMMAND [--config FILE] [--help]\n")
        for name, command in COMMANDS.items():
            print(f"  {name:<10} {inspect.getdoc(command)}")
        raise SystemExit(0 if words[:1] in (["-h"], ["--help"]) else 2)
    keep_freed_memory()
    try:
        COMMANDS[words[0]](words[1:])
    except (ValueError, UnwritableError) as error:
        raise SystemExit(f"windlm {words[0]}: {said(error)}") from error
    except RuntimeError as error:
        from ..judges.base import JudgeError

        if not isinstance(error, JudgeError):
            raise
        traceback.print_exception(error.__cause__)  # the user's own
        raise SystemExit(f"windlm {words[0]}: {said(error)}") from None


def said(error: Exception) -> str:
    """Return the message of an exception with its notes, in one line."""
    return " ".join([str(error), *getattr(error, "__notes__", [])])
