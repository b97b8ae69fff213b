"""Exercise 12: top-p, also called nucleus sampling (Holtzman et al. 2019).

The temperature comes first: top-p looks at the probabilities from which the character would be drawn. Sort them, the
largest first. A character stays if the sum of those before it is less than p. So the first one always
stays, and the last one that stays is the one that reaches p. Unlike with top_k, the number that stays depends on how
sure the model is. At temperature 1 and 90 % a default model needs one character after "ROM". In the validation text it
needs three after a small letter and 16 after a space (medians). The line belongs among the options: a hyperparameter is
saved with the model.
"""
import shared
import torch

EDITS = [("out_dir = 'out' ", 'top_p = 1.0                  # draw from the likeliest characters that add up to p\n'
                              "out_dir = 'out' "),
         ('        return torch.multinomial(probs, num_samples=1)', '''\
        if top_p < 1:
            ordered, order = probs.sort(dim=-1, descending=True, stable=True)        # (B, V) each
            likelier = ordered.cumsum(dim=-1) - ordered                              # (B, V), the sum of those before
            ordered = ordered * (likelier < top_p)                                   # multinomial needs no sum of 1
            probs = torch.zeros_like(probs).scatter(1, order, ordered)               # each back in its place
        return torch.multinomial(probs, num_samples=1)''')]


def before():
    return shared.program()


def after():
    return shared.program(*EDITS)


def check(program):
    assert 'top_p' in program.OPTIONS, 'There is no option top_p.'
    probs = torch.tensor([0.1, 0.4, 0.2, 0.3])
    # A temperature of 0.5 squares the probabilities: 0.03, 0.53, 0.13 and 0.30.
    for temperature, top_p, expected in (
            (1, 1.0, {0, 1, 2, 3}), (1, 0.95, {0, 1, 2, 3}), (1, 0.85, {1, 2, 3}), (1, 0.6, {1, 3}), (1, 0.1, {1}),
            (0.5, 0.8, {1, 3}), (0.5, 0.5, {1})):
        program.top_p = top_p
        torch.manual_seed(0)
        drawn = set(program.GPT.draw(probs.log().expand(2000, 4), temperature).flatten().tolist())
        assert drawn == expected, f'Of {probs.tolist()}, top_p = {top_p} drew {drawn} at temperature {temperature}.'
    program.top_p, clean = 1.0, shared.program()
    logits, texts = torch.randn(500, 63), []
    for draw in program.GPT.draw, clean.GPT.draw:
        torch.manual_seed(0)
        texts.append(draw(logits, 0.8))
    assert torch.equal(*texts), 'With top_p = 1 it draws other characters than before.'
    return 'Of 0.4, 0.3, 0.2 and 0.1, top_p = 0.6 keeps two and 0.85 keeps three.'


if __name__ == '__main__':
    shared.main(before, after, check)
