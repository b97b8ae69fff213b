"""What writing is: draw from the model's guess, made bolder or wilder, with a cache the same text as without."""
import pytest
import torch
from conftest import shake

import bigramv2

pytestmark = pytest.mark.usefixtures('device')
V = 11


@pytest.fixture
def model(both_ways):
    return shake(bigramv2.GPT(V))


def generate(model, prompt, count=60, **kwargs):
    torch.manual_seed(3)
    return model.generate(prompt, count, **kwargs)


@pytest.mark.parametrize('length', [1, 8, 15, 16, 17, 40])
@pytest.mark.parametrize('options', [{}, {'temperature': 0}, {'temperature': 0.7, 'top_k': 4}], ids=str)
def test_the_cache_changes_no_letter(model, monkeypatch, length, options):
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


@pytest.mark.parametrize('pieces', [[16], [4, 5, 6, 1], [1, 15]], ids=str)
def test_a_model_that_reads_in_pieces_gives_the_logits_of_the_whole(model, pieces):
    idx, past, logits = torch.randint(V, (2, 16)), 0, []
    cache = torch.full((len(model.blocks), 2, 2, 4, 16, 8), torch.nan)
    for piece in idx.split(pieces, dim=1):
        logits.append(model(piece, cache=cache, past=past)[0])
        past += piece.shape[1]
    torch.testing.assert_close(torch.cat(logits, dim=1), model(idx)[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize('temperature', [0.5, 2.0, 1e6])
@pytest.mark.parametrize('top_k', [0, 3, 100])
def test_characters_are_drawn_from_the_softmax(model, temperature, top_k):
    prompt = torch.randint(V, (1, 4))
    logits = model(prompt)[0][0, -1]
    if top_k == 3:
        logits = torch.where(logits >= logits.sort().values[-3], logits, -torch.inf)
    n = 10_000
    drawn = generate(model, prompt.expand(n, 4), 1, temperature=temperature, top_k=top_k)[:, -1]
    shares = torch.bincount(drawn, minlength=V) / n
    torch.testing.assert_close(shares, (logits / temperature).softmax(dim=-1), atol=0.02, rtol=0)


@pytest.mark.parametrize('temperature, scale', [(0.0, 1), (5e-324, 1), (1e-9, 100), (1e-8, 1e4)])
def test_a_tiny_temperature_draws_the_likeliest_and_nothing_overflows(temperature, scale):
    logits = torch.randn(100, V) * scale
    assert torch.equal(bigramv2.GPT.draw(logits, temperature), logits.argmax(dim=-1, keepdim=True))


def test_an_error_of_rounding_does_not_change_what_is_drawn():
    """With a cache and without, the logits differ by so much, and two that are nearly equal may change their order."""
    drawn = []
    for logits in (torch.zeros(1000, V), torch.randn(1000, V) * 1e-7):
        torch.manual_seed(3)
        drawn.append(bigramv2.GPT.draw(logits))
    assert torch.equal(*drawn)


@pytest.mark.parametrize('top_k', [1, 3, V, V + 1, 2 ** 40])
def test_exactly_k_characters_can_be_drawn_also_of_equal_ones(top_k):
    drawn = bigramv2.GPT.draw(torch.zeros(5000, V), top_k=top_k)
    assert len(set(drawn.flatten().tolist())) == min(top_k, V)
    drawn = bigramv2.GPT.draw(torch.tensor([0.0, 2.0, 1.0, 1.0, 1.0]).expand(5000, 5), top_k=top_k)
    assert len(found := set(drawn.flatten().tolist())) == min(top_k, 5) and 1 in found
