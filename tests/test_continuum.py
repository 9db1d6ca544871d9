"""Theory 3.11: the closed forms against mpmath, quadrature and fine discretisation."""

from __future__ import annotations

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm

from windgames.continuum import BestOfN, LogWinRate, WinRate, frontier, largest_win_rate

mp.mp.dps = 60
SETTINGS = settings(deadline=None, max_examples=40)
log_beta = st.floats(-6, 6)
unit = st.floats(0, 1)


def close(value: float, exact: mp.mpf, rel: float = 5e-13) -> None:
    assert abs(mp.mpf(float(value)) - exact) <= rel * abs(exact) + mp.mpf(10) ** -300, (value, exact)


@SETTINGS
@given(log_beta, st.floats(1e-6, 1))
def test_win_rate_against_mpmath(power: float, u: float) -> None:
    policy = WinRate(10.0**power)
    beta, x = mp.mpf(policy.beta), mp.mpf(u)
    c = -mp.expm1(-1 / beta)
    close(policy.win_rate(), 1 / c - beta)
    close(policy.kl(), mp.log(beta * c) + 1 / (2 * beta))
    rest = (1 - x) + x * mp.exp(-1 / beta)  # 1 - c x, which is below the precision where x is 1 and beta small
    close(policy.cdf(u), -beta * mp.log(rest))
    close(policy.quantile(u), -mp.expm1(-x / beta) / c)
    density = beta * c / rest
    if density < 1e300:
        # the argument 1/beta of the exponential carries its own rounding
        close(policy.density(u), density, rel=1e-12 + 1e-15 / policy.beta)


@SETTINGS
@given(log_beta, st.floats(1e-6, 1))
def test_powers_against_mpmath(power: float, u: float) -> None:
    log_game, best = LogWinRate(1 + 10.0**power), BestOfN(1 + 10.0**power)
    beta, n, x = mp.mpf(log_game.beta), mp.mpf(best.n), mp.mpf(u)
    close(log_game.win_rate(), beta / (2 * beta - 1))
    close(log_game.kl(), -mp.log(1 - 1 / beta) - 1 / beta)
    close(log_game.quantile(u), x ** (1 - 1 / beta))
    close(best.win_rate(), n / (n + 1))
    close(best.kl(), mp.log(n) - (n - 1) / n)
    close(best.quantile(u), x ** (1 / n))
    for policy, k in ((log_game, beta / (beta - 1)), (best, n)):
        if -k * mp.log(x) < 600:
            close(policy.cdf(u), x**k, rel=1e-12)
            close(policy.density(u), k * x ** (k - 1), rel=1e-12)


def policies(beta: float) -> list:
    return [WinRate(beta), LogWinRate(1 + beta), BestOfN(1 + 3 * beta)]


@settings(deadline=None, max_examples=15)
@given(st.floats(0.05, 20))
def test_numbers_are_integrals_of_the_density(beta: float) -> None:
    for policy in policies(beta):
        assert quad(policy.density, 0, 1)[0] == pytest.approx(1, abs=1e-7)
        assert quad(lambda u, p=policy: u * p.density(u), 0, 1)[0] == pytest.approx(policy.win_rate(), abs=1e-7)
        kl = quad(lambda u, p=policy: p.density(u) * np.log(p.density(u)) if u > 0 else 0.0, 0, 1)[0]
        assert kl == pytest.approx(policy.kl(), abs=1e-6)
        assert policy.expected_reward(lambda u: u) == pytest.approx(policy.win_rate(), abs=1e-9)
        assert policy.cdf(0.0) == 0
        assert policy.cdf(1.0) == pytest.approx(1, abs=1e-14)


@SETTINGS
@given(st.floats(0.02, 50), unit)
def test_quantile_inverts_cdf(beta: float, q: float) -> None:
    for policy in policies(beta):
        u = policy.quantile(q)
        assert 0 <= u <= 1
        # near u = 1 the cdf may be steep: the rounding of u is then what is seen
        slack = 1e-12 + 4e-16 * policy.density(max(u, 1e-3))
        assert policy.cdf(u) == pytest.approx(q, abs=slack)


