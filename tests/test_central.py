"""The central path, winners, and systems that are solved by a few products (theory 6.7 and 2.6)."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog

import windgames as wg
from windgames.equilibria import central_path as central
from windgames.equilibria import dense, winners
from windgames.equilibria.contexts import make_problem
from windgames.equilibria.problems import PAYOFF_ROUNDING
from windgames.testing import MATRICES, matrices, random_matrix


def skew(P):
    return (P - P.T) / 2


@given(matrices(), st.floats(-4, 1), st.floats(-8, -1), st.integers(0, 2**32 - 1))
def test_the_gap_on_the_path_is_at_most_the_sum_of_products(P, log_beta, log_stop, seed):
    m, beta = len(P), 10.0**log_beta
    ref = np.maximum(np.random.default_rng(seed).dirichlet(np.full(m, 0.3)), 1e-30)
    game = wg.WinRateGame(wg.MatrixPreference(P), ref / ref.sum(), beta)
    x, t, systems = central.central_path(
        (P - 0.5)[None], game.log_ref[None], np.array([beta]), np.array([beta * 10.0**log_stop])
    )
    assert np.sum(x * t) <= beta * 10.0**log_stop
    assert np.all(x > 0)
    assert np.all(t > 0)
    assert x.sum() == pytest.approx(1, abs=1e-12)
    # how far from the path: there v - Ax + beta log(x/ref) - t is the same for all
    off = np.ptp(t[0] + (P - 0.5) @ x[0] - beta * (np.log(x[0]) - game.log_ref))
    assert float(game.measure(np.log(x[0]))["gap"]) <= np.sum(x * t) + off + 1e-12
    assert systems[0] <= 25


@given(matrices())
def test_without_price_it_ends_in_the_largest_support(P):
    """The support is the union of those of all winners: one linear program for each response."""
    A, m = skew(P), len(P)
    scale = max(np.abs(A).max(), 1e-300)
    x, t, _ = central.central_path(A[None] / scale, np.zeros((1, m)), np.zeros(1), np.array([winners.EARLY_END]))
    most = np.array(
        [
            -linprog(-np.eye(m)[i], A_ub=A / scale, b_ub=np.zeros(m), A_eq=np.ones((1, m)), b_eq=[1.0]).fun
            for i in range(m)
        ]
    )
    np.testing.assert_array_equal(x[0] > t[0], most > 1e-6)
    assert np.all(x[0] >= most / m - 1e-6)  # theory 6.7 (2), as far as the program's tolerance knows


@given(matrices(), st.integers(0, 2**32 - 1))
def test_the_only_winner_is_found_whatever_the_reference(P, seed):
    """Where the winner is unique references cannot matter, and no digit is lost to a dual."""
    refs = np.random.default_rng(seed).dirichlet(np.ones(len(P)), 3) + 1e-12
    A = skew(P) / max(np.abs(skew(P)).max(), 1e-300)
    x, t, _ = central.central_path(A[None], np.zeros((1, len(P))), np.zeros(1), np.array([winners.EARLY_END]))
    alone = winners._face(A, x[0], t[0]).log_policy
    found = wg.equilibrium(wg.WinRateGame(wg.MatrixPreference(P), refs / refs.sum(axis=-1, keepdims=True), 0.0))
    assert np.all(found.gap <= 1e-14)
    if alone is not None:
        np.testing.assert_array_equal(found.policy[0], found.policy[1])
        program = linprog(np.zeros(len(P)), A_ub=A, b_ub=np.zeros(len(P)), A_eq=np.ones((1, len(P))), b_eq=[1.0])
        np.testing.assert_allclose(found.policy[0], program.x, atol=1e-5)


def test_payoffs_that_nearly_tie(rng):
    """A linear program solver's own tolerance would swallow them, or call the program infeasible."""
    for kind in sorted(MATRICES):
        P = 0.5 + (random_matrix(kind, 25, rng) - 0.5) * 1e-5
        ref = np.exp(-60 * rng.random(len(P)))
        found = wg.equilibrium(wg.WinRateGame(wg.MatrixPreference(P), ref / ref.sum(), 0.0))
        assert found.gap <= 1e-15


@pytest.mark.parametrize("beta", [10.0, 0.3, 0.03, 0.02])
@pytest.mark.parametrize("kind", ["logistic", "tournament"])
def test_a_cg_step_are_the_newton_step(kind, beta, rng):
    """Against the matrix of theory 6.1, written out."""
    m = central.CG_FROM
    P, q = random_matrix(kind, m, rng), rng.dirichlet(np.ones(m))
    game = wg.WinRateGame(wg.MatrixPreference(P), rng.dirichlet(np.ones(m)), beta)
    problem = make_problem(game, np.arange(1), np.array([beta]))
    z, r = np.log(q)[None], rng.normal(size=(1, m))
    A = np.eye(m) - (np.eye(m) - q) @ (P * q) / beta
    dz = np.linalg.solve(A, -(r[0] - q @ r[0]))
    step = problem._cg_step(z[0], r[0], beta, np.arange(1))
    assert step is not None
    assert np.abs(step - dz).max() <= dense.CG_TOLERANCE * np.ptp(r)
    exact = problem.system(z, problem.payoff(z, np.arange(1)), np.array([beta]), np.arange(1))
    np.testing.assert_allclose(exact(-r)[0], dz, atol=1e-9)
    np.testing.assert_allclose(exact(r, transposed=True)[0], _transposed(A, q, r[0]), atol=1e-9)


def _transposed(A, q, g):
    x = np.linalg.solve(A.T, g)
    return x - q * x.sum()


