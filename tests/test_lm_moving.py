"""The moving reference on a language model: a snapshot of its own weights, renewed every so many rounds."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from lm_run import adapted, vowels
from safetensors.torch import load_file

import windgames as wg
from windlm import Regression, RewardJudge
from windlm.tabular import Enumeration, small_policy
from windlm.train import Config, train

MATRIX = np.array([[0.5, 0.9, 0.2, 0.4], [0.1, 0.5, 1.0, 0.3], [0.8, 0.0, 0.5, 0.9], [0.6, 0.7, 0.1, 0.5]])
SETTINGS = {"draws": 1000, "epochs": 40, "batch_prompts": 1, "schedule": "constant", "progress": False, "cpu": True}


class TableJudge:
    calls = 0

    def __init__(self, text):
        self.where = {text: i for i, text in enumerate(text)}

    def preference(self, prompts, responses):
        index = np.array([[self.where[t] for t in row] for row in responses])
        return wg.MatrixPreference(MATRIX[index[:, :, None], index[:, None, :]])


def test_four_rounds_are_four_steps_on_the_table(tmp_path):
    """With the reference renewed after two rounds, and not with one that stays."""
    policy = small_policy(letters=3, length=1, width=16, spread=0.3)
    words = Enumeration.of(policy)
    game = wg.WinRateGame(wg.MatrixPreference(MATRIX), np.exp(words.log_policy(["a"])), 0.3)
    rule = wg.moving_reference(wg.wind(4.0), every=2)
    objective = Regression(rule, 0.3)
    assert objective.slots == ("magnet",)
    config = Config(out=tmp_path, rounds=4, learning_rate=1e-2, **SETTINGS)
    rows = train(policy, ["a"], TableJudge(words.text), objective, config)
    found = np.exp(words.log_policy(["a"]))

    def distance(other):
        return np.abs(found - np.exp(wg.solve(game, other, max_steps=4, tol=0).log_policy)).sum() / 2

    assert distance(rule) < 0.05
    assert distance(wg.wind(4.0)) > 3 * distance(rule)
    assert "moves" in rows[0]["remark"]
    # the metrics' divergence is that to the first policy: of the policy before each round
    before = np.exp(wg.solve(game, rule, max_steps=3, tol=0).log_policy)
    expected = float(np.sum(before * (np.log(before) - game.log_ref)))
    assert rows[4]["kl"] == pytest.approx(expected, abs=0.1)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_an_adapter_keeps_its_moving_reference_apart_from_the_base(tmp_path):
    pytest.importorskip("peft")
    policy = adapted(small_policy(letters=3, length=1, width=16, spread=0.3))
    objective = Regression(wg.moving_reference(wg.wind(4.0), every=2), 0.3)
    config = Config(out=tmp_path, rounds=3, learning_rate=1e-2, **SETTINGS | {"draws": 50, "epochs": 2})
    train(policy, ["a"], RewardJudge(vowels), objective, config)
    magnet = load_file(tmp_path / "snapshots" / "magnet" / "0-of-1.safetensors")
    now = {name: p.detach() for name, p in policy.model.named_parameters() if p.requires_grad}
    assert magnet.keys() == now.keys()
    assert all("lora" in name for name in magnet)
    moved = [name for name in magnet if "lora_B" in name]
    assert all(torch.any(magnet[name] != 0) for name in moved)  # no longer the base
    assert any(torch.any(magnet[name] != now[name]) for name in moved)  # nor the policy after the third round
