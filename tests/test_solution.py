"""Records of a run, references as logarithms, and what prints and plots."""

import sys

import matplotlib as mpl
import numpy as np
import pytest

import windgames as wg
from windgames import bounds
from windgames._array import to_numpy
from windgames.testing import random_matrix, random_reference

mpl.use("Agg")

CYCLE = [[0.5, 0.8, 0.1], [0.2, 0.5, 0.7], [0.9, 0.3, 0.5]]
GAME = wg.WinRateGame(wg.MatrixPreference(CYCLE), [0.6, 0.3, 0.1], 0.1)
BATCH = wg.WinRateGame(wg.MatrixPreference(CYCLE), [[0.6, 0.3, 0.1], [0.2, 0.3, 0.5]], [0.1, 0.5])
RULES = [wg.wind(), wg.extragradient(), wg.omwu(0.2), wg.nash_md(0.2)]


# -- records -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
@pytest.mark.parametrize("game", [GAME, BATCH])
def test_fewer_records_are_the_same_run(rule, game):
    star = wg.equilibrium(game)
    every = wg.solve(game, rule, tol=0, max_steps=23, reference_solution=star, record_policies=True)
    some = wg.solve(game, rule, tol=0, max_steps=23, reference_solution=star, record_policies=True, record_every=5)
    np.testing.assert_array_equal(some.trace.steps, [0, 5, 10, 15, 20, 23])
    np.testing.assert_array_equal(every.trace.steps, np.arange(24))
    for name in ("gap", "residual", "kl_from_solution", "bound", "log_policies"):
        ours, theirs = getattr(some.trace, name), getattr(every.trace, name)
        assert (ours is None) == (theirs is None)
        if ours is not None:
            np.testing.assert_allclose(ours, theirs[some.trace.steps], rtol=1e-12, atol=1e-15, err_msg=name)


def test_recorded_policies_are_the_iterates():
    seen = []
    run = wg.solve(GAME, wg.wind(), max_steps=7, record_policies=True, callback=lambda t, p: seen.append(p))
    assert run.trace.log_policies.shape == (8, 3)
    np.testing.assert_array_equal(run.trace.log_policies[1:], seen)
    np.testing.assert_allclose(np.exp(run.trace.log_policies[0]), GAME.ref)
    np.testing.assert_array_equal(run.trace.log_policies[-1], run.log_policy)
    assert wg.solve(GAME, wg.wind(), max_steps=7).trace.log_policies is None
    assert "log_policies" not in run.trace.to_dict()


def test_convergence_is_seen_at_the_next_record():
    every, some = (wg.solve(GAME, wg.wind(), record_every=k) for k in (1, 7))
    assert every.converged
    assert some.converged
    assert int(every.steps) <= int(some.steps) < int(every.steps) + 7
    with pytest.raises(ValueError, match="record_every must be an integer, at least 1"):
        wg.solve(GAME, wg.wind(), record_every=0)


def test_progress(capsys):
    wg.solve(GAME, wg.wind(), max_steps=12, progress=True)
    shown = capsys.readouterr().err
    assert "12/12" in shown
    assert "residual" in shown


def test_to_frame():
    run = wg.solve(BATCH, wg.wind(), max_steps=4, reference_solution=wg.equilibrium(BATCH))
    frame = run.trace.to_frame()
    assert len(frame) == 5
    np.testing.assert_array_equal(frame["kl_from_solution[1]"], run.trace.kl_from_solution[:, 1])


# -- the local rate ------------------------------------------------------------------------------------------


def slope(values, low=1e-18, high=1e-10):
    """Return the factor per step over the decades between, which are the last that rounding leaves alone."""
    late = np.flatnonzero((values > low) & (values < high))
    return (values[late[-1]] / values[late[0]]) ** (1 / (late[-1] - late[0]))


