"""The public strategies and the battery: what a counterexample looks like, and what the defaults examine."""

import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import windgames as wg
from windgames.testing import check_rule, example_games, games, matrices, policies, preferences, references, rewards

FAIL = hypothesis.settings(database=None, derandomize=True, max_examples=200, report_multiple_bugs=False)


def falsify(strategy, holds):
    """Return what hypothesis prints of the smallest counterexample."""

    @FAIL
    @given(strategy)
    def test(example):
        assert holds(example)

    with pytest.raises(AssertionError) as caught:
        test()
    return "\n".join(caught.value.__notes__)


def test_counterexamples_show_matrix_and_reference():
    text = falsify(games(), lambda game: game.n_responses < 3)
    assert "MatrixPreference(matrix=[[0.5, 0.5, 0.5], [0.5, 0.5, 0.5], [0.5, 0.5, 0.5]])" in text
    assert "ref=[0.3333333333333333, 0.3333333333333333, 0.3333333333333333]" in text
    assert "beta=1.0" in text


def test_counterexamples_shrink_to_small_numbers():
    text = falsify(
        games(),
        lambda game: type(game.preference) is not wg.MatrixPreference or np.ptp(game.preference.matrix()) < 0.2,
    )
    printed = eval(text.partition("example=")[2].partition(",\n)")[0], {**vars(wg)})
    P = printed.preference.matrix()
    assert printed.n_responses == 2
    assert len(set(printed.ref)) == 1
    assert np.ptp(P) == pytest.approx(0.2, abs=0.01)  # next to the smallest that fails
    text = falsify(policies(3), lambda p: p[0] == p[1])
    assert "-" in text
    assert falsify(rewards(), lambda r: len(set(r)) < 2).count("[0., 1.]") == 1
    assert "[0.5, 0.5]" in falsify(references(2), lambda r: False)


def test_large_games_are_summed_up():
    text = falsify(games(min_responses=7, max_responses=7), lambda game: False)
    assert "MatrixPreference(7 responses, constant-sum)" in text


@given(games("log-win-rate") | games("best-of-n") | games())
def test_games_are_valid_and_print_as_code(game):
    printer = hypothesis.vendor.pretty.pretty(game)
    if game.n_responses <= 6:
        again = eval(printer, {**vars(wg)})
        assert type(again) is type(game)
        np.testing.assert_array_equal(again.log_ref, game.log_ref)
        np.testing.assert_array_equal(again.preference.matrix(), game.preference.matrix())
        assert again.beta == game.beta
    assert np.all(game.ref > 0)


@given(matrices(6), preferences(5, constant_sum=False), st.data())
def test_strategies_keep_their_promises(matrix, preference, data):
    np.testing.assert_allclose(matrix + matrix.T, 1, atol=1e-15)
    assert not preference.is_constant_sum or preference.n_responses <= 2
    batch = data.draw(st.sampled_from([(), (2,), (3, 40)]))
    log_policy = data.draw(policies(4, batch))
    assert log_policy.shape == (*batch, 4)
    np.testing.assert_allclose(np.exp(log_policy).sum(axis=-1), 1)


def test_kinds_of_games_are_checked():
    with pytest.raises(ValueError, match="kind must be one of 'win-rate', 'log-win-rate', 'best-of-n'"):
        hypothesis.find(games("log"), lambda game: True)


@pytest.mark.parametrize(
    ("rule", "accepted"),
    [(wg.wind(), 8), (wg.sppo(0.1), 8), (wg.iterative_bon(4, 0.15, 0.1), 3)],
    ids=lambda x: getattr(x, "name", ""),
)
def test_the_battery_has_examples_of_its_own(rule, accepted):
    assert len(check_rule(rule)) == accepted


def test_the_defaults_catch_a_wrong_rule():
    class Wrong:
        name = "wrong"

        def plan(self, game):
            return wg.Plan((wg.Stage(2 * game.beta, 0.1),), {}, "equilibrium")

    with pytest.raises(AssertionError, match="wrong moves the equilibrium"):
        check_rule(Wrong())
    with pytest.raises(ValueError, match="rule must have a name and a plan"):
        check_rule(wg.wind)
    assert {game.kind for game in example_games()} == {"win-rate", "log-win-rate", "best-of-n"}
