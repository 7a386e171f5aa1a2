#!/usr/bin/env bash
# Installs what the page's tests open it with, where that can be done. They skip, and say so, where it is absent.
set -u
command -v chromium >/dev/null && exit 0
if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null && exit 0
fi
echo "chromium cannot be installed here: the tests of the report's page will be skipped"
