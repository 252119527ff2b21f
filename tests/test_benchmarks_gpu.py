"""`python -m benchmarks.gpu`: what it is told, what it writes, and its small form."""

from pathlib import Path

import pytest

from benchmarks.gpu import __main__ as module
from benchmarks.gpu import setting
from benchmarks.gpu.__main__ import main
from benchmarks.gpu.card import Card
from benchmarks.gpu.cases import CASES
from benchmarks.gpu.claims import verdicts
from benchmarks.gpu.results import read_results
from benchmarks.gpu.tables import markdown
from benchmarks.gpu.ways import AT_FULL, AT_TIGHT, ON_CARD, PLAIN, REMAT

from .compiling import needs_cuda_plugin
from .gpu_rows import results, row


def test_options_that_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    def said(*arguments: str) -> str:
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2
        return capsys.readouterr().err

    for text in ("0", "-1", "nine", "nan"):
        wanted = f"'{text}' is no time. Give minutes, more than 0, as in --minutes 9."
        assert wanted in said("--minutes", text)
    assert "invalid choice: 'gpt-13'" in said("--cases", "gpt-13")
    assert "not allowed with argument" in said("--target", "b200", "--platform", "cpu")
    # What is found out later is said in the same way, and nothing is begun.
    capsys.readouterr()
    assert main(["--target", "h101", "--results", str(tmp_path)]) == 2
    printed = capsys.readouterr()
    assert "benchmarks.gpu: There is no machine 'h101'." in printed.err
    assert printed.out == "" and list(tmp_path.iterdir()) == []
    assert main(["--show", str(tmp_path / "a.json")]) == 2
    assert "benchmarks.gpu: There is no file" in capsys.readouterr().err


def test_where_there_is_no_gpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(module, "present_card", lambda: None)
    assert main(["--platform", "gpu"]) == 2
    assert capsys.readouterr().err == (
        "benchmarks.gpu: There is no GPU here that CUDA's driver knows. Run where "
        "there is one, or compile for one that is not here with --target h100-sxm.\n"
    )


def test_a_card_that_others_use(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    shared = Card("NVIDIA H100", 80 * 2**30, 10 * 2**30)
    monkeypatch.setattr(module, "present_card", lambda: shared)
    assert main(["--results", str(tmp_path)]) == 2
    assert "only 10,240 MiB are free" in capsys.readouterr().err


@needs_cuda_plugin
def test_the_small_form_compiles_for_a_card(
    tmp_path: Path,
    own_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    # Whoever works on the checkout meanwhile makes results of another setting.
    monkeypatch.setattr(setting, "_commit", lambda: "abc1234")
    # More time than it needs, as other tests run beside it.
    line = ["--small", "--target", "h100-sxm", "--minutes", "40"]
    line += ["--results", str(tmp_path)]
    assert main(line) == 0
    printed = capsys.readouterr()
    (path,) = tmp_path.glob("*.json")
    assert path.stem.startswith("h100-sxm-compiled-small-20")
    assert path.with_suffix(".md").read_text() == printed.out
    found = read_results(path)
    assert found.left == [] and found.failed == {}
    assert found.setting.form == "compiled" and found.setting.small
    assert found.machine is not None and found.machine["name"] == "h100-sxm"
    assert {case for case, _, _ in found.rows} == {*CASES}
    on_card = [row for row in found.rows.values() if row.way == ON_CARD.name]
    for made in found.rows.values():
        if made in on_card and made.error:
            continue
        assert made.device_bytes, made
        assert made.modelled_seconds, made
        # Nothing was run.
        assert made.samples == () and made.losses == ()
        assert made.peak_bytes_in_use is None
    gpt = {w: r for (case, _, w), r in found.rows.items() if case == "gpt-12"}
    assert {*gpt} == {w.name for w in (PLAIN, REMAT, AT_TIGHT, AT_FULL, ON_CARD)}
    assert gpt[AT_TIGHT.name].predicted_bytes and gpt[AT_TIGHT.name].simulated_seconds
    # Beyond the card: what plain `jax.jit` takes is not there.
    batch = found.largest_batch("gpt-12", PLAIN.name)
    assert batch is not None
    beyond = found.rows["gpt-12", 4 * batch, PLAIN.name]
    limit = found.largest[0]["limit"]
    assert beyond.device_bytes is not None and beyond.device_bytes > limit
    assert "it takes more than the 16 MiB" in beyond.notes[0]
    # What plan there is keeps the limit. It is a near thing for a model this small: on
    # some versions of JAX there is none, and the claim fails.
    (planned,) = on_card
    (claim,) = [v for v in verdicts(found) if "largest batch" in v.claim]
    if planned.error:
        assert planned.error.startswith("InfeasibleBudget: No plan keeps the step")
        assert claim.word == "fails"
    else:
        assert planned.device_bytes is not None and planned.device_bytes <= limit
        assert claim.figure is not None
    assert "which is not here: nothing was run" in printed.out
    assert "not measured" in printed.out
    # All of it is there: nothing is done again.
    assert main(line) == 0
    again = capsys.readouterr()
    assert again.out == printed.out
    assert len(again.err.splitlines()) == 1  # where results go


def test_tables_show_what_is_there():
    found = results(
        row("gpt-12", PLAIN, 1.0, device_bytes=2**30, losses=(2.0,)),
        row("gpt-12", AT_TIGHT, 1.1, budget_bytes=2**29, status="optimal"),
        row("gpt-12", REMAT, error="XlaRuntimeError: RESOURCE_EXHAUSTED"),
        row("adam-16", PLAIN, 0.5, notes=("it is slow",)),
    )
    found.failed["peak of gpt-12: jax.jit"] = "no answer within 9 s"
    found.left = ["times of gpt-12: static at 0.6 (no time was left)"]
    text = markdown(found)
    assert text.startswith("Measured on H100. 2026-01-02, JAX 0.12.0, jaxlib 0.12.0, ")
    assert "| joint at 0.6 | 512 | - | - | 1100 | 0 | 10 | - | - | optimal |" in text
    empty = "| - " * 8
    assert f"| checkpoint nothing_saveable {empty}| failed |" in text
    assert (
        "\n- checkpoint nothing_saveable: XlaRuntimeError: RESOURCE_EXHAUSTED\n" in text
    )
    assert "\n- jax.jit: it is slow\n" in text
    assert "- peak of gpt-12: jax.jit: no answer within 9 s\n" in text
    assert text.endswith("- times of gpt-12: static at 0.6 (no time was left)\n")


def test_the_page_shows_results_as_the_tool_prints_them():
    root = Path(__file__).parent.parent
    page = (root / "docs" / "real-time.md").read_text()
    shown = [
        path
        for path in (root / "benchmarks" / "results").glob("h100-sxm-compiled-*.json")
        if markdown(read_results(path)) in page
    ]
    assert len(shown) == 1
    # It says what of it was measured: nothing.
    assert read_results(shown[0]).setting.form == "compiled"
    assert "**No card has run this yet.**" in page
