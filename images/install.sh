#!/bin/sh
# Makes every command that starts a scheduler or a worker start ours, in an image whose first python3 has dask.
# /usr/local/oxidask/bin must come before that Python's own folder in PATH.
set -e
ours=/usr/local/oxidask
mkdir -p "$ours/bin"
ln -s /usr/local/bin/dask-scheduler /usr/local/bin/dask-worker "$ours/bin/"
mv "$ours/dask" "$ours/bin/dask"
packages=$(python3 -c 'import distributed.cli; print(distributed.cli.__path__[0])')
for command in dask_scheduler dask_worker; do
  cp "$ours/cli.py" "$packages/$command.py"
done
rm "$ours/cli.py" "$ours/install.sh"
