"""Theory sections 1 and 2: win rates, equilibria, certificates."""

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.special import logsumexp

import windgames as wg
from windgames._array import hilbert, kl
from windgames.testing import betas, games, matrices, policies, preferences, random_reference, rewards


def softmax(x):
    x = np.exp(x - x.max())
    return x / x.sum()


# -- 1: win rates ------------------------------------------------------------------------------------------


@given(rewards(), st.sampled_from(["half", "weak", "strict"]), st.data())
def test_sorted_win_rates_equal_the_matrix(reward, ties, data):
    """Theory 1.2, against the definition with a double loop."""
    log_policy = data.draw(policies(len(reward)))
    tie = {"half": 0.5, "weak": 1.0, "strict": 0.0}[ties]
    P = [[1.0 if a > b else tie if a == b else 0.0 for b in reward] for a in reward]
    p = wg.RewardPreference(reward, ties=ties)
    np.testing.assert_array_equal(p.matrix(), P)
    win = P @ np.exp(log_policy)
    np.testing.assert_allclose(p.win_rate(log_policy), win, atol=1e-14)
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(np.exp(p.log_win_rate(log_policy)), win, atol=1e-14)


@given(preferences(), st.data())
def test_log_win_rate_is_the_log(preference, data):
    log_policy = data.draw(policies(preference.n_responses))
    with np.errstate(divide="ignore"):
        expected = np.log(preference.matrix() @ np.exp(log_policy))
    np.testing.assert_allclose(preference.log_win_rate(log_policy), expected, atol=1e-9)


def test_log_win_rate_does_not_underflow():
    weak = wg.RewardPreference([0.0, 1, 2], ties="weak")
    log_policy = np.array([-5000.0, -2000.0, 0.0])
    np.testing.assert_allclose(weak.log_win_rate(log_policy), log_policy, rtol=1e-15)
    bt = wg.BradleyTerryPreference([0.0, 2000.0])
    np.testing.assert_allclose(bt.log_win_rate(np.array([-np.inf, 0.0])), [-2000.0, -np.log(2)])


@given(st.floats(0, 60), st.floats(0, 60), st.integers(1, 6), st.integers(0, 10**6))
def test_kl_at_most_hilbert(a, b, m, seed):
    """Theory 1.3: KL <= min(h, h^2/8), and KL against 50-digit arithmetic."""
    x, y = np.random.default_rng(seed).normal(size=(2, m))
    p, q = np.log(softmax(a * x)), np.log(softmax(a * x + b * y * np.exp(-b)))
    with mpmath.workdps(50):
        wp, wq = [mpmath.exp(v) for v in p], [mpmath.exp(v) for v in q]
        sp, sq = sum(wp), sum(wq)
        exact = sum(u / sp * mpmath.log(u / sp / (v / sq)) for u, v in zip(wp, wq, strict=True))
    measured = kl(p, q)
    assert measured >= 0
    assert measured == pytest.approx(float(exact), rel=1e-6, abs=1e-15)
    h = hilbert(p, q)
    assert measured <= min(h, h * h / 8) * (1 + 1e-9) + 1e-15


def test_kl_does_not_stall():
    p = np.log([0.3, 0.7])
    q = np.log([0.3 + 1e-12, 0.7 - 1e-12])
    assert kl(p, q) == pytest.approx(1e-24 / 2 * (1 / 0.3 + 1 / 0.7), rel=1e-3)
    assert kl(np.array([0.0, -np.inf]), np.log([0.5, 0.5])) == pytest.approx(np.log(2))
    assert kl(np.log([0.5, 0.5]), np.array([0.0, -np.inf])) == np.inf
    assert hilbert(np.array([0.0, -np.inf]), np.log([0.5, 0.5])) == np.inf


# -- 2: equilibria -----------------------------------------------------------------------------------------


@given(games())
def test_equilibrium_is_the_fixed_point(game):
    """Theory 2.1: pi* = softmax(log rho + P pi*/beta), value 1/2, and nobody gains by deviating."""
    solution = wg.equilibrium(game)
    assert solution.converged, solution
    pi, P = solution.policy, game.preference.matrix()
    np.testing.assert_allclose(pi, softmax(np.log(game.ref) + P @ pi / game.beta), rtol=1e-8, atol=1e-300)
    assert pi @ P @ pi == pytest.approx(0.5, abs=1e-12)


