/* Opens for writing: the program that gets cores, which runs as the host's root. */
#include "../escape.h"

TRICK(core_pattern) {
    if (access("/proc/sys/kernel/core_pattern", F_OK) < 0 && errno == ENOENT && getenv("ESC_CONTROL")) return missing("/proc/sys/kernel/core_pattern");
    TRY(open("/proc/sys/kernel/core_pattern", O_WRONLY));
    return escaped("open(/proc/sys/kernel/core_pattern, O_WRONLY)");
}
