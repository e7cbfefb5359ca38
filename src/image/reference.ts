/** What a person calls an image: `oci:DIR[:TAG]`, an OCI image layout of this machine. */
import { resolve } from 'node:path'
import { CaissonError } from '../errors.ts'

/** An image in a layout. */
export interface LayoutReference {
  /** The layout's directory, absolute. */
  directory: string
  /** The tag; none: the layout's one image. */
  tag: string | undefined
}

const scheme = 'oci:'

/** ASCII alone, so that no look-alike names another image (security.md D13): distribution's tags, and what umoci allows more. */
const tags = /^[A-Za-z0-9_][A-Za-z0-9_.+@-]{0,127}$/

function refuse(reference: string, message: string): CaissonError {
  return new CaissonError('ERR_INVALID_OPTION', `image: '${reference}' ${message}`, { subject: 'image' })
}

/**
 * Reads a reference. The tag is what stands behind the last colon after the last slash, so a directory may have colons
 * in its name if a slash follows: `oci:/images/a:b/`.
 *
 * @throws CaissonError ERR_INVALID_OPTION for a malformed one, ERR_IMAGE_NOT_FOUND for one that names no layout.
 */
export function parseReference(reference: string): LayoutReference {
  if (!reference.startsWith(scheme)) {
    throw new CaissonError(
      'ERR_IMAGE_NOT_FOUND',
      `${reference}: no such image; images come from an OCI image layout of this machine: oci:DIR[:TAG]`,
      { stage: 'resolve', subject: reference },
    )
  }
  const rest = reference.slice(scheme.length)
  const colon = rest.indexOf(':', rest.lastIndexOf('/') + 1) === -1 ? -1 : rest.lastIndexOf(':')
  const directory = colon === -1 ? rest : rest.slice(0, colon)
  const tag = colon === -1 ? undefined : rest.slice(colon + 1)
  if (directory === '') throw refuse(reference, 'names no directory: oci:DIR[:TAG]')
  if (directory.includes('\0')) throw refuse(reference, 'holds a NUL')
  if (tag !== undefined && !tags.test(tag)) throw refuse(reference, `has no valid tag: '${tag}'`)
  return { directory: resolve(directory), tag }
}
