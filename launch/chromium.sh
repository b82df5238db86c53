#!/usr/bin/env bash
# Chromium for make test-page: used where it is, installed where apt-get can, else one line says what is missing.
set -euo pipefail
for name in chromium chromium-browser google-chrome google-chrome-stable; do
  if command -v "$name" >/dev/null; then exit 0; fi
done
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "Installing chromium (apt-get)" >&2
  apt-get update -qq >&2 || true
  if DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >&2; then
    exit 0
  fi
fi
echo "make test-page needs Chromium: apt-get install chromium fonts-dejavu-core (as root), or google-chrome on PATH" >&2
exit 2
