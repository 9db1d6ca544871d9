"""Checkpoints, from which a run resumes with any number of processes, and the identity of a run that they belong to.

A checkpoint is a folder, written atomically. It is a model that `from_pretrained` loads, or an adapter, as the round
left it; ``state/`` in it holds what resuming needs, in safetensors and JSON. Nothing is pickled.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import Tensor

from .. import sharding
from ..data import Prompts
from ..files import write_text, writing
from ..judges import key
from ..objectives import Objective
from ..policy import LanguagePolicy, Samples
from ..weights import WeightSnapshots, read_shards, write_shards
from .config import Config
from .metrics import BaselineSamples
from .shards import drop_old_rounds

MAY_CHANGE = (
    *("out", "rounds", "progress", "trackers", "processes", "cpu", "measure_final", "keep_rollouts"),
    *("checkpoint_every", "checkpoint_steps", "keep_checkpoints", "save_every", "keep_best"),
    *("show_every", "completions", "stop_when", "report", "on_judge_error", "judge_retries"),
)
"""Training settings that may change when a run is resumed."""
JUDGE_STATE = ("calls", "unread", "worst_asymmetry", "total_asymmetry")
"""Counters of a judge that a resumed run goes on with."""


def describe(config: Config, objective: Objective, policy: LanguagePolicy, prompts: Prompts) -> dict[str, Any]:
    """Return the identity of a run: the settings, prompts and shapes that must not change when it is resumed.

    The judge is code and is not part of it.
    """
    settings = {k: v for k, v in asdict(config).items() if k not in MAY_CHANGE}
    draws = {name: getattr(policy, name) for name in ("max_new_tokens", "temperature", "top_p", "stop")}
    name = re.sub(r" at 0x[0-9a-f]+", "", repr(objective))
    shapes = [[n, *p.shape] for n, p in policy.model.named_parameters() if p.requires_grad]
    digests = {
        k: sha256(json.dumps(x).encode()).hexdigest()[:16]
        for k, x in (("prompts", [*map(key, prompts)]), ("weights", shapes))
    }
    return json.loads(json.dumps(settings | draws | digests | {"objective": name}))


@dataclass
class Checkpoints:
    """The checkpoints of a run in ``checkpoints/``, and all that they save and restore.

    The reference is not part of a checkpoint, since it never changes.
    """

    config: Config
    accelerator: Accelerator
    policy: LanguagePolicy
    snapshots: WeightSnapshots
    optimizer: Any
    scheduler: torch.optim.lr_scheduler.LambdaLR
    baselines: BaselineSamples
    judge: Any
    identity: dict[str, Any]
    slots: Sequence[str]
    best: list[float] = field(default_factory=list)
    """Round and value of the best model by `Config.keep_best`, so far."""
    base_is_reference: bool = False
    """Whether the reference is the base model of an adapter, of which there is no snapshot."""

    @property
    def folder(self) -> Path:
        """The folder of all checkpoints."""
        return self.config.out / "checkpoints"

    def newest(self) -> Path | None:
        """Return the newest checkpoint to resume from; one within a round's training precedes that round's own."""
        complete = [path.parents[1] for path in self.folder.glob("round-*/state/state.json")]
        rollouts = self.config.out / "rollouts"
        within = [path.parents[1] for path in self.folder.glob("within-*/state/state.json")]
        complete += [path for path in within if (rollouts / f"round-{path.name.split('-')[1]}").exists()]
        order = {path: tuple(map(int, re.findall(r"\d+", path.name))) for path in complete}
        order = {p: (n[0] - 1, *n[1:]) if p.name.startswith("within") else n for p, n in order.items()}
        return max(complete, key=order.__getitem__, default=None)

    # -- saving ----------------------------------------------------------------------------------------------

    def save(self, number: int, within: Mapping[str, Any] | None = None, model: bool = True) -> None:
        """Write the checkpoint of a round to a temporary folder, rename it atomically, and delete those not kept.

        Parameters
        ----------
        number : int
        within : mapping, optional
            Where in the round's training this is, as JSON values; by default the round is over.
        model : bool
            Whether the folder is a model, too.
        """
        with writing(self.folder):
            self._save(number, within, model)

    def after_round(self, number: int, over: bool, last: bool) -> None:
        """Write the checkpoint of a round if one is due, and delete rollouts that no checkpoint needs.

        Parameters
        ----------
        number : int
        over : bool
            Whether the run ends here, whose model is in ``model/``.
        last : bool
            Whether this call of `train` ends here.
        """
        config = self.config
        asked = bool(config.save_every) and number % config.save_every == 0
        if asked or (config.checkpoint_every and (last or number % config.checkpoint_every == 0)):
            self.save(number, model=asked or number in self.best[:1] or not over)
        if self.accelerator.is_main_process and (last or (self.folder / f"round-{number:06d}").exists()):
            drop_old_rounds(config.out / "rollouts", config.keep_rollouts)

    def _save(self, number: int, within: Mapping[str, Any] | None, model: bool) -> None:
        main, rank, world = (
            getattr(self.accelerator, x) for x in ("is_main_process", "process_index", "num_processes")
        )
        name = f"round-{number:06d}" if within is None else f"within-{number:06d}-{within['steps']:06d}"
        temporary = self.folder / f"writing-{name}"
        with writing(self.folder / name, temporary):
            if main:
                shutil.rmtree(temporary, ignore_errors=True)
                (temporary / "state").mkdir(parents=True)
            self.accelerator.wait_for_everyone()
            whole = sharding.whole_weights(self.policy, main) if model and within is None else None
            if main and model and within is None:
                self.policy.save(temporary, whole)
            tensors, optimizer = self._tensors(within is not None)
            if main or sharding.is_sharded(self.policy):  # else all processes have the same
                write_shards(temporary / "state" / f"{rank}-of-{world}.safetensors", tensors)
            save_file(pack_samples(self.baselines), temporary / "state" / f"samples-{rank}.safetensors")
            if main:
                state = {
                    "round": number if within is None else number - 1,
                    "identity": self.identity,
                    "optimizer": optimizer,
                    "scheduler": {k: v for k, v in self.scheduler.state_dict().items() if k != "lr_lambdas"},
                    "judge": {name: getattr(self.judge, name) for name in JUDGE_STATE if hasattr(self.judge, name)},
                    "slots": self._slots(within is not None),
                    "best": self.best,
                    "base_is_reference": self.base_is_reference,
                    "within": within,
                }
                (temporary / "state" / "state.json").write_text(json.dumps(state))
            self.accelerator.wait_for_everyone()
            if main:
                for path in (*(temporary / "state").iterdir(), temporary):
                    sync(path)
                shutil.rmtree(self.folder / name, ignore_errors=True)
                os.replace(temporary, self.folder / name)
                sync(self.folder)
                self._delete(self.folder / name)
            self.accelerator.wait_for_everyone()

    def _tensors(self, all_slots: bool) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the tensors to be saved by name, and the rest of the optimizer's state."""
        weights = self.snapshots.weights()
        tensors = {f"weights/{k}": x for k, x in weights.items()}
        for slot in self._slots(all_slots):
            kept = self.snapshots.read(slot)
            tensors |= {f"slots/{slot}/{k}": sharding.like(x, weights[k]) for k, x in kept.items()}
        state = self.optimizer.state_dict()
        scalars: dict[str, dict[str, Any]] = {}
        for i, values in state["state"].items():
            scalars[str(i)] = {k: float(x) for k, x in values.items() if not (isinstance(x, Tensor) and x.dim())}
            tensors |= {f"optimizer/{i}/{k}": x for k, x in values.items() if isinstance(x, Tensor) and x.dim()}
        return tensors, {"state": scalars, "param_groups": state["param_groups"]}

    def _slots(self, everything: bool) -> list[str]:
        """Return the slots to be saved; within a round there are those of the round, too."""
        if not everything:
            return [*self.slots]
        return sorted({path.parent.name for path in self.snapshots.folder.glob("*/*.safetensors")} - {"ref", "aside"})

    def _delete(self, newest: Path) -> None:
        """Delete what is not kept: all but the last checkpoints, save the models of rounds that were asked for."""
        for path in self.folder.glob("within-*"):
            if path != newest:
                shutil.rmtree(path)
        rounds = sorted(self.folder.glob("round-*"))
        for path in rounds[: max(0, len(rounds) - self.config.keep_checkpoints)]:
            number = int(path.name.removeprefix("round-"))
            asked = self.config.save_every and number % self.config.save_every == 0
            if (asked or number in self.best[:1]) and is_model(path):
                (path / "state" / "state.json").unlink(missing_ok=True)
                shutil.rmtree(path / "state", ignore_errors=True)
            else:
                shutil.rmtree(path)

    def note(self, row: Mapping[str, Any], after: Mapping[str, float]) -> None:
        """Note the metric that the best model is kept by, if a round's row has it.

        Parameters
        ----------
        row : mapping
            The row of a round; it is of the model before the round's training, but for
        after : mapping of str to float
            what was measured after it.

        Raises
        ------
        ValueError
            If there is no such metric.
        """
        if self.config.keep_best is None:
            return
        name, sign = self.config.keep_best.removeprefix("-"), -1 if self.config.keep_best.startswith("-") else 1
        if name in row:
            which = row["round"] - (name not in after)
            if which and (not self.best or sign * row[name] > sign * self.best[1]):
                self.best = [which, row[name]]
                if self.accelerator.is_main_process:
                    best = {"round": which, name: row[name]}
                    write_text(self.config.out / "best.json", json.dumps(best) + "\n")
        elif not name.startswith("eval_") and not row.get("final"):
            raise ValueError(f"keep_best: there is no metric {name!r}; there are {', '.join(map(repr, row))}.")

    def begin(self) -> None:
        """Begin a run: save the reference, unless it is the base of an adapter, and the slots."""
        new = sharding.all_agree(self.policy.adapter_is_new(), self.policy)
        self.base_is_reference = new or self.config.reference == "base"
        for name in (*(() if self.base_is_reference else ("ref",)), *self.slots):
            self.snapshots.save(name)

    # -- resuming --------------------------------------------------------------------------------------------

    def resume(self, prompts: list[list[int]]) -> dict[str, Any] | None:
        """Restore the newest checkpoint and return its JSON values, or None if there is none.

        Among them are the round that is done, and where in the next one's training it was, if it was.

        Parameters
        ----------
        prompts : list of lists of int
            Token ids of all prompts.

        Raises
        ------
        ValueError
            If the checkpoint belongs to another run, or one of more rounds.
        """
        path = self.newest()
        if path is None:
            return None
        state = json.loads((path / "state" / "state.json").read_text())
        if state["identity"] != self.identity:
            changed = [k for k, v in self.identity.items() if state["identity"].get(k) != v]
            raise ValueError(f"{self.config.out} holds a run with other {', '.join(changed)}: choose another folder.")
        if state["round"] > self.config.rounds:
            raise ValueError(f"{self.config.out} holds a run of {state['round']} rounds: rounds must be at least that.")
        self.base_is_reference = state["base_is_reference"]
        if not self.base_is_reference and not self.snapshots.has("ref"):
            self.snapshots.save("ref")  # of the policy as passed in
        weights = self.snapshots.weights()
        order = [p for group in self.optimizer.param_groups for p in group["params"]]
        like = {f"weights/{k}": x for k, x in weights.items()}
        like |= {f"slots/{slot}/{k}": x for slot in state["slots"] for k, x in weights.items()}
        moments = dict.fromkeys(map(int, state["optimizer"]["state"]), ("exp_avg", "exp_avg_sq"))
        like |= {f"optimizer/{i}/{k}": order[i] for i, names in moments.items() for k in names}
        files = sorted((path / "state").glob("*-of-*.safetensors"))
        kept = read_shards(files, like)
        self.snapshots.put({k: kept[f"weights/{k}"] for k in weights})
        for slot in state["slots"]:
            slots = {k: sharding.like(kept[f"slots/{slot}/{k}"], x) for k, x in weights.items()}
            write_shards(self.snapshots.path(slot), slots)
        restored: dict[int, dict[str, Any]] = {
            int(i): {k: torch.tensor(x) for k, x in scalars.items()}
            for i, scalars in state["optimizer"]["state"].items()
        }
        for i, names in moments.items():
            restored[i] |= {k: sharding.like(kept[f"optimizer/{i}/{k}"], order[i]) for k in names}
        groups = [group | {"betas": tuple(group["betas"])} for group in state["optimizer"]["param_groups"]]
        self.optimizer.load_state_dict({"state": restored, "param_groups": groups})
        self.scheduler.load_state_dict(state["scheduler"] | {"lr_lambdas": [None]})
        for group, base, rate in zip(
            self.optimizer.param_groups, self.scheduler.base_lrs, self.scheduler.lr_lambdas, strict=True
        ):
            group["lr"] = base * rate(self.scheduler.last_epoch)  # of this many rounds
        for name, value in state["judge"].items():
            if hasattr(self.judge, name):
                setattr(self.judge, name, value)
        for file in sorted((path / "state").glob("samples-*.safetensors")):
            unpack_samples(load_file(file), self.baselines, prompts, self.policy)
        self.best = state["best"]
        return state


