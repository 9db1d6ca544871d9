"""PairRM (Jiang, Ren and Lin 2023), the pairwise reward model that the WIND paper judges with.

Written from its public description; the names of the weights are those of ``llm-blender/PairRM-hf``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import DebertaV2Model, DebertaV2PreTrainedModel

from ..policy import Prompt
from .base import key
from .reward_model import Row, in_batches, transcript

PREFIXES = {"source": "<|source|>", "first": "<|candidate1|>", "second": "<|candidate2|>"}
"""The token that each of the three texts begins with."""
SOURCE_TOKENS = 1224
"""The most tokens of the prompt."""
CANDIDATE_TOKENS = 412
"""The most tokens of a response that are always read; two responses share what the prompt leaves of the whole."""


class PairRMNetwork(DebertaV2PreTrainedModel):
    """DeBERTa with a head that compares two responses.

    The hidden states at the prefix tokens of prompt and response, side by side, become the response's scores by two
    linear layers with tanh between them. The logit is the first response's mean score less the second's.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        width, dropout = config.hidden_size, getattr(config, "drop_out", 0.0)
        self.pretrained_model = DebertaV2Model(config)
        self.head_layer = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(2 * width, width),
            nn.Tanh(),
            nn.Dropout(dropout),
            nn.Linear(width, getattr(config, "n_tasks", 1)),
        )
        self.post_init()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the log-odds that the first response wins, shape ``(N,)``."""
        hidden = self.pretrained_model(input_ids=input_ids, attention_mask=attention_mask)[0]
        names = ("source_prefix_id", "cand1_prefix_id", "cand2_prefix_id")
        rows = torch.arange(len(input_ids), device=input_ids.device)
        source, first, second = (
            hidden[rows, (input_ids == getattr(self.config, name)).int().argmax(-1)] for name in names
        )
        scores = [self.head_layer(torch.cat([source, candidate], -1)).mean(-1) for candidate in (first, second)]
        return scores[0] - scores[1]


@dataclass
class PairRM:
    """PairRM as the function of a `PairwiseJudge`, which asks for both orders.

    Parameters
    ----------
    model : PairRMNetwork
    tokenizer : PreTrainedTokenizerBase
    batch_size : int
        Pairs per forward pass.
    truncate : bool
        Whether texts that are too long lose their end, as when the model was trained; an error otherwise.

    Raises
    ------
    ValueError
        If the tokenizer lacks a prefix token; when called, if a text is too long.
    """

    model: Any
    tokenizer: Any
    batch_size: int = 16
    truncate: bool = False

    def __post_init__(self) -> None:
        names = ("source_prefix_id", "cand1_prefix_id", "cand2_prefix_id")
        for name, prefix in zip(names, PREFIXES.values(), strict=True):
            found = self.tokenizer.convert_tokens_to_ids(prefix)
            if found in (None, self.tokenizer.unk_token_id):
                raise ValueError(f"The tokenizer has no token {prefix}: it is not that of a PairRM.")
            if getattr(self.model.config, name, found) != found:
                raise ValueError(
                    f"{prefix} is token {found}, but the model expects {getattr(self.model.config, name)}."
                )
            setattr(self.model.config, name, found)
        self.model.eval()

    def check(self, prompts: Sequence[Prompt], max_new_tokens: int) -> None:
        """Raise ValueError if a prompt, or a response of `max_new_tokens`, would be longer than the model reads."""
        if self.truncate:
            return
        for i, prompt in enumerate(prompts):
            length = len(self._ids("source", transcript(prompt)))
            room = min(SOURCE_TOKENS, SOURCE_TOKENS + 2 * CANDIDATE_TOKENS - 2 * (max_new_tokens + 3))
            if length > room:
                raise ValueError(
                    f"Prompt {i} has {length} tokens for PairRM; with responses of up to {max_new_tokens} it may have "
                    f"{room}. Shorten it, lower max_new_tokens, or set truncate."
                )

    @torch.no_grad()
    def __call__(self, prompts: list[Prompt], first: list[str], second: list[str]) -> np.ndarray:
        return torch.sigmoid(self.margins(prompts, first, second).double()).cpu().numpy()

    def margins(self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]) -> Tensor:
        """Return the log-odds that the first response wins, shape ``(N,)``."""
        rows = [self.encode(*triple) for triple in zip(prompts, first, second, strict=True)]
        return in_batches(rows, self.batch_size, self._run)

    def encode(self, prompt: Prompt, first: str, second: str) -> Row:
        """Return the three texts in a row, each with its prefix; ValueError if one is too long."""
        source = self._ids("source", transcript(prompt))
        room = (SOURCE_TOKENS + 2 * CANDIDATE_TOKENS - min(len(source), SOURCE_TOKENS)) // 2
        parts = [source, self._ids("first", first), self._ids("second", second)]
        for what, ids, limit in zip(("prompt", "first", "second"), parts, (SOURCE_TOKENS, room, room), strict=True):
            if len(ids) > limit:
                if not self.truncate:
                    raise ValueError(
                        f"The {what} of a pair has {len(ids)} tokens for PairRM, of which it reads {limit}; the prompt "
                        f"is {key(prompt)[:60]!r}. Shorten it, or set truncate."
                    )
                ids[limit - 1 :] = ids[-1:]  # the separator stays
        return {"input_ids": [i for ids in parts for i in ids]}

    def _ids(self, part: str, text: str) -> list[int]:
        text = re.sub(r"<\|(source|candidate\d?)\|>", r"<| \1 |>", text)  # a response cannot begin another part
        return list(self.tokenizer(PREFIXES[part] + text, verbose=False)["input_ids"])

    def _run(self, rows: Sequence[Row]) -> Tensor:
        device = next(self.model.parameters()).device
        ids = {"input_ids": [row["input_ids"] for row in rows]}
        batch = self.tokenizer.pad(ids, padding_side="right", return_tensors="pt").to(device)
        return self.model(batch["input_ids"], batch["attention_mask"]).float()
