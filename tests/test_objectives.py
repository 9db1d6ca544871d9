"""Theory 7.1 to 7.6: what a sampled policy regresses onto, by enumeration of everything that can be drawn."""

import itertools
from math import comb, log

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

import windgames as wg
from windgames import bounds
from windgames._array import log_normalize, to_numpy
from windgames.objectives import (
    PAIRINGS,
    RISKS,
    SCORE_FLOOR,
    centred,
    implied_payoff,
    jbond_weights,
    regression_risk,
    reinforce_weights,
    risk,
    risk_slope,
    win_rates,
)
from windgames.testing import games, policies, random_matrix
from windgames.updates import target

MATRIX = np.array([[0.5, 0.9, 0.2], [0.1, 0.5, 0.7], [0.8, 0.3, 0.5]])
POLICY = np.array([0.5, 0.3, 0.2])


@given(games(), st.floats(0.01, 100), st.data())
def test_the_implied_payoff_inverts_the_target(game, eta, data):
    """Theory 7.1: what took pi_t to pi; the exact step's is the win rate, up to a constant."""
    log_pi, other = (data.draw(policies(game.n_responses)) for _ in range(2))
    payoff = game.payoff(log_pi)
    step = log_normalize(target(log_pi, game.log_ref, payoff, beta=game.beta, eta=eta))
    found = implied_payoff(step, log_pi, game.log_ref, beta=game.beta, eta=eta)
    np.testing.assert_allclose(found - found[0], payoff - payoff[0], atol=1e-10 * (1 + 1 / eta + game.beta) * 100)
    again = target(
        log_pi,
        game.log_ref,
        implied_payoff(other, log_pi, game.log_ref, beta=game.beta, eta=eta),
        beta=game.beta,
        eta=eta,
    )
    np.testing.assert_allclose(again, other, atol=1e-9)


# -- risks -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", RISKS)
@given(s=st.floats(-2, 3), c=st.floats(0, 1))
def test_slopes_are_derivatives(kind, s, c):
    """Theory 7.3: (s - c)/v(s), against 40-digit differentiation of the formulas, also beyond the floors."""
    with mpmath.workdps(40):
        d = mpmath.mpf(SCORE_FLOOR)

        def v(x):
            if kind == "squared":
                return mpmath.mpf(1)
            if kind == "kl":
                x = min(max(x, d), 1 - d)
                return x * (1 - x)
            x = max(x, d)
            return x * (1 + 2 * x) / 2

        points = sorted({mpmath.mpf(c), mpmath.mpf(s), *(p for p in (d, 1 - d) if min(c, s) < p < max(c, s))})
        sign = 1 if s >= c else -1
        expected = sign * mpmath.quad(lambda x: (x - c) / v(x), points) if len(points) > 1 else 0
    s, c = np.asarray(s), np.asarray(c)
    assert risk(s, c, kind) - risk(c, c, kind) == pytest.approx(float(expected), rel=1e-8, abs=1e-9)
    assert risk_slope(s, c, kind) == pytest.approx(float((s - c) / v(float(s))), rel=1e-12)


