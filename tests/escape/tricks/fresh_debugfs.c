/* Mounts debugfs, the kernel's inside. */
#include "../escape.h"

TRICK(fresh_debugfs) {
    mkdir(in_tmp("debug"), 0755);
    if (mount("debugfs", in_tmp("debug"), "debugfs", 0, NULL) < 0) {
        if (errno == ENODEV && getenv("ESC_CONTROL")) return missing("debugfs");
        return blocked("mount debugfs");
    }
    return escaped("mount debugfs");
}
