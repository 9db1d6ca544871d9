"""Theorems that are nearly attained, and definitions checked by exact expectations: a wrong constant shows here."""

import mpmath
import numpy as np
import pytest

import windgames as wg
from windgames import bounds
from windgames.bandits import BestOfN, JBond, LogLinear, Oracle, Regression, Tabular, run
from windgames.games import with_rounding
from windgames.updates import target

PI = np.array([0.1, 0.2, 0.3, 0.4])
REF = np.array([0.4, 0.1, 0.2, 0.3])
"""With these two also their mean has only probabilities that are multiples of 1/20."""
GRID = (np.arange(20) + 0.5) / 20
"""Uniform numbers that draw each of twenty equal shares once."""
CYCLE = np.array([[0.5, 0.9, 0.2, 0.6], [0.1, 0.5, 0.7, 0.3], [0.8, 0.3, 0.5, 0.9], [0.4, 0.7, 0.1, 0.5]])


class Script:
    """In place of a random generator: uniform numbers in a given order, so that draws have exact proportions."""

    def __init__(self, *uniform):
        self.left = list(uniform)

    def random(self, shape):
        return np.broadcast_to(self.left.pop(0), shape)


def win_rate_game(matrix=CYCLE, beta=0.2):
    return wg.WinRateGame(wg.MatrixPreference(matrix), REF[None], beta)


# -- certificates --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.02, 0.1, 1.0])
@pytest.mark.parametrize("L", [0.3, 1.0])
def test_the_certificate_of_the_win_rate_game_is_nearly_attained(beta, L):
    """Theory 2.4: h(pi, pi*) <= (1 + L/(2 beta)) h(pi, BR(pi)), and no smaller factor will do.

    Two rare responses beat and lose to two frequent ones, each the other way round: a cycle of four. A policy that errs
    by r on the frequent ones, which the reference makes half and half, moves the win rates of the rare ones by L r/2.
    """
    even, low, high, rare, r = 0.5, 0.5 - L / 2, 0.5 + L / 2, 1e-7, 1e-3
    matrix = [[even, even, high, low], [even, even, low, high], [low, high, even, even], [high, low, even, even]]
    ref = np.array([0.5 - rare, 0.5 - rare, rare, rare])  # by symmetry the equilibrium itself
    game = wg.WinRateGame(wg.MatrixPreference(matrix), ref, beta)
    s = r / 2 + L * np.tanh(r / 2) / (2 * beta)
    x = np.log(ref) + np.array([r / 2, -r / 2, -s, s])
    x -= np.log(np.exp(x).sum())
    distance = np.ptp(x - np.log(ref))
    assert game.residual(x) == pytest.approx(r, rel=1e-3)
    assert distance <= game.hilbert_certificate(x) <= 1.001 * distance
    assert distance / r == pytest.approx(1 + L / (2 * beta), rel=1e-3)


def test_certificates_allow_for_the_rounding_of_payoffs_over_beta():
    """A fixed point of the best response in floating point is off the equilibrium by what a payoff's rounding is worth.

    With two classes of reward L = 0, and the equilibrium is known: the best ones gain exactly 1/(2 beta).
    """
    beta, rng = 1e-6, np.random.default_rng(0)
    ref = rng.dirichlet(np.ones(60))
    game = wg.WinRateGame(wg.RewardPreference([0.0] + [1.0] * 59), ref, beta)
    log_pi = game.log_ref
    for _ in range(5):
        log_pi = game.best_response(log_pi)
    with mpmath.workdps(40):
        gained = mpmath.mpf(1) / (2 * mpmath.mpf(beta))
        off = [mpmath.mpf(x) - mpmath.log(mpmath.mpf(r)) for x, r in zip(log_pi, ref, strict=True)]
        off = [off[0], *(x - gained for x in off[1:])]
        distance = max(off) - min(off)
    assert game.residual(log_pi) < 1e-13
    assert 1e-12 < distance <= game.hilbert_certificate(log_pi) < 1e-7


