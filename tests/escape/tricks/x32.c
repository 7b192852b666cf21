/* Makes a call by its x32 number, which a filter may not know. */
#include "../escape.h"

TRICK(x32) {
#ifdef __x86_64__
    long done = syscall(0x40000000 | SYS_getpid);
    if (done < 0 && errno == ENOSYS && getenv("ESC_CONTROL")) return missing("x32");
    TRY(done);
    return escaped("x32 getpid");
#else
    return missing("x32");
#endif
}