@pytest.mark.parametrize("beta", [0.05, 0.5, 3.0])
def test_equilibrium_equations(beta: float) -> None:
    """The density is the best response to its own cdf; that is what makes it an equilibrium."""
    u = np.linspace(0.05, 1, 60)
    game = WinRate(beta)
    assert np.ptp(np.log(game.density(u)) - game.cdf(u) / beta) < 1e-12
    log_game = LogWinRate(1 + beta)
    assert np.ptp(np.log(log_game.density(u)) - np.log(log_game.cdf(u)) / (1 + beta)) < 1e-10


def test_fine_discretisation() -> None:
    """Both games on m equal atoms, solved by damped fixed-point iteration, approach the continuum as 1/m."""
    errors = []
    for m in (200, 800):
        p = np.full(m, 1 / m)
        q = np.full(m, 1 / m)
        for _ in range(400):
            below = np.cumsum(p) - p
            new = np.exp((below + p / 2) / 0.5)
            p = 0.5 * p + 0.5 * new / new.sum()
            new = np.cumsum(q) ** (1 / 2.0)
            q = new / new.sum()
        grid = np.arange(1, m + 1) / m
        errors.append(
            (
                np.max(np.abs(np.cumsum(p) - WinRate(0.5).cdf(grid))),
                np.max(np.abs(np.cumsum(q) - LogWinRate(2.0).cdf(grid))),
            )
        )
    assert errors[0][0] < 1e-4
    assert errors[1][0] < errors[0][0] / 8
    assert errors[0][1] < 1e-2
    assert errors[1][1] < errors[0][1] / 3


@pytest.mark.parametrize(("n", "a1", "a2"), [(3, 0.2, 0.0), (2, 0.3, 0.3), (4, 0.1, 0.5), (2, 0.5, 0.1)])
def test_mixing_recursion(n: float, a1: float, a2: float) -> None:
    """Iterative best-of-n on densities is best of N_t, N_t the linear recursion, and N_t tends to n_eff."""
    u, size = np.linspace(0.1, 1, 50), 1.0
    for _ in range(4):
        log_mix = a1 * np.log(BestOfN(n * size).density(u)) + a2 * np.log(BestOfN(size).density(u))
        size = (n * a1 + a2) * size + 1 - a1 - a2
        assert np.ptp(log_mix - np.log(BestOfN(size).density(u))) < 1e-12
    beta = (1 - a1 - a2) / ((n - 1) * a1)
    for _ in range(3000 if n * a1 + a2 < 1 else 0):
        size = (n * a1 + a2) * size + 1 - a1 - a2
    if n * a1 + a2 < 1:
        assert size == pytest.approx(LogWinRate(beta).n_eff, rel=1e-9)
    else:
        with pytest.raises(ValueError, match="collapses"):
            LogWinRate(beta)


@SETTINGS
@given(st.floats(-12, 2.5))
def test_frontier_inverts_kl(power: float) -> None:
    kl = 10.0**power
    best, game = frontier(kl)
    assert WinRate.from_kl(kl).kl() == pytest.approx(kl, rel=1e-11)
    assert WinRate.from_kl(kl).win_rate() == pytest.approx(game, rel=1e-11)
    # n carries the KL only as well as a float near 1 can
    assert BestOfN.from_kl(kl).kl() == pytest.approx(kl, rel=1e-11 + 1e-15 / np.sqrt(kl))
    assert BestOfN.from_kl(kl).win_rate() == pytest.approx(best, rel=1e-11)


def test_frontier_expansions_and_crossing() -> None:
    kl = np.array([1e-10, 1e-8, 1e-6])
    best, game = frontier(kl)
    np.testing.assert_allclose((best - 0.5) / np.sqrt(kl / 8), 1, rtol=2e-3)
    np.testing.assert_allclose((game - 0.5) / np.sqrt(kl / 6), 1, rtol=2e-3)
    best, game = frontier(np.array([[0.0, 0.1], [1.0, 30.0]]))
    assert best.shape == game.shape == (2, 2)
    assert best[0, 0] == game[0, 0] == 0.5
    assert game[0, 1] > best[0, 1]
    assert game[1, 0] < best[1, 0]
    large = frontier(30.0)
    assert 1 - large.win_rate_game == pytest.approx(1 / 60, rel=0.2)
    assert np.isscalar(large.best_of_n)


