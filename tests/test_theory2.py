"""The second edition of the theory: 2.7 to 2.10, 3.13, 5.5 to 5.16, 6.8, 7.7, 7.11, 7.12.

Games are made from their equilibrium, rho = softmax(log pi* - P pi*/beta), so that no solver of the package is asked
for what it is examined on; formulas are written out again.
"""

import inspect
import re
from itertools import product
from pathlib import Path

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

import windgames as wg
from windgames import bounds
from windgames.testing import MATRICES, games, random_matrix

RPS = np.array([[0.5, 0.0, 1.0], [1.0, 0.5, 0.0], [0.0, 1.0, 0.5]])
seeds = st.integers(0, 2**32 - 1)


def normalise(x):
    x = x - np.max(x, axis=-1, keepdims=True)
    return x - np.log(np.sum(np.exp(x), axis=-1, keepdims=True))


def kl(p, q):
    d = p - q
    return np.sum(np.exp(p) * (np.expm1(-d) + d), axis=-1)


def span(x):
    return np.ptp(x, axis=-1)


def largest_interaction(P):
    """L by all quadruples."""
    return float(np.max(P[:, None, :, None] - P[None, :, :, None] - P[:, None, None, :] + P[None, :, None, :])) / 2


class Case:
    """A random game, its equilibrium, a policy, and a step written out."""

    def __init__(self, seed, m=None, beta=None, kind=None):
        self.rng = rng = np.random.default_rng(seed)
        m = m or int(rng.integers(2, 6))
        self.P = random_matrix(kind or str(rng.choice(MATRICES)), m, rng)
        self.A = self.P - 0.5
        self.beta = beta or float(10 ** rng.uniform(-2, 1))
        self.star, self.policy = normalise(rng.normal(size=(2, m)) * rng.choice([0.1, 1.0, 4.0], (2, 1)))
        self.ref = normalise(self.star - self.P @ np.exp(self.star) / self.beta)
        self.L = largest_interaction(self.P)

    def response(self, policy):
        return normalise(self.ref + self.P @ np.exp(policy) / self.beta)

    def step(self, start, payoff, eta):
        return normalise((start + self.beta * eta * self.ref + eta * payoff) / (1 + self.beta * eta))

    def wind(self, start, eta):
        return self.step(start, self.P @ np.exp(start), eta)


# -- certificates ----------------------------------------------------------------------------------------------


@given(seeds)
def test_the_sharper_certificate(seed):
    """Theory 2.7: it holds, is the formula, and never exceeds that of 2.4."""
    case = Case(seed)
    response = case.response(case.policy)
    R, k = span(case.policy - response), kl(case.policy, response)
    bound = bounds.hilbert_certificate(R, k, case.beta, case.L)
    assert bound == pytest.approx(R + case.L / case.beta * np.sqrt(2 * k))
    assert span(case.policy - case.star) <= bound * (1 + 1e-9) + 1e-9
    assert span(response - case.star) <= bounds.one_step_bound(k, case.beta, case.L) * (1 + 1e-9) + 1e-9
    assert bound <= bounds.hilbert_certificate_factor(case.beta, case.L) * R * (1 + 1e-12)
    game = wg.WinRateGame(wg.MatrixPreference(case.P), np.exp(case.ref), case.beta) if case.ref.min() > -600 else None
    if game is not None:
        proven = game.hilbert_certificate(case.policy)
        assert span(case.policy - case.star) <= proven * (1 + 1e-9)
        assert proven <= (1 + game.preference.interaction_bound / 2 / case.beta) * R * (1 + 1e-9) + 1e-9


def test_the_sharper_certificate_is_sharper():
    """An error of log pi on a response that is hardly played counts little: 100 times at beta = 1e-3."""
    beta = 1e-3
    star = np.log([0.5, 0.5 - 1e-8, 1e-8])
    ref = normalise(star - RPS @ np.exp(star) / beta)
    policy = normalise(star + np.array([0.0, 0.0, 1.0]))
    response = normalise(ref + RPS @ np.exp(policy) / beta)
    R, k = span(policy - response), kl(policy, response)
    ratio = bounds.hilbert_certificate_factor(beta, 0.75) * R / bounds.hilbert_certificate(R, k, beta, 0.75)
    assert ratio > 100


@given(seeds)
def test_the_other_direction_has_a_certificate(seed):
    """Theory 2.10."""
    case = Case(seed)
    R = span(case.policy - case.response(case.policy))
    there, back = kl(case.star, case.policy), kl(case.policy, case.star)
    assert there <= bounds.kl_from_hilbert(R) * (1 + 1e-9) + 1e-12
    assert there + back <= min(R, R**2 / 4) * (1 + 1e-9) + 1e-12
    assert np.abs(np.exp(case.policy) - np.exp(case.star)).sum() <= R / 2 * (1 + 1e-9) + 1e-12


def test_the_other_direction_is_sharp():
    """Theory 2.10 at two even responses: R^2/8 and R^2/4 to first order."""
    star, policy = np.log([0.5, 0.5]), normalise(np.array([0.01, 0.0]))
    R = span(policy - star)  # two responses: BR is the equilibrium
    assert kl(star, policy) > 0.999 * bounds.kl_from_hilbert(R)
    assert kl(star, policy) + kl(policy, star) > 0.999 * R**2 / 4


def test_a_run_without_a_reference_solution_starts_from_the_other_direction():
    """Theory 2.10 in `solve`: the bound begins at R^2/8 of the first iterate, and above the true distance."""
    game = wg.WinRateGame(wg.MatrixPreference(RPS), [0.6, 0.3, 0.1], 0.2)
    run = wg.solve(game, wg.wind(), max_steps=5, tol=0)
    assert run.trace.bound[0] == pytest.approx(min(run.trace.residual[0], run.trace.residual[0] ** 2 / 8))
    assert run.trace.bound[0] >= kl(wg.equilibrium(game).log_policy, game.log_ref)


