#include "bench/busy.h"

#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"

enum { FEWEST_PAIRS = 3 };

static const double longest_window = 1;

// A shell that counts until it is killed or its parent is gone. Not a fork of this process: pages
// that are written after one are copied, and huge pages are no longer huge then.
static ember_status start_spinner(pid_t *child)
{
    static char shell[] = "sh", option[] = "-c",
                text[] =
                    "while kill -0 $PPID; do i=0; while [ $i -lt 99999 ]; do i=$((i+1)); done; "
                    "done 2>/dev/null";
    char *const arguments[] = {shell, option, text, NULL};
    const int error = posix_spawn(child, "/bin/sh", NULL, NULL, arguments, environ);
    if (error) {
        errno = error;
        return em_fail_errno("/bin/sh", "cannot be started to spin");
    }
    (void)kill(*child, SIGSTOP);
    return EMBER_OK;
}

static void end_spinner(pid_t child)
{
    (void)kill(child, SIGKILL);
    while (waitpid(child, NULL, 0) < 0 && errno == EINTR) {
    }
}

struct sum {
    double seconds, repeats, least, most; // least and most repeats a second of a window
};

static ember_status window(const struct em_bench_work *work, double length, struct sum *sum)
{
    double seconds = 0, n = 0;
    do {
        double now;
        EM_TRY(work->run(work->context, 0, &now));
        seconds += now;
        n++;
    } while (seconds < length);
    const double rate = n / seconds;
    if (sum->repeats == 0 || rate < sum->least) sum->least = rate;
    if (rate > sum->most) sum->most = rate;
    sum->seconds += seconds;
    sum->repeats += n;
    return EMBER_OK;
}

static ember_status windows(const struct em_bench_job *job, const struct em_bench_work *work,
                            pid_t child, struct sum sum[2])
{
    const double seconds = job->options->seconds;
    const double length = seconds > 0 && seconds < longest_window ? seconds : longest_window;
    const double end = em_clock_seconds() + 2 * seconds;
    for (unsigned pairs = 0; pairs < FEWEST_PAIRS || em_clock_seconds() < end; pairs++)
        for (unsigned busy = 0; busy < 2; busy++) {
            (void)kill(child, busy ? SIGCONT : SIGSTOP);
            EM_TRY(window(work, length, &sum[busy]));
        }
    return EMBER_OK;
}

ember_status em_bench_add_busy(const struct em_bench_job *job, const struct em_bench_work *work,
                               json_t *out)
{
    if (!job->options->busy) return EMBER_OK;
    struct sum sum[2] = {0};
    pid_t child;
    EM_TRY(start_spinner(&child));
    const ember_status status = windows(job, work, child, sum);
    end_spinner(child);
    EM_TRY(status);
    const double quiet = sum[0].repeats / sum[0].seconds;
    return em_bench_add(out, json_pack("{s:f, s:f, s:f}", "kept",
                                       sum[1].repeats / sum[1].seconds / quiet, "kept_least",
                                       sum[1].least / quiet, "kept_most", sum[1].most / quiet));
}