def test_expected_reward() -> None:
    assert BestOfN(2).expected_reward(norm.ppf) == pytest.approx(1 / np.sqrt(np.pi), abs=1e-9)
    assert BestOfN(10).expected_reward(norm.ppf) == pytest.approx(1.5387527308351, abs=1e-8)
    sharp = WinRate(1e-6)
    assert sharp.expected_reward(lambda u: float(u > 0.5), points=[0.5]) == pytest.approx(1 - sharp.cdf(0.5))
    with pytest.raises(ValueError, match="finite inside"):
        WinRate(1e-3).expected_reward(norm.ppf)
    with pytest.raises(ValueError, match=r"did not converge|at u ="):
        BestOfN(2).expected_reward(lambda u: 1 / (1 - u))
    with pytest.raises(ValueError, match="must return a number"):
        BestOfN(2).expected_reward(lambda u: "high")
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        BestOfN(2).expected_reward(lambda u: u, points=[2.0])


@pytest.mark.parametrize("bad", [0.0, 0.99, -1.0, np.nan, np.inf, "many", None])
def test_bad_parameters(bad: object) -> None:
    for kind in (BestOfN, LogWinRate):
        with pytest.raises(ValueError):
            kind(bad)
    if bad != 0.99:
        with pytest.raises(ValueError):
            WinRate(bad)
    if bad not in (0.0, 0.99):
        with pytest.raises(ValueError):
            frontier(bad)


def test_bad_arguments() -> None:
    for policy in policies(0.5):
        for u in (-1e-9, 1 + 1e-9, np.nan, [0.5, 2.0], "half"):
            for method in (policy.cdf, policy.density, policy.quantile):
                with pytest.raises(ValueError):
                    method(u)
    with pytest.raises(ValueError, match="positive"):
        WinRate.from_kl(0.0)
    with pytest.raises(ValueError, match="too large"):
        BestOfN.from_kl(1e4)
    with pytest.raises(ValueError, match="collapses"):
        LogWinRate(1.0)


def test_extremes_give_no_nan() -> None:
    u = np.linspace(0, 1, 101)
    for beta in (1e-300, 1e-6, 1e-3, 1.0, 1e6, 1e300):
        policy = WinRate(beta)
        assert not np.isnan([policy.kl(), policy.win_rate()]).any()
        for values in (policy.cdf(u), policy.quantile(u), policy.density(u)):
            assert not np.isnan(values).any()
        assert np.all(np.diff(policy.cdf(u)) >= 0)


@given(st.integers(2, 60), st.floats(0.01, 30.0), st.sampled_from(["reward", "matrix", "tournament"]), st.integers(0))
def test_no_policy_wins_more_at_its_kl(m: int, spread: float, kind: str, seed: int) -> None:
    """Theory 3.12, on finite references with ties, intransitive preferences and tournaments of zeros and ones."""
    rng = np.random.default_rng(seed)
    reward, ref = rng.integers(0, m, m), rng.dirichlet(np.ones(m))
    matrix = (reward[:, None] > reward) + 0.5 * (reward[:, None] == reward)
    if kind != "reward":
        upper = np.triu(rng.random((m, m)) if kind == "matrix" else rng.integers(0, 2, (m, m)), 1)
        matrix = upper + np.tril(1 - upper.T, -1) + 0.5 * np.eye(m)
    win = matrix @ ref
    policy = ref * np.exp(spread * win) if seed % 2 else rng.dirichlet(np.ones(m) / spread)
    policy = policy / policy.sum()
    kept = policy > 0
    kl = float((policy[kept] * np.log(policy[kept] / ref[kept])).sum())
    assert policy @ win <= largest_win_rate(max(kl, 0.0)) + 1e-9


def test_the_largest_win_rate_is_reached_and_is_above_the_frontier() -> None:
    u = (np.arange(200_000) + 0.5) / 200_000
    for rate in (1e-3, 0.5, 5.0, 60.0, 2000.0):
        density = np.exp(rate * (u - 1))
        density /= density.mean()
        kl = float((density * np.log(np.maximum(density, 1e-300))).mean())
        assert largest_win_rate(kl) == pytest.approx(float((density * u).mean()), abs=1e-7)
    kl = np.array([0.0, 1e-12, 1e-4, 0.1, 1.0, 10.0, 300.0, 2e3])
    assert (largest_win_rate(kl) >= np.maximum(*frontier(kl)) - 1e-15).all()
    assert largest_win_rate(1e-8) == pytest.approx(0.5 + (1e-8 / 6) ** 0.5, rel=1e-9)
    with pytest.raises(ValueError, match="non-negative"):
        largest_win_rate(-1.0)
