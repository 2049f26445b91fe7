/* replay.c - feeds every file of a directory to a fuzz target: the corpora run with any compiler.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay(const char *path)
{
    static uint8_t bytes[1 << 20];
    FILE *f = fopen(path, "rb");
    if (!f)
        return 1;
    size_t n = fread(bytes, 1, sizeof bytes, f);
    fclose(f);
    /* In memory of its own size: a sanitizer sees the first byte beyond. */
    uint8_t *copy = malloc(n ? n : 1);
    if (!copy)
        return 1;
    for (size_t i = 0; i < n; i++)
        copy[i] = bytes[i];
    LLVMFuzzerTestOneInput(copy, n);
    free(copy);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    DIR *d = opendir(argv[1]);
    if (!d) {
        fprintf(stderr, "%s: no corpus\n", argv[1]);
        return 1;
    }
    struct dirent *e;
    int n = 0, failed = 0;
    while ((e = readdir(d))) {
        char path[1024];
        if (e->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "%s/%s", argv[1], e->d_name);
        failed |= replay(path);
        n++;
    }
    closedir(d);
    LLVMFuzzerTestOneInput((const uint8_t *)"", 0);
    printf("%d files\n", n);
    return failed || n == 0;
}
