"""Theory section 5: rates of WIND and the extragradient, inexact steps, noise."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import windgames as wg
from windgames._array import hilbert, kl, log_normalize
from windgames.testing import betas, games, policies, random_matrix
from windgames.updates import target


def holds(trace):
    return np.all(trace.kl_from_solution <= trace.bound * (1 + 1e-9) + 1e-13)


@given(games(), st.floats(0.01, 1), st.sampled_from(["wind", "extragradient"]), st.data())
def test_the_bounds_hold_up_to_the_largest_step(game, share, name, data):
    """Theory 5.2 and 5.4 from any start, the step anywhere up to the limit that the game's own L allows."""
    limit = getattr(wg.bounds, f"{name}_max_step")(game.beta, game.interaction)
    eta = share * float(min(limit, 1e6))
    start = data.draw(policies(game.n_responses))
    star = wg.equilibrium(game)
    run = wg.solve(game, getattr(wg, name)(eta), tol=0, max_steps=40, start=start, reference_solution=star)
    assert run.trace.bound is not None
    assert holds(run.trace)


@given(games(beta=betas(0.01, 1)))
def test_the_papers_range(game):
    """Theory 5.1: eta <= beta, the range the paper proves."""
    star = wg.equilibrium(game)
    run = wg.solve(game, wg.wind(game.beta), tol=0, max_steps=60, reference_solution=star)
    assert holds(run.trace)


def one_step_ratio(P, rho, beta, eta, start):
    """Return (1 + beta eta) KL(pi*||pi_1) / KL(pi*||pi_0), without the library's rules."""
    game = wg.WinRateGame(wg.MatrixPreference(P), rho, beta)
    star = wg.equilibrium(game).log_policy
    after = (np.log(start) + beta * eta * np.log(rho) + eta * P @ start) / (1 + beta * eta)
    after -= np.log(np.exp(after - after.max()).sum()) + after.max()
    return (1 + beta * eta) * kl(star, after) / kl(star, np.log(start))


COUNTEREXAMPLE = {
    # Rock-paper-scissors, L = 3/4. Near the uniform equilibrium KL is multiplied by (1 + eta^2/12)/(1 + beta eta)^2,
    # so the bound breaks beyond eta = 12 beta, 6.75 beta/L^2, where the limit is 4 beta/L^2.
    "P": np.array([[0.5, 0.0, 1.0], [1.0, 0.5, 0.0], [0.0, 1.0, 0.5]]),
    "rho": np.full(3, 1 / 3),
    "beta": 0.2,
}


def test_beyond_the_limit_the_bound_breaks():
    """A stored counterexample: at 1.7 times the allowed step the bound of theory 5.2 is false."""
    P, rho, beta = COUNTEREXAMPLE.values()
    L = float(wg.bounds.interaction_constant(P))
    start = rho + 1e-3 * np.array([1.0, -1.0, 0.0])
    assert one_step_ratio(P, rho, beta, 4 * beta / L**2, start) <= 1
    assert one_step_ratio(P, rho, beta, 1.7 * 4 * beta / L**2, start) > 1
    # and far beyond, the last iterate does not converge
    game = wg.WinRateGame(wg.MatrixPreference(P), rho, beta)
    wild = wg.solve(game, wg.wind(160 * beta / L**2), max_steps=500, start=np.log(start))
    assert not wild.converged
    assert "outside theorem 5.2" in wild.status


def test_extragradient_beats_wind_at_small_beta(rng):
    """Theory 5.4: of the order of 1/(2 beta) steps a factor e, against 1/(4 beta^2)."""
    game = wg.WinRateGame(wg.MatrixPreference(random_matrix("cycle", 5, rng)), rng.dirichlet(np.ones(5)), 0.03)
    star = wg.equilibrium(game)
    wind, extra = (
        wg.solve(game, rule, tol=1e-6, max_steps=200_000, reference_solution=star).steps
        for rule in (wg.wind(), wg.extragradient())
    )
    assert extra * 5 < wind


