"""One side: nothing but the matrix products of instil's training steps. Prints one JSON line.

The steps are taken once, and every product in them is noted: which, of what shapes, laid out how.
Then the same products run again, in the same order, on made-up numbers. It is the speed that
training would have if all between its products were free: norms, softmax, activations, copies,
the optimizer, Python. Products that training need not have made (what attention computes of pairs
that may not look at one another) count as it made them. The same few operands are read again and
again, so they lie in the processor's cache, as far as they fit.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from common import finish
from torch.utils._python_dispatch import TorchDispatchMode
from train_instil import arguments, begun, counted

PRODUCTS = ("mm", "bmm", "addmm", "addmm_", "baddbmm", "baddbmm_")


@dataclass(frozen=True, slots=True)
class Operand:
    """A tensor without its numbers."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    kind: torch.dtype

    def made(self) -> torch.Tensor:
        return torch.empty_strided(self.shape, self.strides, dtype=self.kind).fill_(0.01)


@dataclass(frozen=True, slots=True)
class Product:
    """A call of one of `PRODUCTS`."""

    call: Any
    operands: tuple[Operand, ...]


class Noting(TorchDispatchMode):
    """Notes the products that are computed meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.products: list[Product] = []

    def __torch_dispatch__(
        self, call: Any, types: Any, given: tuple[Any, ...] = (), named: Any = None
    ) -> Any:
        if call.overloadpacket.__name__ in PRODUCTS:
            operands = tuple(
                Operand(tuple(t.shape), t.stride(), t.dtype)
                for t in given
                if isinstance(t, torch.Tensor)
            )
            self.products.append(Product(call, operands))
        return call(*given, **(named or {}))


def seconds(products: list[Product]) -> float:
    """Compute them once more: seconds. What they need is made before."""
    made = {operand: operand.made() for p in products for operand in p.operands}
    calls = [(p.call, [made[operand] for operand in p.operands]) for p in products]
    for call, operands in calls:  # every shape seen once before
        call(*operands)
    began = time.perf_counter()
    for call, operands in calls:
        call(*operands)
    return time.perf_counter() - began


def main() -> None:
    loaded, plan, steps = begun(arguments())
    noted, taken = [], []
    for _ in plan:
        with Noting() as noting:
            taken.append(next(steps))
        noted.append(noting.products)
    with torch.inference_mode():
        times = [seconds(products) for products in noted]
    finish(
        {
            **counted(plan, taken),
            "seconds": sum(times[1:]),
            "products": [len(products) for products in noted],
            "step_seconds": times,
        },
        device=loaded.device.type,
    )


if __name__ == "__main__":
    main()
