"""A transformer whose equilibrium is known, and training it with measurements along the way."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from study import Rows
from transformers.utils import logging

import windgames as wg
from windgames._array import kl
from windgames.oracles import biased_reward
from windlm.objectives import Objective
from windlm.policy import LanguagePolicy
from windlm.tabular import Enumeration, small_policy
from windlm.train import Config as Training
from windlm.train import train

logging.disable_progress_bar()  # of the models that runs leave behind


PROMPTS = list("abcdefgh")
BETA = 0.2
INTERACTION = {"reward": 0.5, "bradley-terry": 0.5, "intransitive": 1.0}
"""The constant L of theory 5.2 in the worst case of each kind of judge; default steps are taken from it."""
ETA = {judge: 4 * BETA / constant**2 for judge, constant in INTERACTION.items()}
"""WIND's largest step inside the theorem, which SPPO gets as well."""
JUDGES = tuple(INTERACTION)


class Task:
    """A transformer, three kinds of judges over all its responses, and the equilibrium of the game.

    A judge may be wrong: about a share `flips` of the pairs, always the same ones, or by two standard deviations too
    fond of a share `bias` of the responses. The game is that of the judge who is right.
    """

    def __init__(
        self,
        judge: str,
        seed: int,
        smoke: bool = False,
        *,
        beta: float = BETA,
        width: int = 64,
        layers: int = 2,
        flips: float = 0.0,
        bias: float = 0.0,
    ) -> None:
        size = {"letters": 4, "length": 2} if smoke else {"letters": 10, "length": 3}
        self.policy = small_policy(**size, width=width, layers=layers, spread=0.1, seed=seed)
        self.policy.to("cuda" if torch.cuda.is_available() else "cpu")
        self.prompts = PROMPTS[: 2 if smoke else 8]
        self.enumeration = Enumeration.of(self.policy)
        self.rng = np.random.default_rng([seed, JUDGES.index(judge)])
        self.log_ref = self.enumeration.log_policy(self.prompts)
        self.whole = self._preference(judge)
        self.game = wg.WinRateGame(self.whole, np.exp(self.log_ref), beta)
        self.solution = solved(self.game)
        self.judged, self.aim = self._judged(flips, bias)
        self.calls = 0
        self.where = {text: i for i, text in enumerate(self.enumeration.text)}

    def _score(self) -> np.ndarray:
        """Return a random score of each response, standardised.

        A sum over letters, whose worth hangs on the prompt, and over pairs of letters, whose worth does not.
        """
        letters = torch.where(self.enumeration.mask, self.enumeration.tokens, self.policy.stop_ids[0]).numpy()
        size, length = letters.max() + 1, letters.shape[1]
        score: Any = sum(self.rng.normal(size=(len(self.prompts), size))[:, letters[:, j]] for j in range(length))
        for i in range(length):
            for j in range(i):
                score = score + self.rng.normal(size=(size, size))[letters[:, i], letters[:, j]]
        return (score - score.mean(-1, keepdims=True)) / score.std(-1, keepdims=True)

    def _preference(self, judge: str) -> wg.Preference:
        self.reward = reward = self._score()
        if judge == "reward":
            return wg.RewardPreference(reward)
        if judge == "bradley-terry":
            return wg.BradleyTerryPreference(reward, 0.5)
        # a reward, and cycles
        x, y = self._score(), self._score()
        cycles = x[..., :, None] * y[..., None, :] - y[..., :, None] * x[..., None, :]
        upper = 1 / (1 + np.exp(-(reward[..., :, None] - reward[..., None, :] + cycles)))
        return wg.MatrixPreference((upper + 1 - np.swapaxes(upper, -1, -2)) / 2)

    def _judged(self, flips: float, bias: float) -> tuple[wg.Preference, wg.Solution]:
        """Return what the judge says of all pairs, and the equilibrium of that."""
        if bias:
            reward = biased_reward(self.reward, bias, 2.0, self.rng)
            judged: wg.Preference = wg.RewardPreference(reward)
            return judged, solved(wg.WinRateGame(judged, self.game.ref, self.game.beta))
        if not flips:
            return self.whole, self.solution
        matrix = self.whole.matrix()
        wrong = np.tril(self.rng.random(matrix.shape) < flips, -1)
        wrong |= np.swapaxes(wrong, -1, -2)
        judged = wg.MatrixPreference(np.where(wrong, 1 - matrix, matrix))
        return judged, solved(wg.WinRateGame(judged, self.game.ref, self.game.beta))

    def preference(
        self, prompts: Sequence[Any], responses: Sequence[Sequence[str]], columns: Any = None
    ) -> wg.Preference:
        """Judge responses, as a windlm judge does."""
        index = np.array([[self.where[t] for t in row] for row in responses])
        row = np.array([self.prompts.index(p) for p in prompts])
        self.calls += index.size
        if isinstance(self.judged, wg.RewardPreference):
            return wg.RewardPreference(self.judged.reward[row[:, None], index])
        return wg.MatrixPreference(self.judged.matrix()[row[:, None, None], index[:, :, None], index[:, None, :]])

    def measure(self, policy: LanguagePolicy) -> dict[str, float]:
        """Return what is exactly true of the transformer, averaged over prompts."""
        log_p, star = self.enumeration.log_policy(self.prompts), self.solution.log_policy
        return {
            "kl_from_solution": float(kl(star, log_p).mean()),
            "kl_to_solution": float(kl(log_p, star).mean()),
            "gap": float(self.game.gap(log_p).mean()),
            "kl_to_ref": float(kl(log_p, self.log_ref).mean()),
            "win_rate": float((np.exp(log_p) * self.whole.win_rate(self.log_ref)).sum(-1).mean()),
            "entropy": float(-(np.exp(log_p) * log_p).sum(-1).mean()),
        }


