"""Certificates are proofs: no policy is farther from the equilibrium, known in sixty digits, than they say."""

from decimal import Decimal

import exact_equilibria as oracle
import numpy as np
import pytest

import windgames as wg

KINDS = ("matrix", "almost constant-sum", "reward", "Bradley-Terry", "low rank")
LOG_KINDS = ("weak", "half", "matrix", "Bradley-Terry", "best-of-n")


def random_reference(rng, m):
    spread = 10.0 ** rng.uniform(-1, 2.5)
    ref = np.exp(-spread * rng.random(m)) if rng.random() < 0.5 else rng.dirichlet(np.full(m, rng.choice([0.1, 1.0])))
    ref = np.maximum(ref, 10.0 ** rng.uniform(-300, -3))
    return ref / ref.sum()


def random_win_rate_game(rng, kind, m):
    """Return a win-rate game and its payoff in exact arithmetic."""
    reward = rng.integers(0, 3, m) * rng.choice([1.0, 0.3, 30.0])
    if kind == "reward":
        p, P = wg.RewardPreference(reward), oracle.reward_matrix(reward, "0.5")
    elif kind == "Bradley-Terry":
        reward = reward + rng.normal(size=m)
        scale = float(10.0 ** rng.uniform(-2, 1))
        p, P = wg.BradleyTerryPreference(reward, scale), oracle.bradley_terry_matrix(reward, scale)
    elif kind == "low rank":
        a = rng.normal(size=(m, 2))
        a *= 0.7 / np.maximum(1e-9, np.linalg.norm(a, axis=-1).max()) * rng.random()
        p = wg.LowRankPreference(a)
        P = oracle.low_rank_matrix(p.embedding, p.skew)
    else:
        W = rng.random((m, m)) if rng.random() < 0.5 else rng.integers(0, 3, (m, m)) / 2
        W = np.triu(W, 1)
        W = W + np.tril(1 - W.T, -1) + np.eye(m) / 2
        if kind == "almost constant-sum":
            W = np.clip(W + rng.uniform(-1, 1, (m, m)) * 4.9e-13, 0, 1)
        p, P = wg.MatrixPreference(W), oracle.exact(W)
    game = wg.WinRateGame(p, random_reference(rng, m), float(10.0 ** rng.uniform(-4, 3)))
    return game, oracle.win_rate(oracle.constant_sum_part(P))


def random_log_game(rng, kind, m):
    beta, ref = 1 + float(10.0 ** rng.uniform(-3, 3)), random_reference(rng, m)
    reward = rng.integers(0, 3, m) * 1.0
    if kind == "best-of-n":
        n = float(rng.choice([1.5, 2.0, 3.0, 17.0]))
        return wg.BestOfNGame(wg.RewardPreference(reward), ref, n, beta), oracle.best_of_n(reward.tolist(), n)
    if kind == "matrix":
        W = 1 - rng.random((m, m))
        p, P = wg.MatrixPreference(W), oracle.exact(W)
    elif kind == "Bradley-Terry":
        p, P = wg.BradleyTerryPreference(reward, 0.5), oracle.bradley_terry_matrix(reward, 0.5)
    else:
        p = wg.RewardPreference(reward, ties=kind)
        P = oracle.reward_matrix(reward, "1" if kind == "weak" else "0.5")
    return wg.LogWinRateGame(p, ref, beta), oracle.log_win_rate(P)


def violations(seeds):
    """Return what certificates said and what is true, where it is more; and the number of policies examined."""
    found, examined = [], 0
    for seed in seeds:
        rng = np.random.default_rng(seed)
        m = int(rng.integers(1, 5))
        if seed % 2:
            game, payoff = random_win_rate_game(rng, KINDS[seed // 2 % len(KINDS)], m)
        else:
            game, payoff = random_log_game(rng, LOG_KINDS[seed // 2 % len(LOG_KINDS)], m)
        answer = wg.equilibrium(game).log_policy
        z = oracle.equilibrium(payoff, game.ref, game.beta, answer)
        if z is None:
            continue
        shaken = answer + rng.normal(size=m) * 10.0 ** rng.uniform(-15, 1)
        for x in (answer, np.asarray(game.log_ref), wg.log_normalize(shaken)):
            h, kl = oracle.distances(x, z)
            examined += 1
            for name, true in (("hilbert_certificate", h), ("kl_certificate", kl)):
                said = float(getattr(game, name)(x))
                if not true <= Decimal(said):
                    found.append((seed, game, name, said, float(true)))
    return found, examined


def test_no_certificate_is_exceeded():
    found, examined = violations(range(400))
    assert examined > 1000
    assert not found


@pytest.mark.slow
def test_no_certificate_is_exceeded_in_twenty_thousand_games():
    found, examined = violations(range(1000, 21_000))
    assert examined > 55_000
    assert not found


def test_three_roundings_at_each_end_of_the_span():
    """A response of 9e-15 under the reference: the logarithms of the reference are known to 5e-15 only."""
    game = wg.WinRateGame(wg.RewardPreference([1.0, 0, 0]), [0.77, 0.22999999999999998, 9e-15], 360.0)
    answer = wg.equilibrium(game).log_policy
    payoff = oracle.win_rate(oracle.reward_matrix([1.0, 0, 0], "0.5"))
    h, _ = oracle.distances(answer, oracle.equilibrium(payoff, game.ref, game.beta, answer))
    assert h > Decimal("1.2e-14")
    assert h <= Decimal(float(game.hilbert_certificate(answer)))
