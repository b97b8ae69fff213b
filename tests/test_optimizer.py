"""What Muon does: torch.optim.Muon's step, in float32. And how the learning rate rises and falls."""
import pytest
import torch

import bigramv2
from bigramv2 import Muon


@pytest.mark.parametrize('weight_decay', [0, 0.1])
def test_muon_is_torch_muon_but_for_bfloat16(weight_decay):
    shapes = [(24, 24), (48, 16), (16, 48), (1, 8)]
    ours = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in ours]
    start = [p.detach().clone() for p in ours]
    optimizer = Muon(ours, lr=0.1, momentum=0.9, weight_decay=weight_decay)
    reference = torch.optim.Muon(theirs, lr=0.1, momentum=0.9, weight_decay=weight_decay)
    for _ in range(4):
        for p, q in zip(ours, theirs):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        optimizer.step()
        reference.step()
    for p, q, p0 in zip(ours, theirs, start):
        assert (p - q).norm() < 0.02 * (p - p0).norm()  # bfloat16 has 8 bits: 0.4 % a rounding


def test_the_learning_rate_rises_then_sinks_to_zero(monkeypatch):
    monkeypatch.setattr(bigramv2, 'max_iters', 100)
    monkeypatch.setattr(bigramv2, 'warmup_iters', 10)
    scale = [bigramv2.lr_scale(step) for step in range(101)]
    assert scale[0] > 0 and max(scale) <= 1 and scale[100] == 0
    assert scale[:9] == sorted(scale[:9]) and scale[10:] == sorted(scale[10:], reverse=True)
