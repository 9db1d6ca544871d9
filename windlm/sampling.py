"""Sampling with a key-value cache and continuous batching.

Whenever enough responses have finished, their rows leave the batch and the next prompts enter, so that the batch stays
full until the queue is empty. The cache is written in place into preallocated buffers. A response is a function of the
model, the prompt and the prompt's uniform random numbers alone, up to rounding.

Three kinds of models are sampled in static batches instead, where the next prompts enter once all responses of the
batch have finished: models with recurrent state (whose state padding would change, so that a batch only has prompts of
equal length), models with prefix tuning, and models that are sharded over processes.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from . import sharding

if TYPE_CHECKING:
    from .policy import LanguagePolicy

REFILL_SHARE = 0.25
"""Minimum share of finished rows before the batch is rebuilt, which copies the cache."""
ROOM = 64
"""Spare capacity of the cache buffers, in tokens."""
CACHE_ARGUMENTS = ("cache", "past_key_values")
"""Names that a model's forward gives to its cache: since transformers 5.24, and before."""
SYNC_EVERY = 8
"""Interval between checks for finished responses on a GPU, in tokens; each check synchronizes with the device."""


class GrowingLayer(DynamicLayer):
    """The cache of one layer in preallocated buffers; `keys` and `values` are views of the part in use."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append keys and values in place, and return all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.buffers = [x.new_empty((*x.shape[:2], 0, x.shape[-1])) for x in (key_states, value_states)]
            self.used = 0
        start, self.used = self.used, self.used + key_states.shape[-2]
        for i, new in enumerate((key_states, value_states)):
            if self.used > self.buffers[i].shape[-2]:
                larger = new.new_empty((*new.shape[:2], self.used + ROOM, new.shape[-1]))
                larger[:, :, :start] = self.buffers[i][:, :, :start]
                self.buffers[i] = larger
            self.buffers[i][:, :, start : self.used] = new
        self.keys, self.values = (x[:, :, : self.used] for x in self.buffers)
        return self.keys, self.values

    def get_seq_length(self) -> int:
        """Return the number of cached tokens."""
        return self.used if self.is_initialized else 0

    def rearrange(self, keep: Tensor, lead: int, new: GrowingLayer | None, repeats: int) -> None:
        """Keep some rows without their first `lead` tokens, and append each row of `new`, repeated; right-aligned."""
        old_size = self.used - lead
        size = max(old_size, new.used if new is not None else 0)
        for i, held in enumerate(self.buffers):
            added = None if new is None else new.buffers[i][:, :, : new.used].repeat_interleave(repeats, 0)
            rows = len(keep) + (0 if added is None else len(added))
            buffer = held.new_zeros((rows, held.shape[1], size + ROOM, held.shape[-1]))
            buffer[: len(keep), :, size - old_size : size] = held[keep, :, lead : self.used]
            if added is not None:
                buffer[len(keep) :, :, size - added.shape[-2] : size] = added
            self.buffers[i] = buffer
        self.used = size
        self.keys, self.values = (x[:, :, :size] for x in self.buffers)


@dataclass
class Rows:
    """The state of the batch, one row per response in progress."""

    response: Tensor
    """Index of the response, shape ``(R,)``."""
    step: Tensor
    """Number of its tokens so far."""
    finished: Tensor
    attention: Tensor
    """Attention mask of the cached tokens, shape ``(R, T)``."""
    position: Tensor
    """Position of its next token."""
    logits: Tensor
    """Logits of its next token, shape ``(R, V)``."""


class Sampler:
    """The queue of prompts, the batch in progress and its cache."""

    def __init__(self, policy: LanguagePolicy, prompts: Sequence[Sequence[int]], uniform: Tensor) -> None:
        self.policy, self.prompts, self.k = policy, prompts, uniform.shape[1]
        device, self.length = policy.device, uniform.shape[-1]
        accepted = inspect.signature(policy.base.forward).parameters
        named = [name for name in CACHE_ARGUMENTS if name in accepted]
        if not named:
            raise ValueError(
                f"{type(policy.base).__name__} keeps no keys and values from token to token (it takes no "
                f"{' or '.join(CACHE_ARGUMENTS)}), which sampling needs: use a transformer, or a hybrid model with a "
                f"key-value cache."
            )
        self.cache_argument = named[0]
        self.positions = "position_ids" in accepted
        kept = DynamicCache(config=policy.base.config).layers
        self.recurrent = any(type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer) for layer in kept)
        prefix = any(a.is_prompt_learning for a in (getattr(policy.model, "peft_config", None) or {}).values())
        self.static = self.recurrent or prefix or sharding.is_sharded(policy)
        self.own_cache = not (self.recurrent or prefix)
        # one more column, which finished rows that are still in the batch write to
        self.uniform = torch.nn.functional.pad(uniform.flatten(0, 1), (0, 1), value=0.5).to(
            device, torch.float32 if device.type == "mps" else torch.float64
        )
        self.tokens = torch.full((len(self.uniform), self.length + 1), policy.pad_id, device=device)
        self.mask = torch.zeros_like(self.tokens, dtype=torch.bool)
        self.log_p = torch.zeros_like(self.tokens, dtype=torch.float32)
        self.stops = torch.tensor(policy.stop_ids, dtype=torch.long, device=device)
        self.queue = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
        self.cache: Any = None
        self.rows: Rows | None = None

    def run(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return tokens, mask and log-probabilities, shape ``(B, K, L)``, on the CPU."""
        capacity = max(1, self.policy.forward_batch_size // self.k) * self.k
        count = 0
        while True:
            live = self._live(count, capacity)
            if live is not None:
                self._report()
                self._refill(live, capacity)
            if self.rows is None:
                break
            self._next_token()
            count += 1
        shape = (len(self.prompts), self.k, self.length + 1)
        tokens, mask, log_p = (x.view(shape)[..., : self.length].cpu() for x in (self.tokens, self.mask, self.log_p))
        return tokens, mask, log_p

    def _report(self) -> None:
        if self.rows is not None:
            finished = self.rows.finished
            self.policy.report("sampling", int(finished.sum()), int(self.rows.step[finished].sum()))

    def _live(self, count: int, capacity: int) -> Tensor | None:
        """Return the unfinished rows if the batch is to be rebuilt now, else None."""
        if self.rows is None:
            return torch.zeros(0, dtype=torch.long)
        finished = self.rows.finished
        if self.static:
            done = sharding.all_agree(bool(finished.all()), self.policy)
            return torch.zeros(0, dtype=torch.long, device=finished.device) if done else None
        if finished.device.type != "cpu" and count % SYNC_EVERY:
            return None
        live = (~finished).nonzero()[:, 0]
        room = (capacity if self.queue else len(finished)) - len(live)
        return live if not len(live) or room >= max(self.k if self.queue else 1, REFILL_SHARE * len(finished)) else None

    def _refill(self, live: Tensor, capacity: int) -> None:
        """Remove finished rows and add as many prompts from the queue as fit."""
        n = min(len(self.queue), (capacity - len(live)) // self.k)
        if self.recurrent:  # of one length
            n = sum(len(self.prompts[i]) == len(self.prompts[self.queue[0]]) for i in self.queue[:n])
        chosen, self.queue = self.queue[:n], self.queue[n:]
        old, self.rows = (self.rows, None) if len(live) else (None, None)
        new, cache = self._begin(chosen) if chosen else (None, None)
        if old is None:
            self.rows, self.cache = new, cache
            if cache is not None and self.own_cache:
                each = torch.arange(len(chosen), device=self.policy.device).repeat_interleave(self.k)
                for layer in cache.layers:
                    layer.rearrange(each, 0, None, 1)
            return
        lead = int(old.attention[live].any(0).long().argmax())
        for i, layer in enumerate(self.cache.layers):
            layer.rearrange(live, lead, cache.layers[i] if cache is not None else None, self.k)
        old = Rows(*(getattr(old, name)[live] for name in Rows.__dataclass_fields__))
        old.attention = old.attention[:, lead:]
        parts = [old] if new is None else [old, new]
        width = max(p.attention.shape[1] for p in parts)
        for p in parts:
            p.attention = torch.nn.functional.pad(p.attention, (width - p.attention.shape[1], 0))
        self.rows = Rows(*(torch.cat([getattr(p, name) for p in parts]) for name in Rows.__dataclass_fields__))

    def _begin(self, chosen: list[int]) -> tuple[Rows, Any]:
        """Prefill prompts, padded on the left; return their rows, and the cache with one row per prompt."""
        device, k = self.policy.device, self.k
        sizes = torch.tensor([len(self.prompts[i]) for i in chosen], device=device)
        width = int(sizes.max())
        pad = self.policy.pad_id
        ids = torch.tensor(
            [[pad] * (width - len(self.prompts[i])) + list(self.prompts[i]) for i in chosen], device=device
        )
        attention = (torch.arange(width, device=device) >= width - sizes[:, None]).long()
        positions = (attention.cumsum(-1) - 1).clamp(min=0)
        repeats = k if self.recurrent else 1  # a recurrent state is computed per row, since it cannot be repeated
        ids, inputs, positions = (x.repeat_interleave(repeats, 0) for x in (ids, attention, positions))
        cache = Cache(layer_class_to_replicate=GrowingLayer) if self.own_cache else None
        out, logits = self._model(ids, inputs, positions, cache)
        broken = logits.isnan().any(-1)
        if broken.any():
            first = self.prompts[chosen[int(broken.nonzero()[0]) // repeats]]
            raise ValueError(
                f"The model's probabilities after the prompt {self.policy.tokenizer.decode(first)[:60]!r} are nan: its "
                f"weights are damaged, or {logits.dtype} overflows."
            )
        cache = out[self.cache_argument] if cache is None else cache
        if not self.own_cache and not self.recurrent:
            cache.batch_repeat_interleave(k)
        response = (torch.tensor(chosen, device=device)[:, None] * k + torch.arange(k, device=device)).flatten()
        zeros = torch.zeros_like(response)
        logits = logits.repeat_interleave(k // repeats, 0)
        rows = Rows(
            response, zeros, zeros.bool(), attention.repeat_interleave(k, 0), sizes.repeat_interleave(k), logits
        )
        return rows, cache

    def _next_token(self) -> None:
        """Sample the next token of every row, and run the model on it unless all rows are finished."""
        rows = self.rows
        assert rows is not None
        column = torch.where(rows.finished, self.length, rows.step)
        log_p = self.policy.tempered(rows.logits)
        token = inverse_cdf(log_p, self.uniform[rows.response, column])
        self.tokens[rows.response, column] = token
        self.mask[rows.response, column] = True
        self.log_p[rows.response, column] = log_p.gather(-1, token[:, None])[:, 0]
        rows.step = rows.step + 1
        rows.finished = rows.finished | torch.isin(token, self.stops) | (rows.step >= self.length)
        if self.policy.stop:
            rows.finished = rows.finished | self._says_stop(rows)
        if rows.finished.device.type == "cpu" and not self.static and bool(rows.finished.all()):
            return
        rows.attention = torch.cat([rows.attention, rows.attention.new_ones(len(token), 1)], dim=-1)
        rows.logits = self._model(token[:, None], rows.attention, rows.position[:, None], self.cache)[1]
        rows.position = rows.position + 1

    def _says_stop(self, rows: Rows) -> Tensor:
        tokens, mask = (x[rows.response, : self.length][:, None] for x in (self.tokens, self.mask))
        text = (t for row in self.policy.read(tokens, mask, special=True) for t in row)
        return torch.tensor([any(s in t for s in self.policy.stop) for t in text], device=mask.device)

    def _model(self, ids: Tensor, attention: Tensor, positions: Tensor, cache: Any) -> tuple[Any, Tensor]:
        inputs = {"input_ids": ids, self.cache_argument: cache, "use_cache": True}
        inputs |= {"position_ids": positions} if self.positions else {}
        # recurrent rows have no padding, and Mamba would apply the mask of all tokens to the last one
        return self.policy.next_logits(**inputs, **({} if self.recurrent else {"attention_mask": attention}))


def sample_tokens(
    policy: LanguagePolicy, prompts: Sequence[Sequence[int]], uniform: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Sample responses by inverting the cumulative distribution of each next token.

    Parameters
    ----------
    policy : LanguagePolicy
    prompts : sequence of B lists of token ids
    uniform : Tensor, shape ``(B, K, L)``
        Uniform random numbers in [0, 1), one per token.

    Returns
    -------
    tokens, mask, log_p : Tensor, shape ``(B, K, L)``
        On the CPU: token ids, which of them belong to the response, and their log-probabilities in the distribution
        that they were sampled from. What lies outside the mask is padding.
    """
    return Sampler(policy, prompts, uniform).run()


def inverse_cdf(log_p: Tensor, uniform: Tensor) -> Tensor:
    """Return, per row, the first index at which the cumulative probability exceeds the uniform number."""
    total = log_p.exp().cumsum(-1, dtype=uniform.dtype)
    index = torch.searchsorted(total, (uniform * total[:, -1])[:, None], right=True)[:, 0]
    return index.clamp(max=log_p.shape[-1] - 1)
