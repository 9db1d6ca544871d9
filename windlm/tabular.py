r"""Enumeration of small language models: every response with its exact probability.

With a vocabulary of `V` tokens, one of which ends a response, and at most `L` tokens, there are
:math:`(V-1)^L + \sum_{j<L} (V-1)^j` responses. For such a model all of windgames applies to a transformer: its exact
KL divergence from the equilibrium, its gap, its win rate.
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
        Token ids of each response, and which of them belong to it.
    stems : tensor, shape ``(s, L - 1)``
        The longest prefixes of a response.
    stem : tensor, shape ``(m, L)``
        For each position of a response, the stem that its prefix is taken from; responses with the same prefix share
        a stem, so that they are rounded alike and probabilities sum to one.
    """

    policy: LanguagePolicy
    tokens: Tensor
    mask: Tensor
    stems: Tensor
    stem: Tensor

    @classmethod
    def of(cls, policy: LanguagePolicy, limit: int = 200_000) -> Enumeration:
        """Enumerate the responses of a policy.

        Raises
        ------
        ValueError
            If there are more than `limit` responses, or they can end otherwise than by one end token.
        """
        if policy.stop or len(policy.stop_ids) != 1:
            raise ValueError("Only a policy with exactly one end token and no stop strings can be enumerated.")
        size, length = policy.model.config.vocab_size, policy.max_new_tokens
        end = policy.stop_ids[0]
        letters = [i for i in range(size) if i != end]
        count = len(letters) ** length + sum(len(letters) ** j for j in range(length))
        if count > limit:
            raise ValueError(
                f"{size} tokens and length {length} give {count} responses, more than the limit of {limit}."
            )
        words = [[*w, end] for j in range(length) for w in product(letters, repeat=j)]
        words += [list(w) for w in product(letters, repeat=length)]
        mask = torch.tensor([[j < len(w) for j in range(length)] for w in words])
        tokens = torch.tensor([w + [policy.pad_id] * (length - len(w)) for w in words])
        stems = list(product(letters, repeat=length - 1))
        # the first stem with each prefix
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

        Each prefix is computed once, not once per response.
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
        """Return `log_probs` as a numpy array, as windgames takes it."""
        return self.log_probs(prompts).cpu().numpy()

    def samples(self, prompts: Sequence[Prompt]) -> Samples:
        """Return all responses to each prompt as `Samples`, each once."""
        b = len(prompts)
        texts = self.text
        return Samples(
            self.policy.encode(prompts),
            self.tokens.expand(b, -1, -1).clone(),
            self.mask.expand(b, -1, -1).clone(),
            [texts] * b,
        )

    def index(self, samples: Samples) -> np.ndarray:
        """Return the index of each sampled response in the enumeration, shape ``(B, K)``."""
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
        r"""Fit the model to given response probabilities `p`; return the remaining :math:`KL(p\|\pi)` per prompt.

        Adam on the exact divergence, with a cosine schedule to zero. The remainder is what the architecture cannot
        express, or did not learn in so many steps.
        """
        target = torch.tensor(log_target, device=self.policy.device)
        weights = [p for p in self.policy.model.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(weights, learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(steps):
            loss = (target.exp() * (target - self.log_probs(prompts))).sum(-1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        left = log_target - self.log_policy(prompts)
        return (np.exp(log_target) * left).sum(-1)


def small_policy(
    letters: int = 10, length: int = 3, *, width: int = 64, layers: int = 2, spread: float = 0.2, seed: int = 0
) -> LanguagePolicy:
    """Return a small transformer with random weights over `letters` letters and an end token, which can be enumerated.

    Parameters
    ----------
    letters, length : int
        Number of letters, and maximum number of tokens of a response.
    width, layers : int
        Size of the transformer; 64 and 2 give 100,000 parameters.
    spread : float
        Standard deviation of the weights; larger values give responses further from uniform.
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