@given(seeds, st.floats(1e-6, 1e-2))
def test_the_game_of_the_skew_part_is_certified(seed, delta):
    """Theory 2.8, with a delta that can be seen: R and k of P are nearly the skew part's."""
    case = Case(seed)
    P = case.P + case.rng.uniform(-delta / 2, delta / 2, case.P.shape)
    skew = 0.5 + (P - P.T) / 2
    delta = np.abs(P + P.T - 1).max()
    ref = normalise(case.star - skew @ np.exp(case.star) / case.beta)
    response = normalise(ref + P @ np.exp(case.policy) / case.beta)
    R, k = span(case.policy - response), kl(case.policy, response)
    true = normalise(ref + skew @ np.exp(case.policy) / case.beta)
    assert abs(span(case.policy - true) - R) <= delta / case.beta * (1 + 1e-9) + 1e-11
    assert kl(case.policy, true) <= (np.sqrt(k) + delta / 2 / case.beta) ** 2 * (1 + 1e-9) + 1e-12


# -- RLHF inside -----------------------------------------------------------------------------------------------


@given(seeds)
def test_without_interaction_the_game_is_rlhf(seed):
    """Theory 2.9 (1)."""
    rng = np.random.default_rng(seed)
    f, ref, beta = rng.uniform(0, 0.5, 4), rng.dirichlet(np.ones(4)), 10 ** rng.uniform(-1, 1)
    P = 0.5 + f[:, None] - f
    assert bounds.interaction_constant(P) <= 1e-15
    rlhf = ref * np.exp(f / beta)
    game = wg.WinRateGame(wg.MatrixPreference(P), ref, beta)
    np.testing.assert_allclose(wg.equilibrium(game).policy, rlhf / rlhf.sum(), rtol=1e-9)
    np.testing.assert_allclose(np.exp(game.best_response(np.log(rng.dirichlet(np.ones(4))))), rlhf / rlhf.sum())


@given(seeds)
def test_rlhf_on_the_win_rates_of_the_reference(seed):
    """Theory 2.9 (3)."""
    case = Case(seed)
    once = case.response(case.ref)
    moved = np.abs(np.exp(case.ref) - np.exp(case.star)).sum()
    distance, slack = span(once - case.star), 1e-9 * (1 + 1 / case.beta)
    assert distance <= case.L / case.beta * moved * (1 + 1e-9) + slack
    assert moved <= min(np.sqrt(2 * kl(case.ref, once)), 1 / (2 * case.beta)) * (1 + 1e-9) + 1e-12
    assert distance <= bounds.one_step_bound(kl(case.ref, once), case.beta, case.L) * (1 + 1e-9) + slack


# -- win rates are at most uniformly spread --------------------------------------------------------------------


@given(seeds, st.floats(1e-3, 50))
def test_log_moment(seed, eta):
    """Theory 3.13; the bound against the integral over a uniform variable."""
    case = Case(seed)
    w = case.P @ np.exp(case.policy)
    bound = bounds.log_moment_bound(eta)
    measured = np.logaddexp.reduce(case.policy + eta * (w - 0.5))
    assert measured <= bound * (1 + 1e-9) + 1e-12
    assert bound <= min(eta**2 / 24, eta / 2) * (1 + 1e-12)
    integral = mpmath.log(mpmath.quad(lambda u: mpmath.exp(eta * (u - 0.5)), [0, 0.5, 1]))
    assert bound == pytest.approx(float(integral), rel=1e-8)
    assert np.exp(case.policy) @ (w - 0.5) ** 2 <= 1 / 12 + 1e-12


def test_log_moment_is_attained_without_atoms():
    w = (np.arange(4000) + 0.5) / 4000
    assert np.log(np.mean(np.exp(3 * (w - 0.5)))) == pytest.approx(bounds.log_moment_bound(3.0), rel=1e-6)


# -- how far the step can go -----------------------------------------------------------------------------------


def test_the_constant_beyond_which_wind_fails():
    """Theory 5.8: the minimum in 30 digits."""

    def c(e, q):
        return 2 * (e * mpmath.log(e / q) + (1 - e) * mpmath.log((1 - e) / (1 - q))) / ((1 - e) * (q - e) ** 2)

    with mpmath.workdps(30):
        e, q = mpmath.findroot(
            [lambda e, q: mpmath.diff(c, (e, q), (1, 0)), lambda e, q: mpmath.diff(c, (e, q), (0, 1))], (0.04, 0.68)
        )
        assert float(c(e, q)) == pytest.approx(bounds.WIND_FAILS_BEYOND, rel=1e-9)
        assert float(c(0.1, 0.6)) == pytest.approx(bounds.wind_counterexample(0.1, 0.6))
    grid = np.linspace(0.002, 0.998, 300)
    e, q = np.meshgrid(grid, grid, indexing="ij")
    assert np.min(bounds.wind_counterexample(e[e < q], q[e < q])) >= bounds.WIND_FAILS_BEYOND


@pytest.mark.parametrize(("c", "beta", "measured"), [(4.8, 10, 1.0012), (5, 10, 1.043), (6, 10, 1.252)])
def test_the_counterexample(c, beta, measured):
    """Theory 5.8, measured/bound after one step, and its limit c/c*."""
    e, q = 0.0407, 0.6797
    case = Case(0, m=3, beta=float(beta), kind="ties")
    case.P, case.star = RPS, np.log([e, (1 - e) / 2, (1 - e) / 2])
    start = np.log([q, (1 - q) / 2, (1 - q) / 2])

    def ratio(beta, c):
        case.beta = beta
        case.ref = normalise(case.star - RPS @ np.exp(case.star) / beta)
        eta = c * beta / 0.75**2
        return (1 + beta * eta) * kl(case.star, case.wind(start, eta)) / kl(case.star, start)

    assert ratio(beta, c) == pytest.approx(measured, abs=6e-4)
    assert ratio(1e4, c) == pytest.approx(c / bounds.WIND_FAILS_BEYOND, rel=1e-4)
    assert ratio(beta, 4.0) < 1


@given(seeds, st.floats(0.1, 1), st.sampled_from([0.01, 0.3, 1.0]))
def test_late_steps(seed, share, size):
    """Theory 5.9, from policies near and far."""
    case = Case(seed)
    if case.L < 1e-9:
        return
    start = normalise(case.star + size * case.rng.normal(size=case.star.size))
    distance = np.abs(np.exp(start) - np.exp(case.star)).sum() / 2
    eta = share * bounds.wind_late_step(case.beta, case.L, distance)
    before, after = kl(case.star, start), kl(case.star, case.wind(start, eta))
    assert after <= before / (1 + case.beta * eta) * (1 + 1e-7) + 1e-13


