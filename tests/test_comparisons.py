"""Comparisons: what is counted, what is unknown, and what is refused; against counting by hand."""

import itertools
import pickle
import re
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from real_data import large, load
from scipy import sparse

import windgames as wg

ITEMS = list("abcde")


@st.composite
def battles(draw):
    pair = st.lists(st.sampled_from(ITEMS), min_size=2, max_size=2, unique=True)
    return draw(st.lists(st.tuples(pair, st.booleans(), st.integers(1, 3)), min_size=1, max_size=30))


@given(battles())
def test_pairs_are_counted(rows):
    """Wins, ties, missing pairs and win rates, against a Counter."""
    first, second = [a for (a, _), *_ in rows], [b for (_, b), *_ in rows]
    tie, weight = [t for _, t, _ in rows], [w for *_, w in rows]
    c = wg.Comparisons.from_pairs(first, second, tie, weight, names=ITEMS)
    wins, ties = Counter(), Counter()
    for (a, b), t, w in rows:
        if t:
            ties[a, b] += w
            ties[b, a] += w
        else:
            wins[a, b] += w
    P = c.empirical(prior=0.5).matrix()
    for (i, a), (j, b) in itertools.product(enumerate(ITEMS), repeat=2):
        assert c.wins[i, j] == wins[a, b]
        assert c.ties[i, j] == ties[a, b]
        total = wins[a, b] + wins[b, a] + ties[a, b]
        assert c.missing[i, j] == (i != j and total == 0)
        expected = (wins[a, b] + ties[a, b] / 2 + 0.5) / (total + 1) if i != j else 0.5
        assert P[i, j] == pytest.approx(expected, rel=1e-14)
    again = wg.Comparisons.from_counts(c.wins, c.ties, names=ITEMS)
    np.testing.assert_array_equal(again.wins, c.wins)
    np.testing.assert_array_equal(again.ties, c.ties)
    # strong components, by reachability
    reach = (c.wins + c.ties > 0) | np.eye(5, dtype=bool)
    for k in range(5):
        reach |= reach[:, [k]] & reach[[k], :]
    strong = {frozenset(np.array(list(ITEMS))[(reach & reach.T)[k]]) for k in range(5)}
    assert {frozenset(group) for group in c.connected} == strong


@given(st.lists(st.lists(st.sets(st.sampled_from(ITEMS), min_size=1, max_size=3), max_size=3), min_size=1, max_size=8))
def test_rankings_are_counted(ballots):
    """Ballots with ties that leave items out, as elections read them and as incomplete comparisons."""
    ballots = [[tier - set().union(*ballot[:k]) for k, tier in enumerate(ballot)] for ballot in ballots]
    ballots = [[tier for tier in ballot if tier] for ballot in ballots]
    for unranked in ("below", "missing"):
        c = wg.Comparisons.from_rankings(ballots, names=ITEMS, unranked=unranked)
        wins, ties = np.zeros((5, 5)), np.zeros((5, 5))
        for ballot in ballots:
            place = {item: k for k, tier in enumerate(ballot) for item in tier}
            for (i, a), (j, b) in itertools.permutations(enumerate(ITEMS), 2):
                if unranked == "missing" and not (a in place and b in place):
                    continue
                here, there = place.get(a, 9), place.get(b, 9)
                wins[i, j] += here < there
                ties[i, j] += here == there < 9
        np.testing.assert_array_equal(c.wins, wins)
        np.testing.assert_array_equal(c.ties, ties)
    ranks = [{item: k for k, tier in enumerate(ballot) for item in tier} for ballot in ballots]
    np.testing.assert_array_equal(wg.Comparisons.from_rankings(ranks, ITEMS, unranked="missing").wins, wins)


def test_arena_logs():
    log = {
        "model_a": ["x", "y", "x", "z"],
        "model_b": ["y", "x", "z", "y"],
        "winner": ["model_a", "model_b", "tie (bothbad)", "tie"],
    }
    c = wg.Comparisons.from_arena(log)
    assert c.names == ("x", "y", "z")
    np.testing.assert_array_equal(c.wins, [[0, 2, 0], [0, 0, 0], [0, 0, 0]])
    np.testing.assert_array_equal(c.ties, [[0, 0, 1], [0, 0, 1], [1, 1, 0]])
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(log).sample(frac=1, random_state=0)  # an index in another order
    np.testing.assert_array_equal(wg.Comparisons.from_arena(frame).wins, c.wins)
    with pytest.raises(ValueError, match=r"Row 1 of 'winner' is 'y', but a verdict is 'model_a', 'model_b' or 'tie'"):
        wg.Comparisons.from_arena(log | {"winner": ["tie", "y", "tie", "tie"]})
    with pytest.raises(ValueError, match="frame has no column 'model_a', but 'left'"):
        wg.Comparisons.from_arena({"left": ["x"]})
    with pytest.raises(ValueError, match=r"frame must be a DataFrame .* read 'battles.csv' with pandas"):
        wg.Comparisons.from_arena("battles.csv")


