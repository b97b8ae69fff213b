"""What a user does and sees: training, writing, and what is left in the folder."""
import builtins
import re

import pytest
import torch
from conftest import ROOT, SMALL, TEXT, edited, losses, run, saved, succeeds

import bigramv2


def prepare_and_train(folder, text, *flags):
    (folder / 'input.txt').write_bytes(text.encode())
    succeeds('prepare.py', cwd=folder)
    return succeeds('bigramv2.py', *SMALL, *flags, cwd=folder)


@pytest.fixture
def learnt(folder):
    """A new model, its optimisers, its data (N,) and its vocabulary, at the small sizes."""
    data, meta = bigramv2.load_data()
    torch.manual_seed(bigramv2.seed)
    model = bigramv2.GPT(len(meta['vocab']))
    return model, bigramv2.make_optimizers(model), data, meta['vocab']


# Training

def test_training_shows_the_loss_fall_and_the_text_change(trained):
    printed = (trained / 'printed').read_text(encoding='utf-8')
    lines = printed.splitlines()
    assert 'M parameters on cpu, 58 different characters: a blind guess has loss ln(58) = 4.06' in lines[0]
    assert lines[1] == '27,000 characters to learn from, 3,000 to test on'
    assert lines[2].startswith('Saved in out/1/ every 10 steps.') and '--resume' in lines[2]
    steps = [line.split() for line in lines if line.startswith('step ')]
    assert [step[1] for step in steps] == ['0', '10', '20']
    assert float(steps[0][5]) > float(steps[1][5]) > float(steps[2][5])
    assert 'elapsed' in steps[0] and 'left' in steps[1] and 'characters/s' in steps[1]
    assert len(re.findall(r'^step .*\n {12}.{9,}', printed, re.M)) == 3  # a sample below each
    done, = re.findall(r'^Done in .*validation loss \d\.\d{4} over.*$', printed, re.M)
    assert 'out/1/model.pt' in done and '2,992 of 3,000 characters' in done
    assert 'by heart' not in printed and len(printed.split('write:\n\n')[1]) == 31


def test_training_leaves_the_curve_and_the_best_model(trained):
    rows = losses(trained / 'out/1/loss.csv')
    assert rows[0] == ('step', 'train', 'val') and [row[0] for row in rows[1:]] == ['0', '10', '20']
    model = saved(trained / 'out/1/model.pt')
    assert sorted(model) == ['best', 'hyperparameters', 'step', 'vocab', 'weights']
    assert model['hyperparameters']['n_embd'] == 16 and model['vocab'] == ''.join(sorted(set(TEXT)))
    assert f'{model["best"]:.6f}' == min(row[2] for row in rows[1:])


def test_a_hundred_steps_lead_to_the_loss_they_always_led_to(learnt, monkeypatch):
    """Any change to how the model starts, learns or draws its batches shows here. (A rate 1 % higher: 0.0003.)"""
    monkeypatch.setattr(bigramv2, 'max_iters', 100)
    model, optimizers, data, _ = learnt
    assert list(bigramv2.train(model, optimizers, data['train'])) == [0, 100]
    assert bigramv2.estimate_loss(model, data['val'], 100) == pytest.approx(2.6131, abs=2e-4)


def test_writing_a_sample_never_changes_what_training_draws(learnt, monkeypatch):
    """Also with the batches of chapter one, which a learner may put into get_batch."""
    model, optimizers, data, vocab = learnt
    drawn = {}

    def get_batch(data, step):
        starts = torch.randint(len(data) - 16, (4,))
        drawn[interval].append(tuple(starts.tolist()))
        return bigramv2.windows(data, starts.numpy())

    monkeypatch.setattr(bigramv2, 'get_batch', get_batch)
    monkeypatch.setattr(bigramv2, 'max_iters', 12)
    for interval in (3, 100):
        drawn[interval] = []
        monkeypatch.setattr(bigramv2, 'eval_interval', interval)
        for _ in bigramv2.train(model, optimizers, data['train']):
            list(bigramv2.characters(model, vocab, 5))
    assert len(set(drawn[3])) == 12 and drawn[3] == drawn[100]


