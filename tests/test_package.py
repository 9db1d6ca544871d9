"""The package as a user meets it: what dir() shows, what an import loads, what a missing extra says."""

import subprocess
import sys

import numpy as np
import pytest

import windgames as wg


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_dir_is_the_interface():
    assert set(dir(wg)) == {*wg.__all__, "testing"}
    assert all(hasattr(wg, name) for name in wg.__all__)


def test_testing_needs_no_second_import():
    done = run("import windgames as wg; wg.testing.games; import sys; assert 'hypothesis' in sys.modules")
    assert done.returncode == 0, done.stderr
    light = run("import windgames, sys; assert not {'hypothesis', 'cvxpy', 'torch', 'pandas'} & set(sys.modules)")
    assert light.returncode == 0, light.stderr


def test_without_hypothesis_the_message_names_the_extra():
    done = run("import sys; sys.modules['hypothesis'] = None; import windgames as wg; wg.testing")
    assert (
        "ImportError: windgames.testing needs hypothesis: install windgames[testing], in a checkout by pip"
        in done.stderr
    )


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'nash'"):
        wg.nash  # noqa: B018


def test_distances_are_public():
    p, q = np.log([0.2, 0.8]), np.log([0.5, 0.5])
    assert wg.kl(p, q) == pytest.approx(0.2 * np.log(0.4) + 0.8 * np.log(1.6))
    assert wg.hilbert(p, q) == pytest.approx(np.log(4))
    np.testing.assert_allclose(np.exp(wg.log_normalize(np.log([1.0, 3.0]))), [0.25, 0.75])


def test_divergences_take_what_has_one_meaning_and_align_labels():
    p, q = np.log([0.2, 0.3, 0.5]), np.log([0.5, 0.25, 0.25])
    torch, pd = pytest.importorskip("torch"), pytest.importorskip("pandas")
    for f in (wg.kl, wg.hilbert):
        exact = f(p, q)
        assert f(list(p), q.tolist()) == exact
        assert f(torch.tensor(p), q) == f(p, torch.tensor(q)) == pytest.approx(exact, rel=1e-15)
        assert f(p.astype(np.float16), q) == pytest.approx(exact, rel=1e-2)
        np.testing.assert_array_equal(f([p, q], q), [exact, 0.0])
        one = pd.Series(p, index=list("abc"))
        assert f(one, pd.Series(q, index=list("abc"))[::-1]) == f(one[::-1], pd.Series(q, index=list("abc")))
        assert f(one, pd.Series(q, index=list("abc"))[::-1]) == pytest.approx(exact)
        assert f(pd.Series(p), pd.Series(q)[::-1]) == pytest.approx(exact)
        assert f([0.0, -np.inf], np.log([0.5, 0.5])) > 0
    leaf = torch.tensor(p, requires_grad=True)
    wg.kl(leaf, q).backward()
    np.testing.assert_allclose(leaf.grad, np.exp(p) * (1 + p - q) - (np.exp(p)), atol=1e-12)
    np.testing.assert_allclose(np.exp(wg.log_normalize([0, 0])), [0.5, 0.5])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f: f([0.2, 0.8], [0.5, 0.5]), "log_p must be normalised log-probabilities, but the probabilities sum"),
        (lambda f: f(np.log([0.2, 0.8]), [0.5, 0.5]), "log_q must be normalised log-probabilities"),
        (
            lambda f: f([[np.nan, 0.0]], [[0.0, -1.0]]),
            r"log_p must hold logarithms of masses, but entry \(0, 0\) is nan",
        ),
        (lambda f: f([-np.inf, -np.inf], [0.0, -np.inf]), "log_p must be normalised"),
        (lambda f: f([0.0], np.log([0.5, 0.5])), r"log_p has shape \(1,\), log_q \(2,\)"),
        (lambda f: f(np.zeros((2, 1)), np.zeros((3, 1))), r"log_p has shape \(2, 1\), log_q \(3, 1\)"),
        (lambda f: f(0.0, 0.0), r"must have shape \(\.\.\., m\)"),
        (lambda f: f([], []), r"must have shape \(\.\.\., m\)"),
        (lambda f: f(["a"], [0.0]), "log_p must hold real numbers"),
    ],
)
@pytest.mark.parametrize("f", [wg.kl, wg.hilbert])
def test_divergences_refuse_the_rest(f, make, message):
    with pytest.raises(ValueError, match=message) as caught:
        make(f)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ([np.nan, 0.0], r"x must hold logarithms of masses, but entry \(0,\) is nan"),
        ([np.inf, 0.0], "but entry .* is inf"),
        ([[0.0, 0.0], [-np.inf, -np.inf]], r"all are -inf in context \(1,\)"),
        (1.0, "must have shape"),
    ],
)
def test_what_cannot_be_normalised(x, message):
    with pytest.raises(ValueError, match=message):
        wg.log_normalize(x)
