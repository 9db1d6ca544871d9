"""What `describe` says of a preference, against brute force over permutations, subsets and a least-squares solver."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import windgames as wg
from windgames.testing import matrices, preferences, rewards


def beats(P, i, j):
    return P[i, j] - P[j, i] > 1e-9


@given(matrices(5))
def test_order_by_brute_force(P):
    """Transitivity over all triples, the winner over all pairs, the Smith set over all subsets."""
    found, m = wg.describe(wg.MatrixPreference(P)), len(P)
    weak = [[not beats(P, j, i) for j in range(m)] for i in range(m)]
    triples = itertools.product(range(m), repeat=3)
    assert found.transitive == all(weak[i][k] for i, j, k in triples if weak[i][j] and weak[j][k])
    winners = [i for i in range(m) if all(beats(P, i, j) for j in range(m) if j != i)]
    assert found.condorcet_winner == (winners[0] if winners else None)
    subsets = (set(s) for k in range(1, m + 1) for s in itertools.combinations(range(m), k))
    smith = next(s for s in subsets if all(beats(P, i, j) for i in s for j in set(range(m)) - s))
    assert set(found.top_cycle) == smith
    assert found.top_tied == (not any(beats(P, i, j) for i in smith for j in smith))
    ties = [
        (i, j)
        for i, j in itertools.combinations(range(m), 2)
        if not beats(P, i, j)
        and not beats(P, j, i)
        and any(beats(P, i, k) != beats(P, j, k) or beats(P, k, i) != beats(P, k, j) for k in range(m))
    ]
    assert found.inconsistent_ties == len(ties)


@given(st.integers(2, 6), st.integers(0, 10**6))
def test_hodge_shares_by_least_squares(m, seed):
    """The reward of the log-odds and the share it explains, against numpy's least squares over all pairs."""
    x = np.random.default_rng(seed).normal(size=(m, m))
    P = 1 / (1 + np.exp(-(x - x.T)))
    pairs = list(itertools.combinations(range(m), 2))
    design = np.zeros((len(pairs), m))
    for row, (i, j) in enumerate(pairs):
        design[row, [i, j]] = 1, -1
    for odds, share in (
        (np.log(P / P.T), "reward_share"),
        (P - P.T, "reward_share_linear"),
    ):
        flow = np.array([odds[i, j] for i, j in pairs])
        r = np.linalg.lstsq(design, flow, rcond=None)[0]
        explained = np.sum((design @ r) ** 2) / np.sum(flow**2)
        assert getattr(wg.describe(wg.MatrixPreference(P)), share) == pytest.approx(explained, rel=1e-9)
        if share == "reward_share":
            found = wg.describe(wg.MatrixPreference(P))
            np.testing.assert_allclose(found.potential, r - r.mean(), atol=1e-9)
            assert found.reward_share + found.cyclic_share == pytest.approx(1)


def test_bradley_terry_is_all_reward(rng):
    reward = rng.normal(size=6)
    found = wg.describe(wg.BradleyTerryPreference(reward, scale=0.5))
    assert found.reward_share == pytest.approx(1)
    np.testing.assert_allclose(found.potential, (reward - reward.mean()) / 0.5, atol=1e-9)


@given(rewards(6), st.sampled_from(["half", "weak", "strict"]))
def test_a_reward_is_described_as_its_matrix(reward, ties):
    """The shortcut through the order of the rewards against the general path."""
    p = wg.RewardPreference(reward, ties=ties)
    fast, slow = wg.describe(p), wg.describe(wg.MatrixPreference(p.matrix()))
    for name in ("constant_sum", "transitive", "condorcet_winner", "top_cycle", "top_tied", "inconsistent_ties"):
        assert getattr(fast, name) == getattr(slow, name), name
    for name in ("decided_pairs", "zero_rows", "worst_error", "reward_share"):
        assert getattr(fast, name) == getattr(slow, name), name
    assert (fast.reward_share_linear is None) == (slow.reward_share_linear is None)
    if fast.reward_share_linear is not None:
        assert fast.reward_share_linear == pytest.approx(slow.reward_share_linear)


@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 10**6))
def test_a_batch_is_its_contexts(m, contexts, seed):
    x = np.random.default_rng(seed).uniform(size=(contexts, m, m))
    together = wg.describe(wg.MatrixPreference(x))
    for i in range(contexts):
        alone = wg.describe(wg.MatrixPreference(x[i]))
        assert together.transitive[i] == alone.transitive
        assert together.top_cycle[i] == alone.top_cycle
        assert together.worst_entry[i] == (None if alone.worst_entry is None else (i, *alone.worst_entry))
        np.testing.assert_allclose(together.potential[i], alone.potential, atol=1e-12)


@given(preferences())
def test_it_speaks_for_every_preference(preference):
    found = wg.describe(preference)
    assert found.summary.endswith(".")
    assert "in short" in repr(found)
    # what the summary promises is what the games do
    if "no win-rate game" in found.summary:
        with pytest.raises(ValueError, match="constant-sum"):
            wg.WinRateGame(preference, np.full(preference.n_responses, 1 / preference.n_responses), 0.1)


def test_failure_signatures_are_named():
    """The paper's: slow convergence, no convergence, collapse, an ill-defined preference; each says what to change."""
    rock = wg.MatrixPreference([[0.5, 0, 1], [1, 0.5, 0], [0, 1, 0.5]])
    game = wg.WinRateGame(rock, [0.7, 0.2, 0.1], 0.05)
    slow = wg.solve(game, wg.wind(1e-3), max_steps=200).status
    assert "Slow" in slow
    assert "more steps" in slow
    wild = wg.solve(game, wg.wind(100.0), max_steps=200).status
    assert "No convergence" in wild
    assert "Lower eta" in wild
    weak = wg.RewardPreference([0.0, 1, 2], ties="weak")
    fallen = wg.LogWinRateGame.from_best_of_n(weak, [0.3, 0.3, 0.4], 4, 0.5)
    for steps in (8, 2000):  # on the way, and when nothing moves any more
        run = wg.solve(fallen, wg.iterative_bon(4, 0.5), max_steps=steps)
        assert run.converged == (steps == 2000)
        assert "Collapse" in run.status
        assert "Raise beta" in run.status
    assert "no win-rate game" in wg.describe(weak).summary


def test_bad_input():
    with pytest.raises(ValueError, match="windgames preference"):
        wg.describe(np.eye(3))
    for tol in (-1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="tol must be"):
            wg.describe(wg.RewardPreference([1.0, 2.0]), tol=tol)
