import torch
from products_instil import PRODUCTS, Noting, seconds


def test_every_product_forward_and_backward_is_noted_as_it_was_laid_out() -> None:
    weight = torch.ones(6, 4, requires_grad=True)
    x = torch.ones(5, 4, requires_grad=True)
    with Noting() as noting:
        y = torch.nn.functional.linear(x, weight)  # x W^T: the weight read along its columns
        torch.bmm(torch.ones(2, 3, 4), torch.ones(2, 4, 3))
        torch.zeros(5, 6).addmm_(torch.ones(5, 2), torch.ones(2, 6))
        y.sum().backward()
    shapes = [tuple(operand.shape for operand in p.operands) for p in noting.products]
    assert shapes[:3] == [
        ((5, 4), (4, 6)),
        ((2, 3, 4), (2, 4, 3)),
        ((5, 6), (5, 2), (2, 6)),
    ]
    assert noting.products[0].operands[1].strides == (1, 4)
    assert sorted(shapes[3:]) == [((5, 6), (6, 4)), ((6, 5), (5, 4))]
    assert {p.call.overloadpacket.__name__ for p in noting.products} <= set(PRODUCTS)


def test_noted_products_are_computed_again_without_what_stood_between_them() -> None:
    with Noting() as noting, torch.no_grad():
        (torch.ones(8, 8) @ torch.ones(8, 8)).relu().sum()
    assert len(noting.products) == 1
    with torch.inference_mode():
        assert seconds(noting.products) > 0
