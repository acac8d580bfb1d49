/* Says when things happen to it, by the monotonic clock, which all processes share.
   flood FILE: writes blocks of 80-byte lines for ever; upon SIGTERM it writes the time into FILE, and ends.
   line:       writes the time as a line to stdout, and lives on. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int file = 1;

/* Only what may be called in a signal handler. */
static void put_time(void) {
    struct timespec now;
    char text[32] = "0000000000.000000000\n";
    clock_gettime(CLOCK_MONOTONIC, &now);
    for (int at = 9; at >= 0; at--, now.tv_sec /= 10) text[at] = (char)('0' + now.tv_sec % 10);
    for (int at = 19; at > 10; at--, now.tv_nsec /= 10) text[at] = (char)('0' + now.tv_nsec % 10);
    if (write(file, text, 21) != 21) _exit(3);
}

static void end(int number) {
    (void)number;
    put_time();
    _exit(0);
}

int main(int argc, char **argv) {
    enum { LINE = 80, LINES = 819 }; /* just under 64 KiB */
    static char block[LINE * LINES];
    if (argc == 2 && strcmp(argv[1], "line") == 0) {
        put_time();
        for (;;) pause();
    }
    if (argc != 3 || strcmp(argv[1], "flood") != 0) return 2;
    if ((file = open(argv[2], O_WRONLY | O_CREAT | O_TRUNC, 0600)) < 0) return 1;
    signal(SIGTERM, end);
    signal(SIGPIPE, SIG_IGN); /* it may come together with the other, and first */
    memset(block, 'a', sizeof block);
    for (int i = 1; i <= LINES; i++) block[i * LINE - 1] = '\n';
    for (;;)
        if (write(1, block, sizeof block) < 0) return 1;
}
