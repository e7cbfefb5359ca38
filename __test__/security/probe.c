/*
 * What busybox cannot try, as a static program inside and outside of containers:
 *   probe with-key NAME COMMAND...  in a session keyring of its own that holds a key NAME
 *   probe find-key NAME             whether the session keyring has it
 *   probe push                      TIOCSTI, TIOCSCTTY and TIOCLINUX on stdin, stdout, stderr and /dev/tty
 *   probe seize                     traces every process that comes, and never takes an end
 *   probe watch SECONDS             what can be seen of processes that are on their way to a command: a line each,
 *                                   `saw` and how many at the end
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <time.h>
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

/* What was seen of one process, until it is known that it was on its way all the time. */
static char notes[8192];
static size_t noted;

static void note(const char *form, const char *what, int length, const char *value) {
  size_t left = sizeof notes - noted;
  int more = snprintf(notes + noted, left, form, what, length, value);
  if (more > 0 && (size_t)more < left) noted += more;
}

/* An exec changes the program first and the name last: by then what was seen is the command's own. */
static int has_executed(int pid) {
  char path[64], target[512];
  snprintf(path, sizeof path, "/proc/%d/exe", pid);
  ssize_t length = readlink(path, target, sizeof target - 1);
  if (length < 0) return errno != EACCES && errno != EPERM;
  target[length] = 0;
  return !strstr(target, "memfd:");
}

/* Whether a process is called so, now. */
static int is_called(int pid, const char *name) {
  char path[64], comm[32] = "";
  snprintf(path, sizeof path, "/proc/%d/comm", pid);
  int fd = open(path, O_RDONLY);
  if (fd < 0) return 0;
  ssize_t length = read(fd, comm, sizeof comm - 1);
  close(fd);
  return length > 0 && !strncmp(comm, name, strlen(name));
}

static void look(int pid, const char *what, const char *name) {
  char path[64], target[512];
  snprintf(path, sizeof path, "/proc/%d/%s", pid, what);
  ssize_t length = readlink(path, target, sizeof target - 1);
  int fd = length < 0 ? open(path, what[0] == 'm' ? O_RDWR : O_RDONLY) : -1;
  ssize_t first = fd >= 0 ? pread(fd, target, 1, 0x400000) : -1;
  if (fd >= 0) close(fd);
  /* Still the same afterwards: what was seen was seen of it. */
  if ((length < 0 && fd < 0) || !is_called(pid, name)) return;
  if (length >= 0) note("%s -> %.*s\n", what, (int)length, target);
  else if (what[0] != 'm' || first == 1) note("%s %.*s\n", what, 6, "opened");
}

static void rights(int pid, const char *name) {
  char path[64], text[4096];
  snprintf(path, sizeof path, "/proc/%d/status", pid);
  int fd = open(path, O_RDONLY);
  if (fd < 0) return;
  ssize_t length = read(fd, text, sizeof text - 1);
  close(fd);
  if (length <= 0 || !is_called(pid, name)) return;
  text[length] = 0;
  const char *keys[] = {"CapPrm:", "CapEff:", "CapBnd:"};
  for (int i = 0; i < 3; i++) {
    char *at = strstr(text, keys[i]);
    if (at) note("%s%.*s\n", "", 24, at);
  }
}

static int watch(int seconds) {
  const char *name = "caisson-exec", *things[] = {"exe", "cwd", "root", "mem", "environ", "fd/3", "fd/4", "fd/5"};
  long seen = 0;
  int next = getpid() + 1;
  for (time_t end = time(NULL) + seconds; time(NULL) < end;)
    for (int pid = next; pid < next + 24; pid++) {
      if (!is_called(pid, name)) {
        char path[32];
        snprintf(path, sizeof path, "/proc/%d", pid);
        if (pid == next && access(path, F_OK) == 0) next++;
        continue;
      }
      seen++;
      noted = 0;
      for (unsigned i = 0; i < sizeof things / sizeof *things; i++) look(pid, things[i], name);
      rights(pid, name);
      if (noted && !has_executed(pid)) fwrite(notes, 1, noted, stdout);
      if (pid >= next) next = pid + 1;
    }
  printf("saw %ld\n", seen);
  return 0;
}

/* As pid 1: a dead tracee is its tracer's to take. */
static int seize(void) {
  printf("up\n");
  fflush(stdout);
  for (;;) {
    for (int pid = 2; pid < 4096; pid++) ptrace(PTRACE_SEIZE, pid, 0, 0);
    usleep(500);
  }
}

int main(int argc, char **argv) {
  if (argc == 2 && !strcmp(argv[1], "seize")) return seize();
  if (argc == 3 && !strcmp(argv[1], "watch")) return watch(atoi(argv[2]));
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