def test_late_steps_in_numbers():
    assert bounds.wind_late_step(0.1, 0.5) == pytest.approx(np.pi**4 / 16 * 0.1 / 0.25)
    near, far = (bounds.wind_late_step(0.1, 0.5, d) for d in (0.350, 0.351))
    assert near > bounds.wind_max_step(0.1, 0.5) > far


# -- the rate at the end ---------------------------------------------------------------------------------------


def frequencies(P, star):
    """Moduli of the eigenvalues of the derivative (I - 1 pi')AD itself."""
    AD = (P - 0.5) * np.exp(star)
    return np.sort(np.abs(np.linalg.eigvals(AD - np.exp(star) @ AD)))[::-1]


@given(seeds)
def test_tangent_frequencies(seed):
    """Theory 5.10: against a general eigenvalue solver, and mu <= 4L/pi^2."""
    case = Case(seed)
    found = bounds.tangent_frequencies(case.P, np.exp(case.star))
    np.testing.assert_allclose(found, frequencies(case.P, case.star), atol=1e-7)
    assert found[0] <= 4 * case.L / np.pi**2 + 1e-12


def test_a_local_step_multiplies_by_the_local_rate(rng):
    """Theory 5.10: slopes of runs from afar, at steps inside and outside of 5.2."""
    for i in range(12):
        case = Case(1000 + i, m=3 + i % 3, beta=0.2, kind=["uniform", "cycle", "logistic"][i % 3])
        case.star = normalise(0.5 * rng.normal(size=case.star.size))
        case.ref = normalise(case.star - case.P @ np.exp(case.star) / case.beta)
        mu = frequencies(case.P, case.star)[0]
        for eta in (0.5, 2.0):
            factor = bounds.local_rate(case.beta, eta, mu)
            assert factor == pytest.approx((1 + (eta * mu) ** 2) / (1 + case.beta * eta) ** 2)
            now, trail = normalise(case.star + 0.1 * rng.normal(size=case.star.size)), []
            while len(trail) < 2000 and (not trail or trail[-1] > 1e-17):
                now = case.wind(now, eta)
                trail.append(kl(case.star, now))
            late = np.array([x for x in trail if 1e-17 < x < 1e-10])
            slope = (late[-1] / late[0]) ** (1 / (len(late) - 1))
            # other frequencies fade slowly next to a similar mu; none is faster than the rate
            assert slope <= factor * (1 + 1e-3)
            if case.star.size == 3:
                assert slope == pytest.approx(factor, rel=1e-3)


@pytest.mark.parametrize(("beta", "threshold"), [(0.03, 24.3), (0.173, 37.5)])
def test_the_threshold_of_stability(beta, threshold):
    """Theory 5.10 on rock-paper-scissors, uniform reference: eta/beta below and above 2/(mu^2 - beta^2)."""
    mu = bounds.tangent_frequencies(RPS, np.full(3, 1 / 3))[0]
    assert mu == pytest.approx(np.sqrt(1 / 12))
    step = bounds.local_max_step(beta, mu)
    assert step / beta == pytest.approx(threshold, abs=0.1)
    assert bounds.local_rate(beta, step, mu) == pytest.approx(1)
    assert bounds.local_max_step(0.3, mu) == np.inf
    game = wg.WinRateGame(wg.MatrixPreference(RPS), np.full(3, 1 / 3), beta)
    start = normalise(np.array([1e-3, 0, -1e-3]))
    third = np.log(np.full(3, 1 / 3))
    for part, attracts in [(0.95, True), (1.05, False)]:
        run = wg.solve(game, wg.wind(part * float(step)), tol=0, max_steps=100, start=start)
        assert (kl(third, run.log_policy) < kl(third, start)) == attracts


# -- the optimistic rule ---------------------------------------------------------------------------------------


@given(seeds, st.floats(0.01, 1))
def test_optimistic_potential(seed, share):
    """Theory 5.11 for one step from any pair, and the policy's bound."""
    case = Case(seed)
    if case.L < 1e-9:
        return
    eta = share * bounds.optimistic_max_step(case.beta, case.L)
    assert 3 * case.L**2 * (eta / share) ** 2 == pytest.approx(2 * case.beta * eta / share + 2)
    z, w = case.policy, normalise(case.rng.normal(size=case.policy.size))
    after = case.step(z, case.P @ np.exp(w), eta)
    anchor = case.step(z, case.P @ np.exp(after), eta)
    before = kl(case.star, z) + kl(z, w) / 2
    rate = 1 + case.beta * eta
    assert rate * (kl(case.star, anchor) + kl(anchor, after) / 2) <= before * (1 + 1e-9) + 1e-12
    assert rate * kl(case.star, after) <= 2 * before * (1 + 1e-9) + 1e-12


def test_optimistic_is_popovs_method(rng):
    """Theory 5.11: the rule's iterates are the policies of the two-sequence form, from the first step on."""
    case = Case(5, m=4, beta=0.3, kind="uniform")
    eta = 0.7
    z = w = case.policy
    run = []
    for _ in range(6):
        w = case.step(z, case.P @ np.exp(w), eta)
        z = case.step(z, case.P @ np.exp(w), eta)
        run.append(w)
    game = wg.WinRateGame(wg.MatrixPreference(case.P), np.exp(case.ref), case.beta)
    for t, expected in enumerate(run, 1):
        found = wg.solve(game, wg.optimistic(eta), tol=0, max_steps=t, start=case.policy).log_policy
        np.testing.assert_allclose(found, expected, atol=1e-12)


@given(games(), st.floats(0.01, 1))
def test_optimistic_rate(game, share):
    """Theory 5.11 along a run of the rule, with the factor 2."""
    step = min(1e6, float(wg.bounds.optimistic_max_step(game.beta, game.interaction)))
    star = wg.equilibrium(game)
    run = wg.solve(game, wg.optimistic(share * step), tol=0, max_steps=30, reference_solution=star)
    trace = run.trace
    assert trace.theorem == "theory 5.11"
    rate = 1 / (1 + float(game.beta) * share * step)
    np.testing.assert_allclose(trace.bound[1:], 2 * trace.kl_from_solution[0] * rate ** trace.steps[1:], atol=1e-8)
    assert np.all(trace.kl_from_solution <= trace.bound * (1 + 1e-9) + 1e-13)


