"""The study of real comparisons in its small form: its tables, what they must show, and its picture."""

import numpy as np
import pytest

pd = pytest.importorskip("pandas")
pytest.importorskip("matplotlib")
pytest.importorskip("tyro")
pytest.importorskip("joblib")

import scripts
from real_data import load
from scripts import RESULTS, sidecar

import windgames as wg

smoke = scripts.smoke("comparisons")


def test_tables_and_picture(smoke):
    folder, told = smoke
    assert told.count("=>") == 4
    for name in ("comparisons_equilibria", "comparisons_cyclic", "comparisons_peers", "comparisons_speed"):
        assert sidecar(folder, name)["config"]["smoke"] is True
    image = pytest.importorskip("PIL.Image")
    with image.open(folder / "comparisons.png") as picture:
        assert picture.width > 900
        assert "comparisons_equilibria.csv" in picture.info["Source"]


@pytest.mark.parametrize("full", [False, True])
def test_winners_are_those_of_the_counts(smoke, full):
    """At beta = 0: Montroll beats all, chess is a cycle; bands are ordered and policies sum to at most one."""
    table = pd.read_csv((RESULTS if full else smoke[0]) / "comparisons_equilibria.csv")
    assert (table.low <= table.high).all()
    assert (table.groupby(["set", "beta"]).policy.sum() <= 1 + 1e-8).all()
    end = table[table.beta == 0].set_index(["set", "item"]).policy
    assert end["Burlington 2009", "Montroll"] == pytest.approx(1)
    c = load("chess")
    chess = wg.equilibrium(wg.WinRateGame(c.empirical(0.5), np.full(3, 1 / 3), 0.0)).policy
    np.testing.assert_allclose(end["chess"][list(c.names)], chess, atol=1e-7)


@pytest.mark.parametrize("full", [False, True])
def test_shares_are_those_of_the_counts(smoke, full):
    table = pd.read_csv((RESULTS if full else smoke[0]) / "comparisons_cyclic.csv").set_index("set")
    for name, file in (("chess", "chess"), ("baseball 1987", "baseball_1987"), ("citations", "citations")):
        c = load(file)
        assert table.share[name] == pytest.approx(wg.describe(c.empirical(0.5)).cyclic_share, rel=1e-6)
        assert table.comparisons[name] == c.wins.sum()
    assert (table.low <= table.high).all()
    # what Bradley-Terry explains by construction: with many games a pair, noise leaves little to cycles
    assert table.noise["Burlington 2009"] < 0.01


@pytest.mark.parametrize("full", [False, True])
def test_others_find_the_same_rewards(smoke, full):
    """As far as they are installed; no other rewards are likelier, and the likelihood is that of the counts."""
    table = pd.read_csv((RESULTS if full else smoke[0]) / "comparisons_peers.csv")
    assert not full or table.fit.str.split().str[0].nunique() == 3
    assert table.furthest.max() < 1e-5
    assert table.likelihood_less.min() > -1e-9
    c = load("chess")
    told = table[table.set == "chess"].log_likelihood.iloc[0]
    assert told == pytest.approx(c.log_likelihood(c.bradley_terry()))


@pytest.mark.parametrize("size", [0.0, 0.7])
def test_the_cyclic_share_without_noise_is_the_true_one(size):
    """Comparisons drawn from known log-odds: the 90% interval holds the share of these, most of the time."""
    import comparisons

    rng = np.random.default_rng(5)
    m, games, held = 14, 12, 0
    i, j = np.triu_indices(m, 1)
    for _ in range(8):
        r, x = rng.normal(size=m) * 0.6, rng.normal(size=(m, 2)) * size
        d = r[i] - r[j] + x[i, 1] * x[j, 0] - x[i, 0] * x[j, 1]
        P = np.full((m, m), 0.5)
        P[i, j] = 1 / (1 + np.exp(-d))
        P[j, i] = 1 - P[i, j]
        true = wg.describe(wg.MatrixPreference(P)).cyclic_share
        wins = np.zeros((m, m))
        wins[i, j] = rng.binomial(games, P[i, j])
        wins[j, i] = games - wins[i, j]
        _, low, high = comparisons.without_noise(wg.Comparisons.from_counts(wins), 30, rng)[0]
        held += low - 1e-9 <= true <= high + 1e-9
    assert held >= 6
