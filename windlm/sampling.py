"""Drawing responses token by token.

Prompts that wait take the place of responses that have ended, `k` rows at a time, so that the batch stays full until
the last prompts. Keys and values lie in buffers with room for the tokens to come, and a step copies none of them. What
is drawn is a function of the model, the prompt and its uniform numbers alone, up to rounding.

Models that keep more than keys and values (recurrent states, adapters with a prefix), and models in shares, are drawn
from in waves instead: no prompt enters before the wave has ended. A recurrent state would take up padding, so that the
prompts of such a wave have one length.
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
"""Share of the rows that must have ended before the batch is put together anew, which copies the cache."""
ROOM = 64
"""Tokens by which a full buffer of keys and values grows."""
LOOK_EVERY = 8
"""Steps between two looks at which responses have ended, on a device that must be waited for."""


class GrowingLayer(DynamicLayer):
    """Keys and values of one layer in buffers with room, of which `keys` and `values` are the part in use."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append keys and values, and return all of them."""
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
        """Return the number of tokens in use."""
        return self.used if self.is_initialized else 0

    def rearrange(self, keep: Tensor, lead: int, new: GrowingLayer | None, repeats: int) -> None:
        """Keep some rows without their first `lead` tokens, and add each row of `new` so many times; ends align."""
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
    """The responses that are being drawn, one a row."""

    response: Tensor
    """Which response of all each row is."""
    step: Tensor
    """How many of its tokens have been drawn."""
    ended: Tensor
    attention: Tensor
    """Shape ``(R, T)``: the tokens so far that are not padding."""
    position: Tensor
    """Where its next token goes."""
    logits: Tensor
    """Of its next token."""


