"""Games and inputs on which an earlier version was wrong, each found by a search for counterexamples."""

import mpmath
import numpy as np
import pytest

import windgames as wg
from windgames._array import hilbert, kl
from windgames.testing import check_rule, random_matrix
from windgames.updates import Guarantee, Plan, Stage

ROCK = np.array([[0.5, 0, 1], [1, 0.5, 0], [0, 1, 0.5]])


def test_two_inequalities_at_beta_zero():
    """Both off-support inequalities matter; only one binds at the projection."""
    P = [[0.5, 0.5, 0, 0.3], [0.5, 0.5, 0.8, 0.6], [1, 0.2, 0.5, 0.5], [0.7, 0.4, 0.5, 0.5]]
    found = wg.equilibrium(wg.WinRateGame(wg.MatrixPreference(P), [0.25] * 4, 0.0))
    assert found.converged
    np.testing.assert_allclose(found.policy, [1 / 3, 2 / 3, 0, 0], atol=1e-10)


@pytest.mark.parametrize("e", [1e-10, 1e-16, 1e-100, 1e-300])
def test_lopsided_references_at_beta_zero(e):
    found = wg.equilibrium(wg.WinRateGame(wg.MatrixPreference(ROCK), [1 - 2 * e, e, e], 0.0))
    assert found.converged
    np.testing.assert_allclose(found.policy, 1 / 3, atol=1e-10)


def test_winners_on_random_games_with_lopsided_references():
    rng = np.random.default_rng(0)
    for kind in ("uniform", "tournament", "duplicates", "cycle", "logistic"):
        for spread in (0, 20, 100):
            m = int(rng.integers(2, 10))
            ref = np.exp(-rng.uniform(0, spread + 1e-9, m))
            game = wg.WinRateGame(wg.MatrixPreference(random_matrix(kind, m, rng)), ref / ref.sum(), 0.0)
            found = wg.equilibrium(game)
            assert found.gap < 1e-8, (kind, spread, found)


def test_log_odds_beyond_underflow():
    """The solver and the game must use the same logarithms where probabilities underflow."""
    for beta in (0.99, 0.98):
        game = wg.LogWinRateGame(wg.BradleyTerryPreference([1.0, 2.0], 1e-3), [0.5, 0.5], beta)
        assert wg.equilibrium(game).converged
    ref = np.array([0.509688997, 1.26431340e-300, 0.490311003, 1.14096378e-300])
    p = wg.BradleyTerryPreference([1.51052379, -0.29853946, 1.26271769, -0.4444239], 1e-3)
    assert wg.equilibrium(wg.LogWinRateGame(p, ref, 1.6799)).converged


@pytest.mark.parametrize(("q", "n"), [(1e-9, 1e9), (1e-9, 1e7), (5e-9, 1e6), (1e-3, 1e5), (0.3, 1.5)])
def test_best_of_very_many(q, n):
    """1 - (1 - q)^n in 50 digits."""
    got = np.exp(wg.best_of_n(wg.RewardPreference([0.0, 1.0]), np.array([np.log1p(-q), np.log(q)]), n))[1]
    with mpmath.workdps(50):
        exact = 1 - (1 - mpmath.mpf(q)) ** mpmath.mpf(n)
    assert got == pytest.approx(float(exact), rel=1e-15 / q + 1e-9)  # 1 - q itself is rounded


def test_a_path_through_the_powers_of_the_reference():
    """beta = 1e-4, eighty responses in a circle, references down to 1e-290."""
    rng = np.random.default_rng(1)
    for _ in range(3):
        ref = np.exp(-rng.uniform(0, 660, 81))
        game = wg.WinRateGame(wg.MatrixPreference(random_matrix("cycle", 81, rng)), ref / ref.sum(), 1e-4)
        found = wg.equilibrium(game)
        assert found.converged, found


