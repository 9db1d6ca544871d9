"""Judges: preferences over the responses to a prompt.

A judge is any object with a method ``preference(prompts, responses)`` and a counter ``calls``. The judges here cache
every verdict, so that nothing is judged twice.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

import windgames as wg

from ..policy import Prompt

PREFERENCES = ("reward", "bradley-terry")
"""Values of `RewardJudge.preference_kind`."""


class Judge(Protocol):
    """Interface of a judge to the training loop."""

    calls: int
    """Judge calls not served from the cache."""

    def preference(self, prompts: Sequence[Prompt], responses: Sequence[Sequence[str]]) -> wg.Preference:
        """Return the preference over the `K` responses to each of `B` prompts, with contexts of shape ``(B,)``."""
        ...


class JudgeError(RuntimeError):
    """An exception in a user's reward or pairwise function; the original one is its cause."""


def own_code(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """Return a user's function whose exceptions are raised as `JudgeError`, so that their traceback is shown.

    A ValueError of that function would be taken for invalid input, of which the command line shows only the message.
    """

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            raise JudgeError(f"The judge {name} raised {type(error).__name__}: {error}") from error

    return call


def numbers(values: Any, count: int, what: str) -> np.ndarray:
    """Return what a user's function returned as `count` numbers.

    Raises
    ------
    ValueError
        If it is something else.
    """
    try:
        array = np.asarray(values.detach().cpu().float() if isinstance(values, torch.Tensor) else values, dtype=float)
    except (TypeError, ValueError):
        raise ValueError(f"The {what} must return {count} numbers, but it returned {values!r:.80}.") from None
    if array.shape != (count,):
        raise ValueError(f"The {what} must return {count} numbers, but its shape is {array.shape}.")
    return array


def key(prompt: Prompt) -> str:
    """Return a prompt as a string, for use as a dictionary key."""
    return prompt if isinstance(prompt, str) else "\x00" + json.dumps([dict(m) for m in prompt], sort_keys=True)


@dataclass
class RewardJudge:
    """A reward function as a judge.

    Parameters
    ----------
    reward : callable
        Called as ``reward(prompts, responses)`` with two lists of equal length; returns a finite number for each pair.
    preference_kind : {"reward", "bradley-terry"}
        Whether the larger reward wins with probability 1, or with the Bradley-Terry probability.
    ties : {"half", "weak", "strict"}
        See `windgames.RewardPreference`; "weak" for a log-win-rate game.
    scale : float
        Bradley-Terry temperature, in units of the reward.
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
        """Return the reward of each response, shape ``(B, K)``; only those not in the cache are computed.

        Raises
        ------
        ValueError
            If a reward is not finite; its prompt and response are named.
        """
        pairs = [(p, r) for p, row in zip(prompts, responses, strict=True) for r in row]
        distinct = {(key(p), r): (p, r) for p, r in pairs}
        new = {name: pair for name, pair in distinct.items() if name not in self.known}
        if new:
            values = numbers(self.reward(*map(list, zip(*new.values(), strict=True))), len(new), "reward")
            for (prompt, response), value in zip(new.values(), values, strict=True):
                if not np.isfinite(value):
                    raise ValueError(
                        f"The reward of response {response!r} to prompt {prompt!r} is {value}: a reward must be a "
                        f"finite number."
                    )
            self.known |= dict(zip(new, values.tolist(), strict=True))
            self.calls += len(new)
        return np.array([[self.known[key(p), r] for r in row] for p, row in zip(prompts, responses, strict=True)])

    def check(self, prompts: Sequence[Prompt], max_new_tokens: int) -> None:
        """Let a reward model check that prompts and responses fit its context, before anything is sampled."""
        if hasattr(self.reward, "check"):
            self.reward.check(prompts, max_new_tokens)

    def preference(self, prompts: Sequence[Prompt], responses: Sequence[Sequence[str]]) -> wg.Preference:
        reward = self.rewards(prompts, responses)
        if self.preference_kind == "reward":
            return wg.RewardPreference(reward, ties=self.ties)
        return wg.BradleyTerryPreference(reward, self.scale)


@dataclass
class PairwiseJudge:
    r"""A pairwise comparison as a judge; every pair is asked in both orders.

    :math:`P_{ij} = (p(i, j) + 1 - p(j, i))/2`, hence :math:`P + P^\top = 1`. The disagreement of the two orders,
    :math:`|p(i,j)+p(j,i)-1|`, is the judge's position bias and is recorded. Equal responses tie. `K` distinct
    responses cost :math:`K(K-1)` calls.

    Parameters
    ----------
    wins : callable
        Called as ``wins(prompts, first, second)`` with three lists of equal length; returns the probability that the
        first response wins, for each triple.
    """

    wins: Callable[[list[Prompt], list[str], list[str]], Any]
    calls: int = 0
    known: dict[tuple[str, str, str], float] = field(default_factory=dict, repr=False)
    worst_asymmetry: float = 0.0
    """The largest disagreement between the two orders of a pair so far."""
    total_asymmetry: float = field(default=0.0, repr=False)

    @property
    def mean_asymmetry(self) -> float:
        """The mean disagreement between the two orders of a pair so far."""
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
        there, back = (
            numbers(self.wins(prompts, a, b), len(new), "pairwise judge") for a, b in ((first, second), (second, first))
        )
        for p, a, b, x, y in zip(prompts, first, second, there, back, strict=True):
            if not (0 <= x <= 1 and 0 <= y <= 1):
                raise ValueError(
                    f"The judge returned {x} for {a!r} against {b!r} and {y} in reverse order, prompt {p!r}: it "
                    f"must return probabilities."
                )
        asymmetry = np.abs(there + back - 1)
        self.worst_asymmetry = max(self.worst_asymmetry, float(asymmetry.max()))
        self.total_asymmetry += float(asymmetry.sum())
        self.calls += 2 * len(new)
        for (name, a, b), p in zip(new, ((there + 1 - back) / 2).tolist(), strict=True):
            self.known[name, a, b], self.known[name, b, a] = p, 1 - p
