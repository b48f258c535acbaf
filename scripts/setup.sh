#!/bin/sh
# Makes .venv and installs into it what the requirement files have locked, for the Makefile:
#
#   setup.sh check    exit code 1 where .venv stands in the way: half-made, moved, or its Python is gone
#   setup.sh venv     only the virtual environment
#   setup.sh run      what the gateway needs
#   setup.sh dev      what tests and linters need as well
#
# PYTHON names the interpreter; without it the first good one on PATH is taken. Everything is said on standard error,
# because standard output belongs to the gateway. What failed leaves nothing behind that spoils the next attempt.
set -eu
cd "$(dirname "$0")/.."

mark=.venv/.unfinished # the process that is at work in .venv; if that no longer runs, it was killed in the middle
is_new=false

say() {
	printf '%s\n' "$@" >&2
}

version_of() {
	"$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null
}

# Which Python: the first that the tests run on (3.11 to 3.13), else the first that is newer.
find_python() {
	if [ -n "${PYTHON:-}" ]; then set -- "$PYTHON"; else set -- python3 python3.13 python3.12 python3.11 python; fi
	newer='' seen=''
	for candidate in "$@"; do
		version=$(version_of "$candidate") || continue
		seen="$seen $candidate is $version,"
		case $version in
		3.1[1-3]) python=$candidate && return ;;
		3.1[4-9] | 3.[2-9][0-9]) newer=${newer:-$candidate} ;;
		esac
	done
	if [ -n "$newer" ]; then
		python=$newer version=$(version_of "$newer")
		return
	fi
	seen=${seen:- none${PYTHON:+ by the name of $PYTHON}}
	say "Tollway needs Python 3.11 or newer; found:${seen%,}." \
		"Install one (Debian, Ubuntu: apt install python3.12 python3.12-venv; macOS: brew install python@3.12)," \
		"or say where it is: make PYTHON=/path/to/python3.12 …"
	exit 2
}

make_venv() {
	find_python
	say "Making .venv with Python $version ($python) …"
	mkdir .venv
	is_new=true
	echo $$ >$mark
	"$python" -m venv .venv >&2 && return
	if "$python" -c 'import ensurepip, venv' 2>/dev/null; then
		say "" "No virtual environment could be made; the reason stands above."
	else
		say "" "This Python cannot make virtual environments. Debian and Ubuntu have that in a package of its own:" \
			"    apt install python$version-venv" \
			"Then call make again, or name another Python: make PYTHON=/path/to/python3.12 …"
	fi
	exit 2
}

pip_install() {
	.venv/bin/python -m pip install --disable-pip-version-check "$@" >&2 && return
	$is_new || rm $mark # pip itself takes back what it has begun; offline, the old packages are better than none
	say "" "The installation did not finish; the reason stands above." \
		"No network? Behind a proxy set HTTPS_PROXY, and PIP_INDEX_URL for a package index of your own." \
		"No matching distribution? There are packages for Python 3.11 to 3.13 on Linux with glibc and on macOS;" \
		"make PYTHON=/path/to/python3.12 … names another Python." \
		"Then call make again."
	exit 2
}

is_busy() {
	[ -s $mark ] && kill -0 "$(cat $mark)" 2>/dev/null
}

is_broken() {
	[ -e .venv ] && ! is_busy || return 1
	[ ! -e $mark ] || return 0
	.venv/bin/python -c '' 2>/dev/null || return 0
	# Scripts know the way to their Python, and Python the way to the source.
	[ -s .venv/.installed ] && [ "$(cat .venv/.installed)" != "$(pwd -P)" ]
}

prepare_venv() {
	if is_busy; then
		say "Another set-up is at work here (process $(cat $mark)); waiting for its end …"
		while is_busy; do sleep 1; done
	fi
	if is_broken || { [ -e .venv ] && ! .venv/bin/python -m pip --version >/dev/null 2>&1; }; then
		say "The .venv that is there is half-made, or was moved: it is made anew."
		rm -rf .venv
	fi
	[ -e .venv ] || make_venv
	echo $$ >$mark
}

install_from() {
	say "Installing $(grep -c '==' "$1") packages from $1, about a minute for the first time …"
	pip_install --require-hashes -r "$1"
}

# Whatever ended us: a virtual environment that this attempt began does not stay.
trap 'code=$?; if [ $code -ne 0 ] && $is_new; then rm -rf .venv; fi; exit $code' EXIT
trap 'exit 130' HUP INT TERM

case $1 in
check)
	if is_broken; then exit 1; fi
	;;
venv)
	prepare_venv
	rm $mark
	;;
run)
	prepare_venv
	install_from requirements.txt
	pip_install --quiet --no-deps --no-build-isolation --editable .
	pwd -P >.venv/.installed
	rm $mark
	say "All is installed."
	;;
dev)
	prepare_venv
	install_from requirements-dev.txt
	touch .venv/.installed-dev
	rm $mark
	say "All is installed."
	;;
esac
