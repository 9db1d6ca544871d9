"""Zero-sum games as preferences, against linear programs; games and profiles of other libraries, in and out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog

import windgames as wg


def value(A):
    """Return the value of a matrix game, by a linear program."""
    m, n = A.shape
    c = np.append(np.zeros(m), -1.0)
    found = linprog(
        c,
        np.hstack([-A.T, np.ones((n, 1))]),
        np.zeros(n),
        np.append(np.ones(m), 0)[None],
        [1],
        bounds=[(0, None)] * m + [(None, None)],
    )
    return -found.fun


@st.composite
def payoffs(draw):
    m, n = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    kind = draw(st.sampled_from(["normal", "integers", "constant", "far"]))
    if kind == "normal":
        return rng.normal(size=(m, n)) * rng.choice([1e-6, 1.0, 1e6])
    if kind == "integers":
        return rng.integers(-2, 3, (m, n)).astype(float)
    return np.full((m, n), -3.0) if kind == "constant" else 100 + rng.uniform(size=(m, n))


@given(payoffs())
def test_recovers_optimal_strategies(A):
    e = wg.embed_zero_sum(A)
    k = sum(A.shape) + 1
    solution = wg.equilibrium(wg.WinRateGame(e.preference, np.full(k, 1 / k), 0.0))
    x, y, v = e.recover(solution)
    size = max(np.ptp(A), np.max(np.abs(A)) * 1e-3, 1e-300)
    assert e.exploitability(x, y) <= 1e-8 * size
    assert np.max(A @ y) - np.min(x @ A) <= 1e-8 * size
    assert v == pytest.approx(value(A), abs=1e-7 * max(1.0, np.max(np.abs(A))))
    np.testing.assert_allclose([x.sum(), y.sum()], 1, atol=1e-12)


def test_many_games_at_once(library):
    rng = np.random.default_rng(0)
    A = rng.normal(size=(5, 3, 4))
    e = wg.embed_zero_sum(library.asarray(A))
    x, y, v = e.recover(wg.equilibrium(wg.WinRateGame(e.preference, library.asarray(np.full(8, 1 / 8)), 0.0)))
    assert tuple(x.shape) == (5, 3)
    assert tuple(y.shape) == (5, 4)
    for k in range(5):
        assert float(v[k]) == pytest.approx(value(A[k]), abs=1e-9)


def test_small_beta_comes_near():
    """At a low price the strategies are good for the game itself, by its own account."""
    e = wg.embed_zero_sum([[0.0, -1, 2], [1, 0, -1]])
    x, y, _ = e.recover(wg.equilibrium(wg.WinRateGame(e.preference, np.full(6, 1 / 6), 1e-4)))
    assert 0 < e.exploitability(x, y) < 1e-2


def test_errors():
    e = wg.embed_zero_sum([[1.0, 2, 3]])
    with pytest.raises(ValueError, match="with 5 responses, but its policy has shape"):
        e.recover(np.log([0.5, 0.5]))
    with pytest.raises(ValueError, match="plays no column"):
        e.recover([np.log(0.5), -np.inf, -np.inf, -np.inf, np.log(0.5)])
    with pytest.raises(ValueError, match=r"payoff must be finite, but entry \(0, 1\) is nan"):
        wg.embed_zero_sum([[1.0, np.nan]])
    with pytest.raises(ValueError, match=r"shape \(..., m, n\)"):
        wg.embed_zero_sum([1.0, 2.0])
    with pytest.raises(ValueError, match="row_names has 2 entries, but the game has 1 rows"):
        wg.embed_zero_sum([[1.0, 2.0]], row_names=["a", "b"])
    for wrong in (lambda: wg.MatrixPreference([[1.0, 0.0]]), lambda: wg.MatrixPreference([[0.0, 3.0], [-2.0, 1.0]])):
        with pytest.raises(ValueError, match="embed_zero_sum"):
            wrong()
    with pytest.raises(ValueError, match="embed_zero_sum"):
        wg.WinRateGame(wg.MatrixPreference([[0.1, 0.7], [0.2, 0.4]]), [0.5, 0.5], 0.1)


# -- other libraries -----------------------------------------------------------------------------------------


def test_profiles_and_margin_graphs():
    """Maximal lotteries of pref_voting, from its profiles and margin graphs, by name."""
    pytest.importorskip("pref_voting")
    from pref_voting.probabilistic_methods import maximal_lottery
    from pref_voting.profiles import Profile
    from pref_voting.profiles_with_ties import ProfileWithTies

    cmap = {0: "Ann", 1: "Bob", 2: "Cem"}
    profile = Profile([[0, 1, 2], [1, 2, 0], [2, 0, 1]], rcounts=[4, 3, 2], cmap=cmap)
    c = wg.interop.from_pref_voting(profile)
    assert c.names == ("Ann", "Bob", "Cem")
    for i in range(3):
        for j in range(3):
            assert c.wins[i, j] == (profile.support(i, j) if i != j else 0)
    p = wg.interop.from_pref_voting(profile.margin_graph())
    np.testing.assert_array_equal(p.matrix(), c.margins().matrix())
    assert p.names == c.names
    lottery = wg.equilibrium(wg.WinRateGame(p, [1 / 3] * 3, 0.0)).policy
    # margins: Ann over Bob 3, Bob over Cem 5, Cem over Ann 1; masses are those of the opposite pairs
    np.testing.assert_allclose(lottery, np.array([5, 1, 3]) / 9, atol=1e-12)
    theirs = maximal_lottery(profile)
    np.testing.assert_allclose(lottery, [theirs[k] for k in range(3)], atol=1e-6)
    partial = ProfileWithTies([{0: 1, 1: 1}, {2: 1}], rcounts=[2, 1], candidates=[0, 1, 2], cmap=cmap)
    c = wg.interop.from_pref_voting(partial)
    assert c.ties[0, 1] == 2
    assert c.wins.sum() == 0
    partial.use_extended_strict_preference()
    c = wg.interop.from_pref_voting(partial)
    np.testing.assert_array_equal(c.wins, [[0, 0, 2], [0, 0, 2], [1, 1, 0]])


def check_round_trip(into, out):
    A = np.array([[3.0, -1, 2], [-1, 4, 0]])
    e = out(into(wg.embed_zero_sum(A, ["up", "down"], ["left", "middle", "right"])))
    np.testing.assert_array_equal(e.payoff, A)
    assert e.row_names == ("up", "down")
    assert e.column_names == ("left", "middle", "right")
    chess = wg.Comparisons.from_counts([[0, 22, 8], [13, 0, 23], [10, 12, 0]], names=["T", "A", "K"]).empirical()
    e = out(into(chess))
    assert e.row_names == e.column_names == ("T", "A", "K")
    x, y, v = e.recover(wg.equilibrium(wg.WinRateGame(e.preference, np.full(7, 1 / 7), 0.0)))
    np.testing.assert_allclose(x, np.array([99, 35, 81]) / 215, atol=1e-10)
    np.testing.assert_allclose(y, x, atol=1e-10)
    assert v == pytest.approx(0, abs=1e-12)


def test_open_spiel():
    pyspiel = pytest.importorskip("pyspiel")
    check_round_trip(wg.interop.to_open_spiel, wg.interop.from_open_spiel)
    e = wg.interop.from_open_spiel(pyspiel.load_matrix_game("matrix_rps"))
    assert e.row_names == ("Rock", "Paper", "Scissors")
    with pytest.raises(ValueError, match="must have a constant sum"):
        wg.interop.from_open_spiel(pyspiel.load_matrix_game("matrix_pd"))
    with pytest.raises(ValueError, match="load_matrix_game"):
        wg.interop.from_open_spiel(pyspiel.load_game("kuhn_poker"))


def test_gambit():
    pygambit = pytest.importorskip("pygambit")
    check_round_trip(wg.interop.to_gambit, wg.interop.from_gambit)
    with pytest.raises(ValueError, match="must have a constant sum"):
        wg.interop.from_gambit(pygambit.Game.from_arrays(np.eye(2), np.eye(2)))


def test_other_things_are_refused():
    with pytest.raises(ValueError, match="pref_voting, but it is a list"):
        wg.interop.from_pref_voting([1, 2])
    with pytest.raises(ValueError, match="one context"):
        wg.interop._matrix_game(wg.MatrixPreference(np.full((2, 3, 3), 0.5)))