def test_a_fold_of_the_path():
    P = [[0.4, 0.4, 0.5], [0.8, 0.1, 0.8], [0.1, 0.0, 0.6]]
    ref = [0.047352476080951326, 0.011910644050324519, 0.9407368798687242]
    found = wg.equilibrium(wg.LogWinRateGame(wg.MatrixPreference(P), ref, 0.04693638206273467))
    assert found.converged
    assert "random starts" in found.status


def test_proven_means_proven():
    """The printed certificates hold against an equilibrium in 50 digits, rounding included."""
    rng = np.random.default_rng(2)
    for _ in range(25):
        m, beta = int(rng.integers(2, 5)), float(10 ** rng.uniform(-3, 0))
        P, ref = random_matrix("logistic", m, rng), rng.dirichlet(np.ones(m))
        found = wg.equilibrium(wg.WinRateGame(wg.MatrixPreference(P), ref, beta))
        with mpmath.workdps(50):
            M, b = mpmath.matrix((P + 1 - P.T).tolist()) / 2, mpmath.mpf(beta)
            rho = [mpmath.mpf(float(x)) for x in ref]
            z = mpmath.matrix([mpmath.mpf(float(x)) for x in found.log_policy])

            def equations(z, M=M, b=b, rho=rho, m=m):
                p = mpmath.matrix([mpmath.exp(x) for x in z])
                r = [z[i] - mpmath.log(rho[i]) - (M[i, :] * p)[0] / b for i in range(m)]
                return mpmath.matrix([r[i] - r[i + 1] for i in range(m - 1)] + [sum(p) - 1])

            for _ in range(6):
                J = mpmath.matrix(m, m)
                value = equations(z)
                for k in range(m):
                    step = z.copy()
                    step[k] += mpmath.mpf(10) ** -25
                    J[:, k] = (equations(step) - value) * mpmath.mpf(10) ** 25
                z = z - mpmath.lu_solve(J, value)
            own = mpmath.log(sum(mpmath.exp(mpmath.mpf(float(x))) for x in found.log_policy))
            d = [mpmath.mpf(float(x)) - own - y for x, y in zip(found.log_policy, z, strict=True)]
            h = float(max(d) - min(d))
            divergence = float(
                sum(mpmath.exp(y) * (mpmath.exp(x) * x - mpmath.expm1(x)) for x, y in zip(d, z, strict=True))
            )
        assert h <= found.hilbert_certificate
        assert divergence <= found.kl_certificate


def test_float32_is_judged_as_it_is_solved():
    torch = pytest.importorskip("torch")
    P = np.array([[0.5, 0.9, 0.2], [0.1, 0.5, 0.7], [0.8, 0.3, 0.5]], dtype=np.float32)
    r = np.array([0.0, 1.3, 2.1], dtype=np.float32)
    for asarray in (np.asarray, torch.asarray):
        for preference in (wg.MatrixPreference(asarray(P)), wg.BradleyTerryPreference(asarray(r), 0.3)):
            for make in (wg.WinRateGame, lambda p, ref, beta: wg.LogWinRateGame(p, ref, 1.5)):
                game = make(preference, asarray(np.array([0.5, 0.3, 0.2])), 0.1)
                found = wg.equilibrium(game)
                assert found.converged
                assert float(game.residual(found.log_policy)) <= 1e-10


def test_a_judgement_of_rounding_is_not_one_of_the_game():
    game = wg.WinRateGame(wg.MatrixPreference(ROCK), [0.2, 0.3, 0.5], 0.1)
    stuck = wg.solve(game, wg.wind(), tol=0, max_steps=3000)
    assert "rounding of float64" in stuck.status
    early = wg.solve(game, wg.wind(0.1), max_steps=2)
    assert "theory 5.2 applies" in early.status
    assert "may not suit" not in early.status
    far = wg.equilibrium(wg.WinRateGame(wg.MatrixPreference(ROCK), [0.2, 0.3, 0.5], 1e-8), tol=1e-13)
    assert "critical" not in far.status


