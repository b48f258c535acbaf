"""``make run`` on machines that are not ready for it, with stand-ins for Python, pip and the gateway."""

import os
import shutil
import signal
import subprocess
import textwrap
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAKE = shutil.which("make")
pytestmark = pytest.mark.skipif(MAKE is None, reason="needs make")

# A Python as far as the set-up asks it. Files in $LAB say how it fails, and take down what it was asked.
PYTHON = """\
#!/bin/sh
echo "$0 $*" >> "$LAB/calls"
case "$*" in
*version_info*) cat "$LAB/version" ;;
"-c import ensurepip, venv") test ! -e "$LAB/no-venv" ;;
"-m venv .venv")
    echo "a venv in $PWD"
    mkdir -p .venv/bin
    cp "$0" .venv/bin/python
    test ! -e "$LAB/no-venv" || { echo "ensurepip is not available"; exit 1; }
    touch .venv/has-pip
    ;;
"-m pip --version") test -e .venv/has-pip ;;
"-m pip install"*)
    echo "Collecting everything"
    test ! -e "$LAB/no-network" || { echo "ERROR: No matching distribution found for alembic"; exit 1; }
    while test -e "$LAB/slow-network"; do sleep 0.02; done
    case "$*" in
    *--editable*) printf '#!/bin/sh\\necho ready\\n' > .venv/bin/tollway; chmod +x .venv/bin/tollway ;;
    esac
    ;;
esac
"""


