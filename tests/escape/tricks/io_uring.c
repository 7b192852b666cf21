/* Sets up io_uring, whose operations no filter sees. */
#include "../escape.h"

TRICK(io_uring) {
    char params[120] = "";
    long fd = syscall(425, 4, params);
    if (fd < 0 && (errno == ENOSYS || errno == EPERM) && getenv("ESC_CONTROL")) return missing(errno == EPERM ? "io_uring, closed by kernel.io_uring_disabled" : "io_uring");
    TRY(fd);
    return escaped("io_uring_setup");
}
