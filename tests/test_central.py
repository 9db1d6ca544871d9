"""The central path, winners, and systems that are solved by a few products (theory 6.7 and 2.6)."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog

import windgames as wg
from windgames import central, equilibria, winners
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
    x, t, _ = central.central_path(A[None] / scale, np.zeros((1, m)), np.zeros(1), np.array([winners.END]))
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
    x, t, _ = central.central_path(A[None], np.zeros((1, len(P))), np.zeros(1), np.array([winners.END]))
    _, alone = winners._face(A, x[0], t[0])
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
def test_a_few_products_are_the_newton_step(kind, beta, rng):
    """Against the matrix of theory 6.1, written out."""
    m = central.ITERATED
    P, q = random_matrix(kind, m, rng), rng.dirichlet(np.ones(m))
    game = wg.WinRateGame(wg.MatrixPreference(P), rng.dirichlet(np.ones(m)), beta)
    problem = equilibria.make_problem(game, np.arange(1), np.array([beta]))
    z, r = np.log(q)[None], rng.normal(size=(1, m))
    A = np.eye(m) - (np.eye(m) - q) @ (P * q) / beta
    dz = np.linalg.solve(A, -(r[0] - q @ r[0]))
    step = problem._few_products(z[0], r[0], beta, np.arange(1))
    assert step is not None
    assert np.abs(step - dz).max() <= equilibria.FORCING * np.ptp(r)
    exact = problem.system(z, problem.payoff(z, np.arange(1)), np.array([beta]), np.arange(1))
    np.testing.assert_allclose(exact(-r)[0], dz, atol=1e-9)
    np.testing.assert_allclose(exact(r, transposed=True)[0], _transposed(A, q, r[0]), atol=1e-9)


def _transposed(A, q, g):
    x = np.linalg.solve(A.T, g)
    return x - q * x.sum()


def test_hard_systems_are_factorised(rng):
    m = central.ITERATED
    P, q = random_matrix("tournament", m, rng), rng.dirichlet(np.ones(m))
    game = wg.WinRateGame(wg.MatrixPreference(P), rng.dirichlet(np.ones(m)), 1e-4)
    problem = equilibria.make_problem(game, np.arange(1), np.array([1e-4]))
    z, r = np.log(q)[None], rng.normal(size=(1, m))
    assert problem._few_products(z[0], r[0], 1e-4, np.arange(1)) is None
    A = np.eye(m) - (np.eye(m) - q) @ (P * q) / 1e-4
    dz = problem.direction(z, problem.payoff(z, np.arange(1)), r, np.array([1e-4]), np.arange(1))
    np.testing.assert_allclose(dz[0], np.linalg.solve(A, -(r[0] - q @ r[0])), atol=1e-7)


@pytest.mark.parametrize("m", [10, central.ITERATED])
@pytest.mark.parametrize("beta", [1.0, 1e-2, 1e-3, 1e-4])
@pytest.mark.parametrize("kind", ["logistic", "tournament", "cycle"])
def test_systems_hardly_depend_on_price_and_reference(m, beta, kind, rng):
    ref = np.exp(-60 * rng.random(m))
    found = wg.equilibrium(wg.WinRateGame(wg.MatrixPreference(random_matrix(kind, m, rng)), ref / ref.sum(), beta))
    assert found.converged
    assert found.steps <= 20
