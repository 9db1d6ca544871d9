"""The convex solvers' verdict: equilibria confirmed, wrong candidates refused, no solver believed blindly."""

import subprocess
import sys

import cvxpy
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import windgames as wg
from windgames.testing import betas, games, policies

module = sys.modules["windgames.verify"]
CYCLE = np.array([[0.5, 0.9, 0.2], [0.1, 0.5, 0.7], [0.8, 0.3, 0.5]])
ROCK = np.array([[0.5, 0.0, 1.0], [1.0, 0.5, 0.0], [0.0, 1.0, 0.5]])
REF = np.array([0.2, 0.3, 0.5])
OTHERS = [name for name in ("ECOS", "SCS") if name in cvxpy.installed_solvers()]
"""Solvers that are tried after Clarabel."""


def cycle(beta=0.1):
    return wg.WinRateGame(wg.MatrixPreference(CYCLE), REF, beta)


def mixed(solution, share=0.01):
    """Move a share of the mass to the response that has least: a total variation of at least half the share."""
    p = np.array(solution.policy)
    target = np.zeros_like(p)
    np.put_along_axis(target, np.argmin(p, axis=-1)[..., None], 1.0, axis=-1)
    with np.errstate(divide="ignore"):
        return np.log((1 - share) * p + share * target)


# -- win-rate game -----------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(games(beta=betas(0.1, 10)))
def test_the_loop_and_the_convex_program_find_the_same_equilibrium(game):
    """Theory 2.1, 6.3: one equilibrium, of value 1/2, over every kind of matrix and reference."""
    found = wg.solve(game, wg.wind(), tol=1e-10, max_steps=5000)
    assume(bool(found.converged))
    verdict = wg.verify(game, found)
    assert verdict, verdict
    assert verdict.distance <= 1e-6
    assert abs(verdict.value - 0.5) <= 1e-9
    assert verdict.gain <= 1e-9
    assert verdict.infeasibility <= 1e-8
    assert verdict.stationarity <= 1e-9


@settings(max_examples=15)
@given(games(beta=betas(0.1, 10), min_responses=2))
def test_one_per_cent_of_the_mass_is_noticed(game):
    found = wg.solve(game, wg.wind(), tol=1e-9, max_steps=5000)
    assume(bool(found.converged))
    verdict = wg.verify(game, mixed(found))
    assert not verdict
    assert 0.0049 <= verdict.distance <= 0.0101


@settings(max_examples=40)
@given(games(min_responses=1), st.data())
def test_the_error_bound_of_a_solver_is_proven(game, data):
    """KL(p||p*) <= KL(p||reply of reply): the bound holds for any policy a solver may come up with."""
    exact = wg.equilibrium(game)
    assume(bool(exact.converged))
    p = np.exp(data.draw(policies(game.n_responses)))
    P, beta = np.asarray(game.preference.matrix()), game.beta

    def reply(q):
        opponent = np.exp(module._reply(-(P.T @ q), game.log_ref, beta))
        return module._reply(P @ opponent, game.log_ref, beta)

    assert np.abs(p - exact.policy).sum() / 2 <= module._proven_distance(p, reply) + 1e-9


@pytest.mark.parametrize("beta", [0.01, 0.1, 1.0, 10.0])
@pytest.mark.parametrize("p", [0.0, 0.3, 0.5, 1.0])
def test_two_responses_in_closed_form(beta, p):
    """The difference of the payoffs does not depend on the policy: its logit is log(rho_0/rho_1) + (p - 1/2)/beta."""
    game = wg.WinRateGame(wg.MatrixPreference([[0.5, p], [1 - p, 0.5]]), [0.3, 0.7], beta)
    logit = np.log(0.3 / 0.7) + (p - 0.5) / beta
    exact = -np.logaddexp(0, np.array([-logit, logit]))
    verdict = wg.verify(game, exact)
    assert verdict
    assert verdict.distance <= 1e-8
    assert not wg.verify(game, np.log([0.3, 0.7])) or p == 0.5


def test_one_response():
    verdict = wg.verify(wg.WinRateGame(wg.MatrixPreference([[0.5]]), [1.0], 0.1), np.zeros(1))
    assert verdict
    assert verdict.value == pytest.approx(0.5, abs=1e-9)


