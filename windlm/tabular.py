r"""Small language models as tables: every response with its exact probability.

With a vocabulary of `V` tokens, one of which ends a response, and at most `L` tokens, there are
:math:`(V-1)^L + \sum_{j<L} (V-1)^j` responses. For such a model all of windgames applies to a transformer: its exact
divergence from the equilibrium, its gap, its win rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from .policy import LanguagePolicy, Prompt, Samples


@dataclass(frozen=True)
class Enumeration:
    """All responses of a small language model, in a fixed order.

    Attributes
    ----------
    tokens, mask : tensors, shape ``(m, L)``
        The tokens of each response, and which of them belong to it.
    stems : tensor, shape ``(s, L - 1)``
        The longest beginnings of a response.
    stem : tensor, shape ``(m, L)``
        For each place of a response, the stem that its beginning is read from: one for all responses that share it, so
        that rounding cannot differ between them and probabilities sum to one.
    """

    policy: LanguagePolicy
    tokens: Tensor
    mask: Tensor
    stems: Tensor
    stem: Tensor

    @classmethod
    def of(cls, policy: LanguagePolicy, limit: int = 200_000) -> Enumeration:
        """List the responses of a policy.

        Raises
        ------
        ValueError
            If there are more than `limit`, or the policy ends responses in other ways than by one token.
        """
        if policy.stop or len(policy.stop_ids) != 1:
            raise ValueError("Only responses that end with one token, or with their length, can be enumerated.")
        size, length = policy.model.config.vocab_size, policy.max_new_tokens
        end = policy.stop_ids[0]
        letters = [i for i in range(size) if i != end]
        count = len(letters) ** length + sum(len(letters) ** j for j in range(length))
        if count > limit:
            raise ValueError(f"{size} tokens and length {length} make {count} responses, more than {limit}.")
        words = [[*w, end] for j in range(length) for w in product(letters, repeat=j)]
        words += [list(w) for w in product(letters, repeat=length)]
        mask = torch.tensor([[j < len(w) for j in range(length)] for w in words])
        tokens = torch.tensor([w + [policy.pad_id] * (length - len(w)) for w in words])
        stems = list(product(letters, repeat=length - 1))
        # the first stem with each beginning
        first = {s[:j]: n for n, s in reversed(list(enumerate(stems))) for j in range(length)}
        stem = torch.tensor([[first[tuple(w[: min(j, len(w) - 1)])] for j in range(length)] for w in words])
        return cls(policy, tokens, mask, torch.tensor(stems, dtype=torch.long).view(len(stems), length - 1), stem)

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def text(self) -> list[str]:
        """The responses as text."""
        return self.policy.read(self.tokens[None], self.mask[None])[0]

    def log_probs(self, prompts: Sequence[Prompt]) -> Tensor:
        r"""Return the exact log-probabilities of all responses, shape ``(B, m)``, in float64 and with gradients.

        Each beginning of a response is read once, not once per response.
        """
        policy, length = self.policy, self.tokens.shape[1]
        device, table = policy.device, []
        for prompt in policy.encode(prompts):
            rows = torch.cat([torch.tensor(prompt).expand(len(self.stems), -1), self.stems], dim=-1)
            parts = [policy.logits(part)[:, -length:] for part in rows.to(device).split(policy.forward_batch_size)]
            table.append(torch.log_softmax(torch.cat(parts).double(), dim=-1))
        after = torch.stack(table)[:, self.stem.to(device), torch.arange(length, device=device)]
        token = after.gather(-1, self.tokens.to(device).expand(len(table), -1, -1)[..., None])[..., 0]
        return torch.where(self.mask.to(device), token, 0.0).sum(-1)

    @torch.no_grad()
    def log_policy(self, prompts: Sequence[Prompt]) -> np.ndarray:
        """Return `log_probs` as the numpy array that windgames reads."""
        return self.log_probs(prompts).cpu().numpy()

    def samples(self, prompts: Sequence[Prompt]) -> Samples:
        """Return all responses to each prompt, as if each had been drawn once."""
        b = len(prompts)
        texts = self.text
        return Samples(
            self.policy.encode(prompts),
            self.tokens.expand(b, -1, -1).clone(),
            self.mask.expand(b, -1, -1).clone(),
            [texts] * b,
        )

    def index(self, samples: Samples) -> np.ndarray:
        """Return where each drawn response stands in the enumeration, shape ``(B, K)``."""
        where = {w: i for i, w in enumerate(self._words(self.tokens, self.mask))}
        b, k, _ = samples.tokens.shape
        found = [where[w] for w in self._words(samples.tokens.flatten(0, 1), samples.mask.flatten(0, 1))]
        return np.array(found).reshape(b, k)

    @staticmethod
    def _words(tokens: Tensor, mask: Tensor) -> list[tuple[int, ...]]:
        return [tuple(t[:n]) for t, n in zip(tokens.tolist(), mask.sum(-1).tolist(), strict=True)]

    def fit(
        self, prompts: Sequence[Prompt], log_target: np.ndarray, *, steps: int = 500, learning_rate: float = 3e-3
    ) -> np.ndarray:
        r"""Bring the model to a table, the way back; return what is left, :math:`KL(p\|\pi)` per prompt.

        Gradient descent on the exact divergence, with a learning rate that falls to zero. What is left is what this
        architecture cannot express, or could not learn in so many steps.
        """
        target = torch.from_numpy(log_target).to(self.policy.device)
        weights = [p for p in self.policy.model.parameters() if p.requires_grad]
        optimiser = torch.optim.Adam(weights, learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        for _ in range(steps):
            loss = (target.exp() * (target - self.log_probs(prompts))).sum(-1).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        left = log_target - self.log_policy(prompts)
        return (np.exp(log_target) * left).sum(-1)


def small_policy(
    letters: int = 10, length: int = 3, *, width: int = 64, layers: int = 2, spread: float = 0.2, seed: int = 0
) -> LanguagePolicy:
    """Return a small transformer of random weights over `letters` letters and an end, which can be enumerated.

    Parameters
    ----------
    letters, length : int
        Its responses are words of up to `length` letters.
    width, layers : int
        Size of the transformer; 64 and 2 make 100,000 parameters.
    spread : float
        Standard deviation of the weights: the larger, the further from uniform the responses are.
    """
    names = [chr(ord("a") + i) for i in range(letters)]
    words = Tokenizer(WordLevel({name: i for i, name in enumerate([*names, "."])}))
    words.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token=".", pad_token=".")
    config = GPT2Config(
        vocab_size=letters + 1,
        n_positions=16,
        n_embd=width,
        n_layer=layers,
        n_head=4,
        activation_function="relu",
        initializer_range=spread,
        eos_token_id=letters,
        bos_token_id=letters,
        pad_token_id=letters,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = GPT2LMHeadModel(config)
    return LanguagePolicy(model, tokenizer, max_new_tokens=length, forward_batch_size=2048)
