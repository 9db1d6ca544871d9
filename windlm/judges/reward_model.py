"""A sequence classifier as a reward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..policy import Prompt, plain_ids
from .base import key


@dataclass
class RewardModel:
    """A sequence classifier as the reward of a `RewardJudge`, with its own tokenizer and chat template.

    Parameters
    ----------
    model : PreTrainedModel
        An `AutoModelForSequenceClassification` with one label.
    tokenizer : PreTrainedTokenizerBase
        The reward model's own. If it has a chat template, prompt and response are formatted as a conversation.
    batch_size : int
        Responses per forward pass.

    Raises
    ------
    ValueError
        If there is no pad token (the classifier would read the score at a padded position), or not exactly one label;
        when called, if a text exceeds the model's context, since a truncated text would be scored as if it were whole.
    """

    model: Any
    tokenizer: Any
    batch_size: int = 16
    separator: str = ""
    """String between prompt and response if there is no chat template."""

    def __post_init__(self) -> None:
        if self.tokenizer.pad_token_id is None:
            raise ValueError(
                "The reward model's tokenizer has no pad token, so texts of different lengths cannot be batched: set "
                "tokenizer.pad_token and model.config.pad_token_id to the one it was trained with."
            )
        if self.model.config.num_labels != 1:
            raise ValueError(
                f"A reward model must have one label, but this classifier has {self.model.config.num_labels}."
            )
        if self.model.config.pad_token_id is None:
            self.model.config.pad_token_id = self.tokenizer.pad_token_id
        if self.model.config.pad_token_id != self.tokenizer.pad_token_id:
            raise ValueError(
                f"The classifier's pad token is {self.model.config.pad_token_id}, its tokenizer's is "
                f"{self.tokenizer.pad_token_id}: scores would be read at padded positions. Make them equal."
            )
        self.model.eval()

    @property
    def context(self) -> int | None:
        """The largest number of tokens that the model takes; None if it is not limited."""
        for name, module in self.model.named_modules():
            # RoBERTa and its kin count positions from after the padding index
            if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
                return int(module.num_embeddings) - int(module.padding_idx) - 1
        return getattr(self.model.config, "max_position_embeddings", None)

    def check(self, prompts: Sequence[Prompt], max_new_tokens: int) -> None:
        """Raise ValueError if a prompt with a response of `max_new_tokens` does not fit the model's context."""
        for i, prompt in enumerate(prompts):
            length = len(self._encode(prompt, ""))
            if self.context is not None and length + max_new_tokens > self.context:
                raise ValueError(
                    f"Prompt {i} has {length} tokens for the reward model; with a response of up to {max_new_tokens} "
                    f"it does not fit its context of {self.context}. Shorten the prompt, or lower max_new_tokens."
                )

    @torch.no_grad()
    def __call__(self, prompts: list[Prompt], responses: list[str]) -> np.ndarray:
        return self.scores(prompts, responses).float().cpu().numpy()

    def scores(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> torch.Tensor:
        """Return the reward of each response, shape ``(N,)``, with gradients; ValueError if a text is too long."""
        ids = [self._encode(p, r) for p, r in zip(prompts, responses, strict=True)]
        limit = self.context
        for prompt, response, text in zip(prompts, responses, ids, strict=True):
            if limit is not None and len(text) > limit:
                raise ValueError(
                    f"Response {response[:60]!r} to prompt {key(prompt)[:60]!r} has {len(text)} tokens for the reward "
                    f"model, beyond its context of {limit}."
                )
        device = next(self.model.parameters()).device
        scores = []
        for i in range(0, len(ids), self.batch_size):
            rows = {"input_ids": ids[i : i + self.batch_size]}
            batch = self.tokenizer.pad(rows, padding_side="right", return_tensors="pt").to(device)
            scores.append(self.model(**batch).logits[:, 0].float())
        return torch.cat(scores)

    def _encode(self, prompt: Prompt, response: str) -> list[int]:
        if self.tokenizer.chat_template:
            talk = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
            talk = [*talk, {"role": "assistant", "content": response}]
            return self.tokenizer.apply_chat_template(talk, tokenize=True, return_dict=True)["input_ids"]
        if not isinstance(prompt, str):
            raise ValueError("The prompt is a conversation, but the reward model's tokenizer has no chat template.")
        return plain_ids(self.tokenizer, prompt + self.separator + response)
