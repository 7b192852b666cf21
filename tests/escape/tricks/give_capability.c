/* Gives file capabilities to a program in a shared directory. */
#include "../escape.h"

TRICK(give_capability) {
    struct vfs_cap_data data = {.magic_etc = VFS_CAP_REVISION_2 | VFS_CAP_FLAGS_EFFECTIVE};
    char path[512];
    fresh_name(path, sizeof path, told("ESC_RW"), "caps");
    if (open(path, O_WRONLY | O_CREAT, 0755) < 0) return broken(path);
    data.data[0].permitted = 1u << CAP_NET_RAW;
    TRY(setxattr(path, "security.capability", &data, sizeof data, 0));
    return escaped("setxattr(security.capability)");
}
