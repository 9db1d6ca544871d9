"""A moving reference as a rule: on tables, for learners, its pace and its guarantee (theory 6.8, 6.11, 6.12)."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import windgames as wg
from windgames import bounds
from windgames.bandits import LogLinear, Regression, Tabular, run
from windgames.oracles import Oracle
from windgames.testing import check_rule, example_games, games, random_matrix, random_reference

RPS = np.array([[0.5, 0.0, 1.0], [1.0, 0.5, 0.0], [0.0, 1.0, 0.5]])
THIRD = np.log(np.full(3, 1 / 3))


def normalise(x):
    return x - np.log(np.sum(np.exp(x), axis=-1, keepdims=True))


def divergence(p, q):
    return float(np.sum(np.exp(p) * (np.expm1(q - p) - (q - p))))


def by_hand(P, log_ref, beta, eta, every, steps):
    """Return the iterates of WIND whose reference is replaced after every so many steps."""
    current = magnet = log_ref
    out = []
    for t in range(1, steps + 1):
        current = normalise((current + beta * eta * magnet + eta * (P @ np.exp(current))) / (1 + beta * eta))
        magnet = current if t % every == 0 else magnet
        out.append(current)
    return np.array(out)


@pytest.mark.parametrize("every", [1, 3])
def test_iterates(every, rng):
    P, ref = random_matrix("uniform", 4, rng), random_reference(4, rng)
    for beta in (0.0, 0.3):
        seen = []
        game = wg.WinRateGame(wg.MatrixPreference(P), ref, beta)
        rule = wg.moving_reference(wg.wind(0.7), every, beta=None if beta else 0.3)
        wg.solve(game, rule, tol=0, max_steps=8, callback=lambda t, p, seen=seen: seen.append(p))
        np.testing.assert_allclose(seen, by_hand(P, np.log(ref), 0.3, 0.7, every, 8), atol=1e-13)


@pytest.mark.parametrize("inner", [wg.wind(), wg.extragradient(), wg.optimistic()], ids=lambda rule: rule.name)
def test_with_many_steps_in_between_it_is_the_proximal_point_method(inner, rng):
    P, ref = random_matrix("logistic", 4, rng), random_reference(4, rng)
    game = wg.WinRateGame(wg.MatrixPreference(P), ref, 0.4)
    proximal, moving, every = [], [], 150
    wg.proximal_point(game, tol=0, max_steps=4, callback=lambda k, p: proximal.append(p))
    rule = wg.moving_reference(inner, every)
    wg.solve(game, rule, tol=0, max_steps=4 * every, record_every=600, callback=lambda t, p: moving.append(p))
    np.testing.assert_allclose(moving[every - 1 :: every], proximal, atol=1e-8)


def test_it_reaches_a_winner_where_the_fixed_reference_does_not():
    game = wg.WinRateGame(wg.MatrixPreference(RPS), [0.8, 0.1, 0.1], 0.0)
    found = wg.solve(game, wg.moving_reference(wg.wind(), 40, beta=0.3), tol=1e-8)
    assert found.converged
    np.testing.assert_allclose(found.policy, 1 / 3, atol=1e-6)
    priced = game.replace(beta=0.3)
    assert game.gap(wg.equilibrium(priced).log_policy) > 0.05
    assert game.gap(wg.solve(priced, wg.moving_reference(wg.wind(), 40), max_steps=2000).log_policy) < 1e-6


@pytest.mark.parametrize(("every", "converges"), [(1, False), (4, False), (25, True), (200, True)])
def test_its_pace_near_a_winner(every, converges):
    """Theory 6.11 against a run; too few steps between two renewals circle away."""
    beta, eta, sigma = 0.1, 0.4, np.sqrt(1 / 12)
    factor = bounds.moving_local_rate(beta, eta, sigma, every)
    assert (factor < 1) == converges
    rounds = 6
    start = normalise(THIRD + 1e-5 * np.array([1.0, 0, -1]))
    game = wg.WinRateGame(wg.MatrixPreference(RPS), log_ref=start, ref=None, beta=0.0)
    seen = [start]
    rule = wg.moving_reference(wg.wind(eta), every, beta=beta)
    wg.solve(game, rule, tol=0, max_steps=rounds * every, record_every=2000, callback=lambda t, p: seen.append(p))
    far = [divergence(THIRD, p) for p in seen[::every]]
    np.testing.assert_allclose(np.array(far[1:]) / far[:-1], factor, rtol=1e-3)


def test_the_pace_in_its_limits():
    beta, eta, sigma = 0.2, 0.5, 0.3
    many, one = (bounds.moving_local_rate(beta, eta, sigma, k) for k in (10_000, 1))
    assert many == pytest.approx(bounds.proximal_local_rate(beta, sigma))
    assert one == pytest.approx(1 + (eta * sigma / (1 + beta * eta)) ** 2)
    shrink = abs(1 + 1j * eta * sigma) / (1 + beta * eta)
    enough = int(np.ceil(np.log(np.sqrt(1 + (beta / sigma) ** 2) - beta / sigma) / np.log(shrink)))
    assert np.all(bounds.moving_local_rate(beta, eta, sigma, np.arange(enough, enough + 500)) < 1)
    with pytest.raises(ValueError, match="every must be at least 1"):
        bounds.moving_local_rate(beta, eta, sigma, 0.5)


@pytest.mark.parametrize("x", [0.01, 0.3, 3.0])
def test_slow_frequencies_need_more_steps_the_shorter_they_are(x):
    """Theory 6.11 for small frequencies: attracts exactly if sinh(k log(1 + x)) > k x, x = beta eta."""
    beta, sigma = 0.2, 1e-4
    k = np.arange(1, 60)
    attracts = np.sinh(k * np.log1p(x)) > k * x
    attracts[0] = False  # equal in exact arithmetic
    factor = bounds.moving_local_rate(beta, x / beta, sigma, k)
    np.testing.assert_array_equal(factor < 1, attracts)
    if x == 0.01:
        assert abs(np.argmax(attracts) + 1 - np.sqrt(3 / x)) < 2


@given(games(beta=st.floats(0.05, 2.0)), st.integers(1, 60), st.integers(1, 5), st.floats(0.05, 1))
@settings(max_examples=40)
def test_the_average_of_renewed_references(game, every, rounds, share):
    """Theory 6.12 (1) and (2): the gap of the average and the divergence to a winner, the steps written out."""
    beta, log_ref = float(game.beta), np.asarray(game.log_ref)
    P = np.asarray(game.preference.matrix())
    L = float(bounds.interaction_constant(P))
    eta = share * min(100.0, float(bounds.wind_max_step(beta, L)))
    winner = np.exp(wg.equilibrium(game.replace(beta=0.0)).log_policy)
    played = winner > 1e-12
    a, gamma = 1 / (1 + beta * eta), eta / (1 + beta * eta)
    error = a**every / beta + gamma * L / (2 * beta) * sum(a ** (every - 1 - i + i / 2) for i in range(every))
    references = [log_ref]
    for _ in range(rounds):
        now = references[-1]
        for _ in range(every):
            now = normalise((now + beta * eta * references[-1] + eta * (P @ np.exp(now))) / (1 + beta * eta))
        references.append(now)
    for before, after in pairwise(references):
        assert winner[played] @ (before - after)[played] <= error + 1e-6
    gap = np.max(P @ np.mean(np.exp(references[1:]), axis=0)) - 0.5
    bound = bounds.moving_gap_bound(beta, eta, every, log_ref, rounds, L)
    assert gap <= bound + 1e-9
    assert bound == pytest.approx(beta * np.max(-log_ref) / rounds + (beta + 0.25) * error, rel=1e-6)


def test_the_average_of_renewed_references_in_its_limits():
    """Theory 6.12: many steps are the proximal point method; no bound beyond 5.2's step; tiny steps are no NaN."""
    log_ref = np.log([0.5, 0.5])
    many = bounds.moving_gap_bound(0.1, 0.4, 5000, log_ref, 10, 1.0)
    assert many == pytest.approx(bounds.proximal_gap_bound(0.1, log_ref, 10))
    assert bounds.moving_gap_bound(0.1, 0.41, 5000, log_ref, 10, 1.0) == np.inf
    tiny = bounds.moving_gap_bound(0.1, 1e-30, 7, log_ref, 10, 1.0)
    assert tiny == pytest.approx(bounds.proximal_gap_bound(0.1, log_ref, 10) + 0.35 / 0.1)
    with pytest.raises(ValueError, match="every must be at least 1"):
        bounds.moving_gap_bound(0.1, 0.4, 0.5, log_ref, 10)


