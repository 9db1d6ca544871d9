"""Bad input gets a ValueError that says what, where and what to do; never NaN out."""

import numpy as np
import pytest

import windgames as wg

REF = np.array([0.5, 0.3, 0.2])
P = np.array([[0.5, 0.9, 0.2], [0.1, 0.5, 0.7], [0.8, 0.3, 0.5]])
GAME = wg.WinRateGame(wg.MatrixPreference(P), REF, 0.1)


def changed(x, index, value):
    x = np.array(x, dtype=float)
    x[index] = value
    return x


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: wg.MatrixPreference(np.ones((2, 3))), r"shape \(\.\.\., m, m\).*\(2, 3\)"),
        (lambda: wg.MatrixPreference(np.ones((0, 0))), "at least one response"),
        (lambda: wg.MatrixPreference(0.5), "shape"),
        (lambda: wg.MatrixPreference(changed(P, (1, 2), np.nan)), r"entry \(1, 2\) is nan"),
        (lambda: wg.MatrixPreference(changed(changed(P, (0, 1), 1.2), (2, 0), 3.0)), r"entry \(2, 0\) is 3.0"),
        (lambda: wg.MatrixPreference(changed(P, (0, 1), -0.1)), r"entry \(0, 1\) is -0.1"),
        (lambda: wg.MatrixPreference([["a"]]), "real numbers"),
        (lambda: wg.MatrixPreference(P + 0j), "real numbers"),
        (lambda: wg.RewardPreference([1.0, np.nan]), r"entry \(1,\) is nan"),
        (lambda: wg.RewardPreference([1.0, np.inf]), r"entry \(1,\) is inf"),
        (lambda: wg.RewardPreference([]), "at least one response"),
        (lambda: wg.RewardPreference(1.0), "shape"),
        (lambda: wg.RewardPreference([1.0], ties="random"), "'half', 'weak', 'strict'"),
        (lambda: wg.BradleyTerryPreference([1.0, 2.0], scale=0), "scale must be positive"),
        (lambda: wg.from_counts([[0, 1, 2], [1, 0, 0], [2, 0, 0]]), r"Responses 1 and 2 were never compared.*1 such"),
        (lambda: wg.from_counts([[0, -1], [1, 0]]), r"entry \(0, 1\) is -1"),
        (lambda: wg.from_counts([[0, 1], [1, 0]], prior=-1), "prior"),
    ],
)
def test_preferences(make, says):
    with pytest.raises(ValueError, match=says):
        make()


def test_prior_mends_missing_pairs():
    p = wg.from_counts([[0, 1, 2], [1, 0, 0], [2, 0, 0]], prior=1)
    assert p.is_constant_sum
    assert p.matrix()[1, 2] == 0.5


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: wg.WinRateGame(P, REF, 0.1), "MatrixPreference"),
        (lambda: wg.WinRateGame(wg.MatrixPreference(P), [0.5, 0.5], 0.1), r"ref must have shape \(\.\.\., 3\)"),
        (lambda: wg.WinRateGame(wg.MatrixPreference(P), [0.5, 0.5, 0.0], 0.1), r"full support, but ref\[2\] is 0"),
        (lambda: wg.WinRateGame(wg.MatrixPreference(P), [0.9, 0.3, -0.2], 0.1), r"ref\[2\] is -0.2"),
        (lambda: wg.WinRateGame(wg.MatrixPreference(P), [0.5, 0.2, 0.2], 0.1), r"sum to one, but it sums to 0\.9\."),
        (lambda: wg.WinRateGame(wg.MatrixPreference(P), [0.5, np.nan, 0.5], 0.1), r"ref\[1\] is nan"),
        (lambda: wg.WinRateGame(wg.MatrixPreference(P), [1, 0, 0], 0.1), r"ref\[1\] is 0"),
        (lambda: wg.WinRateGame(wg.MatrixPreference(P), REF, -0.1), "non-negative"),
        (lambda: wg.WinRateGame(wg.MatrixPreference(P), REF, np.nan), "non-negative"),
        (lambda: wg.WinRateGame(wg.MatrixPreference(P), REF, [0.1, -1.0]), r"-1.0 in context \(1,\)"),
        (lambda: wg.WinRateGame(wg.MatrixPreference(changed(P, (2, 1), 0.4)), REF, 0.1), r"P\[1,2\].*by 0.1"),
        (lambda: wg.WinRateGame(wg.RewardPreference([1.0, 2, 3], ties="weak"), REF, 0.1), "ties='weak'.*ties='half'"),
        (lambda: wg.LogWinRateGame(wg.RewardPreference([1.0, 2, 3], ties="strict"), REF, 0.1), "zero row"),
        (lambda: wg.LogWinRateGame(wg.MatrixPreference(np.diag([1.0, 1, 0])), REF, 0.1), r"row \(2,\)"),
        (lambda: wg.BestOfNGame(wg.RewardPreference([1.0, 2, 3]), REF, 1, 0.1), "n must be"),
        (lambda: wg.BestOfNGame(wg.MatrixPreference(P), REF, 3, 0.1), "does not order"),
        (lambda: wg.LogWinRateGame.from_best_of_n(wg.RewardPreference([1.0, 2, 3]), REF, 0.5, 0.1), "n must be"),
        (lambda: wg.LogWinRateGame.from_best_of_n(wg.RewardPreference([1.0, 2, 3]), REF, 2, 0.0), "alpha1"),
        (lambda: wg.LogWinRateGame.from_best_of_n(wg.RewardPreference([1.0, 2, 3]), REF, 2, 0.7, 0.4), "alpha1"),
        (
            lambda: wg.WinRateGame(wg.RewardPreference(np.zeros((2, 3))), np.full((4, 3), 1 / 3), 0.1),
            "contexts do not fit",
        ),
    ],
)
def test_games(make, says):
    with pytest.raises(ValueError, match=says):
        make()