@pytest.mark.parametrize("kind", RISKS)
def test_torch_differentiates_the_same_risk(kind):
    torch = pytest.importorskip("torch")
    s = torch.linspace(-1, 2, 61, dtype=torch.float64, requires_grad=True)
    c = torch.linspace(0, 1, 61, dtype=torch.float64)
    risk(s, c, kind).sum().backward()
    np.testing.assert_allclose(to_numpy(s.grad), risk_slope(to_numpy(s), to_numpy(c), kind), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", RISKS)
@pytest.mark.parametrize("w", [0.0, 1e-6, 0.03, 0.5, 0.97, 1.0])
def test_risks_are_proper(kind, w):
    """Theory 7.3: over coin flips of mean w the minimiser is w, also at and near 0 and 1."""
    s = np.linspace(-0.5, 1.5, 400_001)
    mean = w * risk(s, np.asarray(1.0), kind) + (1 - w) * risk(s, np.asarray(0.0), kind)
    assert s[np.argmin(mean)] == pytest.approx(w, abs=1e-5)


@settings(max_examples=25)
@given(games(beta=st.floats(0.05, 1), min_responses=2, max_responses=5), st.sampled_from(RISKS), st.data())
def test_population_minimiser_is_the_exact_step(game, kind, data):
    """Theory 7.1 and 7.3 with exact centring: over a free table of logits the minimiser is the tabular rule."""
    eta = 0.7
    log_pi = data.draw(policies(game.n_responses))
    log_pi = log_normalize(np.maximum(log_pi, -8.0))
    pi, P = np.exp(log_pi), game.preference.matrix()

    def value(theta):
        raw = implied_payoff(log_normalize(theta), log_pi, game.log_ref, beta=game.beta, eta=eta)
        s = raw - pi @ raw + 0.5
        coins = P * risk(s[:, None], np.ones_like(P), kind) + (1 - P) * risk(s[:, None], np.zeros_like(P), kind)
        slopes = P * risk_slope(s[:, None], np.ones_like(P), kind) + (1 - P) * risk_slope(
            s[:, None], np.zeros_like(P), kind
        )
        g = pi * (slopes @ pi)
        pull = (1 / eta + game.beta) * (g - pi * g.sum())
        return pi @ coins @ pi, pull - np.exp(log_normalize(theta)) * pull.sum()

    found = minimize(value, log_pi, jac=True, method="BFGS", options={"gtol": 1e-12, "maxiter": 4000}).x
    exact = log_normalize(target(log_pi, game.log_ref, game.payoff(log_pi), beta=game.beta, eta=eta))
    np.testing.assert_allclose(np.exp(log_normalize(found)), np.exp(exact), atol=2e-5)


# -- K draws ---------------------------------------------------------------------------------------------------


def population_score(pairing, k, kind="squared", labels=None, matrix=MATRIX, pi=POLICY):
    """Return the free table of scores (mean 1/2) that minimises the expected risk over all groups of K draws."""
    m = len(pi)
    groups = np.array(list(itertools.product(range(m), repeat=k)))
    weight = np.prod(pi[groups], axis=1)
    if pairing == "independent":  # enumerate the opponents too
        others = groups[None, :, :].repeat(len(groups), 0).reshape(-1, k)
        groups, weight = groups.repeat(len(groups), 0), np.outer(weight, weight).ravel()
        outcomes = matrix[groups[:, :, None], others[:, None, :]]
    else:
        outcomes = matrix[groups[:, :, None], groups[:, None, :]]
    label = win_rates(outcomes, labels or pairing)
    if pairing == "independent":
        label = centred(label, pairing)

    def value(s):
        score = centred(s[groups], pairing)
        slope = weight[:, None] * risk_slope(score, label, kind)
        pull = centred(slope, pairing) - 0.5
        g = np.bincount(groups.ravel(), pull.ravel(), minlength=m)
        return np.sum(weight[:, None] * risk(score, label, kind)), g

    s = minimize(value, np.full(m, 0.5), jac=True, method="BFGS", options={"gtol": 1e-13}).x
    return s - pi @ s + 0.5


@pytest.mark.parametrize("k", [2, 3, 4])
@pytest.mark.parametrize("pairing", ["group", "leave-one-out", "independent"])
def test_squared_risk_is_unbiased_on_k_draws(pairing, k):
    """Theory 7.2, every group of K draws enumerated."""
    if pairing == "independent" and k == 4:
        k = 1 + 2  # 3^8 groups are enough
    np.testing.assert_allclose(population_score(pairing, k), MATRIX @ POLICY, atol=1e-7)


@pytest.mark.parametrize("k", [2, 3, 4])
def test_the_trap_is_a_factor(k):
    """Theory 7.2: leave-one-out win rates with group centring give K/(K-1) times the win rate's excess."""
    s = population_score("group", k, labels="leave-one-out")
    np.testing.assert_allclose(s - 0.5, k / (k - 1) * (MATRIX @ POLICY - 0.5), atol=1e-7)


@pytest.mark.parametrize("kind", ["kl", "nce"])
def test_logarithmic_risks_keep_a_bias_that_vanishes_with_k(kind):
    """Theory 7.3: of order 1/K. The slope of the score on the win rate is not 1, and comes nearer with K."""
    w = MATRIX @ POLICY
    slopes = []
    for k in (2, 3, 4):
        s = population_score("group", k, kind)
        slopes.append((s - 0.5) @ (w - 0.5) / np.sum((w - 0.5) ** 2))
    distance = np.abs(np.array(slopes) - 1)
    assert distance[0] > 0.01
    assert np.all(np.diff(distance) < 0)


@given(st.integers(2, 6), st.integers(0, 10**6))
def test_pairs_of_group_and_leave_one_out_are_one_risk(k, seed):
    """Squared risk: the two pairings differ by the factor ((K-1)/K)^2, in value and gradient."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, k)
    outcomes, s = MATRIX[np.ix_(y, y)], rng.normal(size=k)
    group = risk(centred(s, "group"), win_rates(outcomes, "group"))
    loo = risk(centred(s, "leave-one-out"), win_rates(outcomes, "leave-one-out"))
    np.testing.assert_allclose(group, ((k - 1) / k) ** 2 * loo, atol=1e-12)
    share = rng.dirichlet(np.ones(k))
    assert share @ (centred(s, "group", share) - 0.5) == pytest.approx(0, abs=1e-12)


def test_a_constant_normaliser_is_not_the_exact_step():
    """Theory 7.4: over normalised tables the minimiser moves away from the exact step as eta grows."""
    P, pi = random_matrix("logistic", 5, np.random.default_rng(3)), np.full(5, 0.2)
    distances = []
    for eta in (1.0, 5.0, 20.0):

        def value(theta, eta=eta):
            lp = log_normalize(theta)
            label = np.broadcast_to(P @ pi, lp.shape)
            return pi @ regression_risk(lp, np.log(pi), np.log(pi), label, beta=0.0, eta=eta, pairing="constant")

        found = np.exp(log_normalize(minimize(value, np.zeros(5), method="BFGS", options={"gtol": 1e-10}).x))
        exact = pi * np.exp(eta * P @ pi)
        distances.append(np.abs(found - exact / exact.sum()).sum() / 2)
    assert distances[0] < 0.02
    assert distances[0] < distances[1] < distances[2]
    assert distances[2] > 0.05


# -- estimates -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [2, 3])
def test_win_rates_by_enumeration(k):
    """Theory 7.2: leave-one-out and independent estimates are unbiased; with itself a draw is pulled to 1/2."""
    w = MATRIX @ POLICY
    for y in range(3):
        rest = np.array(list(itertools.product(range(3), repeat=k - 1)))
        weight = np.prod(POLICY[rest], axis=1)
        groups = np.column_stack([np.full(len(rest), y), rest])
        outcomes = MATRIX[groups[:, :, None], groups[:, None, :]]
        assert weight @ win_rates(outcomes, "leave-one-out")[:, 0] == pytest.approx(w[y])
        assert weight @ win_rates(outcomes, "group")[:, 0] == pytest.approx(((k - 1) * w[y] + 0.5) / k)
        independent = MATRIX[y][rest][:, None, :]
        assert weight @ win_rates(independent, "independent")[:, 0] == pytest.approx(w[y])


@given(st.floats(0.01, 1), st.integers(1, 30))
def test_the_log_of_an_estimate_is_biased(w, k):
    """Theory 7.6: E log((B + 1)/(k + 1)) - log w for binomial B, summed here term by term."""
    with mpmath.workdps(30):
        mean = sum(
            comb(k, b) * mpmath.mpf(w) ** b * (1 - mpmath.mpf(w)) ** (k - b) * mpmath.log((b + 1) / mpmath.mpf(k + 1))
            for b in range(k + 1)
        )
        second = sum(
            comb(k, b)
            * mpmath.mpf(w) ** b
            * (1 - mpmath.mpf(w)) ** (k - b)
            * mpmath.log((b + 1) / mpmath.mpf(k + 1)) ** 2
            for b in range(k + 1)
        )
        bias, deviation = bounds.log_win_rate_error(w, k)
        assert bias == pytest.approx(float(mean - mpmath.log(w)), abs=1e-9)
        assert deviation == pytest.approx(float(mpmath.sqrt(abs(second - mean**2))), abs=1e-7)


# -- likelihood weights ----------------------------------------------------------------------------------------


def test_jbond_reward_at_the_median():
    """Theory 7.5: mean -log 2 at quantile 1/2, the log-quantile it stands for; 0 at quantile 1."""
    for q in (0.5, 1.0):
        lose = (1 - q) ** 2  # two anchor draws that are both better, without ties
        backward = sum(
            p * jbond_weights(np.asarray(hit), np.asarray(0.0), np.asarray(0.0))[1]
            for hit, p in ((1.0, lose), (0.0, 1 - lose))
        )
        assert 2 * backward - log(2) == pytest.approx(log(q), abs=1e-12)


def test_jbond_weights_are_jeffreys_gradient():
    """On atomless-like games the expected step is the gradient of Jeffreys' divergence with the reward in place of the
    log-quantile; here the weights alone: forward 1/2, and the log-ratio with 1/2 + gamma."""
    forward, backward = jbond_weights(np.zeros(1), np.log([0.3]), np.log([0.2]), gamma=0.7)
    assert forward == 0.5
    np.testing.assert_allclose(backward, 0.5 * log(2) - (0.5 + 0.7) * np.log(1.5))


def test_reinforce_is_unbiased():
    """The mean over all pairs of draws is the gradient of E r - beta KL, computed by differences."""
    r, rho, theta, beta = np.array([1.0, 0.3, -0.5]), POLICY, np.array([0.2, -0.1, 0.4]), 0.3
    pi = np.exp(log_normalize(theta))
    total = np.zeros(3)
    for pair in itertools.product(range(3), repeat=2):
        y = np.array(pair)
        w = reinforce_weights(r[y], np.log(pi[y]), np.log(rho[y]), beta=beta)
        for k in range(2):
            total += pi[y[0]] * pi[y[1]] * w[k] / 2 * (np.eye(3)[y[k]] - pi)

    def objective(x):
        p = np.exp(log_normalize(x))
        return p @ r - beta * p @ (np.log(p) - np.log(rho))

    slope = [(objective(theta + h) - objective(theta - h)) / 2e-6 for h in 1e-6 * np.eye(3)]
    np.testing.assert_allclose(total, slope, atol=1e-8)


def test_every_library_gives_the_same(library, rng):
    start, ref, now = np.log(rng.dirichlet(np.ones(4), size=(3, 2)))
    outcomes = rng.uniform(size=(2, 4, 4))
    for pairing in PAIRINGS:
        for kind in RISKS:
            label = win_rates(outcomes, pairing)
            expected = regression_risk(now, start, ref, label, beta=0.1, eta=0.4, pairing=pairing, kind=kind)
            theirs = [library.asarray(x.copy()) for x in (now, start, ref, outcomes)]
            got = regression_risk(
                *theirs[:3], win_rates(theirs[3], pairing), beta=0.1, eta=0.4, pairing=pairing, kind=kind
            )
            np.testing.assert_allclose(to_numpy(got), expected, rtol=1e-12)


def test_bad_input():
    with pytest.raises(ValueError, match="risk must be one of"):
        risk(np.zeros(2), np.zeros(2), "hinge")
    with pytest.raises(ValueError, match="risk must be one of"):
        risk_slope(np.zeros(2), np.zeros(2), "hinge")
    with pytest.raises(ValueError, match="w must lie"):
        bounds.log_win_rate_error(0.0, 3)
    assert wg.objectives.SCORE_FLOOR == 0.05
