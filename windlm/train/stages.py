"""The part of a round that needs no weights of the policy, and so runs on any machine: the judge's."""

from __future__ import annotations

import json
from typing import Any

from ..data import Prompts
from ..judges import Judge
from ..objectives import Objective, for_judge
from ..policy import LanguagePolicy
from ..rollout import Rollout
from .checkpoints import describe
from .config import Config
from .progress import Progress
from .shards import Journal


def judge_round(policy: LanguagePolicy, prompts: Any, judge: Judge, objective: Objective, config: Config) -> int:
    """Judge the responses of the round that ``train(..., part="generate")`` sampled last; return its number.

    Verdicts that are there already are kept.

    Parameters
    ----------
    policy : LanguagePolicy
        Only its settings and its tokenizer are used: its weights may be on the meta device.
    prompts, judge, objective, config
        As for `train`.

    Raises
    ------
    ValueError
        If nothing was sampled, or by a run with other settings.
    """
    prompts, objective, config = Prompts.of(prompts), for_judge(objective, judge), config.filled(policy)
    rounds = sorted((config.out / "rollouts").glob("round-*"))
    journals = [Journal(path) for path in sorted(rounds[-1].glob("stage-0/*.journal"))] if rounds else []
    if not journals:
        raise ValueError(f"{config.out} holds no responses to judge: sample them with windlm generate first.")
    number = int(rounds[-1].name.removeprefix("round-"))
    identity = describe(config, objective, policy, prompts)
    sampled = json.loads((rounds[-1] / "identity.json").read_text())
    if changed := [name for name, value in identity.items() if sampled.get(name) != value]:
        raise ValueError(f"The responses in {rounds[-1]} were sampled with other {', '.join(changed)}.")
    (stage,) = objective.stages((number - 1) / max(1, config.rounds - 1))
    shards = [journal.read("prompts") for journal in journals]
    progress = Progress(1, config.draws * sum(map(len, shards)), 0, config.progress)
    policy.report = progress.add
    for journal, rows in zip(journals, shards, strict=True):
        progress.expect(len(rows) * config.draws)
        getattr(judge, "known", {}).clear()
        rollout = Rollout(
            policy, None, judge, prompts.rows(rows), list, "current", journal, "judging",
            config.on_judge_error, config.judge_retries,
        )  # fmt: skip
        batch = objective.collect(stage, rollout, config.draws)
        own = rollout.own(batch, config.draws)
        if rollout.rewards(own) is not None:
            rollout.reward_parts(own)  # for the metrics
    progress.close()
    return number
