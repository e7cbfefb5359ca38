/*
 * What busybox cannot try, as a static program inside and outside of containers:
 *   probe with-key NAME COMMAND...  in a session keyring of its own that holds a key NAME
 *   probe find-key NAME             whether the session keyring has it
 *   probe push                      TIOCSTI, TIOCSCTTY and TIOCLINUX on stdin, stdout, stderr and /dev/tty
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { JOIN = 1, SEARCH = 10, SESSION = -3 };

static int push(const char *name, int fd) {
  char letter = '!', paste = 3;
  const char *sti = ioctl(fd, TIOCSTI, &letter) == 0 ? "PUSHED" : strerrorname_np(errno);
  const char *take = ioctl(fd, TIOCSCTTY, 1) == 0 ? "TAKEN" : strerrorname_np(errno);
  const char *linux_ = ioctl(fd, TIOCLINUX, &paste) == 0 ? "PASTED" : strerrorname_np(errno);
  printf("%s %s %s %s\n", name, sti, take, linux_);
  return 0;
}

int main(int argc, char **argv) {
  if (argc > 3 && !strcmp(argv[1], "with-key")) {
    if (syscall(SYS_keyctl, JOIN, NULL) < 0) return perror("join"), 1;
    if (syscall(SYS_add_key, "user", argv[2], "secret", 6, SESSION) < 0) return perror("add_key"), 1;
    execvp(argv[3], argv + 3);
    return perror(argv[3]), 1;
  }
  if (argc == 3 && !strcmp(argv[1], "find-key")) {
    long key = syscall(SYS_keyctl, SEARCH, SESSION, "user", argv[2], 0);
    puts(key >= 0 ? "FOUND" : strerrorname_np(errno));
    return 0;
  }
  if (argc == 2 && !strcmp(argv[1], "push")) {
    push("stdin", 0);
    push("stdout", 1);
    push("stderr", 2);
    int tty = open("/dev/tty", O_RDWR);
    if (tty < 0) printf("tty %s\n", strerrorname_np(errno));
    else push("tty", tty);
    return 0;
  }
  return 2;
}