@pytest.mark.parametrize("beta", [1.0, 0.01])
def test_a_hundred_responses(beta, rng):
    m = 100
    upper = np.triu(rng.uniform(size=(m, m)), 1)
    matrix = upper + np.tril(1 - upper.T, -1) + np.eye(m) / 2
    game = wg.WinRateGame(wg.MatrixPreference(matrix), rng.dirichlet(np.ones(m)), beta)
    verdict = wg.verify(game, wg.equilibrium(game))
    assert verdict
    assert verdict.distance <= 1e-8


def test_a_reference_of_1e_100_does_not_upset_the_solvers():
    ref = np.array([1e-100, 0.4, 0.6])
    game = wg.WinRateGame(wg.MatrixPreference(CYCLE), ref, 0.05)
    found = wg.solve(game, wg.extragradient(), tol=1e-11, max_steps=20_000)
    assert found.converged
    assert wg.verify(game, found).distance <= 1e-6


def test_a_policy_that_leaves_a_response_out_is_no_equilibrium():
    with np.errstate(divide="ignore"):
        verdict = wg.verify(cycle(), np.log([0.5, 0.5, 0.0]))
    assert not verdict


# -- log games ---------------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(st.one_of(games("log-win-rate"), games("best-of-n")))
def test_the_best_response_to_an_equilibrium_of_a_log_game_gains_nothing(game):
    """Theory 2.2, 3.7: the loop contracts to it for beta > 1, and a convex best response stays there."""
    found = wg.solve(game, wg.wind(1.0), tol=1e-10, max_steps=5000)
    assume(bool(found.converged))
    verdict = wg.verify(game, found)
    assert verdict, verdict
    assert verdict.distance <= 1e-6


@pytest.mark.parametrize("beta", [1.5, 4.0])
@pytest.mark.parametrize("make", [wg.LogWinRateGame, lambda p, ref, beta: wg.BestOfNGame(p, ref, 3, beta)])
def test_one_per_cent_is_noticed_in_a_log_game(make, beta):
    game = make(wg.RewardPreference([0.0, 1.0, 1.0, 3.0], ties="weak"), [0.1, 0.2, 0.3, 0.4], beta)
    found = wg.solve(game, wg.wind(), tol=1e-11)
    assert wg.verify(game, found)
    verdict = wg.verify(game, mixed(found))
    assert not verdict
    assert verdict.gain > 1e-8
    # what the response gains is beta KL(pi||BR(pi)), which the game computes without any solver
    assert verdict.gain == pytest.approx(float(game.gap(mixed(found))), rel=1e-6)


@pytest.mark.parametrize("beta", [0.0, 0.4])
def test_collapse_onto_the_best_is_an_equilibrium_and_onto_the_worst_is_not(beta):
    """Off the support of a collapsed policy the payoff is -inf from below, and finite from above (theory 3.8)."""
    game = wg.LogWinRateGame(wg.RewardPreference([0.0, 1.0, 2.0, 2.0], ties="weak"), np.full(4, 0.25), beta)
    with np.errstate(divide="ignore"):
        best, worst = np.log([0.0, 0.0, 0.5, 0.5]), np.log([1.0, 0.0, 0.0, 0.0])
    verdict = wg.verify(game, best)
    assert verdict
    assert verdict.value == pytest.approx(beta * np.log(0.5))
    if beta > 0:
        assert not wg.verify(game, worst)
    else:  # with weak ties everybody on the worst response is an equilibrium, too: nobody wins more than surely
        assert wg.verify(game, worst)


def test_playing_what_never_wins_is_infinitely_bad():
    game = wg.LogWinRateGame(wg.MatrixPreference([[0.5, 1.0], [0.5, 1.0]]), [0.5, 0.5], 1.0)
    with np.errstate(divide="ignore"):
        assert wg.verify(game, np.log([0.5, 0.5]))
    lost = wg.LogWinRateGame(wg.MatrixPreference([[0, 1.0, 0], [0, 0, 1.0], [1.0, 0, 0]]), np.full(3, 1 / 3), 1.0)
    with np.errstate(divide="ignore"):
        verdict = wg.verify(lost, np.log([0.5, 0.5, 0.0]))  # response 1 only beats 2, which nobody plays
    assert not verdict
    assert verdict.gain == np.inf


# -- beta = 0 ----------------------------------------------------------------------------------------------