def test_no_collapse_where_nothing_fell():
    for game in (
        wg.LogWinRateGame(wg.RewardPreference([0.0], ties="weak"), [1.0], 0.5),
        wg.LogWinRateGame(wg.MatrixPreference([[0.5, 0.6], [0.4, 0.5]]), [0.9999, 0.0001], 0.9),
        wg.LogWinRateGame(wg.MatrixPreference([[0.5, 0.6], [0.4, 0.5]]), [[0.9999, 0.0001], [0.5, 0.5]], [5.0, 0.5]),
    ):
        assert "Collapse" not in wg.solve(game, wg.wind(1.0)).status


def test_converged_allows_for_the_size_of_the_logarithms():
    """At log-probabilities of 1e10 no residual of a float64 policy is known to 1e-10."""
    found = wg.equilibrium(
        wg.LogWinRateGame(wg.RewardPreference([0.0, 1.0, 2.0], ties="weak"), [0.9, 0.09, 0.01], 1 + 1e-10)
    )
    if np.abs(found.log_policy).max() > 1e7:
        assert not found.converged


class Boast:
    """A rule with a theorem that is false."""

    name = "boast"

    def __init__(self, fixed_point):
        self.fixed_point = fixed_point

    def plan(self, game):
        stage = Stage(game.beta, 0.01)
        return Plan((stage,), {}, self.fixed_point, Guarantee("boast", "kl_from_solution", np.asarray(0.1)))


def test_a_false_theorem_is_caught_whatever_the_fixed_point():
    game = wg.WinRateGame(wg.MatrixPreference(ROCK), [0.2, 0.3, 0.5], 0.1)
    for fixed_point in ("equilibrium", "none", "unregularised"):
        with pytest.raises(AssertionError, match="breaks boast"):
            check_rule(Boast(fixed_point), [game])
    with pytest.raises(AssertionError, match=r"refused every game.*fixed_point must be one of"):
        check_rule(Boast("equilibirum"), game)
    with pytest.raises(ValueError, match="games without contexts"):
        check_rule(wg.wind(), [wg.WinRateGame(wg.MatrixPreference(ROCK), np.full((2, 3), 1 / 3), 0.1)])


def test_any_step_at_beta_zero_without_interaction():
    game = wg.WinRateGame(wg.RewardPreference([0.0, 1.0]), [0.5, 0.5], 0.0)
    run = wg.solve(game, wg.extragradient(), max_steps=200, tol=1e-8)
    assert np.all(np.isfinite(run.policy))
    assert run.policy[1] > 0.999


def test_bradley_terry_contraction():
    """Theory 3.7: tanh^2(span/(4 scale))."""
    for r, scale in (([0.0, 1.0, 3.0], 1.0), ([2.0, -1.0], 0.7)):
        found = wg.BradleyTerryPreference(r, scale).contraction
        assert found == pytest.approx(np.tanh(np.ptp(r) / (4 * scale)) ** 2)


def test_bounds_at_extremes():
    assert wg.bounds.log_payoff_contraction(2.0, 1e308) == pytest.approx(0.5)
    assert wg.bounds.geometric_bound(1.0, 2.0, [5000]) == np.inf
    assert wg.bounds.geometric_bound(0.0, 2.0, [5000]) == 0
    assert wg.bounds.inexact_floor(1e-200, 1.0) == np.inf
    assert wg.bounds.noise_floor(1e-160, 1.0, 1e-160) == pytest.approx(1e-160)


