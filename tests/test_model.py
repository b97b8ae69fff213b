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


def nanogpt(w, idx, layers, heads):
    """The logits (B, T, V) of nanoGPT without biases, for weights w named as its own: written as formulas."""
    def norm(x, gain):
        return (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt() * gain

    T, C = idx.shape[1], w['wte'].shape[1]
    x = w['wte'][idx] + w['wpe'][:T]
    for i in range(layers):
        parts, out = (norm(x, w[f'{i}.ln_1']) @ w[f'{i}.attn.c_attn'].T).split(C // heads, dim=-1), []  # q, k, v: 3 H
        for q, k, v in zip(parts[:heads], parts[heads:2 * heads], parts[2 * heads:]):
            scores = q @ k.mT / (C // heads) ** 0.5 + torch.full((T, T), -torch.inf).triu(1)
            out.append(scores.exp() / scores.exp().sum(-1, keepdim=True) @ v)
        x = x + torch.cat(out, -1) @ w[f'{i}.attn.c_proj'].T
        h = norm(x, w[f'{i}.ln_2']) @ w[f'{i}.mlp.c_fc'].T
        x = x + (h * (1 + torch.erf(h / 2 ** 0.5)) / 2) @ w[f'{i}.mlp.c_proj'].T
    return norm(x, w['ln_f']) @ w['wte'].T  # the head is the embedding


def test_the_weights_of_nanogpt_give_its_logits(both_ways):
    model, C, w = bigramv2.GPT(V), 32, {'wte': torch.randn(V, 32), 'wpe': torch.randn(16, 32), 'ln_f': torch.randn(32)}
    for i in range(2):
        for name, size in (('ln_1', (C,)), ('attn.c_attn', (3 * C, C)), ('attn.c_proj', (C, C)), ('ln_2', (C,)),
                           ('mlp.c_fc', (4 * C, C)), ('mlp.c_proj', (C, 4 * C))):
            w[f'{i}.{name}'] = torch.randn(size) * 0.3
    state = {name: torch.zeros_like(p) for name, p in model.state_dict().items()}  # of the biases
    ours = dict(zip(('token_embedding.weight', 'position_embedding.weight', 'ln.weight'), w.values()))
    ours['head.weight'] = w['wte']
    for i in range(2):
        ours |= {f'blocks.{i}.sa.{name}.weight': part for name, part in zip(
            ('query', 'key', 'value'), w[f'{i}.attn.c_attn'].split(C))}
        ours |= {f'blocks.{i}.{name}.weight': w[f'{i}.{theirs}'] for name, theirs in (
            ('ln1', 'ln_1'), ('sa.proj', 'attn.c_proj'), ('ln2', 'ln_2'), ('ffwd.fc', 'mlp.c_fc'),
            ('ffwd.proj', 'mlp.c_proj'))}
    model.load_state_dict(state | ours)
    idx = torch.randint(V, (3, 16))
    torch.testing.assert_close(model(idx)[0], nanogpt(w, idx, 2, 4), atol=1e-4, rtol=1e-4)


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


@pytest.mark.parametrize('attention', ['MultiHeadAttn', 'MultiHeadAttention'])
def test_one_batch_can_be_learnt_by_heart(attention, monkeypatch):
    if attention == 'MultiHeadAttention':
        monkeypatch.setattr(bigramv2, 'MultiHeadAttn', lambda h, c, t, dropout: bigramv2.MultiHeadAttention(h, c // h))
    model = bigramv2.GPT(V)
    optimizers = bigramv2.make_optimizers(model)
    tokens = torch.randint(V, (4, 17))
    for _ in range(80):
        _, loss = model(tokens[:, :-1], tokens[:, 1:])
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    assert loss.item() < 0.05


@pytest.mark.parametrize('script', [bigram, bigramv2])
@pytest.mark.parametrize('size', [(1, 1), (1, 16), (5, 16), (3, 7)], ids=str)
def test_any_batch_and_any_time_up_to_block_size(script, size, both_ways):
    model = shake(script.GPT(V))
    idx = torch.randint(V, size)
    logits, loss = model(idx, idx)
    assert logits.shape == (*size, V) and loss.shape == ()
    assert model(idx)[1] is None


def test_no_logit_depends_on_a_later_token(both_ways):
    model, idx = shake(bigramv2.GPT(V)), torch.randint(V, (2, 16))
    changed = idx.clone()
    changed[:, 9:] = (idx[:, 9:] + 1) % V
    torch.testing.assert_close(model(idx)[0][:, :9], model(changed)[0][:, :9], atol=1e-5, rtol=0)
    assert (model(idx)[0][:, 9] - model(changed)[0][:, 9]).abs().max() > 0.01


def test_the_same_character_elsewhere_is_something_else():
    logits, _ = shake(bigramv2.GPT(V))(torch.zeros(1, 16, dtype=torch.long))
    assert (logits[0, 1:] - logits[0, :-1]).abs().amax(dim=-1).min() > 1e-3  # only the position differs


def test_the_loss_is_the_mean_cross_entropy_of_the_targets():
    model, idx, targets = shake(bigramv2.GPT(V)), torch.randint(V, (3, 16)), torch.randint(V, (3, 16))
    logits, loss = model(idx, targets)
    by_hand = [-logits[b, t].log_softmax(dim=-1)[targets[b, t]] for b in range(3) for t in range(16)]
    torch.testing.assert_close(loss, torch.stack(by_hand).mean())


def test_estimate_loss_tiles_the_data_and_leaves_dropout_off(monkeypatch):
    monkeypatch.setattr(bigramv2, 'dropout', 0.5)
    model = shake(bigramv2.GPT(V)).train()
    data = torch.randint(V, (16 * 20 + 1,))
    as_prepared = data.cpu().numpy().astype('<u2')
    whole = bigramv2.estimate_loss(model, as_prepared, 20)
    assert model.training
    _, expected = model.eval()(data[:-1].view(20, 16), data[1:].view(20, 16))
    assert whole == pytest.approx(expected.item(), abs=1e-5)
    assert bigramv2.estimate_loss(model, as_prepared, 10 ** 6) == whole
    assert bigramv2.estimate_loss(model, as_prepared, 5) == bigramv2.estimate_loss(model, as_prepared, 5) != whole


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
