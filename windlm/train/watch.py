"""Watching a run: callbacks, early stopping, and a few responses of each round to read."""

from __future__ import annotations

import json
import shutil
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from accelerate.utils import broadcast_object_list

from ..data import last_turn
from ..files import write_text
from ..judges.columns import endings
from ..policy import LanguagePolicy, Samples
from ..report import write as write_report
from ..rollout import Rollout, RolloutBatch
from .config import parse_condition

Row = Mapping[str, Any]
"""The metrics of a round."""


class Callback(Protocol):
    """Interface of a callback of `windlm.train.train`; each method may be left out.

    The methods are called on every process. A run ends early if one returns True on the main process.
    """

    def on_round(self, row: Row, policy: LanguagePolicy) -> bool | None:
        """Called after each round with its metrics and the updated policy."""
        ...

    def on_resume(self, rows: Sequence[Row], policy: LanguagePolicy) -> bool | None:
        """Called once if the run resumes, with the metrics so far."""
        ...


EVENTS = ("on_round", "on_resume")
"""Methods of a callback."""


def check_callbacks(callbacks: Sequence[Any]) -> None:
    """Raise ValueError if an object has no method of a callback: a misspelt one would never be called."""
    for callback in callbacks:
        if not any(callable(getattr(callback, event, None)) for event in EVENTS):
            raise ValueError(
                f"A callback needs a method {' or '.join(EVENTS)}, but {callback!r:.80} has none. Functions can be "
                f"called as evaluate(round, policy)."
            )


def any_stops(callbacks: Sequence[Any], event: str, *arguments: Any) -> bool:
    """Call a method of all callbacks that have it, and return whether one of them ends the run."""
    ends = [bool(getattr(c, event)(*arguments)) for c in callbacks if hasattr(c, event)]
    flag = [any(ends)]
    broadcast_object_list(flag)  # processes must leave the loop together
    return flag[0]


@dataclass
class StopWhen:
    """A callback that ends the run when a metric passes a threshold, such as ``kl > 5``.

    Raises
    ------
    ValueError
        If the condition cannot be parsed or, in a round, there is no such metric.
    """

    condition: str
    name: str = field(init=False)
    threshold: float = field(init=False)

    def __post_init__(self) -> None:
        self.name, self.passes, self.threshold = parse_condition(self.condition)

    def on_round(self, row: Row, policy: LanguagePolicy) -> bool:
        """Return whether the metric of this round passes the threshold."""
        if not isinstance(value := row.get(self.name), int | float):
            known = ", ".join(name for name, x in row.items() if isinstance(x, int | float))
            hint = " (win rates need reference_draws)" if self.name.startswith("win_rate") else ""
            raise ValueError(f"stop_when: round {row['round']} has no metric {self.name!r}{hint}; it has {known}.")
        return bool(self.passes(value, self.threshold))

    def on_resume(self, rows: Sequence[Row], policy: LanguagePolicy) -> bool:
        """Return whether the run had ended."""
        return len(rows) > 1 and self.on_round(rows[-1], policy)


# -- responses to read ---------------------------------------------------------------------------------------


def completions(
    batch: RolloutBatch,
    rollout: Rollout,
    indices: Sequence[int],
    reference: Mapping[int, Samples],
    draws: int,
    count: int,
) -> list[dict[str, Any]]:
    """Return the responses to the first `count` prompts of a batch, as JSON values.

    Parameters
    ----------
    batch : RolloutBatch
    rollout : Rollout
        A copy of the one that made the batch; judges the responses again, which the judge's cache answers.
    indices : sequence of int
        Which prompts of the run these are.
    reference : mapping of int to Samples
        The reference's responses by prompt, where there are any.
    draws : int
        Number of responses per prompt.
    count : int
        Number of prompts.

    Returns
    -------
    list of dict
        ``prompt_index``, ``prompt``, and ``responses`` and ``reference``: lists of dicts with ``text``, ``tokens``,
        ``ended`` and, where they exist, ``reward`` and what the batch fixed, such as ``label``.
    """
    rows = range(min(count, len(indices)))
    if not rows:
        return []
    own, prompts = batch.samples[rows].first(draws), rollout.prompts.rows(rows)
    apart = replace(rollout, prompts=prompts, journal=None, seconds=dict(rollout.seconds))
    rewards = apart.rewards(own) if rollout.only is None else None  # else the judge is elsewhere
    k = batch.samples.tokens.shape[1]  # a method may fix something about pairs of responses, too
    fixed = {name: x[:, :draws].tolist() for name, x in batch.fixed.items() if x.shape[1] == k}
    found = []
    for j in rows:
        extra = [{name: values[j][i] for name, values in fixed.items()} for i in range(len(own.text[j]))]
        row = {
            "prompt_index": int(indices[j]),
            "prompt": prompt if isinstance(prompt := prompts[j], str) else [dict(m) for m in prompt],
            "responses": described(own[[j]], None if rewards is None else rewards[j], rollout.policy, extra),
        }
        if (theirs := reference.get(indices[j])) is not None:
            judged = None if rewards is None else replace(apart, prompts=prompts.rows([j])).rewards(theirs)
            row["reference"] = described(theirs, None if judged is None else judged[0], rollout.policy)
        found.append(row)
    return found


def described(
    samples: Samples, rewards: Any, policy: LanguagePolicy, extra: Sequence[Mapping[str, float]] = ()
) -> list[dict[str, Any]]:
    """Return the responses to one prompt as JSON values."""
    out, ended = [], endings(samples, policy)[0]
    for i, text in enumerate(samples.text[0]):
        one: dict[str, Any] = {"text": text, "tokens": int(samples.mask[0, i].sum()), "ended": ended[i]}
        if rewards is not None:
            one["reward"] = float(rewards[i])
        out.append(one | dict(extra[i] if extra else {}))
    return out


def write_completions(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the responses of a round as JSON lines, one prompt a line."""
    text = "".join(json.dumps(row) + "\n" for row in rows)
    write_text(path, text)


def best_first(responses: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return responses sorted by reward or, without rewards, by label."""
    return sorted(responses, key=lambda r: -r.get("reward", r.get("label", 0.0)))


def responses_table(number: int, rows: Sequence[Mapping[str, Any]], prompts: int = 3, width: int | None = None) -> str:
    """Format the best and the worst response to a few prompts, and the reference's best, for a terminal."""
    width = width or max(60, min(shutil.get_terminal_size((100, 24)).columns, 140))

    def line(who: str, r: Mapping[str, Any]) -> str:
        value = r.get("reward", r.get("label"))
        text = textwrap.shorten(r["text"], width - 20, placeholder=" ...") or "(empty)"
        return f"  {who:<9} {'' if value is None else format(value, '.3g'):>7}  {text}"

    lines = [f"Round {number}"]
    for row in rows[:prompts]:
        lines.append("> " + textwrap.shorten(last_turn(row["prompt"]), width - 2, placeholder=" ..."))
        ranked = best_first(row["responses"])
        lines.append(line("best", ranked[0]))
        lines += [line("worst", ranked[-1])] if len(ranked) > 1 else []
        lines += [line("reference", r) for r in best_first(row.get("reference", []))[:1]]
    return "\n".join(lines)


def try_report(out: Path) -> None:
    """Write the report of a run; that it cannot be written must not cost the run."""
    try:
        write_report([out])
    except Exception as error:
        warnings.warn(f"The report of {out} could not be written: {type(error).__name__}: {error}", stacklevel=2)