def test_hard_systems_are_factorised(rng):
    m = central.CG_FROM
    P, q = random_matrix("tournament", m, rng), rng.dirichlet(np.ones(m))
    game = wg.WinRateGame(wg.MatrixPreference(P), rng.dirichlet(np.ones(m)), 1e-4)
    problem = make_problem(game, np.arange(1), np.array([1e-4]))
    z, r = np.log(q)[None], rng.normal(size=(1, m))
    assert problem._cg_step(z[0], r[0], 1e-4, np.arange(1)) is None
    A = np.eye(m) - (np.eye(m) - q) @ (P * q) / 1e-4
    dz = problem.direction(z, problem.payoff(z, np.arange(1)), r, np.array([1e-4]), np.arange(1))
    np.testing.assert_allclose(dz[0], np.linalg.solve(A, -(r[0] - q @ r[0])), atol=1e-7)


@pytest.mark.parametrize("m", [10, central.CG_FROM])
@pytest.mark.parametrize("beta", [1.0, 1e-2, 1e-3, 1e-4])
@pytest.mark.parametrize("kind", ["logistic", "tournament", "cycle"])
def test_systems_hardly_depend_on_price_and_reference(m, beta, kind, rng):
    ref = np.exp(-60 * rng.random(m))
    found = wg.equilibrium(wg.WinRateGame(wg.MatrixPreference(random_matrix(kind, m, rng)), ref / ref.sum(), beta))
    assert found.converged
    assert found.steps <= 20


@pytest.mark.parametrize("e", [1e-6, 1e-8, 1e-10, 1e-12])
def test_winners_among_payoffs_of_very_different_size(e):
    """One winner each, with a tiny share or tiny payoffs: both were once mistaken for others within tolerances."""
    share = np.array([[0, e, -0.5], [-e, 0, 0.5], [0.5, -0.5, 0]])
    payoffs = np.array([[0, e, -0.5], [-e, 0, e], [0.5, -e, 0]])
    for A, winner in ((share, [0.5, 0.5, e]), (payoffs, [2 * e, 1, 2 * e])):
        found = wg.equilibrium(wg.WinRateGame(wg.MatrixPreference(0.5 + A), [1 / 3] * 3, 0.0))
        assert found.converged
        np.testing.assert_allclose(found.policy, np.array(winner) / sum(winner), rtol=1e-3)


@pytest.mark.parametrize("rank", [2, 4])
def test_low_rank_matrices_in_single_precision(rank, rng):
    """The kernel is there to seven digits only: whatever is called the support, nobody gains, and nothing is raised."""
    for m in (5, 20, 50):
        E, J = rng.normal(size=(m, rank)), np.triu(rng.normal(size=(rank, rank)), 1)
        A = E @ (J - J.T) @ E.T
        P = (0.5 + A / (2 * np.abs(A).max())).astype(np.float32)
        found = wg.equilibrium(wg.WinRateGame(wg.MatrixPreference(P), np.full(m, 1 / m, dtype=np.float32), 0.0))
        assert found.gap <= 1e-10


def test_several_winners_and_a_lopsided_reference(rng):
    """The projection's condition: no winner is nearer in the direction of any other (a linear program)."""
    m = 60
    A = np.zeros((m, m))
    for k in range(0, m, 3):
        A[k : k + 3, k : k + 3] = skew(random_matrix("uniform", 3, rng))
    ref = np.exp(-600 * rng.random(m))
    found = wg.equilibrium(wg.WinRateGame(wg.MatrixPreference(0.5 + A), ref / ref.sum(), 0.0))
    assert found.converged
    pi, slope = found.policy, np.where(found.policy > 0, found.log_policy - np.log(ref / ref.sum()), 0.0)
    inside = np.flatnonzero(pi)
    other = linprog(
        slope[inside], A_ub=A[:, inside], b_ub=np.zeros(m), A_eq=np.ones((1, len(inside))), b_eq=[1.0]
    )  # the support of the projection is that of all winners
    assert other.fun >= slope @ pi - 1e-6 * np.abs(slope).max()


@pytest.mark.parametrize("beta", [1e-6, 1e-7, 1e-8])
def test_beyond_double_precision_the_search_ends_and_says_so(beta, rng):
    """Log-probabilities of size 1/beta are known to eps/beta; the tol that is named can be met."""
    P = random_matrix("uniform", 5, rng)
    game = wg.WinRateGame(wg.MatrixPreference(P), rng.dirichlet(np.ones(5)), beta)
    found = wg.equilibrium(game, tol=1e-10)
    assert not found.converged
    assert found.residual <= PAYOFF_ROUNDING / beta
    assert found.steps <= 40
    tol = float(re.search(r"rounding of double precision: tol=(\S+) can be met", found.status)[1])
    assert wg.equilibrium(game, tol=tol).converged
    ties = wg.equilibrium(wg.WinRateGame(wg.MatrixPreference(np.full((3, 3), 0.5)), [0.2, 0.3, 0.5], beta), tol=1e-10)
    assert not ties.converged


@pytest.mark.parametrize(("beta", "seed"), [(1.3e-6, 28), (2e-6, 101), (1e-6, 102), (4e-6, 103), (8e-7, 104)])
def test_tournaments_of_hundreds_at_tiny_beta(beta, seed):
    """References whose masses fall to 1e-300: a central path that ends early leaves Newton's method too far away."""
    rng = np.random.default_rng(seed)
    m = int(rng.choice([100, 150, 200, 250, 300, 350, 400]))
    ref = rng.dirichlet(np.full(m, 0.1)) + 1e-300
    W = np.triu(rng.random((m, m)) < 0.5, 1)
    P = W + np.tril(1 - W.T, -1) + 0.5 * np.eye(m)
    found = wg.equilibrium(wg.WinRateGame(wg.MatrixPreference(P), ref / ref.sum(), beta), tol=1e-6)
    assert found.converged
    assert found.steps <= 30
