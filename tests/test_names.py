"""Names of responses: kept, shown, aligned by label or refused; without them nothing changes."""

import numpy as np
import pytest
from real_data import load

import windgames as wg

pd = pytest.importorskip("pandas")
NAMES = ("Topalov", "Anand", "Karpov")
REF = pd.Series({"Karpov": 0.2, "Anand": 0.3, "Topalov": 0.5})


@pytest.fixture
def game():
    return wg.WinRateGame(load("chess").empirical(), REF, 0.05)


def test_a_labelled_reference_is_aligned(game):
    np.testing.assert_array_equal(game.ref, [0.5, 0.3, 0.2])
    plain = wg.WinRateGame(wg.MatrixPreference(game.preference.matrix()), [0.5, 0.3, 0.2], 0.05)
    np.testing.assert_array_equal(wg.equilibrium(game).policy, wg.equilibrium(plain).policy)
    assert plain.preference.names is None
    log_policy = pd.Series(np.log(REF))
    assert game.gap(log_policy) == game.gap(np.log([0.5, 0.3, 0.2]))
    contexts = pd.DataFrame([REF, REF[::-1]])
    np.testing.assert_array_equal(wg.WinRateGame(game.preference, contexts, 0.1).ref, [[0.5, 0.3, 0.2]] * 2)
    # labels 0, 1, 2 are positions
    np.testing.assert_array_equal(wg.WinRateGame(game.preference, pd.Series([0.5, 0.3, 0.2]), 0.1).ref, game.ref)


def test_solutions_descriptions_and_traces_show_names(game):
    found = wg.equilibrium(game)
    order = [NAMES[k] for k in np.argsort(-found.policy)]
    line = next(line for line in repr(found).splitlines() if line.strip().startswith("policy"))
    assert [word for word in line.split() if word in NAMES] == order
    frame = found.to_frame()
    assert tuple(frame.index) == NAMES
    np.testing.assert_array_equal(frame.policy, found.policy)
    np.testing.assert_allclose(frame.reference, [0.5, 0.3, 0.2])
    assert "3 responses: Topalov, Anand, Karpov" in repr(game)
    assert "<th>Anand</th>" in game._repr_html_()
    assert "top cycle                 3 of 3 responses: Topalov, Anand, Karpov" in repr(wg.describe(game.preference))
    trace = wg.solve(game, wg.wind(), max_steps=2, record_policies=True).trace
    assert trace.names == NAMES
    np.testing.assert_allclose(trace.to_frame()["policy[Karpov]"].iloc[0], 0.2)
    both = wg.equilibrium(wg.WinRateGame(game.preference, REF, [0.05, 0.5])).to_frame()
    np.testing.assert_array_equal(both["policy[0]"], found.policy)


def test_many_names_are_shown_in_part():
    m = 30
    p = wg.RewardPreference(np.arange(m), names=[f"item {k}" for k in range(m)])
    found = wg.equilibrium(wg.WinRateGame(p, np.full(m, 1 / m), 1.0))
    assert "policy" in repr(found)
    assert "item 29" in repr(found)
    assert "others" in repr(found)
    assert "30 responses: item 0, item 1, item 2, item 3, item 4, ..." in repr(p)
    unnamed = wg.equilibrium(wg.WinRateGame(wg.RewardPreference(np.arange(m)), np.full(m, 1 / m), 1.0))
    assert "policy" not in repr(unnamed)


def test_labels_of_preferences():
    reward = pd.Series({"b": 1.0, "a": 2.0})
    assert wg.RewardPreference(reward).names == ("b", "a")
    for kind in (wg.RewardPreference, wg.BradleyTerryPreference):
        p = kind(reward, names=["a", "b"])
        np.testing.assert_array_equal(p.reward, [2.0, 1.0])
        assert p.to_numpy().names == ("a", "b")
    frame = pd.DataFrame([[0.5, 0.3], [0.7, 0.5]], index=["a", "b"], columns=["a", "b"])
    for table in (frame, frame.iloc[:, ::-1]):
        np.testing.assert_array_equal(wg.MatrixPreference(table).matrix(), frame)
    np.testing.assert_array_equal(wg.MatrixPreference(frame.iloc[::-1]).matrix(), frame.iloc[::-1, ::-1])
    assert wg.MatrixPreference(frame.iloc[::-1]).names == ("b", "a")
    counts = pd.DataFrame([[2, 0], [0, 1]], index=["a", "b"], columns=["b", "a"])
    p = wg.from_counts(counts)
    assert p.names == ("a", "b")
    np.testing.assert_allclose(p.matrix(), [[0.5, 2 / 3], [1 / 3, 0.5]])
    assert wg.LowRankPreference(np.zeros((2, 2)), names=list("ab")).names == ("a", "b")


