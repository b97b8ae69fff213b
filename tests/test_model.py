"""What the model is: a stack of pre-norm Transformer blocks that starts by guessing blindly and can learn."""
import math

import numpy as np
import pytest
import torch
from conftest import shake

import bigram
import bigramv2

pytestmark = pytest.mark.usefixtures('device')
V = 11


def test_the_blocks_are_torch_transformer_encoder_layers(both_ways):
    model = shake(bigramv2.GPT(V))
    x = torch.randn(2, 16, 32)
    later = torch.nn.Transformer.generate_square_subsequent_mask(16)
    out = expected = x
    for block in model.blocks:
        layer = torch.nn.TransformerEncoderLayer(32, 4, dim_feedforward=128, dropout=0.0, norm_first=True,
                                                 activation=torch.nn.functional.gelu, batch_first=True)
        attn = block.sa
        with torch.no_grad():
            layer.self_attn.in_proj_weight.copy_(torch.cat([attn.query.weight, attn.key.weight, attn.value.weight]))
            layer.self_attn.in_proj_bias.zero_()
        layer.self_attn.out_proj.load_state_dict(attn.proj.state_dict())
        layer.linear1.load_state_dict(block.ffwd.fc.state_dict())
        layer.linear2.load_state_dict(block.ffwd.proj.state_dict())
        layer.norm1.load_state_dict(block.ln1.state_dict())
        layer.norm2.load_state_dict(block.ln2.state_dict())
        out, expected = block(out), layer(expected, src_mask=later, is_causal=True)
    torch.testing.assert_close(out, expected, atol=1e-4, rtol=1e-5)


def test_the_logits_are_those_of_the_formula_of_nanogpt(both_ways):
    """Written out: pre-norm, one head after the other, GELU by erf, the final norm and the head."""
    model, idx = shake(bigramv2.GPT(V)), torch.randint(V, (3, 16))
    w, later = model.state_dict(), torch.full((16, 16), -torch.inf).triu(1)

    def linear(name, x):
        return x @ w[f'{name}.weight'].T + w.get(f'{name}.bias', 0)

    def norm(name, x):
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        return x * w[f'{name}.weight'] + w[f'{name}.bias']

    x = w['token_embedding.weight'][idx] + w['position_embedding.weight']
    for block in ('blocks.0', 'blocks.1'):
        h = norm(f'{block}.ln1', x)
        heads = zip(*(linear(f'{block}.sa.{name}', h).split(8, dim=-1) for name in ('query', 'key', 'value')))
        out = [(q @ k.mT / 8 ** 0.5 + later).softmax(-1) @ v for q, k, v in heads]
        x = x + linear(f'{block}.sa.proj', torch.cat(out, dim=-1))
        h = linear(f'{block}.ffwd.fc', norm(f'{block}.ln2', x))
        x = x + linear(f'{block}.ffwd.proj', h * (1 + torch.erf(h / 2 ** 0.5)) / 2)
    torch.testing.assert_close(model(idx)[0], linear('head', norm('ln', x)), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('script', [bigram, bigramv2])
def test_learning_starts_at_the_loss_of_a_blind_guess(script):
    idx = torch.randint(V, (8, 16))
    _, loss = script.GPT(V)(idx, torch.randint(V, (8, 16)))
    assert abs(loss.item() - math.log(V)) < 0.4  # bigram.py leaves torch's initial weights as they are
    if script is bigramv2:
        assert abs(loss.item() - math.log(V)) < 1e-5


@pytest.mark.parametrize('channels', [32, 31])
def test_positions_start_as_the_waves_of_the_paper(channels, monkeypatch):
    monkeypatch.setattr(bigramv2, 'n_embd', channels)
    monkeypatch.setattr(bigramv2, 'num_heads', 1)
    positions = bigramv2.GPT(V).position_embedding.weight
    assert positions.shape == (16, channels) and positions.requires_grad
    for t in range(16):
        angles = [t / 10000 ** (2 * i / channels) for i in range(16)]
        waves = torch.tensor([math.sin(a) for a in angles] + [math.cos(a) for a in angles])[:channels]
        torch.testing.assert_close(positions[t], waves, atol=1e-5, rtol=0)


def test_the_same_character_elsewhere_is_something_else():
    logits, _ = shake(bigramv2.GPT(V))(torch.zeros(1, 16, dtype=torch.long))
    assert (logits[0, 1:] - logits[0, :-1]).abs().amax(dim=-1).min() > 1e-3  # only the position differs


def test_estimate_loss_is_the_mean_over_all_windows_without_dropout(monkeypatch):
    monkeypatch.setattr(bigramv2, 'dropout', 0.5)
    model, data = shake(bigramv2.GPT(V)), torch.randint(V, (16 * 20 + 1,))
    _, expected = model(data[:-1].view(20, 16), data[1:].view(20, 16))
    model.train()
    loss = bigramv2.estimate_loss(model, data.cpu().numpy().astype('<u2'), 99)
    assert loss == pytest.approx(expected.item(), abs=1e-5) and model.training


@pytest.mark.parametrize('characters', [17, 32, 33, 500, 10_000])
@pytest.mark.parametrize('count', [1, 7, 100])
def test_estimate_loss_looks_at_windows_that_are_evenly_spread_and_do_not_overlap(characters, count, monkeypatch):
    seen, real = [], bigramv2.windows
    monkeypatch.setattr(bigramv2, 'windows', lambda data, starts: (seen.extend(starts.tolist()), real(data, starts))[1])
    bigramv2.estimate_loss(bigramv2.GPT(V), np.zeros(characters, dtype='<u2'), count)
    last = (characters - 1) // 16 - 1  # of the windows that there are
    assert len(seen) == min(count, last + 1) and seen[0] == 0 and seen[-1] == (16 * last if count > 1 else 0)
    gaps = np.diff(seen)
    assert not len(gaps) or gaps.min() >= 16 and gaps.max() - gaps.min() <= 16
