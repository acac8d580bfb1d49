/* Writes COUNT lines of 80 bytes to stdout: MODE block = 64 KiB a write, line = one write a line, byte = one byte a write. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void put(const char *data, size_t length) {
    while (length > 0) {
        ssize_t done = write(1, data, length);
        if (done < 0) exit(1);
        data += done;
        length -= (size_t)done;
    }
}

int main(int argc, char **argv) {
    enum { LINE = 80, LINES = 819 }; /* 819 lines are just under 64 KiB */
    static char block[LINE * LINES];
    if (argc != 3) return 2;
    long count = atol(argv[2]);
    for (int i = 0; i < LINES; i++) {
        memset(block + i * LINE, 'a' + i % 26, LINE - 1);
        block[i * LINE + LINE - 1] = '\n';
    }
    if (strcmp(argv[1], "block") == 0)
        for (; count > 0; count -= LINES) put(block, LINE * (count < LINES ? (size_t)count : LINES));
    else if (strcmp(argv[1], "line") == 0)
        for (long i = 0; i < count; i++) put(block + i % LINES * LINE, LINE);
    else
        for (long i = 0; i < count * LINE; i++) put(block + i % (LINE * LINES), 1);
    return 0;
}
