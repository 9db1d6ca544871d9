r"""How close does each inequality of the theory come to being false? A hill climb for every one of them.

    python benchmarks/claims.py                 # minutes
    python benchmarks/claims.py --full          # the size of the committed table
    python benchmarks/claims.py --smoke         # seconds
    python benchmarks/claims.py --claim 5.2     # one statement

A climb maximises measured/bound over the preference matrix, the equilibrium (from which the reference follows, so that
no solver is involved), the policy that a step starts from, the error of its payoff, beta and eta. Of a rate, which a
short step meets nearly exactly, it is the term that the proof has to cover over the terms that cover it: at most 1
exactly if the rate holds. A ratio near 1 means that the constant cannot be lowered; one above 1, that the statement is
false. Rows of kind "counterexample" are statements that the theory says are false: there the ratio should exceed 1. Of
a "conjecture" nothing is proven.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from math import inf, log
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tyro
from scipy import special
from study import QUICK, RESULTS, ROOT, Rows, Scale, Study, run_study, show

from windgames import bounds, continuum

SMALLEST = 1e-9
"""Divergences below this are not compared: rounding would decide."""
LARGE = 1e-5
"""The same of distances in log space, and where the difference of two divergences decides."""
SLACK = 1e-6
"""A bound counts as broken where the ratio exceeds 1 by more than this."""


# -- a point of the search ---------------------------------------------------------------------------------


def normalise(x: np.ndarray) -> np.ndarray:
    x = x - x.max()
    return x - log(np.exp(x).sum())


def kl(p: np.ndarray, q: np.ndarray) -> float:
    d = p - q
    return float(np.exp(p) @ (np.expm1(-np.minimum(d, 700)) + d)) if np.all(d > -500) else inf


def span(x: np.ndarray) -> float:
    return float(x.max() - x.min())


def distance(p: np.ndarray, q: np.ndarray) -> float:
    """Return the sum of the differences of the probabilities, without their signs."""
    return float(np.abs(np.exp(p) - np.exp(q)).sum())


def skew(x: np.ndarray, m: int) -> np.ndarray:
    """Return the skew matrix whose upper triangle is `x`, cut to [-1/2, 1/2]."""
    A = np.zeros((m, m))
    A[np.triu_indices(m, 1)] = np.clip(x, -0.5, 0.5)
    return A - A.T


@dataclass
class Point:
    """A game, its equilibrium, a policy, an error of the payoff, and a share of the largest step."""

    x: np.ndarray
    m: int

    def __post_init__(self) -> None:
        m, pairs = self.m, self.m * (self.m - 1) // 2
        parts = np.split(self.x[:-2], np.cumsum([pairs, m, m, m]))
        self.A = skew(parts[0], m)
        self.P = self.A + 0.5
        self.star, self.policy, self.other = (normalise(3 * part) for part in parts[1:4])
        self.error = parts[4]
        self.beta = float(10 ** np.clip(self.x[-2], -3, 3))
        self.share = float(1 / (1 + np.exp(-np.clip(3 * self.x[-1], -30, 30))))
        self.L = float(bounds.interaction_constant(self.P))
        self.ref = normalise(self.star - self.P @ np.exp(self.star) / self.beta)

    @staticmethod
    def length(m: int) -> int:
        return m * (m - 1) // 2 + 4 * m + 2

    def win(self, log_policy: np.ndarray) -> np.ndarray:
        return self.P @ np.exp(log_policy)

    def best_response(self, log_policy: np.ndarray) -> np.ndarray:
        return normalise(self.ref + self.win(log_policy) / self.beta)

    def step(self, log_policy: np.ndarray, payoff: np.ndarray, eta: float) -> np.ndarray:
        return normalise((log_policy / eta + self.beta * self.ref + payoff) / (1 / eta + self.beta))

    def eta(self, largest: float) -> float:
        """Return the share of the largest step, at most 1e6."""
        return self.share * float(min(largest, 1e6))


def ratio(measured: float, bound: float, least: float = SMALLEST) -> float:
    """Return measured/bound, or 0 where the bound is too small to tell or says nothing."""
    return measured / bound if least < bound < inf and measured < inf else 0.0


def floor_ratio(after: float, before: float, factor: float, floor: float) -> float:
    """Return (after - factor before) / ((1 - factor) floor), what the floor has to bear of what it allows."""
    return max(0.0, after - factor * before) / ((1 - factor) * floor) if (1 - factor) * floor > LARGE * before else 0.0


# -- the inequalities --------------------------------------------------------------------------------------


def hilbert_kl(p: Point) -> float:
    return ratio(kl(p.policy, p.other), float(bounds.kl_from_hilbert(span(p.policy - p.other))))


def hilbert_tv(p: Point) -> float:
    return ratio(distance(p.policy, p.other) / 2, span(p.policy - p.other) / 4)


def certificate_kl(p: Point) -> float:
    return ratio(kl(p.policy, p.star), kl(p.policy, p.best_response(p.policy)))


def certificate_reverse(p: Point) -> float:
    R = span(p.policy - p.best_response(p.policy))
    return ratio(kl(p.star, p.policy), float(bounds.kl_from_hilbert(R)))


def certificate_both(p: Point) -> float:
    R = span(p.policy - p.best_response(p.policy))
    return ratio(kl(p.star, p.policy) + kl(p.policy, p.star), min(R, R * R / 4))


def certificate_distance(p: Point) -> float:
    R = span(p.policy - p.best_response(p.policy))
    return ratio(distance(p.policy, p.star), R / 2)


def certificate_log(p: Point) -> float:
    """A log-win-rate game; `beta` is the contraction constant over the share, where both can be told from rounding."""
    kappa = float(bounds.birkhoff_contraction(p.P))
    beta = kappa / p.share
    if not (kappa > 1e-4 and p.share < 1 - 1e-4 and beta < 1e6):
        return 0.0
    ref = p.star - np.log(p.win(p.star)) / beta
    R = span(p.policy - ref - np.log(p.win(p.policy)) / beta)
    return ratio(span(p.policy - p.star), bounds.log_hilbert_certificate_factor(beta, kappa) * R, LARGE)


def certificate_of_skew_part(p: Point) -> float:
    """A matrix that is constant-sum up to `share`, against the divergence in the game of its skew part."""
    S = p.share / 2 * np.sign(np.add.outer(p.error, p.error))
    response = normalise(p.ref + (p.P + S) @ np.exp(p.policy) / p.beta)
    k, true = kl(p.policy, response), kl(p.policy, p.best_response(p.policy))
    return ratio(true, (k**0.5 + p.share / (8**0.5 * p.beta)) ** 2) if k < inf else 0.0


def certificate_factor(p: Point) -> float:
    R = span(p.policy - p.best_response(p.policy))
    return ratio(span(p.policy - p.star), bounds.hilbert_certificate_factor(p.beta, p.L) * R, LARGE)


def certificate(p: Point) -> float:
    response = p.best_response(p.policy)
    R, k = span(p.policy - response), kl(p.policy, response)
    return ratio(span(p.policy - p.star), bounds.hilbert_certificate(R, k, p.beta, p.L), LARGE) if k < inf else 0.0


def one_step(p: Point) -> float:
    response = p.best_response(p.policy)
    k = kl(p.policy, response)
    return ratio(span(response - p.star), bounds.one_step_bound(k, p.beta, p.L), LARGE) if k < inf else 0.0


def rlhf(p: Point) -> float:
    return ratio(span(p.best_response(p.ref) - p.star), p.L / p.beta * distance(p.ref, p.star), LARGE)


def rlhf_moves(p: Point) -> float:
    return ratio(distance(p.ref, p.star), min(1 / (2 * p.beta), (2 * kl(p.ref, p.best_response(p.ref))) ** 0.5))


def best_of_n_kl(p: Point) -> float:
    """The exact operator of the reward that orders the responses by their number."""
    n, mass = 1 + 20 * p.share, np.exp(p.policy)
    best = np.diff(np.cumsum(mass) ** n, prepend=0)
    return ratio(float(special.rel_entr(best, mass).sum()), float(bounds.best_of_n_kl_bound(n)))


def best_of_two_kl(p: Point) -> float:
    w = p.win(p.policy)
    return ratio(float(np.exp(p.policy) @ special.xlogy(2 * w, 2 * w)), float(bounds.best_of_n_kl_bound(2)))


def log_step(p: Point) -> float:
    """One step on the payoff log P policy from two policies, at any `beta`."""
    kappa, eta = float(bounds.birkhoff_contraction(p.P)), p.share / (1 - p.share)
    after = [p.step(x, np.log(p.win(x)), eta) for x in (p.policy, p.other)]
    factor = float(bounds.log_payoff_contraction(p.beta, eta, kappa))
    return ratio(span(after[0] - after[1]), factor * span(p.policy - p.other), LARGE)


def birkhoff(p: Point) -> float:
    moved = np.log(p.win(p.policy)) - np.log(p.win(p.other))
    return ratio(span(moved), float(bounds.birkhoff_contraction(p.P)) * span(p.policy - p.other), LARGE)


def iterative_best_of_n(p: Point) -> float:
    """A step of iterative best-of-n in its exact form, from two policies."""
    n = 1 + 20 * p.share
    w = np.exp(p.error[:3] if p.m > 2 else np.append(p.error, 0.0))
    alpha1, alpha2 = w[:2] / w.sum()

    def step(x: np.ndarray) -> np.ndarray:
        upto = np.logaddexp.accumulate(x)  # log of the cumulative sum F, of which a class is the share exp(x - upto)
        with np.errstate(divide="ignore"):
            log_best = n * upto + np.log(-np.expm1(n * np.log1p(-np.minimum(1.0, np.exp(x - upto)))))
        return normalise(alpha1 * log_best + alpha2 * x + (1 - alpha1 - alpha2) * p.ref)

    factor = float(bounds.best_of_n_contraction(n, alpha1, alpha2))
    return ratio(span(step(p.policy) - step(p.other)), factor * span(p.policy - p.other), LARGE)


def collapse(p: Point) -> float:
    """The index where an equilibrium that is not collapsed exists: at least 1. Weak ties, responses in order."""
    beta = p.share
    ref = normalise(p.policy - np.log(np.cumsum(np.exp(p.policy))) / beta)
    top = float(np.exp(ref[-1]))
    return ratio(1.0, float(bounds.collapse_index(beta, top))) if top > 1e-300 and 0 < beta < 1 else 0.0


def _reward_equilibrium(p: Point) -> tuple[np.ndarray, float]:
    """Return the reference of which `policy` is the win-rate equilibrium (responses in order), and its top mass."""
    q = np.exp(p.policy)
    ref = normalise(p.policy - (np.cumsum(q) - q / 2) / p.beta)
    return ref, float(np.exp(ref[-1]))


def top_deficit(p: Point) -> float:
    _, top = _reward_equilibrium(p)
    missing = float(np.exp(p.policy[:-1]).sum())
    known = 1e-300 < top < 1 - 1e-8  # the bound is a function of one minus it
    return ratio(missing, float(bounds.win_rate_top_deficit(p.beta, top)), 1e-200) if known else 0.0


def games_agree(p: Point) -> float:
    """Against two equilibria of the log-win-rate game with weak ties: on the top, and where best responses end."""
    ref, top = _reward_equilibrium(p)
    if top < 1e-300:
        return 0.0
    log_policy = ref
    for _ in range(100):
        log_policy = normalise(ref + np.log(np.maximum(np.cumsum(np.exp(log_policy)), 1e-300)) / p.beta)
    collapsed = np.exp(p.policy[:-1]).sum()  # the distance to all mass on the top
    settled = span(log_policy - ref - np.log(np.maximum(np.cumsum(np.exp(log_policy)), 1e-300)) / p.beta) < 1e-9
    worst = max(collapsed, distance(p.policy, log_policy) / 2 if settled else 0.0)
    return ratio(float(worst), float(bounds.equilibria_distance_bound(p.beta, top)))


def power_form(p: Point) -> float:
    n, mass = 1 + 20 * p.share, np.exp(p.policy)
    F = np.cumsum(mass)
    exact, power = np.diff(F**n, prepend=0), mass * F ** (n - 1)
    worst = n * mass.max()
    return ratio(np.abs(exact - power / power.sum()).sum() / 2, worst / (1 + worst))


def frontier(p: Point) -> float:
    K = kl(p.policy, p.other)
    return ratio(np.exp(p.policy) @ p.win(p.other), float(continuum.largest_win_rate(K))) if SMALLEST < K < 50 else 0.0


def log_moment(p: Point) -> float:
    x = p.policy + p.beta * (p.win(p.policy) - 0.5)
    return ratio(x.max() + log(np.exp(x - x.max()).sum()), float(bounds.log_moment_bound(p.beta)))


def spread(p: Point) -> float:
    return ratio(float(np.exp(p.policy) @ (p.win(p.policy) - 0.5) ** 2), 1 / 12)


def interaction_of_bradley_terry(p: Point) -> float:
    x = 3 * p.star
    return ratio(float(bounds.interaction_constant(special.expit(x[:, None] - x))), 0.5)


def interaction_is_bounded(p: Point) -> float:
    return ratio(p.L, float(bounds.interaction_bound(p.P)))


def _wind(p: Point, eta: float) -> float:
    """The last term of (4) in theory 5.2 over the two that have to cover it."""
    after = p.step(p.policy, p.win(p.policy), eta)
    to_star, to_start = np.exp(after) - np.exp(p.star), np.exp(p.policy) - np.exp(after)
    return ratio(float(to_star @ p.A @ to_start), p.beta * kl(after, p.star) + kl(after, p.policy) / eta)


def wind_paper(p: Point) -> float:
    return _wind(p, p.eta(p.beta))


def wind(p: Point) -> float:
    return _wind(p, p.eta(bounds.wind_max_step(p.beta, p.L)))


def wind_late(p: Point) -> float:
    away = min(1.0, distance(p.star, p.policy) / 2)
    return _wind(p, p.eta(bounds.wind_late_step(p.beta, p.L, away)))


def wind_beyond(p: Point) -> float:
    return _wind(p, 1.25 * min(float(bounds.wind_max_step(p.beta, p.L)), 1e9))


def wind_ceiling(p: Point) -> float:
    """`beta` towards infinity at eta = c* beta/L^2: the conjecture of theory 5.8 is that this stays below 1."""
    v = p.A @ (np.exp(p.policy) - np.exp(p.star))
    q = np.exp(p.star)
    variance = q @ (v - q @ v) ** 2
    bound = 2 * p.L**2 / bounds.WIND_FAILS_BEYOND * kl(p.star, p.policy)
    return ratio(variance, bound)


def wind_example(p: Point) -> float:
    start, best = special.expit(p.policy[0] + 2), special.expit(p.star[0] + 2)
    return ratio(bounds.WIND_FAILS_BEYOND, float(bounds.wind_counterexample(best, start))) if start != best else 0.0


def _tangent(p: Point) -> tuple[np.ndarray, np.ndarray]:
    """Return the skew matrix K of theory 5.10, and a deviation from the equilibrium in its coordinates."""
    s = np.exp(p.star / 2)
    off = np.eye(p.m) - np.outer(s, s) / (s @ s)
    return off @ (s[:, None] * p.A * s) @ off, off @ p.error


def _grown(before: np.ndarray, after: np.ndarray) -> float:
    """Return the factor of the divergence, to second order the square of the length."""
    return float(after @ after) / float(before @ before) if before @ before > 1e-20 else 0.0


def local_step(p: Point) -> float:
    K, y = _tangent(p)
    eta = p.share / (1 - p.share) if p.share < 1 else 1e9
    mu = bounds.tangent_frequencies(p.P, np.exp(p.star))[0]
    return ratio(_grown(y, (y + eta * K @ y) / (1 + p.beta * eta)), float(bounds.local_rate(p.beta, eta, mu)))


def local_threshold(p: Point) -> float:
    K, y = _tangent(p)
    mu = bounds.tangent_frequencies(p.P, np.exp(p.star))[0]
    eta = p.eta(float(bounds.local_max_step(p.beta, mu)))
    return ratio(_grown(y, (y + eta * K @ y) / (1 + p.beta * eta)), 1.0)


def mirror_prox(p: Point) -> float:
    ours = bounds.linear_rate(p.beta, bounds.extragradient_max_step(p.beta, 1.0))
    return ratio(float(ours), 1 / (1 + 2 * p.beta))


def _two_payoffs(p: Point, eta: float, first: np.ndarray, share: float) -> float:
    """The product in theory 5.4 (`share` 1) and 5.11 (1/2) over what has to cover it.

    The half step's payoff is against `first`.
    """
    half = p.step(p.policy, p.win(first), eta)
    after = p.step(p.policy, p.win(half), eta)
    product = float((np.exp(after) - np.exp(half)) @ p.A @ (np.exp(half) - np.exp(first)))
    cover = kl(half, p.policy) / eta + share * (p.beta + 1 / eta) * kl(after, half) + p.beta * kl(half, p.star)
    return ratio(product, cover + (1 - share) * kl(p.policy, first) / eta)


def extragradient(p: Point) -> float:
    return _two_payoffs(p, p.eta(bounds.extragradient_max_step(p.beta, p.L)), p.policy, 1.0)


def popov(p: Point) -> float:
    return _two_payoffs(p, p.eta(bounds.optimistic_max_step(p.beta, p.L)), p.other, 0.5)


def popov_beyond(p: Point) -> float:
    return _two_payoffs(p, 2 * p.eta(bounds.optimistic_max_step(p.beta, p.L)), p.other, 0.5)


def popov_policy(p: Point) -> float:
    eta = p.eta(bounds.optimistic_max_step(p.beta, p.L))
    start = kl(p.star, p.policy) + kl(p.policy, p.other) / 2
    return ratio(kl(p.star, p.step(p.policy, p.win(p.other), eta)), 2 * start * bounds.linear_rate(p.beta, eta))


def inexact(p: Point) -> float:
    eta = p.eta(0.999 * bounds.wind_max_step(p.beta, p.L))
    share = eta * p.L**2 / (4 * p.beta)
    after = p.step(p.policy, p.win(p.policy) + p.error, eta)
    factor = bounds.linear_rate(p.beta, eta)
    floor = bounds.inexact_floor(p.beta, span(p.error) / 2, share)
    return floor_ratio(kl(p.star, after), kl(p.star, p.policy), factor, floor)


def noise(p: Point) -> float:
    """Errors e and -e with equal chances."""
    eta = p.eta(bounds.wind_max_step(p.beta, p.L))
    after = [kl(p.star, p.step(p.policy, p.win(p.policy) + sign * p.error, eta)) for sign in (1, -1)]
    factor = bounds.linear_rate(p.beta, eta)
    floor = bounds.noise_floor(p.beta, eta, span(p.error) / 2)
    return floor_ratio(sum(after) / 2, kl(p.star, p.policy), factor, floor)


def coins(p: Point) -> float:
    """Every response against one draw of the policy, coins enumerated."""
    if p.m > 3:
        return 0.0
    eta, total = p.eta(bounds.wind_max_step(p.beta, p.L)), 0.0
    for j, heads in product(range(p.m), product([0, 1], repeat=p.m)):
        o = np.array(heads)
        chance = np.exp(p.policy[j]) * np.prod(np.where(o == 1, p.P[:, j], 1 - p.P[:, j]))
        if chance > 0:
            total += chance * kl(p.star, p.step(p.policy, o.astype(float), eta))
    factor = bounds.linear_rate(p.beta, eta)
    floor = bounds.noise_floor(p.beta, eta, bounds.comparison_error(1, p.beta, eta))
    return floor_ratio(total, kl(p.star, p.policy), factor, floor)


def certain_judge(p: Point) -> float:
    """Every response against one draw of the policy, the judge reports probabilities."""
    eta = p.eta(bounds.wind_max_step(p.beta, p.L))
    q = np.exp(p.policy)
    total = sum(q[j] * kl(p.star, p.step(p.policy, p.P[:, j], eta)) for j in range(p.m))
    factor = bounds.linear_rate(p.beta, eta)
    floor = bounds.noise_floor(p.beta, eta, bounds.comparison_error(1, p.beta, eta, p.L))
    return floor_ratio(total, kl(p.star, p.policy), factor, floor)


def _nash_md(p: Point, log_policy: np.ndarray, eta: float) -> np.ndarray:
    mixture = normalise((1 - eta * p.beta) * log_policy + eta * p.beta * p.ref)
    return normalise(mixture + eta * p.win(mixture))


def nash_md(p: Point) -> float:
    eta = p.eta(1 / p.beta)
    after = kl(p.star, _nash_md(p, p.policy, eta))
    weight = eta * p.beta
    return (
        floor_ratio(after, kl(p.star, p.policy), 1 - weight, bounds.nash_md_floor(p.beta, eta)) if weight < 1 else 0.0
    )


def nash_md_from_reference(p: Point) -> float:
    eta = 0.999 * p.eta(4 * p.beta / (p.L**2 + 4 * p.beta**2))
    share = p.L**2 * eta / (4 * p.beta * (1 - eta * p.beta))
    if eta * p.beta < 1e-12:
        return 0.0
    floor = bounds.inexact_floor(p.beta, p.L * eta / 4, share)
    log_policy, worst = p.ref, 0.0
    for t in range(1, 41):
        log_policy = _nash_md(p, log_policy, eta)
        factor = (1 - eta * p.beta) ** t
        worst = max(worst, floor_ratio(kl(p.star, log_policy), kl(p.star, p.ref), factor, floor / (1 - factor)))
    return worst


def frequency(p: Point) -> float:
    return ratio(float(bounds.tangent_frequencies(p.P, np.exp(p.star))[0]), 4 * p.L / np.pi**2)


def wrong_judge(p: Point) -> float:
    """`policy` as the equilibrium of a judge P' with P' policy = beta log(policy/ref), up to a constant."""
    eps = span(p.beta * (p.policy - p.ref) - p.win(p.policy)) / 2
    return ratio(kl(p.star, p.policy), float(bounds.wrong_judge_bound(p.beta, eps)))


def wrong_judge_gap(p: Point) -> float:
    eps = span(p.beta * (p.policy - p.ref) - p.win(p.policy)) / 2
    return ratio(kl(p.policy, p.best_response(p.policy)), float(bounds.wrong_judge_bound(p.beta, eps)))


def wrong_judge_distance(p: Point) -> float:
    eps = span(p.beta * (p.policy - p.ref) - p.win(p.policy)) / 2
    return ratio(distance(p.policy, p.star), eps / p.beta)


def wrong_judge_both(p: Point) -> float:
    eps = span(p.beta * (p.policy - p.ref) - p.win(p.policy)) / 2
    return ratio(kl(p.star, p.policy) + kl(p.policy, p.star), 2 * float(bounds.wrong_judge_bound(p.beta, eps)))


def _hacked(p: Point) -> tuple[float, float, float]:
    """Return the error of a judge `P`, whose equilibrium is `star`, and the judged and the true win rate of that."""
    truth = p.A - np.outer(p.error, p.policy) + np.outer(p.policy, p.error)
    truth = np.clip(truth, -0.5, 0.5)
    policy, ref = np.exp(p.star), np.exp(p.ref)
    return span((p.A - truth) @ policy) / 2, 0.5 + policy @ p.A @ ref, 0.5 + policy @ truth @ ref


def hacking(p: Point) -> float:
    eps, judged, true = _hacked(p)
    least = float(bounds.true_win_rate_bound(max(judged, 0.5), p.beta, eps))
    return ratio(judged - true, judged - least, LARGE)


def hacking_cost(p: Point) -> float:
    eps, _, true = _hacked(p)
    return ratio(p.beta, float(bounds.hacking_beta(eps, 0.5 - true))) if 0.5 - true > LARGE else 0.0


def sensitivity(p: Point) -> float:
    """How the equilibrium moves with `error` added to the logits of the reference."""
    q = np.exp(p.star)
    centre = np.eye(p.m) - np.outer(np.ones(p.m), q)
    g = centre @ p.error
    moved = np.linalg.solve(np.eye(p.m) - centre @ (p.P * q) / p.beta, g)
    return ratio(float(q @ moved**2), float(q @ g**2))


def central_path(p: Point) -> float:
    """A point of the path, from which the reference follows."""
    mu = 10 * p.share
    t = mu / np.exp(p.policy)
    response = normalise(p.policy - t / p.beta)
    return ratio(p.beta * kl(p.policy, response), p.m * mu) if t.max() < 700 * p.beta else 0.0


def probabilities(p: Point) -> float:
    """A policy near the equilibrium, and the smallest vector that theory 6.10 allows."""
    policy = normalise(p.star + 10 ** (-6 * p.share) * p.error)
    response = p.best_response(policy)
    R, k = span(policy - response), kl(policy, response)
    if not LARGE < R < 1 or k == inf:
        return 0.0
    H, q, one = float(bounds.hilbert_certificate(R, k, p.beta, p.L)), np.exp(policy), np.eye(p.m)
    K = np.block([[one - p.A * q / p.beta, np.ones((p.m, 1))], [q[None], np.zeros((1, 1))]])
    X = np.linalg.inv(K)[: p.m, : p.m]
    again = np.expm1(min(H, 50.0)) * np.abs(X - one)
    if H > 50 or np.abs(np.linalg.eigvals(again)).max() > 0.99:
        return 0.0
    c = np.linalg.solve(one - again, np.abs(X).sum(axis=1) * R / 2)
    return max(ratio(a, b, LARGE) for a, b in zip(np.abs(p.star - policy), c, strict=True))


def _with_winner(p: Point) -> tuple[np.ndarray, np.ndarray]:
    """Return a preference near that of the point, and a winner that leaves out the last response, which loses to it."""
    w = np.exp(normalise(p.star[:-1]))
    w = np.append(w, 0.0)
    A = p.A - np.outer(p.A @ w, np.ones(p.m)) + np.outer(np.ones(p.m), p.A @ w)
    loss = np.append(np.zeros(p.m - 1), p.share)
    A -= (np.outer(loss, w) - np.outer(w, loss)) / (w @ w)
    return 0.5 + A / max(1.0, 2 * np.abs(A).max()), w


def proximal_step(p: Point) -> float:
    """A step ends at `policy`, so that it began at policy exp(-P policy/beta): no solver."""
    P, w = _with_winner(p)
    start = normalise(p.policy - P @ np.exp(p.policy) / p.beta)
    played = w > 0
    before, after = (float(w[played] @ (np.log(w[played]) - x[played])) for x in (start, p.policy))
    return ratio(after + kl(p.policy, start), before)


def proximal_gap(p: Point) -> float:
    """Ten proximal steps, from the last one backwards."""
    log_policy, total, steps = p.policy, np.zeros(p.m), 10
    for _ in range(steps):
        total += np.exp(log_policy) / steps
        log_policy = normalise(log_policy - p.win(log_policy) / p.beta)
    return ratio((p.P @ total).max() - 0.5, float(bounds.proximal_gap_bound(p.beta, log_policy, steps)))


def proximal_end(p: Point) -> float:
    K, y = _tangent(p)
    sigma = bounds.tangent_frequencies(p.P, np.exp(p.star))[-2]
    after = np.linalg.solve(np.eye(p.m) - K / p.beta, y)
    return ratio(_grown(y, after), float(bounds.proximal_local_rate(p.beta, sigma)))


def moving_round(p: Point) -> float:
    """A round of the tangent map, the reference being the deviation that it starts from."""
    K, y = _tangent(p)
    every, eta = 1 + int(30 * p.share), 10 ** float(np.clip(p.policy[0], -2, 2))
    z = y
    for _ in range(every):
        z = (z + p.beta * eta * y + eta * K @ z) / (1 + p.beta * eta)
    sigma = bounds.tangent_frequencies(p.P, np.exp(p.star))[:-1]
    return ratio(_grown(y, z), float(np.max(bounds.moving_local_rate(p.beta, eta, sigma, every))))


def moving_attracts(p: Point) -> float:
    """The largest factor from the smallest number of steps on that theory 6.11 calls enough."""
    sigma = float(bounds.tangent_frequencies(p.P, np.exp(p.star))[0])
    eta = p.eta(float(bounds.local_max_step(p.beta, sigma)))
    shrink = abs(1 + 1j * eta * sigma) / (1 + p.beta * eta)
    enough = (1 + (p.beta / sigma) ** 2) ** 0.5 - p.beta / sigma if sigma > 1e-6 else 0.0
    if not (enough > 1e-9 and shrink < 1 - 1e-9):
        return 0.0
    k = np.floor(log(enough) / log(shrink)) + 1 + np.arange(8)
    return ratio(float(np.max(bounds.moving_local_rate(p.beta, eta, sigma, k))), 1.0)


def moving_gap(p: Point) -> float:
    """Four rounds from `other`."""
    every, rounds, eta = 1 + int(40 * p.share), 4, min(1e6, float(bounds.wind_max_step(p.beta, p.L)))
    log_policy, total = p.other, np.zeros(p.m)
    for _ in range(rounds):
        magnet = log_policy
        for _ in range(every):
            payoff = p.win(log_policy)
            log_policy = normalise((log_policy / eta + p.beta * magnet + payoff) / (1 / eta + p.beta))
        total += np.exp(log_policy) / rounds
    bound = bounds.moving_gap_bound(p.beta, eta, every, p.other, rounds, p.L)
    return ratio((p.P @ total).max() - 0.5, float(bound))


def falling_steps(p: Point) -> float:
    """Three steps with errors e and -e of equal chances: the mean over the eight ways."""
    now, eps = [p.policy], span(p.error) / 2
    for t in range(3):
        eta = float(bounds.wind_decaying_step(t, p.beta, p.L))
        now = [p.step(x, p.win(x) + sign * p.error, eta) for x in now for sign in (1, -1)]
    mean = sum(kl(p.star, x) for x in now) / len(now)
    return ratio(mean, float(bounds.decaying_bound(kl(p.star, p.policy), 3, p.beta, eps, p.L)))


def coverage(p: Point) -> float:
    eta = p.eta(bounds.wind_max_step(p.beta, p.L))
    after = p.step(p.policy, p.win(p.policy) + p.error, eta)
    q = np.exp(p.policy)
    eps = float(q @ (p.error - q @ p.error) ** 2) ** 0.5
    C = max(float(np.exp(2 * x - p.policy).sum()) for x in (p.star, after))
    floor = bounds.coverage_floor(p.beta, eps, C)
    return floor_ratio(kl(p.star, after), kl(p.star, p.policy), bounds.linear_rate(p.beta, eta), floor)


def stability(p: Point) -> float:
    """Least squares on `m` prompts, one of which is exchanged: how far its loss moves."""
    x, y = p.A + np.outer(p.error, p.policy), p.star
    others, swapped = (x, y), (np.vstack([p.other, x[1:]]), np.append(p.share, y[1:]))
    hessians = [a.T @ a / p.m for a, _ in (others, swapped)]
    curvature = min(np.linalg.eigvalsh(h)[0] for h in hessians)
    if curvature < 1e-6:
        return 0.0
    theta = [np.linalg.solve(h, a.T @ b / p.m) for h, (a, b) in zip(hessians, (others, swapped), strict=True)]
    residuals = [[a[0] @ w - b[0] for w in theta] for a, b in (others, swapped)]
    G = max(np.linalg.norm(a[0]) * max(map(abs, r)) for (a, _), r in zip((others, swapped), residuals, strict=True))
    moved = max(abs(r[0] ** 2 - r[1] ** 2) / 2 for r in residuals)
    return ratio(moved, float(bounds.stability_bound(G, curvature, p.m))) if G > 0 else 0.0


def lower_bound(p: Point) -> float:
    """The bound against the Bayes risk of two equally likely games, by the binomial law of the tosses."""
    from scipy.stats import binom

    N = 1 + int(400 * p.share**3)
    delta = 1 / (3 * N**0.5)
    heads = np.arange(N + 1)
    laws = [binom.pmf(heads, N, 0.5 + s * delta) for s in (1, -1)]
    logits = [np.array([0.0, -s * delta / p.beta]) for s in (1, -1)]
    games = [np.exp(normalise(x)) for x in logits]
    mix = (laws[0][:, None] * games[0] + laws[1][:, None] * games[1]) / np.maximum(laws[0] + laws[1], 1e-300)[:, None]
    risk = 0.0
    for law, q in zip(laws, games, strict=True):
        d = np.log(q) - np.log(np.maximum(mix, 1e-300))
        risk += float(law @ np.sum(q * (np.expm1(-d) + d), axis=1)) / 2
    return ratio(float(bounds.comparisons_lower_bound(p.beta, N)), risk)


@dataclass(frozen=True)
class Claim:
    """An inequality, the function that holds its constant, and measured/bound at a point."""

    statement: str
    inequality: str
    function: str
    ratio: Callable[[Point], float]
    kind: str = "bound"
    most: int = 5
    """Largest number of responses that is tried."""


CLAIMS = [
    Claim("theory 1.3", "KL(p‖q) ≤ min(h, h²/8)", "bounds.kl_from_hilbert", hilbert_kl),
    Claim("theory 1.3", "TV(p,q) ≤ h/4", "bounds.kl_from_hilbert", hilbert_tv),
    Claim("theory 2.3", "KL(π‖π*) ≤ KL(π‖BR(π))", "Game.kl_certificate", certificate_kl),
    Claim("theory 2.4", "h(π,π*) ≤ (1 + L/2β) R", "bounds.hilbert_certificate_factor", certificate_factor),
    Claim(
        "theory 2.5", "h(π,π*) ≤ R/(1 - κ/β), payoff log Pπ", "bounds.log_hilbert_certificate_factor", certificate_log
    ),
    Claim("theory 2.7", "h(π,π*) ≤ R + (L/β) √(2 KL(π‖BR(π)))", "bounds.hilbert_certificate", certificate),
    Claim("theory 2.7", "h(BR(π),π*) ≤ (L/β) √(2 KL(π‖BR(π)))", "bounds.one_step_bound", one_step),
    Claim("theory 2.8", "√KL(π‖BR°) ≤ √k + δ/(√8 β)", "Game.kl_certificate", certificate_of_skew_part),
    Claim("theory 2.9", "h(BR(ρ),π*) ≤ (L/β) ‖ρ - π*‖₁", "bounds.one_step_bound", rlhf),
    Claim("theory 2.9", "‖ρ - π*‖₁ ≤ min(√(2 KL(ρ‖BR(ρ))), 1/(2β))", "bounds.one_step_bound", rlhf_moves),
    Claim("theory 2.10", "KL(π*‖π) ≤ min(R, R²/8)", "bounds.kl_from_hilbert", certificate_reverse),
    Claim("theory 2.10", "KL(π*‖π) + KL(π‖π*) ≤ min(R, R²/4)", "bounds.kl_from_hilbert", certificate_both),
    Claim("theory 2.10", "‖π - π*‖₁ ≤ R/2", "bounds.kl_from_hilbert", certificate_distance),
    Claim("theory 3.2", "TV(G_n,B_n) ≤ ε/(1 + ε), ε = n max p", "operators.best_of_n", power_form, most=6),
    Claim("theory 3.4", "KL(B_n(π)‖π) ≤ log n - (n-1)/n, a reward", "bounds.best_of_n_kl_bound", best_of_n_kl, most=8),
    Claim(
        "theory 3.4", "KL(B_2(π)‖π) ≤ log 2 - 1/2, constant-sum P", "bounds.best_of_n_kl_bound", best_of_two_kl, most=8
    ),
    Claim("theory 3.7", "h(Pp,Pq) ≤ κ h(p,q)", "bounds.birkhoff_contraction", birkhoff),
    Claim("theory 3.7", "a step on log Pπ contracts h", "bounds.log_payoff_contraction", log_step),
    Claim(
        "theory 3.7", "iterative best-of-n contracts h by nα₁ + α₂", "bounds.best_of_n_contraction", iterative_best_of_n
    ),
    Claim("theory 3.9", "not collapsed: 1 ≤ K β (1-β)^((1-β)/β)", "bounds.collapse_index", collapse),
    Claim("theory 3.12", "win rate ≤ W(KL(π‖ρ))", "continuum.largest_win_rate", frontier, most=6),
    Claim("theory 3.13", "log E exp(η(Pπ - 1/2)) ≤ log sinh(η/2)/(η/2)", "bounds.log_moment_bound", log_moment, most=8),
    Claim("theory 3.13", "Var(Pπ) ≤ 1/12", "bounds.log_moment_bound", spread, most=8),
    Claim("theory 4.1", "1 - T ≤ σ(-logit ρ_T - 1/2β)", "bounds.win_rate_top_deficit", top_deficit),
    Claim("theory 4.2", "TV of the equilibria of the two games", "bounds.equilibria_distance_bound", games_agree),
    Claim("theory 5.1", "WIND's rate up to β", "bounds.linear_rate", wind_paper),
    Claim("theory 5.2", "WIND's rate up to 4 β/L²", "bounds.wind_max_step", wind),
    Claim("theory 5.3", "L ≤ 1/2 for Bradley-Terry", "bounds.interaction_constant", interaction_of_bradley_terry),
    Claim("theory 5.3", "L ≤ its bound in O(m²)", "bounds.interaction_bound", interaction_is_bounded),
    Claim("theory 5.4", "the extragradient's rate", "bounds.extragradient_max_step", extragradient),
    Claim("theory 5.5", "a step with an adversary's error", "bounds.inexact_floor", inexact),
    Claim("theory 5.6", "a step with an unbiased error", "bounds.noise_floor", noise),
    Claim("theory 5.7", "a step of Nash-MD", "bounds.nash_md_floor", nash_md),
    Claim("theory 5.8", "WIND's rate at 5 β/L²", "bounds.WIND_FAILS_BEYOND", wind_beyond, "counterexample", most=3),
    Claim("theory 5.8", "WIND's rate at c* β/L², β → ∞", "bounds.WIND_FAILS_BEYOND", wind_ceiling, "conjecture"),
    Claim("theory 5.8", "c* ≤ c(ε,q)", "bounds.wind_counterexample", wind_example),
    Claim("theory 5.9", "WIND's rate up to the late step", "bounds.wind_late_step", wind_late),
    Claim("theory 5.10", "μ ≤ 4L/π²", "bounds.tangent_frequencies", frequency, most=7),
    Claim("theory 5.10", "the factor of a step near π*", "bounds.local_rate", local_step),
    Claim("theory 5.10", "π* attracts below the threshold", "bounds.local_max_step", local_threshold),
    Claim("theory 5.11", "the optimistic rule's potential", "bounds.optimistic_max_step", popov),
    Claim("theory 5.11", "the optimistic rule's policy", "bounds.optimistic_max_step", popov_policy),
    Claim(
        "theory 5.11", "its potential at twice the step", "bounds.optimistic_max_step", popov_beyond, "counterexample"
    ),
    Claim("theory 5.13", "40 steps of Nash-MD from ρ", "bounds.nash_md_floor", nash_md_from_reference, most=4),
    Claim("theory 5.14", "KL(π*‖π'*) ≤ (ε/β)²/2", "bounds.wrong_judge_bound", wrong_judge),
    Claim("theory 5.14", "KL(π*‖π'*) + KL(π'*‖π*) ≤ (ε/β)²", "bounds.wrong_judge_bound", wrong_judge_both),
    Claim("theory 5.14", "gap(π'*) ≤ ε²/(2β)", "bounds.wrong_judge_bound", wrong_judge_gap),
    Claim("theory 5.14", "‖π'* - π*‖₁ ≤ ε/β", "bounds.wrong_judge_bound", wrong_judge_distance),
    Claim(
        "theory 5.15", "the extragradient's factor ≤ 1/(1 + 2β)", "bounds.extragradient_max_step", mirror_prox, most=2
    ),
    Claim("theory 5.16", "w ≥ w' - ε √((w' - 1/2)/β)", "bounds.true_win_rate_bound", hacking),
    Claim("theory 5.16", "w ≥ 1/2 - ε²/(4β)", "bounds.hacking_beta", hacking_cost),
    Claim("theory 6.4", "an equilibrium moves no more than the best response", "sensitivity", sensitivity),
    Claim("theory 6.7", "gap on the central path ≤ mμ", "equilibrium", central_path),
    Claim("theory 6.8", "KL(w‖ρ') + KL(ρ'‖ρ) ≤ KL(w‖ρ)", "proximal_point", proximal_step),
    Claim("theory 6.8", "gap of the mean of 10 proximal steps", "bounds.proximal_gap_bound", proximal_gap),
    Claim("theory 6.8", "the factor of a proximal step near a winner", "bounds.proximal_local_rate", proximal_end),
    Claim("theory 6.10", "|log π - log π*| ≤ c, response by response", "equilibrium", probabilities, most=4),
    Claim("theory 6.11", "the factor of a round near a winner", "bounds.moving_local_rate", moving_round),
    Claim("theory 6.11", "enough steps between two renewals attract", "bounds.moving_local_rate", moving_attracts),
    Claim("theory 6.12", "gap of the mean of 4 renewed references", "bounds.moving_gap_bound", moving_gap),
    Claim("theory 7.7", "three falling steps with unbiased errors", "bounds.decaying_bound", falling_steps, most=4),
    Claim("theory 7.8", "a step with an error in the mean square", "bounds.coverage_floor", coverage),
    Claim("theory 7.9", "a loss when one prompt is exchanged", "bounds.stability_bound", stability, most=4),
    Claim("theory 7.11", "a step from one coin a response", "bounds.comparison_error", coins, most=3),
    Claim("theory 7.11", "a step from one comparison, no coins", "bounds.comparison_error", certain_judge, most=4),
    Claim("theory 7.12", "lower bound ≤ Bayes risk", "bounds.comparisons_lower_bound", lower_bound, most=2),
]
WITHOUT_INEQUALITY = {
    "1.1": "definitions",
    "1.2": "an identity",
    "1.4": "a definition",
    "2.1": "existence, and identities",
    "2.2": "existence, and an identity",
    "2.6": "a limit, and which responses are played",
    "3.1": "identities",
    "3.3": "an identity",
    "3.5": "an identity",
    "3.6": "fixed points",
    "3.8": "its constant is only said to exist",
    "3.10": "an order, and a limit",
    "3.11": "closed forms",
    "5.12": "a slope, which a test measures",
    "6.1": "a system of equations; that its solution is not longer than its right-hand side is 6.4",
    "6.2": "a system of equations",
    "6.3": "an identity",
    "6.5": "a system of equations; 2R² as a bound on L has a test",
    "6.6": "a limit",
    "6.9": "an algorithm",
    "7.1": "an identity",
    "7.2": "identities of means",
    "7.3": "minimisers",
    "7.4": "minimisers; its inequality is 3.13",
    "7.5": "another method, restated",
    "7.6": "a mean, summed exactly",
    "7.10": "an identity",
}
"""Statements of the theory that no climb examines, and why."""
EXACT = {
    "implied_beta": "3.5, an identity",
    "implied_eta": "3.5, an identity",
    "omwu_local_rate": "5.12, a slope",
    "geometric_bound": "arithmetic",
    "wind_decaying_step": "7.7, taken in the climb of decaying_bound",
    "win_rate_top_mass": "4.1, one minus win_rate_top_deficit",
    "log_win_rate_error": "7.6, a mean",
}
"""Functions of `bounds` that are no inequality of their own, and why."""


# -- the climb ---------------------------------------------------------------------------------------------


def climb(claim: Claim, m: int, tries: int, rng: np.random.Generator) -> tuple[float, Point]:
    """Return the largest ratio that a random walk uphill finds, and where; its stride adapts to its success."""
    x = rng.normal(size=Point.length(m)) * rng.choice([0.1, 1.0])
    best, stride = claim.ratio(Point(x, m)), 0.5
    for _ in range(tries):
        move = rng.normal(size=x.size) * stride
        if rng.uniform() < 0.5:  # a few coordinates only
            move *= rng.uniform(size=x.size) < 2 / x.size
        value = claim.ratio(Point(x + move, m))
        if value >= best:
            x, stride, best = x + move, min(2.0, 1.3 * stride), value
        else:
            stride = max(1e-5, 0.96 * stride)
            if rng.uniform() < 0.01:
                stride = 0.5
    return best, Point(x, m)


def run_claim(config: dict[str, Any], rng: np.random.Generator) -> Rows:
    claim = CLAIMS[config["number"]]
    with np.errstate(over="ignore", under="ignore"):
        climbs = [
            climb(claim, int(rng.integers(2, claim.most + 1)), config["tries"], rng) for _ in range(config["starts"])
        ]
    best, point = max(climbs, key=lambda found: found[0])
    row = {"statement": claim.statement, "inequality": claim.inequality, "function": claim.function, "kind": claim.kind}
    where = {"responses": point.m, "beta": point.beta, "share": point.share, "interaction": point.L}
    return [row | {"largest_ratio": best} | where | {"evaluations": config["starts"] * (config["tries"] + 1)}]


def configs(scale: Scale, statement: str = "") -> list[dict[str, Any]]:
    starts, tries = scale.pick((2, 40), (6, 500), (16, 1200))
    return [
        {"number": i, "statement": c.statement, "inequality": c.inequality, "starts": starts, "tries": tries}
        for i, c in enumerate(CLAIMS)
        if statement in ("", c.statement.removeprefix("theory "))
    ]


def report(table: pd.DataFrame) -> None:
    held = table[table.kind == "bound"]
    broken = held[held.largest_ratio > 1 + SLACK]
    columns = ["statement", "inequality", "kind", "largest_ratio", "responses", "beta"]
    show(
        "Largest measured/bound that a hill climb reached",
        table[columns],
        f"{len(held) - len(broken)} of {len(held)} bounds hold, {(held.largest_ratio > 0.98).sum()} of them within 2% "
        f"of equality{'; BROKEN: ' + ', '.join(broken.statement) if len(broken) else ''}.",
    )


@dataclass
class Config:
    """An adversarial search for each inequality of the theory."""

    claim: str = ""
    """Number of a statement of the theory, such as 5.2; empty for all."""
    smoke: bool = False
    """Whether to take a few evaluations of each, for tests."""
    full: bool = False
    """Whether to search as long as for the committed table."""
    jobs: int = 1
    """Number of processes."""
    seed: int = 0
    """Seed of the table, from which the seed of every claim is spawned."""
    fresh: bool = False
    """Whether to compute rows anew that are saved."""
    results: Path | None = None
    """Output folder of the table; None for benchmarks/quick or, with --full, for benchmarks/results."""


def main(config: Config) -> None:
    if config.smoke and config.full:
        raise SystemExit("--smoke and --full exclude each other.")
    if config.claim and f"theory {config.claim}" not in {c.statement for c in CLAIMS}:
        numbers = ", ".join(dict.fromkeys(c.statement.removeprefix("theory ") for c in CLAIMS))
        raise SystemExit(f"No inequality is numbered {config.claim!r}. There are {numbers}.")
    if config.claim and config.full and config.results is None:
        raise SystemExit("The committed table holds all claims: with --full and --claim, pass --results.")
    results = config.results or (RESULTS if config.full else QUICK)
    results.mkdir(parents=True, exist_ok=True)
    question = "How close does each inequality of the theory come to being false?"
    study = Study(lambda scale: configs(scale, config.claim), run_claim, report, question, minutes=(3, 30))
    run_study(
        study,
        "claims",
        "claims",
        Scale(config.smoke, config.full),
        results,
        {"smoke": config.smoke, "full": config.full, "seed": config.seed, "claim": config.claim},
        code=[ROOT / "windgames" / "bounds.py", ROOT / "windgames" / "continuum.py", Path(__file__)],
        seed=config.seed,
        jobs=config.jobs,
        fresh=config.fresh,
    )


if __name__ == "__main__":
    main(tyro.cli(Config))
