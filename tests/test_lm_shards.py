"""Rollouts on disk: a run that was stopped anywhere goes on where it was, and repeats nothing."""

import errno
import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pa = pytest.importorskip("pyarrow")

import lm_run

from windlm import RewardJudge
from windlm.files import write_atomically
from windlm.judges.columns import ending
from windlm.policy import LanguagePolicy, Samples
from windlm.rollout import Record, Rollout, RolloutBatch
from windlm.train.shards import Journal, ShardedRollouts, write_shard

SETTINGS = {"rounds": 3, "epochs": 1, "shard_prompts": 1}
SAME = (
    "round",
    "loss",
    "kl",
    "win_rate_reference",
    "win_rate_previous",
    "tokens",
    "gradient_norm",
    "judge_calls",
    "cut",
)

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pytest.mark.parametrize(
    ("owner", "name", "at"),
    [(LanguagePolicy, "sample", 7), (RewardJudge, "preference", 5), (LanguagePolicy, "log_prob", 10)],
)
@pytest.mark.parametrize("objective", ["wind", pytest.param("extragradient", marks=pytest.mark.slow)])
def test_stopped_in_any_activity_it_goes_on_to_the_same_bits(tmp_path, monkeypatch, owner, name, at, objective):
    whole, rows = lm_run.main(tmp_path / "whole", objective=objective, **SETTINGS)
    calls, method = [], getattr(owner, name)
    monkeypatch.setattr(owner, name, lm_run.stopping(method, at, calls))
    with pytest.raises(lm_run.Stop):
        lm_run.main(tmp_path / "cut", objective=objective, **SETTINGS)
    ours, again = lm_run.main(tmp_path / "cut", objective=objective, **SETTINGS)
    assert torch.equal(lm_run.weights(whole), lm_run.weights(ours))
    assert [[r.get(k) for k in SAME] for r in again] == [[r.get(k) for k in SAME] for r in rows]
    once = []
    monkeypatch.setattr(owner, name, lm_run.stopping(method, 0, once))
    lm_run.main(tmp_path / "counted", objective=objective, **SETTINGS)
    assert len(calls) == len(once) + 1  # only the call that failed was made twice


def test_shards_do_not_change_what_is_sampled(tmp_path):
    _, rows = lm_run.main(tmp_path / "one", **{**SETTINGS, "shard_prompts": 256})
    _, shards = lm_run.main(tmp_path / "four", **SETTINGS)
    for one, four in zip(rows, shards, strict=True):
        for key in one.keys() & set(SAME):
            assert four[key] == pytest.approx(one[key], rel=1e-3, abs=1e-5), key


def test_what_other_weights_left_is_not_used(tmp_path):
    """Without checkpoints a second run begins anew: with the same weights on what is there, with others on its own."""
    settings = {**SETTINGS, "checkpoint_every": 0, "rounds": 1}
    first, _ = lm_run.main(tmp_path / "run", **settings)
    lm_run.main(tmp_path / "run", adapter=True, **settings)
    alone, _ = lm_run.main(tmp_path / "alone", **settings)
    again, _ = lm_run.main(tmp_path / "run", **settings)
    assert torch.equal(lm_run.weights(again), lm_run.weights(alone))
    assert torch.equal(lm_run.weights(first), lm_run.weights(alone))


def test_rollouts_are_for_people_too(tmp_path):
    datasets = pytest.importorskip("datasets")
    lm_run.main(tmp_path / "run", **SETTINGS, keep_rollouts=2)
    rounds = sorted(p.name for p in (tmp_path / "run" / "rollouts").iterdir())
    assert rounds == ["round-000002", "round-000003"]
    assert not list((tmp_path / "run" / "rollouts").rglob("*.journal"))
    files = sorted(map(str, (tmp_path / "run" / "rollouts" / "round-000003" / "stage-0").glob("*.arrow")))
    assert len(files) == 4
    cache = str(tmp_path / "cache")
    table = datasets.load_dataset("arrow", data_files=files, split="train", cache_dir=cache)
    assert table["prompt"][:] == ["a", "b c", "c", "d d d"]
    row = table[1]
    assert {len(row[name]) for name in ("responses", "token_ids", "ended", "label", "start", "ref")} == {8}
    assert set(row["ended"]) <= {"end token", "cut"}


