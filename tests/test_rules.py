"""Every rule under one battery, against what it declares."""

import numpy as np
import pytest
from rules import EXAMPLES, IDS, WIN_RATE

import windgames as wg
from windgames._array import hilbert, log_normalize
from windgames.testing import check_rule, random_matrix, random_reference
from windgames.updates import Guarantee, Plan, Stage, target


@pytest.mark.parametrize(("rule", "games"), EXAMPLES, ids=IDS)
def test_battery(rule, games):
    report = check_rule(rule, games)
    assert len(report) == len(games)
    assert all("torch" in line and "array_api_strict" in line for line in report)


class TestTheBatteryCanFail:
    """check_rule must catch wrong rules, or its verdicts mean nothing."""

    class Wrong:
        name = "wrong"

        def __init__(self, stage, guarantee=None):
            self.stage, self.guarantee = stage, guarantee

        def plan(self, game):
            return Plan((self.stage(game),), {}, "equilibrium", self.guarantee and self.guarantee(game))

    def test_catches_a_wrong_fixed_point(self):
        with pytest.raises(AssertionError, match="moves the equilibrium"):
            check_rule(self.Wrong(lambda g: Stage(2 * g.beta, 0.1)), WIN_RATE)

    def test_catches_a_bound_that_is_too_good(self):
        def boast(g):
            return Guarantee("boast", "kl_from_solution", np.asarray(0.5))

        with pytest.raises(AssertionError, match="breaks boast"):
            check_rule(self.Wrong(lambda g: Stage(g.beta, 0.01), boast), WIN_RATE)

    def test_catches_a_preference_for_the_first_response(self):
        class First(self.Wrong):
            def plan(self, game):
                class Tilted(Stage):
                    def run(self, game, slots, payoff):
                        out = super().run(game, slots, payoff)
                        return log_normalize(out + 0 * out + np.eye(out.shape[-1])[0])

                return Plan((Tilted(game.beta, 0.1),), {}, "none")

        with pytest.raises(AssertionError, match="permutation"):
            check_rule(First(None), WIN_RATE)

    def test_a_rule_that_refuses_everything(self):
        with pytest.raises(AssertionError, match="refused every game"):
            check_rule(wg.iterative_bon(4, 0.1), WIN_RATE)


def test_one_update_by_hand():
    """Theory 5.1, written out: powers, exponential, sum."""
    P = np.array([[0.5, 0.9, 0.2], [0.1, 0.5, 0.7], [0.8, 0.3, 0.5]])
    rho, beta, eta = np.array([0.5, 0.3, 0.2]), 0.4, 0.7
    pi = np.array([0.2, 0.3, 0.5])
    expected = pi ** (1 / (1 + beta * eta)) * rho ** (beta * eta / (1 + beta * eta))
    expected *= np.exp(eta / (1 + beta * eta) * (P @ pi))
    expected /= expected.sum()
    game = wg.WinRateGame(wg.MatrixPreference(P), rho, beta)
    got = wg.solve(game, wg.wind(eta), max_steps=1, start=np.log(pi)).policy
    np.testing.assert_allclose(got, expected, rtol=1e-14)

    half = expected
    expected = pi ** (1 / (1 + beta * eta)) * rho ** (beta * eta / (1 + beta * eta))
    expected *= np.exp(eta / (1 + beta * eta) * (P @ half))
    expected /= expected.sum()
    got = wg.solve(game, wg.extragradient(eta), max_steps=1, start=np.log(pi)).policy
    np.testing.assert_allclose(got, expected, rtol=1e-14)

    mixture = pi ** (1 - beta * eta) * rho ** (beta * eta)
    mixture /= mixture.sum()
    expected = mixture * np.exp(eta * P @ mixture)
    got = wg.solve(game, wg.nash_md(eta), max_steps=1, start=np.log(pi)).policy
    np.testing.assert_allclose(got, expected / expected.sum(), rtol=1e-14)

    expected = pi ** (1 - beta * eta) * rho ** (beta * eta) * np.exp(eta * P @ pi)
    got = wg.solve(game, wg.inpo(eta), max_steps=1, start=np.log(pi)).policy
    np.testing.assert_allclose(got, expected / expected.sum(), rtol=1e-14)

    expected = pi * np.exp(eta * P @ pi)
    got = wg.solve(game, wg.sppo(eta), max_steps=1, start=np.log(pi)).policy
    np.testing.assert_allclose(got, expected / expected.sum(), rtol=1e-14)

    one = (
        pi ** (1 / (1 + beta * eta)) * rho ** (beta * eta / (1 + beta * eta)) * np.exp(eta / (1 + beta * eta) * P @ pi)
    )
    one /= one.sum()
    two = one ** (1 / (1 + beta * eta)) * rho ** (beta * eta / (1 + beta * eta))
    two *= np.exp(eta / (1 + beta * eta) * (P @ (2 * one - pi)))
    got = wg.solve(game, wg.omwu(eta), max_steps=2, start=np.log(pi)).policy
    np.testing.assert_allclose(got, two / two.sum(), rtol=1e-14)


