/** Images of many platforms for tests: an index with this machine's platform, two others, and an attestation. */
import { readFileSync } from 'node:fs'
import { hostArchitecture } from '../../src/image/manifest.ts'
import type { FakeRegistry } from '../registry/server.ts'
import * as layouts from './layouts.ts'
import { upload } from './published.ts'

/** One entry of an index, as it stands there. */
export interface Listed extends layouts.Written {
  platform: { os: string; architecture: string; variant?: string }
  annotations?: Record<string, string>
}

/** What was written of an image of many platforms. */
export interface Many {
  index: layouts.Written
  manifests: Listed[]
  /** By processor; the attestation has none. */
  images: Record<string, layouts.WrittenImage>
  attestation: layouts.WrittenImage
}

export const own: string = hostArchitecture()
/** Processors that no machine here has. */
export const others = ['s390x', 'ppc64le'] as const

/** This machine's is not the first. */
export const every: readonly string[] = [others[0], own, others[1]]

const base = layouts.busybox()

/** An image that runs here whatever it says, and tells for what it is. */
export function imageFor(directory: string, architecture: string, more: Buffer[] = []): layouts.WrittenImage {
  return layouts.image(directory, {
    layers: [base, layouts.tar([{ name: 'platform', content: architecture }]), ...more],
    document: { architecture },
    compress: true,
  })
}

function attestationOf(directory: string): layouts.WrittenImage {
  const statement = layouts.blob(
    directory,
    '{"_type":"https://in-toto.io/Statement/v0.1"}',
    'application/vnd.in-toto+json',
  )
  const config = layouts.blob(
    directory,
    '{"architecture":"unknown","os":"unknown","rootfs":{"type":"layers","diff_ids":[]}}',
    layouts.types.config,
  )
  const document = { schemaVersion: 2, mediaType: layouts.types.manifest, config, layers: [statement] }
  const manifest = layouts.blob(directory, JSON.stringify(document), layouts.types.manifest)
  return { manifest, config, layers: [statement] }
}

/** Writes an index of these entries. */
export function indexOf(directory: string, manifests: readonly object[]): layouts.Written {
  // Its own blanks: a copy that was parsed and written again has another digest.
  const text = JSON.stringify({ schemaVersion: 2, mediaType: layouts.types.index, manifests }, null, 3)
  return layouts.blob(directory, text, layouts.types.index)
}

/** Writes an image of many platforms into a layout, as `tag`. */
export function many(
  directory: string,
  tag: string,
  architectures: readonly string[] = every,
  more: Buffer[] = [],
): Many {
  const images = Object.fromEntries(architectures.map((one) => [one, imageFor(directory, one, more)]))
  const attestation = attestationOf(directory)
  const manifests: Listed[] = [
    ...Object.entries(images).map(([architecture, { manifest }]) => ({
      ...manifest,
      platform: { os: 'linux', architecture },
    })),
    {
      ...attestation.manifest,
      platform: { os: 'unknown', architecture: 'unknown' },
      annotations: { 'vnd.docker.reference.type': 'attestation-manifest' },
    },
  ]
  const index = indexOf(directory, manifests)
  layouts.index(directory, { [tag]: index })
  return { index, manifests, images, attestation }
}

/** Puts what a layout has into a registry, as `name:tag`: the index and all that it lists. */
export function publishMany(
  registry: FakeRegistry,
  directory: string,
  { index, manifests }: Many,
  name = 'app',
  tag = 'latest',
): void {
  upload(registry, directory)
  const put = ({ digest, mediaType }: layouts.Written, as: string): void =>
    void registry.manifest(name, as, readFileSync(layouts.path(directory, digest), 'utf8'), mediaType)
  for (const one of manifests) put(one, one.digest)
  put(index, tag)
}

/** The digests of all that an image of many platforms consists of. */
export function blobsOf({ index, images, attestation }: Many): string[] {
  const all = [...Object.values(images), attestation].flatMap(({ manifest, config, layers }) => [
    manifest,
    config,
    ...layers,
  ])
  return [...new Set([index, ...all].map(({ digest }) => digest.slice('sha256:'.length)))].toSorted()
}
