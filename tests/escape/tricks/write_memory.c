/* Writes to the memory of a process of the host. */
#include "../escape.h"

TRICK(write_memory) {
    char bytes[64] = "";
    struct iovec here = {bytes, 1}, there = {(void *)(told_number("ESC_ADDRESS") + 40), 1};
    bytes[0] = 'w';
    TRY(process_vm_writev((pid_t)told_number("ESC_PID"), &here, 1, &there, 1, 0));
    return escaped("process_vm_writev");
}