def test_libraries_meet():
    torch = pytest.importorskip("torch")
    game = wg.WinRateGame(wg.MatrixPreference(ROCK), [0.2, 0.3, 0.5], 0.1)
    x = np.log([0.3, 0.3, 0.4])
    assert game.gap(torch.asarray(x)) == pytest.approx(float(game.gap(x)))
    with pytest.raises(ValueError, match="one array library"):
        wg.WinRateGame(wg.MatrixPreference(ROCK), torch.asarray([0.2, 0.3, 0.5]), 0.1)
    half = wg.RewardPreference(torch.asarray([0.0, 1.0, 1.0], dtype=torch.bfloat16))
    assert half.n_classes == 2
    assert kl(np.log([0.5, 0.5]), np.log([0.5, 0.5])) == 0
    assert hilbert(np.log([0.5, 0.5]), np.log([0.5, 0.5])) == 0


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (
            lambda: wg.solve(wg.WinRateGame(wg.MatrixPreference(ROCK), [0.2, 0.3, 0.5], 0.1), wg.wind),
            "rule must be a rule",
        ),
        (lambda: wg.solve(wg.MatrixPreference(ROCK), wg.wind()), "game must be a windgames game"),
        (lambda: wg.equilibrium(wg.MatrixPreference(ROCK)), "game must be a windgames game"),
        (lambda: wg.verify(wg.MatrixPreference(ROCK), np.zeros(3)), "game must be a windgames game"),
        (lambda: wg.wind("a"), "eta must hold real numbers"),
        (lambda: wg.wind([]), "eta must be a number or one per context"),
        (lambda: Stage(0.1, 0.1, start="helf") and Plan((Stage(0.1, 0.1, start="helf"),), {}, "none"), "slot 'helf'"),
        (lambda: Guarantee("x", "kl", np.asarray(1.0)), "A guarantee bounds one of"),
        (lambda: wg.WinRateGame(wg.MatrixPreference(ROCK), [0.2, 0.3, 0.5], []), "beta must be a number or one per"),
        (lambda: wg.tournament(wg.RewardPreference([0.0, 1.0]), np.log([0.5, 0.5]), np.nan), "rounds must be"),
        (lambda: wg.tournament(wg.RewardPreference([0.0, 1.0]), [5.0, 5.0], 0), "normalised"),
        (
            lambda: wg.tournament(wg.MatrixPreference([[0.5, 0.2], [0.3, 0.5]]), np.log([0.5, 0.5]), 0),
            "not constant-sum",
        ),
        (lambda: wg.best_of_n(wg.RewardPreference([0.0, 1.0]), np.log([0.5, 0.5]), "2 or so"), "n must be one number"),
        (lambda: wg.BradleyTerryPreference([0.0, 1.0], [1.0, 2.0]), "scale must be one number"),
        (lambda: wg.from_counts([[0, 1], [1, 0]], prior="some"), "prior must be one number"),
        (lambda: wg.RewardPreference(np.array([2**53, 2**53 + 1])), "integers of 2\\*\\*53"),
        (lambda: wg.geometric_mixture([np.array([0.0, -np.inf]), np.array([-np.inf, 0.0])], [0.5, 0.5]), "do not meet"),
        (lambda: wg.geometric_mixture([np.zeros(1), np.log([0.5, 0.5])], [0.5, 0.5]), "one shape"),
        (
            lambda: wg.geometric_mixture([[0.5, 0.5], [0.2, 0.8]], [0.5, 0.5]),
            "log_policies must be normalised log-prob",
        ),
        (lambda: wg.geometric_mixture([np.log([0.5, 0.5])], [np.nan]), r"weights\[0\] must be finite"),
        (lambda: wg.LogWinRateGame(wg.MatrixPreference([[1.0, 0.0], [1.0, 0.0]]), [0.5, 0.5], 2.0), "zero column"),
        (
            lambda: wg.best_of_n(wg.MatrixPreference([[1.0, 0], [1, 0]]), np.array([-np.inf, 0]), 2, "power"),
            "do not meet",
        ),
    ],
)
def test_sentences_instead_of_tracebacks(make, says):
    with pytest.raises(ValueError, match=says):
        make()


def test_counts_near_the_largest_float():
    np.testing.assert_allclose(wg.from_counts([[0, 1e308], [1.5e308, 0]]).matrix()[0, 1], 0.4)
