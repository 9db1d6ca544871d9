"""Prompts and labelled pairs, from local files or the hub.

A source is a local file (JSON lines, JSON, parquet, or plain text with one prompt per line, all but parquet also
compressed as .gz) or the name of a hub data set. Columns are named by the user, or recognised by the names that common
data sets use.
"""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any, Literal, get_args, overload

import yaml

from .policy import LanguagePolicy, Prompt

Row = Mapping[str, Any]
"""One row of a data set."""

SPLITS = {
    "openbmb/UltraFeedback": "train",
    "HuggingFaceH4/ultrafeedback_binarized": "train_prefs",
    "trl-lib/ultrafeedback-prompt": "train",
}
"""Default splits of known hub data sets; "train" for all others."""
SUFFIXES = (".jsonl", ".json", ".parquet", ".txt")
"""Formats of local files; all but parquet may be followed by .gz."""
PROMPT_COLUMNS = ("prompt", "instruction", "question", "messages", "text", "input")
"""Columns searched for the prompt if none is named, in order."""
VERDICTS: dict[tuple[str, str], dict[Any, int | None]] = {
    ("response1", "response2"): {1: 0, 2: 1, 0: None},
    ("output_1", "output_2"): {1: 0, 2: 1, 0: None},
    ("response_a", "response_b"): {"A": 0, "B": 1, "tie": None, "C": None},
    ("conversation_a", "conversation_b"): {"model_a": 0, "model_b": 1, "tie": None, "tie (bothbad)": None},
}
"""Columns of two answers, and the index of the one that each label prefers, in any case; None for a tie."""
LABELS = ("label", "winner")
"""Columns of the label, in order."""
SCORED = (("completions", "scores"), ("responses", "scores"), ("responses", "rewards"))
"""Columns of several answers to a prompt and of their scores, if these are not in the answers themselves."""
Overlong = Literal["stop", "drop", "truncate"]
"""What is done with prompts that are too long."""
TURN = re.compile(r"\n\n(Human|Assistant):")
"""The start of a turn in a transcript, as in HH-RLHF."""


@dataclass(frozen=True)
class Data:
    """Source of prompts or labelled pairs."""

    source: str
    """Local file (.jsonl, .json, .parquet, .txt, or .gz of these) or hub name, such as openbmb/UltraFeedback."""
    subset: str | None = None
    """Configuration of a hub data set, such as main."""
    split: str | None = None
    """Split of a hub data set; None for the usual one of a known data set, else train."""
    prompt: str | None = None
    """Column of the prompt, a text or chat messages; None for the first of prompt, instruction (joined with a column
    input), question, messages, text and input, else the common beginning of the conversations chosen and rejected."""
    limit: int | None = None
    """Maximum number of prompts or pairs, the first ones; None for all."""
    chat: bool = False
    """Whether to turn a text into a user message, to which the model's chat template is applied."""
    system: str | None = None
    """System message before every conversation that has none; texts become user messages."""
    template_args: tuple[str, ...] = ()
    """Arguments of the chat template as name=value, such as enable_thinking=false."""
    max_tokens: int | None = None
    """Maximum length of a prompt, in tokens; None for what the model's context leaves beside a response."""
    overlong: Overlong = "stop"
    """Whether a longer prompt stops the run, is dropped, or loses its first tokens (truncate)."""

    def __post_init__(self) -> None:
        for name in ("limit", "max_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, but it is {value}.")
        if self.overlong not in get_args(Overlong):
            raise ValueError(f"overlong must be stop, drop or truncate, but it is {self.overlong!r}.")
        self.template()

    def template(self) -> dict[str, Any]:
        """Return the arguments of the chat template, with values as YAML reads them."""
        given = {}
        for argument in self.template_args:
            name, equals, value = argument.partition("=")
            if not equals or not name.isidentifier():
                raise ValueError(
                    f"template_args are name=value, such as enable_thinking=false, but one is {argument!r}."
                )
            given[name] = yaml.safe_load(value)
        return given


