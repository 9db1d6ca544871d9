"""Theory section 3: operators, identities, contraction, collapse."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import windgames as wg
from windgames._array import hilbert, kl
from windgames.testing import betas, matrices, policies, random_reference, rewards

ns = st.floats(1, 20)


@given(rewards(4), st.integers(1, 4), st.data())
def test_exact_operator_by_enumeration(reward, n, data):
    """Theory 3.1: every n-tuple of draws, ties broken uniformly among the best draws."""
    log_pi = data.draw(policies(len(reward)))
    pi = np.exp(log_pi)
    law = np.zeros(len(reward))
    for draws in itertools.product(range(len(reward)), repeat=n):
        best = [y for y in draws if reward[y] == max(reward[d] for d in draws)]
        for y in best:
            law[y] += np.prod(pi[list(draws)]) / len(best)
    got = np.exp(wg.best_of_n(wg.RewardPreference(reward), log_pi, n))
    np.testing.assert_allclose(got, law, rtol=1e-10, atol=1e-14)


@given(rewards(), ns, ns, st.data())
def test_semigroup(reward, n, k, data):
    log_pi = data.draw(policies(len(reward)))
    p = wg.RewardPreference(reward)
    twice = wg.best_of_n(p, wg.best_of_n(p, log_pi, k), n)
    np.testing.assert_allclose(np.exp(twice), np.exp(wg.best_of_n(p, log_pi, n * k)), rtol=1e-8, atol=1e-12)


@given(rewards(), ns, st.data())
def test_kl_bound(reward, n, data):
    """Theory 3.4, also for real n and any atoms."""
    log_pi = data.draw(policies(len(reward)))
    spent = kl(wg.best_of_n(wg.RewardPreference(reward), log_pi, n), log_pi)
    assert spent <= wg.bounds.best_of_n_kl_bound(n) + 1e-9


@given(matrices(), st.data())
def test_best_of_two(matrix, data):
    """Theory 3.3: B_2 = 2 pi P pi is a policy, and equals the law of the winner of two draws, enumerated."""
    log_pi = data.draw(policies(len(matrix)))
    pi = np.exp(log_pi)
    law = np.zeros(len(pi))
    for i, j in itertools.product(range(len(pi)), repeat=2):
        law[i] += pi[i] * pi[j] * matrix[i, j]
        law[j] += pi[i] * pi[j] * matrix[j, i]
    p = wg.MatrixPreference(matrix)
    np.testing.assert_allclose(np.exp(wg.best_of_n(p, log_pi, 2)), law, atol=1e-12)
    np.testing.assert_allclose(law.sum(), 1)


def test_tournament_by_simulation(rng):
    """Theory 3.3: a knock-out of eight draws on an intransitive preference."""
    matrix = np.array([[0.5, 0.9, 0.1, 0.6], [0.1, 0.5, 0.8, 0.3], [0.9, 0.2, 0.5, 0.7], [0.4, 0.7, 0.3, 0.5]])
    pi = np.array([0.4, 0.3, 0.2, 0.1])
    players = rng.choice(4, size=(200_000, 8), p=pi)
    while players.shape[1] > 1:
        a, b = players[:, ::2], players[:, 1::2]
        players = np.where(rng.uniform(size=a.shape) < matrix[a, b], a, b)
    seen = np.bincount(players[:, 0], minlength=4) / len(players)
    np.testing.assert_allclose(np.exp(wg.tournament(wg.MatrixPreference(matrix), np.log(pi), 3)), seen, atol=0.005)


@given(rewards(), ns, st.data())
def test_power_form(reward, n, data):
    """Theory 3.2: pi (P_weak pi)^(n-1), whatever the preference's own ties."""
    log_pi = data.draw(policies(len(reward)))
    weak = (reward[:, None] >= reward) @ np.exp(log_pi)
    expected = np.exp(log_pi) * weak ** (n - 1)
    for ties in ("half", "weak"):
        got = wg.best_of_n(wg.RewardPreference(reward, ties=ties), log_pi, n, form="power")
        np.testing.assert_allclose(np.exp(got), expected / expected.sum(), rtol=1e-8, atol=1e-14)