def test_optimistic_takes_one_payoff_and_has_limits(rng):
    game = wg.WinRateGame(wg.MatrixPreference(random_matrix("cycle", 5, rng)), rng.dirichlet(np.ones(5)), 0.05)
    star = wg.equilibrium(game)
    wind, optimistic, extra = (
        wg.solve(game, rule, tol=1e-3, max_steps=20_000, reference_solution=star).steps
        for rule in (wg.wind(), wg.optimistic(), wg.extragradient())
    )
    assert optimistic * 2 < wind
    assert optimistic < 3 * extra
    assert "outside theorem 5.11" in wg.solve(game, wg.optimistic(100.0), max_steps=5).status
    weak = wg.RewardPreference([0.0, 1], ties="weak")
    with pytest.raises(ValueError, match="No theorem"):
        wg.solve(wg.LogWinRateGame(weak, [0.5, 0.5], 0.5), wg.optimistic())


# -- OMWU without a price --------------------------------------------------------------------------------------


@pytest.mark.parametrize("eta", [0.6, 1.5])
def test_the_slope_of_omwu_at_beta_zero(eta, rng):
    """Theory 5.12: the divergence to a full-support equilibrium falls by the square of the root's modulus."""
    w = np.array([0.5, 0.3, 0.2])
    A = np.array([[0, -w[2], w[1]], [w[2], 0, -w[0]], [-w[1], w[0], 0]])
    np.testing.assert_allclose(A @ w, 0, atol=1e-15)
    game = wg.WinRateGame(wg.MatrixPreference(0.5 + A), np.full(3, 1 / 3), 0.0)
    sigma = frequencies(0.5 + A, np.log(w))[0]
    roots = np.roots([1, -(1 + 2j * eta * sigma), 1j * eta * sigma])
    factor = bounds.omwu_local_rate(eta, sigma)
    assert factor == pytest.approx(np.abs(roots).max())
    start = normalise(np.log(w) + np.array([0.05, 0, -0.05]))
    run = wg.solve(game, wg.omwu(eta), tol=0, max_steps=800, start=start, reference_solution=np.log(w))
    found = run.trace.kl_from_solution
    late = np.flatnonzero((found < 1e-4) & (found > 1e-14))
    slope = (found[late[-1]] / found[late[0]]) ** (1 / (late[-1] - late[0]))
    assert slope == pytest.approx(factor**2, rel=2e-3)
    assert factor < 1


def test_the_slope_of_omwu_with_a_price():
    """Theory 5.12, leading coefficient 1 + beta eta."""
    game = wg.WinRateGame(wg.MatrixPreference(RPS), np.full(3, 1 / 3), 0.05)
    start = normalise(np.array([0.1, 0, -0.1]))
    third = np.log(np.full(3, 1 / 3))
    run = wg.solve(game, wg.omwu(1.0), tol=0, max_steps=150, start=start, reference_solution=third)
    trail = run.trace.kl_from_solution
    factor = bounds.omwu_local_rate(1.0, np.sqrt(1 / 12), 0.05)
    assert (trail[120] / trail[40]) ** (1 / 80) == pytest.approx(factor**2, rel=1e-4)


# -- errors ----------------------------------------------------------------------------------------------------


@given(seeds, st.floats(0.01, 0.99))
def test_inexact_steps_of_every_share(seed, theta):
    """Theory 5.5 for one step and an error against the solution."""
    case = Case(seed)
    if case.L < 1e-9:
        return
    eta = 4 * theta * case.beta / case.L**2
    error = case.beta * case.rng.uniform(0.01, 1) * np.sign(case.policy - case.star + 1e-3)
    eps = span(error) / 2
    after = kl(case.star, case.step(case.policy, case.P @ np.exp(case.policy) + error, eta))
    allowed = kl(case.star, case.policy) + eta * eps**2 / (2 * case.beta * (1 - theta))
    assert (1 + case.beta * eta) * after <= allowed * (1 + 1e-9) + 1e-12
    assert bounds.inexact_floor(case.beta, eps, theta) == pytest.approx((eps / case.beta) ** 2 / (2 * (1 - theta)))


def test_the_inexact_floor_is_sharp_for_short_steps():
    """Theory 5.5: two responses, a constant error; the limit is at (eps/beta)^2/2."""
    beta, eps = 0.5, 0.01
    policy = normalise(np.array([2 * eps / beta, 0.0]))  # the fixed point: the logit moves by 2 eps/beta
    assert kl(np.log([0.5, 0.5]), policy) > 0.99 * bounds.inexact_floor(beta, eps, 0.0)
    assert bounds.inexact_floor(beta, eps) == pytest.approx((eps / beta) ** 2)


def test_the_noise_floor_is_sharp_in_one_step():
    """Theory 5.6: L = 0, two even responses, errors plus and minus eps: gamma^2 eps^2/2 is added to first order."""
    beta, eta, eps = 0.5, 0.3, 0.01
    star = np.log([0.5, 0.5])
    case = Case(0, m=2, beta=beta, kind="ties")
    case.ref = star
    after = np.mean([kl(star, case.step(star, s * eps * np.array([1, -1]), eta)) for s in (1, -1)])
    factor = 1 / (1 + beta * eta)
    allowed = (1 - factor) * bounds.noise_floor(beta, eta, eps)
    assert 0.999 * allowed < after <= allowed
    assert bounds.noise_floor(beta, eta, eps) == pytest.approx(eta * eps**2 / (2 * beta * (1 + beta * eta)))


@pytest.mark.parametrize(("beta", "eps", "L"), [(0.1, 1.0, 1.0), (1.0, 0.5, 0.5), (3.0, 1.0, 1.0)])
def test_the_decaying_bound_solves_its_recursion(beta, eps, L):
    """Theory 7.7: the recursion iterated, and its constant in the end."""
    t0 = max(1.0, L**2 / (2 * beta**2))
    a, first = 2.0, 2.0
    for t in range(200_000):
        assert t % 997 or a <= bounds.decaying_bound(first, t, beta, eps, L) * (1 + 1e-12)
        tau = t + t0
        a = tau / (tau + 2) * a + 2 * eps**2 / (beta * (tau + 2)) ** 2
    assert a == pytest.approx(bounds.decaying_bound(first, 200_000, beta, eps, L), rel=5e-3)
    assert a * 200_000 == pytest.approx(2 * (eps / beta) ** 2, rel=5e-3)


# -- Nash-MD ---------------------------------------------------------------------------------------------------