@pytest.mark.parametrize(("delta", "h"), [(1e-3, 1e-9), (1e-3, 4e-3), (1e-9, 4e-3), (2e-3, 1e-3)])
def test_the_allowance_in_a_kl_certificate_is_nearly_attained(delta, h):
    """Theory 1.3: KL(p||q') from KL(p||q) and h(q, q'), where all three are half and half up to small errors."""
    p, q = np.log([0.5 + delta, 0.5 - delta]), np.log([0.5, 0.5])
    other = wg.log_normalize(q + np.array([-h / 2, h / 2]))
    bound = with_rounding(wg.kl(p, q), np.asarray(h))
    assert (1 - 1e-12) * wg.kl(p, other) <= bound <= (1 + 1e-5) * wg.kl(p, other)


# -- theorems of rules -----------------------------------------------------------------------------------------

BETA = 0.2
FACTORS = [
    (wg.wind(0.3), 1 / (1 + BETA * 0.3), 0.0),
    (wg.extragradient(0.4), 1 / (1 + BETA * 0.4), 0.0),
    (wg.inpo(0.3), 1 - BETA * 0.3, 0.0),
    (wg.nash_md(0.3), 1 - BETA * 0.3, np.log(np.sinh(0.15) / 0.15) / (BETA * 0.3)),
]


@pytest.mark.parametrize(("rule", "factor", "floor"), FACTORS, ids=[rule.name for rule, *_ in FACTORS])
def test_the_bound_that_a_run_reports_is_that_of_its_theorem(rule, factor, floor):
    """Theory 5.2, 5.4, 5.7: factor and floor, from the divergence of the start on."""
    game = win_rate_game(beta=BETA)
    star = wg.equilibrium(game, tol=1e-13)
    found = wg.solve(game, rule, tol=0, max_steps=6, reference_solution=star)
    initial = np.sum(star.policy * (star.log_policy - game.log_ref))
    expected = initial * factor ** np.arange(7) + floor
    np.testing.assert_allclose(found.trace.bound[:, 0], expected, rtol=1e-9)
    assert found.trace.bound_on == "kl_from_solution"


@pytest.mark.parametrize(("n", "alpha1", "alpha2"), [(2, 0.3, 0.0), (4, 0.15, 0.1), (2.5, 0.3, 0.2)])
def test_iterative_best_of_n_contracts_by_its_factor_and_by_no_less(n, alpha1, alpha2):
    """Theory 3.7: n alpha1 + alpha2 in the Hilbert metric, attained where the worse of two responses is rare."""
    preference = wg.RewardPreference([0.0, 1.0], ties="weak")
    game = wg.LogWinRateGame.from_best_of_n(preference, [0.5, 0.5], n, alpha1, alpha2)
    rule = wg.iterative_bon(n, alpha1, alpha2)
    before = [wg.log_normalize(np.array([-x, 0.0])) for x in (20.0, 21.0)]
    after = [wg.solve(game, rule, tol=0, max_steps=1, start=x).log_policy for x in before]
    ratio = wg.hilbert(*after) / wg.hilbert(*before)
    assert ratio == pytest.approx(n * alpha1 + alpha2, rel=1e-6)
    assert ratio == pytest.approx(bounds.best_of_n_contraction(n, alpha1, alpha2), rel=1e-6)


@pytest.mark.parametrize(("beta", "L"), [(0.1, 1.0), (0.3, 0.5), (2.0, 1.0)])
def test_without_noise_the_decaying_step_has_the_rate_of_its_steps(beta, L):
    """Theory 7.7: the bound is the product of theory 5.2's factors; the first step is the largest where L counts."""
    steps = bounds.wind_decaying_step(np.arange(40), beta, L)
    assert np.all(steps <= bounds.wind_max_step(beta, L) * (1 + 1e-12))
    if 2 * beta**2 < L**2:
        assert steps[0] == pytest.approx(4 * beta / L**2)
    product = np.append(1.0, np.cumprod(1 / (1 + beta * steps)))
    np.testing.assert_allclose(bounds.decaying_bound(0.7, np.arange(41), beta, 0.0, L), 0.7 * product, rtol=1e-12)


