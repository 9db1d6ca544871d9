"""A chat model as the judge of conversations: grades, and comparisons with positions swapped (MT-Bench's protocol).

The protocol is that of Zheng et al. (2023): questions of one or more turns, a grade from 1 to 10 for each answer, or
which of two conversations is better. The words of the instructions are ours. An answer of the judge that cannot be read
is asked for again, and then counted as unread: it never becomes a score.
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
Talk = list[Message]
Chat = Callable[[Sequence[Talk]], list[str]]
"""Answers a batch of conversations."""

GRADE = re.compile(r"\[\[(\d+(?:\.\d+)?)\]\]")
VERDICT = re.compile(r"\[\[([ABC])\]\]")
WORTH = {"A": 1.0, "B": 0.0, "C": 0.5}

GRADING = (
    "You are an impartial judge. Grade the assistant's last answer in the conversation below: is it helpful, relevant, "
    "correct, deep, creative and detailed? Explain briefly, then give a grade from 1 to 10 in exactly this form: "
    "[[grade]], for example [[5]]."
)
COMPARING = (
    "You are an impartial judge. Two assistants answered the same user. Say whose last answer is better: more helpful, "
    "relevant, correct, deep, creative and detailed. Neither the order nor the length nor the names of the assistants "
    "matter. Explain briefly, then decide in exactly this form: [[A]] if A is better, [[B]] if B is, [[C]] for a tie."
)


@dataclass(frozen=True)
class Question:
    """What a user says, turn by turn."""

    name: str
    category: str
    turns: tuple[str, ...]
    references: tuple[str, ...] = ()
    """Answers that are known to be right, one per turn, for the judge."""


def load_questions(source: str, references: str | None = None, limit: int | None = None) -> list[Question]:
    """Return questions from JSON lines with ``turns``, and optionally ``question_id``, ``category``, ``reference``.

    Parameters
    ----------
    source : str
        A file, or ``package:path`` for a file inside an installed package.
    references : str, optional
        Right answers in FastChat's form: JSON lines with ``question_id`` and ``choices``, whose first has ``turns``.
    limit : int, optional
        Take only the first ones.

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
    """Return the path of a file, also of ``package:path``."""
    package, colon, inside = source.partition(":")
    if not colon or not package.isidentifier():
        return source
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(f"There is no installed package {package!r} to read {inside} from.")
    return str(Path(next(iter(spec.submodule_search_locations))) / inside)


def converse(questions: Sequence[Question], chat: Chat) -> list[Talk]:
    """Return each question as a conversation with the model's answers, turn by turn."""
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
    """A policy that answers; its draws are functions of the seed and of how often it was asked."""

    policy: LanguagePolicy
    seed: int = 0
    asked: int = 0

    def __call__(self, talks: Sequence[Talk]) -> list[str]:
        self.asked += 1
        samples = self.policy.sample(list(talks), 1, np.random.default_rng([self.seed, self.asked]))
        return [row[0] for row in samples.text]


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible server.

    Raises
    ------
    ValueError
        When called, if the server refuses, cannot be reached, or answers in another form.
    """

    url: str
    """Up to the version, such as http://localhost:8000/v1."""
    model: str
    key_variable: str = "OPENAI_API_KEY"
    """Environment variable with the key, if there is one."""
    temperature: float = 0.0
    max_tokens: int = 1024
    timeout: float = 120.0
    """Seconds to wait for an answer."""

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
                said = json.loads(reply.read())
            return str(said["choices"][0]["message"]["content"] or "")
        except urllib.error.HTTPError as error:
            raise ValueError(
                f"{address} answered {error.code}: {error.read()[:200].decode(errors='replace')}"
            ) from None
        except (urllib.error.URLError, TimeoutError) as error:
            raise ValueError(f"{address} cannot be reached: {error}.") from None
        except (json.JSONDecodeError, KeyError, IndexError, TypeError) as error:
            raise ValueError(f"{address} did not answer as a chat completion does: {error!r}.") from None


# -- the judge -----------------------------------------------------------------------------------------------


@dataclass
class ChatJudge:
    """A chat model that grades and compares.

    Parameters
    ----------
    chat : callable
    tries : int
        How often an answer that cannot be read is asked for.
    """

    chat: Chat
    tries: int = 3
    calls: int = 0
    unread: list[str] = field(default_factory=list)
    """The last answers of the judge where none could be read."""

    def grade(self, questions: Sequence[Question], talks: Sequence[Talk]) -> np.ndarray:
        """Return the grade of each answer, shape ``(questions, turns)``; nan where no answer of the judge was read."""
        asked = [(i, j) for i, q in enumerate(questions) for j in range(len(q.turns))]
        texts = [f"{GRADING}\n\n{_reference(questions[i], j)}[Conversation]\n{_told(talks[i], j)}" for i, j in asked]
        return self._table(questions, asked, self._ask(texts, _grade))

    def compare(
        self, questions: Sequence[Question], ours: Sequence[Talk], theirs: Sequence[Talk]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return how our answers fare, in both orders.

        Returns
        -------
        wins : array of shape (questions, turns)
            1 for a victory in both orders, 0 for a defeat in both; the mean of the two otherwise, nan if one is unread.
        bias : array of the same shape
            How far the two orders disagree.
        """
        asked = [(i, j) for i, q in enumerate(questions) for j in range(len(q.turns))]

        def texts(first: Sequence[Talk], second: Sequence[Talk]) -> list[str]:
            return [
                f"{COMPARING}\n\n{_reference(questions[i], j)}[Assistant A]\n{_told(first[i], j)}\n\n"
                f"[Assistant B]\n{_told(second[i], j)}"
                for i, j in asked
            ]

        both = self._ask(texts(ours, theirs) + texts(theirs, ours), _verdict)
        there = self._table(questions, asked, both[: len(asked)])
        back = self._table(questions, asked, both[len(asked) :])
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
        self.unread += [last[i] for i in range(len(texts)) if i not in values]
        return [values.get(i, np.nan) for i in range(len(texts))]

    @staticmethod
    def _table(questions: Sequence[Question], asked: Sequence[tuple[int, int]], values: Sequence[float]) -> np.ndarray:
        table = np.full((len(questions), max(len(q.turns) for q in questions)), np.nan)
        for (i, j), value in zip(asked, values, strict=True):
            table[i, j] = value
        return table


def _grade(answer: str) -> float | None:
    found = GRADE.findall(answer)
    value = float(found[-1]) if found else None
    return value if value is not None and 1 <= value <= 10 else None


def _verdict(answer: str) -> float | None:
    found = set(VERDICT.findall(answer))
    return WORTH[found.pop()] if len(found) == 1 else None


def _told(talk: Talk, turn: int) -> str:
    return "\n".join(f"{m['role']}: {m['content']}" for m in talk[: 2 * turn + 2])


def _reference(question: Question, turn: int) -> str:
    if turn >= len(question.references):
        return ""
    return f"[Reference answer]\n{question.references[turn]}\n\n"