@given(games(), st.floats(0.05, 0.99))
def test_nash_md_from_the_reference(game, share):
    """Theory 5.13 along a run, and the better one of the two floors."""
    L, beta = float(game.preference.interaction), float(game.beta)
    eta = min(share * 4 * beta / (L**2 + 4 * beta**2), 0.9 / beta)
    theta = L**2 * eta / (4 * beta * (1 - eta * beta))
    star = wg.equilibrium(game)
    run = wg.solve(game, wg.nash_md(eta), tol=0, max_steps=40, reference_solution=star)
    first = run.trace.kl_from_solution[0]
    floor = (L * eta / beta) ** 2 / 32 / (1 - theta)
    bound = (1 - eta * beta) ** run.trace.steps * first + floor
    assert np.all(run.trace.kl_from_solution <= bound * (1 + 1e-9) + 1e-10)
    coarse = float(bounds.nash_md_floor(beta, eta))
    assert bounds.nash_md_floor(beta, eta, L) == pytest.approx(min(coarse, floor), rel=1e-9)
    assert coarse == pytest.approx(float(mpmath.log(mpmath.sinh(eta / 2) / (eta / 2))) / beta / eta, rel=1e-6)
    assert coarse <= eta / 24 / beta * (1 + 1e-12)


# -- a wrong judge ---------------------------------------------------------------------------------------------


@given(seeds)
def test_a_wrong_judge(seed):
    """Theory 5.14, both equilibria by the package's solver."""
    rng = np.random.default_rng(seed)
    m, beta = int(rng.integers(2, 6)), 10 ** rng.uniform(-1, 0.5)
    P, other = (random_matrix(str(rng.choice(MATRICES)), m, rng) for _ in range(2))
    wrong = P + rng.choice([0.01, 0.2, 1.0]) * (other - P)
    ref = rng.dirichlet(np.ones(m)) + 1e-6
    right, judged = (wg.WinRateGame(wg.MatrixPreference(x), ref / ref.sum(), beta) for x in (P, wrong))
    star, mistaken = wg.equilibrium(right).log_policy, wg.equilibrium(judged).log_policy
    eps = span((wrong - P) @ np.exp(mistaken)) / 2
    bound = bounds.wrong_judge_bound(beta, eps) * (1 + 1e-9) + 1e-12
    assert eps <= np.abs(wrong - P).max() + 1e-15
    assert kl(star, mistaken) <= bound
    assert kl(star, mistaken) + kl(mistaken, star) <= 2 * bound
    assert right.gap(mistaken) <= beta * bound
    assert np.abs(np.exp(star) - np.exp(mistaken)).sum() <= eps / beta * (1 + 1e-9) + 1e-9


def test_a_wrong_judge_is_as_bad_as_that():
    """Two responses: KL is (eps/beta)^2/2 to first order."""
    beta, eps = 1.0, 0.01
    P = np.full((2, 2), 0.5)
    wrong = P + eps * np.array([[0, 2], [-2, 0]])
    game = wg.WinRateGame(wg.MatrixPreference(wrong), [0.5, 0.5], beta)
    found = wg.equilibrium(game).log_policy
    assert span((wrong - P) @ np.exp(found)) / 2 == pytest.approx(eps)
    bound = bounds.wrong_judge_bound(beta, eps)
    assert 0.99 * bound < kl(np.log([0.5, 0.5]), found) <= bound


def hacked(P, wrong, ref, beta):
    """Return the equilibrium under the wrong judge, its error, and its judged and true win rates against `ref`."""
    policy = wg.equilibrium(wg.WinRateGame(wg.MatrixPreference(wrong), ref, beta)).policy
    error = span((wrong - P) @ policy) / 2
    return policy, error, policy @ wrong @ ref, policy @ P @ ref


@given(seeds)
def test_reward_hacking(seed):
    """Theory 5.16: the judged win rate is 1/2 + beta J, and the true one is at least what follows from it."""
    case = Case(seed, beta=10 ** np.random.default_rng(seed).uniform(-1.5, 0.5))
    wrong = case.P + float(case.rng.choice([0.01, 0.3, 1.0])) * (random_matrix("uniform", len(case.P), case.rng) - 0.5)
    wrong = np.clip(wrong, 0, 1)
    ref = np.exp(case.ref)
    policy, eps, judged, true = hacked(case.P, wrong, ref, case.beta)
    J = (policy - ref) @ np.log(policy / ref)
    assert judged == pytest.approx(0.5 + case.beta * J, abs=1e-8)
    bound = bounds.true_win_rate_bound(max(judged, 0.5), case.beta, eps)
    assert true >= bound - 1e-7
    assert bound >= 0.5 - eps**2 / (4 * case.beta) - 1e-12
    loss = 0.5 - true
    if loss > 1e-9:
        assert case.beta <= bounds.hacking_beta(eps, loss) * (1 + 1e-4)


def test_the_beta_against_hacking_is_attained():
    beta, eps = 30.0, 0.1
    d = eps / (4 * beta)
    a = beta * np.log((0.5 + d) / (0.5 - d))
    wrong, P = (np.array([[0.5, 0.5 + x], [0.5 - x, 0.5]]) for x in (a, a - 2 * eps))
    policy, error, judged, true = hacked(P, wrong, np.full(2, 0.5), beta)
    assert policy[0] == pytest.approx(0.5 + d)
    assert error == pytest.approx(eps)
    assert bounds.hacking_beta(eps, 0.5 - true) == pytest.approx(beta, rel=1e-3)
    assert bounds.true_win_rate_bound(judged, beta, eps) == pytest.approx(true, abs=1e-6 * (0.5 - true) + 1e-9)


@pytest.mark.parametrize("kind", ["biased", "panel"])
def test_judges_of_the_oracles_cannot_hack_more_than_that(kind, rng):
    """Theory 5.16 with the error that is known in advance: the largest entry of the difference."""
    reward, ref, worst = rng.normal(size=12), rng.dirichlet(np.ones(12)), 0.0
    right = wg.BradleyTerryPreference(reward)
    if kind == "biased":
        wrong = wg.BradleyTerryPreference(wg.oracles.biased_reward(reward, 0.25, 2.0, rng))
    else:  # three good judges and one that says the opposite
        wrong = wg.oracles.judge_panel([right, right, right, wg.oracles.flipped(right, 1.0)])
        right = wg.oracles.judge_panel([right, wg.BradleyTerryPreference(rng.permuted(reward))])
    P, bad = np.asarray(right.matrix()), np.asarray(wrong.matrix())
    known = np.max(np.abs(bad - P))
    for beta in (0.02, 0.1, 0.5, 2.0):
        _, eps, judged, true = hacked(P, bad, ref, beta)
        assert eps <= known
        assert true >= bounds.true_win_rate_bound(judged, beta, known) - 1e-9
        worst = max(worst, judged - true)
    assert worst > 0.02  # they do flatter
    price = bounds.hacking_beta(known, 0.02)
    assert hacked(P, bad, ref, price)[-1] >= 0.48 - 1e-9


