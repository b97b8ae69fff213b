"""Exercise 3: learning by heart.

600 steps of 12 * 64 characters read each of the 27,000 characters 17 times. At first the model learns what helps with
every text. From about the tenth time on, it gets better only by remembering these characters, and that helps
with no other text. So the training loss falls on, to 1.2, and the validation loss rises from 1.9 to 1.95. With dropout
0.3 every step has to do without a random share of the activations. That makes it harder to remember:
the training loss is 1.7, and the validation loss falls to the end, to 1.88.
"""
import shared


def before():
    return shared.SHAKESPEARE


def after():
    return shared.SHAKESPEARE[:30_000]


def check(text):
    """With a small model and a twelfth of the text, which take seconds."""
    program = shared.program(n_embd=64, num_layers=1, block_size=32, max_iters=240, eval_interval=60, eval_windows=8)
    return judge(shared.learn(program, text[:len(text) // 8])[1])


def long_check(text):
    with_dropout = shared.learn(shared.program(**shared.SMALL, max_iters=600, dropout=0.3), text)[1]
    without = shared.learn(shared.program(**shared.SMALL, max_iters=600), text)[1]
    assert with_dropout[-1][2] < without[-1][2], 'With dropout it does not end lower.'
    return judge(without)


def judge(rows):
    (_, train, val), (best_step, _, best) = rows[-1], min(rows, key=lambda row: row[2])
    assert val > best + 0.03, f'The validation loss falls to the end, to {val:.2f}; train {train:.2f}.'
    assert train < val - 0.5, f'The losses are near each other: train {train:.2f}, validation {val:.2f}.'
    return f'The validation loss was best at step {best_step}, {best:.2f}; now it is {val:.2f}, and train {train:.2f}.'


if __name__ == '__main__':
    shared.main(before, after, check, long_check)
