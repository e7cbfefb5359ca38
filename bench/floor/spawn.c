/*
 * Times a command from posix_spawn to the end of its process, as a small program would start it:
 *
 *   spawn [--runs N] [--warmup N] [--parallel N] [--overlay ROOTFS SCRATCH TARGET] [--dir DIR] [--open FILE]
 *         -- COMMAND [WORD ...]
 *
 * `%` in a word, in TARGET and in DIR is replaced by the number of the lane, 0 to N-1 of --parallel: ids and bundles of
 * runs that overlap differ by it. With --overlay each run finds a fresh overlay of ROOTFS mounted at TARGET; mounting it
 * before and unmounting and emptying it after a run are outside the timed part. With --open each run finds FILE open for
 * reading as descriptor 10. The command's standard descriptors are
 * /dev/null, but errors: those are this program's. Prints one JSON array of milliseconds, in the order of the ends.
 * It fails at the first command that does not exit with 0.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { LANES = 64, PATH = 4096 };
extern char **environ;

static const char *rootfs, *scratch, *target, *dir, *opened;
static char **command;
static struct lane { pid_t pid; int run; double begun; } lanes[LANES];

static void fail(const char *what) {
  dprintf(2, "spawn: %s: %s\n", what, strerror(errno));
  exit(1);
}
static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

/* The word with each % replaced by the lane. */
static char *of_lane(const char *word, int lane) {
  char text[2 * PATH], number[8];
  size_t used = 0;
  int digits = snprintf(number, sizeof number, "%d", lane);
  for (; *word; word++) {
    if (used + sizeof number >= sizeof text) fail("a word is too long");
    if (*word == '%') memcpy(text + used, number, digits), used += digits;
    else text[used++] = *word;
  }
  text[used] = 0;
  char *copy = strdup(text);
  if (!copy) fail("strdup");
  return copy;
}

static int remove_one(const char *path, const struct stat *stat, int kind, struct FTW *walk) {
  (void)stat, (void)kind, (void)walk;
  return remove(path);
}
static void empty(const char *path) {
  if (nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT) && errno != ENOENT) fail(path);
}
static void layer_paths(int lane, char upper[PATH], char work[PATH]) {
  snprintf(upper, PATH, "%s/u%d", scratch, lane);
  snprintf(work, PATH, "%s/w%d", scratch, lane);
}
static void mount_overlay(int lane) {
  char upper[PATH], work[PATH], options[3 * PATH + 64];
  layer_paths(lane, upper, work);
  empty(upper), empty(work);
  if (mkdir(upper, 0755) || mkdir(work, 0755)) fail(upper);
  snprintf(options, sizeof options, "lowerdir=%s,upperdir=%s,workdir=%s", rootfs, upper, work);
  char *at = of_lane(target, lane);
  if (mkdir(at, 0755) && errno != EEXIST) fail(at);
  if (mount("overlay", at, "overlay", 0, options)) fail(at);
  free(at);
}
static void unmount_overlay(int lane) {
  char upper[PATH], work[PATH];
  layer_paths(lane, upper, work);
  char *at = of_lane(target, lane);
  if (umount2(at, MNT_DETACH)) fail(at);
  free(at);
  empty(upper), empty(work);
}

static void begin(int lane, int run) {
  if (target) mount_overlay(lane);
  int count = 0;
  while (command[count]) count++;
  char **words = calloc(count + 1, sizeof *words);
  if (!words) fail("calloc");
  for (int i = 0; i < count; i++) words[i] = of_lane(command[i], lane);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
  if (opened) posix_spawn_file_actions_addopen(&actions, 10, opened, O_RDONLY, 0);
  char *at = dir ? of_lane(dir, lane) : NULL;
  if (at) posix_spawn_file_actions_addchdir_np(&actions, at);
  lanes[lane].run = run;
  lanes[lane].begun = now();
  errno = posix_spawnp(&lanes[lane].pid, words[0], &actions, NULL, words, environ);
  if (errno) fail(words[0]);
  posix_spawn_file_actions_destroy(&actions);
  for (int i = 0; i < count; i++) free(words[i]);
  free(words), free(at);
}

static int number(const char *text, int least, int most) {
  char *end;
  long value = strtol(text, &end, 10);
  if (*end || value < least || value > most) { errno = EINVAL; fail(text); }
  return value;
}

int main(int argc, char **argv) {
  int runs = 20, warmup = 2, parallel = 1, i = 1;
  for (; i < argc && strcmp(argv[i], "--"); i++) {
    if (!strcmp(argv[i], "--runs") && i + 1 < argc) runs = number(argv[++i], 1, 100000);
    else if (!strcmp(argv[i], "--warmup") && i + 1 < argc) warmup = number(argv[++i], 0, 1000);
    else if (!strcmp(argv[i], "--parallel") && i + 1 < argc) parallel = number(argv[++i], 1, LANES);
    else if (!strcmp(argv[i], "--dir") && i + 1 < argc) dir = argv[++i];
    else if (!strcmp(argv[i], "--open") && i + 1 < argc) opened = argv[++i];
    else if (!strcmp(argv[i], "--overlay") && i + 3 < argc) rootfs = argv[i + 1], scratch = argv[i + 2], target = argv[i + 3], i += 3;
    else break;
  }
  if (i >= argc - 1 || strcmp(argv[i], "--")) {
    dprintf(2, "usage: spawn [--runs N] [--warmup N] [--parallel N] [--overlay ROOTFS SCRATCH TARGET] [--dir DIR] [--open FILE] -- COMMAND [WORD ...]\n");
    return 2;
  }
  command = argv + i + 1;
  if (target && mkdir(scratch, 0700) && errno != EEXIST) fail(scratch);

  int all = warmup + runs, begun = 0, ended = 0;
  double *took = calloc(runs, sizeof *took);
  if (!took) fail("calloc");
  for (; begun < parallel && begun < all; begun++) begin(begun, begun);
  for (int done = 0; done < all; done++) {
    int status;
    pid_t pid = waitpid(-1, &status, 0);
    double at = now();
    if (pid < 0) fail("waitpid");
    int lane = 0;
    while (lane < LANES && lanes[lane].pid != pid) lane++;
    /* Not ours to wait for: a process that a command left behind comes to us only if we are its parent. */
    if (lane == LANES) { done--; continue; }
    lanes[lane].pid = 0;
    if (target) unmount_overlay(lane);
    if (!WIFEXITED(status) || WEXITSTATUS(status)) {
      dprintf(2, "spawn: %s ended with status %#x\n", command[0], status);
      for (int other = 0; other < LANES; other++) if (lanes[other].pid) kill(lanes[other].pid, SIGKILL), waitpid(lanes[other].pid, NULL, 0);
      if (target) for (int other = 0; other < parallel; other++) if (lanes[other].pid) unmount_overlay(other);
      return 1;
    }
    if (lanes[lane].run >= warmup) took[ended++] = at - lanes[lane].begun;
    if (begun < all) begin(lane, begun), begun++;
  }
  printf("[");
  for (int run = 0; run < ended; run++) printf("%s%.4f", run ? "," : "", took[run]);
  printf("]\n");
  return 0;
}
