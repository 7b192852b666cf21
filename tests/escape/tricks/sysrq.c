/* Opens for writing: the trigger that can reboot the machine. */
#include "../escape.h"

TRICK(sysrq) {
    if (access("/proc/sysrq-trigger", F_OK) < 0 && errno == ENOENT && getenv("ESC_CONTROL")) return missing("/proc/sysrq-trigger");
    TRY(open("/proc/sysrq-trigger", O_WRONLY));
    return escaped("open(/proc/sysrq-trigger, O_WRONLY)");
}