@given(games(), st.data())
def test_no_deviation_gains(game, data):
    """Theory 2.1: V(pi, pi*) <= 1/2 for every pi, with equality short of beta KL(pi||pi*)."""
    solution = wg.equilibrium(game)
    log_pi = data.draw(policies(game.n_responses))
    pi, star, rho, P = np.exp(log_pi), solution.policy, game.ref, game.preference.matrix()
    kl_pi = np.sum(pi * (log_pi - np.log(rho)))
    kl_star = np.sum(star * (solution.log_policy - np.log(rho)))
    value = pi @ P @ star - game.beta * kl_pi + game.beta * kl_star
    scale = 1 + game.beta * abs(kl_pi)
    assert value == pytest.approx(0.5 - game.beta * float(kl(log_pi, solution.log_policy)), abs=1e-9 * scale)


@given(games(beta=betas(0.02, 10)), st.data())
def test_unique_from_any_start(game, data):
    """Theory 2.1: the iteration leads to the same policy from anywhere."""
    start = data.draw(policies(game.n_responses))
    found = wg.solve(game, wg.extragradient(), tol=1e-8, start=start, max_steps=20_000)
    assert found.converged
    assert hilbert(found.log_policy, wg.equilibrium(game).log_policy) < 1e-6 / min(game.beta, 1)


# -- 2: certificates ---------------------------------------------------------------------------------------


@given(games(), st.data())
def test_certificates_hold(game, data):
    """Theory 2.3 and 2.4: every policy bounds its own distance to the equilibrium."""
    log_pi = data.draw(policies(game.n_responses))
    star = wg.equilibrium(game).log_policy
    assert kl(log_pi, star) <= game.kl_certificate(log_pi) * (1 + 1e-9) + 1e-12
    assert hilbert(log_pi, star) <= game.hilbert_certificate(log_pi) * (1 + 1e-9) + 1e-9


@given(games(), st.data())
def test_gap_is_what_a_best_response_gains(game, data):
    """Theory 2.3: the gap is max_u V(u, pi) - 1/2, by direct evaluation of V at the best response."""
    log_pi = data.draw(policies(game.n_responses))
    pi, P, log_rho = np.exp(log_pi), game.preference.matrix(), np.log(game.ref)
    best = softmax(log_rho + P @ pi / game.beta)
    with np.errstate(divide="ignore", invalid="ignore"):
        kl_best = np.sum(np.where(best > 0, best * (np.log(best) - log_rho), 0.0))
    kl_pi = np.sum(pi * (log_pi - log_rho))
    gain = best @ P @ pi - game.beta * kl_best - (pi @ P @ pi - game.beta * kl_pi)
    assert game.gap(log_pi) == pytest.approx(gain, rel=1e-6, abs=1e-9 * (1 + game.beta * abs(kl_pi)))


def test_certificate_is_tight_for_two_responses():
    """Theory 2.3 with equality: with two responses the payoff difference does not depend on the opponent."""
    game = wg.WinRateGame(wg.MatrixPreference([[0.5, 0.8], [0.2, 0.5]]), [0.4, 0.6], 0.3)
    log_pi = np.log([0.9, 0.1])
    assert game.kl_certificate(log_pi) == pytest.approx(float(kl(log_pi, wg.equilibrium(game).log_policy)), rel=1e-12)


@given(games("log-win-rate") | games("best-of-n"), st.data())
def test_log_certificates_hold(game, data):
    """Theory 2.5."""
    log_pi = data.draw(policies(game.n_responses))
    found = wg.equilibrium(game)
    assert found.converged, found
    assert hilbert(log_pi, found.log_policy) <= game.hilbert_certificate(log_pi) * (1 + 1e-9) + 1e-8
    assert kl(log_pi, found.log_policy) <= game.kl_certificate(log_pi) * (1 + 1e-9) + 1e-9


@given(games("log-win-rate") | games("best-of-n"))
def test_log_equilibrium_is_the_fixed_point(game):
    """Theory 2.2 and 3.6, the payoff written out."""
    found = wg.equilibrium(game)
    pi = found.policy
    if isinstance(game, wg.BestOfNGame):
        r, n, u = game.preference.reward, game.n, []
        with mpmath.workdps(80):
            for y in range(len(r)):
                F, below = (
                    sum((mpmath.exp(z) for z in found.log_policy[k]), mpmath.mpf(0)) for k in (r <= r[y], r < r[y])
                )
                u.append(float(mpmath.log((F**n - below**n) / (n * (F - below))) / (n - 1)))
        u = np.asarray(u)
    else:
        u = logsumexp(found.log_policy, b=game.preference.matrix(), axis=-1)  # a probability may underflow
    np.testing.assert_allclose(pi, softmax(np.log(game.ref) + u / game.beta), rtol=1e-5, atol=1e-12)