def test_swapping_the_two_lines_of_block_swaps_the_attention(folder):
    one, all_ = '# self.sa = MultiHeadAttention(num_heads', 'self.sa = MultiHeadAttn(num_heads'
    program = edited(folder, (one, one[2:]), (f' {all_}', f' # {all_}'))
    assert 'step    20' in succeeds(program, *SMALL, '--out_dir', 'swapped', cwd=folder)
    assert 'blocks.0.sa.heads.0.key.weight' in saved('swapped/1/model.pt')['weights']
    assert len(succeeds(program, '--sample_only', '--out_dir', 'swapped', cwd=folder)) == 501


def test_r8_the_model_is_compiled_only_if_asked_for(folder, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, 'compile', lambda model: compiled.append(model) or model)
    succeeds('bigramv2.py', *SMALL, cwd=folder)
    assert not compiled
    succeeds('bigramv2.py', *SMALL, '--compile', cwd=folder)
    assert len(compiled) == 1


def test_the_speed_is_read_when_the_steps_have_been_computed(folder, monkeypatch):
    """A GPU is behind: reading a number from it waits."""
    events = []
    for module, name in ((torch.nn.utils, 'clip_grad_norm_'), (torch.Tensor, 'item'), (bigramv2.time, 'perf_counter')):
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *args, name=name, real=real: (events.append(name[0]), real(*args))[1])
    succeeds('bigramv2.py', *SMALL, cwd=folder)
    assert 'cccic' not in (order := ''.join(events)) and 'cip' in order and 'cp' not in order


def test_r7_in_a_notebook_main_runs_with_values_that_are_set_from_outside_and_twice(folder, capsys):
    for name, value in zip(SMALL[::2], SMALL[1::2]):
        setattr(bigramv2, name[2:], int(value))
    for max_iters in (2, 3):
        bigramv2.max_iters = max_iters
        bigramv2.main()
        assert saved(f'out/{max_iters}/checkpoint.pt')['step'] == max_iters
        assert bigramv2.max_iters == max_iters and len(capsys.readouterr().out.split('write:\n\n')[1]) == 31


def test_chapter_one_learns(folder):
    source = (ROOT / 'bigram.py').read_text(encoding='utf-8')
    for name, value in dict(max_iters=60, eval_interval=30, eval_iters=4, n_embd=16, block_size=16).items():
        source = re.sub(rf'^{name} = \S+', f'{name} = {value}', source, flags=re.M)
    (folder / 'short.py').write_text(source, encoding='utf-8')
    printed = succeeds(folder / 'short.py', cwd=folder)
    seen = [float(loss) for loss in re.findall(r'^step .* val ([\d.]+)', printed, re.M)]
    assert len(seen) == 3 and seen[0] > seen[1] > seen[2]
    assert len(printed.split('It writes:\n')[1]) > 500


# What the end of a training says