@pytest.mark.parametrize("eta", [1e-3, 0.5, 5.0])
def test_the_bound_on_the_moment_of_win_rates_is_attained_without_atoms(eta):
    """Theory 3.13: log E exp(eta (P pi - 1/2)), which the floor of Nash-MD is made of, for a reward and many atoms."""
    m = 4000
    win = wg.RewardPreference(np.arange(m)).win_rate(np.full(m, -np.log(m)))
    found = np.log1p(np.mean(np.expm1(eta * (win - 0.5))))
    assert (1 - 1e-6) * bounds.log_moment_bound(eta) <= found <= (1 + 1e-9) * bounds.log_moment_bound(eta)


def test_noise_of_the_largest_size_at_every_step_attains_its_floor():
    """Theory 5.6 and 7.7: errors of both signs on halves of the equilibrium, where nothing but noise moves a policy."""
    beta, eps, even = 0.05, 1e-3, np.log([0.5, 0.5])

    def moved(eta):
        steps = [
            target(even, even, 0.5 + e, beta=beta, eta=eta) for e in (np.array([eps, -eps]), np.array([-eps, eps]))
        ]
        return np.mean([wg.kl(even, wg.log_normalize(x)) for x in steps])

    eta = 0.4
    floor = bounds.noise_floor(beta, eta, eps)
    assert floor == pytest.approx(floor / (1 + beta * eta) + moved(eta), rel=1e-5)  # noise makes up for the contraction
    bound = bounds.decaying_bound(0.0, 1, beta, eps)
    first = moved(bounds.wind_decaying_step(0, beta))
    assert 0.99 * bound < first <= bound


def test_constants_of_learning():
    """Theory 7.8 and 7.9: 2 sqrt(C) eps/beta, and 2 G^2/(mu n)."""
    assert bounds.coverage_floor(0.5, 0.3, 4.0) == pytest.approx(2.4)
    assert bounds.stability_bound(3.0, 2.0, 10) == pytest.approx(0.9)


@pytest.mark.parametrize(
    "reward", [[1.0], [1, 2], [1, 2, 2], [1, 2, 3], [3, 1, 2, 1], [4, 1, 3, 2], [1, 2, 3, 4, 4, 5]]
)
def test_the_interaction_of_a_reward_is_that_of_its_matrix(reward):
    """Theory 5.2's definition by enumeration, against theory 5.3's values."""
    preference = wg.RewardPreference(reward)
    P = preference.matrix()
    four = P[:, None, :, None] - P[None, :, :, None] - P[:, None, None, :] + P[None, :, None, :]
    assert preference.interaction == np.abs(four).max() / 2


# -- steps by hand ---------------------------------------------------------------------------------------------


def test_three_optimistic_steps_by_hand():
    """The payoff is 2 u(pi_t) - u(pi_{t-1}), and u(pi_0) at first."""
    eta, game = 0.7, win_rate_game(beta=BETA)
    before = now = np.log(PI)
    for _ in range(3):
        u = CYCLE @ (2 * np.exp(now) - np.exp(before))
        x = (now + BETA * eta * np.log(REF) + eta * u) / (1 + BETA * eta)
        before, now = now, x - np.log(np.exp(x).sum())
    found = wg.solve(game, wg.omwu(eta), tol=0, max_steps=3, start=np.log(PI)[None])
    np.testing.assert_allclose(found.log_policy[0], now, atol=1e-13)


def test_three_steps_of_the_extragradient_by_hand():
    """Both halves start from pi_t; the second takes the payoff against the first."""
    eta, game, now = 0.7, win_rate_game(beta=BETA), np.log(PI)
    for _ in range(3):
        there = now
        for _ in range(2):
            x = (now + BETA * eta * np.log(REF) + eta * CYCLE @ np.exp(there)) / (1 + BETA * eta)
            there = x - np.log(np.exp(x).sum())
        now = there
    found = wg.solve(game, wg.extragradient(eta), tol=0, max_steps=3, start=np.log(PI)[None])
    np.testing.assert_allclose(found.log_policy[0], now, atol=1e-13)


