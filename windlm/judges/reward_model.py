"""Sequence classifiers as judges: reward models, classifiers of pairs, and embeddings of responses."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

import windgames as wg

from ..policy import Prompt, plain_ids
from .base import Columns, key

Row = dict[str, list[int]]
"""What a model reads of one text: token ids, and token types if it has any."""
TEMPLATE = "[Prompt]\n{prompt}\n\n[Response A]\n{first}\n\n[Response B]\n{second}"
"""The text of a pair for a classifier of pairs that names no template in its configuration."""


@dataclass
class Classifier:
    """A sequence classifier with its own tokenizer, which reads a prompt and a response.

    They are formatted as a conversation if the tokenizer has a chat template; as a text pair,
    ``tokenizer(prompt, response)``, if the model is an encoder such as BERT, RoBERTa or DeBERTa; else concatenated.

    Parameters
    ----------
    model : PreTrainedModel
        An `AutoModelForSequenceClassification`.
    tokenizer : PreTrainedTokenizerBase
        The model's own.
    batch_size : int
        Texts per forward pass; texts of similar length are together.
    separator : str
        String between prompt and response where they are concatenated.
    label : str or int, optional
        The label whose log-odds are the score, by name or index; required if there is more than one.
    truncate : bool
        Whether a text that exceeds the model's context loses the beginning of its prompt; it is an error otherwise.

    Raises
    ------
    ValueError
        If there is no pad token (the classifier would read the score at a padded position), or the label is not clear;
        when called, if a text exceeds the model's context, since a truncated text would be scored as if it were whole.
    """

    model: Any
    tokenizer: Any
    batch_size: int = 16
    separator: str = ""
    label: str | int | None = None
    truncate: bool = False

    def __post_init__(self) -> None:
        config = self.model.config
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, but it is {self.batch_size}.")
        if self.tokenizer.pad_token_id is None:
            raise ValueError(
                "The reward model's tokenizer has no pad token, so texts of different lengths cannot be batched: set "
                "tokenizer.pad_token and model.config.pad_token_id to the one it was trained with."
            )
        if config.pad_token_id is None:
            config.pad_token_id = self.tokenizer.pad_token_id
        if config.pad_token_id != self.tokenizer.pad_token_id:
            raise ValueError(
                f"The classifier's pad token is {config.pad_token_id}, its tokenizer's is "
                f"{self.tokenizer.pad_token_id}: scores would be read at padded positions. Make them equal."
            )
        self.check_kind()
        config.use_cache = False  # of keys and values, which a decoder would fill for nothing
        self.model.eval()

    kind = "reward-model"

    def check_kind(self) -> None:
        """Raise ValueError unless the model is one of this kind, and it is clear which label is the score."""
        config = self.model.config
        saved = getattr(config, "windlm_kind", self.kind)
        if saved != self.kind:
            raise ValueError(f"The model was fitted as a judge of kind {saved}, not {self.kind}.")
        names = {int(i): name for i, name in (config.id2label or {}).items()}
        if self.label is None and config.num_labels != 1:
            raise ValueError(
                f"A reward model must have one label, but this classifier has {config.num_labels}: name the good one "
                f"as label, one of {', '.join(map(repr, names.values()))}."
            )
        if self.label is not None:
            index = {name: i for i, name in names.items()} | {str(i): i for i in names}
            if str(self.label) not in index:
                raise ValueError(f"label must be one of {', '.join(map(repr, names.values()))}, but is {self.label!r}.")
            self.label = index[str(self.label)]

    @property
    def context(self) -> int | None:
        """The largest number of tokens that the model takes; None if it is not limited."""
        for name, module in self.model.named_modules():
            # RoBERTa and its kin count positions from after the padding index
            if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
                return int(module.num_embeddings) - int(module.padding_idx) - 1
        return getattr(self.model.config, "max_position_embeddings", None)

    @property
    def reads_pairs(self) -> bool:
        """Whether prompt and response are a text pair of the tokenizer."""
        return not self.tokenizer.chat_template and self.model.config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES

    # -- texts -----------------------------------------------------------------------------------------------

    def encode(self, prompt: Prompt, response: str) -> Row:
        """Return prompt and response as the model reads them, of any length."""
        if self.tokenizer.chat_template:
            talk = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
            talk = [*talk, {"role": "assistant", "content": response}]
            return {"input_ids": self.tokenizer.apply_chat_template(talk, tokenize=True, return_dict=True)["input_ids"]}
        if self.reads_pairs:
            return self.pair(single(prompt), response)
        if not isinstance(prompt, str):
            raise ValueError("The prompt is a conversation, but the reward model's tokenizer has no chat template.")
        return self.plain(prompt + self.separator + response)

    def rows(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[Row]:
        """Return what the model reads of each response; ValueError if one is too long."""
        rows = [self.encode(p, r) for p, r in zip(prompts, responses, strict=True)]
        return self.fitting(rows, named(prompts, responses))

    def pair(self, first: str, second: str) -> Row:
        """Return a text pair, the first text shortened from the left if the pair is too long and may be."""
        tokens = self.tokenizer(first, second, verbose=False)
        over = len(tokens["input_ids"]) - (self.context or np.inf)
        alone = self.tokenizer(first, add_special_tokens=False, verbose=False)["input_ids"]
        if self.truncate and 0 < over <= len(alone):
            self.tokenizer.truncation_side = "left"
            tokens = self.tokenizer(first, second, truncation="only_first", max_length=self.context)
        return {name: list(tokens[name]) for name in ("input_ids", "token_type_ids") if name in tokens}

    def plain(self, text: str) -> Row:
        """Return a text."""
        return {"input_ids": list(plain_ids(self.tokenizer, text))}

    def fitting(self, rows: Sequence[Row], texts: Sequence[str]) -> list[Row]:
        """Return rows that fit the context, shortened if they may be; ValueError names the first that does not."""
        limit, kept = self.context, []
        for row, text in zip(rows, texts, strict=True):
            ids = row["input_ids"]
            if limit is not None and len(ids) > limit:
                if not self.truncate or self.reads_pairs:
                    raise ValueError(
                        f"{text} has {len(ids)} tokens for the reward model, beyond its context of {limit}. Shorten "
                        f"it, or set truncate."
                    )
                start = ids[:1] if ids[0] == self.tokenizer.bos_token_id else []
                row = {"input_ids": start + ids[len(ids) - limit + len(start) :]}
            kept.append(row)
        return kept

    def check(self, prompts: Sequence[Prompt], max_new_tokens: int) -> None:
        """Raise ValueError if a prompt with a response of `max_new_tokens` does not fit the model's context."""
        limit = self.context
        if limit is None or self.truncate:
            return
        for i, prompt in enumerate(prompts):
            length, added = len(self.encode(prompt, "")["input_ids"]), max_new_tokens * self.responses_per_text
            if length + added > limit:
                raise ValueError(
                    f"Prompt {i} has {length} tokens for the reward model; with a response of up to {added} "
                    f"it does not fit its context of {limit}. Shorten the prompt, lower max_new_tokens, or set "
                    f"truncate."
                )

    responses_per_text = 1

    # -- scores ----------------------------------------------------------------------------------------------

    def logits(self, rows: Sequence[Row]) -> Tensor:
        """Return the logits of each row, shape ``(N, labels)``, float32, with gradients."""
        return in_batches(rows, self.batch_size, lambda batch: self.model(**self.padded(batch)).logits.float())

    def padded(self, rows: Sequence[Row]) -> Mapping[str, Tensor]:
        """Return rows as a batch, padded on the right, on the model's device."""
        lists = {name: [row[name] for row in rows] for name in rows[0]}
        batch = self.tokenizer.pad(lists, padding_side="right", return_tensors="pt")
        return batch.to(next(self.model.parameters()).device)

    def log_odds(self, rows: Sequence[Row]) -> Tensor:
        """Return the only logit, or the log-odds of the named label, of each row; shape ``(N,)``."""
        logits = self.logits(rows)
        if self.label is None:
            return logits[:, 0]
        own = int(self.label)
        others = [i for i in range(logits.shape[1]) if i != own]
        return logits[:, own] - logits[:, others].logsumexp(-1)


