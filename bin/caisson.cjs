#!/usr/bin/env -S node --
// `--`: Node itself takes --env-file, wherever it stands, for its own.
if (Number.parseInt(process.versions.node, 10) < 22) {
  process.stderr.write(`caisson: needs Node 22 or later, and this is ${process.version}\n`)
  process.exit(125)
}
require('../dist/cli.cjs')