@dataclass(frozen=True, eq=False)
class Prompts(Sequence[Prompt]):
    """Prompts with the columns of their data set, which rewards may read; an immutable sequence of prompts.

    It equals another with the same prompts and columns, and a list of the same prompts.

    Parameters
    ----------
    prompts : sequence of prompts
    columns : mapping of name to list, one value per prompt

    Raises
    ------
    ValueError
        If a column has another length.
    """

    prompts: Sequence[Prompt]
    columns: Mapping[str, list[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "prompts", tuple(self.prompts))
        object.__setattr__(self, "columns", {name: list(values) for name, values in self.columns.items()})
        for name, values in self.columns.items():
            if len(values) != len(self.prompts):
                raise ValueError(f"Column {name!r} has {len(values)} values for {len(self.prompts)} prompts.")

    @staticmethod
    def of(source: Any) -> Prompts:
        """Return prompts from `Prompts`, a list of texts or conversations, a list of rows, or a `datasets.Dataset`.

        Rows are mappings with a column of prompts, recognised as by `load_prompts`; no row is left out.

        Raises
        ------
        ValueError
            If it is something else, or a row has no prompt.
        """
        if isinstance(source, Prompts):
            return source
        if isinstance(source, str | Mapping) or not isinstance(source, Iterable):
            raise ValueError(
                f"prompts must be a list of texts, of conversations or of rows, or a Dataset, but it is a "
                f"{type(source).__name__}: put it into a list."
            )
        items = list(source)
        if items and all(isinstance(item, Mapping) for item in items):
            if all({"role", "content"} <= item.keys() for item in items):
                raise ValueError("prompts is one conversation: put it into a list.")
            return _from_rows(items, Data("the data"))
        return Prompts([to_prompt(item, f"Prompt {i}") for i, item in enumerate(items)])

    def __len__(self) -> int:
        return len(self.prompts)

    @overload
    def __getitem__(self, index: int) -> Prompt: ...
    @overload
    def __getitem__(self, index: slice) -> Prompts: ...
    def __getitem__(self, index: int | slice) -> Prompt | Prompts:
        return self.rows(range(len(self))[index]) if isinstance(index, slice) else self.prompts[index]

    def rows(self, index: Iterable[int]) -> Prompts:
        """Return the prompts at these positions with their columns."""
        rows = [int(i) for i in index]
        columns = {name: [values[i] for i in rows] for name, values in self.columns.items()}
        return Prompts([self.prompts[i] for i in rows], columns)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Prompts):
            return (self.prompts, self.columns) == (other.prompts, other.columns)
        return isinstance(other, list | tuple) and list(self.prompts) == list(other)

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True)
class Pair:
    """A prompt with a chosen and a rejected answer."""

    prompt: Prompt
    chosen: str
    rejected: str


# -- files ---------------------------------------------------------------------------------------------------


def read(source: str, subset: str | None = None, split: str | None = None) -> list[dict[str, Any]]:
    """Return the rows of a local file or of a hub data set.

    Raises
    ------
    ValueError
        If there is no such file, its format is unknown, or a row is not a JSON object of valid text; the line is named.
    """
    path = Path(source).expanduser()
    compressed = path.suffix.lower() == ".gz"
    suffix = Path(path.stem if compressed else path.name).suffix.lower()
    if not path.exists() and (suffix in SUFFIXES or source.count("/") != 1):
        raise ValueError(f"There is no file {source!r}, and a hub name would be owner/name.")
    if not path.exists():
        return _from_hub(source, subset, split or SPLITS.get(source, "train"))
    if path.is_dir() and any((path / name).exists() for name in ("dataset_info.json", "dataset_dict.json")):
        import datasets

        saved = datasets.load_from_disk(str(path))
        if isinstance(saved, dict):
            name = split or "train"
            if name not in saved:
                raise ValueError(f"{source} has no split {name!r}; it has {', '.join(saved)}.")
            saved = saved[name]
        return [dict(row) for row in saved]
    if path.is_dir() or suffix not in SUFFIXES or (compressed and suffix == ".parquet"):
        raise ValueError(f"{source} must be a file that ends in {', '.join(SUFFIXES)}, or .gz for all but parquet.")
    if suffix == ".parquet":
        import pyarrow.parquet

        return pyarrow.parquet.read_table(path).to_pylist()
    try:
        content = gzip.decompress(path.read_bytes()) if compressed else path.read_bytes()
        text = content.decode("utf-8-sig")
    except (gzip.BadGzipFile, EOFError) as error:
        raise ValueError(f"{source} is not a complete gzip file: {error}.") from None
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(f"Line {line} of {source} is not UTF-8: {error.reason}, byte {error.start}.") from None
    lines = {f"Line {i} of {source}": line for i, line in enumerate(text.split("\n"), 1) if line.strip()}
    if suffix == ".txt":
        return [{"prompt": line.removesuffix("\r")} for line in lines.values()]
    if suffix == ".jsonl":
        return [_row(_parse(line, where), where) for where, line in lines.items()]
    rows = _parse(text, source)
    if not isinstance(rows, list):
        raise ValueError(f"{source} must hold a list of objects, but it holds a {type(rows).__name__}.")
    return [_row(row, f"Row {i} of {source}") for i, row in enumerate(rows)]


