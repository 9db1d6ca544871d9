"""Low-rank preferences against the dense preference of the same matrix (theory 6.5)."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import windgames as wg
from windgames._array import hilbert, to_numpy
from windgames.preferences import low_rank as module
from windgames.testing import betas, check_rule, policies, random_embedding, random_reference


@st.composite
def pairs(draw, max_responses=8):
    """A low-rank preference, down to one response, one dimension and no scores at all, and its dense twin."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    m, k = draw(st.integers(1, max_responses)), draw(st.integers(1, 5))
    a, skew = random_embedding(m, k, rng)
    kind = draw(st.sampled_from(["as it is", "no skew", "offset", "flat"]))
    if kind == "no skew":
        skew = 0 * skew
    elif kind == "flat":  # all on a line: transitive, and singular covariance
        a = a[:1] * rng.normal(size=(m, 1))
        skew = skew * 0.4 / max(0.5, np.abs(a @ skew @ a.T).max())
    elif kind == "offset" and k > 1:  # a common part that is larger than the differences
        a = a + 10 * rng.normal(size=k)
        skew = skew * 0.5 / max(0.5, np.abs(a @ skew @ a.T).max())
    low = wg.LowRankPreference(a, skew)
    scores = a @ skew @ a.T
    return low, wg.MatrixPreference(np.clip(0.5 + (scores - scores.T) / 2, 0, 1))


@given(pairs(), st.data())
def test_win_rates(pair, data):
    low, dense = pair
    z = data.draw(policies(low.n_responses))
    np.testing.assert_allclose(low.matrix(), dense.matrix(), atol=1e-13)
    np.testing.assert_allclose(low.win_rate(z), dense.win_rate(z), atol=1e-13)
    np.testing.assert_allclose(low.log_win_rate(z), dense.log_win_rate(z), atol=1e-9, rtol=1e-9)
    np.testing.assert_allclose(low.interaction, dense.interaction, atol=1e-12)
    assert low.is_constant_sum
    assert wg.MatrixPreference(low.matrix()).is_constant_sum


@given(pairs(), betas(), st.integers(0, 10**6))
def test_the_equilibrium(pair, beta, seed):
    low, dense = pair
    ref = random_reference(low.n_responses, np.random.default_rng(seed))
    fast, slow = (wg.equilibrium(wg.WinRateGame(p, ref, beta)) for p in pair)
    assert fast.converged, fast
    assert "low rank" in fast.method
    # the two matrices are the same up to rounding, which the payoff sees as 1/beta times that
    assert hilbert(fast.log_policy, slow.log_policy) <= 1e-9 + 1e-12 / beta
    assert np.isfinite(fast.kl_certificate)
    log = [wg.equilibrium(wg.LogWinRateGame(p, ref, 1.1 + beta)) for p in pair] if np.all(dense.matrix() > 0.01) else []
    if log:
        assert hilbert(log[0].log_policy, log[1].log_policy) <= 1e-8


def test_certificates_hold_for_scores_that_cancel(rng):
    """Embeddings far from the origin: terms of size 1e6 whose differences are scores; the certificate allows for it."""
    far = np.array([1e6, 0.0]) + rng.uniform(0, 1, (40, 2)) * [0.0, 1e-6]
    preference = wg.LowRankPreference(far * [1.0, 0.4], None)
    exact = (far[:, 1, None] - far[None, :, 1]) * 1e6 * 0.4  # = a_i^T J a_j up to its own rounding
    game = wg.WinRateGame(preference, np.full(40, 1 / 40), 1e-3)
    found = wg.equilibrium(game, tol=1e-6)
    truth = wg.equilibrium(wg.WinRateGame(wg.MatrixPreference(0.5 + exact), np.full(40, 1 / 40), 1e-3))
    assert hilbert(found.log_policy, truth.log_policy) <= found.hilbert_certificate + truth.hilbert_certificate