def test_numbers_in_another_order_are_labels():
    """What pandas leaves after sorting: 0, 1, 2 are positions only where they are not names in another order."""
    reward = pd.Series([1.0, 3.0, 2.0]).sort_values()
    assert wg.RewardPreference(reward).names == (0, 2, 1)
    ref = pd.Series([0.2, 0.3, 0.5])
    for p in (wg.RewardPreference(reward), wg.RewardPreference(ref.index.to_series(), names=[0, 2, 1])):
        np.testing.assert_array_equal(wg.WinRateGame(p, ref, 0.1).ref, [0.2, 0.5, 0.3])
        np.testing.assert_array_equal(wg.WinRateGame(p, ref[[2, 1, 0]], 0.1).ref, [0.2, 0.5, 0.3])
    P = pd.DataFrame([[0.5, 0.1, 0.2], [0.9, 0.5, 0.3], [0.8, 0.7, 0.5]])
    for rows, columns in (([2, 0, 1], [0, 1, 2]), ([0, 1, 2], [2, 0, 1]), ([1, 0, 2], [2, 0, 1])):
        p = wg.MatrixPreference(P.loc[rows, columns])
        np.testing.assert_array_equal(p.matrix(), P.loc[rows, rows])
        assert p.names == (None if rows == [0, 1, 2] else tuple(rows))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: wg.WinRateGame(p, pd.Series({"Karpov": 0.5, "Anand": 0.5}), 0.1), "ref has no entry for 'Topalov'"),
        (lambda p: wg.WinRateGame(p, pd.concat([REF, pd.Series({"Fischer": 1.0})]), 0.1), "ref holds 'Fischer'"),
        (lambda p: wg.WinRateGame(p, pd.concat([REF, REF[:1]]), 0.1), "'Karpov' is there more than once"),
        (lambda p: wg.WinRateGame(wg.RewardPreference([1.0, 2, 3]), REF, 0.1), "the preference has no names"),
        (lambda p: wg.RewardPreference([1.0, 2.0], names=["a"]), "2 responses, but names has 1"),
        (lambda p: wg.RewardPreference([1.0, 2.0], names="ab"), "it is the text 'ab'"),
        (lambda p: wg.RewardPreference([1.0, 2.0], names=["a", "a"]), "'a' is there more than once"),
        (
            lambda p: wg.MatrixPreference(pd.DataFrame(np.full((2, 2), 0.5), index=["a", "b"], columns=["a", "c"])),
            "matrix has no entry for 'b'",
        ),
        (lambda p: wg.MatrixPreference(pd.DataFrame(np.ones((1, 2)), columns=["a", "c"])), "embed_zero_sum"),
    ],
)
def test_other_labels_are_refused(make, message):
    with pytest.raises(ValueError, match=message) as caught:
        make(load("chess").empirical())
    assert "\n" not in str(caught.value)


def test_float32_ties_are_ties_at_beta_zero():
    """A margin below the rounding of float32 is a tie there, in the description and at beta = 0."""
    P = np.array([[0.5, 0.5 + 2e-8], [0.5 - 2e-8, 0.5]], dtype=np.float32)
    P[0, 1] = np.nextafter(np.float32(0.5), np.float32(1))
    p = wg.MatrixPreference(P)
    assert wg.describe(p).condorcet_winner is None
    policy = wg.equilibrium(wg.WinRateGame(p, np.array([0.3, 0.7], dtype=np.float32), 0.0)).policy
    np.testing.assert_allclose(policy, [0.3, 0.7], atol=1e-6)
