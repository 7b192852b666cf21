/* Opens a file of the host by its name. */
#include "../escape.h"

TRICK(host_file) {
    return steal_path(told("ESC_SECRET"));
}
