/* Walks out of a directory that the caller left open (CVE-2024-21626). */
#include "../escape.h"

TRICK(leaked_directory) {
    for (int fd = 3; fd < 64; fd++) {
        int file = openat(fd, "../secret", O_RDONLY);
        if (file >= 0) return steal(file, "openat(fd, ../secret)");
    }
    return blocked("openat(fd, ../secret)");
}
