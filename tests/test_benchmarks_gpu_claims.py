"""Claims about `autotm.jit`, from made-up rows."""

import pytest

from benchmarks.gpu.claims import table, verdicts
from benchmarks.gpu.results import Results
from benchmarks.gpu.ways import (
    ASYNCHRONOUS,
    AT_FULL,
    AT_LOOSE,
    AT_TIGHT,
    ON_CARD,
    PLAIN,
    REMAT,
    SYNCHRONOUS,
)

from .gpu_rows import MIB, results, row


GPT = "gpt-12"


def words(found: Results) -> dict[str, str]:
    """The verdicts on one workload, by the first words of the claims."""
    return {" ".join(v.claim.split()[:2]): v.word for v in verdicts(found)}


def measured(**slower: float) -> Results:
    """A run in which all claims hold but for what is slower by a factor."""
    known = {"predicted_bytes": 100 * MIB, "unconstrained_seconds": 1.0}

    def at(name: str, seconds: float) -> float:
        return seconds * slower.get(name, 1.0)

    def planned(way, name: str, seconds: float, **more):
        taken, peak = at(name, seconds), int(at("peak", 102 * MIB))
        modelled = 0.95 * taken / slower.get("model", 1.0)
        figures = {"modelled_seconds": modelled, "peak_bytes_in_use": peak}
        return row(GPT, way, taken, **{**known, **figures, **more})

    found = results(
        row(GPT, PLAIN, 1.0),
        row(GPT, REMAT, 1.3),
        planned(AT_FULL, "full", 1.1),
        planned(AT_TIGHT, "tight", 1.04),
        planned(AT_LOOSE, "loose", 1.005),
        planned(ASYNCHRONOUS, "asynchronous", 1.1),
        planned(SYNCHRONOUS, "synchronous", 1.2),
        planned(ON_CARD, "beyond", 14.0, batch=192),
        row(GPT, PLAIN, batch=192, error="RESOURCE_EXHAUSTED: too large"),
    )
    found.largest.append({"case": GPT, "way": PLAIN.name, "batch": 48})
    return found


HOLDING = {
    "overhead at": "holds",
    "time over": "holds",
    "peak_bytes_in_use, off": "holds",
    "measured step": "holds",
    "asynchronous over": "holds",
    "tokens/s at": "holds",
}


def test_all_claims_can_hold():
    assert words(measured()) == HOLDING
    assert [v.word for v in verdicts(measured())] == ["holds"] * 7


@pytest.mark.parametrize(
    ("slower", "claim"),
    [
        ({"full": 1.06}, "overhead at"),
        ({"tight": 1.02}, "time over"),
        ({"loose": 1.01}, "time over"),
        ({"peak": 1.02}, "peak_bytes_in_use, off"),
        ({"model": 1.2}, "measured step"),
        ({"synchronous": 0.9}, "asynchronous over"),
        ({"beyond": 1.1}, "tokens/s at"),
    ],
)
def test_each_claim_can_fail(slower: dict[str, float], claim: str):
    failed = [v for v in verdicts(measured(**slower)) if v.word == "fails"]
    assert [" ".join(v.claim.split()[:2]) for v in failed] == [claim]


def test_figures():
    figures = [v.figure for v in verdicts(measured())]
    wanted = [0.1 / 0.3, 1.04, 1.005, 0.02, 0.05, 1.1 / 1.2, 192 / 14 / 16]
    assert figures == pytest.approx(wanted)


def test_what_was_only_compiled_is_judged_by_models():
    model = {"unconstrained_seconds": 0.9, "predicted_bytes": 100 * MIB}
    found = results(
        row(GPT, PLAIN, modelled_seconds=1.0),
        row(GPT, REMAT, modelled_seconds=1.3),
        row(GPT, AT_FULL, modelled_seconds=0.99, device_bytes=101 * MIB, **model),
        row(GPT, ASYNCHRONOUS, modelled_seconds=0.99, **model),
        row(GPT, SYNCHRONOUS, modelled_seconds=0.99, **model),
        row(GPT, AT_LOOSE, modelled_seconds=1.0),
        form="compiled",
    )
    by_claim = {v.claim.split()[0]: v for v in verdicts(found)}
    # A plan is compared to what its own figures are without a limit.
    assert by_claim["overhead"].figure == pytest.approx(0.1 / 0.3)
    assert by_claim["overhead"].basis == "modelled"
    assert by_claim["time"].figure == 1.0
    assert by_claim["peak_bytes_in_use,"].figure == pytest.approx(0.01)
    assert by_claim["peak_bytes_in_use,"].basis == "compiled bytes"
    assert by_claim["measured"].word == "not measured"
    # As fast is not faster.
    assert by_claim["asynchronous"].word == "fails"
    assert by_claim["tokens/s"].word == "not measured"
    shown = table(found)
    assert "nothing was run" in shown.title
    assert shown.column("verdict").count("not measured") == 2


def test_what_was_not_run_is_not_measured():
    model = {"unconstrained_seconds": 0.9, "modelled_seconds": 0.95}
    found = results(
        row(GPT, PLAIN),
        row(GPT, REMAT),
        row(GPT, AT_FULL, **model),
        row(GPT, ASYNCHRONOUS, **model),
    )
    # Models do not stand in for what a device was there to measure.
    assert {v.word for v in verdicts(found)} == {"not measured"}


def test_a_step_that_does_not_train_beyond_fails():
    found = measured()
    error = "InfeasibleBudget: No plan keeps the step within 70 GiB."
    found.take_row(row(GPT, ON_CARD, batch=192, error=error))
    (verdict,) = [v for v in verdicts(found) if "largest batch" in v.claim]
    assert (verdict.word, verdict.basis) == ("fails", error)


def test_a_program_without_a_plan_is_named():
    found = measured()
    found.take_row(row(GPT, SYNCHRONOUS, error="InfeasibleBudget: No plan keeps it."))
    (verdict,) = [v for v in verdicts(found) if "asynchronous" in v.claim]
    assert (verdict.word, verdict.figure) == ("not measured", None)
    assert verdict.basis == "synchronous at 0.6 has InfeasibleBudget"
