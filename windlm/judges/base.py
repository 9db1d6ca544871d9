"""Judges: who wins among the responses of a prompt, as a windgames preference.

A judge is anything with ``preference(prompts, responses)`` and a counter ``calls``. Those here remember every verdict,
so that nothing is judged twice; `calls` counts what was really asked.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

import windgames as wg

from ..policy import Prompt

PREFERENCES = ("reward", "bradley-terry")


class Judge(Protocol):
    """What the training loop asks of a judge."""

    calls: int
    """Verdicts that were computed, not remembered."""

    def preference(self, prompts: Sequence[Prompt], responses: Sequence[Sequence[str]]) -> wg.Preference:
        """Return the preference over the `K` responses of each of `B` prompts, contexts of shape ``(B,)``."""
        ...


def key(prompt: Prompt) -> str:
    """Return a prompt as text that can be looked up."""
    return prompt if isinstance(prompt, str) else "\x00" + json.dumps([dict(m) for m in prompt], sort_keys=True)


@dataclass
class RewardJudge:
    """A plain function of a batch of (prompt, response) as a judge.

    Parameters
    ----------
    reward : callable
        Takes a list of prompts and a list of responses, one each, and returns one finite number each.
    preference_kind : {"reward", "bradley-terry"}
        Whether the larger reward wins with certainty, or with the Bradley-Terry probability.
    ties : {"half", "weak", "strict"}
        See `windgames.RewardPreference`; "weak" for a log-win-rate game.
    scale : float
        Temperature of Bradley-Terry, in units of the reward.
    """

    reward: Callable[[list[Prompt], list[str]], Any]
    preference_kind: str = "reward"
    ties: str = "half"
    scale: float = 1.0
    calls: int = 0
    known: dict[tuple[str, str], float] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.preference_kind not in PREFERENCES:
            raise ValueError(
                f"preference_kind must be one of {', '.join(map(repr, PREFERENCES))}, but it is "
                f"{self.preference_kind!r}."
            )

    def rewards(self, prompts: Sequence[Prompt], responses: Sequence[Sequence[str]]) -> np.ndarray:
        """Return the reward of each response, shape ``(B, K)``; ask only for what is not known yet.

        Raises
        ------
        ValueError
            If a reward is not finite; prompt and response are named.
        """
        pairs = [(p, r) for p, row in zip(prompts, responses, strict=True) for r in row]
        asked = {(key(p), r): (p, r) for p, r in pairs}
        new = {name: pair for name, pair in asked.items() if name not in self.known}
        if new:
            values = np.asarray(self.reward(*map(list, zip(*new.values(), strict=True))), dtype=float)
            if values.shape != (len(new),):
                raise ValueError(f"The reward must return {len(new)} numbers, but its shape is {values.shape}.")
            for (prompt, response), value in zip(new.values(), values, strict=True):
                if not np.isfinite(value):
                    raise ValueError(
                        f"The reward of response {response!r} to prompt {prompt!r} is {value}: a judge must give a "
                        f"finite number."
                    )
            self.known |= dict(zip(new, values.tolist(), strict=True))
            self.calls += len(new)
        return np.array([[self.known[key(p), r] for r in row] for p, row in zip(prompts, responses, strict=True)])

    def preference(self, prompts: Sequence[Prompt], responses: Sequence[Sequence[str]]) -> wg.Preference:
        reward = self.rewards(prompts, responses)
        if self.preference_kind == "reward":
            return wg.RewardPreference(reward, ties=self.ties)
        return wg.BradleyTerryPreference(reward, self.scale)


@dataclass
class PairwiseJudge:
    r"""A judge of pairs. Every pair is asked in both orders and symmetrised.

    :math:`P_{ij} = (p(i, j) + 1 - p(j, i))/2`, hence :math:`P + P^\top = 1`; what the two orders disagree by,
    :math:`|p(i,j)+p(j,i)-1|`, is the judge's position bias and is reported. Equal responses tie. `K` distinct responses
    cost :math:`K(K-1)` verdicts.

    Parameters
    ----------
    wins : callable
        Takes lists of prompts, of first and of second responses, and returns the probability that the first wins.
    """

    wins: Callable[[list[Prompt], list[str], list[str]], Any]
    calls: int = 0
    known: dict[tuple[str, str, str], float] = field(default_factory=dict, repr=False)
    worst_asymmetry: float = 0.0
    """The largest disagreement between the two orders of a pair."""
    total_asymmetry: float = field(default=0.0, repr=False)

    @property
    def mean_asymmetry(self) -> float:
        """The mean disagreement between the two orders of a pair."""
        return self.total_asymmetry / max(1, self.calls // 2)

    def preference(self, prompts: Sequence[Prompt], responses: Sequence[Sequence[str]]) -> wg.MatrixPreference:
        names = [key(p) for p in prompts]
        new = {}
        for prompt, name, row in zip(prompts, names, responses, strict=True):
            distinct = list(dict.fromkeys(row))
            for i, first in enumerate(distinct):
                for second in distinct[i + 1 :]:
                    if (name, first, second) not in self.known:
                        new[name, first, second] = (prompt, first, second)
        if new:
            self._ask(new)
        matrix = [
            [[0.5 if a == b else self.known[name, a, b] for b in row] for a in row]
            for name, row in zip(names, responses, strict=True)
        ]
        return wg.MatrixPreference(matrix)

    def _ask(self, new: dict[tuple[str, str, str], tuple[Prompt, str, str]]) -> None:
        prompts, first, second = map(list, zip(*new.values(), strict=True))
        there, back = (np.asarray(self.wins(prompts, a, b), dtype=float) for a, b in ((first, second), (second, first)))
        for p, a, b, x, y in zip(prompts, first, second, there, back, strict=True):
            if not (0 <= x <= 1 and 0 <= y <= 1):
                raise ValueError(
                    f"The judge gave {x} and {y} for {a!r} against {b!r} and back, to prompt {p!r}: it must give "
                    f"probabilities."
                )
        asymmetry = np.abs(there + back - 1)
        self.worst_asymmetry = max(self.worst_asymmetry, float(asymmetry.max()))
        self.total_asymmetry += float(asymmetry.sum())
        self.calls += 2 * len(new)
        for (name, a, b), p in zip(new, ((there + 1 - back) / 2).tolist(), strict=True):
            self.known[name, a, b], self.known[name, b, a] = p, 1 - p