def solved(game: wg.Game) -> wg.Solution:
    """Return the equilibrium, certified."""
    solution = wg.equilibrium(game)
    if not solution.converged.all():
        raise RuntimeError(f"The equilibrium was not found: {solution.status}")
    return solution


def run(task: Task, objective: Objective, points: int, settings: dict[str, Any]) -> Rows:
    """Train, and return what was true after some rounds, many of them early, against tokens and seconds."""
    rounds = settings["rounds"]
    times = {0, rounds, *np.geomspace(1, rounds, points).astype(int), *np.linspace(1, rounds, points).astype(int)}

    def evaluate(number: int, policy: LanguagePolicy) -> dict[str, float]:
        return task.measure(policy) if number in times else {}

    with tempfile.TemporaryDirectory() as folder:
        rows = train(
            task.policy,
            task.prompts,
            task,
            objective,
            Training(Path(folder), **{"progress": False, "checkpoint_every": 0, "measure_final": False} | settings),
            evaluate,
        )
    tokens, seconds, out = 0, 0.0, []
    for row in rows:
        tokens += row.get("tokens", 0)
        seconds += sum(value for name, value in row.items() if name.startswith("seconds"))
        if "gap" in row:
            names = ("kl_from_solution", "kl_to_solution", "gap", "kl_to_ref", "win_rate", "entropy")
            out.append({"round": row["round"], "tokens": tokens, "seconds": seconds} | {n: row[n] for n in names})
    return out


def layout(method: str, rounds: int) -> dict[str, Any]:
    """Return rounds and draws that give every method the same tokens and the same optimiser steps, 4 per 64 draws."""
    common = {"rounds": rounds, "draws": 64, "epochs": 4, "learning_rate": 2e-3, "warmup": 20}
    if method == "extragradient":  # draws twice in a round, and regresses twice: 8 steps per 64 draws
        return common | {"draws": 32}
    if method == "J-BOND":  # on-policy: one step per round, and as many draws of the anchor as of the policy
        return common | {"rounds": 4 * rounds, "draws": 8, "epochs": 1}
    return common
