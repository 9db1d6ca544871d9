"""A chat model as a judge of conversations: grades and pairwise comparisons, as in MT-Bench (Zheng et al. 2023).

Questions have one or more turns; each answer gets a grade from 1 to 10, or two conversations are compared in both
orders. The wording of the instructions is ours. A reply of the judge that cannot be parsed is requested again, up to a
limit, and then counted as unparsed; it never becomes a score.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..data import read
from ..policy import LanguagePolicy

Message = dict[str, str]
"""A message with role and content."""
Talk = list[Message]
"""A conversation."""
Chat = Callable[[Sequence[Talk]], list[str]]
"""Returns the reply to each of a batch of conversations."""

GRADE = re.compile(r"\[\[(\d+(?:\.\d+)?)\]\]")
"""A grade in a reply of the judge."""
VERDICT = re.compile(r"\[\[([ABC])\]\]")
"""A verdict in a reply of the judge."""
SCORES = {"A": 1.0, "B": 0.0, "C": 0.5}
"""The win probability of the first conversation by verdict."""

GRADING = (
    "You are an impartial judge. Grade the assistant's last answer in the conversation below: is it helpful, relevant, "
    "correct, deep, creative and detailed? Explain briefly, then give a grade from 1 to 10 in exactly this form: "
    "[[grade]], for example [[5]]."
)
"""Instruction for a grade."""
COMPARING = (
    "You are an impartial judge. Two assistants answered the same user. Say whose last answer is better: more helpful, "
    "relevant, correct, deep, creative and detailed. Neither the order nor the length nor the names of the assistants "
    "matter. Explain briefly, then decide in exactly this form: [[A]] if A is better, [[B]] if B is, [[C]] for a tie."
)
"""Instruction for a comparison."""


@dataclass(frozen=True)
class Question:
    """The user's turns of a conversation."""

    name: str
    category: str
    turns: tuple[str, ...]
    references: tuple[str, ...] = ()
    """Reference answers for the judge, one per turn."""


def load_questions(source: str, references: str | None = None, limit: int | None = None) -> list[Question]:
    """Load questions from JSON lines with ``turns``, and optionally ``question_id``, ``category``, ``reference``.

    Parameters
    ----------
    source : str
        A file, or ``package:path`` for a file of an installed package.
    references : str, optional
        Reference answers in FastChat's format: JSON lines with ``question_id`` and ``choices``, the first of which has
        ``turns``.
    limit : int, optional
        Maximum number of questions.

    Raises
    ------
    ValueError
        If there is no such file or package, or a question has no turns.
    """
    answers = read(located(references)) if references else []
    known = {str(row["question_id"]): row["choices"][0]["turns"] for row in answers}
    questions = []
    for i, row in enumerate(read(located(source))[:limit]):
        turns, name = row.get("turns"), str(row.get("question_id", i))
        if not isinstance(turns, list) or not turns or not all(isinstance(t, str) for t in turns):
            raise ValueError(f"Question {i} of {source} has no list of texts 'turns'; it has {', '.join(row)}.")
        right = tuple(known.get(name) or row.get("reference") or ())
        questions.append(Question(name, str(row.get("category", "")), tuple(turns), right))
    if not questions:
        raise ValueError(f"{source} has no questions.")
    return questions


def located(source: str) -> str:
    """Return the path of a file, resolving ``package:path``; ValueError if the package is not installed."""
    package, colon, inside = source.partition(":")
    if not colon or not package.isidentifier():
        return source
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(f"There is no installed package {package!r} to read {inside} from.")
    return str(Path(next(iter(spec.submodule_search_locations))) / inside)


