"""Rates and constants against brute force that shares no code with the package (theory 1 to 5)."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windgames import bounds
from windgames.testing import matrices

seeds = st.integers(0, 2**32 - 1)
betas = st.floats(-1.5, 1).map(lambda x: 10**x)


def constant_sum(rng, m):
    upper = np.triu(rng.choice([0.0, 0.5, 1.0], (m, m)) if rng.random() < 0.5 else rng.random((m, m)), 1)
    return upper + np.tril(1 - upper.T, -1) + 0.5 * np.eye(m)


def half_ties(r):
    return (r[:, None] > r) + 0.5 * (r[:, None] == r)


def normalise(z):
    z = z - z.max()
    return z - np.log(np.exp(z).sum())


def win_rate_equilibrium(P, rho, beta):
    z, eta = np.log(rho), 4 * beta
    for _ in range(20_000):
        new = normalise((z + beta * eta * np.log(rho) + eta * P @ np.exp(z)) / (1 + beta * eta))
        done = np.abs(new - z).max() < 1e-14
        z = new
        if done:
            break
    return z


mixings = st.tuples(st.floats(1.01, 50), st.floats(0.01, 1), st.floats(0, 1)).map(
    lambda x: (x[0], x[1], x[2] * (1 - x[1]))
)


@given(mixings)
def test_mixing_is_the_same_target(mixing):
    """Theory 3.5: the three exponents of iterative best-of-n are those of WIND's step."""
    n, a1, a2 = mixing
    beta, eta = bounds.implied_beta(*mixing), bounds.implied_eta(*mixing)
    assert 1 / (1 + beta * eta) == pytest.approx(a1 + a2)
    assert beta * eta / (1 + beta * eta) == pytest.approx(1 - a1 - a2, abs=1e-12)
    assert eta / (1 + beta * eta) == pytest.approx((n - 1) * a1)
    factor = bounds.best_of_n_contraction(*mixing)
    if beta > 0:
        assert factor == pytest.approx(bounds.log_payoff_contraction(beta, eta))
    if abs(beta - 1) > 1e-9:
        assert (factor < 1) == (beta > 1)


def test_mixing_broadcasts():
    n = np.array([2.0, 4.0])[:, None]
    beta = bounds.implied_beta(n, [0.1, 0.2, 0.5])
    assert beta.shape == (2, 3)
    assert beta[1, 2] == bounds.implied_beta(4, 0.5) == pytest.approx(1 / 3)


@given(seeds, st.integers(1, 5))
def test_interaction_and_birkhoff_by_enumeration(seed, m):
    """Theory 5.2 and 3.7: all quadruples of indices, against the loop over rows; a batch is a loop."""
    rng = np.random.default_rng(seed)
    batch = rng.random((2, m, m)) + 0.01
    for P, inter, kappa in zip(
        batch, bounds.interaction_constant(batch), bounds.birkhoff_contraction(batch), strict=True
    ):
        quads = list(product(range(m), repeat=4))
        brute = max(abs(P[i, j] - P[k, j] - P[i, h] + P[k, h]) for i, k, j, h in quads) / 2
        delta = max(np.log(P[i, j] * P[k, h] / (P[k, j] * P[i, h])) for i, k, j, h in quads)
        assert inter == pytest.approx(brute, abs=1e-14)
        assert kappa == pytest.approx(np.tanh(delta / 4), abs=1e-14)


@given(seeds, st.integers(2, 5))
def test_constants_bound_what_they_are_for(seed, m):
    """Theory 5.2: span of A(p - q); theory 3.7: log P is kappa-Lipschitz."""
    rng = np.random.default_rng(seed)
    P = constant_sum(rng, m)
    p, q = rng.dirichlet(np.ones(m), 2) + 1e-6
    p, q = p / p.sum(), q / q.sum()
    assert np.ptp(P @ (p - q)) <= bounds.interaction_constant(P) * np.abs(p - q).sum() + 1e-13
    ratio = np.log(P @ p) - np.log(P @ q)
    assert np.ptp(ratio) <= bounds.birkhoff_contraction(P) * np.ptp(np.log(p / q)) + 1e-12