def test_forms_agree_as_atoms_vanish(rng):
    gaps = []
    for m in (10, 100, 1000):
        p, log_pi = wg.RewardPreference(rng.normal(size=m)), np.log(rng.dirichlet(np.full(m, 5.0)))
        exact, power = (np.exp(wg.best_of_n(p, log_pi, 4, form=f)) for f in ("exact", "power"))
        gaps.append(np.abs(exact - power).sum())
    assert gaps[0] > 5 * gaps[1] > 25 * gaps[2]


@given(rewards(), betas(1.05, 10), st.integers(0, 10**6))
def test_two_draws_are_the_half_game(reward, beta, seed):
    """Theory 3.6: exact best of two solves the log-win-rate game with half ties; power form its weak game."""
    ref = random_reference(len(reward), np.random.default_rng(seed))
    exact = wg.equilibrium(wg.BestOfNGame(wg.RewardPreference(reward), ref, 2, beta))
    half = wg.equilibrium(wg.LogWinRateGame(wg.RewardPreference(reward, ties="half"), ref, beta))
    assert hilbert(exact.log_policy, half.log_policy) < 1e-7


@given(rewards(5), st.sampled_from([2.0, 3.0, 8.0]), st.floats(0.1, 0.9), st.floats(0, 1), st.integers(0, 10**6))
def test_iterating_reaches_the_equilibrium(reward, n, load, share, seed):
    """Theory 3.6 and 3.7: below n a1 + a2 = 1 the iteration converges to the implied game's equilibrium."""
    a1 = load * share / n + 1e-3
    a2 = load * (1 - share)
    if n * a1 + a2 > 0.95:
        return
    ref = random_reference(len(reward), np.random.default_rng(seed))
    weak = wg.RewardPreference(reward, ties="weak")
    for kind in (wg.LogWinRateGame, wg.BestOfNGame):
        game = kind.from_best_of_n(weak, ref, n, a1, a2)
        star = wg.equilibrium(game)
        run = wg.solve(game, wg.iterative_bon(n, a1, a2), reference_solution=star, max_steps=2000, tol=1e-9)
        assert star.converged
        assert run.converged
        assert np.all(run.trace.hilbert_to_solution <= run.trace.bound * (1 + 1e-9) + 1e-8)


# -- collapse ----------------------------------------------------------------------------------------------


def test_bistable_example():
    """Theory 3.8: rho = (.99, .01), beta = 1/2 has an interior equilibrium and the boundary one."""
    game = wg.LogWinRateGame(wg.RewardPreference([0.0, 1.0], ties="weak"), [0.99, 0.01], 0.5)
    interior = wg.equilibrium(game)
    assert interior.converged
    assert interior.policy[0] == pytest.approx(0.98979, abs=1e-5)
    # by hand: x = c .99 x^2, 1 - x = c .01
    roots = np.roots([0.99, -0.99, 0.01])
    assert interior.policy[0] == pytest.approx(roots.max(), rel=1e-12)
    boundary = np.array([-np.inf, 0.0])
    assert game.residual(boundary) == 0
    assert "other equilibria may exist" in interior.status
    for n, a1 in ((2, 2 / 3), (4, 0.4)):
        run = wg.solve(game, wg.iterative_bon(n, a1), max_steps=20_000)
        assert hilbert(run.log_policy, interior.log_policy) < 1e-8
        start = np.log([0.005, 0.995])  # below the unstable root at 0.0102
        fallen = wg.solve(game, wg.iterative_bon(n, a1), max_steps=200, start=start)
        assert fallen.policy[1] > 1 - 1e-12


