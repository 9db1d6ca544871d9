"""The comparison of running times, and the table of scaling, in their small forms."""

import pytest

pd = pytest.importorskip("pandas")
pytest.importorskip("tyro")
pytest.importorskip("transformers")
pytest.importorskip("vaderSentiment")

import lm_tiny
from scripts import output, sidecar


def test_every_method_is_timed_in_parts(tmp_path):
    lm_tiny.make(tmp_path / "model")
    assert "=> WIND's time is" in output("runtime", "--results", tmp_path, "--model", tmp_path / "model")
    table = pd.read_csv(tmp_path / "runtime.csv")
    assert len(table) == 5
    shares = table.set_index("method").filter(like="share_")
    assert (shares.drop(columns="share_scoring") > 0).all(axis=None)
    # what is scored for metrics alone is not the method's expense
    assert shares.share_scoring["best-of-n, likelihood"] == 0
    assert shares.share_scoring["SPPO"] < shares.share_scoring["WIND"]
    assert (table.responses_per_round == [64, 64, 8, 64, 64]).all()
    assert sidecar(tmp_path, "runtime")["config"]["threads"] >= 1


@pytest.mark.slow
def test_a_round_is_measured_at_every_size(tmp_path):
    assert "=> From 20 to 40 prompts" in output("scaling", "--smoke", "--results", tmp_path)
    table, memory = pd.read_csv(tmp_path / "scaling.csv"), pd.read_csv(tmp_path / "scaling_memory.csv")
    assert table.prompts.tolist() == [20, 40]
    assert (table.tokens <= table.prompts * table.draws * table.new_tokens).all()
    assert (table.mib_at_peak >= table.mib_at_start).all()
    assert (table.mib_on_disk > 0).all()
    parts = table.filter(like="seconds_").sum(axis=1)
    assert (parts < table.seconds).all()
    assert set(memory.prompts) == {20, 40}