class Drawing:
    """One call of `draw`: the queue of prompts, the rows in progress and their cache."""

    def __init__(self, policy: LanguagePolicy, prompts: Sequence[Sequence[int]], uniform: Tensor) -> None:
        self.policy, self.prompts, self.k = policy, prompts, uniform.shape[1]
        device, self.length = policy.device, uniform.shape[-1]
        accepted = inspect.signature(policy.base.forward).parameters
        if "past_key_values" not in accepted:
            raise ValueError(
                f"{type(policy.base).__name__} keeps no keys and values from token to token (it takes no "
                f"past_key_values), which drawing needs: take a transformer, or a hybrid with a key-value cache."
            )
        self.optional = accepted.keys() & {"position_ids", "logits_to_keep"}
        kept = DynamicCache(config=policy.base.config).layers
        self.recurrent = any(type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer) for layer in kept)
        prefix = any(a.is_prompt_learning for a in (getattr(policy.model, "peft_config", None) or {}).values())
        self.waves = self.recurrent or prefix or sharding.is_sharded(policy)
        self.own_cache = not (self.recurrent or prefix)
        # the uniform numbers and results have one more column, for what rows that have ended go on to draw
        self.uniform = torch.nn.functional.pad(uniform.flatten(0, 1), (0, 1), value=0.5).to(
            device, torch.float32 if device.type == "mps" else torch.float64
        )
        self.tokens = torch.full((len(self.uniform), self.length + 1), policy.pad_id, device=device)
        self.mask = torch.zeros_like(self.tokens, dtype=torch.bool)
        self.stops = torch.tensor(policy.stop_ids, dtype=torch.long, device=device)
        self.queue = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
        self.cache: Any = None
        self.rows: Rows | None = None

    def run(self) -> tuple[Tensor, Tensor]:
        """Return tokens and mask, shape ``(B, K, L)``, on the CPU."""
        capacity = max(1, self.policy.forward_batch_size // self.k) * self.k
        count = 0
        while True:
            live = self._live(count, capacity)
            if live is not None:
                self._refill(live, capacity)
            if self.rows is None:
                break
            self._draw_token()
            count += 1
        shape = (len(self.prompts), self.k, self.length + 1)
        return tuple(x.view(shape)[..., : self.length].cpu() for x in (self.tokens, self.mask))  # type: ignore[return-value]

    def _live(self, count: int, capacity: int) -> Tensor | None:
        """Return the rows that go on if the batch is to be put together anew now, else None."""
        if self.rows is None:
            return torch.zeros(0, dtype=torch.long)
        ended = self.rows.ended
        if self.waves:
            done = sharding.all_agree(bool(ended.all()), self.policy)
            return torch.zeros(0, dtype=torch.long, device=ended.device) if done else None
        if ended.device.type != "cpu" and count % LOOK_EVERY:
            return None
        live = (~ended).nonzero()[:, 0]
        room = (capacity if self.queue else len(ended)) - len(live)
        return live if not len(live) or room >= max(self.k if self.queue else 1, REFILL_SHARE * len(ended)) else None

    def _refill(self, live: Tensor, capacity: int) -> None:
        """Drop the rows that have ended and begin as many prompts as there is room for."""
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
        """Run the prompts, padded on the left, and return their rows and the cache of one row a prompt."""
        device, k = self.policy.device, self.k
        sizes = torch.tensor([len(self.prompts[i]) for i in chosen], device=device)
        width = int(sizes.max())
        pad = self.policy.pad_id
        ids = torch.tensor(
            [[pad] * (width - len(self.prompts[i])) + list(self.prompts[i]) for i in chosen], device=device
        )
        attention = (torch.arange(width, device=device) >= width - sizes[:, None]).long()
        positions = (attention.cumsum(-1) - 1).clamp(min=0)
        repeats = k if self.recurrent else 1  # states of a recurrent model are computed for each row
        ids, inputs, positions = (x.repeat_interleave(repeats, 0) for x in (ids, attention, positions))
        cache = Cache(layer_class_to_replicate=GrowingLayer) if self.own_cache else None
        out = self._model(ids, inputs, positions, cache)
        broken = out.logits[:, -1].isnan().any(-1)
        if broken.any():
            first = self.prompts[chosen[int(broken.nonzero()[0]) // repeats]]
            raise ValueError(
                f"The model's probabilities after the prompt {self.policy.tokenizer.decode(first)[:60]!r} are nan: its "
                f"weights are damaged, or {out.logits.dtype} overflows."
            )
        cache = out.past_key_values if cache is None else cache
        if not self.own_cache and not self.recurrent:
            cache.batch_repeat_interleave(k)
        response = (torch.tensor(chosen, device=device)[:, None] * k + torch.arange(k, device=device)).flatten()
        zeros = torch.zeros_like(response)
        logits = out.logits[:, -1].repeat_interleave(k // repeats, 0)
        rows = Rows(
            response, zeros, zeros.bool(), attention.repeat_interleave(k, 0), sizes.repeat_interleave(k), logits
        )
        return rows, cache

    def _draw_token(self) -> None:
        """Draw the next token of every row, and run the model on it unless all have ended."""
        rows = self.rows
        assert rows is not None
        column = torch.where(rows.ended, self.length, rows.step)
        token = inverse_cdf(self.policy.tempered(rows.logits), self.uniform[rows.response, column])
        self.tokens[rows.response, column] = token
        self.mask[rows.response, column] = True
        rows.step = rows.step + 1
        rows.ended = rows.ended | torch.isin(token, self.stops) | (rows.step >= self.length)
        if self.policy.stop:
            rows.ended = rows.ended | self._says_stop(rows)
        if rows.ended.device.type == "cpu" and not self.waves and bool(rows.ended.all()):
            return
        rows.attention = torch.cat([rows.attention, rows.attention.new_ones(len(token), 1)], dim=-1)
        rows.logits = self._model(token[:, None], rows.attention, rows.position[:, None], self.cache).logits[:, -1]
        rows.position = rows.position + 1

    def _says_stop(self, rows: Rows) -> Tensor:
        tokens, mask = (x[rows.response, : self.length][:, None] for x in (self.tokens, self.mask))
        text = (t for row in self.policy.read(tokens, mask, special=True) for t in row)
        return torch.tensor([any(s in t for s in self.policy.stop) for t in text], device=mask.device)

    def _model(self, ids: Tensor, attention: Tensor, positions: Tensor, cache: Any) -> Any:
        given = {"position_ids": positions, "logits_to_keep": 1}
        inputs = {"input_ids": ids, "attention_mask": attention, "past_key_values": cache, "use_cache": True}
        return self.policy.model(**inputs, **{name: given[name] for name in self.optional})


def draw(policy: LanguagePolicy, prompts: Sequence[Sequence[int]], uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Draw responses by the inverse of each next token's cumulative distribution.

    Parameters
    ----------
    policy : LanguagePolicy
    prompts : sequence of B lists of token ids
    uniform : Tensor, shape ``(B, K, L)``
        A number in [0, 1) for each token that may be drawn.

    Returns
    -------
    tokens, mask : Tensor, shape ``(B, K, L)``
        On the CPU; what lies outside the mask is padding.
    """
    return Drawing(policy, prompts, uniform).run()


def inverse_cdf(log_p: Tensor, uniform: Tensor) -> Tensor:
    """Return, per row, the first index at which the cumulative probability exceeds the uniform number."""
    total = log_p.to(uniform.dtype).exp().cumsum(-1)
    index = torch.searchsorted(total, (uniform * total[:, -1])[:, None], right=True)[:, 0]
    return index.clamp(max=log_p.shape[-1] - 1)
