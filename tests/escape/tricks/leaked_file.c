/* Writes to a file that the caller left open. */
#include "../escape.h"

TRICK(leaked_file) {
    for (int fd = 3; fd < 64; fd++) {
        if (pwrite(fd, "changed", 7, 0) == 7) return escaped("pwrite to an inherited descriptor");
    }
    return blocked("pwrite to an inherited descriptor");
}