@pytest.mark.parametrize("seed", range(10))
def test_the_slope_at_the_end_is_the_local_rate(seed):
    """Theory 5.10 in random games; the bound's own slope is another."""
    rng = np.random.default_rng(seed)
    m = int(rng.integers(3, 7))
    preference = wg.MatrixPreference(random_matrix(["uniform", "logistic", "tournament"][seed % 3], m, rng))
    game = wg.WinRateGame(preference, random_reference(m, rng), 0.1)
    star = wg.equilibrium(game)
    trace = wg.solve(game, wg.wind(0.4), tol=1e-10, reference_solution=star).trace
    measured = slope(trace.kl_from_solution)
    assert measured == pytest.approx(float(trace.local_rate), rel=0.01)
    mu = bounds.tangent_frequencies(preference.matrix(), star.policy)[0]
    assert float(trace.local_rate) == pytest.approx(bounds.local_rate(0.1, 0.4, mu), rel=1e-12)
    assert trace.bound_factor == pytest.approx(1 / 1.04)
    assert measured < 0.99 * trace.bound_factor


@pytest.mark.parametrize("rule", [wg.extragradient(), wg.optimistic(), wg.omwu(0.5), wg.inpo(0.5)])
def test_the_local_rate_of_other_rules(rule):
    star = wg.equilibrium(GAME)
    trace = wg.solve(GAME, rule, tol=1e-11, reference_solution=star).trace
    assert slope(trace.kl_from_solution) == pytest.approx(float(trace.local_rate), rel=0.01)
    if rule.name == "OMWU":
        mu = bounds.tangent_frequencies(CYCLE, star.policy)[0]
        assert float(trace.local_rate) == pytest.approx(bounds.omwu_local_rate(0.5, mu, 0.1) ** 2)


def test_where_there_is_a_local_rate():
    star = wg.equilibrium(BATCH)
    batch = wg.solve(BATCH, wg.wind(), reference_solution=star, max_steps=60).trace
    alone = [
        wg.solve(BATCH.replace(log_ref=r, beta=b), wg.wind()) for r, b in zip(BATCH.log_ref, (0.1, 0.5), strict=True)
    ]
    np.testing.assert_allclose(batch.local_rate, [x.trace.local_rate for x in alone], rtol=1e-6)
    assert "in the end kl_from_solution changes by the factor" in repr(batch)
    assert all(x.converged for x in alone)
    assert alone[0].trace.local is None
    assert "local[0]" in batch.to_frame()
    assert "local" not in alone[0].trace.to_frame()
    for trace in (
        wg.solve(GAME, wg.wind(), max_steps=3).trace,
        wg.solve(GAME, wg.sppo(0.1), reference_solution=wg.equilibrium(GAME), max_steps=3).trace,
        wg.solve(GAME.replace(beta=0.0), wg.extragradient(), max_steps=3).trace,
    ):
        assert trace.local_rate is None
        assert "in the end" not in repr(trace)


@pytest.mark.parametrize("inner", [wg.wind(), wg.optimistic()], ids=lambda rule: rule.name)
def test_the_local_rate_of_a_moving_reference(inner):
    """Theory 6.11 at beta = 0: the mean factor over rounds of a run, and of WIND the formula."""
    game, every = wg.WinRateGame(wg.MatrixPreference(CYCLE), [0.5, 0.3, 0.2], 0.0), 12
    star = wg.equilibrium(game)
    rule = wg.moving_reference(inner, every, beta=0.2)
    trace = wg.solve(game, rule, tol=0, max_steps=60 * every, record_every=every, reference_solution=star).trace
    found = trace.kl_from_solution
    late = np.flatnonzero((found < 1e-8) & (found > 1e-20))
    per_round = (found[late[-1]] / found[late[0]]) ** (1 / (late[-1] - late[0]))
    assert per_round == pytest.approx(float(trace.local_rate) ** every, rel=0.02)
    if inner.name == "WIND":
        sigma = bounds.tangent_frequencies(CYCLE, star.policy)[0]
        eta = rule.plan(game).settings["eta"]
        assert float(trace.local_rate) ** every == pytest.approx(bounds.moving_local_rate(0.2, eta, sigma, every))


