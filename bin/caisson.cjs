#!/usr/bin/env -S node --
// `--`: Node itself takes --env-file, wherever it stands, for its own.
require('../dist/cli.cjs')
