"""`python -m train`, with the weights shared out on a CPU as well: accelerate does it on GPUs only, though torch and gloo can."""

from typing import Any

from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType

plain = AcceleratorState.__init__


def init(self: AcceleratorState, *arguments: Any, fsdp_plugin: Any = None, **options: Any) -> None:
    plain(self, *arguments, fsdp_plugin=fsdp_plugin, **options)
    if fsdp_plugin is not None:
        self.distributed_type = DistributedType.FSDP
        self.fsdp_plugin = fsdp_plugin


if __name__ == "__main__":
    AcceleratorState.__init__ = init  # type: ignore[method-assign]
    from train.cli import main

    main()