def test_target_limits(rng):
    """beta = 0 is multiplicative weights, eta = inf the best response, a constant payoff changes nothing."""
    log_pi, log_rho = np.log(rng.dirichlet(np.ones(5), 2))
    u = rng.uniform(size=5)
    np.testing.assert_allclose(target(log_pi, log_rho, u, beta=0.0, eta=0.3), log_pi + 0.3 * u)
    np.testing.assert_allclose(target(log_pi, log_rho, u, beta=0.2, eta=np.inf), log_rho + u / 0.2)
    a, b = (log_normalize(target(log_pi, log_rho, u + c, beta=0.2, eta=0.3)) for c in (0, 7))
    np.testing.assert_allclose(a, b, atol=1e-14)


def test_iterative_best_of_n_is_the_papers_algorithm(rng):
    """Theory 3.5: WIND's step on a log payoff equals B_n(pi)^a1 pi^a2 rho^(1-a1-a2), both forms."""
    reward = np.array([1.0, 0, 2, 2, 1, 3])
    weak = wg.RewardPreference(reward, ties="weak")
    ref, pi = rng.dirichlet(np.ones(6), 2)
    for n, a1, a2 in [(2, 0.3, 0.2), (4, 0.1, 0.5), (2.5, 0.7, 0.3), (8, 1.0, 0.0)]:
        for form, game in [("power", wg.LogWinRateGame), ("exact", wg.BestOfNGame)]:
            best = np.exp(wg.best_of_n(weak, np.log(pi), n, form=form))
            expected = best**a1 * pi**a2 * ref ** (1 - a1 - a2)
            rule = wg.iterative_bon(n, a1, a2)
            got = wg.solve(game.from_best_of_n(weak, ref, n, a1, a2), rule, max_steps=1, start=np.log(pi)).policy
            np.testing.assert_allclose(got, expected / expected.sum(), rtol=1e-12)


def test_contraction_of_iterative_best_of_n(rng):
    """Theory 3.7 for two arbitrary starting points, not only towards the equilibrium."""
    for _ in range(50):
        m = int(rng.integers(2, 7))
        weak = wg.RewardPreference(rng.integers(0, 3, m), ties="weak")
        n, a1 = rng.choice([1.5, 2, 5]), rng.uniform(0.01, 0.9)
        a2 = rng.uniform(0, 1 - a1)
        for game in (wg.LogWinRateGame, wg.BestOfNGame):
            g = game.from_best_of_n(weak, random_reference(m, rng), n, a1, a2)
            p, q = np.log(rng.dirichlet(np.ones(m), 2))
            rule = wg.iterative_bon(n, a1, a2)
            after = [wg.solve(g, rule, tol=0, max_steps=1, start=x).log_policy for x in (p, q)]
            assert hilbert(*after) <= (n * a1 + a2) * hilbert(p, q) * (1 + 1e-12) + 1e-12


def test_inpo_is_wind(rng):
    """Theory 5.7: INPO with eta is WIND with eta/(1 - beta eta)."""
    game = WIN_RATE[1]
    eta = 0.3
    a = wg.solve(game, wg.inpo(eta), max_steps=20, tol=0).log_policy
    b = wg.solve(game, wg.wind(eta / (1 - game.beta * eta)), max_steps=20, tol=0).log_policy
    np.testing.assert_allclose(a, b, atol=1e-13)


