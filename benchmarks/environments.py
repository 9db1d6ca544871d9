"""Contextual bandits with known rewards: made up ones, and handwritten digits with their labels as responses.

An environment is data only: rewards and a reference policy, one row per context. What is played on it, a game
of win rates, of log win rates or of best-of-n, is chosen by the study.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.special import log_softmax, softmax
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

import windgames as wg

DIGIT_FEATURES = 12
"""Principal components of an image that a log-linear policy sees."""


@dataclass(frozen=True)
class Bandit:
    """Rewards and reference probabilities of shape ``(contexts, responses)``, features with one more axis."""

    name: str
    reward: np.ndarray
    ref: np.ndarray
    features: np.ndarray | None = None

    @property
    def top_mass(self) -> np.ndarray:
        """The reference's mass on the best responses, per context."""
        best = self.reward == self.reward.max(axis=-1, keepdims=True)
        return np.sum(self.ref * best, axis=-1)

    def part(self, contexts: slice) -> Bandit:
        """Return some of the contexts."""
        features = None if self.features is None else self.features[contexts]
        return Bandit(self.name, self.reward[contexts], self.ref[contexts], features)


@cache
def synthetic(contexts: int = 8, responses: int = 20, ties: bool = True, seed: int = 0) -> Bandit:
    """Return a bandit of features: a smooth random reward of (context, response), a log-linear reference.

    The reward is a random cosine expansion of the pair's features: responses alike are rewarded alike;
    `ties` rounds it to a grid, as a rating would. The reference is the softmax of a bilinear form and knows
    nothing of the reward.
    """
    rng = np.random.default_rng([seed, contexts, responses])
    dim, waves = 4, 64
    x, y = rng.normal(size=(contexts, dim)), rng.normal(size=(responses, dim))
    pair = np.concatenate(np.broadcast_arrays(x[:, None, :], y[None, :, :]), axis=-1)
    frequency, phase = rng.normal(size=(2 * dim, waves)) / 2, rng.uniform(0, 2 * np.pi, waves)
    reward = np.cos(pair @ frequency + phase) @ rng.normal(size=waves) * np.sqrt(2 / waves)
    if ties:
        reward = np.round(reward / 0.25) * 0.25
    logits = np.einsum("ci,ij,rj->cr", x, rng.normal(size=(dim, dim)) / dim, y)
    name = f"synthetic {contexts}x{responses}" + (", ties" if ties else "")
    return Bandit(name, reward, softmax(logits, axis=-1))


@cache
def featured(contexts: int, responses: int = 20, dimension: int = 32, seed: int = 0) -> Bandit:
    """Return a bandit whose policies may be log-linear: the reward of `synthetic`, and other random waves as features.

    The features are smooth functions of (context, response), as the reward is, but not the same ones: the more there
    are, the nearer a log-linear policy comes to the equilibrium.
    """
    rng = np.random.default_rng([seed, responses])
    dim, waves = 4, 64
    y = rng.normal(size=(responses, dim))
    frequency, phase = rng.normal(size=(2 * dim, waves)) / 3, rng.uniform(0, 2 * np.pi, waves)
    weight, bilinear = rng.normal(size=waves) * np.sqrt(2 / waves), rng.normal(size=(dim, dim)) / dim
    mine = rng.normal(size=(2 * dim, 512)) / 3, rng.uniform(0, 2 * np.pi, 512)
    x = np.random.default_rng([seed, responses, 1]).normal(size=(contexts, dim))
    pair = np.concatenate(np.broadcast_arrays(x[:, None, :], y[None, :, :]), axis=-1)
    reward = np.cos(pair @ frequency + phase) @ weight
    features = np.cos(pair @ mine[0][:, :dimension] + mine[1][:dimension])
    ref = softmax(np.einsum("ci,ij,rj->cr", x, bilinear, y), axis=-1)
    return Bandit(f"featured {contexts}x{responses}, d={dimension}", reward, ref, features)


