"""The equilibrium as a differentiable function in torch."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import windgames as wg
from windlm.implicit import equilibrium_policy


def tensor(x):
    return torch.tensor(np.asarray(x, dtype=float), requires_grad=True)


@pytest.fixture
def data(rng):
    """Rewards and a reference for two contexts, one beta for each."""
    return tensor(rng.normal(size=(2, 4))), tensor(rng.normal(size=(2, 4))), tensor([0.1, 0.7])


@pytest.mark.parametrize("log_game", [False, True])
def test_gradcheck_of_a_reward(data, log_game):
    reward, log_ref, beta = data

    def f(reward, log_ref, beta):
        return equilibrium_policy(reward=reward, log_ref=log_ref, beta=beta + log_game, scale=0.7, log_game=log_game)

    assert torch.autograd.gradcheck(f, (reward, log_ref, beta), atol=1e-6, rtol=1e-5)


def test_gradcheck_of_a_matrix(data, rng):
    """Through a parameter that keeps the matrix constant-sum, and shared by the contexts."""
    _, log_ref, beta = data
    logits = tensor(rng.normal(size=(4, 4)))

    def f(logits, log_ref, beta):
        matrix = torch.sigmoid(logits - logits.transpose(-1, -2))
        return equilibrium_policy(matrix=matrix, log_ref=log_ref, beta=beta)

    assert torch.autograd.gradcheck(f, (logits, log_ref, beta), atol=1e-6, rtol=1e-5)


def test_gradcheck_of_embeddings(data, rng):
    _, log_ref, beta = data
    embedding, free = tensor(0.2 * rng.normal(size=(4, 3))), tensor(rng.normal(size=(2, 3, 3)))

    def f(embedding, free, log_ref, beta):
        skew = free - free.transpose(-1, -2)
        return equilibrium_policy(embedding=embedding, skew=skew, log_ref=log_ref, beta=beta)

    assert torch.autograd.gradcheck(f, (embedding, free, log_ref, beta), atol=1e-6, rtol=1e-5)


def test_it_is_the_equilibrium_and_its_sensitivity(data):
    reward, log_ref, beta = data
    policy = equilibrium_policy(reward=reward, log_ref=log_ref, beta=beta)
    ref = np.exp(log_ref.detach().numpy())
    game = wg.WinRateGame(
        wg.BradleyTerryPreference(reward.detach().numpy()),
        ref / ref.sum(-1, keepdims=True),
        beta.detach().numpy(),
    )
    solution = wg.equilibrium(game)
    np.testing.assert_allclose(policy.detach().numpy(), solution.log_policy, atol=1e-12)
    policy[..., 0].sum().backward()
    expected = wg.sensitivity(solution).vjp([[1.0, 0, 0, 0]] * 2)
    for name, x in (("reward", reward), ("log_ref", log_ref), ("beta", beta)):
        np.testing.assert_allclose(x.grad.numpy(), expected[name], atol=1e-11)


def test_numbers_and_single_precision():
    reward = torch.tensor([0.0, 1.0, 3.0], requires_grad=True)
    policy = equilibrium_policy(reward=reward, log_ref=torch.zeros(3), beta=0.3)
    assert policy.dtype == torch.float32
    (policy.exp() @ torch.tensor([0.0, 1.0, 2.0])).backward()
    assert reward.grad.dtype == torch.float32
    assert reward.grad[0] < 0 < reward.grad[2]


def test_a_reward_is_learned_through_the_equilibrium():
    """Which reward makes the equilibrium a given policy? Descent on the divergence finds one."""
    wanted = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
    reward = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([reward], line_search_fn="strong_wolfe", max_iter=50)

    def loss():
        optimizer.zero_grad()
        policy = equilibrium_policy(reward=reward, log_ref=torch.zeros(3, dtype=torch.float64), beta=0.3)
        out = (wanted * (wanted.log() - policy)).sum()
        out.backward()
        return out

    optimizer.step(loss)
    assert loss() < 1e-10


def test_bad_input():
    log_ref = torch.zeros(3)
    with pytest.raises(ValueError, match="exactly one"):
        equilibrium_policy(log_ref=log_ref, beta=0.1)
    with pytest.raises(ValueError, match="exactly one"):
        equilibrium_policy(reward=log_ref, matrix=torch.full((3, 3), 0.5), log_ref=log_ref, beta=0.1)
    with pytest.raises(ValueError, match="skew is only used with embedding"):
        equilibrium_policy(reward=log_ref, skew=torch.zeros(2, 2), log_ref=log_ref, beta=0.1)
    with pytest.raises(ValueError, match="beta = 0"):
        equilibrium_policy(reward=log_ref, log_ref=log_ref, beta=0.0)
    with pytest.raises(ValueError, match="did not converge"):
        equilibrium_policy(reward=torch.arange(3.0), log_ref=log_ref, beta=0.1, tol=1e-30)
