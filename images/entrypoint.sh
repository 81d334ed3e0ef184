#!/bin/sh
# Starts what the pod's `args` name, after what users of the stock images expect of their entry point.
set -e
if [ -n "${EXTRA_PIP_PACKAGES:-}" ]; then
  echo "installing EXTRA_PIP_PACKAGES: $EXTRA_PIP_PACKAGES"
  # Word splitting is meant: the variable is a list.
  python -m pip install --disable-pip-version-check $EXTRA_PIP_PACKAGES
fi
exec "$@"
