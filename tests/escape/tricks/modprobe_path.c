/* Opens for writing: the program that loads modules, which runs as the host's root. */
#include "../escape.h"

TRICK(modprobe_path) {
    if (access("/proc/sys/kernel/modprobe", F_OK) < 0 && errno == ENOENT && getenv("ESC_CONTROL")) return missing("/proc/sys/kernel/modprobe");
    TRY(open("/proc/sys/kernel/modprobe", O_WRONLY));
    return escaped("open(/proc/sys/kernel/modprobe, O_WRONLY)");
}