def test_rock_paper_scissors_without_regularisation():
    game = wg.WinRateGame(wg.MatrixPreference(ROCK), REF, 0.0)
    verdict = wg.verify(game, np.log(np.full(3, 1 / 3)))
    assert verdict
    assert verdict.value == pytest.approx(0.5, abs=1e-9)
    assert verdict.distance <= 1e-6
    wrong = wg.verify(game, np.log([0.34, 0.33, 0.33]))
    assert not wrong
    assert wrong.gain == pytest.approx(0.005, abs=1e-8)


def test_many_winners_are_all_accepted_and_nothing_else():
    """Two responses tie and beat the third: every mixture of the two is a winner (theory 2.6)."""
    game = wg.WinRateGame(wg.MatrixPreference([[0.5, 0.5, 0.9], [0.5, 0.5, 0.9], [0.1, 0.1, 0.5]]), REF, 0.0)
    with np.errstate(divide="ignore"):
        far = wg.verify(game, np.log([1.0, 0.0, 0.0]))
        assert far
        assert far.distance > 0.1  # from the solver's, which is another winner
        assert not wg.verify(game, np.log([0.5, 0.49, 0.01]))


def test_the_log_payoff_at_beta_zero():
    game = wg.LogWinRateGame(wg.RewardPreference([0.0, 1.0], ties="weak"), [0.5, 0.5], 0.0)
    verdict = wg.verify(game, np.log([0.5, 0.5]))
    assert not verdict
    assert verdict.gain == pytest.approx(np.log(2) / 2, abs=1e-7)  # payoffs log 1/2 and 0
    assert "linear" in verdict.program


MANY = {
    "two that tie": [[0.5, 0.5, 0.9], [0.5, 0.5, 0.9], [0.1, 0.1, 0.5]],
    "all alike": np.full((4, 4), 0.5),
    "two cycles": np.kron(np.ones((2, 2)), ROCK),
    "a cycle and its centre": np.block([[ROCK, np.full((3, 1), 0.5)], [np.full((1, 3), 0.5), 0.5]]),
    "five values": [
        [0.5, 0.5, 0.5, 1.0, 0.0],
        [0.5, 0.5, 0.5, 0.0, 1.0],
        [0.5, 0.5, 0.5, 0.5, 0.5],
        [0.0, 1.0, 0.5, 0.5, 0.5],
        [1.0, 0.0, 0.5, 0.5, 0.5],
    ],
}


@pytest.mark.parametrize("name", MANY)
@pytest.mark.parametrize("seed", range(3))
def test_of_many_winners_the_nearest_is_proven_and_no_other(name, seed):
    """Theory 2.6: the projection is what `equilibrium` claims, and the dual of the projection proves it."""
    P = np.asarray(MANY[name])
    ref = np.random.default_rng(seed).dirichlet(np.ones(len(P)))
    game = wg.WinRateGame(wg.MatrixPreference(P), ref, 0.0)
    found = wg.equilibrium(game)
    verdict = wg.verify(game, found)
    assert verdict, verdict
    assert verdict.selection <= 1e-5
    assert "nearest winner" in repr(verdict)
    limit = wg.equilibrium(game.replace(beta=1e-7)).policy  # theory 2.6: the equilibria at beta tend to it
    np.testing.assert_allclose(found.policy, limit, atol=1e-5)
    # the winner nearest to another reference is a winner, and not this one's nearest
    other = wg.equilibrium(game.replace(ref=np.full(len(P), 1 / len(P))))
    far = np.abs(other.policy - found.policy).sum() / 2
    assert far > 1e-3
    assert wg.verify(game, other.log_policy)
    wrong = wg.verify(game, other.log_policy, nearest=True)
    assert not wrong
    assert wrong.selection > 1e-5
    assert np.isnan(wg.verify(game, found, nearest=False).selection)


@settings(max_examples=25)
@given(games(beta=betas(1, 1)))
def test_the_claim_at_beta_zero_over_random_games(game):
    free = game.replace(beta=0.0)
    assert wg.verify(free, wg.equilibrium(free))


def test_nothing_is_claimed_elsewhere():
    assert np.isnan(wg.verify(cycle(), wg.equilibrium(cycle())).selection)
    game = wg.WinRateGame(wg.MatrixPreference(ROCK), REF, 0.0)
    assert np.isnan(wg.verify(game, np.log(np.full(3, 1 / 3))).selection)
    run = wg.proximal_point(cycle(), tol=1e-10)  # some winner, not the nearest one
    assert np.isnan(wg.verify(game.replace(preference=cycle().preference), run).selection)