@given(st.floats(0.02, 0.98), st.floats(0.001, 0.999))
def test_collapse_threshold_is_sharp_for_two(beta, top):
    """Theory 3.9: an interior equilibrium exists exactly where the index is at least 1 (found by a grid search)."""
    index = wg.bounds.collapse_index(beta, top)
    if abs(index - 1) < 1e-2:
        return
    found = wg.equilibrium(wg.LogWinRateGame(wg.RewardPreference([0.0, 1.0], ties="weak"), [1 - top, top], beta))
    # x^(1 - 1/beta) (1 - x) = (1 - top)/top has a root iff max over x of log x^(s) (1 - x) reaches it
    x = 1 / (1 + np.exp(-np.linspace(-30, 30, 200_001)))
    s = 1 / beta - 1
    exists = np.max(s * np.log(x) + np.log1p(-x)) >= -np.log((1 - top) / top)
    assert exists == (index >= 1)
    assert (found.policy[0] > 0) == exists
    assert found.converged


@settings(max_examples=10)
@given(rewards(6, 2), betas(0.05, 0.999), st.integers(0, 10**6))
def test_collapse_is_certain_below_the_threshold(reward, beta, seed):
    """Theory 3.9 for any number of responses: from random starts no iteration ends elsewhere than at the top."""
    rng = np.random.default_rng(seed)
    top = reward == reward.max()
    ref = random_reference(len(reward), rng)
    if wg.bounds.collapse_index(beta, ref[top].sum()) >= 0.9:
        ref = np.where(top, 0.97, 0.03)
        ref = ref / ref.sum()
    if wg.bounds.collapse_index(beta, ref[top].sum()) >= 0.9:
        return
    game = wg.LogWinRateGame(wg.RewardPreference(reward, ties="weak"), ref, beta)
    found = wg.equilibrium(game)
    assert found.converged
    assert np.exp(found.log_policy[top]).sum() == pytest.approx(1)
    log_pi = np.log(rng.dirichlet(np.ones(len(reward))) + 1e-9)
    log_pi -= np.log(np.exp(log_pi).sum())
    for _ in range(3000):
        log_pi = game.best_response(log_pi)
    assert np.exp(log_pi[top]).sum() > 0.999


@settings(max_examples=10)
@given(rewards(5), betas(0.1, 3), st.integers(0, 10**6))
def test_the_nearest_equilibrium_does_not_depend_on_n(reward, beta, seed):
    """Theory 3.10: from the reference every (n, a1, a2) of equal beta leads to what `equilibrium` returns."""
    ref = random_reference(len(reward), np.random.default_rng(seed))
    game = wg.LogWinRateGame(wg.RewardPreference(reward, ties="weak"), ref, beta)
    found = wg.equilibrium(game)
    assert found.converged or abs(beta - 1) < 0.01  # at the critical beta the iteration is slower than geometric
    for n in (1.5, 4.0):
        a1 = 1 / (1 + beta * (n - 1)) * 0.8
        a2 = 1 - a1 - beta * (n - 1) * a1
        rule = wg.iterative_bon(n, a1, a2)
        run = wg.solve(game, rule, max_steps=500, tol=1e-9)
        if run.converged:
            assert np.max(np.abs(run.policy - found.policy)) < 1e-5
        # monotone: the iterates never pass it in the likelihood-ratio order
        order = np.argsort(reward, kind="stable")
        with np.errstate(invalid="ignore"):
            ratio = np.diff((found.log_policy - run.log_policy)[order])
        assert np.all((ratio > -1e-6) | np.isnan(ratio))


def test_atomless_limit():
    """Theory 3.11: a fine discretisation ends at best of beta/(beta - 1)."""
    m, beta = 20_000, 1.5
    game = wg.LogWinRateGame(wg.RewardPreference(np.arange(m), ties="weak"), np.full(m, 1 / m), beta)
    F = np.cumsum(wg.equilibrium(game).policy)
    u = np.arange(1, m + 1) / m
    np.testing.assert_allclose(F, wg.continuum.LogWinRate(beta).cdf(u), atol=5e-4)
    half = wg.WinRateGame(wg.RewardPreference(np.arange(m)), np.full(m, 1 / m), 0.2)
    F = np.cumsum(wg.equilibrium(half).policy)
    np.testing.assert_allclose(F, wg.continuum.WinRate(0.2).cdf(u), atol=1e-7)
