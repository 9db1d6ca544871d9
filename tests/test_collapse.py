"""Where theory 3.9 leaves one equilibrium, the reference on the top, that is what `equilibrium` returns and says."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import windgames as wg
from windgames.testing import rewards

WORDS = "only equilibrium (theory 3.9)"


def two_classes(beta, index):
    """Return the reference mass of the better of two responses at which theory 3.9's index is `index`."""
    factor = beta * (1 - beta) ** ((1 - beta) / beta) if beta < 1 else 1.0
    return 1 / (1 + index / factor)


@pytest.mark.parametrize("beta", [0.03, 0.3, 0.5, 0.7, 0.95, 1.0])
@pytest.mark.parametrize("below", [1e-11, 1e-8, 1e-4, 0.3])
@pytest.mark.parametrize("shape", [(1, 1), (3, 2)])
def test_just_below_the_threshold(beta, below, shape):
    """There best responses pass the ghost of an interior equilibrium so slowly that their residual vanishes."""
    top = two_classes(beta, 1 - below)
    low, high = shape
    ref = np.concatenate([np.full(low, (1 - top) / low), np.arange(1, high + 1) * top / (high * (high + 1) / 2)])
    game = wg.LogWinRateGame(wg.RewardPreference(np.repeat([0.0, 1.0], shape), ties="weak"), ref, beta)
    found = wg.equilibrium(game)
    assert found.converged
    np.testing.assert_array_equal(found.policy[:low], 0.0)
    np.testing.assert_allclose(found.policy[low:], ref[low:] / ref[low:].sum(), rtol=1e-14)
    assert WORDS in found.status
    assert "other equilibria may exist" not in found.status
    assert wg.equilibrium(game, start=game.log_ref).status == found.status


@pytest.mark.parametrize("beta", [0.3, 0.5, 0.7, 1.0])
@pytest.mark.parametrize("above", [1e-6, 1e-3, 1.0])
def test_above_the_threshold_of_two_classes_there_is_another_one(beta, above):
    """Theory 3.9, sharp: x/(1 - x) = K x^(1/beta) has a root, the larger of two nearest to the reference (3.10)."""
    if beta == 1 and above < 1:
        return  # the critical beta: best responses contract by 1 - above, and the status says so
    top = two_classes(beta, 1 + above)
    game = wg.LogWinRateGame(wg.RewardPreference([0.0, 1.0], ties="weak"), [1 - top, top], beta)
    found = wg.equilibrium(game, tol=1e-12)
    x = found.policy[0]
    assert x > 0
    np.testing.assert_allclose(np.log(x / (1 - x)), np.log((1 - top) / top) + np.log(x) / beta, atol=1e-9)
    assert WORDS not in found.status


def test_the_example_at_which_an_interior_policy_was_returned():
    t = 1 / (1 + 4 * (1 - 1e-11))
    found = wg.equilibrium(wg.LogWinRateGame(wg.RewardPreference([0.0, 1.0], ties="weak"), [1 - t, t], 0.5))
    np.testing.assert_array_equal(found.policy, [0.0, 1.0])


@settings(max_examples=12)
@given(rewards(6), st.floats(0.05, 1.0), st.integers(0, 10**6))
def test_many_classes(reward, beta, seed):
    """The index reads the top class only: below 1 nothing else is an equilibrium, and repeated responses agree."""
    rng = np.random.default_rng(seed)
    ref = rng.dirichlet(np.ones(len(reward)))
    ref = (ref + 1e-6) / (ref + 1e-6).sum()
    best = reward == np.max(reward)
    game = wg.LogWinRateGame(wg.RewardPreference(reward, ties="weak"), ref, beta)
    found = wg.equilibrium(game)
    index = wg.bounds.collapse_index(beta, min(ref[best].sum(), 1.0))
    open_question = bool(np.isinf(game.certificate_factor))  # with one class the contraction says it already
    assert (WORDS in found.status) == (index < 1 and open_question)
    if index < 0.9:
        policy = game.log_ref
        for _ in range(3000):
            policy = game.best_response(policy)
        np.testing.assert_allclose(np.exp(policy), found.policy, atol=1e-9)


def test_contexts_are_told_apart(rng):
    betas = np.array([0.2, 0.5, 0.9, 1.5, 0.0])
    tops = np.array([0.5, two_classes(0.5, 1 + 1e-3), two_classes(0.9, 1 - 1e-3), 0.1, 0.4])
    ref = np.stack([1 - tops, tops], axis=-1)
    game = wg.LogWinRateGame(wg.RewardPreference([0.0, 1.0], ties="weak"), ref, betas)
    found = wg.equilibrium(game)
    np.testing.assert_array_equal(found.policy[:, 0] == 0, [True, False, True, False, True])
    assert WORDS in found.status
    assert "other equilibria may exist" in found.status  # the second context
    grid = wg.equilibrium_path(wg.LogWinRateGame(game.preference, ref[0], 1.0), [0.2, 0.5, 0.9])
    np.testing.assert_array_equal(grid.policy[:, 0], 0.0)
    for preference, kind in (
        (wg.RewardPreference([0.0, 1.0]), "half ties"),
        (wg.MatrixPreference([[1, 0.1], [1, 1]]), ""),
    ):
        other = wg.equilibrium(wg.LogWinRateGame(preference, [0.5, 0.5], 0.5))
        assert WORDS not in other.status, kind