def test_a_shard_comes_back_to_the_last_bit(tmp_path, rng):
    policy = lm_run.small_policy(letters=4, length=3, width=16, spread=0.4)
    prompts = ["a", "b a c", "c c"]
    samples = policy.sample(prompts, 4, rng)
    fixed = {
        name: torch.from_numpy(rng.normal(size=(3, 4))).to(kind)
        for name, kind in (("x", torch.float32), ("y", torch.float64))
    }
    batch = RolloutBatch(samples, fixed, on_policy=False)
    write_shard(tmp_path / "shard-00000000.arrow", [5, 7], prompts[:2], batch[[0, 1]], policy)
    write_shard(tmp_path / "shard-00000002.arrow", [1], prompts[2:], batch[[2]], policy)
    there = ShardedRollouts(tmp_path)
    assert len(there) == 3
    for order in ([2, 0], [1], [0, 1, 2]):
        ours, want = there[np.array(order)], batch[order]
        assert torch.equal(ours.samples.tokens, want.samples.tokens)
        assert torch.equal(ours.samples.mask, want.samples.mask)
        assert ours.samples.prompts == want.samples.prompts
        assert ours.samples.text == want.samples.text
        assert not ours.on_policy
        assert all(torch.equal(ours.fixed[k], want.fixed[k]) and ours.fixed[k].dtype == fixed[k].dtype for k in fixed)
    ends = [ending([0, 4], policy), ending([1, 2, 3], policy), ending([1], policy)]
    assert ends == ["end token", "cut", "stop text"]


def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(tmp_path):
    def full(path):
        path.write_text("half of")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match=r"Cannot write .*shard.*: No space left on device. Make room"):
        write_atomically(tmp_path / "deep" / "shard", full)
    assert list((tmp_path / "deep").iterdir()) == []


def test_a_mended_judge_is_asked_only_what_it_has_not_answered(tmp_path):
    policy = lm_run.small_policy(letters=4, length=2, width=16, spread=0.3)
    samples = Samples.stack([policy.sample(["a", "b c"], 3, np.random.default_rng(0))])
    asked, broken = [], [True]

    def reward(prompts, responses):
        if broken[0]:
            raise KeyError("no such column")
        asked.extend(responses)
        return [float(len(r)) for r in responses]

    def outcomes():
        judge = RewardJudge(reward)
        rollout = Rollout(policy, None, judge, ["a", "b c"], list, journal=Journal(tmp_path))
        return rollout.outcomes(samples), judge, rollout

    with pytest.raises(KeyError, match="no such column"):
        outcomes()
    broken[0] = False
    first, _, rollout = outcomes()
    answered = len(asked)
    assert rollout.calls == answered > 0
    second, judge, rollout = outcomes()
    assert torch.equal(first, second)
    assert (len(asked), rollout.calls) == (answered, answered)  # read, and counted, from the journal
    assert len(judge.known) == answered  # and remembered


def test_identity_names_what_a_round_began_with(tmp_path):
    lm_run.main(tmp_path / "run", **SETTINGS)
    about = json.loads((tmp_path / "run" / "rollouts" / "round-000001" / "identity.json").read_text())
    assert about["draws"] == 8
    assert len(about["weights at the start"]) == 16


def test_a_journal_keeps_results_to_the_bit(tmp_path, rng):
    tokens = torch.arange(12).view(2, 3, 2)
    samples = Samples([[1], [2, 3]], tokens, tokens % 2 == 0, [["a", "é\n", ""]] * 2, {"ref": torch.rand(2, 3, 2)})
    known = {("p", "x", ""): (0.1, float("nan")), ("p", "x", "y"): 1 / 3}
    results = [samples, samples.known["ref"].mT, rng.random((2, 3)), None, {"f": rng.random(2)}, [3, 1]]
    journal = Journal(tmp_path)
    for i, result in enumerate(results):
        journal.write(str(i), Record(result, 0.5, 3, 1, known))
        assert repr(journal.read(str(i))) == repr(Record(result, 0.5, 3, 1, known))
    assert torch.equal(journal.read("1").result, results[1])
    np.testing.assert_array_equal(journal.read("2").result, results[2], strict=True)
    with pytest.raises(TypeError, match="cannot hold a set"):
        journal.write("6", {1})