def test_birkhoff_is_the_smallest_constant():
    P = np.array([[0.5, 0.9], [0.1, 0.5]])
    x = np.linspace(-8, 8, 4001)
    p = np.stack([1 / (1 + np.exp(-x)), 1 / (1 + np.exp(x))])
    slope = np.abs(np.gradient(np.subtract(*np.log(P @ p)), x))
    assert slope.max() == pytest.approx(bounds.birkhoff_contraction(P), rel=1e-5)


def test_birkhoff_of_zero_patterns():
    assert bounds.birkhoff_contraction([[1.0, 2.0], [2.0, 4.0]]) == pytest.approx(0, abs=1e-15)
    assert bounds.birkhoff_contraction([[1.0, 0.0], [1.0, 1.0]]) == 1
    plain = bounds.birkhoff_contraction([[1.0, 3.0], [2.0, 5.0]])
    padded = bounds.birkhoff_contraction([[0, 1.0, 3.0], [0, 2.0, 5.0], [0, 2.0, 5.0]])
    assert padded == pytest.approx(plain)
    with pytest.raises(ValueError, match="zero row"):
        bounds.birkhoff_contraction([[0.0, 0.0], [1.0, 1.0]])


@given(seeds, st.integers(1, 6), st.integers(0, 3))
def test_interaction_of_rewards(seed, classes, copies):
    """Theory 5.3: exactly 0, 0, 1/4, 1/2 for one, two, three, more values; Bradley-Terry at most 1/2."""
    rng = np.random.default_rng(seed)
    values = rng.permutation(10)[:classes].astype(float)
    r = rng.permutation(np.concatenate([values, rng.choice(values, copies)]))
    assert bounds.interaction_constant(half_ties(r)) == [0, 0, 0.25, 0.5, 0.5, 0.5][classes - 1]
    assert bounds.interaction_constant(1 / (1 + np.exp((r - r[:, None]) / rng.choice([0.1, 1, 10])))) <= 0.5


@given(matrices(max_responses=12), st.integers(0, 2**32 - 1))
def test_the_quick_bound_on_interaction(P, seed):
    """It is zero where payoffs are additive and nothing depends on the opponent."""
    L, bound = bounds.interaction_constant(P), bounds.interaction_bound(P)
    assert bound + 1e-15 >= L
    assert bound <= 1
    level = np.random.default_rng(seed).uniform(0, 0.5, len(P))
    assert bounds.interaction_bound(0.5 + level[:, None] - level) <= 1e-15


def test_interaction_of_a_cycle_is_one():
    m = 5
    ahead = (np.arange(m) - np.arange(m)[:, None]) % m
    assert bounds.interaction_constant(np.where(ahead == 0, 0.5, ahead <= 2)) == 1


@given(betas, st.floats(0.01, 1))
def test_steps_solve_their_quadratics(beta, L):
    """Theory 5.2, 5.4: where the AM-GM steps of the proofs hold with equality."""
    eta = bounds.wind_max_step(beta, L)
    assert (eta * L) ** 2 == pytest.approx(4 * eta * beta)
    eta = bounds.extragradient_max_step(beta, L)
    assert (eta * L) ** 2 == pytest.approx(4 * (1 + eta * beta))


@settings(max_examples=30)
@given(seeds, st.integers(2, 5), betas, st.floats(0.05, 1))
def test_rates_hold(seed, m, beta, part):
    """Theory 5.2, 5.4 and 5.5 on one step from a random policy."""
    rng = np.random.default_rng(seed)
    P, rho = constant_sum(rng, m), rng.dirichlet(np.ones(m)) + 1e-9
    rho = rho / rho.sum()
    z = win_rate_equilibrium(P, rho, beta)
    start = normalise(np.log(rng.dirichlet(np.ones(m)) + 1e-9))
    before = np.exp(z) @ (z - start)

    def step(eta, payoff):
        return normalise((start + beta * eta * np.log(rho) + eta * payoff) / (1 + beta * eta))

    L = bounds.interaction_constant(P) or 1e-3
    eta = part * bounds.wind_max_step(beta, L)
    after = np.exp(z) @ (z - step(eta, P @ np.exp(start)))
    assert after <= bounds.linear_rate(beta, eta) * before * (1 + 1e-9) + 1e-12
    eta = part * bounds.extragradient_max_step(beta, L)
    after = np.exp(z) @ (z - step(eta, P @ np.exp(step(eta, P @ np.exp(start)))))
    assert after <= bounds.linear_rate(beta, eta) * before * (1 + 1e-9) + 1e-12
    eta, error = part * 2 * beta / L**2, rng.normal(size=m)
    floor = bounds.inexact_floor(beta, np.ptp(error) / 2)
    after = np.exp(z) @ (z - step(eta, P @ np.exp(start) + error))
    factor = bounds.linear_rate(beta, eta)
    assert after <= (factor * before + (1 - factor) * floor) * (1 + 1e-9) + 1e-12


