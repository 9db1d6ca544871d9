"""A chat model as a judge of conversations: grades and pairwise comparisons, as in MT-Bench (Zheng et al. 2023).

Questions have one or more turns; each answer gets a grade from 1 to 10, or two conversations are compared in both
orders. The wording of the instructions is ours. A reply of the judge that cannot be parsed is requested again, up to a
limit, and then counted as unparsed; it never becomes a score.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data import read
from ..judges.chat import COMPARING, Chat, Endpoint, LocalChat, Reader, Talk, verdict

__all__ = ["Chat", "ChatJudge", "Endpoint", "LocalChat", "Question", "converse", "load_questions"]

GRADE = re.compile(r"\[\[(\d+(?:\.\d+)?)\]\]")
"""A grade in a reply of the judge."""
GRADING = (
    "You are an impartial judge. Grade the assistant's last answer in the conversation below: is it helpful, relevant, "
    "correct, deep, creative and detailed? Explain briefly, then give a grade from 1 to 10 in exactly this form: "
    "[[grade]], for example [[5]]."
)
"""Instruction for a grade."""


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


# -- the judge -----------------------------------------------------------------------------------------------


@dataclass
class ChatJudge(Reader):
    """A chat model that grades and compares; its parameters are those of `windlm.judges.chat.Reader`."""

    def grade(self, questions: Sequence[Question], talks: Sequence[Talk]) -> np.ndarray:
        """Return the grade of each answer, shape ``(questions, turns)``; nan where no reply could be parsed."""
        items = [(i, j) for i, q in enumerate(questions) for j in range(len(q.turns))]
        texts = [
            f"{GRADING}\n\n{_reference(questions[i], j)}[Conversation]\n{_transcript(talks[i], j)}" for i, j in items
        ]
        return self._table(questions, items, self.ask(texts, _grade))

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

        both = self.ask(texts(ours, theirs) + texts(theirs, ours), verdict)
        there = self._table(questions, items, both[: len(items)])
        back = self._table(questions, items, both[len(items) :])
        return (there + 1 - back) / 2, np.abs(there + back - 1)

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


def _transcript(talk: Talk, turn: int) -> str:
    return "\n".join(f"{m['role']}: {m['content']}" for m in talk[: 2 * turn + 2])


def _reference(question: Question, turn: int) -> str:
    if turn >= len(question.references):
        return ""
    return f"[Reference answer]\n{question.references[turn]}\n\n"