def in_batches(rows: Sequence[Row], size: int, run: Any) -> Tensor:
    """Return the results of rows, computed in batches of similar length, in the order of the rows."""
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i]["input_ids"]))
    found = [run([rows[i] for i in order[start : start + size]]) for start in range(0, len(rows), size)]
    back = torch.empty(len(rows), dtype=torch.long)
    back[torch.tensor(order, dtype=torch.long)] = torch.arange(len(rows))
    return torch.cat(found)[back.to(found[0].device)]


def single(prompt: Prompt) -> str:
    """Return a text, or the only message of a conversation; ValueError if it has several."""
    if isinstance(prompt, str):
        return prompt
    if len(prompt) != 1:
        raise ValueError(
            f"The prompt is a conversation of {len(prompt)} messages, but the reward model's tokenizer has no chat "
            f"template: give prompts of one message."
        )
    return str(prompt[0]["content"])


def transcript(prompt: Prompt) -> str:
    """Return a text, the only message of a conversation, or its messages with their roles."""
    if isinstance(prompt, str) or len(prompt) == 1:
        return single(prompt)
    return "\n\n".join(f"{m['role'].capitalize()}: {m['content']}" for m in prompt)


@dataclass
class RewardModel(Classifier):
    """A sequence classifier as the reward of a `RewardJudge`; its parameters are those of `Classifier`."""

    @torch.no_grad()
    def __call__(self, prompts: list[Prompt], responses: list[str]) -> np.ndarray:
        return self.scores(prompts, responses).cpu().numpy()

    def scores(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Tensor:
        """Return the reward of each response, shape ``(N,)``, with gradients; ValueError if a text is too long."""
        return self.log_odds(self.rows(prompts, responses))


def named(prompts: Sequence[Prompt], responses: Sequence[str]) -> list[str]:
    """Return what error messages call each response."""
    return [f"Response {r[:60]!r} to prompt {key(p)[:60]!r}" for p, r in zip(prompts, responses, strict=True)]


@dataclass
class PairwiseModel(Classifier):
    """A sequence classifier that reads two responses, as the function of a `PairwiseJudge`.

    Its positive logit, or its named label, says that the first response is better. Prompt and responses become one
    text by the template in the model's configuration, ``pairwise_template``, else `TEMPLATE`, which is a user's message
    if the tokenizer has a chat template.
    """

    kind = "pairwise-model"
    responses_per_text = 2

    @torch.no_grad()
    def __call__(self, prompts: list[Prompt], first: list[str], second: list[str]) -> np.ndarray:
        return torch.sigmoid(self.margins(prompts, first, second).double()).cpu().numpy()

    def margins(self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]) -> Tensor:
        """Return the log-odds that the first response wins, shape ``(N,)``, with gradients."""
        return self.log_odds(self.pair_rows(prompts, first, second))

    def pair_rows(self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]) -> list[Row]:
        """Return what the model reads of each pair; ValueError if one is too long."""
        rows = [self.encode_pair(*triple) for triple in zip(prompts, first, second, strict=True)]
        return self.fitting(rows, [f"The pair of {text[0].lower()}{text[1:]}" for text in named(prompts, first)])

    def encode(self, prompt: Prompt, response: str) -> Row:
        return self.encode_pair(prompt, response, "")

    def encode_pair(self, prompt: Prompt, first: str, second: str) -> Row:
        """Return a pair as the model reads it, of any length."""
        template = getattr(self.model.config, "pairwise_template", TEMPLATE)
        values = {"prompt": transcript(prompt), "first": first, "second": second}
        text = re.sub(r"\{(prompt|first|second)\}", lambda match: values[match[1]], template)
        if not self.tokenizer.chat_template:
            return self.plain(text)
        talk = [{"role": "user", "content": text}]
        return {"input_ids": self.tokenizer.apply_chat_template(talk, tokenize=True, return_dict=True)["input_ids"]}