class Halved:
    """A rule of one's own that reads what both games and constants have."""

    name = "halved"

    def plan(self, game):
        eta = 0.5 * wg.bounds.wind_max_step(game.beta, game.interaction)
        guarantee = Guarantee("theory 5.2", "kl_from_solution", wg.bounds.linear_rate(game.beta, eta))
        return Plan((Stage(game.beta, eta),), {"eta": eta}, "equilibrium", guarantee)


def test_a_rule_plans_on_constants_as_on_a_game(rng):
    """What a rule reads of a game is all in GameConstants: the stages are the same."""
    P = random_matrix("logistic", 4, rng)
    win = wg.WinRateGame(wg.MatrixPreference(P), [0.4, 0.3, 0.2, 0.1], 0.1)
    log = wg.LogWinRateGame.from_best_of_n(wg.MatrixPreference(P), win.ref, 4, 0.15, 0.1)
    exact = wg.BestOfNGame.from_best_of_n(wg.RewardPreference([1.0, 0, 2, 2]), win.ref, 4, 0.15, 0.1)
    for game, rules in (
        (
            win,
            [Halved(), wg.wind(), wg.wind(3.0), wg.extragradient(), wg.sppo(1), wg.nash_md(1), wg.omwu(1), wg.inpo(1)],
        ),
        (log, [wg.wind(), wg.wind(0.1), wg.iterative_bon(4, 0.15, 0.1), wg.extragradient(0.1)]),
        (exact, [wg.wind(), wg.iterative_bon(4, 0.15, 0.1)]),
    ):
        constants = wg.GameConstants(game.kind, game.beta, game.interaction, game.contraction, game.n)
        for rule in rules:
            ours, theirs = rule.plan(constants), rule.plan(game)
            assert (ours.settings, ours.fixed_point, ours.remark) == (
                theirs.settings,
                theirs.fixed_point,
                theirs.remark,
            ), rule
            assert [(s.beta, s.eta, s.against) for s in ours.stages] == [
                (s.beta, s.eta, s.against) for s in theirs.stages
            ]
            assert (ours.guarantee is None) == (theirs.guarantee is None)
    # without a matrix the worst case holds
    assert wg.wind().plan(wg.GameConstants("win-rate", 0.1)).settings == {"eta": pytest.approx(0.4)}
    with pytest.raises(ValueError, match="kind must be one of"):
        wg.GameConstants("bon", 0.1)
    with pytest.raises(ValueError, match="beta must be non-negative"):
        wg.GameConstants("win-rate", -0.1)


def test_rules_are_values():
    assert wg.wind(0.5) == wg.wind(eta=0.5)
    assert repr(wg.iterative_bon(2, 0.5)) == "iterative_bon(n=2.0, alpha1=0.5, alpha2=0.0)"
    assert wg.iterative_bon(2, 0.25, 0.25).beta == pytest.approx(2.0)  # (1 - 1/2)/(1 * 1/4)
    assert wg.wind.name == "WIND"


def test_a_custom_game_has_no_theorem():
    class Cubed(wg.WinRateGame):
        kind = "custom"

        def payoff(self, log_policy):
            return super().payoff(log_policy) ** 3

    game = Cubed(WIN_RATE[0].preference, WIN_RATE[0].ref, 0.3)
    assert wg.wind(0.1).plan(game).guarantee is None
    with pytest.raises(ValueError, match="No theorem gives WIND a step"):
        wg.wind().plan(game)