def is_model(folder: Path) -> bool:
    """Return whether a folder is a model or an adapter."""
    return any((folder / name).exists() for name in ("config.json", "adapter_config.json"))


# -- samples -------------------------------------------------------------------------------------------------


def pack_samples(baselines: BaselineSamples) -> dict[str, Tensor]:
    """Return the samples that a round is judged against as tensors."""
    tensors = {}
    for name, kept in {"reference": baselines.reference, "previous": baselines.previous}.items():
        if kept:
            tensors[f"{name}/prompt"] = torch.tensor([*kept])
            tensors[f"{name}/tokens"] = torch.cat([s.tokens for s in kept.values()]).int()
            tensors[f"{name}/length"] = torch.cat([s.mask.sum(-1) for s in kept.values()]).int()
    tensors["previous/round"] = torch.tensor([baselines.rounds[i] for i in baselines.previous], dtype=torch.long)
    return tensors


def unpack_samples(
    tensors: Mapping[str, Tensor], baselines: BaselineSamples, prompts: list[list[int]], policy: LanguagePolicy
) -> None:
    """Add the samples of one process; of a prompt that several had, the previous round is the last."""
    for name, kept in {"reference": baselines.reference, "previous": baselines.previous}.items():
        if f"{name}/prompt" not in tensors:
            continue
        which, tokens = tensors[f"{name}/prompt"].tolist(), tensors[f"{name}/tokens"].long()
        mask = torch.arange(tokens.shape[-1]) < tensors[f"{name}/length"][..., None]
        text = policy.read(tokens, mask)
        for n, i in enumerate(which):
            if name == "previous":
                number = int(tensors["previous/round"][n])
                if number < baselines.rounds.get(i, -1):
                    continue
                baselines.rounds[i] = number
            kept[i] = Samples([prompts[i]], tokens[n : n + 1], mask[n : n + 1], text[n : n + 1])


def sync(path: Path) -> None:
    """Flush a file or folder to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