def test_two_steps_of_nash_md_by_hand():
    """Multiplicative weights from the mixture pi^(1 - eta beta) rho^(eta beta)."""
    eta, game, now = 0.7, win_rate_game(beta=BETA), np.log(PI)
    for _ in range(2):
        mixture = (1 - eta * BETA) * now + eta * BETA * np.log(REF)
        mixture -= np.log(np.exp(mixture).sum())
        x = mixture + eta * CYCLE @ np.exp(mixture)
        now = x - np.log(np.exp(x).sum())
    found = wg.solve(game, wg.nash_md(eta), tol=0, max_steps=2, start=np.log(PI)[None])
    np.testing.assert_allclose(found.log_policy[0], now, atol=1e-13)


# -- definitions -----------------------------------------------------------------------------------------------


def test_counted_win_rates_with_a_prior():
    """Pseudo-counts on both sides: (w_ij + a)/(w_ij + w_ji + 2 a)."""
    found = wg.from_counts([[0, 3, 0], [1, 0, 2.5], [0, 1.5, 0]], prior=0.5).matrix()
    np.testing.assert_allclose(found, [[0.5, 3.5 / 5, 0.5], [1.5 / 5, 0.5, 3 / 5], [0.5, 2 / 5, 0.5]])


def test_the_gap_at_beta_zero_is_the_best_response_s_win_rate_over_a_half():
    game = win_rate_game(beta=0.0)
    assert game.gap(np.log(PI)[None])[0] == pytest.approx(np.max(CYCLE @ PI) - 0.5, abs=1e-15)


def test_of_all_winners_the_one_nearest_to_the_reference():
    """Theory 2.6: rock, paper and scissors weigh a third each; two kinds of rock share it as the reference does."""
    game = np.array([[0.5, 0, 1], [1, 0.5, 0], [0, 1, 0.5]])[np.ix_([0, 0, 1, 2], [0, 0, 1, 2])]
    found = wg.equilibrium(wg.WinRateGame(wg.MatrixPreference(game), [0.1, 0.3, 0.4, 0.2], 0.0))
    np.testing.assert_allclose(found.policy, [1 / 12, 1 / 4, 1 / 3, 1 / 3], atol=1e-9)
    # a response that loses to all, to one kind of rock by less: no two responses are equal
    more = np.block([[game, np.array([[1.0], [0.9], [1.0], [1.0]])], [np.array([[0.0, 0.1, 0.0, 0.0, 0.5]])]])
    found = wg.equilibrium(wg.WinRateGame(wg.MatrixPreference(more), [0.1, 0.3, 0.3, 0.2, 0.1], 0.0))
    np.testing.assert_allclose(found.policy, [1 / 12, 1 / 4, 1 / 3, 1 / 3, 0], atol=1e-9)


@pytest.mark.parametrize("scale", [0.3, 2.0])
def test_the_derivative_by_a_reward_in_units_of_its_scale(scale):
    """Against differences of equilibria, in both directions of differentiation."""
    reward, moved, h = np.array([0.3, -0.2, 0.5, 0.0]), np.array([1.0, -0.5, 0.2, 0.7]), 1e-5

    def solved(r):
        return wg.equilibrium(wg.WinRateGame(wg.BradleyTerryPreference(r, scale), REF, 0.1), tol=1e-13)

    expected = (solved(reward + h * moved).log_policy - solved(reward - h * moved).log_policy) / (2 * h)
    found = wg.sensitivity(solved(reward))
    np.testing.assert_allclose(found.jvp(reward=moved), expected, atol=1e-6)
    assert found.vjp(PI)["reward"] @ moved == pytest.approx(PI @ expected, abs=1e-6)


