"""The data of a round: responses, their log-probabilities under several policies, and the judge's verdicts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from .data import Prompts
from .judges import Judge
from .judges.base import ask
from .policy import LanguagePolicy, Samples
from .weights import WeightSnapshots


@dataclass(frozen=True)
class RolloutBatch:
    """The responses that a stage trains on, with everything the loss needs beside the model.

    Attributes
    ----------
    samples : Samples
        `K` responses to each of `B` prompts.
    fixed : mapping of name to tensor of shape ``(B, K)``
        Log-probabilities and labels, which do not depend on the parameters.
    """

    samples: Samples
    fixed: Mapping[str, Tensor]
    on_policy: bool = True
    """Whether the first responses were sampled from the round's policy, so that metrics can be computed from them;
    ``fixed["current"]`` and ``fixed["ref"]`` are then their log-probabilities."""

    def __getitem__(self, index: Iterable[int]) -> RolloutBatch:
        rows = [int(i) for i in index]
        return RolloutBatch(self.samples[rows], {k: x[rows] for k, x in self.fixed.items()}, self.on_policy)

    @staticmethod
    def stack(parts: Sequence[RolloutBatch]) -> RolloutBatch:
        """Concatenate batches along the prompts."""
        fixed = {name: torch.cat([part.fixed[name] for part in parts]) for name in parts[0].fixed}
        return RolloutBatch(Samples.stack([part.samples for part in parts]), fixed, parts[0].on_policy)


def ending(ids: Sequence[int], policy: LanguagePolicy) -> str:
    """Return how a response ended: "end token", "stop text", or "cut" at the maximum length."""
    if ids and ids[-1] in policy.stop_ids:
        return "end token"
    return "cut" if len(ids) == policy.max_new_tokens else "stop text"


def columns_for(judge: Any, prompts: Prompts, *drawn: tuple[Samples, LanguagePolicy]) -> dict[str, list[Any]]:
    """Return the columns that a judge may read: the data set's, and those of `RESPONSE_COLUMNS` that it names.

    Parameters
    ----------
    judge : Judge
    prompts : Prompts
    *drawn : tuple of (Samples, LanguagePolicy)
        Responses to the prompts and who gave them, side by side as the judge sees them.
    """
    columns = dict(prompts.columns)
    for name in getattr(judge, "response_columns", ()):
        parts = [_response_column(name, samples, policy) for samples, policy in drawn]
        columns[name] = [[x for row in rows for x in row] for rows in zip(*parts, strict=True)]
    return columns


def _response_column(name: str, samples: Samples, policy: LanguagePolicy) -> list[list[Any]]:
    if name == "text_with_special_tokens":
        return policy.read(samples.tokens, samples.mask, special=True)
    ids = [
        [t[m].tolist() for t, m in zip(ts, ms, strict=True)]
        for ts, ms in zip(samples.tokens, samples.mask, strict=True)
    ]
    return ids if name == "token_ids" else [[ending(x, policy) for x in row] for row in ids]


class Recorder(Protocol):
    """A journal of results by name."""

    def recorded(self, name: str, compute: Callable[[], Any], together: bool) -> Any:
        """Return the result of this name, computed only if it is not in the journal (of all processes, if together)."""
        ...


@dataclass
class Rollout:
    """Access to a round's policies and judge, for `Objective.collect`: samples, log-probabilities, verdicts.

    Policies are named by their slot: "current" (the round's policy), "ref", and those that a rule keeps.
    """

    policy: LanguagePolicy
    snapshots: WeightSnapshots
    judge: Judge
    prompts: Prompts
    generators: Callable[[], list[np.random.Generator]]
    """Returns new generators, one per prompt, at every call."""
    loaded: str = "current"
    """The slot whose weights are in the model."""
    journal: Recorder | None = None
    """Where results are kept, so that a run that was killed repeats none of them; None for nowhere."""
    tokens: int = 0
    """Tokens sampled so far."""
    calls: int = 0
    """Judge calls so far that were not served from the cache."""
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("sampling", "scoring", "judging"), 0.0))
    """Seconds spent so far, by activity."""
    results: int = 0
    """Results asked for so far, which name the next one in the journal."""

    def __post_init__(self) -> None:
        self.prompts = Prompts.of(self.prompts)

    def sample(self, slot: str, k: int) -> Samples:
        """Sample `k` responses to each prompt from the policy of a slot."""
        generators = self.generators()  # also where the samples are on disk, so that the next call gets the next ones

        def compute() -> Samples:
            with self._at(slot):
                return self.policy.sample(self.prompts, k, generators)

        samples = self._recorded("sampling", compute)
        self.tokens += samples.n_tokens
        return samples

    def log_prob(self, samples: Samples, slot: str) -> Tensor:
        """Return the log-probabilities of responses under the policy of a slot, shape ``(B, K)``."""

        def compute() -> Tensor:
            with self._at(slot):
                return self.policy.log_prob(samples)

        return self._recorded("scoring", compute)

    def outcomes(self, samples: Samples, opponents: Samples | None = None) -> Tensor:
        """Return the preference of each response over each, ``(B, K, K)``, or over each opponent, ``(B, K, J)``."""
        k = samples.tokens.shape[1]
        everyone = samples if opponents is None else Samples.beside([samples, opponents])

        def compute() -> Tensor:
            columns = columns_for(self.judge, self.prompts, (everyone, self.policy))
            preference = ask(self.judge, "preference", self.prompts, everyone.text, columns)
            return torch.tensor(preference.to_numpy().matrix()).float()  # a copy, since the matrix is read-only

        matrix = self._recorded("judging", compute)
        return matrix if opponents is None else matrix[:, :k, k:]

    def rewards(self, samples: Samples) -> np.ndarray | None:
        """Return the judge's reward of each response, shape ``(B, K)``, or None if it has no rewards."""
        if getattr(self.judge, "rewards", None) is None:
            return None

        def compute() -> np.ndarray:
            columns = columns_for(self.judge, self.prompts, (samples, self.policy))
            return ask(self.judge, "rewards", self.prompts, samples.text, columns)

        return self._recorded("judging", compute)

    def _at(self, slot: str) -> AbstractContextManager[None]:
        return nullcontext() if slot == self.loaded else self.snapshots.using(slot)

    def _recorded(self, activity: str, compute: Callable[[], Any]) -> Any:
        known = getattr(self.judge, "known", {})  # verdicts that it remembers, and must remember after a resume, too

        def timed() -> tuple[Any, float, int, dict[Any, Any]]:
            calls, before, started = getattr(self.judge, "calls", 0), len(known), time.perf_counter()
            result, seconds = compute(), time.perf_counter() - started
            return result, seconds, getattr(self.judge, "calls", 0) - calls, dict(islice(known.items(), before, None))

        name, self.results = f"{self.results:02d}-{activity}", self.results + 1
        together = activity != "judging"  # the others run the model, which may be sharded over processes
        result, seconds, calls, new = timed() if self.journal is None else self.journal.recorded(name, timed, together)
        known.update(new)
        self.seconds[activity] += seconds
        self.calls += calls
        return result