def test_flipped_answers_are_within_the_bound():
    """Theory 7.10 beside 5.14: a judge wrong with probability q errs by at most q at every pair."""
    P, ref, q = RPS, np.array([0.6, 0.3, 0.1]), 0.1
    right = wg.WinRateGame(wg.MatrixPreference(P), ref, 0.3)
    flipped = right.replace(preference=wg.MatrixPreference((1 - 2 * q) * P + q))
    divergence = kl(wg.equilibrium(right).log_policy, wg.equilibrium(flipped).log_policy)
    assert 0 < divergence <= bounds.wrong_judge_bound(0.3, q)


def test_rates_per_payoff():
    """Theory 5.15: the extragradient's factor, and that it beats the published one."""
    for b in (1e-3, 0.1, 0.285, 1.0, 10.0):
        factor = bounds.linear_rate(b, bounds.extragradient_max_step(b, 1.0))
        assert factor == pytest.approx((b + np.sqrt(1 + b * b)) ** -2)
        assert factor < 1 / (1 + 2 * b)
        popov = bounds.linear_rate(b, bounds.optimistic_max_step(b, 1.0))
        assert popov == pytest.approx(1 / (1 + b / 3 * (b + np.sqrt(b * b + 6))))
        assert (bounds.linear_rate(b, bounds.wind_max_step(b, 1.0)) < factor**0.5) == (b > 0.2849)


# -- moving the reference --------------------------------------------------------------------------------------


def winners_of(P):
    """Some winners: vertices of {x >= 0, P x <= 1/2} found by linear programs in random directions."""
    from scipy.optimize import linprog

    m, rng = len(P), np.random.default_rng(0)
    found = [
        linprog(rng.normal(size=m), A_ub=P, b_ub=np.full(m, 0.5 + 1e-12), A_eq=np.ones((1, m)), b_eq=[1.0])
        for _ in range(4)
    ]
    return [np.maximum(r.x, 0) for r in found if r.status == 0]


@settings(max_examples=15)
@given(games(beta=st.floats(0.03, 1.0)))
def test_proximal_point(game):
    """Theory 6.8: the divergence to every winner falls by the step's own, and the average's gap is bounded."""
    seen = []
    found = wg.proximal_point(game, tol=0, max_steps=12, callback=lambda k, x: seen.append(x))
    if not seen:  # the reference is a winner
        assert found.gap <= 0
        return
    P = np.asarray(game.preference.matrix())
    trail = [game.log_ref, *seen]
    winners = winners_of(P)
    assert winners
    for before, after in zip(trail, seen, strict=False):
        again = normalise(before + P @ np.exp(after) / float(game.beta))
        assert span(after - again) <= 1e-8 * (1 + np.abs(after).max())
        for w in winners:
            fall = w @ (after - before)
            assert fall >= kl(after, before) - 1e-7 * (1 + 1 / float(game.beta))
    average = np.mean(np.exp(seen), axis=0)
    gap = np.max(P @ average) - 0.5
    assert gap <= float(game.beta) * np.max(-game.log_ref) / len(seen) + 1e-9
    bound = bounds.proximal_gap_bound(float(game.beta), game.log_ref, len(seen))
    assert bound == pytest.approx(float(game.beta) * np.max(-game.log_ref) / len(seen))
    assert found.gap == pytest.approx(max(0.0, np.max(P @ np.exp(seen[-1])) - 0.5), abs=1e-9)


def cycle_and_loser():
    """Return a skew matrix whose only winner is (.5, .3, .2, 0); the last response loses to the others by .3."""
    w, A = np.array([0.5, 0.3, 0.2]), np.zeros((4, 4))
    A[:3, :3] = [[0, -w[2], w[1]], [w[2], 0, -w[0]], [-w[1], w[0], 0]]
    A[:3, 3], A[3, :3] = 0.3, -0.3
    return A


def test_proximal_point_reaches_a_winner_and_says_so():
    game = wg.WinRateGame(wg.MatrixPreference(0.5 + cycle_and_loser()), np.full(4, 0.25), 0.05)
    found = wg.proximal_point(game, tol=1e-9, reference_solution=wg.equilibrium(game.replace(beta=0.0)))
    assert found.converged
    assert "Converged" in found.status
    assert found.game.beta == 0
    np.testing.assert_allclose(found.policy, [0.5, 0.3, 0.2, 0.0], atol=1e-7)
    assert np.all(np.diff(found.trace.kl_from_solution) <= 1e-12)
    short = wg.proximal_point(game, tol=1e-9, max_steps=2)
    assert not short.converged
    assert "Not converged after 2" in short.status
    # it goes on where it stopped
    more = wg.proximal_point(game, tol=0, max_steps=3, start=short.log_policy)
    np.testing.assert_allclose(more.log_policy, wg.proximal_point(game, tol=0, max_steps=5).log_policy, atol=1e-8)


def test_proximal_point_at_its_local_rate():
    """Theory 6.8 (4) on rock-paper-scissors."""
    game = wg.WinRateGame(wg.MatrixPreference(RPS), np.exp(normalise(np.array([0.2, 0, -0.1]))), 0.5)
    third = np.log(np.full(3, 1 / 3))
    trail = wg.proximal_point(game, tol=0, max_steps=40, reference_solution=third).trace.kl_from_solution
    factor = bounds.proximal_local_rate(0.5, np.sqrt(1 / 12))
    assert factor == pytest.approx(1 / (1 + (1 / 12) / 0.25))
    assert (trail[35] / trail[10]) ** (1 / 25) == pytest.approx(factor, rel=1e-3)


def test_proximal_point_keeps_masses_that_underflow():
    """The last response loses .3 a step, over beta: its mass falls far below the smallest float, in proportion."""
    game = wg.WinRateGame(wg.MatrixPreference(0.5 + cycle_and_loser()), [0.3, 0.3, 0.3, 0.1], 0.001)
    lows = [wg.proximal_point(game, tol=0, max_steps=k).log_policy[-1] for k in (3, 6)]
    assert lows[1] < -1500
    assert (lows[1] - lows[0]) / 3 == pytest.approx(-0.3 / 0.001, rel=1e-3)


