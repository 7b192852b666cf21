/* Measures the machine by perf_event_open(2). */
#include "../escape.h"

TRICK(performance_events) {
    struct { uint32_t type, size; uint64_t config, period, sample, read, flags; char rest[72]; } attr = {1, 120, 0, 0, 0, 0, 1 << 5 | 1 << 6, ""};
    long fd = syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0);
    if (fd < 0 && (errno == ENOSYS || errno == ENOENT || errno == EACCES || errno == EOPNOTSUPP) && getenv("ESC_CONTROL")) return missing("perf events for this user");
    TRY(fd);
    return escaped("perf_event_open");
}
