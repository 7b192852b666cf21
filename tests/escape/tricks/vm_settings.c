/* Opens for writing: how the kernel gives memory away. */
#include "../escape.h"

TRICK(vm_settings) {
    if (access("/proc/sys/vm/overcommit_memory", F_OK) < 0 && errno == ENOENT && getenv("ESC_CONTROL")) return missing("/proc/sys/vm/overcommit_memory");
    TRY(open("/proc/sys/vm/overcommit_memory", O_WRONLY));
    return escaped("open(/proc/sys/vm/overcommit_memory, O_WRONLY)");
}
