"""Rounds in parts, kills in every part, judges that fail: nothing is lost, and the result is the same."""

import os
import re
import resource
import signal

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("pyarrow")

import lm_run

from windlm import LanguagePolicy, PairwiseJudge, RewardJudge
from windlm.files import UnwritableError
from windlm.judges import failures
from windlm.policy import Samples
from windlm.rollout import Rollout
from windlm.train.shards import Journal

SETTINGS = {
    "rounds": 2,
    "epochs": 1,
    "shard_prompts": 2,
    "reference_draws": 0,
    "prompts_per_round": 3,
    "batch_prompts": 1,
}
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that is not disturbed: its weights, its metrics, and what its judge was asked."""
    reward = Failing(None)
    policy, rows = lm_run.main(tmp_path_factory.mktemp("whole"), judge=RewardJudge(reward), **SETTINGS)
    return lm_run.weights(policy), rows, reward.asked


def same(policy, rows, whole):
    assert torch.equal(lm_run.weights(policy), whole[0])
    for ours, other in zip(rows, whole[1], strict=True):
        assert {k: v for k, v in ours.items() if "second" not in k} == {
            k: v for k, v in other.items() if "second" not in k
        }


KILLS = {"draw": (LanguagePolicy, "sample", 4), "judge": (RewardJudge, "preference", 4)}
KILLS |= {"score": (LanguagePolicy, "log_prob", 6), "train": (torch.optim.AdamW, "step", 5)}


@pytest.mark.parametrize("stage", KILLS)
def test_killed_in_any_stage_a_run_ends_with_the_same_bits(tmp_path, whole, stage):
    owner, name, at = KILLS[stage]
    child = os.fork()
    if not child:
        method, calls = getattr(owner, name), []

        def dies(self, *arguments, **more):
            result = method(self, *arguments, **more)
            calls.append(1)
            if len(calls) == at:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        setattr(owner, name, dies)
        lm_run.main(tmp_path, **SETTINGS)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    same(*lm_run.main(tmp_path, **SETTINGS), whole)


def test_parts_of_rounds_on_machines_of_their_own_are_one_run(tmp_path, whole, monkeypatch):
    with pytest.raises(ValueError, match="windlm generate first"):
        lm_run.main(tmp_path, part="judge", **SETTINGS)
    for number in (1, 2):
        lm_run.main(tmp_path, part="generate", **SETTINGS)
        with pytest.raises(ValueError, match="Run windlm judge first"):
            lm_run.main(tmp_path, part="train", **SETTINGS)
        with monkeypatch.context() as without_weights:
            without_weights.setattr(LanguagePolicy, "forward", None)
            without_weights.setattr(LanguagePolicy, "sample", None)
            assert lm_run.main(tmp_path, part="judge", **SETTINGS)[1] == number
        policy, rows = lm_run.main(tmp_path, part="train", **SETTINGS)
        assert len(rows) == number + 1
        folder = tmp_path / ("model" if number == 2 else f"checkpoints/round-{number:06d}")
        assert (folder / "config.json").exists()
    same(policy, rows, whole)


def test_metrics_of_a_round_in_parts_know_each_of_several_rewards(tmp_path):
    def longer(prompts, responses):
        return [float(len(r)) for r in responses]

    judge, settings = RewardJudge([lm_run.vowels, longer]), SETTINGS | {"rounds": 1}
    rows = lm_run.main(tmp_path / "one", judge=judge, **settings)[1]
    assert {"reward", "reward_vowels", "reward_longer"} <= rows[1].keys()
    for part in ("generate", "judge", "train"):
        parts = lm_run.main(tmp_path / "parts", judge=judge if part == "judge" else None, part=part, **settings)[1]
    assert {k: v for k, v in parts[1].items() if "reward" in k} == {k: v for k, v in rows[1].items() if "reward" in k}


def test_parts_that_do_not_belong_together_are_refused(tmp_path):
    lm_run.main(tmp_path, part="generate", **SETTINGS)
    before = sorted(tmp_path.rglob("sampling-*.safetensors"))
    for part in ("generate", "judge", "train"):
        with pytest.raises(ValueError, match="sampled with other draws"):
            lm_run.main(tmp_path, part=part, **SETTINGS | {"draws": 4})
    with pytest.raises(ValueError, match="samples again between trainings"):
        lm_run.main(tmp_path, part="generate", objective="extragradient", **SETTINGS)
    with pytest.raises(ValueError, match="set reference_draws to 0"):
        lm_run.main(tmp_path, part="generate", **SETTINGS | {"reference_draws": 2})
    assert sorted(tmp_path.rglob("sampling-*.safetensors")) == before  # what was sampled is still there


def test_a_disk_that_fills_up_is_one_line_and_the_run_goes_on_once_there_is_room(tmp_path, whole):
    end, start = os.pipe()
    child = os.fork()
    if not child:
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))  # no file may be larger: as good as a full disk
        try:
            lm_run.main(tmp_path, **SETTINGS)
        except BaseException as error:
            os.write(start, f"{type(error).__name__}: {error}".encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(start)
    said = os.read(end, 10_000).decode()
    assert re.fullmatch(
        r"UnwritableError: Cannot write .*: .*\. Make room or choose another folder; the run resumes\.", said
    )
    assert not list(tmp_path.rglob("*.tmp"))
    same(*lm_run.main(tmp_path, **SETTINGS), whole)


def test_a_folder_that_cannot_be_written_to_is_said_before_anything_is_done(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UnwritableError, match=r"Cannot write .*file.*choose another folder\.$"):
        lm_run.main(tmp_path / "file" / "run", **SETTINGS)


# -- judges that fail ----------------------------------------------------------------------------------------


class Failing:
    """A reward that raises at one response, and remembers what it was asked."""

    def __init__(self, text):
        self.text, self.asked = text, []

    def __call__(self, prompts, responses):
        if self.text in responses:
            raise KeyError("no such column")
        self.asked += [*zip(prompts, responses, strict=True)]
        return lm_run.vowels(prompts, responses)


def test_a_judge_that_raises_names_the_response_and_once_mended_goes_on(tmp_path, whole):
    n = whole[1][1]["judge_calls"]
    reward = Failing(whole[2][n - 1][1])  # the last response of the first round
    with pytest.raises(KeyError, match="no such column") as error:
        lm_run.main(tmp_path, judge=RewardJudge(reward), **SETTINGS)
    assert any(f"{reward.text!r}, to the prompt" in note for note in error.value.__notes__)
    drawn = sorted(tmp_path.rglob("sampling-*.safetensors"))
    stamps = [path.stat().st_mtime_ns for path in drawn]
    answered, reward.text = list(reward.asked), "nothing that occurs"
    same(*lm_run.main(tmp_path, judge=RewardJudge(reward), **SETTINGS), whole)
    assert answered
    assert sorted(reward.asked[:n]) == sorted(whole[2][:n])  # no verdict of the round was asked for twice
    for path, stamp in zip(drawn, stamps, strict=True):
        assert not path.exists() or path.stat().st_mtime_ns == stamp


@pytest.fixture
def drawn():
    policy = lm_run.small_policy(letters=4, length=2, width=16, spread=0.3)
    prompts = ["a", "b c", "c"]
    tokens = torch.tensor(
        [[[0, 1], [1, 2], [2, 3], [3, 0]], [[1, 1], [0, 0], [2, 0], [3, 3]], [[0, 2], [1, 3], [2, 2], [3, 1]]]
    )
    mask = torch.ones_like(tokens, dtype=torch.bool)
    return policy, prompts, Samples(policy.encode(prompts), tokens, mask, policy.read(tokens, mask))


def ask(drawn, judge, folder=None, **settings):
    policy, prompts, samples = drawn
    journal = Journal(folder) if folder else None
    rollout = Rollout(policy, None, judge, prompts, list, journal=journal, **settings)
    return rollout, samples, rollout.outcomes(samples).numpy()


def test_a_response_at_which_the_judge_fails_counts_as_the_worst(drawn):
    text = drawn[2].text[1][2]
    _, _, right = ask(drawn, RewardJudge(lm_run.vowels))
    rollout, samples, found = ask(drawn, RewardJudge(Failing(text)), on_judge_error="worst")
    expected = right.copy()
    expected[1, 2, :], expected[1, :, 2], expected[1, 2, 2] = 0, 1, 0.5
    np.testing.assert_array_equal(found, expected)
    assert rollout.failed == 1
    rewards, true = rollout.rewards(samples), RewardJudge(lm_run.vowels).rewards(drawn[1], samples.text)
    others = np.ones((3, 4), dtype=bool)
    others[1, 2] = False
    np.testing.assert_array_equal(rewards[others], true[others])
    assert rewards[1, 2] == true[others].min()


def test_the_response_that_failing_pairs_have_in_common_is_found(drawn):
    text = drawn[2].text[0][1]

    def wins(prompts, first, second):
        if text in first or text in second:
            raise TimeoutError
        return [0.5 + 0.1 * (a < b) - 0.1 * (b < a) for a, b in zip(first, second, strict=True)]

    with pytest.raises(TimeoutError) as error:
        ask(drawn, PairwiseJudge(wins))
    assert [repr(text) in note for note in error.value.__notes__] == [True]
    _, _, found = ask(drawn, PairwiseJudge(wins), on_judge_error="worst")
    assert found[0, 1].tolist() == [0, 0.5, 0, 0]
    assert found[0, :, 1].tolist() == [1, 0.5, 1, 1]
    assert (np.abs(found[1:] - 0.5) <= 0.1 + 1e-6).all()


def test_a_judge_that_fails_at_everything_stops_the_run_all_the_same(drawn):
    def broken(prompts, responses):
        raise ConnectionError("no route")

    with pytest.raises(ConnectionError, match="no route"):
        ask(drawn, RewardJudge(broken), on_judge_error="worst")


def test_a_judge_that_recovers_is_asked_again(drawn, monkeypatch):
    monkeypatch.setattr(failures, "RETRY_SECONDS", 0.0)
    _, _, right = ask(drawn, RewardJudge(lm_run.vowels))
    left = [4]

    def shaky(prompts, responses):
        left[0] -= 1
        if left[0] >= 0:
            raise ConnectionError("busy")
        return lm_run.vowels(prompts, responses)

    # all fail, then the first prompt and two retries of it; the third is answered
    _, _, found = ask(drawn, RewardJudge(shaky), judge_retries=3)
    np.testing.assert_array_equal(found, right)
    left[0] = 10**9
    with pytest.raises(ConnectionError):
        ask(drawn, RewardJudge(shaky), judge_retries=2)
