"""What must agree: the requirements, the promise of versions, and the forge's own tests."""
import re
import runpy
import sys
import tomllib

from conftest import ROOT

PROJECT = tomllib.loads((ROOT / 'pyproject.toml').read_text(encoding='utf-8'))['project']
README = (ROOT / 'README.md').read_text(encoding='utf-8')
WORKFLOW = (ROOT / '.github/workflows/tests.yml').read_text(encoding='utf-8')


def test_pip_and_uv_take_the_same_packages():
    assert sorted(PROJECT['dependencies']) == sorted((ROOT / 'requirements.txt').read_text().split())


def test_the_versions_that_the_readme_promises_are_those_that_the_forge_tests():
    oldest, newest = re.search(r'Python\s+(3\.\d+) to (3\.\d+)', README).groups()
    assert (oldest, newest) == ('3.11', '3.14') and re.findall(r"'(3\.\d+)'", WORKFLOW) == [oldest, newest]
    assert PROJECT['requires-python'] == f'>={oldest}'


def test_the_forge_runs_the_command_of_the_readme_on_three_systems():
    for part in ('ubuntu', 'macos', 'windows', '-r requirements.txt -r tests/requirements.txt', 'python -m pytest'):
        assert part in WORKFLOW
    assert '-r requirements.txt -r tests/requirements.txt' in README and 'python -m pytest' in README


def test_an_import_prints_nothing_and_needs_nothing_that_windows_lacks(monkeypatch, capsys):
    for name in ('resource', 'fcntl', 'pwd', 'grp', 'termios'):
        monkeypatch.setitem(sys.modules, name, None)
    for script in ('bigram.py', 'prepare.py', 'bigramv2.py'):
        runpy.run_path(str(ROOT / script))
    assert capsys.readouterr() == ('', '')
