"""The convolutional networks of the AutoTM paper, at the batches of its evaluation.

Hildebrand et al., "AutoTM: Automatic Tensor Movement in Heterogeneous Memory Systems
using Integer Linear Programming" (ASPLOS 2020). The networks are those of the paper's
code (github.com/darchr/AutoTM, `AutoTM/src/zoo`), the batches of its experiments
(`AutoTM/src/experiments`); all train in float32 on synthetic images of 1,000 classes,
by plain SGD.

They differ from that code where it is unusual. The loss here is softmax cross-entropy;
there it is the same of `log(max(x, eps))`, in VGG-416 of `max(x, eps)`, after a ReLU in
VGG-19 and Inception. A convolution here has a bias or a batch normalisation; there it
has both in ResNet and DenseNet. The first convolution of these two is normalised here,
and what the last layer of DenseNet reads; there they are not.

!!! Example

    ```python
    from benchmarks.workloads import autotm

    network = autotm.NETWORKS["inception-v4"]
    workload = network.workload(network.conventional)
    ```
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from . import densenet, inception, resnet, vgg
from ._workload import Workload


@dataclasses.dataclass(frozen=True)
class Network:
    """A network, and how many images a step of the evaluation had.

    **Arguments:**

    - `name`: what reports call it.
    - `build`: makes a workload of a configuration and a name.
    - `config`: the network's, at a batch for a GPU.
    - `conventional`: the batch for a socket that has 192 GB of DRAM, or `None` if the
        evaluation has none.
    - `large`: the batch whose intermediate values take more than 650 GB, or `None`.
    - `gpu`: the batches for a GPU of 11 GB, smallest first.
    """

    name: str
    build: Callable[[Any, str], Workload]
    config: Any
    conventional: int | None = None
    large: int | None = None
    gpu: tuple[int, ...] = ()

    def workload(self, batch: int) -> Workload:
        """The training step on so many images; nothing is allocated for it."""
        config = dataclasses.replace(self.config, batch=batch)
        return self.build(config, f"{self.name}-batch-{batch}")


NETWORKS = {
    network.name: network
    for network in (
        Network(
            "inception-v4",
            inception.workload,
            inception.Config(batch=64),
            conventional=1024,
            large=6144,
            gpu=(64, 128, 256),
        ),
        Network(
            "resnet-200",
            resnet.workload,
            resnet.Config(blocks=(3, 24, 36, 3), strided="expand", batch=32),
            conventional=512,
            large=2560,
            gpu=(32, 64, 128),
        ),
        Network(
            "densenet-264",
            densenet.workload,
            densenet.Config(transition=64, batch=32),
            conventional=512,
            large=3072,
            gpu=(32, 64, 128),
        ),
        Network(
            "vgg-19",
            vgg.workload,
            vgg.Config(batch=64),
            conventional=2048,
            gpu=(64, 128),
        ),
        Network("vgg-416", vgg.workload, vgg.VGG416, large=320),
    )
}
"""The networks by their names."""
