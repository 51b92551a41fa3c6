// The peer of `ember bench fftconv`: the same gated causal convolution by FFTW's real transforms of
// twice the length, planned with FFTW_MEASURE, the kernel's spectrum made beforehand, rows [B, H, L]
// shared out to threads. Prints the median time of a pass in nanoseconds an element.
// usage: fftconv_fftw B H L GATED THREADS SECONDS
#define _GNU_SOURCE
#include <complex.h>
#include <fftw3.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MOST = 64, REPEATS = 4096 };

static size_t B, H, L;
static int gated;
static unsigned threads;
static float *u, *pre, *post, *y;
static fftwf_complex *kernel; // [H, L + 1]
static fftwf_plan forward, inverse;
static float *real[MOST];
static fftwf_complex *spectrum[MOST];
static pthread_barrier_t begin, end;
static int done;

static void row(size_t r, unsigned t)
{
    const float *x = u + r * L, *g = pre + r * L, *o = post + r * L;
    const fftwf_complex *k = kernel + r % H * (L + 1);
    float *v = real[t];
    if (gated)
        for (size_t i = 0; i < L; i++)
            v[i] = x[i] * g[i];
    else
        memcpy(v, x, L * sizeof *v);
    memset(v + L, 0, L * sizeof *v);
    fftwf_execute_dft_r2c(forward, v, spectrum[t]);
    for (size_t i = 0; i <= L; i++) {
        const float a = crealf(spectrum[t][i]), b = cimagf(spectrum[t][i]), c = crealf(k[i]),
                    d = cimagf(k[i]);
        ((float *)spectrum[t])[2 * i] = a * c - b * d;
        ((float *)spectrum[t])[2 * i + 1] = a * d + b * c;
    }
    fftwf_execute_dft_c2r(inverse, spectrum[t], v);
    for (size_t i = 0; i < L; i++)
        y[r * L + i] = gated ? v[i] * o[i] : v[i];
}

static void share(unsigned t)
{
    for (size_t r = B * H * t / threads; r < B * H * (t + 1) / threads; r++)
        row(r, t);
}

static void *work(void *arg)
{
    for (;;) {
        pthread_barrier_wait(&begin);
        if (done) return NULL;
        share((unsigned)(size_t)arg);
        pthread_barrier_wait(&end);
    }
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, z = *(const double *)b;
    return (x > z) - (x < z);
}

static float *random_floats(size_t n)
{
    float *x = fftwf_malloc(n * sizeof *x);
    if (!x) exit(1);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)rand() / (float)RAND_MAX - 0.5f;
    return x;
}

static void make_kernel(void)
{
    kernel = fftwf_malloc(H * (L + 1) * sizeof *kernel);
    if (!kernel) exit(1);
    for (size_t h = 0; h < H; h++) {
        for (size_t i = 0; i < 2 * L; i++)
            real[0][i] = i < L ? ((float)rand() / (float)RAND_MAX - 0.5f) / (float)(2 * L) : 0;
        fftwf_execute_dft_r2c(forward, real[0], spectrum[0]);
        memcpy(kernel + h * (L + 1), spectrum[0], (L + 1) * sizeof *kernel);
    }
}

int main(int argc, char **argv)
{
    if (argc != 7) return 2;
    B = strtoul(argv[1], NULL, 10), H = strtoul(argv[2], NULL, 10), L = strtoul(argv[3], NULL, 10);
    gated = atoi(argv[4]);
    threads = (unsigned)atoi(argv[5]);
    if (!B || !H || !L || !threads || threads > MOST) return 2;
    for (unsigned t = 0; t < threads; t++) {
        real[t] = random_floats(2 * L);
        spectrum[t] = (fftwf_complex *)(void *)random_floats(2 * (L + 1));
    }
    forward = fftwf_plan_dft_r2c_1d((int)(2 * L), real[0], spectrum[0], FFTW_MEASURE);
    inverse = fftwf_plan_dft_c2r_1d((int)(2 * L), spectrum[0], real[0], FFTW_MEASURE);
    make_kernel();
    u = random_floats(B * H * L), pre = random_floats(B * H * L), post = random_floats(B * H * L);
    y = random_floats(B * H * L);
    pthread_barrier_init(&begin, NULL, threads);
    pthread_barrier_init(&end, NULL, threads);
    pthread_t id[MOST];
    for (unsigned t = 1; t < threads; t++)
        pthread_create(&id[t], NULL, work, (void *)(size_t)t);
    static double times[REPEATS];
    const double limit = now() + atof(argv[6]);
    size_t n = 0;
    for (int warm = 1; n < REPEATS && (n < 3 || now() < limit); warm = 0) {
        const double start = now();
        pthread_barrier_wait(&begin);
        share(0);
        pthread_barrier_wait(&end);
        if (!warm) times[n++] = now() - start;
    }
    done = 1;
    pthread_barrier_wait(&begin);
    for (unsigned t = 1; t < threads; t++)
        pthread_join(id[t], NULL);
    qsort(times, n, sizeof *times, ascending);
    printf("%.4f\n", 1e9 * times[n / 2] / (double)(B * H * L));
    return 0;
}