def test_many_responses_with_a_certificate(rng):
    """No m x m matrix (75 GiB here) is made, and the certificate is that of every game."""
    m, k = 10**5, 8
    a = rng.normal(size=(m, k))
    preference = wg.LowRankPreference(0.7 * a / np.linalg.norm(a, axis=-1, keepdims=True))
    game = wg.WinRateGame(preference, rng.dirichlet(np.ones(m)), 0.01)
    found = wg.equilibrium(game)
    assert found.converged
    assert found.kl_certificate < 1e-20
    # the fixed point of theory 6.5, recomputed
    mean = found.policy @ preference.embedding
    logits = game.log_ref + preference.embedding @ (preference.skew @ mean) / 0.01
    assert np.ptp(found.log_policy - logits) < 1e-10
    path = wg.equilibrium_path(game, [1.0, 0.1, 0.01])
    assert path.converged.all()
    moved = wg.sensitivity(found)
    toward, cotangent = rng.normal(size=m), rng.normal(size=m)
    assert moved.vjp(cotangent)["log_ref"] @ toward == pytest.approx(cotangent @ moved.jvp(log_ref=toward), rel=1e-6)


@given(st.integers(1, 4), st.integers(1, 6), st.integers(0, 10**6), st.booleans(), st.booleans())
def test_batch_equals_loop(contexts, m, seed, own_embedding, own_skew):
    rng = np.random.default_rng(seed)
    a, skew = random_embedding(m, 3, rng)
    if own_embedding:
        a = a * rng.uniform(0.1, 1, (contexts, 1, 1))
    if own_skew:
        skew = skew * rng.uniform(-1, 1, (contexts, 1, 1))
    ref, beta = rng.dirichlet(np.ones(m), contexts), 10 ** rng.uniform(-2, 1, contexts)
    together = wg.equilibrium(wg.WinRateGame(wg.LowRankPreference(a, skew), ref, beta))
    assert together.converged.all()
    for i in range(contexts):
        one = wg.LowRankPreference(a[i] if own_embedding else a, skew[i] if own_skew else skew)
        alone = wg.equilibrium(wg.WinRateGame(one, ref[i], beta[i]))
        assert hilbert(together.log_policy[i], alone.log_policy) < 1e-10 * (1 + 1 / beta[i])


def circle(xp, m=5):
    """A game of m responses on a circle: each beats the next ones."""
    angle = 2 * np.pi * np.arange(m) / m
    return wg.LowRankPreference(xp.asarray(0.6 * np.stack([np.cos(angle), np.sin(angle)], axis=-1)))


def test_every_library(library):
    ref, z = np.array([0.3, 0.1, 0.2, 0.2, 0.2]), np.log([0.2, 0.2, 0.3, 0.2, 0.1])
    for make in (
        lambda xp: wg.WinRateGame(circle(xp), xp.asarray(ref), 0.1),
        lambda xp: wg.LogWinRateGame(circle(xp), xp.asarray(ref), 1.5),
    ):
        theirs, ours = make(library), make(np)
        for name in ("payoff", "best_response", "gap", "hilbert_certificate"):
            got = getattr(theirs, name)(library.asarray(z.copy()))
            if got.ndim:  # numpy's numbers are of another type than its arrays
                assert type(got) is type(library.asarray(z.copy()))
            np.testing.assert_allclose(to_numpy(got), getattr(ours, name)(z), rtol=1e-12)
        found = wg.equilibrium(theirs)
        np.testing.assert_allclose(to_numpy(found.policy), wg.equilibrium(ours).policy, atol=1e-13)
    single = wg.LowRankPreference(library.asarray(0.5 * np.eye(2), dtype=library.float32))
    assert wg.equilibrium(wg.WinRateGame(single, library.asarray([0.5, 0.5]), 0.1)).converged
    log = wg.LowRankPreference.logistic(library.asarray(3 * np.eye(2)))
    np.testing.assert_allclose(to_numpy(log.matrix())[0, 1], 1 / (1 + np.exp(9.0)))