@pytest.mark.parametrize("method", ["gap", "kl_certificate", "hilbert_certificate", "residual"])
@pytest.mark.parametrize(
    ("log_policy", "says"),
    [
        ([0.5, 0.3, 0.2], "must be normalised log-probabilities.*log first"),
        ([0, 0, 1], "floating"),
        (np.log([0.5, 0.5]), "shape"),
        (np.array([np.nan, 0.0, 0.0]), r"entry \(0,\) is nan"),
        (np.array([np.inf, 0.0, 0.0]), r"entry \(0,\) is inf"),
        (np.full(3, -np.inf), "sum to 0"),
        (np.array([]), "shape"),
        (np.log(np.full((2, 3), 1 / 3)), "contexts"),
    ],
)
def test_policies(method, log_policy, says):
    if isinstance(log_policy, list) and log_policy == [0, 0, 1]:
        log_policy = np.array(log_policy)
    with pytest.raises(ValueError, match=says):
        getattr(GAME, method)(log_policy)


def test_solve():
    with pytest.raises(ValueError, match="start must be normalised"):
        wg.solve(GAME, wg.wind(), start=np.zeros(3))
    with pytest.raises(ValueError, match="reference_solution"):
        wg.solve(GAME, wg.wind(), reference_solution=np.zeros(3))
    with pytest.raises(ValueError, match="tol"):
        wg.solve(GAME, wg.wind(), tol=-1)
    with pytest.raises(ValueError, match="max_steps"):
        wg.solve(GAME, wg.wind(), max_steps=1.5)
    with pytest.raises(ValueError, match="tol"):
        wg.equilibrium(GAME, tol=0)
    with pytest.raises(ValueError, match="beta = 0"):
        wg.solve(wg.WinRateGame(wg.MatrixPreference(P), REF, 0.0), wg.wind())


def test_operators():
    p, log_policy = wg.RewardPreference([1.0, 2, 3]), np.log(REF)
    for n in (0.5, np.nan, np.inf):
        with pytest.raises(ValueError, match="n must be"):
            wg.best_of_n(p, log_policy, n)
    with pytest.raises(ValueError, match="form"):
        wg.best_of_n(p, log_policy, 2, form="soft")
    with pytest.raises(ValueError, match="does not order"):
        wg.best_of_n(wg.MatrixPreference(P), log_policy, 3)
    with pytest.raises(ValueError, match="not constant-sum"):
        wg.best_of_n(wg.MatrixPreference(np.full((3, 3), 0.7)), log_policy, 2)
    with pytest.raises(ValueError, match="normalised"):
        wg.best_of_n(p, REF, 2)
    with pytest.raises(ValueError, match="rounds"):
        wg.tournament(p, log_policy, 1.5)
    with pytest.raises(ValueError, match="as many weights"):
        wg.geometric_mixture([log_policy], [0.5, 0.5])
