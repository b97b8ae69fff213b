"""What sampling does: draw from the model's guess, made bolder or wilder, as fast with a cache as without."""
import pytest
import torch
from conftest import shake

import bigramv2

V = 11


@pytest.fixture
def model(both_ways):
    return shake(bigramv2.GPT(V))


def generate(model, prompt, count=60, **kwargs):
    torch.manual_seed(3)
    return model.generate(prompt, count, **kwargs)


def test_greedy_is_deterministic_and_top_1(model):
    prompt = torch.randint(V, (2, 5))
    greedy = generate(model, prompt, temperature=0)
    torch.manual_seed(4)
    assert torch.equal(model.generate(prompt, 60, temperature=0), greedy)
    assert torch.equal(generate(model, prompt, top_k=1), greedy)
    assert torch.equal(greedy[:, 5], model(prompt)[0][:, -1].argmax(dim=-1))
    assert greedy.shape == (2, 65) and torch.equal(greedy[:, :5], prompt)


@pytest.mark.parametrize('length', [1, 2, 8, 15, 16, 17, 40])
@pytest.mark.parametrize('options', [{}, {'temperature': 0}, {'temperature': 0.7, 'top_k': 4}], ids=str)
def test_the_cache_changes_nothing(model, monkeypatch, length, options):
    prompt = torch.randint(V, (2, length))
    with_cache = generate(model, prompt, **options)
    monkeypatch.setattr(bigramv2, 'kv_cache', False)
    assert torch.equal(generate(model, prompt, **options), with_cache)


def test_the_cache_computes_one_position_a_character(model):
    computed = []
    model.token_embedding.register_forward_hook(lambda module, inputs, out: computed.append(inputs[0].shape[1]))
    generate(model, torch.randint(V, (1, 5)), 30)
    # 5 + 12 characters overfill 16 places, so the last 8 stay; 8 + 9 overfill them again
    assert computed == [5] + [1] * 11 + [8] + [1] * 8 + [8] + [1] * 8


@pytest.mark.parametrize('temperature', [0.5, 1.0, 2.0])
@pytest.mark.parametrize('top_k', [0, 3, 100])
def test_characters_are_drawn_from_the_softmax(model, temperature, top_k):
    prompt = torch.randint(V, (1, 4))
    logits = model(prompt)[0][0, -1]
    if top_k == 3:
        logits = torch.where(logits >= logits.sort().values[-3], logits, -torch.inf)
    n = 40_000
    drawn = generate(model, prompt.expand(n, 4), 1, temperature=temperature, top_k=top_k)[:, -1]
    shares = torch.bincount(drawn, minlength=V) / n
    torch.testing.assert_close(shares, (logits / temperature).softmax(dim=-1), atol=0.015, rtol=0)


def test_a_block_of_one_character_can_write(monkeypatch):
    monkeypatch.setattr(bigramv2, 'block_size', 1)
    assert shake(bigramv2.GPT(V)).generate(torch.zeros(1, 1, dtype=torch.long), 5).shape == (1, 6)


def test_one_module_a_head_writes_too(monkeypatch):
    monkeypatch.setattr(bigramv2, 'MultiHeadAttn', bigramv2.MultiHeadAttn)
    model = shake(bigramv2.GPT(V))
    for block in model.blocks:
        block.sa = shake(bigramv2.MultiHeadAttention(4, 8))
    assert generate(model, torch.zeros(1, 1, dtype=torch.long)).shape == (1, 61)
