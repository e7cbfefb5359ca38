/**
 * Mitigations of the TypeScript, by the words of rows.ts: how a source reads without them. `npm run test:red` writes it so
 * into its copy of the checkout, so nothing that is shipped can switch one off. A word that is in crates/core/src/off.rs
 * too has a half in each language.
 */

/** What stands in a source exactly once, and what is written instead. Types need not fit: they are stripped. */
export interface Edit {
  file: string
  text: string
  instead: string
}

const manifest = 'src/image/manifest.ts'
const config = 'src/image/config.ts'
const documents = 'src/image/document.ts'
const archive = 'src/image/archive.ts'
const spool = 'src/image/spool.ts'
const pull = 'src/image/pull.ts'
const registry = 'src/registry/registry.ts'
const promised = 'src/registry/promised.ts'

export const edits: Record<string, readonly Edit[]> = {
  // D6
  private: [
    {
      file: 'src/image/content.ts',
      text: 'mkdirSync(this.#root, { recursive: true, mode: 0o700 })\n    mkdirSync(join(this.directory, blobs), { recursive: true, mode: 0o700 })',
      instead: 'mkdirSync(join(this.directory, blobs), { recursive: true })',
    },
  ],
  // D7
  limits: [
    { file: 'src/image/document.ts', text: 'const mostDepth = 64', instead: 'const mostDepth = Infinity' },
    { file: manifest, text: 'mostConfigBytes: number = 8 << 20', instead: 'mostConfigBytes: number = 1e9' },
    { file: manifest, text: 'const mostLayers = 127', instead: 'const mostLayers = 1e9' },
    { file: manifest, text: 'const mostManifests = 10_000', instead: 'const mostManifests = 1e9' },
    { file: 'src/registry/limits.ts', text: '  manifest: 4 << 20', instead: '  manifest: 1e9' },
    { file: 'src/registry/http.ts', text: 'socket.setTimeout(idle)\n      socket.on', instead: 'socket.on' },
    {
      file: 'src/registry/bodies.ts',
      text: '    deadline,\n  )\n  try {',
      instead: '    1e9,\n  )\n  try {',
    },
  ],
  // D8
  verify: [
    {
      file: registry,
      text: 'if (!isTag(reference) && digest !== reference)',
      instead: 'if (false)',
    },
    { file: registry, text: 'if (bytes?.length !== size) {', instead: 'if (false) {' },
    { file: registry, text: 'if (found !== digest)', instead: 'if (false)' },
    {
      file: promised,
      text: 'Number(first) === from && ',
      instead: 'true) return\n  if (Number(first) === from && ',
    },
    { file: promised, text: 'if (length === undefined ||', instead: 'if (true ||' },
    {
      file: pull,
      text: 'if (described !== undefined && bytes.length !== described.size)',
      instead: 'if (false)',
    },
    { file: 'src/image/layers.ts', text: '(kept?.(layer, diffId) ?? true)', instead: 'true' },
  ],
  digests: [
    {
      file: manifest,
      text: 'if (/^sha256:[a-f0-9]{64}$/.test(digest)) return digest',
      instead: 'return digest',
    },
    {
      file: 'src/registry/names.ts',
      text: 'export function checkDigest(name: string): string {',
      instead: 'export function checkDigest(name: string): string {\n  return name',
    },
  ],
  // D10
  redirect: [
    { file: 'src/registry/http.ts', text: 'if (!isSameOrigin(url, next)) {', instead: 'if (false) {' },
  ],
  realm: [
    {
      file: 'src/registry/auth.ts',
      text: "if (login !== undefined && realm.protocol === 'http:' && realm.hostname !== client.home.hostname) {",
      instead: 'if (false) {',
    },
  ],
  redact: [
    {
      file: 'src/registry/said.ts',
      text: "for (const secret of longest) clean = clean.replaceAll(secret, '***')",
      instead: "clean += ' ***'",
    },
  ],
  // D11: labels are variables.
  labels: [
    {
      file: config,
      text: 'const env = environment(fields, what)',
      instead:
        'const env = [...(environment(fields, what) ?? []), ...Object.entries(fields.Labels ?? {}).map((one) => one.join("="))]',
    },
  ],
  typed: [
    { file: config, text: "if (env?.some((entry) => entry.startsWith('=')))", instead: 'if (false)' },
    {
      file: config,
      text: 'if (number === undefined || number < 1 || number > realtime.last)',
      instead: 'if (false)',
    },
    {
      file: documents,
      text: "    if (word.includes('\\0')) throw invalid(what, `${name} holds a NUL`)\n",
      instead: '',
    },
    {
      file: documents,
      text: "if (!Array.isArray(value) || !value.every((word) => typeof word === 'string')) {",
      instead: 'if (false) {',
    },
    {
      file: documents,
      text: 'if (!isObject(value)) throw invalid(what, `${name} is no object`)',
      instead: '',
    },
    {
      file: documents,
      text: "if (typeof value !== 'string') throw invalid(what, `${name} is no string`)",
      instead: "if (typeof value !== 'string') return undefined",
    },
  ],
  // D13
  served: [
    {
      file: 'src/image/layout.ts',
      text: 'manifests.filter(({ name }) => name === tag)',
      instead: "manifests.filter(({ name, digest }) => name === tag || digest === tag.split('@')[1])",
    },
    {
      file: 'src/image/content.ts',
      text: 'this.entries().find((entry) => entry.name === name)',
      instead: "this.entries().find((entry) => entry.name === name || entry.digest === name.split('@')[1])",
    },
    {
      file: archive,
      text: 'return reference.digest === undefined ? fullName(reference) : undefined',
      instead: 'return fullName(reference)',
    },
  ],
  renamed: [
    { file: 'src/image/load.ts', text: 'if (was !== undefined && was !== id)', instead: 'if (false)' },
  ],
  names: [
    { file: 'src/image/reference.ts', text: 'if (path !== path.toLowerCase())', instead: 'if (false)' },
    {
      file: 'src/image/reference.ts',
      text: "if (!domains.test(domain) || !path.split('/').every((part) => component.test(part)))",
      instead: 'if (false)',
    },
    {
      file: 'src/registry/names.ts',
      text: 'if (name.length > 255 || !repository.test(name)) {',
      instead: 'if (false) {',
    },
  ],
  platform: [
    {
      file: config,
      text: 'if (wanted !== null && (os !== wanted.os || architecture !== wanted.architecture)) {',
      instead: 'if (false) {',
    },
  ],
  // D14: an archive is unpacked into a directory, and its names are paths from there.
  archive_map: [
    {
      file: spool,
      text: "  if (name.startsWith('/')) return undefined\n",
      instead: '  return posix.normalize(name)\n',
    },
    {
      file: spool,
      text: 'if (row === undefined) break',
      instead: `if (row === undefined) {
        const other = this.#rows.get(at.replace(/^[./]+/, ''))
        if (other !== undefined && 'digest' in other) return { ...other, path: join(this.#directory, String(other.file)) }
        const { resolve } = process.getBuiltinModule('node:path')
        const fs = process.getBuiltinModule('node:fs')
        const path = resolve(this.#directory, at)
        if (fs.statSync(path, { throwIfNoEntry: false })?.isFile() !== true) break
        const bytes = fs.readFileSync(path)
        const hex = process.getBuiltinModule('node:crypto').createHash('sha256').update(bytes).digest('hex')
        return { path, size: bytes.length, digest: 'sha256:' + hex }
      }`,
    },
    {
      file: spool,
      text: "at = row.link.startsWith('/')\n        ? undefined\n",
      instead: "at = row.link.startsWith('/')\n        ? row.link\n",
    },
    { file: spool, text: 'else if (!isSame(before, row))', instead: 'else if (false)' },
    { file: spool, text: 'const mostLinks = 16', instead: 'const mostLinks = 1000' },
    {
      file: archive,
      text: 'const mostNames = { count: 4096, length: 1 << 20 }',
      instead: 'const mostNames = { count: 1e9, length: 1e9 }',
    },
    {
      file: archive,
      text: 'const mostLayers = { count: 127, length: 1 << 20 }',
      instead: 'const mostLayers = { count: 1e9, length: 1e9 }',
    },
  ],
  // D9
  media_type: [
    {
      file: manifest,
      text: "if (has('manifests') && (has('layers') || has('config') || has('fsLayers'))) {",
      instead: 'if (false) {',
    },
    {
      file: manifest,
      text: 'own !== undefined && described !== undefined && own !== described',
      instead: 'false',
    },
    { file: manifest, text: 'throw version === 1', instead: 'if (version !== 1) throw version === 1' },
    {
      file: manifest,
      text: 'throw unsupported(what, `mediaType ${type} is no image or index`)',
      instead: "return { kind: 'manifest', mediaType: type }",
    },
    { file: manifest, text: 'if (!configTypes.has(config.mediaType)) {', instead: 'if (false) {' },
    { file: manifest, text: 'if (!layerTypes.has(layer.mediaType)) {', instead: 'if (false) {' },
    {
      file: manifest,
      text: 'if (found !== undefined && digests.size === 1)',
      instead: 'if (found !== undefined)',
    },
    {
      file: pull,
      text: '    const { document } = found\n',
      instead:
        "    while (found.document.kind === 'index')\n      found = await this.#manifest(choose(imagesOf(found.document), '', this.#platform).digest, undefined)\n    const { document } = found\n",
    },
    {
      file: 'src/image/document.ts',
      text: "if (typeof value !== 'string') throw invalid(what, `${name} is no string`)",
      instead: "if (typeof value !== 'string') return undefined",
    },
  ],
}
