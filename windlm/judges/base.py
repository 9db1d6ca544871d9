"""Judges: preferences over the responses to a prompt.

A judge is any object with a method ``preference(prompts, responses, columns)`` and a counter ``calls``. The judges here
cache every verdict, so that nothing is judged twice.

Functions read the columns that their signature names: a column of the data set, such as ``answer``, one value per
prompt, or one of `RESPONSE_COLUMNS`, one value per response.
"""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Protocol

import numpy as np
import torch

import windgames as wg

from ..data import last_turn
from ..policy import Prompt

PREFERENCES = ("reward", "bradley-terry")
"""Values of `RewardJudge.preference_kind`."""


RESPONSE_COLUMNS = ("token_ids", "ended", "text_with_special_tokens")
"""Columns with a value per response: its token ids, how it ended ("end token", "stop text" or "cut" at the maximum
length), and its text with special tokens."""
Columns = Mapping[str, Sequence[Any]]
"""A list per name: of a value per prompt, or for `RESPONSE_COLUMNS` of a list with a value per response."""


class Judge(Protocol):
    """Interface of a judge to the training loop."""

    calls: int
    """Judge calls not served from the cache."""

    def preference(
        self, prompts: Sequence[Prompt], responses: Sequence[Sequence[str]], columns: Columns
    ) -> wg.Preference:
        """Return the preference over the `K` responses to each of `B` prompts, with contexts of shape ``(B,)``.

        A judge that reads no columns may leave the last argument out. Those of `RESPONSE_COLUMNS` that it lists in an
        attribute `response_columns` are among the columns.
        """
        ...


def ask(judge: Any, method: str, prompts: Sequence[Prompt], responses: Any, columns: Columns) -> Any:
    """Call a judge's method, without the columns if it does not take them."""
    function = getattr(judge, method)
    taken = inspect.signature(function).parameters
    return function(prompts, responses, columns) if len(taken) > 2 else function(prompts, responses)


class JudgeUnavailable(ValueError):
    """A judge cannot be asked at all, whatever the response: a server is down, a column is absent."""


class UnusableVerdict(ValueError):
    """A verdict that is no number of its range; the message names the response."""


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


class Signature:
    """How a user's function is called: the first arguments, and the columns that it names.

    Parameters
    ----------
    function : callable
    first : sequence of str
        Names of the first arguments. They are passed by position, unless the function has a parameter ``completions``
        or ``responses``: then by name, so that ``f(completions, answer, **kwargs)`` of TRL works.
    """

    def __init__(self, function: Callable[..., Any], first: Sequence[str]) -> None:
        try:
            parameters = list(inspect.signature(function).parameters.values())
        except (TypeError, ValueError):  # of a function in C
            parameters = []
        named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        self.takes_all = any(p.kind == p.VAR_KEYWORD for p in parameters)
        self.by_name = "responses" in first and bool({p.name for p in named} & {"completions", "responses"})
        if self.by_name:
            own = {*first, "completions", "completion_ids"}
        else:
            own = {p.name for p in parameters[: len(first)]}
        self.first = [p.name for p in named if p.name in own]
        self.named = [p.name for p in named if p.name not in own]
        self.required = [p.name for p in named if p.name not in own and p.default is p.empty]
        if "completion_ids" in self.first:
            self.required.append("token_ids")

    def columns(self, given: Iterable[str]) -> list[str]:
        """Return which of the given columns the function reads."""
        wanted = {*self.named, *self.required}
        others = {*RESPONSE_COLUMNS, *self.first}
        return [name for name in given if name in wanted or (self.takes_all and name not in others)]

    def __call__(self, function: Callable[..., Any], columns: Mapping[str, list[Any]], **first: list[Any]) -> Any:
        """Call the function with the first arguments by name, and those columns that it reads."""
        read = {name: columns[name] for name in self.columns(columns)}
        if not self.by_name:
            return function(*first.values(), **read)
        replies = first["responses"]
        talks = [not isinstance(p, str) for p in first["prompts"]]
        first["completions"] = [
            [{"role": "assistant", "content": r}] if talk else r for r, talk in zip(replies, talks, strict=True)
        ]
        if "completion_ids" in self.first:
            first["completion_ids"] = read.pop("token_ids") if "token_ids" not in self.named else read["token_ids"]
        if self.takes_all and "prompts" not in self.first:
            read = {"prompts": first["prompts"]} | read
        return function(**{name: first[name] for name in self.first}, **read)


