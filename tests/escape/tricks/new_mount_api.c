/* Makes a detached copy of a tree by open_tree(2). */
#include "../escape.h"

TRICK(new_mount_api) {
    int fd = syscall(428, AT_FDCWD, "/", 1 /* OPEN_TREE_CLONE */ | O_CLOEXEC);
    if (fd < 0 && errno == ENOSYS && getenv("ESC_CONTROL")) return missing("open_tree");
    TRY(fd);
    return escaped("open_tree(OPEN_TREE_CLONE)");
}
