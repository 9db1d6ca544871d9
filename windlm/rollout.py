"""A round's data: the draws of a prompt's policies, their log-probabilities and verdicts, and what is fixed of them."""

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
    """The draws of a stage and what was fixed about them; arrays have the shape ``(B, K)``."""

    samples: Samples
    fixed: Mapping[str, Tensor]
    on_policy: bool = True
    """Whether the first draws are those of the round's policy, for the metrics; ``"current"`` and ``"ref"`` among the
    fixed arrays are then its and the reference's log-probabilities."""

    def __getitem__(self, index: Iterable[int]) -> RolloutBatch:
        rows = [int(i) for i in index]
        return RolloutBatch(self.samples[rows], {k: x[rows] for k, x in self.fixed.items()}, self.on_policy)

    @staticmethod
    def stack(parts: Sequence[RolloutBatch]) -> RolloutBatch:
        """Put the prompts of several parts one after the other."""
        fixed = {name: torch.cat([part.fixed[name] for part in parts]) for name in parts[0].fixed}
        return RolloutBatch(Samples.stack([part.samples for part in parts]), fixed, parts[0].on_policy)


@dataclass
class Rollout:
    """What an objective may ask for while it collects: draws of a slot, log-probabilities, verdicts."""

    policy: LanguagePolicy
    snapshots: WeightSnapshots
    judge: Judge
    prompts: Sequence[Prompt]
    generators: Callable[[], list[np.random.Generator]]
    """New generators, one per prompt, at every call."""
    loaded: str = "current"
    """The slot whose weights are in the model."""
    tokens: int = 0
    """Tokens drawn so far."""
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("sampling", "scoring", "judging"), 0.0))

    def sample(self, slot: str, k: int) -> Samples:
        """Draw `k` responses to each prompt from the policy of a slot."""
        with self._timed("sampling"), self._at(slot):
            samples = self.policy.sample(self.prompts, k, self.generators())
        self.tokens += samples.n_tokens
        return samples

    def log_prob(self, samples: Samples, slot: str) -> Tensor:
        """Return the log-probabilities of responses under the policy of a slot, shape ``(B, K)``."""
        with self._timed("scoring"), self._at(slot):
            return self.policy.log_prob(samples)

    def outcomes(self, samples: Samples, opponents: Samples | None = None) -> Tensor:
        """Return what each response gets against each, ``(B, K, K)``, or against each opponent, ``(B, K, J)``."""
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