@settings(max_examples=30)
@given(seeds, st.integers(2, 5), betas, st.floats(0.05, 0.95))
def test_nash_md_needs_a_twenty_fourth(seed, m, beta, part):
    """Theory 5.7: eta^2/24 is enough where the published bound has 2 eta^2."""
    rng = np.random.default_rng(seed)
    P, rho = constant_sum(rng, m), rng.dirichlet(np.ones(m)) + 1e-9
    rho, eta = rho / rho.sum(), part / beta
    z = win_rate_equilibrium(P, rho, beta)
    start = normalise(np.log(rng.dirichlet(np.ones(m)) + 1e-9))
    mixture = normalise((1 - part) * start + part * np.log(rho))
    after = normalise(mixture + eta * P @ np.exp(mixture))
    p = np.exp(z)
    assert p @ (z - after) <= ((1 - part) * (p @ (z - start)) + eta**2 / 24) * (1 + 1e-9) + 1e-12


def test_unbiased_noise_floor_holds_in_the_mean():
    """Theory 5.6 by simulation; the floor is far below the worst case."""
    rng = np.random.default_rng(0)
    P, rho, beta, eta = constant_sum(rng, 4), np.full(4, 0.25), 0.2, 0.3
    z = win_rate_equilibrium(P, rho, beta)
    log_pi, total = np.tile(np.log(rho), (400, 1)), 0.0
    for t in range(300):
        p = np.exp(log_pi)
        noise = rng.choice([-0.3, 0.3], size=p.shape)
        log_pi = (log_pi + beta * eta * np.log(rho) + eta * (p @ P.T + noise)) / (1 + beta * eta)
        log_pi -= np.log(np.exp(log_pi).sum(axis=1, keepdims=True))
        if t >= 200:
            total += ((z - log_pi) @ np.exp(z)).mean() / 100
    floor = bounds.noise_floor(beta, eta, 0.3)
    assert 0 < total <= floor < bounds.inexact_floor(beta, 0.3)


@given(seeds, st.integers(2, 5), betas)
def test_certificates(seed, m, beta):
    """Theory 1.3, 2.3, 2.4 for a policy that is not the equilibrium."""
    rng = np.random.default_rng(seed)
    P, rho = constant_sum(rng, m), rng.dirichlet(np.ones(m)) + 1e-9
    rho = rho / rho.sum()
    z = win_rate_equilibrium(P, rho, beta)
    y = normalise(z + rng.normal(size=m) * rng.choice([0.01, 1]))
    response = normalise(np.log(rho) + P @ np.exp(y) / beta)
    residual = np.ptp(y - response)
    assert np.exp(y) @ (y - z) <= np.exp(y) @ (y - response) * (1 + 1e-9) + 1e-12
    assert np.exp(y) @ (y - response) <= bounds.kl_from_hilbert(residual) * (1 + 1e-9) + 1e-12
    factor = bounds.hilbert_certificate_factor(beta, bounds.interaction_constant(P))
    assert np.ptp(y - z) <= factor * residual * (1 + 1e-9) + 1e-10


