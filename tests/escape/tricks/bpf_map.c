/* Makes a BPF map. */
#include "../escape.h"

TRICK(bpf_map) {
    struct { uint32_t type, key, value, entries; char rest[64]; } attr = {2, 4, 4, 1, ""};
    long fd = syscall(SYS_bpf, 0, &attr, sizeof attr);
    if (fd < 0 && errno == ENOSYS && getenv("ESC_CONTROL")) return missing("bpf");
    TRY(fd);
    return escaped("bpf(BPF_MAP_CREATE)");
}