def test_tables_are_not_read_as_sequences():
    """Iterating a table gives its columns, which would be counted as items or as ballots."""
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"model_a": ["x", "y"], "model_b": ["y", "x"], "winner": ["model_a", "tie"]})
    twice = pd.concat([frame, frame[["model_a"]]], axis=1)
    ballots = pd.DataFrame({"first": ["x", "y"], "second": ["y", "x"]})
    for make, message in (
        (lambda: wg.Comparisons.from_pairs(frame[["model_a"]], frame[["model_b"]]), "winner must .* it is a DataFrame"),
        (lambda: wg.Comparisons.from_arena(twice), "model_a must be a sequence, .* but it is a DataFrame"),
        (lambda: wg.Comparisons.from_rankings(ballots), r"of a table pass the rows, such as frame\.to_numpy\(\)"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
    direct = wg.Comparisons.from_rankings([["x", "y"], ["y", "x"], ["x", "y"]])
    ranks = pd.DataFrame({"x": [1, 2, 1], "y": [2, 1, 2]})
    rows = [row for _, row in ranks.iterrows()]  # labelled: items and their ranks
    for ballot in (ranks.to_dict("records"), rows, np.array([["x", "y"], ["y", "x"], ["x", "y"]])):
        np.testing.assert_array_equal(wg.Comparisons.from_rankings(ballot).wins, direct.wins)


def test_other_libraries_tables():
    """Whatever has named columns, or gives a list."""

    class Column:
        def __init__(self, values):
            self.values = values

        def to_pylist(self):
            return self.values

        def index(self, value):
            return self.values.index(value)

    class Table(dict):
        column_names = ("model_a", "model_b", "winner")
        __iter__ = None

    log = Table(model_a=Column(["x", "y"]), model_b=Column(["y", "x"]), winner=Column(["model_a", "tie"]))
    c = wg.Comparisons.from_arena(log)
    np.testing.assert_array_equal(c.wins, [[0, 1], [0, 0]])
    np.testing.assert_array_equal(c.ties, [[0, 1], [1, 0]])


def test_weights_that_decay():
    """Battles of long ago weigh next to nothing, and are all that is known of some."""
    old = 1e-150
    rows = list("abac"), list("baca")
    for weights in ([1, 3, old, 2 * old], [old, 3 * old, old, 2 * old]):
        reward = wg.Comparisons.from_pairs(*rows, weight=weights).bradley_terry().reward
        np.testing.assert_allclose(reward - reward[0], np.log([1, 3, 2]), atol=1e-9)
    apart = wg.Comparisons.from_pairs(list("abcdac"), list("badcca"), weight=[1, 3, 1, 3, old, 3 * old])
    with pytest.raises(ValueError, match="The counts differ too much in size for double precision"):
        apart.bradley_terry()
    assert np.all(np.isfinite(apart.bradley_terry(prior=1).reward))


def test_labelled_tables_are_aligned():
    """A crosstab whose rows and columns differ and are in another order, against its battles."""
    pd = pytest.importorskip("pandas")
    winner, loser = list("aabdc"), list("bcaab")  # d never lost, and everybody lost but d
    table = pd.crosstab(pd.Series(winner), pd.Series(loser))
    assert list(table.index) != list(table.columns)
    direct = wg.Comparisons.from_pairs(winner, loser)
    for frame in (table, table.iloc[::-1, [2, 0, 1]]):
        c = wg.Comparisons.from_counts(frame, names=direct.names)
        np.testing.assert_array_equal(c.wins, direct.wins)
        assert set(wg.Comparisons.from_counts(frame).names) == set("abcd")
    plain = pd.DataFrame([[0, 1], [2, 0]])  # 0, 1 are positions
    assert wg.Comparisons.from_counts(plain, names=["x", "y"]).names == ("x", "y")
    with pytest.raises(ValueError, match="'d', which is not among the 3 names"):
        wg.Comparisons.from_counts(table, names=list("abc"))
    with pytest.raises(ValueError, match="The rows of wins must differ, but 'a'"):
        wg.Comparisons.from_counts(pd.concat([table, table.iloc[:1]]))


def test_exact_winner_of_the_chess_cycle():
    """At beta = 0 the masses are the margins of the opposite pairs, in fractions."""
    c = load("chess")
    shares = {
        ("Topalov", "Anand"): Fraction(22, 35),
        ("Anand", "Karpov"): Fraction(23, 35),
        ("Karpov", "Topalov"): Fraction(10, 18),
    }
    margin = {pair: 2 * share - 1 for pair, share in shares.items()}
    opposite = {"Topalov": ("Anand", "Karpov"), "Anand": ("Karpov", "Topalov"), "Karpov": ("Topalov", "Anand")}
    total = sum(margin.values())
    exact = [margin[opposite[name]] / total for name in c.names]
    assert exact == [Fraction(99, 215), Fraction(35, 215), Fraction(81, 215)]
    p = c.empirical()
    assert p.names == c.names
    assert wg.describe(p).top_cycle == (0, 1, 2)
    for ref in ([1 / 3] * 3, [0.8, 0.1, 0.1]):
        found = wg.equilibrium(wg.WinRateGame(p, ref, 0.0)).policy
        np.testing.assert_allclose(found, [float(x) for x in exact], rtol=1e-12)


def test_montroll_beats_all():
    """Burlington 2009: the instant run-off elected Kiss, whom Montroll beats, as he beats everybody."""
    c = load("burlington_2009")
    for p in (c.empirical(), c.margins()):
        found = wg.describe(p)
        assert found.condorcet_winner == c.names.index("Montroll")
        assert wg.equilibrium(wg.WinRateGame(p, [0.2] * 5, 0.0)).policy[0] == 1
        assert "Condorcet winner          Montroll" in repr(found)
    largest = 6267 - 591
    assert c.margins().matrix()[0, 1] == pytest.approx(0.5 + (4067 - 3477) / (2 * largest), rel=1e-15)


def test_ballots_of_burlington():
    path = large("WINDGAMES_BURLINGTON")
    rankings, weight = [], []
    for line in path.read_text().splitlines():
        count, colon, ballot = line.partition(":")
        if colon and count.isdigit():
            rankings.append([tier.split("=") for tier in ballot.split(">")])
            weight.append(int(count))
    c = wg.Comparisons.from_rankings(rankings, weight=weight)
    kept = load("burlington_2009")
    order = [c.names.index(name) for name in kept.names]
    np.testing.assert_array_equal(c.wins[np.ix_(order, order)], kept.wins)
    assert sum(weight) == 8980
    # drawing ballots, the margin of Montroll over Kiss has the variance of a mean over ballots
    draws = c.resample(2000, rng=0, prior=0.5).win_counts
    i, j = order[0], order[1]
    margin = draws[:, i, j] - draws[:, j, i]
    prefers = (4067 - 3477) / 8980
    expected = np.sqrt(8980 * ((4067 + 3477 + 1 - 1) / 8980 - prefers**2))
    assert np.std(margin) == pytest.approx(expected, rel=0.05)


def test_resampling_draws_comparisons():
    """Mean and variance of bootstrap counts are those of a multinomial; one equilibrium call takes all draws."""
    c = load("chess")
    p = c.resample(4000, rng=1)
    assert p.batch_shape == (4000,)
    assert p.names == c.names
    counts = p.win_counts
    np.testing.assert_array_equal(counts.sum(axis=(1, 2)), 88)
    q = c.wins / 88
    np.testing.assert_allclose(counts.mean(axis=0), c.wins, atol=4 * np.sqrt(88 * 0.25 / 4000))
    np.testing.assert_allclose(counts.var(axis=0), 88 * q * (1 - q), rtol=0.12)
    np.testing.assert_allclose(p.matrix() + p.matrix().swapaxes(1, 2), 1, atol=1e-15)
    policy = wg.equilibrium(wg.WinRateGame(p, [1 / 3] * 3, 0.05)).policy
    assert policy.shape == (4000, 3)
    low, high = np.quantile(policy[:, 0], [0.05, 0.95])
    assert low < wg.equilibrium(wg.WinRateGame(c.empirical(), [1 / 3] * 3, 0.05)).policy[0] < high
    again = c.resample(3, rng=1, estimate=lambda draw: draw.bradley_terry(prior=1))
    assert again.batch_shape == (3,)
    np.testing.assert_array_equal(c.resample(3, rng=1).matrix(), c.resample(3, rng=1).matrix())


def test_folds_are_a_partition():
    c = load("baseball_1987")
    folds = [(rest.wins, fold.wins) for rest, fold in c.split(4, rng=0)]
    np.testing.assert_array_equal(sum(fold for _, fold in folds), c.wins)
    for rest, fold in folds:
        np.testing.assert_array_equal(rest + fold, c.wins)


def test_a_pair_that_was_never_compared_is_unknown():
    c = wg.Comparisons.from_pairs(["a", "c", "a"], ["b", "d", "b"])
    with pytest.raises(ValueError, match=r"'a' and 'c' were never compared \(4 such pairs in all\)"):
        c.empirical()
    with pytest.raises(ValueError, match="in draw 0"):
        c.resample(2, rng=0)
    filled = c.empirical(prior=1)
    assert filled.matrix()[0, 2] == 0.5
    found = wg.describe(filled)
    assert found.never_compared == 4
    assert "4 of 6 pairs were never compared" in repr(found)
    assert "2 groups that never met" in repr(found)
    assert "4 of 6 pairs never compared" in repr(c)


def test_other_kinds_of_input():
    """Labels and counts of other libraries mean what they say; nothing at all is still a table."""
    pd = pytest.importorskip("pandas")
    wins = [[0, 40000], [30000, 0]]
    for table in (np.array(wins, dtype=np.float16), np.array(wins, dtype=np.uint16), sparse.csr_array(wins)):
        np.testing.assert_array_equal(wg.Comparisons.from_counts(table).wins, wins)
    for labels in (pd.Categorical(["a", "b"]), pd.array(["a", "b"], dtype="string"), iter(["a", "b"])):
        assert wg.Comparisons.from_pairs(labels, ["b", "a"]).names == ("a", "b")
    assert wg.Comparisons.from_pairs(["a", 1], [1, "a"]).names == ("a", 1)
    nothing = wg.Comparisons.from_counts(np.zeros((3, 3)))
    np.testing.assert_array_equal(nothing.bradley_terry(prior=1).fit.reward, 0)
    np.testing.assert_array_equal(nothing.empirical(prior=1).matrix(), 0.5)
    assert wg.describe(nothing.empirical(prior=1)).never_compared == 3
    one = wg.Comparisons.from_counts([[0]])
    assert one.bradley_terry(prior=1).fit.standard_errors.shape == (1,)
    again = pickle.loads(pickle.dumps(load("chess").bradley_terry()))
    assert again.names == ("Topalov", "Anand", "Karpov")
    np.testing.assert_array_equal(again.fit.standard_errors, load("chess").bradley_terry().fit.standard_errors)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: wg.Comparisons(), "from_pairs, from_counts"),
        (lambda: wg.Comparisons.from_pairs(["a", "b"], ["b"]), "winner has 2 rows, but loser has 1"),
        (lambda: wg.Comparisons.from_pairs(["a", "b"], ["b", "b"]), "Row 1 compares 'b' with itself"),
        (lambda: wg.Comparisons.from_pairs(["a", None], ["b", "a"]), "None, which names nothing"),
        (lambda: wg.Comparisons.from_pairs([1.0, float("nan")], [2.0, 1.0]), "nan, which names nothing"),
        (lambda: wg.Comparisons.from_pairs("ab", "ba"), "must be a sequence"),
        (lambda: wg.Comparisons.from_pairs(["a"], ["b"], tie=["no"]), r"tie\[0\] is 'no'"),
        (lambda: wg.Comparisons.from_pairs(["a"], ["b"], weight=[-1]), r"weight\[0\] is -1"),
        (lambda: wg.Comparisons.from_pairs(["a"], ["x"], names=["a", "b"]), r"loser\[0\] is 'x'"),
        (lambda: wg.Comparisons.from_pairs(["a"], ["b"], names=["a", "b", "a"]), "'a' is there more than once"),
        (lambda: wg.Comparisons.from_pairs([], []), "There are no items"),
        (lambda: wg.Comparisons.from_counts([[0, 1]]), r"shape \(m, m\), but its shape is \(1, 2\)"),
        (lambda: wg.Comparisons.from_counts([[0, 1], [2, 3]]), "3 comparisons of 1 with itself"),
        (lambda: wg.Comparisons.from_counts([[0, -1], [2, 0]], names=["a", "b"]), "'a' against 'b' is -1"),
        (lambda: wg.Comparisons.from_counts([[0, 1], [2, 0]], ties=[[0, 1], [0, 0]]), "ties must be symmetric"),
        (lambda: wg.Comparisons.from_counts([[0, 1], [2, 0]], names=["a"]), "2 rows, but there are 1 names"),
        (lambda: wg.Comparisons.from_rankings(["ab"]), "ranking 0 is the text 'ab'"),
        (lambda: wg.Comparisons.from_rankings([["a", "b"], ["b", "a", "b"]]), "ranking 1 holds 'b' more than once"),
        (lambda: wg.Comparisons.from_rankings([["a", "b"]], unranked="last"), "unranked must be one of"),
        (lambda: wg.Comparisons.from_counts(np.ma.masked_array([[0, 1], [2, 0]], [[0, 1], [0, 0]])), "masked entries"),
        (lambda: wg.Comparisons.from_counts([[0, 1j], [2, 0]]), "real numbers, but its dtype is complex128"),
        (lambda: wg.Comparisons.from_counts([["0", "1"], ["2", "0"]]), "real numbers, but its dtype is <U1"),
        (lambda: wg.Comparisons.from_counts([[0, 10**400], [2, 0]]), "integers of 2\\*\\*53 or more"),
        (lambda: wg.Comparisons.from_counts([[0, 1e308], [1e308, 0]]), "The counts add up to inf, more than 1e\\+300"),
        (lambda: wg.Comparisons.from_counts(np.zeros((2, 2))).resample(2), "at least one comparison"),
        (
            lambda: wg.Comparisons.from_counts([[0, 1e19], [1e19, 0]]).resample(2),
            "fewer than 2\\*\\*62, but not 2e\\+19",
        ),
        (lambda: wg.Comparisons.from_pairs(["a"], ["b"], weight=["1"]), "weight must hold real numbers"),
        (
            lambda: wg.Comparisons.from_pairs(["a"], ["b"], weight=[[1]]),
            r"one number per row, but its shape is \(1, 1\)",
        ),
        (lambda: wg.Comparisons.from_pairs(["a"], ["b"], weight=np.ma.masked_array([1], [1])), r"entry \(0,\) is None"),
        (lambda: wg.Comparisons.from_pairs(["a", None], ["b", "a"]), r"winner\[1\] is None, which names nothing"),
        (lambda: wg.Comparisons.from_pairs({"a": 1}, {"b": 1}), "winner must be a sequence, .* but it is a dict"),
        (lambda: wg.Comparisons.from_pairs({"a", "b"}, ["b", "a"]), "winner must be a sequence, .* but it is a set"),
        (lambda: wg.Comparisons.from_pairs(np.array([["a"]]), ["b"]), r"winner must have one axis"),
        (lambda: wg.Comparisons.from_rankings(None), "rankings must be a sequence of rankings"),
        (lambda: wg.Comparisons.from_rankings({"a": 1}), "rankings must be a sequence of rankings"),
        (lambda: wg.Comparisons.from_rankings([{"a", "b"}]), "ranking 0 must be a sequence, .* but it is a set"),
        (lambda: wg.Comparisons.from_rankings([["a", np.nan]]), r"ranking 0\[1\] is nan, which names nothing"),
        (lambda: wg.Comparisons.from_rankings([{"a": 1, "b": np.nan}]), "The rank of 'b' in ranking 0 is NaN"),
        (lambda: wg.Comparisons.from_arena(None), "DataFrame or a mapping of columns, but it is a NoneType"),
        (lambda: wg.Comparisons.from_arena([{"model_a": "x"}]), "DataFrame or a mapping of columns, but it is a list"),
        (lambda: wg.Comparisons.from_arena({}, columns="winner"), "columns must be three names"),
        (lambda: wg.Comparisons.from_arena({}, columns=("a", "b")), "columns must be three names"),
        (
            lambda: wg.Comparisons.from_arena({"model_a": ["x"], "model_b": ["y"], "winner": [["model_a"]]}),
            r"Row 0 of 'winner' is \['model_a'\]",
        ),
        (lambda: load("chess").resample(0), "n must be an integer, at least 1"),
        (lambda: wg.Comparisons.from_counts([[0, 0.5], [0.5, 0]]).resample(2), "whole comparisons"),
        (lambda: load("chess").empirical(prior=-1), "prior must be non-negative"),
        (lambda: load("chess").bradley_terry(ties="rao"), "ties must be one of"),
        (lambda: load("chess").low_rank(3), "rank must be an even positive number"),
        (lambda: load("chess").log_likelihood(wg.RewardPreference([1.0, 2])), "3 responses, one per item"),
    ],
)
def test_errors_say_what_and_where(make, message):
    with pytest.raises((ValueError, TypeError), match=re.compile(message, re.IGNORECASE)) as caught:
        make()
    assert "\n" not in str(caught.value)
