/* Opens a file that it may read, and opens it again for writing through /proc/self/fd. */
#include "../escape.h"

TRICK(reopen_for_writing) {
    char path[512];
    snprintf(path, sizeof path, "%s/file", told("ESC_RO"));
    int fd = open(path, O_RDONLY);
    if (fd < 0) return broken(path);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    TRY(open(path, O_WRONLY));
    return escaped("open(/proc/self/fd/N, O_WRONLY)");
}
