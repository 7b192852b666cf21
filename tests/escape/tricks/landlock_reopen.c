/* Under Landlock opens a file with O_PATH, and that again for reading. */
#include "../escape.h"

TRICK(landlock_reopen) {
    char path[64];
    int fd = openat(20, "secret", O_PATH);
    if (fd < 0) return broken("openat(20, secret, O_PATH)");
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return steal_path(path);
}