@given(games(beta=betas(0.05, 2)), st.floats(0.05, 1), st.integers(0, 10**6))
def test_inexact_steps(game, share, seed):
    """Theory 5.5: adversarial errors of half-span eps leave at most (eps/beta)^2."""
    rng = np.random.default_rng(seed)
    beta, eta, eps = game.beta, 2 * share * game.beta, 0.3 * game.beta
    star = wg.equilibrium(game).log_policy
    log_pi = game.log_ref
    distance = kl(star, log_pi)
    for t in range(40):
        # the worst of a few errors: push away from the solution, with and against the gradient
        error = [eps * np.sign(log_pi - star), eps * np.sign(star - log_pi), eps * rng.choice([-1.0, 1.0], star.shape)]
        options = [
            log_normalize(target(log_pi, game.log_ref, game.payoff(log_pi) + e, beta=beta, eta=eta)) for e in error
        ]
        log_pi = max(options, key=lambda x: kl(star, x))
        after = kl(star, log_pi)
        assert (1 + beta * eta) * after <= distance + eta * eps**2 / beta + 1e-12
        bound = wg.bounds.geometric_bound(
            kl(star, game.log_ref),
            wg.bounds.linear_rate(beta, eta),
            np.array([t + 1]),
            wg.bounds.inexact_floor(beta, eps),
        )
        assert after <= bound[0] * (1 + 1e-9) + 1e-12
        distance = after


@settings(max_examples=10)
@given(games(beta=betas(0.1, 1), min_responses=2), st.floats(0.1, 1), st.integers(0, 10**6))
def test_noise_floor(game, share, seed):
    """Theory 5.6: under unbiased errors the mean over 400 runs stays below its floor, with room for the sample."""
    rng = np.random.default_rng(seed)
    beta, eta, eps = game.beta, 2 * share * game.beta, 0.5
    star = wg.equilibrium(game).log_policy
    log_pi = np.broadcast_to(game.log_ref, (400, game.n_responses))
    steps = 60
    for _ in range(steps):
        errors = eps * rng.choice([-1.0, 1.0], log_pi.shape)
        payoff = game.payoff(log_pi) + errors
        log_pi = log_normalize(target(log_pi, game.log_ref, payoff, beta=beta, eta=eta))
    found = kl(np.broadcast_to(star, log_pi.shape), log_pi)
    rate = wg.bounds.linear_rate(beta, eta)
    bound = rate**steps * kl(star, game.log_ref) + wg.bounds.noise_floor(beta, eta, eps)
    assert found.mean() - 5 * found.std() / 20 <= bound


def test_the_noise_floor_falls_with_eta():
    assert wg.bounds.noise_floor(0.1, 0.05, 0.365) < wg.bounds.noise_floor(0.1, 0.4, 0.365)
    assert wg.bounds.noise_floor(0.1, 0.4, 0.365) == pytest.approx(0.256, abs=1e-3)
    assert wg.bounds.inexact_floor(0.1, 0.365) == pytest.approx(13.3, abs=0.1)


@given(games(beta=betas(0.1, 1)), st.floats(0.05, 0.9))
def test_nash_md(game, share):
    """Theory 5.7: the bound on the last iterate, with 1/24 in place of the published 2."""
    eta = share / game.beta * 0.5
    star = wg.equilibrium(game)
    run = wg.solve(game, wg.nash_md(eta), tol=0, max_steps=60, reference_solution=star)
    assert holds(run.trace)


def test_rules_without_a_pull_leave_the_equilibrium():
    """Theory 5.7: SPPO and Nash-MD do not fix the regularised equilibrium."""
    game = wg.WinRateGame(
        wg.MatrixPreference([[0.5, 0.9, 0.3], [0.1, 0.5, 0.8], [0.7, 0.2, 0.5]]), [0.7, 0.2, 0.1], 0.3
    )
    star = wg.equilibrium(game).log_policy
    for rule in (wg.sppo(0.5), wg.nash_md(0.5)):
        moved = wg.solve(game, rule, tol=0, max_steps=1, start=star).log_policy
        assert hilbert(moved, star) > 1e-3
    for rule in (wg.wind(), wg.extragradient(), wg.omwu(0.2), wg.inpo(0.2)):
        moved = wg.solve(game, rule, tol=0, max_steps=1, start=star).log_policy
        assert hilbert(moved, star) < 1e-12
