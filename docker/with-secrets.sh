#!/bin/sh
# Runs a command with the settings that `stack.compose_secrets` and `stack.compose_init` wrote to /secrets.
set -eu
set -a
for file in /secrets/osprey.env /secrets/store.env /secrets/token.env; do
    if [ -f "$file" ]; then . "$file"; fi
done
set +a
exec "$@"