@given(seeds, st.integers(2, 5), st.floats(0.05, 5))
def test_log_certificate(seed, m, excess):
    """Theory 2.5: the log-win-rate game of a positive matrix, beta above kappa."""
    rng = np.random.default_rng(seed)
    P, rho = rng.random((m, m)) + 0.05, rng.dirichlet(np.full(m, 3.0)) + 1e-6
    rho = rho / rho.sum()
    kappa = bounds.birkhoff_contraction(P)
    beta = kappa * (1 + excess) + 1e-3
    z = np.log(rho)
    for _ in range(1000):
        z = normalise(np.log(rho) + np.log(P @ np.exp(z)) / beta)
    y = normalise(z + rng.normal(size=m))
    residual = np.ptp(y - normalise(np.log(rho) + np.log(P @ np.exp(y)) / beta))
    assert np.ptp(y - z) <= bounds.log_hilbert_certificate_factor(beta, kappa) * residual * (1 + 1e-9) + 1e-10


def test_kl_from_hilbert_is_nearly_attained():
    p = np.array([0.5, 0.5])
    q = np.exp(normalise(np.array([0.005, -0.005])))
    assert p @ np.log(p / q) == pytest.approx(bounds.kl_from_hilbert(0.01), rel=1e-4)
    assert bounds.kl_from_hilbert(np.array([0.0, 20.0, np.inf])).tolist() == [0, 20, np.inf]


@given(st.floats(1.0, 200), seeds)
def test_best_of_n_kl(n, seed):
    """Theory 3.4: the bound holds with ties and becomes the value as atoms vanish."""
    rng = np.random.default_rng(seed)
    for p in (rng.dirichlet(np.ones(5)), np.full(20_000, 1 / 20_000)):
        F = np.concatenate([[0.0], np.cumsum(p)]) / p.sum()
        best = np.diff(F**n)
        kl = best @ np.log(np.maximum(best, 1e-300) / p)
        assert kl <= bounds.best_of_n_kl_bound(n) + 1e-10
    assert kl == pytest.approx(bounds.best_of_n_kl_bound(n), rel=0.01, abs=1e-4)


@given(seeds, st.integers(2, 6))
def test_two_draws_of_any_constant_sum_preference(seed, m):
    """Theory 3.3 and 3.4 for n = 2: 2 pi (P pi) is normalised and within log 2 - 1/2 of pi."""
    rng = np.random.default_rng(seed)
    P, p = constant_sum(rng, m), rng.dirichlet(np.ones(m))
    best = 2 * p * (P @ p)
    assert best.sum() == pytest.approx(1)
    played = best > 0
    assert best[played] @ np.log(best[played] / p[played]) <= bounds.best_of_n_kl_bound(2) + 1e-12


@given(st.floats(0.02, 0.98), st.floats(0.005, 0.995))
def test_collapse_is_sharp_for_two_responses(beta, top):
    """Theory 3.9: the index is below 1 exactly if (1 - x) K = x^(1 - 1/beta) has no root x in (0, 1)."""
    index = bounds.collapse_index(beta, top)
    if abs(np.log(index)) < 1e-4:
        return
    s, x = 1 / beta - 1, 1 / (1 + np.exp(-np.linspace(-25, 25, 100_001)))
    equation = np.log(1 - x) + s * np.log(x) + np.log((1 - top) / top)
    assert (equation.max() > 0) == (index > 1)


@pytest.mark.parametrize("beta", [1.0, 1 - 1e-12, 0.3, 1e-3, 1e-9, 1e-15, 1e-18])
def test_collapse_index_in_high_precision(beta):
    mp = pytest.importorskip("mpmath")
    with mp.workdps(60):
        s = 1 / mp.mpf(beta) - 1
        power = mp.mpf(1) if s == 0 else mp.exp(s * mp.log(s) - (1 + s) * mp.log(1 + s))
        exact = float((1 - mp.mpf(0.1)) / mp.mpf(0.1) * power)
    assert bounds.collapse_index(beta, 0.1) == pytest.approx(exact, rel=1e-12)