def test_proximal_point_of_contexts_and_of_other_libraries():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(3)
    reward, ref = rng.normal(size=(2, 4)), rng.dirichlet(np.ones(4), 2)
    both = wg.proximal_point(wg.WinRateGame(wg.RewardPreference(reward), ref, [0.1, 0.4]), tol=0, max_steps=5)
    for i, beta in enumerate([0.1, 0.4]):
        one = wg.proximal_point(wg.WinRateGame(wg.RewardPreference(reward[i]), ref[i], beta), tol=0, max_steps=5)
        np.testing.assert_allclose(both.log_policy[i], one.log_policy, atol=1e-8)
    game = wg.WinRateGame(wg.RewardPreference(torch.tensor(reward)), torch.tensor(ref), [0.1, 0.4])
    found = wg.proximal_point(game, tol=0, max_steps=5)
    np.testing.assert_allclose(found.log_policy.numpy(), both.log_policy, atol=1e-8)


def test_proximal_point_refuses():
    game = wg.WinRateGame(wg.MatrixPreference(RPS), [0.6, 0.3, 0.1], 0.1)
    with pytest.raises(ValueError, match="beta = 0"):
        wg.proximal_point(game.replace(beta=0.0))
    with pytest.raises(ValueError, match="win-rate games"):
        wg.proximal_point(wg.LogWinRateGame(wg.RewardPreference([0.0, 1.0], ties="weak"), [0.5, 0.5], 2.0))
    with pytest.raises(ValueError, match="full support"):
        wg.proximal_point(game, start=np.array([0.0, -np.inf, -np.inf]))
    with pytest.raises(ValueError, match="non-negative"):
        wg.proximal_point(game, tol=-1.0)


# -- comparisons -----------------------------------------------------------------------------------------------


@given(st.integers(1, 1000), st.floats(0.01, 10), st.floats(0.01, 10), st.floats(0.05, 1))
def test_what_comparisons_count_as(J, beta, eta, L):
    """Theory 7.11, written out."""
    gamma = eta / (1 + beta * eta)

    def phi(x):
        x = mpmath.mpf(x)
        return (mpmath.exp(x) - 1 - x) / x**2

    coins = min(1, float(phi(2 * gamma)) / (2 * J))
    assert bounds.comparison_error(J, beta, eta) ** 2 == pytest.approx(coins, rel=1e-6)
    sure = min(L**2, 2 * min(0.25, L**2 / 2) / J * float(phi(2 * gamma * L)))
    assert bounds.comparison_error(J, beta, eta, L) ** 2 == pytest.approx(sure, rel=1e-6)


def test_short_steps_gain_eight_from_each_comparison():
    """Theory 7.11: 8J below the first edition's eta eps^2/(beta (1 + beta eta))."""
    beta, eta = 0.1, 1e-3
    for J in (1, 4, 100):
        floor = bounds.noise_floor(beta, eta, bounds.comparison_error(J, beta, eta))
        assert eta / (beta * (1 + beta * eta)) / floor == pytest.approx(8 * J, rel=1e-3)


@given(seeds, st.integers(1, 2), st.floats(0.05, 1))
def test_a_step_from_few_comparisons(seed, J, share):
    """Theory 7.11: the mean over every outcome of J draws, with coins and without, two responses."""
    case = Case(seed, m=2)
    eta = min(100.0, share * bounds.wind_max_step(case.beta, case.L if case.L > 1e-9 else 0.0))
    q, factor = np.exp(case.policy), 1 / (1 + case.beta * eta)
    coins = sure = 0.0
    for draws in product(range(2), repeat=J):
        chance = np.prod(q[list(draws)])
        seen = case.P[:, list(draws)].mean(axis=1)
        sure += chance * kl(case.star, case.step(case.policy, seen, eta))
        for heads in product([0, 1], repeat=2 * J):
            o = np.array(heads).reshape(2, J)
            odds = case.P[:, list(draws)]
            weight = chance * np.prod(np.where(o == 1, odds, 1 - odds))
            if weight > 0:
                coins += weight * kl(case.star, case.step(case.policy, o.mean(axis=1), eta))
    before = kl(case.star, case.policy)
    for measured, L in ((coins, None), (sure, case.L)):
        eps = bounds.comparison_error(J, case.beta, eta, L)
        allowed = factor * before + (1 - factor) * bounds.noise_floor(case.beta, eta, eps)
        assert measured <= allowed * (1 + 1e-9) + 1e-12


def test_more_comparisons_in_a_run(rng):
    """Theory 7.7 with 7.11: constant and falling steps, coins, 100 replicates."""
    case = Case(2, m=3, beta=0.3, kind="uniform")
    first, star = kl(case.star, case.ref), case.star
    for J, falling in ((1, False), (8, False), (8, True)):
        policy = np.tile(case.ref, (100, 1))
        eta0 = bounds.wind_decaying_step(0, case.beta, case.L) if falling else 0.5
        eps = bounds.comparison_error(J, case.beta, eta0)
        rounds = 60
        for t in range(rounds):
            eta = bounds.wind_decaying_step(t, case.beta, case.L) if falling else eta0
            y = np.stack([rng.choice(3, size=J, p=np.exp(x)) for x in policy])
            wins = rng.uniform(size=(100, 3, J)) < case.P[:, y].transpose(1, 0, 2)
            policy = case.step(policy, wins.mean(axis=-1), eta)
        found = kl(star, policy)
        if falling:
            bound = bounds.decaying_bound(first, rounds, case.beta, eps, case.L)
        else:
            bound = (1 + case.beta * eta0) ** -rounds * first + bounds.noise_floor(case.beta, eta0, eps)
        assert found.mean() - 5 * found.std() / 10 <= bound


