// Runs a fuzz target over files and folders of files, where there is no libFuzzer.
#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t replayed;

static int complain(const char *path)
{
    fprintf(stderr, "%s: %s\n", path, strerror(errno));
    return 1;
}

static int replay_file(const char *path, size_t size)
{
    FILE *f = fopen(path, "rb");
    if (!f) return complain(path);
    uint8_t *data =
        malloc(size ? size : 1); // exactly so long: AddressSanitizer sees a read past the end
    const size_t got = data ? fread(data, 1, size, f) : 0;
    fclose(f);
    if (!data || got != size) {
        free(data);
        return complain(path);
    }
    (void)LLVMFuzzerTestOneInput(data, size);
    free(data);
    replayed++;
    return 0;
}

static int replay(const char *path)
{
    struct stat s;
    if (stat(path, &s) != 0) return complain(path);
    if (!S_ISDIR(s.st_mode)) return replay_file(path, (size_t)s.st_size);
    DIR *directory = opendir(path);
    if (!directory) return complain(path);
    int failed = 0;
    for (const struct dirent *entry; (entry = readdir(directory));) {
        if (entry->d_name[0] == '.') continue;
        char child[4096];
        snprintf(child, sizeof child, "%s/%s", path, entry->d_name);
        failed |= replay(child);
    }
    closedir(directory);
    return failed;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: %s FILE_OR_FOLDER...\n", argv[0]);
        return 2;
    }
    int failed = 0;
    for (int i = 1; i < argc; i++)
        failed |= replay(argv[i]);
    (void)LLVMFuzzerTestOneInput((const uint8_t *)"", 0); // an empty input belongs to every corpus
    printf("%zu inputs replayed\n", replayed);
    return failed;
}