def test_bistability():
    """Theory 3.8: rho = (.99, .01), beta = 1/2: from the reference to 1 - T, from above to the top."""
    low = (1 - np.sqrt(95 / 99)) / 2
    assert 1 - low == pytest.approx(0.98979, abs=1e-5)
    assert bounds.collapse_index(0.5, 0.01) > 1
    log_ref = np.log([0.99, 0.01])

    def run(z):
        for _ in range(200):
            with np.errstate(divide="ignore"):
                z = normalise(log_ref + 2 * np.log(np.cumsum(np.exp(z))))
        return np.exp(z[1])

    assert run(log_ref) == pytest.approx(low, rel=1e-12)
    assert run(np.log([low - 1e-3, 1 - low + 1e-3])) == 1
    assert run(np.log([low + 1e-3, 1 - low - 1e-3])) == pytest.approx(low, rel=1e-9)


@settings(max_examples=40)
@given(seeds, st.integers(2, 6), st.floats(-1.1, 1).map(lambda x: 10**x))
def test_top_mass_of_the_win_rate_equilibrium(seed, m, beta):
    """Theory 4.1: a valid bound with ties, exact for two classes, and never weaker than the implicit one."""
    rng = np.random.default_rng(seed)
    r, rho = rng.integers(0, 4, m), rng.dirichlet(np.ones(m)) + 1e-6
    rho = rho / rho.sum()
    top = r == r.max()
    off = np.exp(win_rate_equilibrium(half_ties(r), rho, beta))[~top].sum()
    mass = rho[top].sum()
    bound = bounds.win_rate_top_deficit(beta, mass)
    assert off <= bound * (1 + 1e-8) + 1e-15
    assert bounds.win_rate_top_mass(beta, mass) == 1 - bound
    if len(np.unique(r)) == 2:
        assert off == pytest.approx(bound, rel=1e-7)
    T = 1 - bound
    assert bound <= (1 - mass) / mass * T * np.exp(-T / (2 * beta)) * (1 + 1e-9) + 1e-15


def test_top_deficit_without_cancellation():
    assert bounds.win_rate_top_deficit(1 / 1300, 0.5) == pytest.approx(np.exp(-650), rel=1e-10)
    assert bounds.win_rate_top_deficit([0.1, 1e-320], [1.0, 0.5]).tolist() == [0.0, 0.0]


@given(seeds, st.integers(2, 5), st.floats(0.08, 0.95))
def test_distance_of_the_two_games(seed, m, beta):
    """Theory 4.2: total variation between the win-rate and the log-win-rate equilibrium reached from rho."""
    rng = np.random.default_rng(seed)
    r, rho = rng.integers(0, 3, m), rng.dirichlet(np.ones(m)) + 1e-6
    rho = rho / rho.sum()
    p = np.exp(win_rate_equilibrium(half_ties(r), rho, beta))
    q, weak = rho, (r[:, None] >= r).astype(float)
    for _ in range(3000):
        q = rho * (weak @ q) ** (1 / beta)
        q = q / q.sum()
    mass = rho[r == r.max()].sum()
    if mass < 1 and abs(bounds.collapse_index(beta, mass) - 1) < 0.05:
        return
    assert np.abs(p - q).sum() / 2 <= bounds.equilibria_distance_bound(beta, mass) + 1e-9


def test_distance_bound_jumps_where_nothing_is_proven():
    assert bounds.equilibria_distance_bound(2.0, 0.3) == 0.7
    assert bounds.equilibria_distance_bound(0.5, 0.01) == 0.99
    assert bounds.equilibria_distance_bound(0.01, 0.3) == bounds.win_rate_top_deficit(0.01, 0.3) < 1e-20


def test_projection_needs_the_inequalities():
    """Theory 2.6: where the equations alone hold, (P pi) <= 1/2 may fail off the support."""
    P = np.array([[0.5, 0.5, 0.2], [0.5, 0.5, 0.8], [0.8, 0.2, 0.5]])
    rho = np.array([0.8, 0.1, 0.1])
    on_equations = np.array([8 / 9, 1 / 9, 0])
    np.testing.assert_allclose((P @ on_equations)[:2], 0.5)
    assert (P @ on_equations)[2] > 0.7
    beta = 1e-3
    limit = np.exp(win_rate_equilibrium_by_extragradient(P, rho, beta))
    np.testing.assert_allclose(limit, [0.5, 0.5, 0], atol=0.01)


