/* Reads the memory of a process of the host. */
#include "../escape.h"

TRICK(read_memory) {
    char bytes[64];
    struct iovec here = {bytes, sizeof bytes}, there = {(void *)told_number("ESC_ADDRESS"), sizeof bytes};
    TRY(process_vm_readv((pid_t)told_number("ESC_PID"), &here, 1, &there, 1, 0));
    return has_secret(bytes, sizeof bytes) ? escaped("process_vm_readv") : blocked("somebody else");
}
