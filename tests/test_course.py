"""The worked examples of the course: what stands behind each >>> in README.md prints what the page says."""
import doctest
import os
import re
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT

PAGE = Path(os.environ.get('COURSE_DRAFT', ROOT / 'README.md'))  # a draft may be checked before it is in the README
TEXT = PAGE.read_text(encoding='utf-8')
BLOCKS = list(re.finditer(r'^```pycon\n(.*?)^```$', TEXT, re.M | re.S))


@pytest.fixture
def as_a_reader(monkeypatch):
    """The scripts fresh, with the sizes of their files, in the folder of input.txt; afterwards as it was."""
    for script in ('bigram', 'bigramv2', 'prepare'):
        monkeypatch.delitem(sys.modules, script, raising=False)
    monkeypatch.chdir(ROOT)
    yield
    torch.set_printoptions(profile='default')
    torch.set_grad_enabled(True)


def test_there_are_worked_examples():
    assert len(BLOCKS) >= 8 and TEXT.count('```pycon') == len(BLOCKS) and TEXT.count('>>> ') > 30


def test_every_worked_example_prints_what_the_page_says(as_a_reader):
    names, wrong = {}, []
    for block in BLOCKS:
        line = TEXT.count('\n', 0, block.start(1))  # so that a failure names its line of the page
        example = doctest.DocTestParser().get_doctest(block[1], names, PAGE.name, str(PAGE), line)
        doctest.DocTestRunner(verbose=False).run(example, out=wrong.append, clear_globs=False)
        names = example.globs
    assert not wrong, ''.join(wrong)