class Checkout:
    """A fresh checkout on a machine with one Python, a stand-in."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "check out"
        self.path.mkdir()
        (self.path / "scripts").mkdir()
        for name in ("Makefile", "scripts/setup.sh", "requirements.txt", "requirements-dev.txt", "pyproject.toml"):
            shutil.copy(ROOT / name, self.path / name)
        self.lab = directory / "lab"
        self.tools = directory / "tools"
        for each in (self.lab, self.tools):
            each.mkdir()
        for tool in ("sh", "make", "cat", "mkdir", "rm", "touch", "cp", "grep", "dirname", "sleep", "chmod", "awk"):
            (self.tools / tool).symlink_to(shutil.which(tool) or pytest.skip(f"needs {tool}"))
        self.python("python3")
        self.version("3.12")

    def python(self, name: str) -> Path:
        path = self.tools / name
        path.write_text(PYTHON)
        path.chmod(0o755)
        return path

    def version(self, version: str) -> None:
        (self.lab / "version").write_text(version + "\n")

    def start(self, *words: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(MAKE), *words],
            cwd=self.path,
            env={"PATH": str(self.tools), "LAB": str(self.lab), **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def make(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*words, **environment)
        out, err = process.communicate(timeout=30)
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def calls(self, words: str) -> int:
        """How often Python was asked for this."""
        return (self.lab / "calls").read_text().count(words)


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def works(done: subprocess.CompletedProcess[str]) -> bool:
    """The gateway has started, and standard output is its alone."""
    return (done.returncode, done.stdout) == (0, "ready\n")


def test_a_fresh_checkout_runs_and_shows_what_goes_on(checkout: Checkout) -> None:
    done = checkout.make("run")
    assert works(done), done
    for words in ("Making .venv with Python 3.12", "packages from requirements.txt", "Collecting", "All is installed"):
        assert words in done.stderr
    again = checkout.make("run")
    assert works(again)
    assert again.stderr == "", "the second time there is nothing to be done"
    assert (checkout.calls("-m venv"), checkout.calls("-r requirements.txt")) == (1, 1)


def test_without_the_module_venv_the_package_is_named_and_nothing_sticks(checkout: Checkout) -> None:
    missing = checkout.lab / "no-venv"
    missing.touch()
    for _ in range(2):
        done = checkout.make("run")
        assert (done.returncode, done.stdout) == (2, "")
        assert "apt install python3.12-venv" in done.stderr
        assert not (checkout.path / ".venv").exists()
    missing.unlink()
    assert works(checkout.make("run"))


def test_without_a_network_it_says_what_to_do_and_nothing_sticks(checkout: Checkout) -> None:
    down = checkout.lab / "no-network"
    down.touch()
    done = checkout.make("run")
    assert (done.returncode, done.stdout) == (2, "")
    for words in ("No matching distribution found for alembic", "HTTPS_PROXY", "PIP_INDEX_URL", "call make again"):
        assert words in done.stderr
    assert not (checkout.path / ".venv").exists()
    down.unlink()
    assert works(checkout.make("run"))


@pytest.mark.parametrize("version", ["2.7", "3.8", "3.10"])
def test_an_old_python_is_named(checkout: Checkout, version: str) -> None:
    checkout.version(version)
    done = checkout.make("run")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"needs Python 3.11 or newer; found: python3 is {version}." in done.stderr
    assert "apt install python3.12 python3.12-venv" in done.stderr
    assert not (checkout.path / ".venv").exists()


def test_no_python_at_all(checkout: Checkout) -> None:
    (checkout.tools / "python3").unlink()
    done = checkout.make("run")
    assert (done.returncode, done.stdout) == (2, "")
    assert "found: none." in done.stderr
    named = checkout.make("run", PYTHON="/nowhere/python3.12")
    assert "found: none by the name of /nowhere/python3.12." in named.stderr


@pytest.mark.parametrize("version", ["3.11", "3.13", "3.14", "3.20"])
def test_every_newer_python_is_taken(checkout: Checkout, version: str) -> None:
    checkout.version(version)
    assert works(checkout.make("run"))


def test_a_python_that_the_tests_run_on_is_preferred_to_one_that_is_newer_still(checkout: Checkout) -> None:
    (checkout.lab / "version").unlink()
    for name, version in (("python3", "3.15"), ("python3.13", "3.13")):
        path = checkout.python(name)
        path.write_text(path.read_text().replace('cat "$LAB/version"', f"echo {version}"))
    done = checkout.make("run")
    assert works(done)
    assert "Making .venv with Python 3.13 (python3.13)" in done.stderr


def test_python_can_be_named(checkout: Checkout) -> None:
    other = checkout.python("my python")
    (checkout.tools / "python3").unlink()
    assert works(checkout.make("run", PYTHON=str(other)))
    assert checkout.calls(f"{other} -m venv") == 1
    shutil.rmtree(checkout.path / ".venv")
    assert works(checkout.make("run", f"PYTHON={other}"))


def installing(checkout: Checkout) -> subprocess.Popen[str]:
    (checkout.lab / "slow-network").touch()
    process = checkout.start("run")
    deadline = time.monotonic() + 30
    while not (checkout.lab / "calls").exists() or not checkout.calls("-r requirements.txt"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return process


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_an_installation_that_was_ended_in_the_middle_is_begun_anew(checkout: Checkout, number: signal.Signals) -> None:
    process = installing(checkout)
    os.killpg(process.pid, number)
    process.communicate()
    (checkout.lab / "slow-network").unlink()
    done = checkout.make("run")
    assert works(done)
    assert checkout.calls("-m venv") == 2
    assert works(checkout.make("run"))


def test_two_at_once_do_not_disturb_each_other(checkout: Checkout) -> None:
    first = installing(checkout)
    second = checkout.start("run")
    assert second.stderr is not None
    assert "Another set-up is at work here" in second.stderr.readline()
    (checkout.lab / "slow-network").unlink()
    for process in (first, second):
        out, _ = process.communicate(timeout=30)
        assert (process.returncode, out) == (0, "ready\n")
    assert checkout.calls("-m venv") == 1


def test_changed_requirements_are_installed_into_what_is_there(checkout: Checkout) -> None:
    assert works(checkout.make("run"))
    with (checkout.path / "requirements.txt").open("a") as file:
        file.write("# changed\n")
    future = time.time() + 60
    os.utime(checkout.path / "requirements.txt", (future, future))
    assert works(checkout.make("run"))
    assert (checkout.calls("-m venv"), checkout.calls("-r requirements.txt")) == (1, 2)


def test_changed_requirements_without_a_network_leave_what_is_there(checkout: Checkout) -> None:
    assert works(checkout.make("run"))
    future = time.time() + 60
    os.utime(checkout.path / "requirements.txt", (future, future))
    down = checkout.lab / "no-network"
    down.touch()
    for _ in range(2):
        done = checkout.make("run")
        assert (done.returncode, done.stdout) == (2, "")
        assert (checkout.path / ".venv" / "bin" / "tollway").exists()
    down.unlink()
    assert works(checkout.make("run"))
    assert checkout.calls("-m venv") == 1


def test_what_an_older_makefile_left_half_made_is_made_anew(checkout: Checkout) -> None:
    """A virtual environment without pip, as Debian leaves it, was taken for a good one."""
    (checkout.path / ".venv" / "bin").mkdir(parents=True)
    shutil.copy(checkout.tools / "python3", checkout.path / ".venv" / "bin" / "python")
    done = checkout.make("run")
    assert works(done)
    assert "half-made" in done.stderr


def test_a_python_that_is_gone_is_noticed(checkout: Checkout) -> None:
    """As after an upgrade of the system: the virtual environment leads nowhere."""
    assert works(checkout.make("run"))
    (checkout.path / ".venv" / "bin" / "python").unlink()
    assert works(checkout.make("run"))
    assert checkout.calls("-m venv") == 2


def test_a_checkout_that_was_moved_is_noticed(checkout: Checkout) -> None:
    assert works(checkout.make("run"))
    checkout.path = checkout.path.rename(checkout.path.with_name("moved"))
    assert works(checkout.make("run"))
    assert checkout.calls("-m venv") == 2


def test_the_way_by_a_link_is_the_same_checkout(checkout: Checkout) -> None:
    assert works(checkout.make("run"))
    link = checkout.path.with_name("link")
    link.symlink_to(checkout.path)
    checkout.path = link
    assert works(checkout.make("run"))
    assert checkout.calls("-m venv") == 1


def test_tests_need_more_and_get_it(checkout: Checkout) -> None:
    (checkout.path / "Makefile").write_text(
        (ROOT / "Makefile").read_text()
        + textwrap.dedent("""
            nothing: .venv/.installed-dev
        """)
    )
    assert checkout.make("nothing").returncode == 0
    assert (checkout.calls("-r requirements.txt"), checkout.calls("-r requirements-dev.txt")) == (1, 1)
    assert checkout.make("nothing").returncode == 0
    assert checkout.calls("-r requirements") == 2
