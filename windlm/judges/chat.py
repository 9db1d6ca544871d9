"""Chat models, local or behind a server, and what a judge among them says of two responses.

A reply that cannot be read is requested again, up to a limit, and then counted as unread; it never becomes a verdict.
"""

from __future__ import annotations

import itertools
import os
import re
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from ..policy import LanguagePolicy, Prompt
from .base import JudgeUnavailable
from .reward_model import transcript

Message = dict[str, str]
"""A message with role and content."""
Talk = list[Message]
"""A conversation."""
Chat = Callable[[Sequence[Talk]], list[str]]
"""Returns the reply to each of a batch of conversations."""

VERDICT = re.compile(r"\[\[([ABC])\]\]")
"""A verdict in a reply of the judge."""
SCORES = {"A": 1.0, "B": 0.0, "C": 0.5}
"""The win probability of the first response by verdict."""
COMPARING = (
    "You are an impartial judge. Two assistants answered the same user. Say whose last answer is better: more helpful, "
    "relevant, correct, deep, creative and detailed. Neither the order nor the length nor the names of the assistants "
    "matter. Explain briefly, then decide in exactly this form: [[A]] if A is better, [[B]] if B is, [[C]] for a tie."
)
"""Instruction for a comparison."""
LONGEST_WAIT = 60.0
"""The longest pause before a server that refused for its rate limit is asked again, in seconds."""


# -- chat models ---------------------------------------------------------------------------------------------


@dataclass
class LocalChat:
    """A policy as a chat model; its replies depend on the seed and on the number of calls so far."""

    policy: LanguagePolicy
    seed: int = 0
    calls: int = 0

    def __call__(self, talks: Sequence[Talk]) -> list[str]:
        self.calls += 1
        samples = self.policy.sample(list(talks), 1, np.random.default_rng([self.seed, self.calls]))
        return [row[0] for row in samples.text]


@dataclass(frozen=True)
class Endpoint:
    """A chat model behind an OpenAI-compatible server, asked by the ``openai`` client, several requests at a time.

    Faults of server and connection are tried again by the client, `retries` times. A server that refuses for its rate
    limit is asked again until it answers.

    Raises
    ------
    ValueError
        If ``openai`` is not installed; when called, `JudgeUnavailable` if the server returns an error, cannot be
        reached, or replies in another format.
    """

    url: str
    """Base URL including the version, such as http://localhost:8000/v1."""
    model: str
    key_variable: str = "OPENAI_API_KEY"
    """Environment variable with the API key, if one is needed."""
    temperature: float = 0.0
    max_tokens: int = 1024
    timeout: float = 120.0
    """Timeout of a request, in seconds."""
    concurrency: int = 16
    """Maximum number of requests at a time."""
    retries: int = 5
    """Maximum number of repetitions of a request that failed."""

    def __post_init__(self) -> None:
        if self.concurrency < 1:
            raise ValueError(f"concurrency must be at least 1, but it is {self.concurrency}.")
        try:
            import openai  # noqa: F401
        except ImportError:
            raise ValueError("A chat server is asked by the openai client: install windgames[eval].") from None

    def __call__(self, talks: Sequence[Talk]) -> list[str]:
        with ThreadPoolExecutor(self.concurrency) as pool:
            replies = [pool.submit(self._ask, talk) for talk in talks]
            try:
                return [reply.result() for reply in replies]
            finally:
                pool.shutdown(cancel_futures=True)  # after an error

    @cached_property
    def _client(self) -> Any:
        import openai

        key = os.environ.get(self.key_variable) or "none"
        client = openai.OpenAI(base_url=self.url, api_key=key, timeout=self.timeout, max_retries=self.retries)
        weakref.finalize(self, client.close)
        return client

    def _ask(self, talk: Talk) -> str:
        import openai

        settings: dict[str, Any] = {"temperature": self.temperature, "max_tokens": self.max_tokens}
        for attempt in itertools.count():
            try:
                reply = self._client.chat.completions.create(model=self.model, messages=talk, **settings)
                return str(reply.choices[0].message.content or "")
            except openai.RateLimitError as error:
                if error.code == "insufficient_quota":
                    raise JudgeUnavailable(f"{self.url} refuses: {error}") from None
                time.sleep(min(2.0**attempt, LONGEST_WAIT))
            except openai.APIConnectionError as error:
                raise JudgeUnavailable(f"{self.url} cannot be reached: {error.__cause__ or error}") from None
            except openai.APIStatusError as error:
                body = error.response.text[:200]
                raise JudgeUnavailable(f"{self.url} answered {error.status_code}: {body}") from None
            except (openai.APIError, AttributeError, IndexError, TypeError) as error:
                raise JudgeUnavailable(f"{self.url} did not return a chat completion: {error!r}.") from None
        raise AssertionError


# -- replies that are read -----------------------------------------------------------------------------------


@dataclass
class Reader:
    """Asks a chat model until its replies can be read.

    Parameters
    ----------
    chat : callable
    tries : int
        Maximum number of requests until a reply can be read.
    """

    chat: Chat
    tries: int = 3
    calls: int = 0
    """Number of requests so far."""
    unparsed: list[str] = field(default_factory=list)
    """The last reply wherever none could be read."""

    def ask(self, texts: Sequence[str], parse: Callable[[str], float | None]) -> list[float]:
        """Return what the replies to texts say, nan where none could be read."""
        values: dict[int, float] = {}
        last: dict[int, str] = {}
        for _ in range(self.tries):
            todo = [i for i in range(len(texts)) if i not in values]
            if not todo:
                break
            self.calls += len(todo)
            answers = self.chat([[{"role": "user", "content": texts[i]}] for i in todo])
            for i, answer in zip(todo, answers, strict=True):
                last[i] = answer
                if (value := parse(answer)) is not None:
                    values[i] = value
        self.unparsed += [last[i] for i in range(len(texts)) if i not in values]
        return [values.get(i, np.nan) for i in range(len(texts))]


def verdict(answer: str) -> float | None:
    """Return the win probability of the first response by the verdict of a reply; None if there is not just one."""
    verdicts = set(VERDICT.findall(answer))
    return SCORES[verdicts.pop()] if len(verdicts) == 1 else None


@dataclass
class ChatComparison(Reader):
    """A chat model as the function of a `PairwiseJudge`, which asks for both orders; its parameters are `Reader`'s."""

    def __call__(self, prompts: list[Prompt], first: list[str], second: list[str]) -> list[float]:
        return self.ask([comparison(*triple) for triple in zip(prompts, first, second, strict=True)], verdict)

    def check(self, prompts: Sequence[Prompt], max_new_tokens: int) -> None:
        """Check that a comparison fits a local model's context, if its tokens are about as long as the policy's."""
        policy = getattr(self.chat, "policy", None)
        if policy is None or policy.context is None:
            return
        for i, prompt in enumerate(prompts):
            talk = [{"role": "user", "content": comparison(prompt, "", "")}]
            render = policy.tokenizer.apply_chat_template
            ids = render(talk, add_generation_prompt=True, tokenize=True, return_dict=True)["input_ids"]
            length = len(ids) + 2 * max_new_tokens
            if length + policy.max_new_tokens > policy.context:
                raise ValueError(
                    f"The comparison for prompt {i} has up to {length} tokens; with a reply of {policy.max_new_tokens} "
                    f"it does not fit the judge's context of {policy.context}."
                )


def comparison(prompt: Prompt, first: str, second: str) -> str:
    """Return the request to compare two responses."""
    return f"{COMPARING}\n\n[User]\n{transcript(prompt)}\n\n[Assistant A]\n{first}\n\n[Assistant B]\n{second}"
