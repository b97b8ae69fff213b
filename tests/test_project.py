"""What must agree: the requirements, the script headers, the README's promise of versions and the forge's own tests."""
import re
import tomllib

import pytest
from conftest import ROOT

REQUIREMENTS = (ROOT / 'requirements.txt').read_text().split()
WORKFLOW = ROOT / '.github/workflows/tests.yml'


def header(script):
    """The inline metadata of a script (PEP 723), or None."""
    block = re.search(r'^# /// script\n((?:#(?: .*)?\n)+?)# ///$', (ROOT / script).read_text(encoding='utf-8'), re.M)
    return block and tomllib.loads(''.join(line[2:] or '\n' for line in block[1].splitlines(keepends=True)))


def imports(script):
    return re.findall(r'^import (\w+)', (ROOT / script).read_text(encoding='utf-8'), re.M)


@pytest.mark.parametrize('script', ['bigram.py', 'bigramv2.py', 'prepare.py'])
def test_the_header_of_a_script_asks_for_what_requirements_txt_does(script):
    needed = [line for line in REQUIREMENTS if re.match(r'\w+', line)[0] in imports(script)]
    assert sorted(header(script)['dependencies']) in (sorted(needed), sorted(REQUIREMENTS))
    assert header(script)['requires-python'] == '>=3.11'


def test_the_versions_that_the_readme_promises_are_those_that_the_forge_tests():
    readme = (ROOT / 'README.md').read_text(encoding='utf-8')
    oldest, newest = re.search(r'Python (3\.\d+) to (3\.\d+)', readme).groups()
    assert re.findall(r"'(3\.\d+)'", WORKFLOW.read_text()) == [oldest, newest]
    assert oldest == '3.11'


def test_the_forge_runs_the_command_of_the_readme_on_three_systems():
    workflow, readme = WORKFLOW.read_text(), (ROOT / 'README.md').read_text(encoding='utf-8')
    for part in ('ubuntu', 'macos', 'windows', '-r requirements.txt -r tests/requirements.txt', 'python -m pytest'):
        assert part in workflow
    assert '-r requirements.txt -r tests/requirements.txt' in readme and 'python -m pytest' in readme


def test_the_text_is_the_same_in_a_clone_on_windows():
    assert '* text=auto eol=lf' in (ROOT / '.gitattributes').read_text()


def test_the_test_requirements_are_pinned():
    assert all(re.fullmatch(r'[\w-]+==[\d.]+', line) for line in (ROOT / 'tests/requirements.txt').read_text().split())