def test_a_text_learnt_by_heart_is_told_with_the_step_from_which_on(folder):
    noise = ''.join(chr(97 + (i * i * 7919 + i // 3) % 1009 % 26) for i in range(700))
    printed = prepare_and_train(folder, noise, '--max_iters', 60, '--n_embd', 32, '--batch_size', 8)
    best = min(losses('out/2/loss.csv')[1:], key=lambda row: float(row[2]))[0]
    advice, = re.findall('.*by heart.*', printed)
    assert 0 < int(best) < 48 and f'at step {best}.' in advice and 'blind guess' not in advice
    for part in ('dropout', 'smaller model', 'more text'):
        assert part in advice


def test_t5_an_end_unlike_the_beginning_is_told_with_both_causes_and_the_blind_guess(folder):
    printed = prepare_and_train(folder, TEXT[:9000] + 'אבגדה וזחטי ' * 84)
    advice, = re.findall('.*by heart.*', printed)
    for part in ('better than a blind guess', 'at step 0.', 'the end of the text', 'unlike'):
        assert part in advice


def test_r3_a_loss_that_explodes_is_told_with_both_rates(folder):
    printed = succeeds('bigramv2.py', *SMALL, '--adamw_learning_rate', 100, cwd=folder)
    advice, = re.findall('.*better than a blind guess.*', printed)
    assert 'lower learning_rate and adamw_learning_rate' in advice and 'by heart' not in advice


def test_r4_a_loss_that_is_not_finite_ends_the_run_and_names_both_rates(folder):
    result = run('bigramv2.py', *SMALL, '--adamw_learning_rate', 'inf', cwd=folder)
    line, = result.stderr.splitlines()
    assert result.returncode == 1 and 'nan at step 10' in line and 'learning_rate and adamw_learning_rate' in line
    assert saved('out/2/checkpoint.pt')['step'] == 0 and 'Done' not in result.stdout


def test_a_long_text_is_tested_on_a_million_characters_and_the_line_says_so(folder):
    sizes = ['--block_size', 256, '--n_embd', 2, '--num_heads', 1, '--max_iters', 1]
    printed = prepare_and_train(folder, TEXT * 400, *sizes)
    assert 'over 999,936 of 1,200,000 characters' in printed


# Any text

@pytest.mark.parametrize('text', [TEXT[:3000].replace('\n', ' '), '列子御風而行' * 300, 'one\rtwo\r' * 300],
                         ids=['no line end', 'Chinese', 'CR'])
def test_a_text_in_any_script_and_with_any_line_end_trains_with_one_line_a_sample(folder, text):
    progress = prepare_and_train(folder, text).split('Done in')[0]
    assert 'step    20' in progress and len(progress.splitlines()) == 9 and '\r' not in progress


def test_f5_what_is_written_is_utf8_whatever_the_terminal_is(folder):
    text = 'בראשית ברא אלהים\n' * 60
    (folder / 'input.txt').write_bytes(text.encode())
    assert 'אבהי' in succeeds('prepare.py', cwd=folder, encoding='cp1252')
    succeeds('bigramv2.py', *SMALL, cwd=folder, encoding='cp1252')
    written = succeeds('bigramv2.py', '--sample_only', '--prompt', 'אלהים', cwd=folder, encoding='cp1252')
    assert written.startswith('אלהים') and set(written) <= set(text)


# Writing

def test_the_model_writes_again_at_the_sizes_it_was_trained_at(folder):
    command = ['bigramv2.py', '--sample_only', '--prompt', 'The ', '--max_new_tokens', 40]
    text = succeeds(*command, cwd=folder)
    assert text.startswith('The ') and len(text) == 4 + 40 + 1
    assert text == succeeds(*command, '--no-kv_cache', cwd=folder)
    assert text == succeeds(*command, '--out_dir', 'out/1', cwd=folder)
    assert text != succeeds(*command, '--temperature', 0, cwd=folder)
    assert text != succeeds(*command, '--seed', 2, cwd=folder)  # F6


def test_the_best_model_writes_and_not_the_last(folder):
    torch.save(saved('out/1/checkpoint.pt') | {'best': 0.0}, 'out/1/checkpoint.pt')  # what follows is not better
    end = succeeds('bigramv2.py', '--resume', '--max_iters', 60, cwd=folder).split('write:\n\n')[1]
    assert saved('out/1/model.pt')['step'] == 20 and end == succeeds('bigramv2.py', '--sample_only', cwd=folder)


def test_f2_backslash_n_in_a_prompt_is_a_line_end_where_the_text_has_no_backslash(folder):
    assert succeeds('bigramv2.py', '--sample_only', '--prompt', r'ROME:\n', cwd=folder).startswith('ROME:\n')
    prepare_and_train(folder, TEXT[:3000] + '\\')
    assert succeeds('bigramv2.py', '--sample_only', '--prompt', r'ROME:\n', cwd=folder).startswith('ROME:\\n')


def test_each_character_is_shown_as_it_is_drawn(folder, monkeypatch):
    events, draw = [], bigramv2.GPT.draw
    monkeypatch.setattr(bigramv2.GPT, 'draw', staticmethod(lambda *args: (events.append('draw'), draw(*args))[1]))
    monkeypatch.setattr(builtins, 'print', lambda *args, flush=False, **_: events.append('show' if flush else 'end'))
    bigramv2.main(['--sample_only', '--max_new_tokens', '5'])
    assert events == ['show', *['draw', 'show'] * 5, 'end']


def test_f7_the_model_is_used_from_python(folder):
    model, run = bigramv2.load('out/1/model.pt')
    logits, _ = model.eval()(bigramv2.encode('The ', run['vocab']))
    assert logits.shape == (1, 4, 58) and bigramv2.n_embd == 16
    assert bigramv2.estimate_loss(model, bigramv2.load_data()[0]['val'], 4) == pytest.approx(run['best'], abs=1e-6)