def win_rate_equilibrium_by_extragradient(P, rho, beta):
    z, log_ref, eta = np.log(rho), np.log(rho), bounds.extragradient_max_step(beta)
    for _ in range(20_000):
        half = normalise((z + beta * eta * log_ref + eta * P @ np.exp(z)) / (1 + beta * eta))
        z = normalise((z + beta * eta * log_ref + eta * P @ np.exp(half)) / (1 + beta * eta))
    return z


def test_atoms_are_classes():
    """Theory 3.2: with all responses in two classes the two forms differ however many responses there are."""
    p = np.full(1000, 1 / 1000)
    upper = np.arange(1000) >= 500
    exact, power = 1 - 0.5**2, 1 / (1 + 0.5)
    F = np.where(upper, 1.0, 0.5)
    assert (p * F)[upper].sum() / (p * F).sum() == pytest.approx(power)
    assert exact - power == pytest.approx(1 / 12)


def test_geometric_bound():
    values = bounds.geometric_bound([1.0, np.inf], [0.5, 0.0], np.arange(3), 0.1)
    np.testing.assert_allclose(values, [[1.1, 0.6, 0.35], [np.inf] * 3])
    assert bounds.linear_rate(0.0, np.inf) == 1
    assert bounds.linear_rate(2.0, np.inf) == 0
    assert bounds.log_payoff_contraction(2.0, np.inf, 0.5) == 0.25
    assert bounds.log_payoff_contraction(2.0, 3.0, 0.5) == pytest.approx(2.5 / 7)
    assert bounds.log_hilbert_certificate_factor([0.5, 1.0, 2.0], 1.0).tolist() == [np.inf, np.inf, 2.0]
    assert bounds.wind_max_step(0.5, [0.0, 0.5, 1.0]).tolist() == [np.inf, 8.0, 2.0]


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("implied_beta", (1, 0.5), "n must"),
        ("implied_beta", (np.nan, 0.5), "n must"),
        ("implied_beta", (2, 0.0), "alpha1"),
        ("implied_eta", (2, 0.5, -0.1), "alpha2"),
        ("best_of_n_contraction", (2, 0.8, 0.3), "sum at most 1"),
        ("implied_beta", ("two", 0.5), "real numbers"),
        ("best_of_n_kl_bound", (0.5,), "n must"),
        ("interaction_constant", ([[0.5, 1.0]],), "shape"),
        ("interaction_constant", ([[0.5, np.nan], [1.0, 0.5]],), "finite"),
        ("birkhoff_contraction", ([[0.5, -1.0], [1.0, 0.5]],), "-1"),
        ("wind_max_step", (-0.1,), "beta"),
        ("wind_max_step", (0.1, 1.1), "interaction"),
        ("extragradient_max_step", (np.inf,), "beta"),
        ("linear_rate", (0.1, 0.0), "eta"),
        ("geometric_bound", (np.nan, 0.5, 3), "initial"),
        ("geometric_bound", (1.0, -0.5, 3), "factor"),
        ("geometric_bound", (1.0, 0.5, -1), "steps"),
        ("inexact_floor", (0.0, 0.1), "beta"),
        ("inexact_floor", (0.1, -0.1), "eps"),
        ("noise_floor", (0.1, np.inf, 0.1), "eta"),
        ("log_payoff_contraction", (1.0, 1.0, np.nan), "kappa"),
        ("hilbert_certificate_factor", (0.0,), "beta"),
        ("log_hilbert_certificate_factor", (1.0, 2.0), "kappa"),
        ("kl_from_hilbert", (-1.0,), "h must"),
        ("collapse_index", (1.5, 0.5), "at most 1"),
        ("collapse_index", (0.5, 0.0), "top_mass"),
        ("win_rate_top_deficit", (0.5, 1.1), "top_mass"),
        ("win_rate_top_mass", (0.0, 0.5), "beta"),
        ("equilibria_distance_bound", (np.nan, 0.5), "beta"),
    ],
)
def test_bad_input(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        getattr(bounds, name)(*arguments)
