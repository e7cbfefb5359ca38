/** Trees on the disk, as lines that can be compared. */
import { execFileSync } from 'node:child_process'

const script = `
import os, stat, sys, hashlib
root = sys.argv[1]
inodes = {}
for at, dirs, files in os.walk(root):
    dirs.sort()
    for name in sorted(dirs + files):
        path = os.path.join(at, name)
        shown = os.path.relpath(path, root)
        s = os.lstat(path)
        what = ''
        if stat.S_ISREG(s.st_mode): what = hashlib.sha256(open(path, 'rb').read()).hexdigest()
        elif stat.S_ISLNK(s.st_mode): what = os.readlink(path)
        elif stat.S_ISCHR(s.st_mode): what = str(s.st_rdev)
        link = inodes.setdefault(s.st_ino, shown) if s.st_nlink > 1 and stat.S_ISREG(s.st_mode) else ''
        notes = {} if stat.S_ISLNK(s.st_mode) else {n: os.getxattr(path, n) for n in os.listxattr(path) if n == 'security.capability' or n.startswith('user.') and not n.startswith('user.overlay') and not n.startswith('user.rootlesscontainers')}
        print(shown, oct(s.st_mode), s.st_uid, s.st_gid, s.st_mtime_ns, what, link, sorted(notes.items()))
`

/** All that a tree says of its files but its root, a line each. */
export function listing(tree: string): string[] {
  return execFileSync('python3', ['-c', script, tree], { encoding: 'utf8' }).trim().split('\n')
}
