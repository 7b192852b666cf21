/* Installs a segment of its own by modify_ldt(2). */
#include "../escape.h"

TRICK(local_descriptors) {
#ifdef __x86_64__
    struct { unsigned entry, base, limit, flags; } segment = {0, 0, 0xfffff, 1 | 1 << 4};
    long done = syscall(SYS_modify_ldt, 1, &segment, sizeof segment);
    if (done < 0 && errno == ENOSYS && getenv("ESC_CONTROL")) return missing("modify_ldt");
    /* The kernel gives an int, so an error is no negative long. */
    errno = -(int)done;
    return (int)done < 0 ? blocked("modify_ldt") : escaped("modify_ldt");
#else
    return missing("modify_ldt");
#endif
}
