"""Grids of beta and warm starts: the same equilibria for fewer factorisations (theory 6.6)."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import windgames as wg
from windgames._array import hilbert, to_numpy
from windgames.testing import games, random_embedding, random_matrix, random_reference

GRID = np.geomspace(10, 1e-3, 20)


def alone(game, beta, **settings):
    return wg.equilibrium(game.replace(beta=float(beta)), **settings)


@pytest.mark.parametrize(
    ("kind", "concentration"),
    [("logistic", 1.0), ("uniform", 1.0), ("tournament", 1.0), ("uniform", 0.1), ("tournament", 0.1), ("cycle", 0.1)],
)
def test_a_grid_costs_less_than_each_beta_alone(kind, concentration, rng):
    """What counts is systems; with references that are not lopsided less than three times the hardest beta."""
    m = 200
    ref = np.maximum(rng.dirichlet(np.full(m, concentration)), 1e-30)
    game = wg.WinRateGame(wg.MatrixPreference(random_matrix(kind, m, rng)), ref / ref.sum(), 1.0)
    path = wg.equilibrium_path(game, GRID)
    assert path.converged.all()
    assert "on the path" in path.method
    one_by_one = [alone(game, beta) for beta in GRID]
    systems = [int(s.steps) for s in one_by_one]
    assert path.steps.sum() < 0.6 * sum(systems)
    if concentration == 1:
        assert path.steps.sum() < 3 * max(systems)
    for k, solution in enumerate(one_by_one):
        assert hilbert(path.log_policy[k], solution.log_policy) <= path.hilbert_certificate[k] + 1e-12 / GRID[k]


@given(
    games(min_responses=1) | games("log-win-rate") | games("best-of-n"),
    st.lists(st.floats(-3, 1).map(lambda x: 10**x), min_size=1, max_size=6),
    st.integers(0, 10),
)
def test_each_point_is_the_equilibrium_there(game, betas, again):
    """Any order, any repetition, any game; log games above beta = 1, where there is one."""
    if not isinstance(game, wg.WinRateGame):
        betas = [1.01 + beta for beta in betas]
    betas = [*betas, betas[again % len(betas)]]
    path = wg.equilibrium_path(game, betas)
    assert path.policy.shape == (len(betas), game.n_responses)
    assert np.all(path.game.beta == betas)
    assert path.converged.all(), path
    for k, beta in enumerate(betas):
        solution = alone(game, beta)
        slack = 1e-10 + 1e-13 / beta
        distance = hilbert(path.log_policy[k], solution.log_policy)
        assert distance <= path.hilbert_certificate[k] + solution.hilbert_certificate + slack


def test_far_apart_betas_need_no_neighbours(rng):
    game = wg.WinRateGame(wg.MatrixPreference(random_matrix("tournament", 60, rng)), random_reference(60, rng), 1.0)
    path = wg.equilibrium_path(game, [1e-3, 10.0])
    assert path.converged.all()
    assert hilbert(path.log_policy[0], alone(game, 1e-3).log_policy) < 1e-8


def test_repeated_betas_cost_nothing(rng):
    game = wg.WinRateGame(wg.MatrixPreference(random_matrix("uniform", 20, rng)), random_reference(20, rng), 1.0)
    path = wg.equilibrium_path(game, [0.1, 1.0, 0.1])
    assert path.steps[2] == 0 < path.steps[0]
    assert np.array_equal(path.log_policy[0], path.log_policy[2])


def test_a_solution_is_a_start(rng):
    game = wg.WinRateGame(wg.MatrixPreference(random_matrix("logistic", 30, rng)), rng.dirichlet(np.ones(30)), 0.1)
    there = wg.equilibrium(game)
    again = wg.equilibrium(game.replace(beta=0.099), start=there)
    assert again.converged
    assert again.steps < there.steps


def test_zero_in_the_grid_is_the_winner_nearest_to_the_reference(rng):
    game = wg.WinRateGame(wg.MatrixPreference(random_matrix("cycle", 5, rng)), rng.dirichlet(np.ones(5)), 1.0)
    path = wg.equilibrium_path(game, [0.0, 1.0, 1e-3, 0.0])
    assert path.converged.all()
    np.testing.assert_array_equal(path.log_policy[0], alone(game, 0).log_policy)
    np.testing.assert_array_equal(path.log_policy[0], path.log_policy[3])
    assert path.method.startswith("winners and ")
    only = wg.equilibrium_path(game, [0.0])
    np.testing.assert_array_equal(only.log_policy[0], path.log_policy[0])


@pytest.mark.parametrize("kind", ["dense", "shared", "low rank", "reward"])
def test_contexts_go_together(kind, rng):
    contexts, m = (2, 3), 6
    ref = rng.dirichlet(np.ones(m), contexts)
    if kind == "dense":
        preference = wg.MatrixPreference(
            np.stack([random_matrix("uniform", m, rng) for _ in range(6)]).reshape(2, 3, m, m)
        )
    elif kind == "shared":
        preference = wg.MatrixPreference(random_matrix("logistic", m, rng))
    elif kind == "low rank":
        preference = wg.LowRankPreference(*random_embedding(m, 3, rng))
    else:
        preference = wg.RewardPreference(rng.integers(0, 4, (3, m)))
    game = wg.WinRateGame(preference, ref, np.array([1.0, 2.0, 3.0]))  # its own beta is not used
    betas = [0.01, 5.0, 0.3]
    path = wg.equilibrium_path(game, betas)
    assert path.policy.shape == (3, 2, 3, m)
    assert path.converged.shape == path.steps.shape == (3, 2, 3)
    assert path.converged.all()
    for k, beta in enumerate(betas):
        assert np.all(hilbert(path.log_policy[k], alone(game, beta).log_policy) < 1e-9 * (1 + 1 / beta))


def test_log_games_below_contraction_are_those_of_equilibrium(rng):
    """No theorem makes them unique: each is what best responses reach from the reference, not from a neighbour."""
    for preference in (wg.RewardPreference([0.0, 1.0], ties="weak"), wg.MatrixPreference([[1.0, 0.0], [1.0, 1.0]])):
        game = wg.LogWinRateGame(preference, [0.99, 0.01], 1.0)
        betas = [2.0, 0.5, 0.45, 0.1]
        path = wg.equilibrium_path(game, betas)
        for k, beta in enumerate(betas):
            np.testing.assert_allclose(path.policy[k], alone(game, beta).policy, atol=1e-9)


def test_every_library(library):
    game = wg.WinRateGame(
        wg.MatrixPreference(library.asarray([[0.5, 0.9, 0.2], [0.1, 0.5, 0.7], [0.8, 0.3, 0.5]])),
        library.asarray([[0.5, 0.3, 0.2], [0.2, 0.2, 0.6]]),
        1.0,
    )
    path = wg.equilibrium_path(game, [1.0, 0.1])
    assert type(path.log_policy) is type(library.asarray([1.0]))
    found = wg.equilibrium(game, start=path.log_policy[0, ...])
    np.testing.assert_allclose(to_numpy(found.policy), to_numpy(path.policy[0, ...]), atol=1e-12)
    assert np.all(found.steps <= 2)


@given(games() | games("log-win-rate") | games("best-of-n"), st.integers(0, 10**6))
def test_any_start_gives_the_equilibrium(game, seed):
    rng = np.random.default_rng(seed)
    start = np.log(random_reference(game.n_responses, rng))
    found, cold = wg.equilibrium(game, start=start), wg.equilibrium(game)
    assert found.converged, found
    assert hilbert(found.log_policy, cold.log_policy) <= 1e-9 + found.hilbert_certificate + cold.hilbert_certificate


def test_a_start_saves_steps(rng):
    for preference in (
        wg.MatrixPreference(random_matrix("uniform", 100, rng)),
        wg.RewardPreference(rng.integers(0, 30, 100)),
        wg.LowRankPreference(*random_embedding(100, 4, rng)),
    ):
        game = wg.WinRateGame(preference, rng.dirichlet(np.ones(100)), 0.01)
        cold = wg.equilibrium(game)
        warm = wg.equilibrium(game.replace(beta=0.0101), start=cold.log_policy)
        assert warm.converged
        assert warm.steps < cold.steps or cold.steps == 2
        assert wg.equilibrium(game, start=cold.log_policy).steps <= 2


def test_a_start_in_single_precision(rng):
    """It is normalised to single precision only; the equilibrium is so to double."""
    game = wg.WinRateGame(wg.MatrixPreference(np.full((50, 50), 0.5)), np.full(50, 0.02), 0.1)
    found = wg.equilibrium(game, start=np.log(np.full(50, 0.02)).astype(np.float32))
    assert abs(found.policy.sum() - 1) < 1e-14


def test_a_start_without_full_support(rng):
    """The winner at beta = 0 leaves responses out, which the equilibrium must not."""
    for preference in (wg.RewardPreference([0.0, 1.0, 2.0, 2.0]), wg.MatrixPreference(random_matrix("cycle", 4, rng))):
        game = wg.WinRateGame(preference, [0.4, 0.3, 0.2, 0.1], 0.2)
        with np.errstate(divide="ignore"):
            found = wg.equilibrium(game, start=np.log([0.0, 0.0, 1.0, 0.0]))
        assert found.converged
        assert hilbert(found.log_policy, wg.equilibrium(game).log_policy) < 1e-10


def test_a_start_chooses_among_several_equilibria():
    """Theory 3.8: with the worse response at .99 both ends attract."""
    game = wg.LogWinRateGame(wg.RewardPreference([0.0, 1.0], ties="weak"), [0.99, 0.01], 0.5)
    low, high = (wg.equilibrium(game, start=np.log([x, 1 - x])) for x in (0.98, 0.001))
    assert low.policy[0] == pytest.approx((1 + np.sqrt(1 - 4 / 99)) / 2, abs=1e-8)
    assert high.policy[0] < 1e-8
    assert low.converged
    assert high.converged


@pytest.mark.parametrize(
    ("betas", "says"),
    [
        ([1.0, -0.1], r"betas\[1\] is -0.1"),
        ([np.nan], r"betas\[0\] is nan"),
        ([np.inf], r"betas\[0\] is inf"),
        ([], "list of numbers"),
        (0.1, "list of numbers"),
        ([[0.1]], "list of numbers"),
        (["a"], "real numbers"),
    ],
)
def test_bad_grids(betas, says):
    game = wg.WinRateGame(wg.RewardPreference([0.0, 1.0]), [0.5, 0.5], 1.0)
    with pytest.raises(ValueError, match=says):
        wg.equilibrium_path(game, betas)


def test_other_bad_input():
    game = wg.WinRateGame(wg.RewardPreference([0.0, 1.0]), [0.5, 0.5], 1.0)
    with pytest.raises(ValueError, match="windgames game"):
        wg.equilibrium_path("game", [1.0])
    with pytest.raises(ValueError, match="tol"):
        wg.equilibrium_path(game, [1.0], tol=0)
    with pytest.raises(ValueError, match="start must be normalised"):
        wg.equilibrium(game, start=[0.0, 0.0])
    with pytest.raises(ValueError, match="start must have shape"):
        wg.equilibrium(game, start=np.log([0.2, 0.3, 0.5]))


def test_an_impossible_tolerance_is_reported(rng):
    game = wg.WinRateGame(wg.MatrixPreference(random_matrix("logistic", 30, rng)), rng.dirichlet(np.ones(30)), 1.0)
    path = wg.equilibrium_path(game, [1.0, 0.01], tol=1e-30)
    assert not path.converged.any()
    assert "Not converged" in path.status
    assert np.isfinite(path.policy).all()
