r"""A causal language model as a policy: sampled responses and their exact log-probabilities.

A response is the sequence of sampled tokens, up to and including the token that ended it; a response that is truncated
at `max_new_tokens` has no end token. Either way

.. math:: \log\pi(y|x) = \sum_j \log\pi(y_j | x, y_{<j})

is the log-probability of a distribution over all such responses, which sums to one. Tokens are stored as sampled, never
decoded and encoded again.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from . import sharding
from .sampling import sample_tokens

Prompt = str | Sequence[Mapping[str, str]]
"""A text, or the messages of a conversation, to which the tokenizer's chat template is applied."""

Engine = Callable[["LanguagePolicy", list[list[int]], int, list[np.random.Generator]], list[list[list[int]]]]
"""Samples `k` responses to each of `B` prompts, given one generator per prompt, and returns their token ids."""

AFTER_THE_HEAD = ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier")
"""Names that model configurations give to an operation between the output layer and the logits."""
TOO_WIDE = 2**31
"""The width of a row that would be wrong: more tokens than any row has."""


MAX_NEW_TOKENS = 128
"""Default maximum length of a response, in tokens."""
FORWARD_BATCH_SIZE = 128
"""Default number of responses that are sampled at a time."""
TOKENS_PER_BATCH = 8192
"""Default number of tokens per forward pass in scoring and training."""
LOGITS_CHUNK = 4096
"""Default number of tokens whose logits are held in memory at a time."""


@dataclass(frozen=True)
class Samples:
    """`K` responses to each of `B` prompts, on the CPU."""

    prompts: list[list[int]]
    """Token ids of the prompts."""
    tokens: Tensor
    """Token ids of the responses, shape ``(B, K, L)``, padded outside the mask."""
    mask: Tensor
    """Which tokens belong to the response, the end token included; shape ``(B, K, L)``."""
    text: list[list[str]]
    """The responses as text, without special tokens, as judges and readers see them."""
    known: Mapping[str, Tensor] = field(default_factory=dict)
    """Log-probabilities of the tokens that sampling has found, shape ``(B, K, L)``, by the policy's slot in a round."""

    @property
    def n_tokens(self) -> int:
        """The number of sampled tokens."""
        return int(self.mask.sum())

    def __len__(self) -> int:
        return len(self.prompts)

    def __getitem__(self, index: Iterable[int]) -> Samples:
        rows = [int(i) for i in index]
        known = {slot: x[rows] for slot, x in self.known.items()}
        text = [self.text[i] for i in rows]
        return Samples([self.prompts[i] for i in rows], self.tokens[rows], self.mask[rows], text, known)

    def first(self, k: int) -> Samples:
        """Return the first `k` responses of each prompt."""
        return self.at(range(min(k, self.tokens.shape[1])))

    def at(self, responses: Iterable[int]) -> Samples:
        """Return these responses of each prompt."""
        which = [int(j) for j in responses]
        text = [[row[j] for j in which] for row in self.text]
        known = {slot: x[:, which] for slot, x in self.known.items()}
        return replace(self, tokens=self.tokens[:, which], mask=self.mask[:, which], text=text, known=known)

    @staticmethod
    def stack(parts: Sequence[Samples]) -> Samples:
        """Concatenate samples along the prompts; what is `known` is left out."""
        return Samples(
            [p for part in parts for p in part.prompts],
            torch.cat([part.tokens for part in parts]),
            torch.cat([part.mask for part in parts]),
            [t for part in parts for t in part.text],
        )

    @staticmethod
    def beside(parts: Sequence[Samples]) -> Samples:
        """Concatenate samples of the same prompts along the responses; what is `known` is left out."""
        return Samples(
            parts[0].prompts,
            torch.cat([part.tokens for part in parts], dim=1),
            torch.cat([part.mask for part in parts], dim=1),
            [[t for row in rows for t in row] for rows in zip(*(part.text for part in parts), strict=True)],
        )


