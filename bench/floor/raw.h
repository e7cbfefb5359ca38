/*
 * Included before floor.c, which stays as it is: each array of figures that it sorts is first written to descriptor 3,
 * a line each, as numbers in milliseconds. The first line is the rounds' totals, the other six are its stages.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stdio.h>
#include <stdlib.h>

static void raw_sort(void *base, size_t count, size_t size, int (*by)(const void *, const void *)) {
  const double *figures = base;
  for (size_t i = 0; i < count; i++) dprintf(3, "%s%.4f", i ? " " : "", figures[i]);
  dprintf(3, "\n");
  qsort(base, count, size, by);
}
#define qsort raw_sort
