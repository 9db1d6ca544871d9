"""numpy = torch = array_api_strict, dtypes, and the primitives."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import windgames as wg
from windgames._array import cumulative_sum, log_cumulative_sum, logsumexp, to_numpy

P = np.array([[0.5, 0.9, 0.2], [0.1, 0.5, 0.7], [0.8, 0.3, 0.5]])
REF = np.array([[0.5, 0.3, 0.2], [0.2, 0.2, 0.6]])
REWARD = np.array([[1.0, 2.0, 2.0], [0.0, -1.0, 3.0]])


def build(xp):
    yield wg.WinRateGame(wg.MatrixPreference(xp.asarray(P)), xp.asarray(REF), 0.3)
    yield wg.WinRateGame(wg.RewardPreference(xp.asarray(REWARD)), xp.asarray(REF), xp.asarray(np.array([0.3, 0.1])))
    yield wg.WinRateGame(
        wg.BradleyTerryPreference(xp.asarray(REWARD)), xp.asarray(REF), xp.asarray(np.array([0.3, 0.0]))
    )
    yield wg.LogWinRateGame(wg.RewardPreference(xp.asarray(REWARD), ties="weak"), xp.asarray(REF), 1.5)
    yield wg.LogWinRateGame(wg.MatrixPreference(xp.asarray(P)), xp.asarray(REF), xp.asarray(np.array([1.5, 3.0])))
    yield wg.BestOfNGame(wg.RewardPreference(xp.asarray(REWARD)), xp.asarray(REF), 3.0, 1.5)


@pytest.mark.parametrize("index", range(6))
def test_everything_agrees_with_numpy(library, index):
    theirs, ours = list(build(library))[index], list(build(np))[index]
    x = np.log(np.array([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]]))
    for name in ("payoff", "best_response", "gap", "residual", "kl_certificate", "hilbert_certificate"):
        got = getattr(theirs, name)(library.asarray(x.copy()))
        assert type(got) is type(library.asarray(x.copy()))
        np.testing.assert_allclose(to_numpy(got), getattr(ours, name)(x), rtol=1e-12, atol=1e-14, err_msg=name)
    a, b = wg.equilibrium(theirs), wg.equilibrium(ours)
    assert type(a.log_policy) is type(library.asarray(x.copy()))
    np.testing.assert_allclose(to_numpy(a.policy), b.policy, atol=1e-13)
    assert a.converged.all()
    assert isinstance(repr(a), str)
    rule = wg.omwu(0.3)
    a, b = (wg.solve(g, rule, max_steps=5, tol=0, reference_solution=wg.equilibrium(g)) for g in (theirs, ours))
    np.testing.assert_allclose(to_numpy(a.log_policy), b.log_policy, atol=1e-12)
    np.testing.assert_allclose(a.trace.kl_from_solution, b.trace.kl_from_solution, atol=1e-12)


def test_operators_in_every_library(library):
    x = np.log(np.array([0.2, 0.3, 0.5]))
    for make, n in (
        (lambda lib: wg.RewardPreference(lib.asarray([1.0, 2.0, 2.0])), 3),
        (lambda lib: wg.MatrixPreference(lib.asarray(P)), 2),
    ):
        for form in ("exact", "power"):
            got = wg.best_of_n(make(library), library.asarray(x.copy()), n, form=form)
            np.testing.assert_allclose(to_numpy(got), wg.best_of_n(make(np), x, n, form=form), atol=1e-14)


def test_float32_iterates_with_float64_certificates():
    torch = pytest.importorskip("torch")
    for make, asarray in ((np.float32, np.asarray), (torch.float32, torch.asarray)):
        matrix, ref = asarray(P, dtype=make), asarray(REF, dtype=make)
        game = wg.WinRateGame(wg.MatrixPreference(matrix), ref, 0.3)
        run = wg.solve(game, wg.wind(), tol=1e-5)
        assert run.log_policy.dtype == make
        assert run.residual.dtype == np.float64
        assert run.converged.all()
        found = wg.equilibrium(game)
        assert to_numpy(found.log_policy).dtype == np.float64
        np.testing.assert_allclose(to_numpy(found.policy), to_numpy(run.policy), atol=1e-5)


@given(st.integers(1, 3000), st.integers(0, 10**6))
def test_cumulative_sums(m, seed):
    x = np.random.default_rng(seed).uniform(size=(2, m))
    exact = np.concatenate([np.zeros((2, 1)), np.cumsum(x.astype(np.longdouble), axis=-1)], axis=-1)
    np.testing.assert_allclose(cumulative_sum(x), exact.astype(float), rtol=3e-15)
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(log_cumulative_sum(np.log(x)), np.log(exact).astype(float), rtol=1e-12, atol=1e-13)


def test_log_cumulative_sum_far_below_underflow():
    x = np.array([-5000.0, -3000.0, -3000.0, 0.0, -np.inf])
    expected = [-np.inf, -5000, -3000, -3000 + np.log(2), 0, 0]
    np.testing.assert_allclose(log_cumulative_sum(x), expected, rtol=1e-15)
    assert logsumexp(np.full(3, -np.inf)) == -np.inf


def test_lists_and_integers_are_read_as_numbers():
    game = wg.WinRateGame(wg.RewardPreference([0, 1, 1]), [0.25, 0.25, 0.5], 1)
    assert wg.equilibrium(game).converged
    assert wg.from_counts([[0, 3], [1, 0]]).matrix()[0, 1] == 0.75


def test_inputs_stay_unmodified(library):
    matrix, ref = library.asarray(P.copy()), library.asarray(REF.copy())
    game = wg.WinRateGame(wg.MatrixPreference(matrix), ref, 0.1)
    wg.equilibrium(game)
    wg.solve(game, wg.extragradient(), max_steps=3)
    assert np.array_equal(to_numpy(matrix), P)
    assert np.array_equal(to_numpy(ref), REF)


def test_shared_data_broadcasts_over_contexts(rng):
    """One matrix, many references; one reference, many betas."""
    refs = rng.dirichlet(np.ones(3), 4)
    game = wg.WinRateGame(wg.MatrixPreference(P), refs, 0.1)
    assert wg.equilibrium(game).policy.shape == (4, 3)
    game = wg.WinRateGame(wg.RewardPreference([0.0, 1, 2]), refs[0], np.array([[0.1], [0.2]]) * np.ones(3))
    found = wg.equilibrium(game)
    assert found.policy.shape == (2, 3, 3)
    assert found.converged.shape == (2, 3)
    run = wg.solve(game, wg.wind(), tol=1e-9)
    assert run.converged.all()
    assert run.trace.residual.shape[1:] == (2, 3)
    assert "residual[1,2]" in run.trace.to_dict()


def test_a_preference_of_ones_own_in_torch():
    """Solvers take any Preference in any library, from its matrix."""
    torch = pytest.importorskip("torch")

    class Squared(wg.Preference):
        is_constant_sum, batch_shape, n_responses = True, (), 3

        def __init__(self, dtype):
            self.table = torch.tensor(P, dtype=dtype)

        @property
        def example(self):
            return self.table

        def win_rate(self, log_policy):
            return self.table.to(log_policy.dtype) @ log_policy.exp()

        def matrix(self):
            return self.table

    for dtype, atol in ((torch.float64, 1e-12), (torch.float32, 1e-6)):
        game = wg.WinRateGame(Squared(dtype), torch.tensor(REF[0], dtype=dtype), 0.1)
        found = wg.equilibrium(game)
        assert found.converged
        assert isinstance(found.log_policy, torch.Tensor)
        ours = wg.equilibrium(wg.WinRateGame(wg.MatrixPreference(P), REF[0], 0.1)).policy
        np.testing.assert_allclose(to_numpy(found.policy), ours, atol=atol)
        np.testing.assert_allclose(to_numpy(wg.solve(game, wg.wind(), tol=1e-5).policy), ours, atol=1e-4)
        log = wg.LogWinRateGame(Squared(dtype), torch.tensor(REF[0], dtype=dtype), 1.5)
        np.testing.assert_allclose(
            to_numpy(log.payoff(log.log_ref)), np.log(P @ to_numpy(log.log_ref.exp())), atol=1e-6
        )
        assert isinstance(game.to_numpy().ref, np.ndarray)
    assert game.to_numpy().to_numpy().preference.matrix().dtype == np.float64

    class Half(Squared):
        matrix = wg.Preference.matrix

    with pytest.raises(NotImplementedError, match=r"Half\.matrix is not implemented"):
        wg.equilibrium(wg.WinRateGame(Half(torch.float64), torch.tensor(REF[0]), 0.1))
