"""The data of a round: responses, their log-probabilities under several policies, and the judge's verdicts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from .judges import Judge
from .policy import LanguagePolicy, Prompt, Samples
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


@dataclass
class Rollout:
    """Access to a round's policies and judge, for `Objective.collect`: samples, log-probabilities, verdicts.

    Policies are named by their slot: "current" (the round's policy), "ref", and those that a rule keeps.
    """

    policy: LanguagePolicy
    snapshots: WeightSnapshots
    judge: Judge
    prompts: Sequence[Prompt]
    generators: Callable[[], list[np.random.Generator]]
    """Returns new generators, one per prompt, at every call."""
    loaded: str = "current"
    """The slot whose weights are in the model."""
    tokens: int = 0
    """Tokens sampled so far."""
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("sampling", "scoring", "judging"), 0.0))
    """Seconds spent so far, by activity."""

    def sample(self, slot: str, k: int) -> Samples:
        """Sample `k` responses to each prompt from the policy of a slot."""
        with self._timed("sampling"), self._at(slot):
            samples = self.policy.sample(self.prompts, k, self.generators())
        self.tokens += samples.n_tokens
        return samples

    def log_prob(self, samples: Samples, slot: str) -> Tensor:
        """Return the log-probabilities of responses under the policy of a slot, shape ``(B, K)``."""
        with self._timed("scoring"), self._at(slot):
            return self.policy.log_prob(samples)

    def outcomes(self, samples: Samples, opponents: Samples | None = None) -> Tensor:
        """Return the preference of each response over each, ``(B, K, K)``, or over each opponent, ``(B, K, J)``."""
        k = samples.tokens.shape[1]
        everyone = samples if opponents is None else Samples.beside([samples, opponents])
        with self._timed("judging"):
            matrix = torch.as_tensor(self.judge.preference(self.prompts, everyone.text).matrix()).float()
        return matrix if opponents is None else matrix[:, :k, k:]

    def _at(self, slot: str) -> AbstractContextManager[None]:
        return nullcontext() if slot == self.loaded else self.snapshots.using(slot)

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[name] += time.perf_counter() - started