# -- contexts and libraries --------------------------------------------------------------------------------


def test_a_batch_is_its_contexts(rng):
    upper = np.triu(rng.uniform(size=(2, 3, 4, 4)), 1)
    matrix = upper + np.tril(1 - np.swapaxes(upper, -1, -2), -1) + np.eye(4) / 2
    ref, beta = rng.dirichlet(np.ones(4), (2, 3)), np.array([[0.1, 1.0, 0.0], [0.05, 0.3, 2.0]])
    game = wg.WinRateGame(wg.MatrixPreference(matrix), ref, beta)
    found = wg.equilibrium(game)
    together = wg.verify(game, found)
    assert together.agrees.shape == (2, 3)
    assert together
    for index in np.ndindex(2, 3):
        alone = wg.WinRateGame(wg.MatrixPreference(matrix[index]), ref[index], float(beta[index]))
        single = wg.verify(alone, found.log_policy[index])
        for name in ("value", "gain", "stationarity"):
            assert getattr(together, name)[index] == pytest.approx(getattr(single, name), abs=1e-9)
    # one wrong context is found, and named as such
    wrong = np.array(found.log_policy)
    wrong[0, 1] = np.log(ref[0, 1])
    verdict = wg.verify(game, wrong)
    assert not verdict
    assert np.array_equal(~verdict.agrees, [[False, True, False], [False, False, False]])
    assert "5 of 6 contexts" in repr(verdict)


def test_libraries(library):
    game = wg.WinRateGame(wg.MatrixPreference(library.asarray(CYCLE)), library.asarray(REF), 0.1)
    found = wg.solve(game, wg.wind(), tol=1e-11, max_steps=5000)
    verdict = wg.verify(game, found)
    assert verdict
    assert isinstance(verdict.distance, float | np.floating)
    assert not wg.verify(game, library.log(library.asarray(REF)))


# -- solvers -----------------------------------------------------------------------------------------------


def needs_ecos():
    """ECOS is under the GPL: only the extra `peers` installs it."""
    pytest.importorskip("ecos", reason="ECOS is not installed (extra peers)")


@pytest.mark.parametrize("solver", list(module.OPTIONS))
@pytest.mark.parametrize("beta", [0.0, 0.05, 1.0])
def test_each_solver_alone(solver, beta):
    if solver == "ECOS":
        needs_ecos()
    game = cycle(beta)
    verdict = wg.verify(game, wg.equilibrium(game), solvers=[solver])
    assert verdict
    assert verdict.solver == (solver,)
    assert verdict.distance <= 1e-6


def test_a_solver_that_raises_is_replaced_and_its_words_are_kept(monkeypatch):
    game, original = cycle(), cvxpy.Problem.solve

    def solve(self, *args, solver=None, **kwargs):
        if solver == "CLARABEL":
            raise cvxpy.error.SolverError("numerical trouble of a special kind")
        return original(self, *args, solver=solver, **kwargs)

    monkeypatch.setattr(cvxpy.Problem, "solve", solve)
    verdict = wg.verify(game, wg.equilibrium(game))
    assert verdict
    assert verdict.solver == (OTHERS[0],)
    assert "numerical trouble of a special kind" in repr(verdict)


def test_a_solver_that_claims_a_wrong_optimum_is_not_believed(monkeypatch):
    game, original = cycle(), cvxpy.Problem.solve
    liars = {"CLARABEL"}

    def solve(self, *args, solver=None, **kwargs):
        original(self, *args, solver=solver, **kwargs)
        if solver in liars:
            for variable in self.variables():
                variable.save_value(np.full(variable.shape, 0.0 if self.is_qp() else 1 / 3))

    monkeypatch.setattr(cvxpy.Problem, "solve", solve)
    verdict = wg.verify(game, wg.equilibrium(game))
    assert verdict
    assert verdict.solver == (OTHERS[0],)
    assert any("CLARABEL: optimal, total variation proven up to" in words for words in verdict.trouble)
    liars |= set(OTHERS)
    with pytest.raises(module.VerificationError, match=".*".join(["CLARABEL", *OTHERS])):
        wg.verify(game, wg.equilibrium(game))


