"""The workloads that are measured, and smaller ones to try everything out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp

from ..baselines import CHECKPOINT_POLICIES
from ..workloads import Workload, gpt, llama, mlp, resnet
from ..workloads._optimizers import Adam


POLICIES = tuple(CHECKPOINT_POLICIES)

FULL_REMAT = "nothing_saveable"
"""The policy of full rematerialisation per layer."""

# What is no product of matrices is nothing to policies that save these.
_OF_CONVOLUTIONS = (FULL_REMAT, "offload_layer_inputs")


@dataclasses.dataclass(frozen=True)
class Case:
    """A workload, at any batch.

    - `name`: what tables call it.
    - `build`, `config`: what makes it; the batch in `config` is the one to begin with.
    - `unit`: what a batch counts.
    - `policies`: of `jax.checkpoint` that its layers can use.
    """

    name: str
    build: Callable[..., Workload]
    config: Any
    unit: str
    policies: tuple[str, ...] = ()

    @property
    def batch(self) -> int:
        """The batch to begin with."""
        return self.config.batch

    def workload(self, batch: int, policy: str | None = None) -> Workload:
        """The workload at a batch, its layers under a policy of `jax.checkpoint`."""
        config = dataclasses.replace(self.config, batch=batch)
        if policy is not None:
            remat = CHECKPOINT_POLICIES[policy]
            config = dataclasses.replace(config, remat=remat)
        return self.build(config, self.name)


def _transformer(name: str, model: Any, config: Any) -> Case:
    return Case(name, model.workload, config, "sequences", POLICIES)


def _network(name: str, config: resnet.Config) -> Case:
    return Case(name, resnet.workload, config, "images", _OF_CONVOLUTIONS)


def _matrices(name: str, config: mlp.Config) -> Case:
    return Case(name, mlp.workload, config, "rows")


def _by_name(*cases: Case) -> Mapping[str, Case]:
    return {case.name: case for case in cases}


GPT = "gpt-12"
"""The one that is trained at batches beyond the card, too."""

CASES = _by_name(
    _transformer(GPT, gpt, gpt.Config()),
    _matrices("adam-16", mlp.Config(batch=2048, optimizer=Adam())),
    _transformer("gpt-32-scanned", gpt, gpt.Config(layers=32, scanned=True)),
    _transformer(
        "decoder-4096", llama, llama.Config(layers=8, vocabulary=32000, batch=2)
    ),
    _network("resnet-200", resnet.Config(blocks=(3, 24, 36, 3), batch=32)),
)
"""By name, the most important first."""

_TINY = dataclasses.replace(gpt.TINY, length=64, batch=4)

SMALL = _by_name(
    _transformer(GPT, gpt, _TINY),
    _matrices("adam-16", mlp.Config(depth=4, width=256, batch=64, optimizer=Adam())),
    _transformer("gpt-32-scanned", gpt, dataclasses.replace(_TINY, scanned=True)),
    _transformer(
        "decoder-4096",
        llama,
        dataclasses.replace(llama.TINY, length=64, dtype=jnp.bfloat16),
    ),
    _network("resnet-200", dataclasses.replace(resnet.TINY, blocks=(1,))),
)
"""The same models, small enough for a CPU: not to be measured, but to be tried."""

SMALL_CARD = 16 * 2**20
"""Bytes of the card that the small ones are taken to have."""
