/* The process whose CPU time and memory a load client reports, and the core that the client itself runs on. */
#ifndef HELIOGRAPH_BENCH_WATCHED_H
#define HELIOGRAPH_BENCH_WATCHED_H

#include "common.h"

#include <sched.h>

/* Seconds of CPU of the watched server, all its threads; 0 when none is watched (pid 0). */
static double watched_cpu_s(int pid) {
    char path[64], text[1024];
    unsigned long user = 0, system = 0;
    if (pid == 0) return 0;
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *file = fopen(path, "r");
    if (file == NULL) die("the server (pid %d) is gone", pid);
    size_t size = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[size] = 0;
    const char *after_name = strrchr(text, ')');
    if (after_name == NULL ||
        sscanf(after_name, ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system) != 2)
        die("cannot read %s", path);
    return (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}

/* Its resident memory. */
UNUSED static int64_t watched_rss_kib(int pid) {
    char path[64];
    long size = 0, resident = 0;
    if (pid == 0) return 0;
    snprintf(path, sizeof path, "/proc/%d/statm", pid);
    FILE *file = fopen(path, "r");
    if (file == NULL || fscanf(file, "%ld %ld", &size, &resident) != 2) die("cannot read %s", path);
    fclose(file);
    return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

/* The CPU time of this process. */
static double own_cpu_s(void) {
    struct rusage own;
    getrusage(RUSAGE_SELF, &own);
    return (double)(own.ru_utime.tv_sec + own.ru_stime.tv_sec) +
           (double)(own.ru_utime.tv_usec + own.ru_stime.tv_usec) / 1e6;
}

/* Stays on one core; anywhere when it is negative. */
static void run_on_core(int core) {
    cpu_set_t cores;
    if (core < 0) return;
    CPU_ZERO(&cores);
    CPU_SET(core, &cores);
    if (sched_setaffinity(0, sizeof cores, &cores)) die("--core %d: %s", core, strerror(errno));
}

#endif