def test_the_derivative_by_embeddings():
    """Against differences of equilibria, in both directions of differentiation, by embedding and skew matrix."""
    rng, h = np.random.default_rng(0), 1e-5
    a, moved = 0.4 * rng.normal(size=(4, 2)), rng.normal(size=(4, 2))
    skew, turned = np.array([[0.0, -1.0], [1.0, 0.0]]), np.array([[0.0, 0.5], [-0.5, 0.0]])

    def solved(x, y):
        return wg.equilibrium(wg.WinRateGame(wg.LowRankPreference(a + x * moved, skew + y * turned), REF, 0.1), 1e-13)

    found = wg.sensitivity(solved(0, 0))
    expected = (solved(h, 0).log_policy - solved(-h, 0).log_policy) / (2 * h)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(found.jvp(embedding=moved), expected, atol=1e-6)
    assert np.sum(found.vjp(PI)["embedding"] * moved) == pytest.approx(PI @ expected, abs=1e-6)
    expected = (solved(0, h).log_policy - solved(0, -h).log_policy) / (2 * h)
    np.testing.assert_allclose(found.jvp(skew=turned), expected, atol=1e-6)
    assert np.sum(found.vjp(PI)["skew"] * turned) == pytest.approx(PI @ expected, abs=1e-6)


@pytest.mark.parametrize("rare", [0.3, 1e-2, 1e-5, 1e-12])
def test_kl_is_its_definition(rare):
    """Where one policy is far below the other, and where it is far above; in 40 digits."""
    p, q = [rare, 0.4, 0.6 - rare], [0.5, 0.3, 0.2]
    with mpmath.workdps(40):
        to, back = (
            mpmath.fsum(a * mpmath.log(mpmath.mpf(a) / mpmath.mpf(b)) for a, b in zip(x, y, strict=True))
            for x, y in ((p, q), (q, p))
        )
    assert wg.kl(np.log(p), np.log(q)) == pytest.approx(float(to), rel=1e-13)
    assert wg.kl(np.log(q), np.log(p)) == pytest.approx(float(back), rel=1e-13)


# -- learners on draws in exact proportion -----------------------------------------------------------------------


@pytest.mark.parametrize("pairing", ["group", "leave-one-out"])
@pytest.mark.parametrize("risk", ["squared", "kl", "nce"])
def test_a_table_on_draws_in_proportion_takes_the_exact_step(pairing, risk):
    """Theory 7.2: a group that holds every response in proportion has the exact win rates, up to its own size."""
    game, k = win_rate_game(), 20
    learner = Regression(wg.wind(0.5), draws=k, pairing=pairing, risk=risk)
    policy = Tabular(np.log(REF))
    state = learner.start(policy, game, ()) | {"current": np.log(PI)[None]}
    oracle = Oracle(game.preference, certain=True)
    after = learner.step(state, policy, game, oracle, slice(None), Script(GRID))["current"]
    exact = wg.solve(game, wg.wind(0.5), tol=0, max_steps=1, start=np.log(PI)[None])
    np.testing.assert_allclose(wg.log_normalize(after), exact.log_policy, atol=1e-12)
    assert oracle.queries == k * (k - 1) / 2


@pytest.mark.parametrize("risk", ["squared", "kl"])
def test_the_mixture_sampler_has_the_expectations_of_the_policy(risk):
    """Draws of half policy, half reference, weighted by policy over mixture: the minimiser is that over the policy.

    Two features cannot express the step, so the weights decide which errors are small. The draws hold every response in
    proportion to the mixture, so what is compared are exact expectations.
    """
    features = np.stack([np.log(PI / REF), [1.0, -1.0, 0.5, 0.2]], axis=-1)[None]
    policy, game = LogLinear(np.log(REF), features), win_rate_game()
    theta = np.array([1.0, 0.0])
    np.testing.assert_allclose(np.exp(policy.log_policy(theta)), PI[None])
    found = {}
    for sampler in ("mixture", "all"):
        learner = Regression(wg.wind(0.5), draws=20, opponents="all", sampler=sampler, risk=risk)
        state = learner.start(policy, game, ()) | {"current": theta, "previous": theta}
        oracle = Oracle(game.preference, certain=True)
        found[sampler] = learner.step(state, policy, game, oracle, slice(None), Script(GRID))["current"]
    np.testing.assert_allclose(found["mixture"], found["all"], atol=1e-12 if risk == "squared" else 1e-6)
    # by hand: weighted least squares of the centred payoff on centred features
    if risk == "squared":
        x, u = features[0] - PI @ features[0], CYCLE @ PI - 0.5
        goal = (theta @ (features[0] - PI @ features[0]).T + 0.5 * u) / (1 + 0.2 * 0.5)
        expected = np.linalg.solve(x.T @ (PI[:, None] * x), x.T @ (PI * goal))
        np.testing.assert_allclose(found["all"], expected, atol=1e-12)