def converse(questions: Sequence[Question], chat: Chat) -> list[Talk]:
    """Return each question as a conversation, with the model's replies turn by turn."""
    talks: list[Talk] = [[] for _ in questions]
    for turn in range(max(len(q.turns) for q in questions)):
        open_talks = [(q, t) for q, t in zip(questions, talks, strict=True) if turn < len(q.turns)]
        for q, talk in open_talks:
            talk.append({"role": "user", "content": q.turns[turn]})
        for (_, talk), answer in zip(open_talks, chat([talk for _, talk in open_talks]), strict=True):
            talk.append({"role": "assistant", "content": answer})
    return talks


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
    """A chat model behind an OpenAI-compatible server.

    Raises
    ------
    ValueError
        When called, if the server returns an error, cannot be reached, or replies in another format.
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

    def __call__(self, talks: Sequence[Talk]) -> list[str]:
        return [self._ask(talk) for talk in talks]

    def _ask(self, talk: Talk) -> str:
        body = {
            "model": self.model,
            "messages": talk,
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
        }
        head = {"Content-Type": "application/json"}
        if key := os.environ.get(self.key_variable):
            head["Authorization"] = f"Bearer {key}"
        address = self.url.rstrip("/") + "/chat/completions"
        request = urllib.request.Request(address, json.dumps(body).encode(), head)
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as reply:
                body = json.loads(reply.read())
            return str(body["choices"][0]["message"]["content"] or "")
        except urllib.error.HTTPError as error:
            raise ValueError(
                f"{address} answered {error.code}: {error.read()[:200].decode(errors='replace')}"
            ) from None
        except (urllib.error.URLError, TimeoutError) as error:
            raise ValueError(f"{address} cannot be reached: {error}.") from None
        except (json.JSONDecodeError, KeyError, IndexError, TypeError) as error:
            raise ValueError(f"{address} did not return a chat completion: {error!r}.") from None


# -- the judge -----------------------------------------------------------------------------------------------


@dataclass
class ChatJudge:
    """A chat model that grades and compares.

    Parameters
    ----------
    chat : callable
    tries : int
        Maximum number of requests until a reply can be parsed.
    """

    chat: Chat
    tries: int = 3
    calls: int = 0
    """Number of requests so far."""
    unparsed: list[str] = field(default_factory=list)
    """The last reply wherever none could be parsed."""

    def grade(self, questions: Sequence[Question], talks: Sequence[Talk]) -> np.ndarray:
        """Return the grade of each answer, shape ``(questions, turns)``; nan where no reply could be parsed."""
        items = [(i, j) for i, q in enumerate(questions) for j in range(len(q.turns))]
        texts = [
            f"{GRADING}\n\n{_reference(questions[i], j)}[Conversation]\n{_transcript(talks[i], j)}" for i, j in items
        ]
        return self._table(questions, items, self._ask(texts, _grade))

    def compare(
        self, questions: Sequence[Question], ours: Sequence[Talk], theirs: Sequence[Talk]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Compare our answers with theirs, in both orders.

        Returns
        -------
        wins : array of shape (questions, turns)
            1 for a win in both orders, 0 for a loss in both, else the mean of the two; nan if one could not be parsed.
        bias : array of the same shape
            The disagreement of the two orders.
        """
        items = [(i, j) for i, q in enumerate(questions) for j in range(len(q.turns))]

        def texts(first: Sequence[Talk], second: Sequence[Talk]) -> list[str]:
            return [
                f"{COMPARING}\n\n{_reference(questions[i], j)}[Assistant A]\n{_transcript(first[i], j)}\n\n"
                f"[Assistant B]\n{_transcript(second[i], j)}"
                for i, j in items
            ]

        both = self._ask(texts(ours, theirs) + texts(theirs, ours), _verdict)
        there = self._table(questions, items, both[: len(items)])
        back = self._table(questions, items, both[len(items) :])
        return (there + 1 - back) / 2, np.abs(there + back - 1)

    def _ask(self, texts: Sequence[str], parse: Callable[[str], float | None]) -> list[float]:
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

    @staticmethod
    def _table(questions: Sequence[Question], items: Sequence[tuple[int, int]], values: Sequence[float]) -> np.ndarray:
        table = np.full((len(questions), max(len(q.turns) for q in questions)), np.nan)
        for (i, j), value in zip(items, values, strict=True):
            table[i, j] = value
        return table


def _grade(answer: str) -> float | None:
    grades = GRADE.findall(answer)
    value = float(grades[-1]) if grades else None
    return value if value is not None and 1 <= value <= 10 else None


def _verdict(answer: str) -> float | None:
    verdicts = set(VERDICT.findall(answer))
    return SCORES[verdicts.pop()] if len(verdicts) == 1 else None


def _transcript(talk: Talk, turn: int) -> str:
    return "\n".join(f"{m['role']}: {m['content']}" for m in talk[: 2 * turn + 2])


def _reference(question: Question, turn: int) -> str:
    if turn >= len(question.references):
        return ""
    return f"[Reference answer]\n{question.references[turn]}\n\n"
