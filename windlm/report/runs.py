"""What a run's folder says: settings, metrics and responses, of finished, killed and running runs alike."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

Json = dict[str, Any]
"""A JSON object."""

SETTINGS = {
    "model": "model.name",
    "method": "method.name",
    "beta": "method.beta",
    "eta": "method.eta",
    "judge": "judge.name",
    "data": "data.source",
    "draws": "train.draws",
    "learning rate": "train.learning_rate",
    "LoRA rank": "lora.rank",
    "max new tokens": "model.max_new_tokens",
    "seed": "train.seed",
}
"""The settings that a report shows, by their place in ``config.json``."""


def read_run(folder: Path, prompts: int = 20, rounds: int = 40) -> Json:
    """Return a run as JSON values.

    Parameters
    ----------
    folder : Path
        The output folder of a run, which may be running.
    prompts, rounds : int
        Maximum number of prompts per round, and of rounds (evenly spaced, the first and the last among them), whose
        responses are returned.

    Returns
    -------
    dict
        ``name``, ``status``, ``remark``, ``settings``, ``metrics`` (the rows of ``metrics.jsonl``) and ``rollouts``
        (of each round its prompts, each with its responses, best first).

    Raises
    ------
    ValueError
        If the folder is none of a run.
    """
    folder = Path(folder)
    check(folder)
    identities = sorted(folder.glob("rollouts/round-*/identity.json"))
    config = read_json(folder / "config.json")
    identity = next((found for path in identities if (found := read_json(path))), {})
    rows = read_lines(folder / "metrics.jsonl")
    metrics = [row for row in rows if isinstance(row.get("round"), int) and row["round"] > 0]
    planned = at(config, "train.rounds") or identity.get("rounds")
    settings = {name: at(config, place) for name, place in SETTINGS.items()} if config else {}
    if not config:
        settings = {"objective": identity.get("objective"), "draws": identity.get("draws")}
    return clean(
        {
            "name": folder.resolve().name,
            "folder": str(folder),
            "status": status(folder, metrics, planned, identities),
            "remark": next((row["remark"] for row in rows if row.get("remark")), None),
            "settings": {name: value for name, value in settings.items() if value not in (None, "", [])},
            "before": {k: v for k, v in rows[0].items() if k not in ("round", "remark")} if rows[:1] else {},
            "metrics": metrics,
            "rollouts": rollouts(folder, prompts, rounds),
        }
    )


def check(folder: Path) -> None:
    """Raise ValueError unless a folder is one of a run."""

    def is_run(path: Path) -> bool:
        return any((path / name).exists() for name in ("metrics.jsonl", "rollouts", "completions"))

    if is_run(folder):
        return
    if not folder.exists():
        raise ValueError(f"There is no folder {str(folder)!r}: give the folders of --train.out.")
    hint = "give the folder of --train.out"
    if is_run(folder.resolve().parent):
        hint = f"did you mean {folder.parent}?"
    elif inside := sorted(path.name for path in folder.iterdir() if path.is_dir() and is_run(path)):
        hint = f"it holds the runs {', '.join(inside)}: give {folder / '*'}"
    raise ValueError(
        f"{str(folder)!r} is not the folder of a run, since it has no metrics.jsonl and no rollouts: {hint}."
    )


def status(folder: Path, metrics: Sequence[Json], planned: int | None, started: Sequence[Path]) -> str:
    """Return how far a run has come, as a sentence."""
    done = max((row["round"] for row in metrics if not row.get("final")), default=0)
    of = f" of {planned}" if planned else ""
    under_way = max((int(path.parent.name.removeprefix("round-")) for path in started), default=0)
    saved = (folder / "model").exists() or (folder / "adapter").exists()
    if done >= under_way and done and (saved or metrics[-1].get("final")):
        early = " (ended early)" if planned and done < planned else ""
        return f"Finished after {done}{of} rounds{early}."
    inside = f"; it is in round {under_way}, or was stopped there" if under_way > done else ""
    return f"{done}{of} rounds so far{inside}."


def at(config: Json, place: str) -> Any:
    """Return a nested value by its dotted name, or None."""
    value: Any = config
    for name in place.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def read_json(path: Path) -> Json:
    """Return a JSON file's object; empty if there is none, or none yet."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def read_lines(path: Path) -> list[Json]:
    """Return the objects of a file of JSON lines; a line that is being written is left out."""
    try:
        text = path.read_text()
    except OSError:
        return []
    rows = []
    for line in text.split("\n"):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def clean(value: Any) -> Any:
    """Return JSON values with None for numbers that are not finite, and "?" for lone surrogates, which are no text."""
    if isinstance(value, Mapping):
        return {str(k): clean(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [clean(v) for v in value]
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    return None if isinstance(value, float) and not math.isfinite(value) else value


# -- responses -----------------------------------------------------------------------------------------------


def rollouts(folder: Path, prompts: int, rounds: int) -> list[Json]:
    """Return the responses of rounds: those kept for reading and, of the last rounds, those that training used."""
    found: dict[int, dict[int, Json]] = {}
    for path in folder.glob("rollouts/round-*/stage-0/*.arrow"):
        number = int(path.parent.parent.name.removeprefix("round-"))
        found.setdefault(number, {}).update({p["prompt_index"]: p for p in arrow_prompts(path)})
    for path in folder.glob("completions/round-*.jsonl"):  # these have rewards and the reference beside
        number = int(path.stem.removeprefix("round-"))
        found.setdefault(number, {}).update({p["prompt_index"]: p for p in read_lines(path) if "prompt_index" in p})
    out = []
    for number in spaced(sorted(n for n in found if found[n]), rounds):
        every = found[number]
        beside = sorted(every, key=lambda i: ("reference" not in every[i], i))
        kept = [every[i] for i in sorted(beside[:prompts])]
        out.append({"round": number, "of": len(every), "prompts": [shown(p) for p in kept]})
    return out


def spaced(numbers: Sequence[int], count: int) -> list[int]:
    """Return at most `count` of some numbers, evenly spaced, the first and the last among them."""
    if len(numbers) <= count or count < 1:
        return list(numbers)[: max(count, 0)]
    if count == 1:
        return [numbers[-1]]
    return [numbers[round(i * (len(numbers) - 1) / (count - 1))] for i in range(count)]


def arrow_prompts(path: Path) -> Iterable[Json]:
    """Return the prompts of a shard with their responses; none if the shard is gone."""
    import pyarrow as pa

    try:
        with pa.memory_map(str(path)) as source:
            table = pa.ipc.open_file(source).read_all()
    except (OSError, pa.ArrowInvalid):  # deleted, as old rounds are, or no shard
        return
    lists = [f.name for f in table.schema if pa.types.is_list(f.type) and pa.types.is_floating(f.type.value_type)]
    for row in table.select(["prompt_index", "prompt", "responses", "token_ids", "ended", *lists]).to_pylist():
        responses = [
            {"text": text, "tokens": len(row["token_ids"][i]), "ended": row["ended"][i]}
            | {name: row[name][i] for name in lists if len(row[name]) == len(row["responses"])}
            for i, text in enumerate(row["responses"])
        ]
        yield {"prompt_index": row["prompt_index"], "prompt": row["prompt"], "responses": responses}


def shown(prompt: Json) -> Json:
    """Return a prompt as the page shows it: as text, its responses best first, and what is known of each."""
    row = {"index": prompt["prompt_index"], "prompt": prompt_text(prompt["prompt"])}
    for who in ("responses", "reference"):
        if who in prompt:
            row[who] = sorted(map(response, prompt[who]), key=lambda r: -(r.get("reward", r.get("label")) or 0.0))
    return row


def response(one: Json) -> Json:
    """Return what a report shows of a response: text, length, how it ended, reward, label, log-ratio."""
    kept = {name: one[name] for name in ("text", "tokens", "ended", "reward", "label") if one.get(name) is not None}
    own = one.get("current", one.get("start"))
    if own is not None and one.get("ref") is not None:
        kept["log_ratio"] = own - one["ref"]
    return {k: round(v, 5) if isinstance(v, float) and math.isfinite(v) else v for k, v in kept.items()}


def prompt_text(prompt: Any) -> str:
    """Return a prompt as text; messages, also as JSON, with their roles."""
    if isinstance(prompt, str) and prompt.startswith("[{"):
        try:
            prompt = json.loads(prompt)
        except ValueError:
            return str(prompt)
    if not isinstance(prompt, list) or not all(isinstance(m, Mapping) for m in prompt):
        return str(prompt)
    return "\n".join(f"{m.get('role', '?')}: {m.get('content', '')}" for m in prompt)