@dataclass
class EmbeddingModel(Classifier):
    r"""A general preference model: a sequence classifier whose `k` logits embed a response.

    With :math:`v` the logits and :math:`a = v/\sqrt{2(1 + |v|^2)}`, the preference is
    :math:`P_{ij} = \frac12 + a_i^\top J a_j`, `J` of blocks ``[[0, -1], [1, 0]]``: a `windgames.LowRankPreference`,
    which may be intransitive, for `K` forward passes instead of :math:`K(K-1)`.
    """

    kind = "general"

    def check_kind(self) -> None:
        config = self.model.config
        if getattr(config, "windlm_kind", self.kind) != self.kind:
            raise ValueError(f"The model was fitted as a judge of kind {config.windlm_kind}, not {self.kind}.")
        if config.num_labels % 2 or not config.num_labels:
            raise ValueError(f"A general preference model must have an even number of labels, not {config.num_labels}.")

    def embed(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Tensor:
        """Return the embedding of each response, shape ``(N, k)``, with gradients."""
        return self.embedding(self.logits(self.rows(prompts, responses)))

    @staticmethod
    def embedding(logits: Tensor) -> Tensor:
        """Return the embedding of logits, inside the ball where no score exceeds 1/2."""
        return logits / (2 * (1 + logits.square().sum(-1, keepdim=True))).sqrt()

    @staticmethod
    def scores(first: Tensor, second: Tensor) -> Tensor:
        """Return the scores `a_i' J a_j` of embeddings of equal shape, row by row."""
        return (first[..., 1::2] * second[..., ::2] - first[..., ::2] * second[..., 1::2]).sum(-1)


@dataclass
class EmbeddingJudge:
    """A general preference model as a judge.

    Parameters
    ----------
    model : EmbeddingModel
    """

    model: EmbeddingModel
    calls: int = 0

    columns = ()
    interaction = 1.0
    """The constant `L` of theory 5.2, that of any preference."""

    def __post_init__(self) -> None:
        self.known: dict[tuple[str, str], tuple[float, ...]] = {}

    def check(self, prompts: Sequence[Prompt], max_new_tokens: int) -> None:
        """Check, before anything is sampled, that texts fit the model's context."""
        self.model.check(prompts, max_new_tokens)

    @torch.no_grad()
    def preference(
        self, prompts: Sequence[Prompt], responses: Sequence[Sequence[str]], columns: Columns | None = None
    ) -> wg.LowRankPreference:
        pairs = {(key(p), r): (p, r) for p, row in zip(prompts, responses, strict=True) for r in row}
        new = {name: pair for name, pair in pairs.items() if name not in self.known}
        if new:
            found = self.model.embed(*map(list, zip(*new.values(), strict=True)))
            self.known |= dict(zip(new, map(tuple, found.double().cpu().tolist()), strict=True))
            self.calls += len(new)
        return wg.LowRankPreference(
            [[self.known[key(p), r] for r in row] for p, row in zip(prompts, responses, strict=True)]
        )
