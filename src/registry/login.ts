/** Whose rights are used at a registry. */
export type Login =
  | { kind: 'password'; username: string; password: string }
  /** A refresh token: it buys tokens at the registry's token service, and is shown to nobody else. */
  | { kind: 'identity'; token: string; username?: string | undefined }
  /** A token that the registry itself takes. */
  | { kind: 'registry'; token: string }
