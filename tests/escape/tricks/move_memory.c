/* Moves the memory of a process of the host between nodes. */
#include "../escape.h"

TRICK(move_memory) {
    unsigned long from = 1, to = 1;
    long done = syscall(SYS_migrate_pages, (pid_t)told_number("ESC_PID"), 64, &from, &to);
    if (done < 0 && errno == ENOSYS && getenv("ESC_CONTROL")) return missing("migrate_pages");
    TRY(done);
    return escaped("migrate_pages");
}
