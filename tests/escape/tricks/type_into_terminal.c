/* Types into the caller's terminal (CVE-2017-5226). */
#include "../escape.h"

static int terminal_of_caller(void) {
    int fd = open("/dev/tty", O_RDWR | O_NOCTTY);
    return fd >= 0 ? fd : isatty(0) ? 0 : fd;
}

TRICK(type_into_terminal) {
    int fd = terminal_of_caller();
    TRY(fd);
    if (ioctl(fd, TIOCSTI, "#") < 0) {
        if (errno == EIO && getenv("ESC_CONTROL")) return missing("dev.tty.legacy_tiocsti");
        return blocked("ioctl(TIOCSTI)");
    }
    return escaped("ioctl(TIOCSTI)");
}