def test_it_works_where_other_preferences_do(rng):
    game = wg.WinRateGame(circle(np), rng.dirichlet(np.ones(5)), 0.2)
    found = wg.equilibrium(game)
    assert wg.verify(game, found)
    run = wg.solve(game, wg.wind(), reference_solution=found)
    assert run.converged
    assert np.all(run.trace.kl_from_solution <= run.trace.bound)
    assert not wg.describe(game.preference).transitive
    assert "rank 2" in repr(found)
    assert len(check_rule(wg.extragradient(), [game])) == 1
    assert wg.equilibrium(game.replace(beta=0.0)).converged
    assert wg.best_of_n(game.preference, game.log_ref, 2).shape == (5,)


def test_logistic_is_dense(rng):
    a = rng.normal(size=(4, 2))
    dense = wg.LowRankPreference.logistic(a, scale=0.5)
    assert type(dense) is wg.MatrixPreference
    J = np.array([[0.0, -1.0], [1.0, 0.0]])
    np.testing.assert_allclose(dense.matrix(), 1 / (1 + np.exp(-2 * a @ J @ a.T)))
    assert dense.is_constant_sum


def test_scores_beyond_a_norm_bound_are_looked_at(rng, monkeypatch):
    """The bound is |b_i||b_j|; a bundle of long parallel embeddings breaks it and is fine nevertheless."""
    a = np.concatenate([[[3.0, 0.0]] * 5, 0.1 * rng.normal(size=(300, 2)) * [1.0, 0.1]])
    assert wg.LowRankPreference(a).matrix().max() <= 1
    a[100] = [0.0, 0.3]
    with pytest.raises(
        ValueError, match=r"responses \d+ and \d+ is 0.9 in size. Scale the embeddings by 0.745"
    ) as error:
        wg.LowRankPreference(a)
    assert {"100"} <= set(str(error.value).replace(",", " ").split())
    wg.LowRankPreference(0.745 * a)
    monkeypatch.setattr(module, "MAX_PAIRS", 3)
    with pytest.raises(ValueError, match=r"only bound them by 9, which leaves .* pairs"):
        wg.LowRankPreference(a)


def test_the_bound_on_interaction_is_one(rng):
    a, skew = random_embedding(module.EXACT_UP_TO + 1, 3, rng)
    low = wg.LowRankPreference(a, skew)
    assert wg.MatrixPreference(low.matrix()).interaction <= low.interaction <= 1


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: wg.LowRankPreference([1.0, 2.0]), r"shape \(\.\.\., m, k\).*\(2,\)"),
        (lambda: wg.LowRankPreference(np.ones((3, 0))), "at least one response"),
        (lambda: wg.LowRankPreference(np.ones((3, 1))), "odd dimension 1.*pass skew"),
        (lambda: wg.LowRankPreference(np.ones((3, 2)), np.eye(3)), r"skew must have shape \(\.\.\., 2, 2\).*\(3, 3\)"),
        (lambda: wg.LowRankPreference(np.ones((3, 2)), np.eye(2)), r"skew-symmetric, but entry \(0, 0\).*add up to 2"),
        (lambda: wg.LowRankPreference([[np.nan, 0.0]]), r"embedding must be finite, but entry \(0, 0\) is nan"),
        (lambda: wg.LowRankPreference([[1.0, 0.0]], [[0, np.inf], [-np.inf, 0]]), r"skew must be finite"),
        (
            lambda: wg.LowRankPreference([[0.0, 1.0], [1.0, 0.0]]),
            "responses 0 and 1 is 1 in size|responses 1 and 0 is 1",
        ),
        (lambda: wg.LowRankPreference(np.eye(2) * [[[0.5]], [[2.0]]]), r"in context \(1,\) is 4 in size"),
        (lambda: wg.LowRankPreference(np.zeros((2, 3, 2)), np.zeros((3, 2, 2))), "contexts do not fit"),
        (lambda: wg.LowRankPreference(np.eye(2) + 0j), "real numbers"),
        (lambda: wg.LowRankPreference.logistic(np.eye(2), scale=0), "scale must be positive"),
    ],
)
def test_bad_input(make, says):
    with pytest.raises(ValueError, match=says):
        make()
