"""Winners at beta = 0: pivoting, equal rows, projections on the winners (theory 2.6, 6.7, 6.9)."""

import numpy as np
import pytest
from exact_games import fractions_of, vertices
from hypothesis import given
from hypothesis import strategies as st

import windgames as wg
from windgames.equilibria.pivoting import only_winners
from windgames.testing import MATRICES, matrices, random_matrix


def skew(P):
    A = (P - P.swapaxes(-1, -2)) / 2
    return A / np.maximum(np.max(np.abs(A), axis=(-2, -1), keepdims=True), 1e-300)


@given(matrices(max_responses=5))
def test_pivoting_finds_what_exact_arithmetic_calls_the_only_winner(P):
    x, proven, _ = only_winners(skew(P)[None])
    winners = vertices(fractions_of(P))
    if proven[0]:
        assert len(winners) == 1
        np.testing.assert_allclose(x[0], [float(y) for y in winners[0]], atol=1e-13)


@pytest.mark.parametrize("m", [1, 2, 9, 30])
def test_pivoting_together_and_alone(m, rng):
    """Generic games have one winner, and pivoting proves it in nearly all of them."""
    A = skew(np.stack([random_matrix("uniform", m, rng) for _ in range(50)]))
    x, proven, pivots = only_winners(A)
    assert proven.mean() > 0.9
    assert np.all(pivots <= 4 * m + 10)
    for k in range(50):
        alone, alone_proven, _ = only_winners(A[[k]])
        assert alone_proven[0] == proven[k]
        np.testing.assert_allclose(alone[0], x[k], atol=1e-13)


@pytest.mark.parametrize("kind", sorted(MATRICES))
@pytest.mark.parametrize("copies", [2, 40])
def test_equal_rows_are_one_response(kind, copies, rng):
    """The masses of classes are those of the game of classes, and within a class the reference decides."""
    P = random_matrix(kind, 7, rng)
    label = rng.permutation(np.repeat(np.arange(7), copies))
    ref = np.exp(-30 * rng.random(len(label)))
    ref /= ref.sum()
    merged = np.bincount(label, ref)
    small = wg.equilibrium(wg.WinRateGame(wg.MatrixPreference(P), merged, 0.0))
    large = wg.equilibrium(wg.WinRateGame(wg.MatrixPreference(P[np.ix_(label, label)]), ref, 0.0))
    assert large.gap <= 1e-13
    np.testing.assert_allclose(large.policy, small.policy[label] * ref / merged[label], rtol=1e-7, atol=1e-14)


def test_thousands_of_duplicates_are_as_few_responses(rng):
    P = random_matrix("tournament", 9, rng)
    label = rng.integers(0, 9, 3000)
    found = wg.equilibrium(wg.WinRateGame(wg.MatrixPreference(P[np.ix_(label, label)]), np.full(3000, 1 / 3000), 0.0))
    assert found.gap <= 1e-13
    assert found.steps <= 40


def test_duplicates_in_some_contexts_only(rng):
    P = np.stack([random_matrix("uniform", 6, rng) for _ in range(4)])
    P[1] = P[1][np.ix_([0, 1, 2, 0, 1, 2], [0, 1, 2, 0, 1, 2])]
    ref = rng.dirichlet(np.ones(6), 4)
    together = wg.equilibrium(wg.WinRateGame(wg.MatrixPreference(P), ref, 0.0))
    for k in range(4):
        alone = wg.equilibrium(wg.WinRateGame(wg.MatrixPreference(P[k]), ref[k], 0.0))
        np.testing.assert_allclose(together.policy[k], alone.policy, atol=1e-13)
        assert together.steps[k] == alone.steps


@given(st.integers(0, 10**6), st.sampled_from([1.0, 20.0, 100.0, 600.0]))
def test_values_of_zero_a_half_and_one_with_lopsided_references(seed, spread):
    """Ten responses, many winners, masses down to 1e-260: nobody gains from the projection."""
    rng = np.random.default_rng(seed)
    m = int(rng.integers(3, 11))
    upper = np.triu(rng.integers(0, 3, (m, m)) / 2, 1)
    P = upper + np.tril(1 - upper.T, -1) + np.eye(m) / 2
    ref = np.exp(-spread * rng.random(m))
    found = wg.equilibrium(wg.WinRateGame(wg.MatrixPreference(P), ref / ref.sum(), 0.0))
    assert found.gap <= 1e-12


def test_tiny_masses_of_the_projection_are_right():
    """Two winners, a pure one and a cycle, and all on the line between: the projection on it by hand."""
    P = np.full((4, 4), 0.5)
    P[1, 2] = P[2, 3] = P[3, 1] = 1.0
    P[2, 1] = P[3, 2] = P[1, 3] = 0.0
    for spread in (5.0, 50.0, 300.0):
        ref = np.exp(-spread * np.array([0.0, 0.2, 1.0, 0.6]))
        found = wg.equilibrium(wg.WinRateGame(wg.MatrixPreference(P), ref / ref.sum(), 0.0))
        log_ref = np.log(ref / ref.sum())
        # the derivative by the share vanishes: log(s/3) - mean log ref = log(1 - s) - log ref_0
        logit = np.mean(log_ref[1:]) - log_ref[0] + np.log(3)
        share = 1 / (1 + np.exp(-logit))
        np.testing.assert_allclose(found.log_policy[1:], np.log(share / 3), rtol=1e-9)
