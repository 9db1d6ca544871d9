"""The data of a round: responses, their log-probabilities under several policies, and the judge's verdicts."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Literal, Protocol, get_args

import numpy as np
import torch
from torch import Tensor

from .data import Prompts, last_turn
from .judges import Judge
from .judges.base import ask
from .judges.columns import columns_for
from .judges.failures import verdicts
from .policy import LanguagePolicy, Samples
from .weights import WeightSnapshots


@dataclass(frozen=True)
class RolloutBatch:
    """The responses that a stage trains on, with everything the loss needs beside the model.

    Attributes
    ----------
    samples : Samples
        `K` responses to each of `B` prompts.
    fixed : mapping of name to tensor of shape ``(B, K)`` or ``(B, K, ...)``
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


Activity = Literal["sampling", "judging", "scoring"]
"""What is done to make a round's data, in this order."""
ACTIVITIES: tuple[Activity, ...] = get_args(Activity)


class Recorder(Protocol):
    """A journal of results by name."""

    def has(self, name: str, together: bool) -> bool:
        """Return whether the journal has this result (of all processes, if together)."""
        ...

    def read(self, name: str) -> Any:
        """Return a result."""
        ...

    def write(self, name: str, result: Any) -> None:
        """Keep a result."""
        ...


@dataclass(frozen=True)
class Record:
    """A result as the journal keeps it."""

    result: Any
    seconds: float
    calls: int = 0
    """Judge calls that it took."""
    failed: int = 0
    """Responses that count as the worst because the judge failed."""
    known: Mapping[Any, Any] = field(default_factory=dict)
    """Verdicts that the judge remembers, and must remember after a resume, too."""


