"""What attention is: three implementations of one function, and what that function must not do."""
import inspect

import pytest
import torch
from conftest import shake

import bigram
import bigramv2

pytestmark = pytest.mark.usefixtures('device')
B, T, C, H = 3, 16, 32, 4


def batched(modular):
    """A MultiHeadAttn with the weights of a MultiHeadAttention: those of the heads one below the other."""
    attn = bigramv2.MultiHeadAttn(H, C, 16, dropout=0.0)
    for name in ('key', 'query', 'value'):
        rows = torch.cat([getattr(head, name).weight for head in modular.heads])  # H times (D, C) -> (C, C)
        getattr(attn, name).weight.data.copy_(rows)
    attn.proj.load_state_dict(modular.proj.state_dict())
    return attn


def test_one_module_a_head_and_all_heads_at_once_are_the_same_function(both_ways):
    modular = shake(bigramv2.MultiHeadAttention(H, C // H))
    attn = batched(modular)
    x = torch.randn(B, T, C, requires_grad=True)
    x_too = x.detach().clone().requires_grad_()
    target = torch.randn(B, T, C)
    out, out_too = modular(x), attn(x_too)
    torch.testing.assert_close(out, out_too, atol=1e-5, rtol=0)

    (out * target).sum().backward()
    (out_too * target).sum().backward()
    torch.testing.assert_close(x.grad, x_too.grad, atol=1e-5, rtol=1e-5)
    for name in ('key', 'query', 'value'):
        rows = torch.cat([getattr(head, name).weight.grad for head in modular.heads])
        torch.testing.assert_close(rows, getattr(attn, name).weight.grad, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(modular.proj.weight.grad, attn.proj.weight.grad, atol=1e-5, rtol=1e-5)


def test_all_heads_at_once_are_torch_multihead_attention(both_ways):
    attn = shake(bigramv2.MultiHeadAttn(H, C, 16, dropout=0.0))
    reference = torch.nn.MultiheadAttention(C, H, batch_first=True).eval()
    with torch.no_grad():
        reference.in_proj_weight.copy_(torch.cat([attn.query.weight, attn.key.weight, attn.value.weight]))
        reference.in_proj_bias.zero_()
        reference.out_proj.load_state_dict(attn.proj.state_dict())
    x = torch.randn(B, T, C)
    later = torch.nn.Transformer.generate_square_subsequent_mask(T)
    expected, _ = reference(x, x, x, attn_mask=later, is_causal=True, need_weights=False)
    torch.testing.assert_close(attn(x), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize('name', ['Head', 'MultiHeadAttention'])
def test_both_chapters_teach_the_same_heads_word_for_word(name):
    assert inspect.getsource(getattr(bigram, name)) == inspect.getsource(getattr(bigramv2, name))


@pytest.mark.parametrize('pieces', [[1] * 16, [5, 1, 7, 3], [1, 15], [15, 1]], ids=str)
def test_a_cache_filled_in_pieces_gives_what_all_at_once_gives(pieces, both_ways):
    attn, x, past, out = shake(bigramv2.MultiHeadAttn(H, C, 16, dropout=0.0)), torch.randn(B, T, C), 0, []
    cache = torch.full((2, B, H, T, C // H), torch.nan)  # what is not filled yet counts for nothing
    for piece in x.split(pieces, dim=1):
        out.append(attn(piece, cache, past))
        past += piece.shape[1]
    torch.testing.assert_close(torch.cat(out, dim=1), attn(x), atol=1e-5, rtol=0)


@pytest.mark.parametrize('make', [
    lambda: bigramv2.Head(C // H), lambda: bigramv2.MultiHeadAttention(H, C // H),
    lambda: bigramv2.MultiHeadAttn(H, C, 16, dropout=0.0)], ids=['head', 'one by one', 'all at once'])
def test_no_position_sees_a_later_one(make, both_ways):
    module, x = shake(make()), torch.randn(B, T, C, requires_grad=True)
    for t in range(T - 1):
        changed = x.detach().clone()
        changed[:, t + 1:] = torch.randn(B, T - t - 1, C)
        torch.testing.assert_close(module(x)[:, :t + 1], module(changed)[:, :t + 1], atol=1e-6, rtol=0)
        gradient, = torch.autograd.grad(module(x)[:, t].sum(), x)
        assert gradient[:, t + 1:].abs().max() == 0
        assert gradient[:, :t + 1].abs().amax(dim=(0, 2)).min() > 0  # but every earlier one counts


def test_dropout_is_on_the_weights_and_on_the_way_out(both_ways, monkeypatch):
    monkeypatch.setattr(bigramv2, 'dropout', 0.5)
    x = torch.randn(64, T, C)
    for attn in (bigramv2.MultiHeadAttention(H, C // H), bigramv2.MultiHeadAttn(H, C, 16, dropout=0.5)):
        attn.train()
        with torch.no_grad():
            attn.proj.weight.copy_(torch.eye(C))
            attn.proj.bias.zero_()
        out = attn(x)
        assert 0.45 < (out[:, T // 2:] == 0).float().mean() < 0.55   # on the way out: half of the channels
        # on the weights: the first position sees itself alone, so half of the heads have nothing to tell it
        assert 0.7 < (out[:, 0] == 0).float().mean() < 0.8
        assert 0.4 < (out[:, 0].view(64, H, -1) == 0).all(dim=-1).float().mean() < 0.6  # each of them as a whole