def test_without_a_unique_winner_of_full_support_there_is_no_local_rate():
    """Theory 6.11: a response that is not played, and ties everywhere."""
    loser = np.pad(CYCLE, ((0, 1), (0, 1)), constant_values=1.0)
    loser[3] = [0.0, 0.0, 0.0, 0.5]
    for matrix in (loser, np.full((3, 3), 0.5)):
        game = wg.WinRateGame(wg.MatrixPreference(matrix), np.full(len(matrix), 1 / len(matrix)), 0.0)
        run = wg.solve(game, wg.omwu(0.5), max_steps=3, reference_solution=wg.equilibrium(game))
        assert run.trace.local_rate is None


def test_beyond_the_threshold_the_local_rate_is_above_one():
    star = wg.equilibrium(GAME)
    mu = bounds.tangent_frequencies(CYCLE, star.policy)[0]
    for share, above in ((0.9, False), (1.1, True)):
        rule = wg.wind(share * bounds.local_max_step(GAME.beta, mu))
        assert (wg.solve(GAME, rule, reference_solution=star, max_steps=2).trace.local_rate > 1) == above


# -- references as logarithms --------------------------------------------------------------------------------


def test_log_ref_is_ref():
    for make, more in ((wg.WinRateGame, ()), (wg.LogWinRateGame, ()), (wg.BestOfNGame, (2.0,))):
        ours = make(GAME.preference, None, *more, 0.7, log_ref=np.log(GAME.ref))
        theirs = make(GAME.preference, GAME.ref, *more, 0.7)
        np.testing.assert_allclose(ours.log_ref, theirs.log_ref, atol=1e-15)
        np.testing.assert_allclose(wg.equilibrium(ours).policy, wg.equilibrium(theirs).policy, atol=1e-12)
    made = [
        kind.from_best_of_n(wg.RewardPreference([1.0, 2.0]), n=4, alpha1=0.2, **reference)
        for kind in (wg.LogWinRateGame, wg.BestOfNGame)
        for reference in ({"ref": [0.5, 0.5]}, {"log_ref": np.log([0.5, 0.5])})
    ]
    assert {game.beta for game in made} == {made[0].beta}


def test_log_ref_below_underflow():
    """Masses that no float holds: theory 2.1 in logarithms."""
    log_ref = wg.log_normalize(np.array([0.0, -2000.0, -3000.0]))
    game = wg.WinRateGame(wg.RewardPreference([0.0, 1.0, 2.0]), beta=0.01, log_ref=log_ref)
    assert game.ref[1] == 0
    found = wg.equilibrium(game)
    assert found.converged
    u = game.preference.matrix() @ found.policy
    np.testing.assert_allclose(found.log_policy, wg.log_normalize(log_ref + u / 0.01), rtol=1e-12, atol=1e-8)
    again = game.replace(beta=0.02)
    np.testing.assert_array_equal(again.log_ref, game.log_ref)
    torch = pytest.importorskip("torch")
    there = wg.WinRateGame(wg.RewardPreference(torch.tensor([0.0, 1.0, 2.0])), beta=0.01, log_ref=torch.tensor(log_ref))
    np.testing.assert_allclose(to_numpy(wg.equilibrium(there).log_policy), found.log_policy, rtol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"beta": 0.1}, "either as ref .* or as log_ref"),
        ({"beta": 0.1, "ref": GAME.ref, "log_ref": GAME.log_ref}, "either as ref .* or as log_ref"),
        ({"ref": GAME.ref}, "beta is missing"),
        ({"beta": 0.1, "log_ref": GAME.ref}, "log_ref must be normalised"),
        ({"beta": 0.1, "log_ref": np.array([0.0, -np.inf, -np.inf])}, r"log_ref\[1\] is -inf"),
        ({"beta": 0.1, "log_ref": np.log([0.5, 0.5])}, "log_ref must have shape"),
    ],
)
def test_bad_references(arguments, says):
    with pytest.raises(ValueError, match=says):
        wg.WinRateGame(GAME.preference, **arguments)