def test_what_clarabel_proves_is_what_ecos_proves():
    """On random games: a total variation of 1e-10 in all of them, which ECOS, tightened, proves in most."""
    needs_ecos()
    rng = np.random.default_rng(0)
    for _ in range(25):
        m = int(rng.integers(2, 12))
        upper = np.triu(rng.random((m, m)) if rng.random() < 0.5 else rng.integers(0, 3, (m, m)) / 2, 1)
        P = upper + np.tril(1 - upper.T, -1) + np.eye(m) / 2
        log_ref, beta = np.log(rng.dirichlet(np.ones(m))), float(10.0 ** rng.uniform(-2, 1))
        errors = []
        for name in ("CLARABEL", "ECOS"):
            programs = module._Programs(cvxpy, [name], 1e-5, 1e-8, "")
            if name == "ECOS":
                programs.refined = lambda x, error, slopes, name: (error(x), x)
            programs.win_rate_program(P, log_ref, beta)
            errors.append(programs.error)
        assert errors[0] <= module.REFINED
        assert errors[1] <= 1e-5


def test_without_ecos_nothing_else_is_missing(monkeypatch):
    rest = [name for name in cvxpy.installed_solvers() if name != "ECOS"]
    monkeypatch.setattr(cvxpy, "installed_solvers", lambda: rest)
    for beta in (0.0, 0.1):
        verdict = wg.verify(cycle(beta), wg.equilibrium(cycle(beta)))
        assert verdict
        assert verdict.solver == ("CLARABEL",)
        assert verdict.solver_error <= 1e-10


@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_when_all_solvers_fail_there_is_no_verdict(monkeypatch, beta):
    def solve(self, *args, **kwargs):
        raise cvxpy.error.SolverError("out of order")

    found = wg.equilibrium(cycle(beta))
    monkeypatch.setattr(cvxpy.Problem, "solve", solve)
    with pytest.raises(module.VerificationError, match="CLARABEL: out of order") as caught:
        wg.verify(cycle(beta), found)
    assert isinstance(caught.value, RuntimeError)
    assert str(caught.value).count("out of order") == 1 + len(OTHERS)


def test_without_cvxpy_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cvxpy", None)
    with pytest.raises(ImportError, match=r"windgames\[verify\]"):
        wg.verify(cycle(), np.log(REF))


def test_importing_the_package_does_not_import_cvxpy():
    code = "import sys, windgames; sys.exit('cvxpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# -- input and output --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (REF, "normalised log-probabilities"),
        (np.log(REF) + 0.01, "normalised log-probabilities"),
        (np.log([0.5, 0.5]), "shape"),
        (np.array([np.nan, -1.0, -1.0]), "entry"),
    ],
)
def test_a_candidate_must_be_a_policy(policy, words):
    with pytest.raises(ValueError, match=words):
        wg.verify(cycle(), policy)


def test_other_bad_input():
    with pytest.raises(ValueError, match="tv_tol must be positive and finite"):
        wg.verify(cycle(), np.log(REF), tv_tol=0)
    with pytest.raises(ValueError, match="gain_tol must be positive and finite"):
        wg.verify(cycle(), np.log(REF), gain_tol=np.inf)
    for solvers in (["SIMPLEX"], []):
        with pytest.raises(ValueError, match="solvers must name some of CLARABEL, ECOS, SCS"):
            wg.verify(cycle(), np.log(REF), solvers=solvers)
    m = module.LARGEST + 1
    large = wg.WinRateGame(wg.RewardPreference(np.arange(m)), np.full(m, 1 / m), 1.0)
    with pytest.raises(ValueError, match="kl_certificate"):
        wg.verify(large, large.log_ref)


def test_tolerances_decide(rng):
    game = cycle()
    near = mixed(wg.equilibrium(game), 1e-4)
    assert not wg.verify(game, near)
    assert wg.verify(game, near, tv_tol=1e-3, gain_tol=1e-3)


def test_the_rows_are_readable():
    verdict = wg.verify(cycle(), wg.equilibrium(cycle()))
    lines = repr(verdict).splitlines()
    assert lines[0] == f"Verification of {cycle()!r}"
    names = [line.split("  ")[1] for line in lines[1:]]
    for name in ("agrees", "program", "value", "distance", "gain", "stationarity", "complementarity", "solver"):
        assert name in names
    assert all(len(line) <= 120 for line in lines)
