/*
 * Preloaded into UML's kernel, which is a program that traces its processes. Its 6.1 knows floating point state of
 * 2696 bytes at most, and the machine's kernel takes a PTRACE_SETREGSET of NT_X86_XSTATE only at full size (x86,
 * xstateregs_set: else EFAULT). On processors with AMX that is 11008 bytes, and UML panics at its first process:
 * "ptrace set fp regs failed, errno = 14". So it is sent at full size.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/uio.h>

typedef long (*tracer)(int request, ...);

long ptrace(enum __ptrace_request request, ...) {
  static tracer next;
  if (next == NULL) next = (tracer)dlsym(RTLD_NEXT, "ptrace");

  va_list words;
  va_start(words, request);
  pid_t pid = va_arg(words, pid_t);
  void *address = va_arg(words, void *);
  void *data = va_arg(words, void *);
  va_end(words);

  if (request != PTRACE_SETREGSET || (long)address != NT_X86_XSTATE) return next(request, pid, address, data);

  /* What UML does not know stays zero: its processes cannot ask for AMX. */
  static char whole[1 << 16];
  static struct iovec full = {whole, 0};
  struct iovec given = *(struct iovec *)data;
  if (full.iov_len == 0) {
    full.iov_len = sizeof whole;
    if (next(PTRACE_GETREGSET, pid, address, &full) != 0) return -1;
    memset(whole, 0, sizeof whole);
  }
  if (given.iov_len >= full.iov_len) return next(request, pid, address, data);
  memcpy(whole, given.iov_base, given.iov_len);
  struct iovec sent = full;
  return next(request, pid, address, &sent);
}