# -- for people ----------------------------------------------------------------------------------------------


def test_the_equilibrium_is_printed():
    found = wg.equilibrium(GAME)
    text = repr(found)
    assert "  ".join(f"{p:.3f}" for p in found.policy) in text
    assert ", tol 1e-10." in text
    assert "policy" not in repr(wg.equilibrium(BATCH))
    assert "policy" not in repr(wg.equilibrium(wg.WinRateGame(wg.RewardPreference(np.arange(9)), np.ones(9) / 9, 1)))


def test_html():
    assert "<td>0.8</td>" in GAME.preference._repr_html_()
    assert "<td>0.600  0.300  0.100</td>" in GAME._repr_html_()
    assert "0.1 to 0.5 per context" in BATCH._repr_html_()
    many = wg.WinRateGame(wg.RewardPreference(np.zeros((2, 20))), np.full((2, 20), 0.05), 0.1)
    assert "2 contexts" in many._repr_html_()
    for thing in (
        GAME,
        BATCH,
        many,
        wg.equilibrium(GAME),
        wg.describe(GAME.preference),
        wg.BestOfNGame(wg.RewardPreference([0.0, 1.0]), [0.5, 0.5], 4, 2.0),
    ):
        html = thing._repr_html_()
        assert html.count("<table>") == html.count("</table>") >= 1
        assert html.count("<tr>") == html.count("</tr>")


def test_plots():
    star = wg.equilibrium(GAME)
    run = wg.solve(GAME, wg.wind(), reference_solution=star)
    axes = run.trace.plot()
    lines = {line.get_label(): line for line in axes.get_lines()}
    curve = "$KL(\\pi^*\\,\\|\\,\\pi)$"
    assert curve in lines
    np.testing.assert_allclose(lines[f"bound of theory 5.2 on {curve}"].get_ydata(), run.trace.bound)
    local = lines[f"{curve} at its local rate, {run.trace.local_rate:.4g} a step (theory 5.10)"].get_ydata()
    shown = np.isfinite(local)
    np.testing.assert_allclose(local[shown], run.trace.local[shown])
    assert shown.sum() > 0.5 * len(shown)
    assert axes.get_yscale() == "log"
    assert run.trace.plot(axes) is axes
    bars = star.plot().patches
    np.testing.assert_allclose([b.get_height() for b in bars], [*GAME.ref, *star.policy])
    assert wg.equilibrium(BATCH).plot(context=1).patches[0].get_height() == pytest.approx(0.2)
    long = wg.WinRateGame(wg.RewardPreference(np.arange(100.0)), np.full(100, 0.01), 0.1)
    assert len(wg.equilibrium(long).plot().get_lines()) == 2
    for context in ((), 2, (0, 0)):
        with pytest.raises(ValueError, match=r"context must be an index .* such as \(0,\), but it is"):
            wg.equilibrium(BATCH).plot(context=context)
    mpl.pyplot.close("all")


@pytest.mark.parametrize(
    ("missing", "call", "says"),
    [
        ("pandas", lambda run: run.trace.to_frame(), r"Trace.to_frame needs pandas: install windgames\[plot\]"),
        ("matplotlib.pyplot", lambda run: run.trace.plot(), r"Trace.plot needs matplotlib: install windgames\[plot\]"),
        ("matplotlib.pyplot", lambda run: run.plot(), r"Solution.plot needs matplotlib: install windgames\[plot\]"),
        ("tqdm.auto", lambda run: wg.solve(GAME, wg.wind(), progress=True), r"needs tqdm: install windgames\[plot\]"),
    ],
)
def test_a_missing_library_names_the_extra(monkeypatch, missing, call, says):
    run = wg.solve(GAME, wg.wind(), max_steps=3)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=says):
        call(run)
