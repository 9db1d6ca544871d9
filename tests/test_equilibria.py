"""Theory section 6: the solvers against independent computations, over the whole range of beta."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import windgames as wg
from windgames._array import hilbert
from windgames.equilibria.contexts import make_problem
from windgames.testing import MATRICES, betas, games, policies, random_matrix, random_reference, rewards


@given(rewards(12), betas(1e-3, 10), st.integers(0, 10**6))
def test_sorted_equals_dense(reward, beta, seed):
    """The bidiagonal Newton and the dense one on the same game."""
    ref = random_reference(len(reward), np.random.default_rng(seed))
    p = wg.RewardPreference(reward)
    fast = wg.equilibrium(wg.WinRateGame(p, ref, beta))
    slow = wg.equilibrium(wg.WinRateGame(wg.MatrixPreference(p.matrix()), ref, beta))
    assert fast.converged
    assert slow.converged
    assert hilbert(fast.log_policy, slow.log_policy) < 1e-10 * (1 + 1 / beta)


@given(rewards(12), st.sampled_from(["weak", "half"]), betas(1.001, 10), st.integers(0, 10**6))
def test_sorted_equals_dense_in_the_log_game(reward, ties, beta, seed):
    ref = random_reference(len(reward), np.random.default_rng(seed))
    p = wg.RewardPreference(reward, ties=ties)
    fast = wg.equilibrium(wg.LogWinRateGame(p, ref, beta))
    slow = wg.equilibrium(wg.LogWinRateGame(wg.MatrixPreference(p.matrix()), ref, beta))
    assert fast.converged
    assert slow.converged
    assert hilbert(fast.log_policy, slow.log_policy) < 1e-9 / (1 - 1 / beta)


@pytest.mark.parametrize("beta", [10, 1, 0.1, 0.01, 0.001])
@pytest.mark.parametrize("kind", MATRICES)
def test_every_kind_over_the_range_of_beta(kind, beta):
    """The residual itself is recomputed here, without the library."""
    rng = np.random.default_rng(5)
    for m in (1, 2, 10, 60):
        P, ref = random_matrix(kind, m, rng), random_reference(m, rng)
        found = wg.equilibrium(wg.WinRateGame(wg.MatrixPreference(P), ref, beta))
        assert found.converged.all(), found
        d = found.log_policy - np.log(ref) - P @ np.exp(found.log_policy) / beta
        assert d.max() - d.min() < 1e-10


@pytest.mark.parametrize("concentration", [0.02, 1.0])
def test_atoms_far_larger_than_beta(concentration):
    """Where the undamped bidiagonal Newton fails: m = 100, Dirichlet atoms, beta = 0.01 and below."""
    rng = np.random.default_rng(6)
    reward = rng.normal(size=(100, 100))
    ref = np.maximum(rng.dirichlet(np.full(100, concentration), 100), 1e-300)
    found = wg.equilibrium(wg.WinRateGame(wg.RewardPreference(reward), ref / ref.sum(-1, keepdims=True), [0.01] * 100))
    assert found.converged.all()
    found = wg.equilibrium(wg.WinRateGame(wg.RewardPreference(reward), ref / ref.sum(-1, keepdims=True), 0.0015))
    assert found.converged.all()


@given(games(min_responses=2) | games("log-win-rate", min_responses=2) | games("best-of-n", min_responses=2), st.data())
def test_newton_direction(game, data):
    """Theory 6.1 and 6.2: the step solves the linearised equation, checked by a central difference of the residual."""
    rows, beta = np.array([0]), np.array([game.beta])
    problem = make_problem(game, rows, beta)
    m = problem.log_ref.shape[1]
    z = np.atleast_2d(data.draw(policies(m)))
    u = problem.payoff(z, rows)
    r = problem.residual(z, u, beta, rows)
    dz = problem.direction(z, u, r, beta, rows)
    if not np.all(np.isfinite(dz)) or np.abs(dz).max() > 1e6:
        return
    size = 1e-5 / max(1.0, float(np.abs(dz).max()))

    def residual(x):
        return x - problem.log_ref - problem.payoff(x, rows) / beta[:, None]

    slope = (residual(z + size * dz) - residual(z - size * dz)) / (2 * size)
    error = slope + r
    error -= error.mean()
    assert np.abs(error).max() < 1e-4 * (1 + np.abs(r).max() + np.abs(dz).max() / game.beta)


@given(st.integers(1, 5), st.integers(1, 6), st.integers(0, 10**6), st.sampled_from(["sorted", "dense", "log"]))
def test_batch_equals_loop(contexts, m, seed, kind):
    rng = np.random.default_rng(seed)
    ref = np.stack([random_reference(m, rng) for _ in range(contexts)])
    beta = 10 ** rng.uniform(-3, 1, contexts)
    if kind == "dense":
        matrix = np.stack([random_matrix(rng.choice(MATRICES), m, rng) for _ in range(contexts)])
        make, game = wg.MatrixPreference, wg.WinRateGame
    else:
        matrix = rng.integers(0, 4, (contexts, m)).astype(float)
        make, game = wg.RewardPreference, wg.WinRateGame
        if kind == "log":
            beta, game = beta + 1.05, wg.LogWinRateGame
    together = wg.equilibrium(game(make(matrix), ref, beta))
    assert together.converged.shape == (contexts,)
    for i in range(contexts):
        alone = wg.equilibrium(game(make(matrix[i]), ref[i], beta[i]))
        assert alone.converged.shape == ()
        assert hilbert(together.log_policy[i], alone.log_policy) < 1e-9 * (1 + 1 / beta[i])


def test_mixed_betas_with_zero(rng):
    matrix, ref = random_matrix("cycle", 5, rng), rng.dirichlet(np.ones(5))
    found = wg.equilibrium(wg.WinRateGame(wg.MatrixPreference(matrix), ref, [0.0, 0.1, 1.0]))
    assert found.converged.all()
    for i, beta in enumerate([0.0, 0.1, 1.0]):
        alone = wg.equilibrium(wg.WinRateGame(wg.MatrixPreference(matrix), ref, beta))
        np.testing.assert_allclose(found.policy[i], alone.policy, atol=1e-12)


def test_reference_all_but_degenerate():
    ref = np.array([1.0, 1e-300, 1e-200, 1e-5])
    for preference in (
        wg.RewardPreference([0.0, 1, 2, 3]),
        wg.MatrixPreference(random_matrix("cycle", 4, np.random.default_rng(0))),
    ):
        for beta in (1.0, 0.1, 0.01):
            found = wg.equilibrium(wg.WinRateGame(preference, ref / ref.sum(), beta))
            assert found.converged, found


def test_one_million_responses():
    """Residual at most 1e-10 for beta from 10 to 0.001, without an m x m matrix."""
    rng = np.random.default_rng(1)
    m = 10**6
    preference, ref = wg.RewardPreference(rng.normal(size=m)), rng.dirichlet(np.ones(m))
    for beta in (10, 0.1, 0.001):
        found = wg.equilibrium(wg.WinRateGame(preference, ref, beta))
        assert found.residual <= 1e-10
    weak = wg.RewardPreference(preference.reward, ties="weak")
    assert wg.equilibrium(wg.LogWinRateGame(weak, ref, 1.5)).converged


def test_never_called_converged_without_proof(rng):
    """An impossible tolerance is reported as such."""
    game = wg.WinRateGame(wg.MatrixPreference(random_matrix("logistic", 50, rng)), rng.dirichlet(np.ones(50)), 0.001)
    found = wg.equilibrium(game, tol=1e-30)
    assert not found.converged
    assert "Not converged: residual" in found.status
    assert np.isfinite(found.policy).all()


def test_bimatrix_at_beta_zero_is_refused(rng):
    game = wg.LogWinRateGame(wg.MatrixPreference(rng.uniform(0.1, 1, (4, 4))), np.full(4, 0.25), 0.0)
    with pytest.raises(ValueError, match="bimatrix"):
        wg.equilibrium(game)


def test_solution_prints_for_people(rng):
    found = wg.equilibrium(wg.WinRateGame(wg.RewardPreference(rng.normal(size=(2, 5))), np.full(5, 0.2), 0.1))
    text = repr(found)
    for word in ("Converged", "2 of 2 contexts", "proven: KL(π‖π*) ≤", "5 of 5 responses", "Newton"):
        assert word in text
    assert found._repr_html_().startswith("<table>")


def test_at_beta_zero_what_is_shown_is_the_gap(rng):
    """There the best response is not a point, so there is no residual; and the systems of the central path count."""
    matrix = wg.MatrixPreference(random_matrix("cycle", 5, rng))
    zero = wg.equilibrium(wg.WinRateGame(matrix, np.full(5, 0.2), 0.0))
    assert "residual" not in repr(zero)
    assert "Converged: gap" in zero.status
    assert zero.steps > 0
    mixed = wg.equilibrium(wg.WinRateGame(matrix, rng.dirichlet(np.ones(5)), [0.0, 0.1]))
    assert "residual h" in repr(mixed)
    assert f"{mixed.residual[1]:.2e}" in repr(mixed)
    assert np.all(mixed.steps > 0)
    grid = wg.equilibrium_path(mixed.game.replace(beta=1.0), [0.0, 1.0])
    assert np.all(grid.steps > 0)


def test_a_condorcet_winner_takes_no_system(rng):
    order = rng.permutation(6)
    P = np.where(order[:, None] > order, 0.5 + 0.5 * rng.random((6, 6)), 0.5)
    P = np.where(order[:, None] < order, 1 - P.T, P)
    found = wg.equilibrium(wg.WinRateGame(wg.MatrixPreference(P), rng.dirichlet(np.ones(6)), 0.0))
    assert found.steps == 0
    np.testing.assert_array_equal(found.policy, order == 5)


@pytest.mark.parametrize("beta", [1e-5, 3e-6, 1e-6])
@pytest.mark.parametrize("kind", ["uniform", "logistic", "tournament", "cycle"])
def test_probabilities_are_proven_where_rounding_exceeds_the_default_tol(kind, beta, rng):
    """Theory 6.10: the proof is of 1e-12; linear equations for the winner, which is near, know as many digits."""
    for m in (3, 12):
        game = wg.WinRateGame(wg.MatrixPreference(random_matrix(kind, m, rng)), rng.dirichlet(np.ones(m)), beta)
        found = wg.equilibrium(game)
        assert found.converged, found
        if float(game.rounding(game.payoff(found.log_policy))) > 1e-10:
            assert "theory 6.10" in found.status
            assert not wg.equilibrium(game, tol=1e-10).converged


def test_what_converged_means(rng):
    """A tol that is named is kept, with the allowance for rounding, whatever the status of the default."""
    game = wg.WinRateGame(wg.MatrixPreference(random_matrix("logistic", 8, rng)), rng.dirichlet(np.ones(8)), 1e-4)
    found = wg.equilibrium(game)
    bound = float(found.residual + game.rounding(game.payoff(found.log_policy)))
    assert wg.equilibrium(game, tol=bound * 1.001).converged
    assert not wg.equilibrium(game, tol=bound * 0.999).converged


@pytest.mark.parametrize("beta", [0.2, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("margin", [1e-11, 1e-3, 0.5])
def test_below_the_collapse_threshold_the_top_is_returned(beta, margin, rng):
    """Theory 3.9: where the index is below one, however close, the reference on the top is the only equilibrium."""
    limit = 1 / (beta * ((1 - beta) ** ((1 - beta) / beta) if beta < 1 else 1.0))  # K at which the index is one
    top = 1 / (1 + limit * (1 - margin))
    for reward, ref in (
        ([0.0, 1.0], [1 - top, top]),
        ([1.0, 0.0, 1.0], [0.3 * top, 1 - top, 0.7 * top]),
        ([2.0, 0.0, 1.0], [top, 0.6 * (1 - top), 0.4 * (1 - top)]),
    ):
        game = wg.LogWinRateGame(wg.RewardPreference(reward, ties="weak"), ref, beta)
        found = wg.equilibrium(game)
        best = np.array(reward) == max(reward)
        np.testing.assert_allclose(found.policy, np.where(best, ref, 0) / top, rtol=1e-12)
        assert found.converged
        assert "only equilibrium (theory 3.9)" in found.status
        assert "other equilibria may exist" not in found.status
    above = 1 / (1 + limit * (1 + 1e-3))
    if beta < 1:
        several = wg.equilibrium(
            wg.LogWinRateGame(wg.RewardPreference([0.0, 1.0], ties="weak"), [1 - above, above], beta)
        )
        assert "other equilibria may exist" in several.status