class LanguagePolicy(torch.nn.Module):
    r"""A Hugging Face causal language model and its tokenizer as a policy over responses.

    Dropout is always off, so that sampling, scoring and training see the same distribution.

    `temperature` and `top_p` change the *sampling* distribution; log-probabilities are always those of the model
    itself, :math:`\log\pi` at temperature 1. The objectives of windlm assume samples from :math:`\pi_t`. At other
    values they use another distribution :math:`q`: a regression has the same minimizer on the support of `q`, but win
    rates are those against `q`, and KL and entropy in the metrics are biased.

    Parameters
    ----------
    model : PreTrainedModel or PeftModel
        A causal transformer. With LoRA, the reference policy is the base model with the adapter off.
    tokenizer : PreTrainedTokenizerBase
        Must have an end-of-sequence token, unless `stop` is given.
    max_new_tokens : int
        Maximum length of a response, in tokens.
    temperature : float
        Sampling temperature, see above.
    top_p : float
        Nucleus-sampling threshold, see above.
    stop : sequence of str
        Strings that end a response, in addition to the end-of-sequence tokens of tokenizer and model.
    forward_batch_size : int
        Responses that are sampled at a time.
    tokens_per_batch : int
        Tokens per forward pass in scoring and training, padding included; see `batches`.
    logits_chunk : int
        Number of tokens whose logits over the vocabulary are held in memory at a time, also in the backward pass.

    Raises
    ------
    ValueError
        If a setting is out of range, or no token can end a response.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        max_new_tokens: int = MAX_NEW_TOKENS,
        temperature: float = 1.0,
        top_p: float = 1.0,
        stop: Sequence[str] = (),
        forward_batch_size: int = FORWARD_BATCH_SIZE,
        tokens_per_batch: int = TOKENS_PER_BATCH,
        logits_chunk: int = LOGITS_CHUNK,
    ) -> None:
        super().__init__()
        least_one = {
            "max_new_tokens": max_new_tokens,
            "forward_batch_size": forward_batch_size,
            "tokens_per_batch": tokens_per_batch,
            "logits_chunk": logits_chunk,
        }
        for name, value in least_one.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, but it is {value}.")
        if not 0 < temperature < float("inf"):
            raise ValueError(f"temperature must be positive and finite, but it is {temperature}.")
        if not 0 < top_p <= 1:
            raise ValueError(f"top_p must lie in (0, 1], but it is {top_p}.")
        self.vocabulary = model.get_input_embeddings().weight.shape[0]
        """The number of tokens that the model has embeddings of."""
        ends = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
        ends = [*(ends if isinstance(ends, list) else [ends]), tokenizer.eos_token_id, turn_end(tokenizer)]
        self.stop_ids = sorted({i for i in ends if i is not None and 0 <= i < self.vocabulary})
        if not self.stop_ids and not stop:
            raise ValueError(
                "The tokenizer has no end-of-sequence token, so no response could end: set tokenizer.eos_token, "
                "or pass the texts that end a response as stop."
            )
        for name, adapter in (getattr(model, "peft_config", None) or {}).items():
            if adapter.is_prompt_learning and adapter.peft_type != "PREFIX_TUNING":
                raise ValueError(
                    f"Adapter {name!r} ({adapter.peft_type.value}) puts virtual tokens before the prompt, which shifts "
                    f"the scores: use LoRA, or prefix tuning."
                )
        self.model, self.tokenizer = model.eval(), tokenizer
        self.max_new_tokens, self.temperature, self.top_p, self.stop = max_new_tokens, temperature, top_p, tuple(stop)
        self.forward_batch_size, self.tokens_per_batch = forward_batch_size, tokens_per_batch
        self.logits_chunk = logits_chunk
        pad = tokenizer.pad_token_id  # what stands in masked places matters to nothing, if it has an embedding
        self.pad_id = pad if pad is not None and 0 <= pad < self.vocabulary else (self.stop_ids or [0])[0]
        self._appended = appended(tokenizer)
        self.context: int | None = getattr(model.config, "max_position_embeddings", None)
        self.template_args: Mapping[str, Any] = {}
        """Arguments of the chat template, such as ``enable_thinking``."""
        self.max_prompt_tokens: int | None = None
        """The most tokens of a prompt; None for what the context leaves beside a response."""
        self.truncate = False
        """Whether a longer prompt loses its first tokens; otherwise it is an error."""
        self.engine: Engine | None = None
        """Sampling engine that replaces the built-in loop; see `windlm.engines`."""
        self.precision: torch.dtype | None = None
        """Precision that the model is saved in; None for that of its weights."""
        self.report: Callable[[str, int, int], None] = ignore
        """Called during work with its name, the number of responses that are finished and that of their tokens."""
        self.autocast: torch.dtype | None = None
        """Precision that a model of float32 weights computes in, in sampling and scoring alike; None for its own."""
        self.rescore: bool | None = None
        """Whether responses are scored again under the policy that sampled them; None for where that is not `exact`."""
        self._split: bool | None = None
        self._shares: bool | None = None
        self._reads_system = False

    @property
    def device(self) -> torch.device:
        """The model's device."""
        return next(self.model.parameters()).device

    @property
    def has_adapter(self) -> bool:
        """Whether the model is a PEFT adapter over a base model."""
        return hasattr(self.model, "disable_adapter") and hasattr(self.model, "peft_config")

    def train(self, mode: bool = True) -> LanguagePolicy:
        """Stay in evaluation mode regardless of `mode`: dropout would change the policy in every pass."""
        return super().train(False)

    def adapter_is_new(self) -> bool:
        """Return whether the policy has an adapter that changes nothing: LoRA whose second factors are zero."""
        if not self.has_adapter:
            return False
        for name, p in self.model.named_parameters():
            if p.requires_grad and not any(part in name for part in ("lora_A", "lora_embedding_B")):
                zero = any(part in name for part in ("lora_B", "lora_embedding_A"))
                if not zero or bool(sharding.share(p.detach()).any()):
                    return False
        return True

    def save(self, folder: Path, weights: Mapping[str, Tensor] | None = None) -> None:
        """Save model and tokenizer for `from_pretrained`, with other weights if given."""
        self.model.save_pretrained(folder, **({} if weights is None else {"state_dict": dict(weights)}))
        self.tokenizer.save_pretrained(folder)

    def computing(self) -> AbstractContextManager[Any]:
        """Return the context that the model computes in."""
        return nullcontext() if self.autocast is None else torch.autocast(self.device.type, self.autocast)

    @property
    def exact(self) -> bool:
        """Whether all computations are in float32 or float64."""
        return self.autocast is None and is_full_precision(self.model)

    # -- prompts ---------------------------------------------------------------------------------------------

    @property
    def prompt_room(self) -> int | None:
        """The most tokens that a prompt may have; None for any number."""
        rooms = [self.max_prompt_tokens, self.context and max(0, self.context - self.max_new_tokens)]
        return min((room for room in rooms if room is not None), default=None)

    def encode(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        """Return the token ids of each prompt, the last `prompt_room` of them if `truncate` is set.

        Raises
        ------
        ValueError
            If a prompt has no tokens, the chat template refuses it, or it is too long; its index is named.
        """
        room = self.prompt_room
        encoded = self.tokenize(prompts)
        for i, ids in enumerate(encoded):
            if room is None or len(ids) <= room:
                continue
            if self.truncate and room:
                encoded[i] = ids[-room:]
                continue
            if room == self.max_prompt_tokens:
                raise ValueError(f"Prompt {i} has {len(ids)} tokens; the most that a prompt may have is {room}.")
            raise ValueError(
                f"Prompt {i} has {len(ids)} tokens; with a response of up to {self.max_new_tokens} it does not "
                f"fit the model's context of {self.context}. Shorten it, or lower max_new_tokens."
            )
        return encoded

    def tokenize(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        """Return the token ids of each prompt, however many they are; see `encode`."""
        encoded = []
        for i, prompt in enumerate(prompts):
            if isinstance(prompt, str):
                ids = plain_ids(self.tokenizer, prompt, self._appended)
            else:
                ids = self._chat_ids(prompt, i)
            if not ids:
                raise ValueError(f"Prompt {i} is empty: it has no tokens.")
            if max(ids) >= self.vocabulary:
                raise ValueError(
                    f"Prompt {i} has the token {max(ids)}, {self.tokenizer.convert_ids_to_tokens(max(ids))!r}, but the "
                    f"model has embeddings of {self.vocabulary} tokens: it needs another tokenizer, or a new token was "
                    f"added without resizing the model."
                )
            encoded.append(list(map(int, ids)))
        return encoded

    def _chat_ids(self, prompt: Any, i: int) -> list[int]:
        template = getattr(self.tokenizer, "chat_template", None)
        if not template:
            raise ValueError(
                f"Prompt {i} is a conversation, but the tokenizer has no chat template: give texts, or a chat model."
            )
        for name in self.template_args:
            if not re.search(rf"\b{name}\b", str(template)):
                raise ValueError(f"The chat template does not read the argument {name!r}: leave it out.")
        messages, settings = list(prompt), {"add_generation_prompt": True, **self.template_args}
        try:
            ids = self.tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True, **settings)["input_ids"]
            if messages[0]["role"] == "system" and not self._reads_system:
                text = self.tokenizer.apply_chat_template(messages, tokenize=False, **settings)
                self._reads_system = str(messages[0]["content"]).strip() in text
        except jinja2.TemplateError as error:
            roles = ", ".join(m["role"] for m in messages)
            raise ValueError(f"The chat template refuses prompt {i}, with the roles {roles}: {error}.") from None
        if messages[0]["role"] == "system" and not self._reads_system:
            raise ValueError(f"The chat template leaves out the system message of prompt {i}: it knows no such role.")
        return ids

    def read(self, tokens: Tensor, mask: Tensor, special: bool = False) -> list[list[str]]:
        """Decode tokens of shape ``(B, K, L)``, with or without special tokens."""
        return [self.tokenizer.batch_decode(ids, skip_special_tokens=not special) for ids in unpadded(tokens, mask)]

    # -- sampling --------------------------------------------------------------------------------------------

    @torch.no_grad()
    def sample(
        self, prompts: Sequence[Prompt], k: int, rng: np.random.Generator | Sequence[np.random.Generator]
    ) -> Samples:
        """Sample `k` responses to each prompt.

        Each token is the inverse cumulative distribution at a uniform number of the prompt's generator. Given one
        generator per prompt, the samples depend neither on the batch nor on the device nor on the number of processes
        (up to rounding of the model's probabilities).

        Parameters
        ----------
        prompts : sequence of B prompts
        k : int
            Responses per prompt.
        rng : numpy Generator, or one per prompt
        """
        if k < 1:
            raise ValueError(f"k must be at least 1, but it is {k}.")
        generators = rng.spawn(len(prompts)) if isinstance(rng, np.random.Generator) else list(rng)
        if len(generators) != len(prompts):
            raise ValueError(f"There are {len(prompts)} prompts, but {len(generators)} generators.")
        encoded = self.encode(prompts)
        if self.engine is not None:
            tokens, mask = padded(self.engine(self, encoded, k, generators), self.max_new_tokens, self.pad_id)
            self.report("sampling", mask.shape[0] * k, int(mask.sum()))
            return Samples(encoded, tokens, mask, self.read(tokens, mask))
        uniform = torch.from_numpy(np.stack([g.random((k, self.max_new_tokens)) for g in generators]))
        with self.computing():
            tokens, mask, log_p = sample_tokens(self, encoded, uniform)
        rescore = not self.exact if self.rescore is None else self.rescore
        keep = self.temperature == self.top_p == 1 and not rescore
        return Samples(encoded, tokens, mask, self.read(tokens, mask), {"current": log_p * mask} if keep else {})

    def tempered(self, logits: Tensor) -> Tensor:
        """Return the log-probabilities of the sampling distribution."""
        logits = logits.float() if self.temperature == 1 else logits.float() / self.temperature
        log_p = torch.log_softmax(logits, dim=-1)
        if self.top_p == 1:
            return log_p
        best, order = log_p.sort(dim=-1, descending=True)
        before = best.exp().cumsum(-1) - best.exp()
        cut = torch.zeros_like(before, dtype=torch.bool).scatter(-1, order, before >= self.top_p)
        return torch.log_softmax(log_p.masked_fill(cut, -torch.inf), dim=-1)

    # -- scoring ---------------------------------------------------------------------------------------------

    def forward(self, samples: Samples, per_token: bool = False) -> Tensor:
        r"""Return :math:`\log\pi(y|x)` of each response, shape ``(B, K)``, float32, with gradients.

        With `per_token`, return that of each token instead, shape ``(B, K, L)``, zero outside the mask.

        Where the model supports a 4-D attention mask, several responses to a prompt share one row: the prompt is
        computed once, and each response attends to the prompt and itself (`pack_rows`). Otherwise each response has its
        own row. The model's hidden states become logits in pieces of `logits_chunk` tokens, and
        again in the backward pass, so that no array of the size of all tokens times the vocabulary ever exists.
        """
        lengths = samples.mask.sum(-1)
        width, longest = max(map(len, samples.prompts)), max(1, int(lengths.max()))
        if self.context is not None and width + longest > self.context:
            raise ValueError(
                f"A prompt of {width} tokens with a response of {longest} does not fit the model's context of "
                f"{self.context}."
            )
        with self.computing():
            return self._score(samples, lengths, self._responses_per_row(samples), per_token)

    def _score(self, samples: Samples, lengths: Tensor, per_row: int, per_token: bool = False) -> Tensor:
        b, k = lengths.shape
        rows, attention, positions, place = pack_rows(samples, lengths, per_row, self.pad_id)
        inputs: dict[str, Tensor] = {"input_ids": rows.to(self.device)}
        if per_row == 1:
            inputs["attention_mask"] = attention.to(self.device)
        else:
            dtype = next(p.dtype for p in self.model.parameters() if p.is_floating_point())
            hidden = torch.zeros(attention.shape, dtype=dtype).masked_fill_(~attention, torch.finfo(dtype).min)
            inputs |= {"attention_mask": hidden[:, None].to(self.device), "position_ids": positions.to(self.device)}
        response = samples.mask.flatten(0, 1).nonzero(as_tuple=True)[0].to(self.device)
        targets = samples.tokens[samples.mask].to(self.device)
        place = (place[0].to(self.device), place[1].to(self.device))
        log_p = torch.cat(list(self._token_log_probs(inputs, place, targets)))
        # FSDP hangs its backward pass on the result, and wants no view for that
        if per_token:
            token = samples.mask.flatten().nonzero()[:, 0].to(self.device)
            return log_p.new_zeros(samples.mask.numel()).index_add(0, token, log_p).view(samples.mask.shape).clone()
        return log_p.new_zeros(b * k).index_add(0, response, log_p).view(b, k).clone()

    @torch.no_grad()
    def log_prob(self, samples: Samples, per_token: bool = False) -> Tensor:
        """Return `forward` without gradients, in `batches`, on the CPU."""
        log_p = torch.empty(samples.tokens.shape[: 3 if per_token else 2])
        for rows in self.batches(samples):
            log_p[rows] = self(samples[rows], per_token).cpu()
            self.report("scoring", 0, samples[rows].n_tokens)
        return log_p

    def batches(self, samples: Samples) -> list[list[int]]:
        """Split prompts into batches of at most `tokens_per_batch` tokens, padding included, the longest first.

        Prompts of similar length come together, so that little is padding. All responses to a prompt are in one batch,
        however many tokens they have. Processes that share sharded weights get equally many batches.
        """
        widths, k = self._row_widths(samples), samples.tokens.shape[1]
        tokens = torch.stack([k // g * w for g, w in widths.items()]).amin(0)
        batches: list[list[int]] = []
        for i in tokens.argsort(descending=True, stable=True).tolist():
            together = [*batches[-1], i] if batches else [i]
            g, width = self._cheapest(widths, together, k)
            if len(batches) and len(together) * (k // g) * width <= self.tokens_per_batch:
                batches[-1] = together
            else:
                batches.append([i])
        for _ in range(sharding.largest(len(batches), self) - len(batches)):
            most = max(batches, key=len)
            batches.remove(most)
            batches += [most[::2], most[1::2]]
        return batches

    def next_logits(self, **inputs: Any) -> tuple[Any, Tensor]:
        """Return the model's output for rows, and the logits after each one's last token."""
        if self._split is None:
            self._split = self._head_is_all()
        if self._split and not sharding.is_sharded(self):
            # contiguous, since of a slice torch would copy the output layer for every row
            out = self.base.base_model(**inputs)
            return out, self.base.get_output_embeddings()(out[0][:, -1].contiguous())
        accepted = inspect.signature(self.base.forward).parameters
        out = self.model(**inputs, **({"logits_to_keep": 1} if "logits_to_keep" in accepted else {}))
        return out, out.logits[:, -1]

    def logits(self, ids: Tensor) -> Tensor:
        """Return the logits after each token of unpadded rows."""
        return self.model(ids, attention_mask=torch.ones_like(ids), use_cache=False).logits

    @property
    def base(self) -> Any:
        """The model without its adapter."""
        return self.model.get_base_model() if self.has_adapter else self.model

    def tie_weights(self) -> None:
        """Tie shared weights; accelerate calls this after loading weights."""
        self.base.tie_weights()

    def _token_log_probs(self, inputs: Mapping[str, Tensor], place: Any, targets: Tensor) -> Iterator[Tensor]:
        if self._split is None:
            self._split = self._head_is_all()
        if self._split:
            hidden = self.base.base_model(**inputs, use_cache=False)[0][place]
            head: Callable[[Tensor], Tensor] = self.base.get_output_embeddings()
        else:
            hidden = self.model(**inputs, use_cache=False).logits[place]
            head = torch.nn.Identity()

        def score(h: Tensor, y: Tensor) -> Tensor:
            return torch.log_softmax(head(h).float(), dim=-1).gather(-1, y[:, None])[:, 0]

        for h, y in zip(hidden.split(self.logits_chunk), targets.split(self.logits_chunk), strict=True):
            yield checkpoint(score, h, y, use_reentrant=False) if len(targets) > self.logits_chunk else score(h, y)

    def _responses_per_row(self, samples: Samples) -> int:
        """Return the cheapest number of responses per row, or 1 if the model does not support sharing."""
        return self._cheapest(self._row_widths(samples), range(len(samples)), samples.tokens.shape[1])[0]

    def _row_widths(self, samples: Samples) -> dict[int, Tensor]:
        """Return the length of each prompt's longest row, for each number of responses per row that is possible."""
        if self._shares is None:  # first of all: where the model is sharded, all processes must ask at the same time
            self._shares = self._can_share()
        lengths = samples.mask.sum(-1)
        b, k = lengths.shape
        sizes = torch.tensor([len(p) for p in samples.prompts])
        inputs = (lengths - 1).clamp(min=0)
        config = self.base.config.get_text_config()
        windows = [w for name in ("sliding_window", "attention_chunk_size") if (w := getattr(config, name, None))]
        # a sliding window would count the other responses in the row
        over = sizes + lengths.max(-1).values > min(windows, default=TOO_WIDE)
        possible = [g for g in range(k, 0, -1) if k % g == 0 and (g == 1 or self._shares)]
        widths = {g: (sizes[:, None] + inputs.view(b, -1, g).sum(-1)).amax(-1) for g in possible}
        return {g: w.masked_fill(over, TOO_WIDE) if g > 1 else w for g, w in widths.items()}

    def _cheapest(self, widths: Mapping[int, Tensor], rows: Iterable[int], k: int) -> tuple[int, int]:
        """Return the cheapest number of responses per row for a batch of prompts, and the batch's width."""
        which, size = list(rows), self.base.config.get_text_config().hidden_size
        longest = {g: int(w[which].max()) for g, w in widths.items()}
        # per layer, in units of 4 d operations: 6 d per token for the matrices, 1 per pair of tokens for attention
        best = min(longest, key=lambda g: k // g * longest[g] * (6 * size + longest[g]))
        return best, longest[best]

    @torch.no_grad()
    def _can_share(self) -> bool:
        """Whether the model honours a 4-D mask and position ids, found by scoring a small sample both ways."""
        accepted = inspect.signature(self.base.forward).parameters
        kernel = getattr(self.base.config, "_attn_implementation", None)
        if "position_ids" not in accepted or kernel not in ("sdpa", "eager"):
            return False
        size = self.base.config.get_text_config().vocab_size
        tokens = torch.randint(size, (2, 4, 5), generator=torch.Generator().manual_seed(0))
        mask = torch.arange(5) < torch.tensor([[1, 5, 2, 3], [5, 1, 4, 2]])[..., None]
        some = Samples([tokens[0, 0].tolist(), tokens[1].flatten()[:9].tolist()], tokens, mask, [[""] * 4] * 2)
        lengths = mask.sum(-1)
        try:
            plain, shared = self._score(some, lengths, 1), self._score(some, lengths, 4)
        except (ValueError, TypeError, RuntimeError, IndexError, AttributeError):
            return False
        slack = 2e-4 if self.exact else 2e-2
        return torch.allclose(plain, shared, rtol=slack, atol=slack)

    @torch.no_grad()
    def _head_is_all(self) -> bool:
        """Return whether the logits are the output layer of the hidden states; some models also cap or scale them."""
        head, config = self.base.get_output_embeddings(), self.base.config.get_text_config()
        if head is None or any(getattr(config, name, None) not in (None, 1) for name in AFTER_THE_HEAD):
            return False
        ids = torch.arange(min(8, config.vocab_size), device=self.device)[None]
        logits = self.model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
        ours = head(self.base.base_model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)[0])
        return logits.shape == ours.shape and torch.allclose(logits, ours, rtol=1e-5, atol=1e-5)


def ignore(activity: str, responses: int, tokens: int) -> None:
    """Report nothing."""


def is_full_precision(model: torch.nn.Module) -> bool:
    """Whether all weights are in float32 or float64."""
    return all(p.dtype in (torch.float32, torch.float64) for p in model.parameters())


def plain_ids(tokenizer: Any, text: str, appended: int = 0) -> list[int]:
    """Return the token ids of a text without the last `appended` ones, which a tokenizer puts after every text.

    A text that begins with the beginning-of-sequence token gets no second one.
    """
    if tokenizer.bos_token and text.startswith(tokenizer.bos_token):
        return tokenizer(text, add_special_tokens=False)["input_ids"]
    ids = tokenizer(text)["input_ids"]
    return ids[: len(ids) - appended]


def appended(tokenizer: Any) -> int:
    """Return how many special tokens a tokenizer puts after a text: a response would come after its end."""
    marked = tokenizer("a", return_special_tokens_mask=True)["special_tokens_mask"]
    return next((n for n, special in enumerate(reversed(marked)) if not special), 0)


def turn_end(tokenizer: Any) -> int | None:
    """Return the special token that the chat template puts after an assistant's message, if there is one."""
    if not tokenizer.chat_template:
        return None
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    try:
        before = tokenizer.apply_chat_template(talk[:1], add_generation_prompt=True, tokenize=True, return_dict=True)
        after = tokenizer.apply_chat_template(talk, tokenize=True, return_dict=True)
    except (jinja2.TemplateError, TypeError, ValueError, AttributeError):
        return None  # a template that wants more than two messages
    special = set(tokenizer.all_special_ids) | tokenizer.added_tokens_decoder.keys()
    return next((i for i in after["input_ids"][len(before["input_ids"]) :] if i in special), None)


def finite(model: torch.nn.Module) -> None:
    """Raise ValueError if a weight of the model is not finite; the first such tensor is named."""
    for name, p in model.named_parameters():
        if p.device.type != "meta" and not torch.isfinite(p.detach()).all():
            raise ValueError(f"The weights {name} hold nan or inf: the model is damaged, or overflowed in {p.dtype}.")


def padded(token_ids: Sequence[Sequence[Sequence[int]]], length: int, pad_id: int) -> tuple[Tensor, Tensor]:
    """Return token ids of `K` responses to each of `B` prompts as padded tokens and mask, shape ``(B, K, length)``."""
    tokens = torch.full((len(token_ids), len(token_ids[0]), length), pad_id)
    mask = torch.zeros_like(tokens, dtype=torch.bool)
    for i, row in enumerate(token_ids):
        for j, ids in enumerate(row):
            tokens[i, j, : len(ids)], mask[i, j, : len(ids)] = torch.tensor(ids, dtype=torch.long), True
    return tokens, mask


def unpadded(tokens: Tensor, mask: Tensor) -> list[list[list[int]]]:
    """Return the token ids of padded responses, the inverse of `padded`."""
    return [[t[m].tolist() for t, m in zip(ts, ms, strict=True)] for ts, ms in zip(tokens, mask, strict=True)]


def pack_rows(
    samples: Samples, lengths: Tensor, per_row: int, pad_id: int
) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor]]:
    """Pack each prompt and `per_row` of its responses into one row, on the CPU.

    A row is the prompt followed by each response without its last token (nothing is predicted from it), padded on the
    right. The positions of every response continue from the end of the prompt.

    Returns
    -------
    rows, positions : Tensor, shape ``(R, T)``
        Token ids and positions.
    attention : Tensor, shape ``(R, T)`` if `per_row` is 1, else ``(R, T, T)``
        Mask of the tokens that are not padding; or, for each token, of those that it attends to.
    place : tuple of Tensor
        Row and column of the token before each response token, in the order of ``samples.tokens[samples.mask]``.
    """
    b, k = lengths.shape
    sizes = torch.tensor([len(p) for p in samples.prompts])[:, None, None]
    inputs = (lengths - 1).clamp(min=0).view(b, k // per_row, per_row)
    starts = sizes + inputs.cumsum(-1) - inputs  # where each response's tokens begin in its row
    ends = (sizes[..., 0] + inputs.sum(-1)).flatten()
    width, r = int(ends.max()), b * (k // per_row)
    rows, positions = torch.full((r, width), pad_id), torch.zeros((r, width), dtype=torch.long)
    segment = torch.full((r, width), -1)  # 0 for the prompt, n for the n-th response of the row
    for i, prompt in enumerate(samples.prompts):
        own = slice(i * (k // per_row), (i + 1) * (k // per_row))
        rows[own, : len(prompt)], segment[own, : len(prompt)] = torch.tensor(prompt), 0
        positions[own, : len(prompt)] = torch.arange(len(prompt))
    b_, k_, step = samples.mask.nonzero(as_tuple=True)
    row = b_ * (k // per_row) + k_ // per_row
    first, size = starts.view(b, k)[b_, k_], sizes[b_, 0, 0]
    column = torch.where(step == 0, size - 1, first + step - 1)
    kept = step < lengths[b_, k_] - 1
    at = (row[kept], (first + step)[kept])
    rows[at] = samples.tokens[samples.mask][kept]
    positions[at], segment[at] = (size + step)[kept], (k_ % per_row + 1)[kept]
    attention = torch.arange(width) < ends[:, None]
    if per_row > 1:
        sees = (segment[:, :, None] == segment[:, None, :]) | (segment[:, None, :] == 0)
        attention = sees & torch.ones(width, width, dtype=torch.bool).tril()  # padding sees padding, and itself
    return rows, attention, positions, (row, column)