@cache
def digits(contexts: int = 100) -> Bandit:
    """Return handwritten digits as contexts and the ten labels as responses.

    Reward: log-probabilities of a classifier that saw all 64 pixels of the training part. Reference: another
    that saw six of them, tempered and mixed with the class frequencies, so that it is poor, not uniform and
    of full support. The contexts come from the held-out part.
    """
    data = load_digits()
    train_x, test_x, train_y, _ = train_test_split(
        data.data / 16, data.target, test_size=0.3, random_state=0, stratify=data.target
    )
    if not 1 <= contexts <= len(test_x):
        raise ValueError(f"contexts must lie between 1 and {len(test_x)}, but it is {contexts}.")
    judge = LogisticRegression(C=1.0, max_iter=2000).fit(train_x, train_y)
    few = np.argsort(-train_x.var(axis=0))[:6]
    poor = LogisticRegression(C=1.0, max_iter=2000).fit(train_x[:, few], train_y)
    x = test_x[:contexts]
    reward = log_softmax(judge.decision_function(x), axis=-1)
    tempered = softmax(poor.decision_function(x[:, few]) / 2, axis=-1)
    prior = np.bincount(train_y) / len(train_y)
    # features: the first principal components of the image, and a constant, for each label
    axes = np.linalg.svd(train_x - train_x.mean(axis=0), full_matrices=False)[2][:DIGIT_FEATURES]
    image = np.column_stack([(x - train_x.mean(axis=0)) @ axes.T, np.ones(len(x))])
    features = np.einsum("ci,rk->crki", image, np.eye(10)).reshape(len(x), 10, -1)
    return Bandit(f"digits {contexts}x10", reward, 0.8 * tempered + 0.2 * prior, features)


def atoms(responses: int, seed: int = 0) -> Bandit:
    """Return one context of distinct rewards in random order, with nearly equal reference masses."""
    rng = np.random.default_rng([seed, responses])
    ref = rng.uniform(0.5, 1.5, size=responses)
    return Bandit(f"{responses} atoms", rng.permutation(responses).astype(float), ref / ref.sum())


def intransitive(bandit: Bandit, strength: float = 1.0, rng: np.random.Generator | None = None) -> wg.MatrixPreference:
    """Return a preference with cycles for the contexts of a bandit: random odds around those of its rewards.

    ``P - 1/2`` is antisymmetric: a logistic function of the difference of rewards plus antisymmetric noise.
    """
    rng = np.random.default_rng(bandit.reward.shape) if rng is None else rng
    noise = rng.normal(size=(*bandit.reward.shape, bandit.reward.shape[-1])) * strength
    d = bandit.reward[..., :, None] - bandit.reward[..., None, :] + noise - np.swapaxes(noise, -1, -2)
    half = np.tanh(np.abs(d)) * np.sign(d) / 2
    return wg.MatrixPreference(0.5 + half)


def rock_paper_scissors(
    ref: tuple[float, float, float] = (0.7, 0.2, 0.1),
) -> tuple[wg.MatrixPreference, np.ndarray]:
    """Return the cycle of three, the game of largest interaction, with a lopsided reference."""
    return wg.MatrixPreference([[0.5, 0.0, 1.0], [1.0, 0.5, 0.0], [0.0, 1.0, 0.5]]), np.array(ref)


PREFERENCES = ("reward", "Bradley-Terry", "intransitive")


def preference(bandit: Bandit, kind: str, noise: np.random.Generator | None = None) -> wg.Preference:
    """Return one of three constant-sum preferences on a bandit's responses."""
    if kind == "reward":
        return wg.RewardPreference(bandit.reward)
    if kind == "Bradley-Terry":
        return wg.BradleyTerryPreference(bandit.reward, scale=float(np.std(bandit.reward)))
    if kind == "intransitive":
        return intransitive(bandit, rng=noise)
    raise ValueError(f"kind must be one of {', '.join(PREFERENCES)}, but it is {kind!r}.")