def test_a_boundary_has_no_certificate():
    """On a face the log payoff's iteration stays on the face: what is found there proves nothing of the interior."""
    game = wg.LogWinRateGame(wg.RewardPreference([0.0, 1], ties="weak"), [0.9, 0.1], 2.0)
    top = np.array([-np.inf, 0.0])
    assert game.gap(top) == 0
    assert game.residual(top) == 0
    assert game.kl_certificate(top) == np.inf
    assert game.hilbert_certificate(top) == np.inf
    assert wg.equilibrium(game).policy[0] > 0.1


def test_boundary_payoffs_are_infinite_not_nan():
    game = wg.LogWinRateGame(wg.RewardPreference([0.0, 1, 2], ties="weak"), [0.5, 0.3, 0.2], 0.5)
    upper = np.array([-np.inf, np.log(0.4), np.log(0.6)])
    assert game.payoff(upper)[0] == -np.inf
    assert np.all(np.isfinite(game.payoff(upper)[1:]))
    assert game.best_response(upper)[0] == -np.inf
    lower = np.array([np.log(0.4), np.log(0.6), -np.inf])
    assert game.residual(lower) == np.inf


# -- 2.6: beta = 0 -----------------------------------------------------------------------------------------


@given(matrices(6), st.integers(0, 10**6))
def test_winner_at_beta_zero(matrix, seed):
    """Theory 2.6: P pi <= 1/2, and of all winners the one nearest to the reference.

    The first-order condition of the projection, <log(pi/rho), q - pi> >= 0 for every winner q, is a linear program,
    and so is the claim that no winner plays a response that pi does not.
    """
    m = len(matrix)
    ref = np.random.default_rng(seed).dirichlet(np.ones(m)) * 0.9 + 0.1 / m
    found = wg.equilibrium(wg.WinRateGame(wg.MatrixPreference(matrix), ref, 0.0))
    assert found.converged
    assert np.max(matrix @ found.policy) <= 0.5 + 1e-12
    slope = np.where(found.support, np.where(found.support, found.log_policy, 0.0) - np.log(ref), 0.0)
    simplex = {"A_eq": np.ones((1, m)), "b_eq": [1.0]}
    # a slack of the linear program's own feasibility tolerance, paid for below
    best = linprog(slope, A_ub=matrix, b_ub=np.full(m, 0.5), **simplex)
    assert best.fun >= slope @ found.policy - 1e-5
    for y in np.flatnonzero(~found.support):
        assert linprog(-np.eye(m)[y], A_ub=matrix, b_ub=np.full(m, 0.5), **simplex).x[y] < 1e-5


def test_the_limit_of_small_beta(rng):
    """Theory 2.6: the equilibrium tends to the selected winner, also where an inequality binds at the projection."""
    binding = np.array([[0.5, 0.0, 1.0], [1.0, 0.5, 0.5], [0.0, 0.5, 0.5]])
    for matrix in (binding, np.full((4, 4), 0.5), wg.testing.random_matrix("cycle", 5, rng)):
        ref = random_reference(len(matrix), rng) * 0.9 + 0.1 / len(matrix)
        preference = wg.MatrixPreference(matrix)
        limit = wg.equilibrium(wg.WinRateGame(preference, ref, 0.0)).policy
        far, near = (
            np.abs(wg.equilibrium(wg.WinRateGame(preference, ref, b)).policy - limit).sum() for b in (1e-2, 1e-4)
        )
        assert near < 1e-2
        assert near <= far + 1e-12


def test_beta_zero_reward():
    for ties, game in (("half", wg.WinRateGame), ("weak", wg.LogWinRateGame)):
        found = wg.equilibrium(game(wg.RewardPreference([1.0, 2, 2], ties=ties), [0.5, 0.3, 0.2], 0.0))
        np.testing.assert_allclose(found.policy, [0, 0.6, 0.4])
        assert found.converged
        assert found.support.tolist() == [False, True, True]
