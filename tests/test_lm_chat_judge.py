"""A chat model as a judge of pairs: what it is asked, what is read, and servers that are busy."""

import os
import re
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import lm_tiny
import servers

import windlm.judges.chat as chat_module
from windlm.judges import ChatComparison, Endpoint, PairwiseJudge
from windlm.judges.chat import verdict
from windlm.models import JudgeSettings, load_judge

PROMPTS = ["Say a word.", [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes?"}]]
RESPONSES = [["good", "bad", "odd"], ["good", "same", "bad"]]


def answers(text):
    """The two responses of a comparison."""
    return re.search(r"\[Assistant A\]\n(.*)\n\n\[Assistant B\]\n(.*)", text).groups()


def reply(text):
    a, b = answers(text)
    if "odd" in (a, b):
        return "I cannot say: [[A]] or [[B]]?"
    rank = {"good": 1, "same": 1, "bad": 0}
    return f"Because. [[{'C' if rank[a] == rank[b] else 'A' if rank[a] > rank[b] else 'B'}]]"


def test_both_orders_are_asked_ties_are_halves_and_what_is_unread_is_no_verdict():
    asked = []

    def chat(talks):
        asked.append([talk[0]["content"] for talk in talks])
        return [reply(text) for text in asked[-1]]

    wins = ChatComparison(chat, tries=2)
    judge = PairwiseJudge(wins, max_unread=0.5)
    p = judge.preference(PROMPTS, RESPONSES).matrix()
    np.testing.assert_array_equal(p[0], [[0.5, 1, 0.5], [0, 0.5, 0.5], [0.5, 0.5, 0.5]])
    np.testing.assert_array_equal(p[1], [[0.5, 0.5, 1], [0.5, 0.5, 1], [0, 0, 0.5]])
    assert judge.worst_asymmetry == 0
    assert (judge.calls, judge.unread) == (12, 4)  # the odd one against two, in both orders
    assert [len(texts) for texts in asked] == [6, 2, 6, 2]  # all prompts at once; what was unread once more
    assert wins.unparsed == ["I cannot say: [[A]] or [[B]]?"] * 4
    both = {answers(text) for text in asked[0] + asked[2]}
    assert both == {(b, a) for a, b in both}
    assert any("User: hi\n\nAssistant: yes?" in text for text in asked[0])
    with pytest.raises(ValueError, match=r"4 of 6 verdicts of the judge could not be read, such as 'I cannot say"):
        PairwiseJudge(ChatComparison(chat, tries=1)).preference(PROMPTS[:1], RESPONSES[:1])


@pytest.mark.parametrize(
    ("text", "value"),
    [("[[A]]", 1), ("so [[B]].", 0), ("[[C]]", 0.5), ("[[A]] ... [[A]]", 1), ("[[A]] [[B]]", None), ("A", None)],
)
def test_a_verdict_is_read_or_not(text, value):
    assert verdict(text) == value


def test_a_local_judge_whose_context_is_too_small_says_so_at_once(tmp_path):
    lm_tiny.make(tmp_path)
    judge = load_judge(JudgeSettings("chat", str(tmp_path), max_tokens=4))
    with pytest.raises(ValueError, match=r"for prompt 0 has .* reply of 4 it does not fit .* context of 512"):
        judge.check(["hello"], 60)  # of 512 tokens, a letter each
    judge.wins.chat.policy.context = 2048
    judge.check(["hello"], 60)
    with pytest.raises(ValueError, match="2 of 2 verdicts"):
        judge.preference(["hello"], [["a", "b"]])


# -- servers ---------------------------------------------------------------------------------------------------


@pytest.fixture
def server():
    """An OpenAI-compatible server that refuses the first requests, and counts those at a time."""
    pytest.importorskip("openai")
    state = {"refuse": 0, "status": 429, "now": 0, "most": 0, "asked": 0, "error": {"message": "slow down"}}
    lock = threading.Lock()

    class Handler(servers.StandIn):
        def do_POST(self):
            with lock:
                state["asked"] += 1
                state["now"] += 1
                state["most"] = max(state["most"], state["now"])
                refused = state["asked"] <= state["refuse"]
            body = self.body()
            time.sleep(0.05)
            said = {
                "choices": [{"index": 0, "message": {"role": "assistant", "content": body["messages"][0]["content"]}}]
            }
            with lock:
                state["now"] -= 1
            self.reply({"error": state["error"]} if refused else said, state["status"] if refused else 200)

    with servers.serving(Handler) as running:
        yield servers.url(running), state


def talks(n):
    return [[{"role": "user", "content": str(i)}] for i in range(n)]


def test_requests_are_made_together_and_answered_in_order(server):
    url, state = server
    assert Endpoint(url, "m", concurrency=4)(talks(12)) == [str(i) for i in range(12)]
    assert 1 < state["most"] <= 4


def test_a_rate_limit_ends_nothing(server, monkeypatch):
    url, state = server
    state["refuse"], waits = 9, []
    monkeypatch.setattr(chat_module.time, "sleep", waits.append)
    assert Endpoint(url, "m", retries=0)(talks(3)) == ["0", "1", "2"]
    assert state["asked"] == 12
    assert len(waits) >= 9  # the server's own among them
    state.update(refuse=99, error={"message": "no money", "code": "insufficient_quota"})
    with pytest.raises(ValueError, match=r"refuses: .*no money"):
        Endpoint(url, "m", retries=0)(talks(1))


def test_an_error_of_the_server_ends_all_requests(server):
    url, state = server
    state.update(refuse=10**6, status=400)
    with pytest.raises(ValueError, match=r"answered 400: .*slow down"):
        Endpoint(url, "m", retries=0, concurrency=2)(talks(40))
    assert state["asked"] < 40
    with pytest.raises(ValueError, match="concurrency must be"):
        Endpoint(url, "m", concurrency=0)


def test_without_the_client_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(ValueError, match=r"install windgames\[eval\]"):
        Endpoint("http://127.0.0.1/v1", "m")


MODEL = os.environ.get("WINDLM_TEST_CHAT_MODEL", "")
"""Folder of a small chat model."""


@pytest.mark.slow
@pytest.mark.skipif(
    not Path(MODEL, "config.json").exists(), reason="set WINDLM_TEST_CHAT_MODEL to a chat model's folder"
)
def test_a_real_server_judges(tmp_path):
    with servers.transformers_serve(tmp_path) as url:
        settings = {"url": url, "max_tokens": 24, "tries": 1, "max_unread": 1.0}
        judge = load_judge(JudgeSettings("chat", MODEL, **settings, concurrency=2))
        p = judge.preference(
            ["Name a colour.", "Count to three."], [["Blue.", "I will not."], ["1, 2, 3", "no"]]
        ).matrix()
        assert judge.calls == 4
        assert 0 <= judge.unread <= 4  # a model this small is mostly unreadable
        np.testing.assert_allclose(p + p.swapaxes(1, 2), 1)
        assert len(judge.wins.unparsed) == judge.unread
        assert all(judge.wins.unparsed)  # it said something