# -- what it declares ------------------------------------------------------------------------------------------


def test_what_it_declares():
    rule = wg.moving_reference(wg.extragradient(), 5)
    game = wg.WinRateGame(wg.MatrixPreference(RPS), np.full(3, 1 / 3), 0.2)
    plan = rule.plan(game)
    assert (plan.fixed_point, plan.renew, plan.guarantee) == ("unregularised", {"magnet": 5}, None)
    assert {stage.ref for stage in plan.stages} == {"magnet"}
    assert wg.moving_reference(wg.wind(), 5, beta=1).plan(game.replace(beta=0.0)).fixed_point == "equilibrium"
    report = check_rule(rule, [g for g in example_games() if g.kind == "win-rate"])
    assert all("permutation" in line and "batch" in line for line in report)


def test_refusals():
    game = wg.WinRateGame(wg.MatrixPreference(RPS), np.full(3, 1 / 3), 0.2)
    with pytest.raises(ValueError, match="every must be an integer, at least 1"):
        wg.moving_reference(wg.wind(), 0)
    with pytest.raises(ValueError, match="rule must be a rule such as"):
        wg.moving_reference(wg.wind, 3)
    with pytest.raises(ValueError, match="SPPO does not tend to an equilibrium"):
        wg.moving_reference(wg.sppo(0.1), 3).plan(game)
    with pytest.raises(ValueError, match="needs a positive beta, but the game has beta = 0"):
        wg.moving_reference(wg.wind(), 3).plan(game.replace(beta=0.0))
    log_game = wg.LogWinRateGame(wg.RewardPreference([0.0, 1], ties="weak"), [0.5, 0.5], 2.0)
    with pytest.raises(ValueError, match="for win-rate games"):
        wg.moving_reference(wg.wind(), 3).plan(log_game)
    with pytest.raises(ValueError, match="reads slot 'magnet'"):
        wg.Plan((wg.Stage(0.1, 1.0, ref="magnet"),), {}, "none")


# -- learners ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("risk", ["squared", "kl"])
@pytest.mark.parametrize("make", ["table", "log-linear"])
def test_a_learner_that_sees_everything_takes_the_same_steps(make, risk, rng):
    P, ref = random_matrix("logistic", 4, rng), random_reference(4, rng)
    game = wg.WinRateGame(wg.MatrixPreference(P[None]), ref[None], 0.3)
    policy = Tabular(game.log_ref) if make == "table" else LogLinear(game.log_ref, np.eye(4)[None])
    rule = wg.moving_reference(wg.wind(1.0), 2)
    learner = Regression(rule, opponents="all", sampler="all", risk=risk)
    oracle = Oracle(game.preference, certain=True)
    learned = run(learner, game, oracle, rng, rounds=5, policy=policy, replicates=2)
    exact = by_hand(P, np.log(ref), 0.3, 1.0, 2, 5)[-1]
    fixed = by_hand(P, np.log(ref), 0.3, 1.0, 99, 5)[-1]
    np.testing.assert_allclose(learned.log_policy[:, 0], [exact, exact], atol=1e-3 if risk == "kl" else 1e-9)
    assert np.max(np.abs(exact - fixed)) > 0.02
