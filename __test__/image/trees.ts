/** Trees of files for comparisons: what changes one from layer to layer, and all that is in one, a line an entry. */
import { execFileSync } from 'node:child_process'

/** Debian's own, which other users than root may run, too. */
const python = '/usr/bin/python3'

/** Where a container has mounts of its own. */
const mounted = ['dev', 'proc', 'sys', 'etc/hosts', 'etc/hostname', 'etc/resolv.conf']

const listing = `
import os, stat, sys, hashlib
root, skipped = sys.argv[1], sys.argv[2].split()
inodes, lines = {}, []
for at, dirs, files in os.walk(root):
    shown = lambda name: os.path.relpath(os.path.join(at, name), root)
    dirs[:] = sorted(name for name in dirs if shown(name) not in skipped)
    for name in sorted(dirs + files):
        path = os.path.join(at, name)
        if shown(name) in skipped: continue
        s = os.lstat(path)
        what = ''
        if stat.S_ISREG(s.st_mode): what = hashlib.sha256(open(path, 'rb').read()).hexdigest()
        elif stat.S_ISLNK(s.st_mode): what = os.readlink(path)
        elif stat.S_ISCHR(s.st_mode) or stat.S_ISBLK(s.st_mode): what = '%d:%d' % (os.major(s.st_rdev), os.minor(s.st_rdev))
        # Those that are seen: overlayfs counts names of a lower layer that a layer above hides, too.
        names = inodes.setdefault(s.st_ino, [])
        names.append(shown(name))
        notes = ''.join('%s=%s;' % (n, os.getxattr(path, n, follow_symlinks=False).hex()) for n in sorted(os.listxattr(path, follow_symlinks=False)))
        lines.append((ascii(shown(name)), oct(s.st_mode), '%d:%d' % (s.st_uid, s.st_gid), s.st_mtime_ns, what, names, notes))
for *said, names, notes in lines:
    print(*said, '%d of %s' % (len(names), ascii(names[0])) if len(names) > 1 else '', notes, sep='|')
`

/**
 * All that a tree says of its files, but for places where containers have mounts: name, type and mode, owner, time,
 * content, how many names it has and the first of them, attributes. `enter` are words before the command, of who may read it all.
 */
export function list(tree: string, enter: readonly string[] = []): string[] {
  const [command, ...words] = [...enter, python, '-c', listing, tree, mounted.join(' ')]
  return execFileSync(command, words, { encoding: 'utf8', maxBuffer: 1 << 26 })
    .trim()
    .split('\n')
}

