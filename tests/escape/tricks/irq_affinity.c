/* Opens for writing: which CPUs take interrupts. */
#include "../escape.h"

TRICK(irq_affinity) {
    if (access("/proc/irq/default_smp_affinity", F_OK) < 0 && errno == ENOENT && getenv("ESC_CONTROL")) return missing("/proc/irq/default_smp_affinity");
    TRY(open("/proc/irq/default_smp_affinity", O_WRONLY));
    return escaped("open(/proc/irq/default_smp_affinity, O_WRONLY)");
}
