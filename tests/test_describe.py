"""What `describe` says of a preference, against brute force over permutations, subsets and a least-squares solver."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import windgames as wg
from windgames.testing import matrices, preferences, rewards


def beats(P, i, j):
    return P[i, j] - P[j, i] > 4 * np.finfo(float).eps


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


@given(matrices(5))
def test_rank_and_schwartz_set_by_brute_force(P):
    """Undominated sets over all subsets; a better rank is never held against a response of a lower tier."""
    found, m = wg.describe(wg.MatrixPreference(P)), len(P)
    subsets = [set(s) for k in range(1, m + 1) for s in itertools.combinations(range(m), k)]
    undominated = [s for s in subsets if not any(beats(P, j, i) for i in s for j in set(range(m)) - s)]
    smallest = [s for s in undominated if not any(t < s for t in undominated)]
    assert set(found.schwartz_set) == set().union(*smallest)
    assert set(found.schwartz_set) <= set(found.top_cycle)
    # i stands before j wherever i reaches j by "beats or ties" and j does not reach i
    reach = np.array([[not beats(P, j, i) for j in range(m)] for i in range(m)])
    for k in range(m):
        reach |= reach[:, [k]] & reach[[k], :]
    for i, j in itertools.permutations(range(m), 2):
        if reach[i, j] and not reach[j, i]:
            assert found.rank[i] < found.rank[j]
        elif found.transitive and reach[i, j]:
            assert found.rank[i] == found.rank[j]
    assert set(np.flatnonzero(found.rank == 1)) <= set(found.top_cycle)
    assert np.all(found.group == 0)
    assert found.never_compared == 0


@st.composite
def sparse_counts(draw):
    """Counts of wins in which most pairs never met."""
    m = draw(st.integers(2, 7))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    wins = rng.integers(0, 4, (m, m)) * (rng.uniform(size=(m, m)) < draw(st.sampled_from([0.1, 0.3, 0.6])))
    np.fill_diagonal(wins, 0)
    return wins


@given(sparse_counts(), st.sampled_from([0.5, 1.0]))
def test_pairs_that_never_met_are_unknown(wins, prior):
    """Hodge by weighted least squares over the pairs that met, groups apart, and nobody winless above a winner."""
    m, met = len(wins), wins + wins.T > 0
    for p in (wg.Comparisons.from_counts(wins).empirical(prior), wg.from_counts(wins, prior)):
        found, P = wg.describe(p), p.matrix()
        assert found.never_compared == m * (m - 1) // 2 - met.sum() // 2
        reach = met | np.eye(m, dtype=bool)
        for k in range(m):
            reach |= reach[:, [k]] & reach[[k], :]
        np.testing.assert_array_equal(reach, found.group[:, None] == found.group[None, :])
        for i, j in itertools.permutations(range(m), 2):
            if reach[i, j] and wins[i].sum() and not wins[j].sum():
                assert found.rank[i] < found.rank[j]
        pairs = [(i, j) for i, j in itertools.combinations(range(m), 2) if met[i, j]]
        difference = found.differences()
        assert np.all(np.isnan(difference[~reach]))
        if not pairs or not np.any(wins != wins.T):
            assert found.reward_share is None
            continue
        weight = np.array([np.sqrt(wins[i, j] + wins[j, i]) for i, j in pairs])
        design = np.zeros((len(pairs), m))
        for row, (i, j) in enumerate(pairs):
            design[row, [i, j]] = 1, -1
        for odds, share in ((np.log(P / P.T), found.reward_share), (P - P.T, found.reward_share_linear)):
            flow = np.array([odds[i, j] for i, j in pairs])
            r = np.linalg.lstsq(weight[:, None] * design, weight * flow, rcond=None)[0]
            rest = np.sum((weight * (flow - design @ r)) ** 2)
            assert share == pytest.approx(1 - rest / np.sum((weight * flow) ** 2), abs=1e-9)
            if share is found.reward_share:
                known = reach & (reach.sum(axis=1) > 1)
                np.testing.assert_allclose(difference[known], (r[:, None] - r[None, :])[known], atol=1e-9)


def test_decided_pairs_have_no_potential():
    """A response that always lost is last, whoever it lost to, and has no potential; `to_frame` says so by name."""
    wins = [[0, 3, 2, 4], [2, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]  # 3 lost all games, to the best
    found = wg.describe(wg.Comparisons.from_counts(wins, names=list("abcd")).empirical(prior=1))
    np.testing.assert_array_equal(found.rank[[0, 3]], [1, 4])
    frame = found.to_frame()
    assert next(iter(frame.index)) == "a"
    assert list(frame.index)[-1] == "d"
    found = wg.describe(wg.MatrixPreference([[0.5, 0.6, 1], [0.4, 0.5, 1], [0, 0, 0.5]]))
    assert np.isnan(found.potential[2])
    assert found.potential[0] == pytest.approx(np.log(1.5) / 2)
    assert found.decided_pairs == 2
    np.testing.assert_array_equal(found.rank, [1, 2, 3])


def test_ties_are_the_same_at_beta_zero():
    """A margin of two roundings is a tie for both, one of sixteen is not: the winner moves with the description."""
    eps = np.finfo(float).eps
    for margin, decided in ((eps, False), (2 * eps, False), (16 * eps, True)):
        P = np.array([[0.5, 0.5 + margin / 2], [0.5 - margin / 2, 0.5]])
        p = wg.MatrixPreference(P)
        assert (wg.describe(p).condorcet_winner == 0) == decided
        policy = wg.equilibrium(wg.WinRateGame(p, [0.3, 0.7], 0.0)).policy
        np.testing.assert_allclose(policy, [1.0, 0.0] if decided else [0.3, 0.7], atol=1e-12)


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


@given(rewards(6), st.sampled_from([0.1, 1.0]), st.sampled_from([0.0, 1e-3, 0.3, 1.0]))
def test_bradley_terry_is_described_as_its_matrix(reward, scale, tol):
    """From the rewards alone, and where near ties make a chain."""
    p = wg.BradleyTerryPreference(reward, scale)
    fast, slow = wg.describe(p, tol), wg.describe(wg.MatrixPreference(p.matrix()), tol)
    for name in (f.name for f in dataclasses.fields(fast)):
        mine, its = getattr(fast, name), getattr(slow, name)
        if name in ("rank", "group", "component", "potential"):
            np.testing.assert_allclose(mine, its, atol=1e-9)
        elif name == "worst_error":
            assert max(mine, its) < 1e-15
        elif name.endswith(("share", "linear")) and mine is not None:
            assert mine == pytest.approx(its, abs=1e-9)
        elif name != "preference":
            assert mine == its, name


def test_describing_and_fitting_bradley_terry_makes_no_matrix(rng):
    """Of 30,000 items it would take 7 GB."""
    i, j = rng.integers(0, 30_000, (2, 200_000))
    p = wg.Comparisons.from_pairs(i[i != j], j[i != j], names=range(30_000)).bradley_terry(prior=1.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wg.BradleyTerryPreference, "_odds", None)
        fitted = wg.BradleyTerryPreference(p.reward[:2000])
        repr(fitted), repr(p), p.is_constant_sum
        assert wg.describe(fitted).potential == pytest.approx(p.reward[:2000] - p.reward[:2000].mean())


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
