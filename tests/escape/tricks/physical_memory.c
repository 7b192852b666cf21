/* Opens the machine's memory. */
#include "../escape.h"

TRICK(physical_memory) {
    if (open("/dev/mem", O_RDONLY) < 0 && open("/proc/kcore", O_RDONLY) < 0) {
        if (errno == ENOENT && getenv("ESC_CONTROL")) return missing("/dev/mem, /proc/kcore");
        return blocked("open(/dev/mem), open(/proc/kcore)");
    }
    return escaped("open");
}
