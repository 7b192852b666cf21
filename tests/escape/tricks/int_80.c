/* Makes a call by the 32-bit gate, where numbers mean something else. */
#include "../escape.h"

#ifdef __x86_64__
static int probe_gate(void *unused) {
    int done;
    (void)unused;
    asm volatile("int $0x80" : "=a"(done) : "a"(20) : "memory", "r8", "r9", "r10", "r11");
    return done == getpid() ? 0 : 1;
}
#endif

TRICK(int_80) {
#ifdef __x86_64__
    int done;
    int status = in_child(probe_gate, NULL);
    if (status == -SIGSEGV && getenv("ESC_CONTROL")) return missing("32-bit calls");
    if (status != 0) return errno = 0, blocked("int 0x80");
    asm volatile("int $0x80" : "=a"(done) : "a"(20) : "memory", "r8", "r9", "r10", "r11");
    errno = -done;
    return done == getpid() ? escaped("int 0x80: getpid") : blocked("int 0x80");
#else
    return missing("int 0x80");
#endif
}