def _from_hub(name: str, subset: str | None, split: str) -> list[dict[str, Any]]:
    import datasets

    try:
        rows = datasets.load_dataset(name, subset, split=split)
    except Exception as error:  # of many kinds: no such name, subset or split, no network, no permission
        said = " ".join(str(error).split())
        raise ValueError(
            f"The data set {name!r} (subset {subset}, split {split}) could not be loaded: {said:.300} Check name "
            f"and network, or give a local file."
        ) from error
    return [dict(row) for row in rows]


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text, strict=False)  # control characters in strings have one meaning
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{where} is not JSON: {error}.") from None


def _row(row: Any, where: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise ValueError(f"{where} must be a JSON object, but it is a {type(row).__name__}.")
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = str(error.object)[error.start].encode("unicode_escape").decode()
        raise ValueError(f"{where} holds a lone surrogate, {half}, half a character: correct or remove it.") from None
    return row


# -- prompts -------------------------------------------------------------------------------------------------


def load_prompts(data: Data, columns: Sequence[str] | None = None) -> Prompts:
    """Return the distinct prompts of a source, in order.

    Parameters
    ----------
    data : Data
    columns : sequence of str, optional
        Names of the columns to keep where there are any of them; by default all but the prompt's. Rows with the same
        prompt are one only if the kept columns are equal too.

    Raises
    ------
    ValueError
        If the source cannot be read, is empty, or has no column of prompts; the existing columns are named.
    """
    rows = read(data.source, data.subset, data.split)
    if not rows:
        raise ValueError(f"{data.source} has no rows.")
    return _from_rows(rows, data, columns, distinct=True)


def fitting(policy: LanguagePolicy, prompts: Prompts, data: Data) -> Prompts:
    """Return the prompts that fit a policy, which is told how to read them, and what to do with long ones.

    Raises
    ------
    ValueError
        If the chat template does not read an argument or refuses a prompt, or if a prompt is too long and
        ``data.overlong`` is "stop", or all are too long.
    """
    policy.template_args, policy.truncate = data.template(), data.overlong == "truncate"
    policy.max_prompt_tokens = data.max_tokens
    most = policy.prompt_room
    if data.overlong == "drop" and most is not None:
        kept = [i for i, ids in enumerate(policy.tokenize(prompts)) if len(ids) <= most]
        if not kept:
            raise ValueError(f"All {len(prompts)} prompts of {data.source} are longer than {most} tokens.")
        return prompts.rows(kept)
    policy.encode(prompts)
    return prompts


def _from_rows(
    rows: Sequence[Row], data: Data, columns: Sequence[str] | None = None, distinct: bool = False
) -> Prompts:
    name = None if _implicit(rows[0], data) else column(rows[0], data.prompt, PROMPT_COLUMNS, data.source)
    there = dict.fromkeys(c for row in rows for c in row)
    asked, columns = columns, [c for c in there if (c != name if columns is None else c in columns)]
    found: dict[str, tuple[Prompt, list[Any]]] = {}
    for i, row in enumerate(rows):
        where = f"Row {i} of {data.source}"
        if name is None:
            prompt: Prompt = _with_system(split_conversations(row["chosen"], row["rejected"], where)[0], data)
        else:
            prompt = _prompt(row, name, data, where)
        if asked is not None and (lacks := [c for c in columns if c not in row]):
            raise ValueError(f"{where} has no column {lacks[0]!r}, which other rows have and the judge reads.")
        kept = [row.get(c) for c in columns]
        found.setdefault(json.dumps([prompt, kept], default=str) if distinct else str(i), (prompt, kept))
        if len(found) == data.limit:
            break
    prompts, values = zip(*found.values(), strict=True)
    return Prompts(prompts, {c: [kept[j] for kept in values] for j, c in enumerate(columns)})


def column(row: Row, name: str | None, usual: Sequence[str], where: str) -> str:
    """Return the named column, or the first of the usual ones that the row has; ValueError if there is none."""
    for candidate in [name] if name else usual:
        if candidate in row:
            return candidate
    wanted = repr(name) if name else " or ".join(map(repr, usual))
    raise ValueError(
        f"{where} has no column {wanted}; it has {', '.join(map(repr, row))}. Set the column to one of them."
    )


def _implicit(row: Row, data: Data, chosen: str = "chosen", rejected: str = "rejected") -> bool:
    """Return whether the prompt is the common beginning of two conversations."""
    return not data.prompt and not row.keys() & set(PROMPT_COLUMNS) and {chosen, rejected} <= row.keys()


def _prompt(row: Row, name: str, data: Data, where: str) -> Prompt:
    value = row[column(row, name, (), where)]
    if name == "instruction" and not data.prompt and isinstance(value, str):  # Alpaca's columns
        more = row.get("input")
        value = f"{value}\n\n{more}" if isinstance(more, str) and more.strip() else value
    return _with_system(to_prompt(value, f"{where}, column {name!r}"), data)


def _with_system(prompt: Prompt, data: Data) -> Prompt:
    if isinstance(prompt, str):
        if not data.chat and data.system is None:
            return prompt
        prompt = [{"role": "user", "content": prompt}]
    if data.system is None or prompt[0]["role"] in ("system", "developer"):
        return prompt
    return [{"role": "system", "content": data.system}, *prompt]


def to_prompt(value: Any, where: str) -> Prompt:
    """Return a text unchanged, and a conversation without the assistant messages at its end.

    Raises
    ------
    ValueError
        If the value is neither, or nothing is left.
    """
    if isinstance(value, str):
        if not value.strip():
            raise ValueError(f"{where}: the prompt is empty.")
        return value
    messages = _messages(value, where)
    while messages and messages[-1]["role"] == "assistant":
        messages.pop()
    if not messages:
        raise ValueError(f"{where}: the conversation has only assistant messages.")
    return messages


def last_turn(prompt: Prompt) -> str:
    """Return a prompt as text: of a conversation the last message."""
    return prompt if isinstance(prompt, str) else str(prompt[-1].get("content", ""))


def _messages(value: Any, where: str) -> list[dict[str, str]]:
    messages = list(value) if isinstance(value, list | tuple) else []
    if not messages or not all(isinstance(m, Mapping) and {"role", "content"} <= m.keys() for m in messages):
        raise ValueError(f"{where}: a prompt is a text or a list of messages with role and content, not {value!r:.80}.")
    return [
        {"role": _role(m, f"{where}, message {i}"), "content": _content(m["content"], f"{where}, message {i}")}
        for i, m in enumerate(messages)
    ]


def _role(message: Mapping[str, Any], where: str) -> str:
    for name in ("tool_calls", "function_call"):
        if message.get(name):
            raise ValueError(f"{where} has {name}, which are not supported: leave such conversations out.")
    role = message["role"]
    if role not in ("system", "developer", "user", "assistant"):
        raise ValueError(f"{where}: the role must be system, developer, user or assistant, but it is {role!r}.")
    return role


def _content(value: Any, where: str) -> str:
    """Return the text of a message, whose parts are joined; ValueError if there is anything else."""
    if isinstance(value, str):
        return value
    parts = list(value) if isinstance(value, list | tuple) else [value]
    texts = [part.get("text") if isinstance(part, Mapping) and part.get("type") == "text" else None for part in parts]
    if not parts or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{where}: the content must be a text, or a list of parts that are texts, not {value!r:.80}.")
    return "".join(map(str, texts))


# -- pairs ---------------------------------------------------------------------------------------------------


def load_pairs(
    data: Data, chosen: str = "chosen", rejected: str = "rejected", completions: str = "completions"
) -> list[Pair]:
    """Return labelled pairs, without ties and pairs of equal answers.

    The schemas are

    - columns of the chosen and of the rejected answer, as texts or conversations (UltraFeedback, binarized), where
      equal ``score_chosen`` and ``score_rejected`` are a tie;
    - the same without a prompt, which is then the common beginning of the two conversations or transcripts (HH-RLHF);
    - several answers with scores, whose best and worst are a pair: a column of completions with ``response`` and
      ``overall_score`` (UltraFeedback), columns of answers and of their scores (`SCORED`), or ``answers`` with ``rank``
      (Nectar);
    - two answers with a label, or with annotators whose majority decides (LLMBar, PandaLM, Arena), see `VERDICTS`;
    - ``targets`` with ``choices`` and ``labels``, 1 for the better one (HHH).

    Raises
    ------
    ValueError
        If a row has none of these; its columns are named.
    """
    pairs = []
    for i, row in enumerate(read(data.source, data.subset, data.split)):
        where = f"Row {i} of {data.source}"
        if _implicit(row, data, chosen, rejected):
            common, *both = split_conversations(row[chosen], row[rejected], where)
            pair = Pair(_with_system(common, data), *both)
        else:
            prompt = _prompt(row, column(row, data.prompt, PROMPT_COLUMNS, where), data, where)
            answers = _answers(row, chosen, rejected, completions, where)
            if answers is None:
                continue
            pair = Pair(prompt, *answers)
        if pair.chosen == pair.rejected:
            continue
        pairs.append(pair)
        if len(pairs) == data.limit:
            break
    if not pairs:
        raise ValueError(f"{data.source} has no pairs: every row is a tie.")
    return pairs


def _answers(row: Row, chosen: str, rejected: str, completions: str, where: str) -> tuple[str, str] | None:
    """Return the better and the worse answer of a row, or None for a tie."""
    if chosen in row and rejected in row:
        scores = row.get("score_chosen"), row.get("score_rejected")
        tie = scores[0] is not None and scores[0] == scores[1]
        return None if tie else (_answer(row[chosen], where), _answer(row[rejected], where))
    for names, verdicts in VERDICTS.items():
        if row.keys() >= set(names):
            better = _verdict(row, verdicts, where)
            texts = [_answer(row[name], where) for name in names]
            return None if better is None else (texts[better], texts[1 - better])
    if isinstance(row.get("targets"), Mapping) and sorted(row["targets"].get("labels", ())) == [0, 1]:
        texts, better = row["targets"]["choices"], list(row["targets"]["labels"]).index(1)
        return texts[better], texts[1 - better]
    for answers, scores_name in ((completions, "scores"), *SCORED):
        if isinstance(row.get(answers), list) and isinstance(row.get(scores_name), list):
            return _best_and_worst(row[answers], row[scores_name], where)
    if isinstance(row.get("answers"), list):  # Nectar: rank 1 is the best
        return _best_and_worst(
            [_field(c, "answer", where) for c in row["answers"]],
            [-_field(c, "rank", where) for c in row["answers"]],
            where,
        )
    name = column(row, None, (completions,), where + f", without {chosen!r} and {rejected!r},")
    texts = [_field(c, "response", where) for c in row[name]]
    return _best_and_worst(texts, [_field(c, "overall_score", where) for c in row[name]], where)


def _field(completion: Any, name: str, where: str) -> Any:
    if not isinstance(completion, Mapping) or name not in completion:
        raise ValueError(f"{where}: each completion must have {name!r}, not {completion!r:.80}.")
    return completion[name]


def _best_and_worst(answers: Sequence[Any], scores: Sequence[Any], where: str) -> tuple[str, str] | None:
    """Return the answers of the largest and the smallest score, or None if these are equal or there is one answer."""
    try:
        numbers = [float(score) for score in scores]
    except (TypeError, ValueError):
        raise ValueError(f"{where}: the scores must be numbers, but they are {list(scores)!r:.80}.") from None
    if len(numbers) != len(answers):
        raise ValueError(f"{where}: there are {len(answers)} answers, but {len(numbers)} scores.")
    if not all(map(isfinite, numbers)):
        raise ValueError(f"{where}: the scores must be finite, but they are {numbers}.")
    if len(set(numbers)) < 2:
        return None
    best, worst = numbers.index(max(numbers)), numbers.index(min(numbers))
    return _answer(answers[best], where), _answer(answers[worst], where)


def _verdict(row: Row, verdicts: Mapping[Any, int | None], where: str) -> int | None:
    """Return which answer the label, or the majority of the annotators, prefers; None for a tie."""
    name = next((name for name in LABELS if name in row), None)
    labels = [row[name]] if name else [row[name] for name in row if re.fullmatch(r"annotator\d+", name)]
    meant = {_folded(label): better for label, better in verdicts.items()}
    if not labels or not all(_folded(label) in meant for label in labels):
        wanted = ", ".join(map(repr, verdicts))
        raise ValueError(f"{where}: the label, or every annotator's, must be one of {wanted}, but it is {labels}.")
    (best, count), *others = Counter(meant[_folded(label)] for label in labels).most_common()
    return None if others and others[0][1] == count else best


def _folded(label: Any) -> Any:
    return label.strip().lower() if isinstance(label, str) else label if isinstance(label, int) else None


def _answer(value: Any, where: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and isinstance(value[-1], Mapping) and "content" in value[-1]:
        return _content(value[-1]["content"], where)
    raise ValueError(f"{where}: an answer is a text or a conversation that ends with it, not {value!r:.80}.")


def split_conversations(chosen: Any, rejected: Any, where: str) -> tuple[Prompt, str, str]:
    """Return the common beginning of two conversations, and the assistant's next turn in each.

    Parameters
    ----------
    chosen, rejected : str or list of messages
        A text is a transcript whose turns begin with ``Human:`` and ``Assistant:`` after an empty line.
    where : str
        Location of the row, for errors.

    Raises
    ------
    ValueError
        If a text is not such a transcript, or the conversations have no common beginning that the assistant continues.
    """
    first, second = (transcript(x, where) if isinstance(x, str) else _messages(x, where) for x in (chosen, rejected))
    n = 0
    while n < min(len(first), len(second)) and first[n] == second[n]:
        n += 1
    while n and first[n - 1]["role"] == "assistant":
        n -= 1
    answers = [talk[n] if n < len(talk) else {"role": "nobody", "content": ""} for talk in (first, second)]
    if not n or any(answer["role"] != "assistant" for answer in answers):
        raise ValueError(f"{where}: chosen and rejected must begin alike and continue with the assistant's answers.")
    return first[:n], answers[0]["content"], answers[1]["content"]


def transcript(text: str, where: str) -> list[dict[str, str]]:
    """Return a transcript as messages, with consecutive turns of one speaker joined; ValueError if it has no turns."""
    start, *parts = TURN.split("\n\n" + text.lstrip())
    if start or len(parts) < 2:
        raise ValueError(
            f"{where} has no prompt: name its column, or give chosen and rejected as conversations, or as transcripts "
            f"of Human and Assistant. It begins with {text[:40]!r}."
        )
    messages: list[dict[str, str]] = []
    for speaker, content in zip(parts[::2], parts[1::2], strict=True):
        role = {"Human": "user", "Assistant": "assistant"}[speaker]
        if messages and messages[-1]["role"] == role:
            messages[-1]["content"] = f"{messages[-1]['content']}\n\n{content.strip()}".strip()
        else:
            messages.append({"role": role, "content": content.strip()})
    return messages
