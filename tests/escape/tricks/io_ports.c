/* Asks for the machine's input and output ports. */
#include "../escape.h"

TRICK(io_ports) {
#ifdef __x86_64__
    long done = syscall(SYS_iopl, 3);
    if (done < 0 && errno == ENOSYS && getenv("ESC_CONTROL")) return missing("iopl");
    TRY(done);
    return escaped("iopl(3)");
#else
    return missing("ports");
#endif
}