def check_columns(required: Iterable[str], given: Iterable[str]) -> None:
    """Raise ValueError if a judge requires a column that is not given."""
    given = [*given]
    absent = [name for name in required if name not in given]
    if absent:
        have = ", ".join(repr(name) for name in given if name not in RESPONSE_COLUMNS) or "none"
        raise JudgeUnavailable(f"The judge reads the columns {', '.join(map(repr, absent))}; the data have {have}.")


def digest(values: Sequence[Any]) -> str:
    """Return a short name of the values of columns, "" if there are none."""
    return sha256(json.dumps(values, default=repr).encode()).hexdigest()[:32] if values else ""


@dataclass
class RewardJudge:
    """One or several reward functions as a judge.

    Parameters
    ----------
    reward : callable, or sequence of callables
        Called as ``reward(prompts, responses)`` with two lists of equal length, and by name with the columns that its
        signature names, of the data set or of `RESPONSE_COLUMNS`; with ``**kwargs``, with all columns of the data set.
        Returns a finite number for each response. A parameter ``completions`` in place of ``responses`` gets what TRL
        passes: a list with one message for a conversation. One of several may return None where it does not apply.
    preference_kind : {"reward", "bradley-terry"}
        Whether the larger reward wins with probability 1, or with the Bradley-Terry probability.
    ties : {"half", "weak", "strict"}
        See `windgames.RewardPreference`; "weak" for a log-win-rate game.
    scale : float
        Bradley-Terry temperature, in units of the reward.
    weights : sequence of float, optional
        Weight of each reward in the sum; by default 1.
    cut : float
        Subtracted from the reward of a response that was cut at the maximum length.

    Raises
    ------
    ValueError
        If a setting is out of range; when called, if a column that a reward requires is absent, or a reward is no
        finite number.
    """

    reward: Callable[..., Any] | Sequence[Callable[..., Any]]
    preference_kind: str = "reward"
    ties: str = "half"
    scale: float = 1.0
    weights: Sequence[float] | None = None
    cut: float = 0.0
    calls: int = 0
    known: dict[tuple[str, str, str], tuple[float, ...]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.preference_kind not in PREFERENCES:
            raise ValueError(
                f"preference_kind must be one of {', '.join(map(repr, PREFERENCES))}, but it is "
                f"{self.preference_kind!r}."
            )
        self.functions = [self.reward] if callable(self.reward) else list(self.reward)
        self.signatures = [Signature(f, ("prompts", "responses")) for f in self.functions]
        weights = [1.0] * len(self.functions) if self.weights is None else list(self.weights)
        if len(weights) != len(self.functions) or not np.isfinite(weights).all():
            raise ValueError(f"weights must be {len(self.functions)} finite numbers, but it is {weights}.")
        if not 0 <= self.cut < np.inf:
            raise ValueError(f"cut must be a finite number of at least 0, but it is {self.cut}.")
        self.weights = weights
        words = [getattr(f, "__name__", type(f).__name__) for f in self.functions]
        self.names = [w if words.count(w) == 1 else f"{w}_{n}" for n, w in enumerate(words)]

    @property
    def interaction(self) -> float:
        """The constant `L` of theory 5.2: 1/2 for a reward and for Bradley-Terry (theory 5.3)."""
        return 0.5

    @property
    def columns(self) -> tuple[str, ...] | None:
        """Names of the data set's columns that the rewards read; None for all."""
        if any(s.takes_all for s in self.signatures):
            return None
        named = dict.fromkeys([*self.required, *(name for s in self.signatures for name in s.named)])
        return tuple(name for name in named if name not in RESPONSE_COLUMNS)

    @property
    def required(self) -> list[str]:
        """Names of the columns that must be there."""
        return [*(name for s in self.signatures for name in s.required), *(["ended"] if self.cut else [])]

    @property
    def response_columns(self) -> list[str]:
        """Those of `RESPONSE_COLUMNS` that the rewards read."""
        named = {*self.required, *(name for s in self.signatures for name in s.named)}
        return [name for name in RESPONSE_COLUMNS if name in named]

    def check(self, prompts: Sequence[Prompt], max_new_tokens: int) -> None:
        """Check, before anything is sampled, that columns are there, and that texts fit a reward model's context."""
        check_columns(self.required, [*getattr(prompts, "columns", {}), *RESPONSE_COLUMNS])
        for function in self.functions:
            if hasattr(function, "check"):
                function.check(prompts, max_new_tokens)

    def parts(
        self, prompts: Sequence[Prompt], responses: Sequence[Sequence[str]], columns: Columns | None = None
    ) -> np.ndarray:
        """Return each reward of each response, shape ``(B, K, rewards)``; only those not in the cache are computed.

        Raises
        ------
        ValueError
            If a reward is not finite; its prompt and response are named.
        """
        columns = columns or {}
        check_columns(self.required, columns)
        read = [name for name in columns if any(s.columns([name]) for s in self.signatures)]
        names: list[tuple[str, str, str]] = []
        items: dict[tuple[str, str, str], tuple[Prompt, str, dict[str, Any]]] = {}
        for i, (prompt, row) in enumerate(zip(prompts, responses, strict=True)):
            own = {name: columns[name][i] for name in read if name not in RESPONSE_COLUMNS}
            shared = digest([*own.items()])
            for j, response in enumerate(row):
                more = {name: columns[name][i][j] for name in read if name in RESPONSE_COLUMNS}
                names.append((key(prompt), response, shared + digest([*more.items()])))
                items.setdefault(names[-1], (prompt, response, own | more))
        new = {name: item for name, item in items.items() if name not in self.known}
        if new:
            asked, replies, values = map(list, zip(*new.values(), strict=True))
            lists = {name: [row[name] for row in values] for name in read}
            found = [
                self._one(n, call(function, lists, prompts=list(asked), responses=list(replies)), asked, replies)
                for n, (function, call) in enumerate(zip(self.functions, self.signatures, strict=True))
            ]
            self.known |= dict(zip(new, map(tuple, np.stack(found, -1).tolist()), strict=True))
            self.calls += len(new)
        every = np.array([self.known[name] for name in names])
        return every.reshape(len(prompts), -1, len(self.functions))

    def _one(self, n: int, values: Any, prompts: Sequence[Prompt], responses: Sequence[str]) -> np.ndarray:
        several = len(self.functions) > 1
        if several and isinstance(values, list | tuple):
            values = [0.0 if value is None else value for value in values]
        what = f"reward {n} of {len(self.functions)}" if several else "reward"
        rewards = numbers(values, len(responses), what)
        said = values if isinstance(values, list | tuple) else rewards
        for prompt, response, value, number in zip(prompts, responses, said, rewards, strict=True):
            if not np.isfinite(number):
                raise UnusableVerdict(
                    f"The {what} of response {response!r:.300} to the prompt {last_turn(prompt)!r:.300} is {value}: a "
                    f"reward must be a finite number."
                )
        return rewards

    def rewards(
        self, prompts: Sequence[Prompt], responses: Sequence[Sequence[str]], columns: Columns | None = None
    ) -> np.ndarray:
        """Return the weighted sum of the rewards of each response, less the penalty of a cut, shape ``(B, K)``."""
        total = self.parts(prompts, responses, columns) @ np.asarray(self.weights)
        if self.cut:
            assert columns is not None
            total = total - self.cut * (np.array(columns["ended"]) == "cut")
        return total

    def preference(
        self, prompts: Sequence[Prompt], responses: Sequence[Sequence[str]], columns: Columns | None = None
    ) -> wg.Preference:
        reward = self.rewards(prompts, responses, columns)
        if self.preference_kind == "reward":
            return wg.RewardPreference(reward, ties=self.ties)
        return wg.BradleyTerryPreference(reward, self.scale)


@dataclass
class PairwiseJudge:
    r"""A pairwise comparison as a judge; every pair is asked in both orders.

    :math:`P_{ij} = (p(i, j) + 1 - p(j, i))/2`, hence :math:`P + P^\top = 1`. The disagreement of the two orders,
    :math:`|p(i,j)+p(j,i)-1|`, is the judge's position bias and is recorded. Equal responses tie. `K` distinct
    responses cost :math:`K(K-1)` calls, all pairs of all prompts in two batches.

    Parameters
    ----------
    wins : callable
        Called as ``wins(prompts, first, second)`` with three lists of equal length, and by name with the columns of
        the data set that its signature names; returns the probability that the first response wins, for each triple,
        or nan for a verdict that could not be read.
    max_unread : float
        The largest share of unread verdicts. A pair with one in either order is undecided, 1/2, and is counted.

    Raises
    ------
    ValueError
        When called, if a column that the function requires is absent, it returns no probabilities, or too many
        verdicts could not be read.
    """

    wins: Callable[..., Any]
    max_unread: float = 0.5
    calls: int = 0
    unread: int = 0
    """Verdicts so far that could not be read."""
    known: dict[tuple[str, ...], float] = field(default_factory=dict, repr=False)
    worst_asymmetry: float = 0.0
    """The largest disagreement between the two orders of a pair so far."""
    total_asymmetry: float = field(default=0.0, repr=False)

    def __post_init__(self) -> None:
        self.signature = Signature(self.wins, ("prompts", "first", "second"))
        if wanted := sorted({*self.signature.named} & {*RESPONSE_COLUMNS}):
            raise ValueError(f"A pairwise function reads columns of the data set, not {', '.join(wanted)}.")

    @property
    def columns(self) -> tuple[str, ...] | None:
        """Names of the columns that the function reads; None for all of the data set's."""
        return None if self.signature.takes_all else tuple(self.signature.named)

    @property
    def interaction(self) -> float:
        """The constant `L` of theory 5.2, that of any preference."""
        return 1.0

    @property
    def mean_asymmetry(self) -> float:
        """The mean disagreement between the two orders of a pair so far."""
        return self.total_asymmetry / max(1, self.calls // 2)

    def check(self, prompts: Sequence[Prompt], max_new_tokens: int) -> None:
        """Check, before anything is sampled, that columns are there, and that texts fit a model's context."""
        check_columns(self.signature.required, getattr(prompts, "columns", {}))
        if hasattr(self.wins, "check"):
            self.wins.check(prompts, max_new_tokens)

    def preference(
        self, prompts: Sequence[Prompt], responses: Sequence[Sequence[str]], columns: Columns | None = None
    ) -> wg.MatrixPreference:
        columns = columns or {}
        check_columns(self.signature.required, columns)
        read = self.signature.columns(columns)
        own = [{name: columns[name][i] for name in read} for i in range(len(prompts))]
        names = [(key(p), digest([*values.items()])) for p, values in zip(prompts, own, strict=True)]
        new: dict[tuple[str, ...], tuple[Any, ...]] = {}
        for prompt, name, row, values in zip(prompts, names, responses, own, strict=True):
            distinct = list(dict.fromkeys(row))
            for i, first in enumerate(distinct):
                for second in distinct[i + 1 :]:
                    if (*name, first, second) not in self.known:
                        new[*name, first, second] = (prompt, first, second, values)
        if new:
            self._ask(new, read)
        matrix = [
            [[0.5 if a == b else self.known[*name, a, b] for b in row] for a in row]
            for name, row in zip(names, responses, strict=True)
        ]
        return wg.MatrixPreference(matrix)

    def _ask(self, new: dict[tuple[str, ...], tuple[Any, ...]], read: Sequence[str]) -> None:
        prompts, first, second, values = map(list, zip(*new.values(), strict=True))
        lists = {name: [row[name] for row in values] for name in read}
        there, back = (
            numbers(
                self.signature(self.wins, lists, prompts=list(prompts), first=list(a), second=list(b)),
                len(new),
                "pairwise judge",
            )
            for a, b in ((first, second), (second, first))
        )
        for p, a, b, x, y in zip(prompts, first, second, there, back, strict=True):
            if not all(0 <= v <= 1 or np.isnan(v) for v in (x, y)):
                raise UnusableVerdict(
                    f"The judge returned {x} for {a!r:.300} against {b!r:.300} and {y} in reverse order, prompt "
                    f"{last_turn(p)!r:.300}: it must return probabilities."
                )
        self.calls += 2 * len(new)
        self.unread += int(np.isnan([there, back]).sum())
        if self.unread > self.max_unread * self.calls:
            said = getattr(self.wins, "unparsed", None)
            raise JudgeUnavailable(
                f"{self.unread} of {self.calls} verdicts of the judge could not be read"
                + (f", such as {said[-1][-200:]!r}." if said else ".")
            )
        asymmetry = np.nan_to_num(np.abs(there + back - 1))
        self.worst_asymmetry = max(self.worst_asymmetry, float(asymmetry.max()))
        self.total_asymmetry += float(asymmetry.sum())
        for (*name, a, b), p in zip(new, np.nan_to_num((there + 1 - back) / 2, nan=0.5).tolist(), strict=True):
            self.known[*name, a, b], self.known[*name, b, a] = p, 1 - p