@pytest.mark.parametrize("risk", ["squared", "kl"])
def test_labels_against_other_policies_are_centred(risk):
    """An optimistic step against opponents of two policies: 2 P pi - P pi' does not average to a half by itself."""
    policy, past = Tabular(np.log(REF)), np.array([0.1, 0.1, 0.7, 0.1])
    game, eta = win_rate_game(), 0.5
    learner = Regression(wg.omwu(eta), draws=20, opponents="all", risk=risk)
    state = learner.start(policy, game, ()) | {"current": np.log(PI)[None], "previous": np.log(past)[None]}
    oracle = Oracle(game.preference, certain=True)
    after = learner.step(state, policy, game, oracle, slice(None), Script(GRID))["current"]
    u = CYCLE @ (2 * PI - past)
    assert abs(PI @ u - 0.5) > 0.05
    expected = wg.log_normalize((np.log(PI) + 0.2 * eta * np.log(REF) + eta * u) / (1 + 0.2 * eta))
    np.testing.assert_allclose(wg.log_normalize(after)[0], expected, atol=1e-12 if risk == "squared" else 1e-5)


def test_the_anchor_of_jbond_moves_by_its_rate():
    learner, policy, game = JBond(rate=0.5, anchor_rate=0.1), Tabular(np.log(REF)), win_rate_game()
    state, rng = learner.start(policy, game, ()), np.random.default_rng(0)
    for _ in range(3):
        after = learner.step(state, policy, game, Oracle(game.preference), slice(None), rng)
        assert np.abs(after["current"] - state["anchor"]).max() > 0.01
        np.testing.assert_allclose(after["anchor"], 0.9 * state["anchor"] + 0.1 * after["current"], atol=1e-15)
        state = after


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_distillation_makes_room_for_the_reference(share):
    """All pairs of draws in proportion: the step is the rate times (1 - a) B_2(pi) + a rho - pi."""
    learner, policy = BestOfN(n=2, rate=0.5, draws=400, reference_share=share), Tabular(np.log(REF))
    preference = wg.RewardPreference([[0.0, 1.0, 2.0, 1.0]])
    game = wg.WinRateGame(preference, REF[None], 0.2)
    state = learner.start(policy, game, ()) | {"current": np.log(PI)[None]}
    script = Script(np.repeat(GRID, 20), np.tile(GRID, 20), np.tile(GRID, 20))
    after = learner.step(state, policy, game, Oracle(preference), slice(None), script)["current"]
    best = np.array([0.1**2, 0.7**2 - 0.1**2, 1 - 0.7**2, 0.7**2 - 0.1**2]) * np.array([1, 0.2 / 0.6, 1, 0.4 / 0.6])
    expected = np.log(PI) + 0.5 * ((1 - share) * best + share * REF - PI)
    np.testing.assert_allclose(after[0], expected, atol=1e-12)


def test_a_learner_is_graded_in_both_directions_of_kl():
    game = win_rate_game()
    found = run(Regression(wg.wind(0.5)), game, Oracle(game.preference), np.random.default_rng(0), rounds=5)
    star, p = wg.equilibrium(game).policy[0], np.exp(found.log_policy[0])
    to, back = np.sum(p * np.log(p / star)), np.sum(star * np.log(star / p))
    assert abs(to - back) > 1e-3 * to
    assert found.trace["kl_to_solution"][-1, 0] == pytest.approx(to)
    assert found.trace["kl_from_solution"][-1, 0] == pytest.approx(back)