@given(st.integers(1, 500), st.floats(0.01, 100))
def test_the_lower_bound(N, beta):
    """Theory 7.12: at most the Bayes risk of the two games, and the formula in 30 digits."""
    delta = 1 / (3 * np.sqrt(N))
    games_ = [normalise(np.array([s * delta / beta, 0.0])) for s in (1, -1)]
    laws = [binom.pmf(np.arange(N + 1), N, 0.5 + s * delta) for s in (1, -1)]
    mix = np.log((laws[0][:, None] * np.exp(games_[0]) + laws[1][:, None] * np.exp(games_[1])) / (sum(laws))[:, None])
    risk = sum(law @ kl(game, mix) for law, game in zip(laws, games_, strict=True)) / 2
    bound = float(bounds.comparisons_lower_bound(beta, N))
    assert 0 < bound <= risk * (1 + 1e-6) + 1e-15
    with mpmath.workdps(30):
        d = 1 / (3 * mpmath.sqrt(N))
        p = 1 / (1 + mpmath.exp(-d / beta))
        entropy = -p * mpmath.log(p) - (1 - p) * mpmath.log(1 - p) if p < 1 else mpmath.mpf(0)
        told = mpmath.sqrt(N * d * mpmath.log((1 + 2 * d) / (1 - 2 * d)))
        assert bound == pytest.approx(float((1 - told) * (mpmath.log(2) - entropy)), rel=1e-7)


def test_the_lower_bound_and_the_upper_have_one_order():
    """Theory 7.12 and 7.7: 1/(216 beta^2 N) below, with two responses and J coins each about 1/(beta^2 N) above."""
    beta, N = 1.0, 10**8
    below = bounds.comparisons_lower_bound(beta, N)
    assert below * 216 * beta**2 * N == pytest.approx(1, rel=1e-3)
    J, rounds = 1000, N // 2000
    eps = bounds.comparison_error(J, beta, bounds.wind_decaying_step(0, beta, 0.0))
    above = bounds.decaying_bound(0.1, rounds, beta, eps, 0.0)
    assert 1 < above / below < 1000


# -- bad input -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "arguments", "match"),
    [
        ("inexact_floor", (0.1, 0.1, 1.0), "share must be below 1"),
        ("inexact_floor", (0.1, 0.1, 2.0), "share"),
        ("comparison_error", (0, 0.1, 0.1), "comparisons"),
        ("comparison_error", (1, 0.1, 0.1, 2.0), "interaction"),
        ("wind_counterexample", (0.3, 0.3), "differ"),
        ("wind_late_step", (0.1, 1.0, 1.5), "distance"),
        ("optimistic_max_step", (-1.0,), "beta"),
        ("tangent_frequencies", (np.eye(2), [0.2, 0.3, 0.5]), "policy must have 2"),
        ("local_rate", (0.0, 1.0, 0.1), "beta"),
        ("local_max_step", (0.1, -1.0), "frequency"),
        ("omwu_local_rate", (0.0, 0.1), "eta"),
        ("nash_md_floor", (1.0, 1.0), "beta \\* eta < 1"),
        ("log_moment_bound", (-1.0,), "eta"),
        ("proximal_gap_bound", (0.1, [-1.0, -1.0], 0.5), "steps"),
        ("proximal_local_rate", (0.0, 1.0), "beta"),
        ("moving_local_rate", (0.1, 0.1, 0.1, 0.5), "every"),
        ("comparisons_lower_bound", (1.0, 0.5), "comparisons"),
        ("wrong_judge_bound", (0.0, 0.1), "beta"),
        ("hacking_beta", (0.1, 0.0), "loss"),
        ("true_win_rate_bound", (0.4, 0.1, 0.1), "judged must be at least 1/2"),
        ("hilbert_certificate", (1.0, -1.0, 0.1), "divergence"),
        ("one_step_bound", (np.nan, 0.1), "divergence"),
    ],
)
def test_bad_input(name, arguments, match):
    with pytest.raises(ValueError, match=match):
        getattr(bounds, name)(*arguments)


# -- the search for counterexamples ----------------------------------------------------------------------------


def test_the_search_for_counterexamples(tmp_path, capsys):
    """A small run of benchmarks/claims.py breaks no bound; a bound that is too good is broken by it."""
    import claims
    import pandas as pd

    claims.main(claims.Config(smoke=True, results=tmp_path))
    table = pd.read_csv(tmp_path / "claims.csv")
    assert list(table.statement) == [c.statement for c in claims.CLAIMS]
    assert np.all(table.largest_ratio[table.kind == "bound"] <= 1 + claims.SLACK)
    assert np.mean(table.largest_ratio > 0.2) > 0.8  # the search gets somewhere
    assert "bounds hold" in capsys.readouterr().out

    def boast(p):  # theory 2.10 with R^2/16
        R = span(p.policy - p.best_response(p.policy))
        return claims.ratio(kl(p.star, p.policy), R * R / 16)

    wrong = claims.Claim("wrong", "", "", boast)
    assert claims.climb(wrong, 3, 300, np.random.default_rng(0))[0] > 1.5


def test_the_committed_search():
    """The committed table has a row for each inequality, breaks no bound, and finds the two counterexamples."""
    import claims
    import pandas as pd

    table = pd.read_csv(claims.RESULTS / "claims.csv")
    assert list(zip(table.statement, table.inequality, strict=True)) == [
        (c.statement, c.inequality) for c in claims.CLAIMS
    ]
    assert np.all(table.largest_ratio[table.kind != "counterexample"] <= 1 + claims.SLACK)
    assert np.all(table.largest_ratio[table.kind == "counterexample"] > 1.005)
    assert np.all(table.evaluations >= 10_000)
    for function in table.function:
        module, _, name = function.rpartition(".")
        if module in ("bounds", "continuum", "operators"):
            assert hasattr(getattr(wg, module) if module != "operators" else wg, name), function


def test_the_search_leaves_out_nothing():
    """Every statement of the theory and every function of `bounds` is searched, or listed with the reason why not."""
    import claims

    text = (Path(wg.__file__).parent / "theory.md").read_text()
    stated = set(re.findall(r"^### (\d\.\d+) ", text, flags=re.M))
    searched = {c.statement.removeprefix("theory ") for c in claims.CLAIMS}
    assert searched | set(claims.WITHOUT_INEQUALITY) == stated
    assert not searched & set(claims.WITHOUT_INEQUALITY)
    public = {name for name, x in vars(bounds).items() if inspect.isfunction(x) and x.__module__ == bounds.__name__}
    public = {name for name in public if not name.startswith("_")} | {n for n in vars(bounds) if n.isupper()}
    examined = {c.function.removeprefix("bounds.") for c in claims.CLAIMS if c.function.startswith("bounds.")}
    assert examined | set(claims.EXACT) == public
    assert not examined & set(claims.EXACT)
