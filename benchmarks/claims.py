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
from study import QUICK, RESULTS, ROOT, Rows, Scale, Study, run_study, show

from windgames import bounds, continuum

SMALLEST = 1e-9
"""Divergences below this are not compared: rounding would decide."""
LARGE = 1e-6
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


def certificate_kl(p: Point) -> float:
    return ratio(kl(p.policy, p.star), kl(p.policy, p.best_response(p.policy)))


def certificate_reverse(p: Point) -> float:
    R = span(p.policy - p.best_response(p.policy))
    return ratio(kl(p.star, p.policy), float(bounds.kl_from_hilbert(R)))


def certificate_both(p: Point) -> float:
    R = span(p.policy - p.best_response(p.policy))
    return ratio(kl(p.star, p.policy) + kl(p.policy, p.star), min(R, R * R / 4))


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
    gone = np.abs(np.exp(p.ref) - np.exp(p.star)).sum()
    return ratio(span(p.best_response(p.ref) - p.star), p.L / p.beta * gone, LARGE)


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


def _wind(p: Point, eta: float) -> float:
    """The last term of (4) in theory 5.2 over the two that have to cover it."""
    after = p.step(p.policy, p.win(p.policy), eta)
    to_star, to_start = np.exp(after) - np.exp(p.star), np.exp(p.policy) - np.exp(after)
    return ratio(float(to_star @ p.A @ to_start), p.beta * kl(after, p.star) + kl(after, p.policy) / eta)


def wind(p: Point) -> float:
    return _wind(p, p.eta(bounds.wind_max_step(p.beta, p.L)))


def wind_late(p: Point) -> float:
    distance = np.abs(np.exp(p.star) - np.exp(p.policy)).sum() / 2
    return _wind(p, p.eta(bounds.wind_late_step(p.beta, p.L, min(1.0, distance))))


def wind_beyond(p: Point) -> float:
    return _wind(p, 1.25 * min(float(bounds.wind_max_step(p.beta, p.L)), 1e9))


def wind_ceiling(p: Point) -> float:
    """`beta` towards infinity at eta = c* beta/L^2: the conjecture of theory 5.8 is that this stays below 1."""
    v = p.A @ (np.exp(p.policy) - np.exp(p.star))
    q = np.exp(p.star)
    variance = q @ (v - q @ v) ** 2
    bound = 2 * p.L**2 / bounds.WIND_FAILS_BEYOND * kl(p.star, p.policy)
    return ratio(variance, bound)


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
    return ratio(np.abs(np.exp(p.policy) - np.exp(p.star)).sum(), eps / p.beta)


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
    Claim("theory 2.3", "KL(π‖π*) ≤ KL(π‖BR(π))", "Game.kl_certificate", certificate_kl),
    Claim("theory 2.4", "h(π,π*) ≤ (1 + L/2β) R", "bounds.hilbert_certificate_factor", certificate_factor),
    Claim("theory 2.7", "h(π,π*) ≤ R + (L/β) √(2 KL(π‖BR(π)))", "bounds.hilbert_certificate", certificate),
    Claim("theory 2.7", "h(BR(π),π*) ≤ (L/β) √(2 KL(π‖BR(π)))", "bounds.one_step_bound", one_step),
    Claim("theory 2.9", "h(BR(ρ),π*) ≤ (L/β) ‖ρ - π*‖₁", "bounds.one_step_bound", rlhf),
    Claim("theory 2.10", "KL(π*‖π) ≤ min(R, R²/8)", "bounds.kl_from_hilbert", certificate_reverse),
    Claim("theory 2.10", "KL(π*‖π) + KL(π‖π*) ≤ min(R, R²/4)", "bounds.kl_from_hilbert", certificate_both),
    Claim("theory 3.2", "TV(G_n,B_n) ≤ ε/(1 + ε), ε = n max p", "operators.best_of_n", power_form, most=6),
    Claim("theory 3.12", "win rate ≤ W(KL(π‖ρ))", "continuum.largest_win_rate", frontier, most=6),
    Claim("theory 3.13", "log E exp(η(Pπ - 1/2)) ≤ log sinh(η/2)/(η/2)", "bounds.log_moment_bound", log_moment, most=8),
    Claim("theory 5.2", "WIND's rate up to 4 β/L²", "bounds.wind_max_step", wind),
    Claim("theory 5.4", "the extragradient's rate", "bounds.extragradient_max_step", extragradient),
    Claim("theory 5.5", "a step with an adversary's error", "bounds.inexact_floor", inexact),
    Claim("theory 5.6", "a step with an unbiased error", "bounds.noise_floor", noise),
    Claim("theory 5.7", "a step of Nash-MD", "bounds.nash_md_floor", nash_md),
    Claim("theory 5.8", "WIND's rate at 5 β/L²", "bounds.WIND_FAILS_BEYOND", wind_beyond, "counterexample", 3),
    Claim(
        "theory 5.8",
        "WIND's rate at c* β/L², β → ∞",
        "bounds.WIND_FAILS_BEYOND",
        wind_ceiling,
        "conjecture",
    ),
    Claim("theory 5.9", "WIND's rate up to the late step", "bounds.wind_late_step", wind_late),
    Claim("theory 5.10", "μ ≤ 4L/π²", "bounds.tangent_frequencies", frequency, most=7),
    Claim("theory 5.11", "the optimistic rule's potential", "bounds.optimistic_max_step", popov),
    Claim("theory 5.11", "the optimistic rule's policy", "bounds.optimistic_max_step", popov_policy),
    Claim(
        "theory 5.11", "its potential at twice the step", "bounds.optimistic_max_step", popov_beyond, "counterexample"
    ),
    Claim("theory 5.13", "40 steps of Nash-MD from ρ", "bounds.nash_md_floor", nash_md_from_reference, most=4),
    Claim("theory 5.14", "KL(π*‖π'*) ≤ (ε/β)²/2", "bounds.wrong_judge_bound", wrong_judge),
    Claim("theory 5.14", "gap(π'*) ≤ ε²/(2β)", "bounds.wrong_judge_bound", wrong_judge_gap),
    Claim("theory 5.14", "‖π'* - π*‖₁ ≤ ε/β", "bounds.wrong_judge_bound", wrong_judge_distance),
    Claim("theory 6.8", "KL(w‖ρ') + KL(ρ'‖ρ) ≤ KL(w‖ρ)", "proximal_point", proximal_step),
    Claim("theory 6.8", "gap of the mean of 10 proximal steps", "bounds.proximal_gap_bound", proximal_gap),
    Claim("theory 7.11", "a step from one coin a response", "bounds.comparison_error", coins, most=3),
    Claim("theory 7.11", "a step from one comparison, no coins", "bounds.comparison_error", certain_judge, most=4),
    Claim("theory 7.12", "lower bound ≤ Bayes risk", "bounds.comparisons_lower_bound", lower_bound, most=2),
]


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
