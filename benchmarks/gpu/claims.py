"""What is claimed of `autotm.jit`, and whether it holds in a run.

Where steps were run, claims are about measured times and the allocator's peak. Where
they were only compiled, modelled times and bytes of executables stand in for them, and
each verdict says so. What takes a device has no verdict then.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

from ..paper.report import Table
from .cases import GPT
from .results import Results
from .row import Row
from .tasks import BEYOND
from .ways import (
    ASYNCHRONOUS,
    AT_FULL,
    AT_LOOSE,
    AT_TIGHT,
    ON_CARD,
    PLAIN,
    REMAT,
    SYNCHRONOUS,
    TIGHT,
    Way,
)


HOLDS, FAILS, UNKNOWN = "holds", "fails", "not measured"


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Whether a claim holds for a workload.

    - `claim`, `case`: which.
    - `bar`: what the figure has to keep, as text.
    - `figure`: what it is; `None` if it is not known.
    - `holds`: whether it keeps that; `None` if it is not known.
    - `basis`: what the figure is made from.
    """

    claim: str
    case: str
    bar: str
    figure: float | None
    holds: bool | None
    basis: str

    @property
    def word(self) -> str:
        """Of the verdict."""
        if self.holds is None:
            return UNKNOWN
        return HOLDS if self.holds else FAILS


class _Found:
    """The rows of a run, and what claims ask of them."""

    def __init__(self, results: Results):
        self.results = results
        self.is_measured = results.setting.form == "measured"
        self.basis = "measured" if self.is_measured else "modelled"

    @property
    def cases(self) -> list[str]:
        """The workloads that there is a row of."""
        return list(dict.fromkeys(row.case for row in self.results.rows.values()))

    def row(self, case: str, way: Way) -> Row | None:
        """The row of a workload at the batch that it has in most rows."""
        batch = self.results.batches.get(case, 0)
        return self.results.rows.get((case, batch, way.name))

    def seconds(self, row: Row | None) -> float | None:
        """Of a step, as it counts for claims."""
        if row is None:
            return None
        return row.seconds if self.is_measured else row.modelled_seconds

    def of_plain(self, case: str, way: Way) -> float | None:
        """Seconds over those of plain `jax.jit`.

        What is modelled is compared to what the same figures say without a limit.
        """
        row = self.row(case, way)
        if row is None:
            return None
        if self.is_measured:
            return row.of_plain
        plain = row.unconstrained_seconds
        if plain is None:
            plain = self.seconds(self.row(case, PLAIN))
        seconds = self.seconds(row)
        return seconds / plain if seconds is not None and plain else None


def verdicts(results: Results) -> list[Verdict]:
    """Every claim for every workload that it is about."""
    found = _Found(results)
    return [verdict for claim in _CLAIMS for verdict in claim(found)]


def table(results: Results) -> Table:
    """The verdicts as a table."""
    form = results.setting.form
    how = "measured" if form == "measured" else "nothing was run: modelled and compiled"
    return Table(
        f"What is claimed, and whether it holds in this run ({how})",
        ("claim", "workload", "figure", "bar", "made from", "verdict"),
        tuple(
            (v.claim, v.case, v.figure, v.bar, v.basis, v.word)
            for v in verdicts(results)
        ),
    )


def _at_full(found: _Found) -> Iterator[Verdict]:
    claim = "overhead at full remat's memory, over full remat's overhead"
    for case in _with(found, AT_FULL):
        ours, theirs = found.of_plain(case, AT_FULL), found.of_plain(case, REMAT)
        figure = None
        if ours is not None and theirs is not None and theirs > 1:
            figure = (ours - 1) / (theirs - 1)
        yield _at_most(claim, case, figure, 0.5, found.basis)


def _at_tight(found: _Found) -> Iterator[Verdict]:
    claim = f"time over plain's, at {TIGHT} of its memory"
    for case in _with(found, AT_TIGHT):
        figure = found.of_plain(case, AT_TIGHT)
        yield _at_most(claim, case, figure, 1.05, found.basis)