@dataclass
class Rollout:
    """Access to a round's policies and judge, for `Objective.collect`: samples, log-probabilities, verdicts.

    Policies are named by their slot: "current" (the round's policy), "ref", and those that a rule keeps.
    """

    policy: LanguagePolicy
    snapshots: WeightSnapshots | None
    judge: Judge
    prompts: Prompts
    generators: Callable[[], list[np.random.Generator]]
    """Returns new generators, one per prompt, at every call."""
    loaded: str = "current"
    """The slot whose weights are in the model."""
    journal: Recorder | None = None
    """Where results are kept, so that a run that was killed repeats none of them; None for nowhere."""
    only: Activity | None = None
    """The only activity that is done here; earlier ones must be in the journal, and later ones return placeholders."""
    on_judge_error: Literal["stop", "worst"] = "stop"
    """What becomes of a response at which the judge fails: the run stops, or the response counts as the worst."""
    judge_retries: int = 0
    """How often a judge that fails is asked again."""
    tokens: int = 0
    """Tokens sampled so far."""
    calls: int = 0
    """Judge calls so far that were not served from the cache."""
    failed: int = 0
    """Responses so far that count as the worst because the judge failed."""
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("sampling", "scoring", "judging"), 0.0))
    """Seconds spent so far, by activity."""
    results: Counter[str] = field(default_factory=Counter)
    """Results asked for so far, by activity, which name the next one in the journal."""
    outcome: Tensor | None = None
    """The last preferences of responses over each other, shape ``(B, K, K)``."""

    def __post_init__(self) -> None:
        self.prompts = Prompts.of(self.prompts)

    def sample(self, slot: str, k: int) -> Samples:
        """Sample `k` responses to each prompt from the policy of a slot."""
        generators = self.generators()  # also where the samples are on disk, so that the next call gets the next ones

        def compute() -> Samples:
            with self._at(slot):
                samples = self.policy.sample(self.prompts, k, generators)
            known = samples.known
            return replace(samples, known={slot: known["current"]} if known else {})

        samples: Samples = self._recorded("sampling", compute, lambda: None)
        self.tokens += samples.n_tokens
        return samples

    def own(self, batch: RolloutBatch, k: int) -> Samples:
        """Return `k` responses of the round's policy to each prompt: the batch's, if it has any."""
        return batch.samples.first(k) if batch.on_policy else self.sample("current", k)

    def log_prob(self, samples: Samples, slot: str, per_token: bool = False) -> Tensor:
        """Return the log-probabilities of responses under the policy of a slot, or of their tokens; see `policy`."""
        if slot in samples.known:
            return samples.known[slot] if per_token else samples.known[slot].sum(-1)

        def compute() -> Tensor:
            with self._at(slot):
                return self.policy.log_prob(samples, per_token) if per_token else self.policy.log_prob(samples)

        shape = samples.tokens.shape[: 3 if per_token else 2]
        return self._recorded("scoring", compute, lambda: torch.zeros(shape))

    def outcomes(self, samples: Samples, opponents: Samples | None = None) -> Tensor:
        """Return the preference of each response over each, ``(B, K, K)``, or over each opponent, ``(B, K, J)``."""
        k = samples.tokens.shape[1]
        everyone = samples if opponents is None else Samples.beside([samples, opponents])
        n = everyone.tokens.shape[1]

        def compute() -> Tensor:
            return torch.from_numpy(self._verdicts("preference", everyone)).float()

        matrix = self._recorded("judging", compute, lambda: torch.full((len(everyone), n, n), 0.5))
        if opponents is not None:
            return matrix[:, :k, k:]
        self.outcome = matrix
        return matrix

    def rewards(self, samples: Samples) -> np.ndarray | None:
        """Return the judge's reward of each response, shape ``(B, K)``, or None if it has no rewards.

        Responses at which the judge failed have the lowest reward of the others.
        """

        def compute() -> np.ndarray | None:
            if getattr(self.judge, "rewards", None) is None:
                return None
            values = self._verdicts("rewards", samples)
            judged = values[~np.isnan(values)]
            return np.where(np.isnan(values), judged.min() if judged.size else 0.0, values)

        return self._recorded("judging", compute, lambda: np.zeros(samples.tokens.shape[:2]))

    def reward_parts(self, samples: Samples) -> dict[str, np.ndarray]:
        """Return each of several rewards by its function's name, shape ``(B, K)``; nothing of a judge with just one."""

        def compute() -> dict[str, np.ndarray]:
            names = getattr(self.judge, "names", ())
            if len(names) < 2 or self.failed:
                return {}
            columns = columns_for(self.judge, self.prompts, (samples, self.policy))
            parts = self.judge.parts(self.prompts, samples.text, columns)  # type: ignore[attr-defined]
            return {name: parts[..., n] for n, name in enumerate(names)}

        return self._recorded("judging", compute, dict)

    def _verdicts(self, method: Literal["preference", "rewards"], samples: Samples) -> np.ndarray:
        """Return what the judge says of all responses, and find those at which it fails."""

        def judged(rows: Sequence[int], responses: Sequence[int]) -> np.ndarray:
            part, prompts = samples[rows].at(responses), self.prompts.rows(rows)
            columns = columns_for(self.judge, prompts, (part, self.policy))
            found = ask(self.judge, method, prompts, part.text, columns)
            # a copy, since the matrix is read-only
            return np.asarray(found) if method == "rewards" else np.array(found.to_numpy().matrix())

        def name(i: int, j: int) -> str:
            return f"response {j}, {samples.text[i][j]!r:.300}, to the prompt {last_turn(self.prompts[i])!r:.300}"

        b, k = samples.tokens.shape[:2]
        worst = self.on_judge_error == "worst"
        found, failed = verdicts(judged, range(b), k, name, method == "preference", self.judge_retries, worst)
        if failed.all() and b > 1:
            judged(range(b), range(k))  # raises once more: a judge that fails at everything says nothing
        self.failed += int(failed.sum()) if method == "preference" else 0
        self.policy.report("judging", b * k, samples.n_tokens)
        return found

    def _at(self, slot: str) -> AbstractContextManager[None]:
        if slot == self.loaded:
            return nullcontext()
        assert self.snapshots is not None
        return self.snapshots.using(slot)

    def _recorded(self, activity: Activity, compute: Callable[[], Any], placeholder: Callable[[], Any]) -> Any:
        name = f"{activity}-{self.results[activity]:02d}"
        self.results[activity] += 1
        if self.journal is not None and self.journal.has(name, together=activity != "judging"):
            record: Record = self.journal.read(name)  # "together": the others run a model that may be sharded
        elif self.only in (None, activity):
            record = self._computed(name, compute)
            if self.journal is not None:
                self.journal.write(name, record)
        elif ACTIVITIES.index(activity) > ACTIVITIES.index(self.only):
            return placeholder()
        else:
            command = {"sampling": "windlm generate", "judging": "windlm judge"}[activity]
            raise ValueError(f"The round is not ready: its {activity} is not in {self.journal}. Run {command} first.")
        getattr(self.judge, "known", {}).update(record.known)
        self.seconds[activity] += record.seconds
        self.calls += record.calls
        self.failed += record.failed
        return record.result

    def _computed(self, name: str, compute: Callable[[], Any]) -> Record:
        """Compute a result; what the judge had answered when it failed is kept for the next try."""
        judge, journal, answered = self.judge, self.journal, f"{name}-answered"
        earlier = journal.read(answered) if journal is not None and journal.has(answered, False) else Record(None, 0.0)
        known = getattr(judge, "known", {})
        before, calls, failed, started = len(known), getattr(judge, "calls", 0), self.failed, time.perf_counter()
        known.update(earlier.known)

        def record(result: Any) -> Record:
            seconds, asked = time.perf_counter() - started, getattr(judge, "calls", 0) - calls
            new = dict(islice(known.items(), before, None))
            return Record(result, seconds, earlier.calls + asked, self.failed - failed, new)

        try:
            done = record(compute())
        except Exception:
            if journal is not None and len(known) > before:
                journal.write(answered, record(None))
            raise
        self.failed = failed
        return done
