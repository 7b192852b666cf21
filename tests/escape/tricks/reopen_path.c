/* Opens a file that it may read with O_PATH only, and opens that again for writing. */
#include "../escape.h"

TRICK(reopen_path) {
    char path[512];
    snprintf(path, sizeof path, "%s/file", told("ESC_RO"));
    int fd = open(path, O_PATH);
    if (fd < 0) return broken(path);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    TRY(open(path, O_RDWR));
    return escaped("open(/proc/self/fd/N, O_RDWR)");
}