def _at_loose(found: _Found) -> Iterator[Verdict]:
    claim = "time over plain's, with room to spare"
    for case in _with(found, AT_LOOSE):
        figure = found.of_plain(case, AT_LOOSE)
        yield _at_most(claim, case, figure, 1.01, found.basis)


def _bytes(found: _Found) -> Iterator[Verdict]:
    claim = "peak_bytes_in_use, off the predicted bytes by"
    for case in found.cases:
        rows = [r for r in found.results.rows.values() if r.case == case]
        known = [r for r in rows if r.predicted_bytes]
        if not known:
            continue
        if found.is_measured:
            errors = [r.bytes_error for r in known if r.bytes_error is not None]
        else:
            compiled = [(r.device_bytes, r.predicted_bytes) for r in known]
            errors = [d / p - 1 for d, p in compiled if d is not None and p]
        worst = max(map(abs, errors), default=None)
        basis = "measured" if found.is_measured else "compiled bytes"
        yield _at_most(claim, case, worst, 0.03, basis)


def _seconds(found: _Found) -> Iterator[Verdict]:
    claim = "measured step time, off the plan's by"
    for case in found.cases:
        rows = [r for r in found.results.rows.values() if r.case == case]
        planned = [r for r in rows if r.unconstrained_seconds is not None]
        if not planned:
            continue
        errors = [r.model_error for r in planned if r.model_error is not None]
        worst = max(map(abs, errors), default=None)
        yield _at_most(claim, case, worst, 0.10, "measured")


def _in_order(found: _Found) -> Iterator[Verdict]:
    claim = "asynchronous over synchronous"
    for case in _with(found, ASYNCHRONOUS):
        ours = found.seconds(found.row(case, ASYNCHRONOUS))
        theirs = found.seconds(found.row(case, SYNCHRONOUS))
        figure = ours / theirs if ours is not None and theirs else None
        holds = None if figure is None else figure < 1
        basis = found.basis
        for way in (ASYNCHRONOUS, SYNCHRONOUS):
            row = found.row(case, way)
            if row is not None and row.error:
                basis = f"{way.name} has {row.error.partition(':')[0]}"
        yield Verdict(claim, case, "< 1", figure, holds, basis)


def _beyond(found: _Found) -> Iterator[Verdict]:
    claim = f"tokens/s at {BEYOND} x plain's largest batch, over plain's"
    rows = [r for r in found.results.rows.values() if r.case == GPT]
    plain = [_rate(found, r) for r in rows if r.way == PLAIN.name and _runs(found, r)]
    largest = found.results.largest_batch(GPT, PLAIN.name)
    if not rows:
        return
    figure = None
    row = found.results.rows.get((GPT, BEYOND * (largest or 0), ON_CARD.name))
    best = max((rate for rate in plain if rate is not None), default=None)
    if row is not None and best and not row.error:
        rate = _rate(found, row)
        figure = None if rate is None else rate / best
    # That it was planned and does not run, or has no plan, is an answer, too.
    if row is not None and row.error:
        yield Verdict(claim, GPT, ">= 0.8", None, False, row.error)
        return
    holds = None if figure is None else figure >= 0.8
    yield Verdict(claim, GPT, ">= 0.8", figure, holds, found.basis)


def _runs(found: _Found, row: Row) -> bool:
    # At a batch for which it is too large, plain `jax.jit` has no rate.
    return row.batch == found.results.batches.get(row.case)


def _rate(found: _Found, row: Row) -> float | None:
    seconds = found.seconds(row)
    return None if not seconds else row.batch / seconds


_CLAIMS: tuple[Callable[[_Found], Iterator[Verdict]], ...] = (
    _at_full,
    _at_tight,
    _at_loose,
    _bytes,
    _seconds,
    _in_order,
    _beyond,
)


def _with(found: _Found, way: Way) -> list[str]:
    """The workloads that a way was tried with."""
    return [case for case in found.cases if found.row(case, way) is not None]


def _at_most(
    claim: str, case: str, figure: float | None, most: float, basis: str
) -> Verdict:
    holds = None if figure is None else figure <= most
    return Verdict(claim, case, f"<= {most:g}", figure, holds, basis)
