"""The page to look inside a model: it computes what torch computes, and a browser shows it."""
import contextlib
import importlib
import json
import os
import re
import shutil
import subprocess
import sys

import pytest
import torch
from conftest import ROOT, run, shake, succeeds

import bigramv2

sys.path[:0] = [str(ROOT / 'experiments'), str(ROOT / 'experiments' / 'solutions')]
import look_inside  # noqa: E402
import looks  # noqa: E402

SIZES = [(128, 128, 4, 3), (16, 32, 4, 2), (9, 15, 5, 1), (1, 6, 1, 2), (33, 48, 2, 4)]  # block_size, n_embd, ...
VOCAB = ''.join(sorted('</script><!--"\'`\\&{}$\n\r\t\u2028é😀👩'))  # what could be markup, or break a string
VOCAB = ''.join(dict.fromkeys(VOCAB))
node = pytest.mark.skipif(not shutil.which('node'), reason='Node is not here to run forward.js')
browser = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Make the page of a model: its path."""
    monkeypatch.chdir(tmp_path)  # where there are no tokens

    def write(model, vocab=VOCAB, text=''):
        path = tmp_path / 'model.html'
        path.write_text(look_inside.page(model, {'vocab': vocab, 'step': 7, 'best': 1.5}, text), encoding='utf-8')
        return path
    return write


@pytest.fixture(params=SIZES, ids=str)
def model(request, monkeypatch):
    for name, value in zip(('block_size', 'n_embd', 'num_heads', 'num_layers'), request.param):
        monkeypatch.setattr(bigramv2, name, value)
    return shake(bigramv2.GPT(len(VOCAB)))


def answers(page, *jobs, product='fast'):
    """What the forward pass in the page makes of the jobs of look_inside_node.js, and what else is found there."""
    result = subprocess.run(['node', str(ROOT / 'tests/look_inside_node.js'), str(page), product],
                            input=json.dumps(jobs), capture_output=True, encoding='utf-8', timeout=60)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    return found['answers'], found


def logits_of(model, tokens):
    with torch.no_grad():
        return model(torch.tensor([tokens]))[0][0]  # (T, V)


def facts_of(page):
    """The JSON in a page."""
    return json.loads(re.search(r'id="facts">(.*)</script>', page.read_text(encoding='utf-8'))[1])


def far(answer, logits):
    """How far the page's logits are from torch's (T, V)."""
    return (torch.tensor(answer['logits']).view_as(logits) - logits).abs().max().item()


def prompts(count):
    """Random prompts of all sorts of lengths. Some are the one before with another character or end."""
    tokens = []
    for length in torch.randint(1, bigramv2.block_size + 1, (count,)).tolist() + [1, bigramv2.block_size]:
        if len(tokens) < length or length % 2:
            tokens = torch.randint(len(VOCAB), (length,)).tolist()
        else:
            tokens = tokens[:length]
            tokens[length // 2] = (tokens[length // 2] + 1) % len(VOCAB)
        yield tokens


@node
@pytest.mark.parametrize('product', ['fast', 'plain'])
def test_the_logits_are_torchs(make, model, product):
    jobs = [{'tokens': tokens} for tokens in prompts(20)]
    found, rest = answers(make(model), *jobs, product=product)
    assert len(found) == 22 and rest['apart'] < 1e-4 and rest['fast']
    for job, answer in zip(jobs, found):
        assert far(answer, logits_of(model, job['tokens'])) < 1e-4


@node
def test_the_likeliest_text_is_that_of_generate_past_full_windows_too(make, model):
    count = 3 * bigramv2.block_size // 2 + 5
    starts = [[0], *prompts(0)]
    found, _ = answers(make(model), *({'tokens': tokens, 'count': count} for tokens in starts))
    for tokens, answer in zip(starts, found):
        expected = model.generate(torch.tensor([tokens]), count, temperature=0)[0, len(tokens):]
        assert answer['written'] == expected.tolist()


@node
@pytest.mark.parametrize('temperature, top_k', [(1, 0), (0.7, 3), (2, 1), (0, 0), (1e-10, 5), (1, 1000)])
def test_the_bars_are_the_shares_that_draw_draws_from(make, monkeypatch, temperature, top_k):
    model = shake(bigramv2.GPT(len(VOCAB)))
    with torch.no_grad():
        model.head.weight[3], model.head.bias[3] = model.head.weight[5], 9
        model.head.bias[5] = 9  # the two likeliest are equal
    drawn = []
    monkeypatch.setattr(torch, 'multinomial',
                        lambda probs, num_samples: drawn.append(probs[0]) or torch.zeros(1, 1, dtype=torch.long))
    logits = logits_of(model, [1, 2])[-1:]                   # (1, V)
    bigramv2.GPT.draw(logits, temperature, top_k)
    expected = drawn[0].sort(descending=True).values if drawn else torch.ones(1)  # (V,); at temperature 0 one alone
    expected = expected[expected > 0]                        # (k,), the likeliest first
    (answer,), _ = answers(make(model), {'tokens': [1, 2], 'temperature': temperature, 'topK': top_k})
    probs, order = torch.tensor(answer['probs'], dtype=torch.float32).sort(descending=True)  # (V,) each
    close = dict(atol=1e-5, rtol=0)
    torch.testing.assert_close(probs[:len(expected)], expected, **close)
    assert not probs[len(expected):].any()
    # They are the shares of the likeliest. Which of two equals comes first is all the same.
    torch.testing.assert_close(logits[0, order[:len(expected)]], logits[0].topk(len(expected)).values, **close)


@node
def test_a_part_that_is_off_adds_nothing(make, model):
    def nothing(module, inputs, out):
        return torch.zeros_like(out)

    tokens, last, D = list(prompts(1))[-1], bigramv2.num_layers - 1, bigramv2.n_embd // bigramv2.num_heads
    parts = [f'blocks.{last}.sa', 'blocks.0.ffwd', f'blocks.{last}.sa.{bigramv2.num_heads - 1}']
    found, _ = answers(make(model), *({'tokens': tokens, 'off': [part]} for part in parts),
                       {'tokens': tokens, 'off': parts})
    whole = logits_of(model, tokens)
    for answer in found:  # the page shows where a head would look if it were on
        assert torch.tensor(answer['attention']).sum(-1).flatten().tolist() == pytest.approx(
            [1] * bigramv2.num_layers * bigramv2.num_heads * len(tokens))
    for part, answer in zip(parts[:2], found):
        hook = model.get_submodule(part).register_forward_hook(nothing)
        assert far(answer, logits_of(model, tokens)) < 1e-4 < far(answer, whole)
        hook.remove()
    with torch.no_grad():
        model.blocks[last].sa.proj.weight[:, -D:] = 0
    assert far(found[2], logits_of(model, tokens)) < 1e-4 < far(found[2], whole)


@node
def test_a_vocabulary_may_be_as_large_as_prepare_allows(make, monkeypatch):
    monkeypatch.setattr(bigramv2, 'n_embd', 8)
    vocab = ''.join(map(chr, range(0x10000, 0x20000)))
    assert answers(make(shake(bigramv2.GPT(len(vocab))), vocab))[1]['apart'] < 1e-4


@node
def test_one_module_a_head_is_supported(make, monkeypatch):
    model = shake(bigramv2.GPT(len(VOCAB)))
    for block in model.blocks:
        block.sa = shake(bigramv2.MultiHeadAttention(4, 8))
    tokens = [1, 2, 3, 1, 2]
    (answer,), rest = answers(make(model), {'tokens': tokens})
    assert far(answer, logits_of(model, tokens)) < 1e-4 and rest['apart'] < 1e-4


def another_activation(model, monkeypatch):
    monkeypatch.setattr(bigramv2.F, 'gelu', bigramv2.F.relu)


def rotary_positions(model, monkeypatch):
    def turn(module, inputs, out):
        angle = torch.arange(out.shape[1])[:, None] / 10  # (T, 1)
        a, b = out.chunk(2, dim=-1)
        return torch.cat((a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()), dim=-1)

    for block in model.blocks:
        block.sa.query.register_forward_hook(turn)
        block.sa.key.register_forward_hook(turn)


def wrong_root(model, monkeypatch):
    for block in model.blocks:
        block.sa.query.register_forward_hook(lambda module, inputs, out: out / 2)


CHANGES = [another_activation, rotary_positions, wrong_root]


@node
@pytest.mark.parametrize('change', CHANGES)
def test_a_model_that_someone_changed_is_noticed(make, monkeypatch, change):
    model = shake(bigramv2.GPT(len(VOCAB)))
    assert answers(make(model))[1]['apart'] < 1e-4
    change(model, monkeypatch)
    assert answers(make(model))[1]['apart'] > 1e-4


@node
def test_no_character_of_the_vocabulary_or_the_text_becomes_markup(make):
    text = '</script><script>"\'\n\r\u2028😀'
    page = make(shake(bigramv2.GPT(len(VOCAB))), text=text)
    assert answers(page)[1]['vocab'] == VOCAB
    assert '<' not in re.search(r'id="facts">(.*)</script>', page.read_text(encoding='utf-8'))[1]
    assert facts_of(page)['text'] == text


def test_the_page_weighs_less_than_twice_the_weights_and_asks_for_nothing(make, monkeypatch):
    for name, value in dict(block_size=128, n_embd=128, num_heads=4, num_layers=3).items():
        monkeypatch.setattr(bigramv2, name, value)
    model = bigramv2.GPT(63)
    page = make(model, ''.join(map(chr, range(40, 103)))).read_bytes()
    assert len(page) < 2 * sum(4 * p.numel() for p in model.parameters())
    assert b'http' not in page.replace(b'http-equiv', b'') and b'src=' not in page and b'href' not in page


# What the heads look for

def test_the_groups_of_a_text():
    found = looks.groups("No.\n 'o NN")
    at = {name: [row.nonzero().flatten().tolist() for row in mask.tril()] for name, mask in found.items()}
    assert at['itself'] == [[t] for t in range(10)] and at['the one before'] == [[], *([t] for t in range(9))]
    assert at['2 to 4 back'][:4] == [[], [], [0], [0, 1]] and at['2 to 4 back'][9] == [5, 6, 7]
    assert at['the same character'] == [[], [], [], [], [], [], [1], [4], [0], [0, 8]]
    assert at['what followed the same'] == [[], [], [], [], [], [], [2], [5], [1], [1]]
    assert at["words' first letters"][9] == [0, 8] and at["lines' first letters"][9] == [4]
    assert at['spaces'][9] == [4, 7] and at['line ends'][9] == [3]


@node
@pytest.mark.parametrize('modular', [False, True], ids=['all at once', 'one module a head'])
def test_the_weights_are_those_of_the_page(make, model, modular):
    if modular:
        for block in model.blocks:
            block.sa = shake(bigramv2.MultiHeadAttention(bigramv2.num_heads, bigramv2.n_embd // bigramv2.num_heads))
    tokens = list(prompts(1))[-1]
    (answer,), _ = answers(make(model), {'tokens': tokens})
    weights = looks.weights_on(model, torch.tensor([tokens]))
    torch.testing.assert_close(weights, torch.tensor(answer['attention'], dtype=torch.float32), atol=1e-5, rtol=0)
    assert bigramv2.fused_attention and not any(module._forward_hooks for module in model.modules())


def test_the_shares_are_means_over_all_positions():
    model, windows = shake(bigramv2.GPT(len(VOCAB))), torch.randint(5, (3, 16))
    found = looks.shares(model, VOCAB, windows)
    assert list(found) == [(0, 0)] + [(block, head) for block in (1, 2) for head in (1, 2, 3, 4)]
    for group in found[0, 0]:
        total = by_chance = 0
        for tokens in windows:
            weights = looks.weights_on(model, tokens[None])[6]  # block 2, head 3
            mask = looks.groups(''.join(VOCAB[token] for token in tokens))[group]
            for t in range(16):
                total += sum(weights[t, s].item() for s in range(t + 1) if mask[t, s])
                by_chance += sum(1 / (t + 1) for s in range(t + 1) if mask[t, s])
        assert found[2, 3][group] == pytest.approx(total / 48, abs=1e-5)
        assert found[0, 0][group] == pytest.approx(by_chance / 48, abs=1e-5)


def test_an_attention_without_dropout_has_no_shares():
    model = shake(bigramv2.GPT(len(VOCAB)))
    for block in model.blocks:
        block.sa = torch.nn.Linear(32, 32)
    assert list(looks.shares(model, VOCAB, torch.zeros(1, 16, dtype=torch.long))) == [(0, 0)]


# The command

def test_the_page_is_of_the_newest_model_in_this_folder_or_of_the_one_named(folder):
    shutil.copytree(folder / 'out/1', folder / 'out/2')
    os.utime(folder / 'out/2/model.pt')
    printed = succeeds('experiments/look_inside.py', cwd=folder)
    assert printed.startswith('out/2/model.html (') and len(printed.splitlines()) == 1
    facts = facts_of(folder / 'out/2/model.html')
    assert (facts['text'], facts['sizes']['n_embd']) == (look_inside.VERSE, 16)
    assert facts['looks']['in'] == '50 windows of the validation text' and len(facts['looks']['shares']) == 5
    assert facts['sampling'] == {'temperature': 1, 'top_k': 0}
    assert not (folder / 'out/1/model.html').exists()

    (folder / 'tokens/meta.json').unlink()
    flags = '--prompt', 'The ', '--temperature', 0.5, '--top_k', 3
    assert succeeds('experiments/look_inside.py', 'out/1', *flags, cwd=folder).startswith('out/1/model.html (')
    facts = facts_of(folder / 'out/1/model.html')
    assert (facts['text'], facts['sampling']) == ('The ', {'temperature': 0.5, 'top_k': 3})
    assert facts['looks']['in'] == 'the text with which this page begins'


def test_tokens_of_another_text_are_not_those_of_the_model(folder, monkeypatch):
    text = 'another text\n' * 50
    (folder / 'other.txt').write_text(text, encoding='utf-8')
    succeeds('prepare.py', 'other.txt', cwd=folder)
    vocab = ''.join(sorted(set(text)))
    assert look_inside.learners_text('abc\n', 'cab')[0].tolist() == [[2, 0, 1]]
    assert look_inside.learners_text(vocab, 'text')[0].shape == (50, 16)
    monkeypatch.setattr(bigramv2, 'block_size', len(text) // 10)  # now the validation text is too short
    assert look_inside.learners_text(vocab, 'text')[0].shape == (1, 4)


def test_a_model_that_does_not_know_the_verse_begins_by_itself():
    text = look_inside.beginning(shake(bigramv2.GPT(len(VOCAB))), VOCAB)
    assert len(text) == len(look_inside.VERSE) and set(text) <= set(VOCAB)


@pytest.mark.parametrize('content, says', [(None, 'train first'), (b'junk', 'is not a model')])
def test_a_missing_or_damaged_model_is_refused_in_one_line(tmp_path, content, says):
    if content:
        (tmp_path / 'model.pt').write_bytes(content)
    result = run('experiments/look_inside.py', tmp_path, cwd=tmp_path)
    assert (result.returncode, result.stdout) == (1, '')
    assert says in result.stderr and len(result.stderr.splitlines()) == 1
    assert not (tmp_path / 'model.html').exists()


def test_the_solution_reads_a_head_of_a_model_of_another_text(folder):
    text = 'Другой текст\n' * 200
    (folder / 'other.txt').write_text(text, encoding='utf-8')
    succeeds('prepare.py', 'other.txt', cwd=folder)
    succeeds('bigramv2.py', '--n_embd', 16, '--block_size', 16, '--num_layers', 1, '--max_iters', 2, cwd=folder)
    solution = importlib.import_module('07_read_a_head')
    program, model, vocab = solution.yours()
    assert (vocab, program.block_size) == (''.join(sorted(set(text))), 16)
    with contextlib.suppress(AssertionError):  # whether this model has such a head is another matter
        assert '% of its weight to the character before' in solution.check((program, model, vocab))


# In a browser

def seen(page, pictures):
    """What look_inside_browser.js sees on the page."""
    if not browser or not shutil.which('node'):
        pytest.skip(f'{"Node" if browser else "Chromium"} is not here to open the page')
    result = subprocess.run(['node', str(ROOT / 'tests/look_inside_browser.js'), str(page), str(pictures)],
                            env={**os.environ, 'CHROMIUM': browser}, capture_output=True, encoding='utf-8', timeout=90)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found['errors'] == [] and found['requests'] == [f'file://{page}']
    return found


def loss_of(model, tokens):
    with torch.no_grad():
        return model(torch.tensor([tokens[:-1]]), torch.tensor([tokens[1:]]))[1].item()


def test_a_learner_types_points_slides_writes_and_switches_parts_off(make, tmp_path):
    model = shake(bigramv2.GPT(len(VOCAB)))
    with torch.no_grad():
        for block in model.blocks:
            block.sa.query.weight *= 5  # so that each head looks somewhere else
    text = '<$>&\\é'
    found = seen(make(model, text=text), tmp_path / 'pictures')
    tokens = [VOCAB.index(character) for character in text + text[:5]]
    logits = logits_of(model, tokens)
    assert found['warning'] == '' and "from torch's by at most " in found['about']

    typed = found['typed']
    assert typed['value'] == text + text[:5]
    assert typed['cells'] == ''.join(f'{VOCAB[token]}{token}' for token in tokens)
    assert typed['loss'].startswith(f'Loss {loss_of(model, tokens):.3f} nats, the mean of 10 surprises')
    surprise = -logits[0].log_softmax(-1)[tokens[1]]
    end = 'After “\\”, position 10, the text ends'
    share = f'{100 * (-surprise).exp():.{1 if surprise > 2.31 else 0}f}\u00a0%'  # below 10 % with a decimal
    first = f'After “<”, position 0, comes “$”: {share}, a surprise of {surprise:.2f} nats'
    assert found['where'] == [end, first, end, found['where'][3]]
    assert found['where'][3].startswith('After “\\”, position 4, comes “é”')
    assert found['first'].startswith('Block 1, head 1, from') and 'Block 2, head 4, from “\\”: ' in found['looks']
    shares = looks.shares(model, VOCAB, bigramv2.encode(text, VOCAB))
    assert found['general'] == [name + ''.join(f'{100 * share:.0f}' for share in shares[place].values())
                                for name, place in (('chance', (0, 0)), ('2, 4', (2, 4)))]
    assert found['last'] == f'{100 * logits[4].softmax(-1)[tokens[5]]:.1f}\u00a0%'

    assert found['cold'] == [1] + 9 * [0]
    hot = (logits[4] / 2).softmax(-1).sort(descending=True).values
    needed = 1 + (hot.cumsum(0) < 0.9).sum().item()
    assert needed > 10 and found['reached'] == f'90\u00a0% after {needed}'
    assert found['hot'][:needed] == pytest.approx(hot[:needed].tolist(), abs=1e-5)
    assert [share > 0 for share in found['three'][:9]] == [True] * 3 + [False] * 6

    whole = f'{loss_of(model, tokens):.3f}'
    hook = model.blocks[0].sa.register_forward_hook(lambda module, inputs, out: torch.zeros_like(out))
    assert found['off'] == f'Loss {loss_of(model, tokens):.3f}; with every part on, {whole}'
    hook.remove()
    assert found['on'] == f'Loss {whole}, with every part on'

    def continued(text, count):
        start = torch.tensor([[VOCAB.index(character) for character in text] or [0]])
        new = model.generate(start, count, temperature=0)[0, start.shape[1]:]
        return text + ''.join(VOCAB[token] for token in new).replace('\r', '␍')

    assert found['one']['value'] == continued(text, 1)
    assert found['one']['where'].startswith('After “é”, position 5, comes “')
    assert found['one']['where'].endswith(' nats, at temperature 1 and without top_k')  # these are 0 and 3 now
    assert found['one']['comes'].endswith('100\u00a0% comes')
    assert len(found['written']) > len(text) + 100
    assert found['written'] == continued(text, len(found['written']) - len(text))
    assert found['empty'].startswith('Loss –') and found['fromNothing'] == continued('', 1)
    assert found['scripts'] == 3 and found['unknown'].startswith('Left out, because')
    assert found['widths'] == [400, 400, 1280, 1280]  # nothing sticks out of the page
    assert len(list((tmp_path / 'pictures').glob('*.png'))) == 6


def test_the_browser_says_when_the_model_was_changed(make, tmp_path, monkeypatch):
    model = shake(bigramv2.GPT(len(VOCAB)))
    wrong_root(model, monkeypatch)
    found = seen(make(model), tmp_path)
    assert found['warning'].startswith('What this page shows is not what your model computes') and not found['hidden']
    del model.ln
    model.ln = torch.nn.Identity()
    found = seen(make(model), tmp_path)
    assert found['warning'].startswith('This page cannot compute your model') and found['hidden']