const steps = `
import os, shutil, struct, sys
root, step = sys.argv[1], int(sys.argv[2])
os.umask(0)
p = lambda *names: os.path.join(root, *names)
def own(path, uid, gid, mode=None):
    os.lchown(path, uid, gid)
    if mode is not None: os.chmod(path, mode)
def write(name, content, uid=0, gid=0, mode=0o644, when=None):
    path = p(name)
    with open(path, 'wb') as f: f.write(content if isinstance(content, bytes) else content.encode())
    own(path, uid, gid, mode)
    if when is not None: os.utime(path, ns=(when, when))
def directory(name, uid=0, gid=0, mode=0o755):
    os.mkdir(p(name))
    own(p(name), uid, gid, mode)
def gone(name):
    path = p(name)
    if os.path.isdir(path) and not os.path.islink(path): shutil.rmtree(path)
    else: os.remove(path)

def first():
    for name in ('bin', 'etc', 'dev', 'proc', 'sys', 'tmp', 'usr'): directory(name, mode=0o1777 if name == 'tmp' else 0o755)
    shutil.copy('/bin/busybox', p('bin/busybox'))
    os.chmod(p('bin/busybox'), 0o755)
    for name in ('sh', 'sleep', 'true', 'cat', 'mkdir', 'rm', 'mv', 'ln', 'chown', 'chmod', 'touch', 'echo'): os.symlink('busybox', p('bin', name))
    write('etc/passwd', 'root:x:0:0::/:/bin/sh\\n')
    for name in ('hosts', 'hostname', 'resolv.conf'): write('etc/' + name, '')
    directory('owned', 5, 6, 0o1777)
    write('owned/file', 'of somebody', 7, 8, 0o640)
    write('owned/setuid', 's', 1, 2, 0o6755)
    write('owned/nobody', 'n', 65534, 65534, 0o000)
    directory('owned/setgid', 1, 2, 0o2750)
    os.symlink('/nowhere', p('owned/dangling')); own(p('owned/dangling'), 9, 9)
    os.mkfifo(p('owned/fifo'), 0o620); own(p('owned/fifo'), 3, 4, 0o620)
    write('owned/capable', 'c', 0, 0, 0o755)
    os.setxattr(p('owned/capable'), 'security.capability', struct.pack('<IIIII', 0x02000001, 1 << 10, 0, 0, 0))
    write('owned/noted', 'n')
    os.setxattr(p('owned/noted'), 'user.note', b'a\\0note')
    write('old', 'old', when=1)
    write('nanoseconds', 'x', when=1234567890123456789)
    write('early', 'x', when=-86400 * 10**9)
    write('one', 'linked', 11, 12); os.link(p('one'), p('two')); os.link(p('one'), p('owned/three'))
    write('n' * 200, 'a long name')
    deep = '/'.join(['d' * 100] * 3)
    os.makedirs(p(deep)); write(deep + '/file', 'deep')
    write('\\u00e4\\u4e2d and a blank', 'x')
    write('empty', '')
    with open(p('sparse'), 'wb') as f: f.seek(3 << 20); f.write(b'end')
    write('large', os.urandom(1) * 700000)
    for name in ('whole', 'opaque', 'becomes-file', 'becomes-link'):
        directory(name, mode=0o711); directory(name + '/deep'); write(name + '/deep/x', 'x'); write(name + '/y', 'y')
    for name in ('becomes-directory', 'removed', 'chowned', 'appended'): write(name, name)

def second():
    gone('removed'); gone('whole')
    # A directory in the place of one: opaque, or a whiteout for each.
    gone('opaque'); directory('opaque', 4, 4, 0o700); write('opaque/shown', 'y')
    gone('becomes-file'); write('becomes-file', 'file', 2, 2)
    gone('becomes-link'); os.symlink('opaque', p('becomes-link'))
    gone('becomes-directory'); directory('becomes-directory', mode=0o711); write('becomes-directory/in', 'in')
    own(p('chowned'), 21, 22, 0o4711)
    with open(p('appended'), 'ab') as f: f.write(b' and more')
    os.rename(p('owned/file'), p('owned/renamed'))
    write('pair', 'pair'); os.link(p('pair'), p('opaque/pair'))
    os.remove(p('owned/three')); write('owned/three', 'apart')
    os.removexattr(p('owned/noted'), 'user.note'); os.setxattr(p('owned/noted'), 'user.other', b'o')

def third():
    directory('whole', mode=0o750); write('whole/again', 'again')
    gone('becomes-file'); directory('becomes-file'); write('becomes-file/in', 'in')
    gone('becomes-link'); directory('becomes-link', 6, 6)
    gone('becomes-directory'); os.symlink('whole', p('becomes-directory'))
    write('removed', 'is back')
    os.chmod(p('owned/setgid'), 0o2770)

def later(n):
    directory('layer-%d' % n, n, n + 1)
    for name in ('a', 'b', 'c'): write('layer-%d/%s' % (n, name), '%s of %d' % (name, n), n, n)
    before = 'layer-%d' % (n - 1)
    if os.path.isdir(p(before)):
        gone(before + '/a')
        if n % 3 == 0: gone(before); directory(before, mode=0o700); write(before + '/anew', 'anew')
        if n % 5 == 0: gone(before)
        if n % 7 == 0: gone(before) if os.path.lexists(p(before)) else None; write(before, 'a file')
    elif os.path.lexists(p(before)): gone(before); directory(before)
    write('counter', str(n), n, n)
    if n % 4 == 0: gone('opaque'); directory('opaque'); write('opaque/of-%d' % n, 'o')

[first, second, third][step]() if step < 3 else later(step)
`

/**
 * Makes or changes the tree of an image. Step 0 makes busybox and files of every kind; 1 and 2 remove, replace and link
 * across; those after them go on so, each for another layer.
 */
export function change(tree: string, step: number): void {
  execFileSync(python, ['-c', steps, tree, String(step)], { stdio: 'pipe' })
}
