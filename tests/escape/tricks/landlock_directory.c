/* Under Landlock opens a file by a directory that was passed open. */
#include "../escape.h"

TRICK(landlock_directory) {
    int fd = openat(20, "secret", O_RDONLY);
    TRY(fd);
    return steal(fd, "openat(20, secret)");
}
