/* Raises the number of user namespaces that it may make. */
#include "../escape.h"

TRICK(more_user_namespaces) {
    if (write_file("/proc/sys/user/max_user_namespaces", "1000") == 0) return escaped("write(max_user_namespaces)");
    mkdir(in_tmp("p"), 0755);
    TRY(mount("proc", in_tmp("p"), "proc", 0, NULL));
    TRY(write_file(in_tmp("p/sys/user/max_user_namespaces"), "1000"));
    return escaped("mount proc, write(max_user_namespaces)");
}