def test_a_rule_of_ones_own_that_is_none():
    """What a first attempt gets wrong is said in a line, wherever the rule is run."""

    class Listed:
        name = "listed"

        def plan(self, game):
            return [Stage(game.beta, 0.1)]

    game = wg.WinRateGame(wg.RewardPreference([0.0, 1.0]), [0.5, 0.5], 0.1)
    for use in (wg.solve, lambda game, rule: check_rule(rule, [game])):
        with pytest.raises((ValueError, AssertionError), match=r"plan of listed must be a windgames\.Plan, .* \[Stage"):
            use(game, Listed())
    with pytest.raises(ValueError, match=r"stages must be a tuple of Stage, such as \(stage,\)"):
        Plan(Stage(0.1, 0.1), {}, "equilibrium")
    for against in ("current", ["current"]):
        with pytest.raises(ValueError, match=r'against must map slots to weights, such as \{"current": 1.0\}'):
            Stage(0.1, 0.1, against=against)
    with pytest.raises(ValueError, match="No stage writes 'current'"):
        Plan((Stage(0.1, 0.1, out="half"),), {}, "none")


@pytest.mark.parametrize(
    ("beta", "eta", "against", "message"),
    [
        (0.1, -1.0, {}, "eta must be positive, but it is -1.0"),
        (0.1, 0.0, {}, "eta must be positive, but it is 0.0"),
        (0.1, np.nan, {}, "eta must be positive, but it is nan"),
        (0.1, np.array([1.0, -2.0]), {}, r"eta must be positive, but entry \(1,\) is -2.0"),
        (0.1, "fast", {}, "eta must hold real numbers"),
        (-0.1, 1.0, {}, "beta must be non-negative and finite, but it is -0.1"),
        (np.nan, 1.0, {}, "beta must be non-negative and finite"),
        (0.0, np.inf, {}, "eta must be finite where beta = 0"),
        (0.1, 1.0, {"current": np.nan}, "The weight against 'current' must be finite"),
        (0.1, 1.0, {"current": "half"}, "The weight against 'current' must hold real numbers"),
    ],
)
def test_the_numbers_of_a_stage(beta, eta, against, message):
    """A rule of one's own with a wrong number is told so, and not that the policy is none."""
    with pytest.raises(ValueError, match=message):
        Stage(beta, eta, against=against)
    assert Stage(0.1, np.inf).eta == np.inf  # the best response


def test_bad_steps():
    game = WIN_RATE[0]
    for eta in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="eta must be positive"):
            wg.wind(eta)
    with pytest.raises(ValueError, match="eta has shape"):
        wg.solve(game, wg.wind(np.array([0.1, 0.2])))
    with pytest.raises(ValueError, match="eta \\* beta < 1"):
        wg.solve(game, wg.inpo(10.0))
    with pytest.raises(ValueError, match="pass eta"):
        wg.sppo(None)
    with pytest.raises(ValueError, match="No theorem"):
        wg.solve(wg.LogWinRateGame(wg.RewardPreference([0.0, 1], ties="weak"), [0.5, 0.5], 0.5), wg.wind())
    with pytest.raises(ValueError, match="imply beta"):
        wg.solve(
            wg.LogWinRateGame(wg.RewardPreference([0.0, 1], ties="weak"), [0.5, 0.5], 0.5), wg.iterative_bon(2, 0.5)
        )
    with pytest.raises(ValueError, match="log-win-rate game"):
        wg.solve(game, wg.iterative_bon(2, 0.5))
    with pytest.raises(ValueError, match="alpha1"):
        wg.iterative_bon(2, 0.8, 0.3)
    with pytest.raises(ValueError, match="n must be"):
        wg.iterative_bon(1, 0.5)


def test_eta_per_context(rng):
    game = wg.WinRateGame(wg.RewardPreference(rng.normal(size=(3, 5))), rng.dirichlet(np.ones(5), 3), [0.1, 0.2, 1.0])
    etas = np.array([0.1, 0.5, 1.0])
    together = wg.solve(game, wg.wind(etas), tol=0, max_steps=7).log_policy
    for i in range(3):
        one = wg.WinRateGame(wg.RewardPreference(game.preference.reward[i]), game.ref[i], game.beta[i])
        alone = wg.solve(one, wg.wind(etas[i]), tol=0, max_steps=7).log_policy
        np.testing.assert_allclose(together[i], alone, atol=1e-13)


def test_outside_the_theorem_is_said():
    game = WIN_RATE[1]
    far = wg.solve(game, wg.wind(100 * float(wg.bounds.wind_max_step(game.beta, game.interaction))), max_steps=50)
    assert far.trace.bound is None
    assert "outside theorem 5.2" in far.status
