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
