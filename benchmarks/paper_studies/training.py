"""Training runs of paper.py: the proxy judges, and what each policy says on held-out prompts is kept for grading."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from windlm import Config as Training
from windlm import LanguagePolicy
from windlm.cli import methods
from windlm.data import Data, Prompts, load_prompts
from windlm.evaluate import diversity
from windlm.files import write_text
from windlm.judges import Judge
from windlm.judges.columns import endings
from windlm.models import JudgeSettings, LoraSettings, ModelSettings, load_judge, load_policy
from windlm.train import train

RUNS: dict[str, methods.MethodSettings] = {
    "WIND": methods.Wind(beta=0.05, eta=5.0),
    "SPPO": methods.SPPO(eta=5.0),
    "J-BOND": methods.JBondSettings(),
    "iterative BOND": methods.Bond(n=4),
    "GRPO": methods.GRPOSettings(beta=0.05),
    "online DPO": methods.OnlineDPO(beta=0.1),
    "best-of-n": methods.BestOfNSettings(n=4),
    "WIND, small step": methods.Wind(beta=0.05, eta=1.0),
    "WIND, beta 0.2": methods.Wind(beta=0.2, eta=5.0),
}


@dataclass(frozen=True)
class Size:
    """How large a run is."""

    rounds: int = 10
    """Rounds of sampling, judging and training."""
    prompts: int = 16
    """Prompts a round."""
    draws: int = 8
    """Responses to a prompt."""
    new_tokens: int = 48
    """Maximum length of a response."""
    batch_prompts: int = 4
    """Prompts of an optimiser step."""
    held_out: int = 48
    """Held-out prompts."""
    held_draws: int = 4
    """Responses to a held-out prompt, of the policy and of the reference."""
    every: int = 5
    """Interval between looks at the held-out prompts, in rounds."""
    learning_rate: float = 2e-4
    """AdamW learning rate, constant."""
    longest_prompt: int = 80
    """Maximum length of a prompt, in tokens."""


def policy_of(model: str, size: Size, seed: int, smoke: bool) -> LanguagePolicy:
    """Return the policy that every run begins with: a new adapter on the model as it came."""
    settings = ModelSettings(model, precision="float32" if smoke else "bfloat16", max_new_tokens=size.new_tokens)
    return load_policy(settings, LoraSettings(rank=2 if smoke else 16), seed=seed)


def prompts_of(policy: LanguagePolicy, file: Path, limit: int, longest: int) -> Prompts:
    """Return the first prompts of a file that are short enough."""
    prompts = load_prompts(Data(str(file)), ())
    kept = [i for i, ids in enumerate(policy.tokenize(prompts)) if len(ids) <= longest]
    return prompts.rows(kept[:limit])


class Looks:
    """Called after each round; at some, keeps the policy's draws on held-out prompts in a file."""

    def __init__(self, prompts: Prompts, size: Size, seed: int, folder: Path, per_round: int) -> None:
        self.prompts, self.size, self.seed, self.folder, self.per_round = prompts, size, seed, folder, per_round

    def __call__(self, number: int, policy: LanguagePolicy) -> dict[str, float]:
        cpu = {"cpu_seconds": time.process_time()}
        done, between = divmod(number, self.per_round)
        if not number or between or done % self.size.every:
            return cpu
        self.look(policy, done)
        return cpu

    def look(self, policy: LanguagePolicy, number: int) -> None:
        """Draw responses to the held-out prompts and write them, with what is known of each."""
        samples = policy.sample(self.prompts, self.size.held_draws, np.random.default_rng([self.seed, 2**31, number]))
        now = policy.log_prob(samples).double()
        with policy.model.disable_adapter():
            ratio = now - policy.log_prob(samples).double()
        kept = {
            "round": number,
            "prompts": [list(p) for p in self.prompts],
            "responses": samples.text,
            "log_ratio": ratio.tolist(),
            "length": samples.mask.sum(-1).tolist(),
            "cut": [[end == "cut" for end in row] for row in endings(samples, policy)],
            "diversity": diversity(samples.text, now.numpy()),
        }
        write_text(self.folder / f"look-{number:03d}.json", json.dumps(kept) + "\n")


def layout(method: methods.MethodSettings, size: Size) -> dict[str, Any]:
    """Return settings of training: for all the same tokens and as many optimiser steps.

    J-BOND draws anew for each step, half of the responses from its anchor.
    """
    common = {"rounds": size.rounds, "draws": size.draws, "prompts_per_round": size.prompts, "epochs": 1}
    common["batch_prompts"] = size.batch_prompts
    if method.name == "j-bond":
        steps = size.prompts // size.batch_prompts
        common |= {"rounds": size.rounds * steps, "draws": size.draws // 2, "prompts_per_round": size.batch_prompts}
    return common


def slug(name: str) -> str:
    """Return the name of a run as part of a folder's name."""
    return name.replace(", ", "-").replace(" ", "-")


def run(name: str, seed: int, model: str, work: Path, size: Size, smoke: bool = False) -> list[dict[str, Any]]:
    """Train, or go on where a run was stopped; return its metrics. Its looks are in the folder of the run."""
    folder = work / "runs" / f"{slug(name)}-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    policy = policy_of(model, size, seed, smoke)
    method, settings = RUNS[name], layout(RUNS[name], size)
    prompts = prompts_of(policy, work / "train.jsonl", size.rounds * size.prompts, size.longest_prompt)
    held = prompts_of(policy, work / "held-out.jsonl", size.held_out, size.longest_prompt)
    looks = Looks(held, size, seed, folder, settings["rounds"] // size.rounds)
    settings |= {"learning_rate": size.learning_rate, "schedule": "constant", "seed": seed, "measure_final": False}
    judge = proxy(work)
    config = Training(folder, cpu=smoke, reference_draws=0, keep_rollouts=1, **settings)
    rows = train(policy, prompts, judge, method.objective(), config, looks)
    return [{"run": name, "seed": seed} | row for row in rows]


def proxy(work: Path) -> Judge:
    """Return the judge of the training."""
    return load_judge(JudgeSettings("reward-model", str(work / "proxy"), precision="bfloat16", batch_size=32))


def reference(model: str, work: Path, size: Size, smoke: bool = False) -> None:
    """Keep two sets of draws of the model as it came: the one to compare with, and another one like a policy's."""
    folder = work / "runs" / "reference-0"
    policy = policy_of(model, size, 0, smoke)
    held = prompts_of(policy, work / "held-out.jsonl", size.held_out, size.longest_prompt)
    folder.mkdir(parents=True, exist_ok=True)
    for number in (0, 1):
        if not (folder / f"look-{number:03d}.json").exists():
            Looks(held, size, 10**6, folder, 1).look(policy, number)
